"""Large pictures, whole and in tiles: every pixel is read, no seam shows. What reads is the best here, and says why."""

import sys
from collections.abc import Callable, Set
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mag_rt.backends.choice import Choice
from mag_rt.bundle import Bundle
from mag_rt.driver import CudaError
from mag_rt.errors import BackendError, BundleError
from mag_rt.findings import Failure, Reading
from mag_rt.pictures import as_grey
from mag_rt.reading import HostReader, open_reader, tiling


class OutOfMemory:
    """A backend for which there is memory for one picture only."""

    name, version, precision = "poor", "1", "float32"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == 2:
            raise MemoryError
        return np.zeros((1, 12, *images.shape[2:]), np.uint8)

    def close(self) -> None: ...


def test_a_picture_that_memory_lacks_for_costs_one_picture(red_bundle: Bundle) -> None:
    reader = HostReader(OutOfMemory(), red_bundle, 256, tiles=False, threads=1)
    first, failure, last = reader([np.zeros((64, 64, 3), np.uint8)] * 3, [(64, 64)] * 3)
    assert failure == Failure("too-large", "there is not enough memory to read it")
    assert isinstance(first, Reading) and isinstance(last, Reading)


class Patterned:
    """A backend whose map is what is drawn into the picture's red channel, and whose dogs are where green is bright.

    With `frame` it errs near the border of what it is shown, as a network does that lacks the pixels beyond.
    """

    name, version, precision = "patterned", "1", "float32"

    def __init__(self, frame: int = 0) -> None:
        self.frame = frame
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        annotation = np.zeros((1, 12, *images.shape[2:]), np.float32)
        annotation[:, 0] = (images[:, 0] + 1) / 2
        annotation[:, 9] = 0.497 + 0.005 * (images[:, 1] > 0)  # just likely, or just not
        if self.frame:
            inner = np.zeros(images.shape[2:], bool)
            inner[self.frame : -self.frame, self.frame : -self.frame] = True
            annotation[0, 0][~inner] = 1
        return as_grey(annotation)

    def close(self) -> None: ...


def read(backend: Patterned, bundle: Bundle, picture: np.ndarray, side: int = 256, tiles: bool = True) -> Reading:
    (reading,) = HostReader(backend, bundle, side, tiles, 1)([picture], [picture.shape[:2]])
    assert isinstance(reading, Reading)
    return reading


