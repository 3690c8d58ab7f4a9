"""`magrt build` writes a real engine in seconds, or says in one line why it cannot."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from mag_rt import build_command, engines
from mag_rt.bundle import Bundle
from mag_rt.cli import app
from mag_rt.device_memory import Arena
from mag_rt.driver import CudaError
from mag_rt.engines import Built
from mag_rt.parity import Agreement, Annotate, ParityError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["build", *map(str, arguments)])


def one_line(result: Result) -> str:
    """What was said on stderr: a line that is no traceback."""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("magrt: "), result.stderr
    return result.stderr


pytestmark = pytest.mark.usefixtures("without_pycuda")


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (Linux on x86-64 has it)")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(("precision", "name"), [("fp16", "float16"), ("fp32", "float32"), ("int8", "int8")])
def test_the_shipped_bundle_becomes_an_engine(tmp_path: Path, precision: str, name: str) -> None:
    result = run("--rtx", "--out", tmp_path, "--precision", precision, "--batch", "1,2,8", "--size", "64,96x128,256")
    assert result.exit_code == 0, result.output
    (engine,) = tmp_path.glob("*.engine")
    assert str(engine) in result.stdout and "TensorRT-RTX" in result.stdout
    assert f"{engine.stat().st_size / 1e6:.1f} MB" in result.stdout
    notes = json.loads(engine.with_suffix(".json").read_text())
    assert notes["bytes"] == engine.stat().st_size > 1_000_000
    facts = notes["facts"]
    assert (facts["precision"], facts["batch"], facts["library"]) == (name, [1, 2, 8], "tensorrt_rtx")
    assert facts["sizes"] == [[64, 64], [96, 128], [256, 256]]


@pytest.mark.usefixtures("rtx")
def test_without_a_folder_it_goes_to_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("--rtx", "--size", "64").exit_code == 0
    assert len(list((tmp_path / "magrt" / "engines").glob("edge-float16-*.engine"))) == 1


@pytest.mark.usefixtures("rtx")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("--rtx", "--size", "64", "--out", tmp_path / "file")
    assert result.exit_code == 4 and "cannot write the engine to" in one_line(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch", "1,2"], "--batch takes MIN,OPT,MAX or one value, not 1,2"),
        (["--batch", "few"], "--batch takes"),
        (["--batch", "4,2,8"], "batch 4,2,8 is not smallest, best, largest"),
        (["--size", "32x64y"], "--size takes"),
        (["--size", "500"], "takes multiples of 32, not 500"),
        (["--size", "512x500"], "takes multiples of 32, not 500"),
        (["--size", "512,256,1024"], "is not smallest, best, largest"),
    ],
)
def test_what_makes_no_engine_is_told_before_anything_is_built(options: list[str], said: str) -> None:
    result = run("--rtx", *options)
    assert result.exit_code == 2 and said in one_line(result)


@pytest.mark.parametrize(("flags", "name"), [([], "tensorrt"), (["--rtx"], "tensorrt_rtx")])
def test_without_the_library_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    result = run(*flags)
    assert result.exit_code == 2 and "is not installed: pip install 'magrt[" in one_line(result)


def test_a_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 2 and str(tmp_path) in one_line(result)


@pytest.mark.usefixtures("rtx")
def test_a_precision_that_the_bundle_lacks_is_named(red_model: Path) -> None:
    result = run(red_model, "--rtx")
    assert result.exit_code == 2 and "no float16 network (it has float32)" in one_line(result)


class Device:
    """A GPU with an arena as large as it is asked to be, and no memory behind it."""

    name = "Orin"

    def __init__(self, arena_bytes: int, capability: tuple[int, int]) -> None:
        self.arena, self.capability = Arena(4096, arena_bytes), capability


@contextmanager
def annotating(trt: Any, engine: bytes, bundle: Bundle, gpu: Device) -> Iterator[Annotate]:
    def annotate(images: NDArray[np.float32]) -> NDArray[np.float32]:
        gpu.arena.take(images.shape, np.float32)
        maps = gpu.arena.take((len(images), 2 + len(bundle.classes), *images.shape[2:]), np.float32)
        return np.broadcast_to(np.float32(0), maps.shape)

    yield annotate


@pytest.fixture
def gpu_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a GPU and a library of TensorRT into the machine that builds at once."""

    def gate(annotate: Annotate, bundle: Bundle, precision: str, batch: int, size: tuple[int, int]) -> Agreement:
        annotate(np.broadcast_to(np.float32(0), (batch, 3, *size)))
        return Agreement(0, 0, 1)

    def library(rtx: bool) -> ModuleType:
        module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
        module.__version__ = "10.3.0"  # type: ignore[attr-defined]
        return module

    def put(capability: tuple[int, int]) -> None:
        def opened(arena_bytes: int) -> AbstractContextManager[Device]:
            return nullcontext(Device(arena_bytes, capability))

        monkeypatch.setattr(build_command, "Gpu", opened)

    monkeypatch.setattr(engines, "build", lambda *_: Built(b"engine", b""))
    monkeypatch.setattr(engines, "gate", gate)
    monkeypatch.setattr(build_command, "load_library", library)
    monkeypatch.setattr(build_command, "annotating", annotating)
    return put


