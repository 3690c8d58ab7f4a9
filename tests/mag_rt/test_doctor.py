"""`magrt doctor` tells a support engineer the truth, on machines without a GPU and with one."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mag_rt import bundle as bundles
from mag_rt import doctor_command, engines
from mag_rt.bundle import Bundle
from mag_rt.cli import app
from mag_rt.cuda import Gpu
from mag_rt.driver import CudaError
from mag_rt.engines import EngineError, Spec
from mag_rt.errors import BackendError, BundleError, MagrtError
from mag_rt.findings import Failure, Reading
from mag_rt.parity import check_pictures
from mag_rt.pictures import Picture
from tests import tensorrt_double as double
from tests.kernels.fixtures import cuda as cuda
from tests.kernels.fixtures import open_gpu as open_gpu

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's own cache is looked at or written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "CHECKED", (96, 128))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(*arguments: Any) -> None:
        raise CudaError("the NVIDIA driver finds no GPU")

    monkeypatch.setattr(doctor_command, "Gpu", no_driver)


def run(*arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit status, and the checks by name."""
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    assert result.exit_code in (0, 2), result.output
    report = json.loads(result.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert report["usable"] == ("scan" in checks and checks["scan"]["state"] == "ok")
    return result.exit_code, checks


def test_a_machine_without_a_gpu_is_a_good_machine(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(rtx: bool) -> None:
        raise EngineError(f"it is not installed: pip install {rtx}")

    monkeypatch.setattr(doctor_command, "load_library", nothing)
    status, checks = run()
    assert status == 0
    assert (checks["gpu"]["state"], checks["gpu"]["says"]) == ("missing", "the NVIDIA driver finds no GPU")
    assert checks["tensorrt"]["says"] == "it is not installed: pip install False"
    assert checks["tensorrt-rtx"]["says"] == "it is not installed: pip install True"
    assert "kernels" not in checks
    assert checks["scan"]["state"] == "ok"
    assert re.search(r"pictures/s of 128 x 96: \w+", checks["scan"]["says"])  # and why
    assert checks["magrt"]["state"] == checks["model"]["state"] == "ok"


def test_a_library_without_a_gpu_is_not_called_usable(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "load_library", lambda rtx: double.library())
    status, checks = run()
    assert status == 0 and checks["tensorrt"]["state"] == "missing"
    assert checks["tensorrt"]["says"] == "10.3.0 is installed, and has no GPU here that our kernels run on"


def test_for_people_it_prints_a_line_for_each_part(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(rtx: bool) -> None:
        raise EngineError("it is not installed: pip install 'magrt[rtx]'")

    monkeypatch.setattr(doctor_command, "load_library", nothing)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for part in ("magrt", "model", "onnxruntime", "openvino", "gpu", "tensorrt", "tensorrt-rtx", "scan"):
        assert any(line.split()[:1] == [part] for line in result.stdout.splitlines()), part
    assert "pip install 'magrt[rtx]'" in result.stdout  # which is no markup


def test_a_broken_model_is_said_and_fails(tmp_path: Path) -> None:
    status, checks = run("--model", str(tmp_path))
    assert status == 2 and checks["model"]["state"] == "broken" and "bundle.json is missing" in checks["model"]["says"]
    assert "scan" not in checks


def test_the_backend_asked_for_must_run(no_gpu: None) -> None:
    status, checks = run("--backend", "onnxruntime")
    assert status == 0 and checks["scan"]["says"].startswith("runs on onnxruntime ")
    status, checks = run("--backend", "tensorrt")
    assert status == 2 and checks["scan"]["state"] == "broken" and "\n" not in checks["scan"]["says"]
    status, checks = run("--backend", "abacus")
    assert status == 2 and "abacus" in checks["scan"]["says"]


def test_a_library_that_crashes_is_broken(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(rtx: bool) -> None:
        raise RuntimeError("undefined symbol:\n _ZN")

    monkeypatch.setattr(doctor_command, "load_library", crash)
    status, checks = run()
    assert status == 2 and checks["tensorrt"]["state"] == "broken"
    assert checks["tensorrt"]["says"] == "RuntimeError: undefined symbol: _ZN"


@pytest.fixture
def host(open_gpu: Callable[..., Gpu], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A GPU with TensorRT: both real, or the CUDA host and the double, that builds its engines of the network given."""
    if "device" in request.node.callspec.id:
        try:
            engines.load_library(rtx=False)
        except EngineError as error:
            pytest.skip(str(error))
        return

    def build(trt: Any, network: bytes, spec: Spec, timings: bytes = b"") -> engines.Built:
        return engines.Built(double.serialise(network, {"image": spec.shapes}), b"")

    def load(rtx: bool) -> Any:
        if rtx:
            raise EngineError("TensorRT-RTX is not installed")
        return double.library()

    monkeypatch.setattr(engines, "build", build)
    monkeypatch.setattr("mag_rt.backends.tensorrt.load_library", load)
    monkeypatch.setattr(doctor_command, "load_library", load)
    monkeypatch.setattr("mag_rt.backends.tensorrt.ARENA_BYTES", 128 << 20)
    monkeypatch.setattr(doctor_command, "TIMED", (96, 128))  # the host is no GPU
    monkeypatch.setattr(engines, "CHECK_SIZE", (96, 128))


def test_on_a_gpu_it_proves_the_whole_path(host: None) -> None:
    status, checks = run()
    assert status == 0
    described = re.search(r"compute capability \d+\.\d, (\d+) MiB, driver of CUDA 1\d\.\d", checks["gpu"]["says"])
    assert described is not None and int(described[1]) > 64, checks["gpu"]
    assert checks["kernels"]["says"].endswith("prepare and finish are within a grey level of the CPU")
    assert checks["tensorrt"]["state"] == "ok", checks["tensorrt"]
    assert "engine newly built" in checks["tensorrt"]["says"] and "agrees with float32" in checks["tensorrt"]["says"]
    _, again = run()
    assert "engine in the cache since" in again["tensorrt"]["says"]


def test_the_benchmark_runs(host: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_of_the_gpu", ROOT / "benchmarks/gpu.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for name, value in {"SIZES": [(30, 40)], "ROUNDS": 1, "COPY": 1 << 20}.items():
        monkeypatch.setattr(benchmark, name, value)
    benchmark.measure("float16", False, 9, False)
    head, line = capsys.readouterr().out.splitlines()
    assert "4 pictures to a run; bus" in head
    assert line.split()[:3] == ["40", "x", "30"] and "alone (x " in line and "GB/s" in line


@pytest.mark.parametrize(
    ("kernel", "spoilt", "said"),
    [("prepare", "out", "grey levels from what the CPU makes"), ("finish", "statistics", "finish is 256 grey levels")],
)
def test_kernels_that_compute_something_else_are_found(
    host: None, monkeypatch: pytest.MonkeyPatch, kernel: str, spoilt: str, said: str
) -> None:
    right = getattr(Gpu, kernel)

    def wrong(self: Gpu, *, stream: Any, **arguments: Any) -> None:
        right(self, stream=stream, **arguments)
        self.zero(arguments[spoilt], stream)

    monkeypatch.setattr(Gpu, kernel, wrong)
    checks = {check.name: check for check in doctor_command._gpu(bundle())}
    assert checks["kernels"].state == "broken" and said in checks["kernels"].says
    assert "no GPU here that our kernels run on" in checks["tensorrt"].says


def test_masks_of_the_kernels_that_are_not_the_cpus_are_found(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "map_back", lambda plane, size: np.zeros(size, np.float32))
    with Gpu(64 << 20) as gpu, pytest.raises(MagrtError, match=r"finish is \d+ grey levels from the masks of the CPU"):
        doctor_command.kernels_agree(gpu, bundle())


def bundle() -> Bundle:
    return bundles.load(bundles.bundled())


def of_grey(level: int) -> Reading:
    return Reading(0.0, 4, [], [], np.full((2, 2), level, np.uint8))


def test_masks_that_differ_or_fail_are_found(no_gpu: None) -> None:
    with pytest.raises(MagrtError, match="a check picture failed: 3 values"):
        doctor_command._masks_apart([Failure("overflow", "3 values")], [Failure("overflow", "")])
    assert doctor_command._masks_apart([of_grey(0), of_grey(9)], [of_grey(2), of_grey(9)]) == 1
    with pytest.raises(MagrtError, match=r"are 3\.0 grey levels from those of the CPU"):
        doctor_command._masks_apart([of_grey(0), of_grey(9)], [of_grey(6), of_grey(9)])


@pytest.mark.parametrize(
    ("installed", "error", "state"),
    [
        (False, BackendError("not installed"), "missing"),
        (True, BackendError("cannot be loaded"), "broken"),
        (True, BundleError("damaged"), "broken"),
    ],
)
def test_a_backend_that_is_not_there_is_missing_and_one_that_fails_is_broken(
    monkeypatch: pytest.MonkeyPatch, installed: bool, error: MagrtError, state: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(doctor_command, "open_reader", refuse)
    monkeypatch.setattr(doctor_command, "find_spec", lambda name: name if installed else None)
    check = doctor_command._on_cpu(bundle(), "openvino")
    assert (check.name, check.state, check.says) == ("openvino", state, str(error))


def test_the_speed_is_of_all_pictures_by_a_reader_that_has_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def reader(pictures: list[Picture], sizes: list[tuple[int, int]]) -> list[Reading]:
        calls.append(len(pictures))
        return [of_grey(0)] * len(pictures)

    reader.batch = 4  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor_command, "time", SimpleNamespace(perf_counter=iter([1.0, 3.0]).__next__))
    speed, readings = doctor_command._speed(reader, check_pictures((32, 32)))  # type: ignore[arg-type]
    assert speed == 3 and len(readings) == 6 and calls == [4, 4, 2]
