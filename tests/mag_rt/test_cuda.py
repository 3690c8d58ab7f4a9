"""What a user of mag_rt.cuda may rely on: the reason when it cannot run, arrays that are checked, the same findings."""

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from mag_rt import Finding, Scanner, bundle
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu
from mag_rt.device_memory import ALIGNMENT, Arena, DeviceArray, DoesNotFitError
from mag_rt.driver import CudaError, load_kernels, ptx, release
from mag_rt.errors import MagrtError
from mag_rt.findings import grey_level, read, score, verdict
from mag_rt.layout import counts
from mag_rt.pictures import Normalisation, Picture, pad, shrink
from tests.conftest import grey_with_red_box
from tests.kernels.board import Board
from tests.kernels.fixtures import cuda as cuda
from tests.kernels.fixtures import gpu as gpu
from tests.kernels.fixtures import open_gpu as open_gpu

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/photos"


class NoDriver(ModuleType):
    """A pycuda.driver that goes as far as a test wants."""

    class Error(Exception):
        pass

    event_flags = SimpleNamespace(DEFAULT=0, DISABLE_TIMING=2)

    def __init__(self, *, devices: int = 1, capability: tuple[int, int] = (8, 7), fails: str = "") -> None:
        super().__init__("pycuda.driver")
        self.fails = fails
        self.Device = type("Device", (), {})
        self.Device.count = staticmethod(lambda: devices)
        self.Device.__init__ = lambda self, ordinal: None
        self.Device.name = lambda self: "Some GPU"
        self.Device.compute_capability = lambda self: capability

    def init(self) -> None:
        if self.fails == "init":
            raise self.Error("cuInit failed: no CUDA-capable device is detected")

    def module_from_buffer(self, code: bytes) -> None:
        raise self.Error("cuModuleLoadDataEx failed: the provided PTX was compiled with an unsupported toolchain. - \n")

    def get_driver_version(self) -> int:
        return 12020


def use(monkeypatch: pytest.MonkeyPatch, driver: ModuleType) -> None:
    package = ModuleType("pycuda")
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (NoDriver(fails="init"), "finds no GPU to work with: cuInit failed: no CUDA-capable device"),
        (NoDriver(devices=0), "the NVIDIA driver finds no GPU"),
        (NoDriver(capability=(6, 1)), r"Some GPU has compute capability 6\.1, the kernels need 7\.5"),
    ],
)
def test_says_in_a_line_why_it_cannot_run(monkeypatch: pytest.MonkeyPatch, driver: NoDriver, reason: str) -> None:
    use(monkeypatch, driver)
    with pytest.raises(CudaError, match=reason) as caught:
        Gpu(1 << 20)
    assert "\n" not in str(caught.value) and isinstance(caught.value, MagrtError)


def test_says_that_the_driver_is_too_old_for_the_ptx() -> None:
    reason = r"of CUDA 12\.2, does not load the kernels, of PTX 8\.5; .* unsupported toolchain\. - $"
    with pytest.raises(CudaError, match=reason):
        load_kernels(NoDriver())


def test_says_that_the_ptx_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mag_rt.driver.__file__", str(tmp_path / "mag_rt/driver.py"))
    with pytest.raises(CudaError, match=r"magrt\.ptx is missing: install magrt again"):
        ptx()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            "raise ModuleNotFoundError(\"No module named 'pycuda'\", name='pycuda')",  # as without it
            "pycuda is not installed: pip install pycuda; "
            "'magrt[gpu-cu12]', 'magrt[gpu-cu13]' and 'magrt[rtx]' bring it",
        ),
        (
            "import pytools_that_is_missing",
            "pycuda is incomplete: No module named 'pytools_that_is_missing'",
        ),
        (
            "raise ImportError('libcuda.so.1: cannot open shared object file')",
            "pycuda finds no NVIDIA driver that it works with: libcuda.so.1: cannot open shared object file",
        ),
    ],
)
def test_says_what_to_install(tmp_path: Path, module: str, message: str) -> None:
    (tmp_path / "pycuda").mkdir()
    (tmp_path / "pycuda/__init__.py").write_text(module)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", "from mag_rt.cuda import Gpu; Gpu(1 << 20)"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.stderr.splitlines()[-1] == f"mag_rt.driver.CudaError: {message}"