@pytest.mark.parametrize("options", [(), ("--size", "1024", "--batch", "16"), ("--size", "32", "--batch", "1")])
def test_there_is_room_to_check_an_engine_of_any_batch(
    gpu_of: Callable[..., None], tmp_path: Path, options: tuple[str, ...]
) -> None:
    gpu_of((8, 7))
    result = run("--out", tmp_path, *options)
    assert result.exit_code == 0 and "agrees with float32" in result.stdout, result.stderr
    (sidecar,) = tmp_path.glob("*.json")
    assert json.loads(sidecar.read_text())["agreements"] == {"Orin": {"probability": 0, "mask": 0, "iou": 1}}


def test_an_engine_that_disagrees_is_not_written(
    gpu_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gate(*_: object) -> Agreement:
        raise ParityError("the float16 network disagrees")

    gpu_of((8, 7))
    monkeypatch.setattr(engines, "gate", gate)
    result = run("--out", tmp_path)
    assert result.exit_code == 2 and one_line(result) == "magrt: the float16 network disagrees\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flags", "status"), [((), 2), (("--rtx",), 0)])
def test_without_a_gpu_it_says_why_there_is_none(
    gpu_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, ...], status: int
) -> None:
    def no_driver(arena_bytes: int) -> None:
        raise CudaError("the NVIDIA driver finds no GPU")

    monkeypatch.setattr(build_command, "Gpu", no_driver)
    result = run("--out", tmp_path, *flags)
    assert result.exit_code == status and "the NVIDIA driver finds no GPU" in result.output
    assert len(list(tmp_path.glob("*.engine"))) == (status == 0)


def test_a_gpu_that_rtx_does_not_run_on_does_not_keep_it_from_building_for_others(
    gpu_of: Callable[..., None], tmp_path: Path
) -> None:
    gpu_of((7, 5))
    result = run("--rtx", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert "unchecked: TensorRT-RTX engines need compute capability 8.0; Orin has 7.5" in result.stdout
    (sidecar,) = tmp_path.glob("*.json")
    assert "agreements" not in json.loads(sidecar.read_text())


@pytest.mark.parametrize(
    ("options", "scanned_with"),
    [((), True), (("--precision", "fp32"), True), (("--size", "512", "--batch", "8"), False)],
)
def test_an_engine_that_no_scan_takes_is_called_so(
    gpu_of: Callable[..., None], tmp_path: Path, options: tuple[str, ...], scanned_with: bool
) -> None:
    gpu_of((8, 7))
    result = run("--out", tmp_path, *options)
    assert result.exit_code == 0 and ("scans take the engine of the default" in result.stdout) != scanned_with