def together(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What two masks say: the mean of their log-odds, grey levels of which 2% are doubted."""
    odds = sum(np.log((level / 255 + 0.02) / (1.02 - level / 255)) for level in (one, other)) / 2
    return 255 * (1.02 * np.exp(odds) - 0.02) / (1 + np.exp(odds))


def check_close_look(reading: Reading, whole: Reading, truth: np.ndarray) -> None:
    """That the second look says the truth within a grey level, going by what both say and the whole one alone."""
    low, high = (together(whole.mask, np.clip(truth.astype(float) + step, 0, 255)) for step in (-1, 1))
    assert (reading.mask >= low - 0.501).all() and (reading.mask <= high + 0.501).all()


@pytest.mark.parametrize("length", [1, 31, 256, 257, 300, 447, 448, 449, 700, 1023, 5000])
@pytest.mark.parametrize("side", [32, 96, 256, 1024])
def test_the_weights_of_all_tiles_sum_to_one_everywhere(length: int, side: int) -> None:
    total = np.zeros(length)
    for start, weights in tiling(length, side):
        assert start >= 0 and start + len(weights) <= length and weights.min() >= 0
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("length", [257, 300, 449, 700, 3000, 4001])
@pytest.mark.parametrize("side", [32, 96, 256, 1024])
def test_tiles_begin_where_jpeg_blocks_do_and_share_what_they_need(length: int, side: int) -> None:
    tiles = [(start, start + len(weights)) for start, weights in tiling(length, side)]
    assert all(start % 16 == 0 for start, _ in tiles)
    for (before, end), (after, _) in pairwise(tiles):
        assert end - after >= min(128, side // 4) and after > before


@pytest.mark.parametrize("shape", [(700, 900), (257, 256), (256, 1000), (1000, 40), (300, 300)])
def test_what_is_read_in_tiles_is_what_is_there(red_bundle: Bundle, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    whole = read(Patterned(), red_bundle, picture, tiles=False)
    backend = Patterned()
    reading = read(backend, red_bundle, picture)
    check_close_look(reading, whole, picture[..., 2])
    assert np.abs(reading.mask - together(whole.mask, picture[..., 2])).mean() <= 0.5
    assert (reading.evidence, reading.pixels, reading.objects) == (whole.evidence, whole.pixels, whole.objects)
    assert {side % 32 for shape in backend.shapes for side in shape[2:]} == {0}
    assert max(max(shape[2:]) for shape in backend.shapes) <= 256


def test_seams_do_not_show_where_a_tile_errs_at_its_border(red_bundle: Bundle) -> None:
    """The outer 16 pixels of a tile count for nothing where a neighbour sees further.

    Those of the whole picture, which is shrunk for the first look, are 25 of its own.
    """
    picture = np.zeros((800, 800, 3), np.uint8)
    reading = read(Patterned(frame=16), red_bundle, picture, side=512)
    assert not reading.mask[27:-27, 27:-27].any() and (reading.mask[:16] == 255).all()


@pytest.mark.parametrize(("side", "largest"), [(250, 224), (20, 32)])
def test_tiles_are_as_the_network_takes_them_and_nothing_is_made_up_between_them(
    red_bundle: Bundle, side: int, largest: int
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    backend = Patterned()
    reading = read(backend, red_bundle, picture, side)
    whole = read(Patterned(), red_bundle, picture, side, tiles=False)
    check_close_look(reading, whole, picture[..., 2])
    first, *tiles = (shape[2:] for shape in backend.shapes)
    assert first == (-(-side // 32) * 32,) * 2 and set(tiles) == {(largest, largest)}


def test_a_small_picture_needs_no_tiles(red_bundle: Bundle) -> None:
    backend = Patterned()
    read(backend, red_bundle, np.zeros((256, 200, 3), np.uint8))
    assert backend.shapes == [(1, 3, 256, 224)]


@pytest.mark.parametrize(("cores", "threads"), [(2, 2), (64, 4), (None, 1)])
def test_no_more_pictures_are_read_at_the_same_time_than_memory_is_for(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, cores: int | None, threads: int
) -> None:
    asked = []

    def choose(bundle: Bundle, backend: str, precision: str, calls: int) -> Choice:
        asked.append(calls)
        return Choice(Patterned(), "")

    monkeypatch.setattr("mag_rt.reading.choose", choose)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert open_reader(red_bundle, 256, False, "onnxruntime").threads == threads and asked == [threads]


NO_GPU = CudaError("the NVIDIA driver finds no GPU")
Put = Callable[..., list[tuple[bool, bool, str]]]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Put:
    """Puts a machine together of what is installed and what opens there; tells what was asked of a GPU."""

    def machine(installed: Set[str], opens: Set[str] = frozenset()) -> list[tuple[bool, bool, str]]:
        asked = []

        def open_tensorrt(bundle: Bundle, max_side: int, tiles: bool, *, precision: str, rtx: bool) -> Any:
            asked.append((rtx, tiles, precision))
            if ("tensorrt_rtx" if rtx else "tensorrt") not in opens:
                raise NO_GPU
            return SimpleNamespace(fell_back=False)

        monkeypatch.setattr("mag_rt.reading.find_spec", lambda name: name in installed)
        monkeypatch.setattr("mag_rt.backends.choice.find_spec", lambda name: None)
        monkeypatch.setattr("mag_rt.backends.tensorrt.open_tensorrt", open_tensorrt)
        return asked

    return machine


BOTH = {"pycuda", "tensorrt", "tensorrt_rtx"}


@pytest.mark.parametrize(
    ("installed", "opens", "tried"),
    [
        (BOTH, BOTH, [False]),
        (BOTH, {"tensorrt_rtx"}, [False, True]),
        ({"pycuda", "tensorrt_rtx"}, BOTH, [True]),
        ({"tensorrt", "tensorrt_rtx"}, BOTH, []),  # nothing to launch the kernels with
        ({"pycuda"}, BOTH, []),
    ],
)
def test_the_first_library_that_opens_on_a_gpu_is_taken_else_the_cpu(
    red_bundle: Bundle, put: Put, installed: set[str], opens: set[str], tried: list[bool]
) -> None:
    asked = put(installed, opens)
    reader = open_reader(red_bundle, 256, True)
    assert asked == [(rtx, True, "float16") for rtx in tried]
    assert not reader.fell_back and isinstance(reader, HostReader) == (not tried)
    assert ("there is a GPU with an engine" in reader.reason) == bool(tried)


@pytest.mark.parametrize(("backend", "rtx"), [("tensorrt", False), ("tensorrt-rtx", True)])
def test_a_gpu_that_was_asked_for_is_taken_or_its_error_told(
    red_bundle: Bundle, put: Put, backend: str, rtx: bool
) -> None:
    asked = put(BOTH, BOTH)
    open_reader(red_bundle, 256, False, backend, "float32")
    assert asked == [(rtx, False, "float32")]
    put(BOTH)
    with pytest.raises(CudaError, match=str(NO_GPU)):
        open_reader(red_bundle, 256, False, backend)


def test_who_falls_back_to_the_cpu_is_told_why_in_the_line_that_says_what_is_taken(
    red_bundle: Bundle, put: Put
) -> None:
    put(BOTH)
    reader = open_reader(red_bundle, 256, False)
    assert reader.fell_back and reader.name == "onnxruntime"
    assert reader.reason == (
        f"not tensorrt: {NO_GPU}; not tensorrt-rtx: {NO_GPU}; "
        "openvino, which is faster, is not installed; float32 is the faster one there"
    )


@pytest.mark.parametrize(
    ("precision", "kind", "also"),
    [("float16", BackendError, "no precision float16 on the CPU"), ("int8", BundleError, "has no int8 network")],
)
def test_where_the_cpu_fails_too_one_line_says_both(
    red_bundle: Bundle, put: Put, precision: str, kind: type[Exception], also: str
) -> None:
    put({"pycuda", "tensorrt"})
    with pytest.raises(kind, match=f"^not tensorrt: {NO_GPU}; .*{also}") as caught:
        open_reader(red_bundle, 256, False, precision=precision)
    assert "\n" not in str(caught.value)


def test_who_asks_for_float16_is_told_what_a_gpu_needs(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, without_pycuda: None
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"pip install 'magrt\[gpu-cu12\].* on the CPU: it is auto, float32 or int8"):
        open_reader(red_bundle, 256, False, precision="float16")


@pytest.mark.parametrize(
    ("backend", "precision", "opened"),
    [
        ("auto", "auto", ("float16", False)),
        ("auto", "float32", ("float32", False)),
        ("tensorrt", "int8", ("int8", False)),
        ("tensorrt-rtx", "auto", ("float16", True)),
    ],
)
def test_a_gpu_reads_in_the_precision_that_was_asked_for_and_else_in_float16(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, backend: str, precision: str, opened: tuple[str, bool]
) -> None:
    asked = []

    def open_tensorrt(bundle: Bundle, *_: object, precision: str, rtx: bool) -> HostReader:
        asked.append((precision, rtx))
        return HostReader(Patterned(), bundle, 256, False, 1)

    monkeypatch.setattr("mag_rt.reading.find_spec", lambda name: name)
    monkeypatch.setattr("mag_rt.backends.tensorrt.open_tensorrt", open_tensorrt)
    reader = open_reader(red_bundle, 256, False, backend, precision)
    assert asked == [opened] and "agrees with the reference" in reader.reason