def test_an_arena_hands_out_aligned_pieces_until_it_is_full() -> None:
    arena = Arena(4096 + 8, 4096)
    one = arena.take((3, 5), np.float16)
    assert one.pointer % ALIGNMENT == 0 and one.pitch == 10 and one.contiguous and one.nbytes == 30
    picture = arena.take((4, 7, 3), np.uint8, aligned_rows=True)
    assert picture.pointer % ALIGNMENT == 0 and picture.pointer >= one.pointer + one.nbytes
    assert picture.pitch == 32 and not picture.contiguous and picture.nbytes == 128
    with pytest.raises(DoesNotFitError, match="4096 bytes do not fit into the 3336 that are left"):
        arena.take((4096,), np.uint8)
    last = arena.take((3336,), np.uint8)  # a refusal takes nothing away
    assert last.pointer + last.nbytes == arena.pointer + arena.nbytes
    arena.clear()
    assert arena.take((1,), np.uint8).pointer == one.pointer
    with pytest.raises(ValueError, match="an array of"):
        arena.take((2, 0), np.uint8)


def current_context() -> int:
    """The context that is current for this thread, 0 for none."""
    context = ctypes.c_void_p()
    assert ctypes.CDLL("libcuda.so.1").cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value or 0


@pytest.fixture
def no_pytorch() -> None:
    """PyTorch, where an earlier test has used it on a GPU, keeps the primary context for as long as the process is."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        pytest.skip("PyTorch has the primary context of this process")


def primary_is_active() -> bool:
    flags, active = ctypes.c_uint(), ctypes.c_int()
    driver = ctypes.CDLL("libcuda.so.1")
    assert driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active)) == 0
    return bool(active.value)


def test_works_in_any_thread_and_leaves_no_context_behind(gpu: Gpu) -> None:
    board, failures = Board(gpu), []

    def work() -> None:
        try:
            board.put(np.ones((1, 1), np.uint8))
            assert current_context() == 0
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures and current_context() == 0


@pytest.mark.usefixtures("no_pytorch")
def test_gives_everything_back(open_gpu: Any) -> None:
    gpu = open_gpu(1 << 20)
    stream, staging = gpu.stream(), gpu.pinned((64,), np.uint8)
    target, result = gpu.arena.take((64,), np.uint8), np.zeros(64, np.uint8)
    staging[:] = 7
    gpu.upload(staging, target, stream)
    gpu.download(target, result, stream)
    assert primary_is_active()
    gpu.close()
    gpu.close()
    assert (result == 7).all()  # work under way was waited for
    assert not primary_is_active() and current_context() == 0
    with pytest.raises(ValueError, match="does not lie in this GPU's arena"):
        gpu.upload(np.zeros(64, np.uint8), target, stream)


@pytest.mark.usefixtures("no_pytorch")
def test_others_in_the_process_live_on(open_gpu: Any) -> None:
    """As torch would: it holds the primary context before, and uses it afterwards."""
    open_gpu(1 << 20).close()  # loads the driver
    driver, context, memory = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_uint64()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxPushCurrent_v2(context) == 0
    assert driver.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4)) == 0
    assert driver.cuMemcpyHtoD_v2(memory, b"mine", ctypes.c_size_t(4)) == 0
    before = free_memory(driver)
    with open_gpu(64 << 20):
        assert current_context() == context.value and free_memory(driver) <= before - (64 << 20)
    assert current_context() == context.value and free_memory(driver) > before - (32 << 20)
    kept = ctypes.create_string_buffer(4)
    assert driver.cuMemcpyDtoH_v2(kept, memory, ctypes.c_size_t(4)) == 0 and kept.raw == b"mine"
    assert driver.cuMemFree_v2(memory) == 0
    assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0
    assert primary_is_active() and driver.cuDevicePrimaryCtxRelease_v2(0) == 0
    assert not primary_is_active()


def free_memory(driver: ctypes.CDLL) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value


@pytest.mark.usefixtures("no_pytorch")
def test_gives_everything_back_in_another_thread(open_gpu: Any) -> None:
    gpu = open_gpu(1 << 20)
    thread = threading.Thread(target=gpu.close)
    thread.start()
    thread.join()
    assert not primary_is_active() and current_context() == 0


@pytest.mark.parametrize(("system", "library"), [("posix", "libcuda.so.1"), ("nt", "nvcuda.dll")])
def test_the_primary_context_goes_back_through_the_systems_own_driver(
    monkeypatch: pytest.MonkeyPatch, system: str, library: str
) -> None:
    opened, calls = [], []

    def open_library(name: str) -> Any:
        opened.append(name)
        return SimpleNamespace(
            cuDeviceGet=lambda *_: calls.append("get"), cuDevicePrimaryCtxRelease_v2=lambda *_: calls.append("release")
        )

    monkeypatch.setattr("mag_rt.driver.os", SimpleNamespace(name=system))
    monkeypatch.setattr("mag_rt.driver.ctypes", SimpleNamespace(CDLL=open_library, c_int=ctypes.c_int, byref=id))
    release(SimpleNamespace(detach=lambda: None), 0)
    assert opened == [library] and calls == ["get", "release"]


@pytest.mark.usefixtures("no_pytorch")
def test_gives_everything_back_when_memory_is_short(open_gpu: Any) -> None:
    with pytest.raises(CudaError, match=r"cannot allocate \d+ MiB of device memory, \d+ MiB are free"):
        open_gpu(1 << 50)
    assert not primary_is_active() and current_context() == 0


def test_refuses_a_device_that_is_not_there(open_gpu: Any) -> None:
    with pytest.raises(CudaError, match="there is no CUDA device 99"):
        open_gpu(1 << 20, 99)


def blend_arguments(board: Board) -> dict[str, Any]:
    shape = (2, 3, 4, 8)
    return {
        "colour": board.room(shape, np.float16),
        "alpha": board.room((2, 1, 4, 8), np.float16),
        "image": board.room(shape, np.float16),
        "out": board.room(shape, np.float16),
        "stream": board.stream,
    }


def test_arguments_are_checked_by_name(gpu: Gpu) -> None:
    board = Board(gpu)
    good = blend_arguments(board)
    foreign = DeviceArray(gpu.arena.pointer + gpu.arena.nbytes - 8, (2, 3, 4, 8), np.dtype(np.float16), 192)
    shifted = DeviceArray(good["colour"].pointer + 2, (2, 3, 4, 8), np.dtype(np.float16), 192)
    odd = DeviceArray(good["colour"].pointer + 1, (2, 3, 4, 8), np.dtype(np.float16), 192)
    cases = [
        ("alpha", board.room((2, 3, 4, 8), np.float16), "alpha must be 2 x 1 x 4 x 8, not 2 x 3 x 4 x 8"),
        ("image", board.room((2, 3, 4, 8), np.float32), "image must be float16, not float32"),
        ("out", board.room((2, 3, 4, 8), np.int16), "the kernels take float16 and float32, not int16"),
        ("colour", board.room((2, 3, 4, 8), np.float16, gap=16), "colour has rows 208 bytes apart"),
        ("colour", foreign, "colour does not lie in this GPU's arena"),
        ("out", shifted, "out overlaps colour"),
        ("colour", odd, "colour is not aligned"),
    ]
    for name, wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            gpu.attention_blend(**{**good, name: wrong})
    with pytest.raises(ValueError, match="a copy between"):
        gpu.upload(np.zeros((2, 3, 4, 8), np.float32), good["out"], board.stream)


def at(array: DeviceArray, like: DeviceArray) -> DeviceArray:
    """An array like another one, where `array` lies."""
    return DeviceArray(array.pointer, like.shape, like.dtype, like.pitch)


def test_sums_of_tiles_lie_apart_from_what_they_are_made_of(gpu: Gpu) -> None:
    board = Board(gpu)
    good = {
        "tiles": board.room((2, 3, 32, 32), np.float32),
        "total": board.room((3, 32, 32), np.float32),
        "weight": board.room((32, 32), np.float32),
    }
    board.room((3, 32, 32), np.float32)  # so that what lies at the weight ends before the corners
    good["corners"] = board.room((2, 2), np.int32)
    pairs = [("total", "corners"), ("total", "tiles"), ("total", "weight"), ("weight", "tiles"), ("weight", "corners")]
    for name, other in pairs:
        with pytest.raises(ValueError, match=f"{name} overlaps {other}"):
            wrong = {**good, name: at(good[other], good[name])}
            gpu.accumulate_tiles(**wrong, overlap=4, stream=board.stream)
    with pytest.raises(ValueError, match="total overlaps weight"):
        weight = at(good["total"], good["weight"])
        gpu.normalise_tiles(total=good["total"], weight=weight, stream=board.stream)


def test_counts_lie_apart_from_the_maps(gpu: Gpu) -> None:
    board = Board(gpu)
    maps, statistics = board.room((1, 3, 32, 32), np.float32), board.statistics(1)
    with pytest.raises(ValueError, match="statistics overlaps maps"):
        gpu.finish(
            maps=maps,
            masks=board.place([board.room((20, 30), np.uint8)]),
            threshold=128,
            statistics=at(maps, statistics),
            stream=board.stream,
        )


def test_a_batch_is_checked_before_it_is_sent(gpu: Gpu) -> None:
    board = Board(gpu)
    picture, mask = board.room((20, 30, 3), np.uint8), board.room((20, 30), np.uint8)
    with pytest.raises(ValueError, match=r"a picture of \(20, 30\) cannot be placed at \(21, 30\)"):
        board.place([picture], [(21, 30)])
    long = DeviceArray(picture.pointer, (1, 32768), np.dtype(np.uint8), 32768)
    with pytest.raises(DoesNotFitError, match="a side of 32768 pixels; the kernels take up to 32767"):
        board.place([long], [(1, 32)])
    out = board.room((1, 3, 32, 32), np.float16)
    normalisation = Normalisation(1.0, 0.0)
    with pytest.raises(ValueError, match="pictures must hold pictures of 3 channels"):
        gpu.prepare(pictures=board.place([mask]), normalisation=normalisation, out=out, stream=board.stream)
    with pytest.raises(ValueError, match="placed beyond the plane"):
        small = board.room((1, 3, 16, 32), np.float16)
        gpu.prepare(pictures=board.place([picture]), normalisation=normalisation, out=small, stream=board.stream)
    with pytest.raises(ValueError, match="out must be 2 x 3 x 32 x 32"):
        gpu.prepare(pictures=board.place([picture, picture]), normalisation=normalisation, out=out, stream=board.stream)
    with pytest.raises(ValueError, match="kernels take up to 32"):
        gpu.finish(
            maps=board.room((1, 33, 32, 32), np.float16),
            masks=board.place([mask]),
            threshold=128,
            statistics=board.statistics(1),
            stream=board.stream,
        )


def finding_by_kernels(board: Board, model: Bundle, picture: Picture, dtype: DTypeLike, max_side: int) -> Finding:
    """prepare -> ONNX Runtime on the host -> finish -> findings."""
    gpu, size = board.gpu, picture.shape[:2]
    placed = shrink(picture, max_side).shape[:2]
    plane = pad(np.zeros((*placed, 3), np.uint8), model.multiple).shape[:2]
    image = board.room((1, 3, *plane), dtype)
    photo = gpu.arena.take(picture.shape, np.uint8, aligned_rows=True)
    rows = np.zeros((size[0], photo.pitch), np.uint8)
    rows[:, : 3 * size[1]] = picture.reshape(size[0], -1)
    gpu.upload(rows.reshape(-1), DeviceArray(photo.pointer, (photo.nbytes,), np.dtype(np.uint8), 1), board.stream)
    gpu.prepare(
        pictures=board.place([photo], [placed]), normalisation=model.normalisation, out=image, stream=board.stream
    )
    backend = OnnxRuntimeBackend(model)
    maps = backend.probabilities(board.get(image).astype(np.float32)).astype(dtype)
    backend.close()
    mask, statistics = board.room(size, np.uint8), board.statistics(1)
    gpu.finish(
        maps=board.put(maps),
        masks=board.place([mask], [placed]),
        threshold=grey_level(model.mask_threshold),
        statistics=statistics,
        stream=board.stream,
    )
    (record,) = board.get(statistics)
    counted = counts(record, len(model.classes))
    reading = read((board.get(mask), counted), model.mask_threshold, model.classes)
    value = score(reading.evidence, reading.pixels, model.calibration)
    return Finding(
        None,
        width=size[1],
        height=size[0],
        score=value,
        verdict=verdict(value, reading.pixels, model.calibration),
        regions=reading.regions,
        objects=reading.objects,
        mask=reading.mask,
        picture=picture,
    )


def check_alike(found: Finding, expected: Finding, tolerance: float) -> None:
    """`tolerance` is for the score; a mask is known to half a grey level, and its contour to a pixel or two."""
    assert found.score == pytest.approx(expected.score, abs=tolerance)
    assert found.verdict == expected.verdict
    assert np.abs(found.probability - expected.probability).max() <= tolerance + 1 / 255
    assert [each.name for each in found.objects] == [each.name for each in expected.objects]
    for one, other in zip(found.objects, expected.objects, strict=True):
        assert one.area_fraction == pytest.approx(other.area_fraction, abs=tolerance)
    assert len(found.regions) == len(expected.regions)
    for one, other in zip(found.regions, expected.regions, strict=True):
        assert np.abs(np.subtract(one.bbox, other.bbox)).max() <= 2
        assert one.area_fraction == pytest.approx(other.area_fraction, abs=tolerance)
        assert one.score == pytest.approx(other.score, abs=tolerance + 0.5 / 255)
        assert cv2.contourArea(np.array(one.polygon)) == pytest.approx(
            cv2.contourArea(np.array(other.polygon)), rel=0.05, abs=20
        )


PICTURES: dict[str, NDArray[np.uint8]] = {
    "one pixel": np.full((1, 1, 3), 255, np.uint8),
    "odd": grey_with_red_box(97, 131, (20, 30, 40, 25)),
    "two boxes, shrunk": np.hstack(
        [grey_with_red_box(300, 331, (31, 47, 120, 90)), grey_with_red_box(300, 300, (100, 100, 77, 88))]
    ),
    "nothing red": grey_with_red_box(64, 64),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-3), (np.float16, 5e-3)])
def test_the_finding_is_that_of_the_cpu(
    gpu: Gpu, red_bundle: Bundle, red_model: Path, name: str, dtype: DTypeLike, tolerance: float
) -> None:
    with Scanner(red_model, backend="onnxruntime") as scanner:
        expected = scanner.scan_image(PICTURES[name])
    found = finding_by_kernels(Board(gpu), red_bundle, PICTURES[name], dtype, red_bundle.max_side)
    check_alike(found, expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0.01), (np.float16, 0.02)])
def test_the_finding_of_a_photo_is_that_of_the_cpu(gpu: Gpu, dtype: DTypeLike, tolerance: float) -> None:
    """The annotator that ships, on a splice that is shrunk to 320 pixels."""
    picture = cv2.imread(str(EXAMPLES / "spliced-dog-stream.jpg"))
    with Scanner(max_side=320, backend="onnxruntime") as scanner:
        expected = scanner.scan_image(picture)
    found = finding_by_kernels(Board(gpu), bundle.load(bundle.bundled()), picture, dtype, 320)
    check_alike(found, expected, tolerance)
