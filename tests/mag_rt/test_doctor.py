"""`magrt doctor` tells a support engineer the truth, on machines without a GPU and with one."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mag_rt import bundle as bundles
from mag_rt import doctor_command, engines
from mag_rt.cli import app
from mag_rt.cuda import Gpu
from mag_rt.device_memory import DeviceArray
from mag_rt.driver import CudaError
from mag_rt.engines import EngineError, Spec
from mag_rt.errors import MagrtError
from mag_rt.findings import Failure
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
    return result.exit_code, {check["name"]: check for check in report["checks"]}


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
    assert checks["scan"]["state"] == "ok" and "pictures/s of 128 x 96" in checks["scan"]["says"]


def test_a_library_without_a_gpu_is_not_called_usable(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command, "load_library", lambda rtx: double.library())
    status, checks = run()
    assert status == 0 and checks["tensorrt"]["state"] == "missing"
    assert checks["tensorrt"]["says"] == "10.3.0 is installed, and has no GPU here that our kernels run on"


def test_for_people_it_prints_a_line_for_each_part(no_gpu: None) -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    for part in ("magrt", "model", "onnxruntime", "openvino", "gpu", "tensorrt", "tensorrt-rtx", "scan"):
        assert any(line.split()[:1] == [part] for line in result.stdout.splitlines()), part


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
        shapes = [(count, 3, *size) for count, size in zip(spec.batch, spec.sizes, strict=True)]
        return engines.Built(double.serialise(network, {"image": shapes}), b"")

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
    assert "compute capability" in checks["gpu"]["says"] and "driver of CUDA" in checks["gpu"]["says"]
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
    benchmark.measure("float16", False, 9)
    head, line = capsys.readouterr().out.splitlines()
    assert "4 pictures to a run; bus" in head
    assert line.split()[:3] == ["40", "x", "30"] and "alone (x " in line and "GB/s" in line


def test_kernels_that_compute_something_else_are_found(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Gpu.prepare

    def wrong(self: Gpu, *, out: DeviceArray, stream: Any, **arguments: Any) -> None:
        prepare(self, out=out, stream=stream, **arguments)
        self.zero(out, stream)

    monkeypatch.setattr(Gpu, "prepare", wrong)
    with Gpu(64 << 20) as gpu:
        kernels = doctor_command.tried(
            "kernels", lambda: doctor_command.kernels_agree(gpu, bundles.load(bundles.bundled()))
        )
    assert kernels.state == "broken" and "grey levels from what the CPU makes" in kernels.says


def test_masks_that_differ_or_fail_are_found(no_gpu: None) -> None:
    with pytest.raises(MagrtError, match="a check picture failed: 3 values"):
        doctor_command._masks_apart([Failure("overflow", "3 values")], [Failure("overflow", "")])
