"""Pictures to the network's input: what the CPU path makes of them, within one grey level where they are shrunk."""

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from mag_rt.pictures import Normalisation, Picture, pad, shrink
from tests.kernels.board import Board

NORMALISATION = Normalisation(scale=1 / 127.5, offset=-1.0)
GREY_LEVEL = NORMALISATION.scale
ROUNDING = {np.float16: 2**-11, np.float32: 1e-6}
"""Half a unit in the last place of values up to 1."""


def noise(height: int, width: int, seed: int = 0) -> Picture:
    """Hard to resize: no two neighbours are alike, and the extremes occur."""
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture[0, 0], picture[-1, -1] = (0, 128, 255), 255
    return picture


def by_cpu(pictures: list[Picture], placed: list[tuple[int, int]], plane: tuple[int, int]) -> NDArray[np.float32]:
    """The CPU path's own functions; the batch's padded shape may be larger than one picture asks for."""
    shrunk = [shrink(picture, max(size)) for picture, size in zip(pictures, placed, strict=True)]
    assert [picture.shape[:2] for picture in shrunk] == placed
    planes = np.stack(
        [np.pad(p, ((0, plane[0] - p.shape[0]), (0, plane[1] - p.shape[1]), (0, 0)), "reflect") for p in shrunk]
    )
    return NORMALISATION(list(planes))


def prepare(
    board: Board,
    pictures: list[Picture],
    placed: list[tuple[int, int]],
    plane: tuple[int, int],
    dtype: DTypeLike,
    *,
    offset: int = 0,
    gap: int = 0,
) -> NDArray[np.float32]:
    laid = [board.put(picture, offset=offset, gap=gap) for picture in pictures]
    out = board.room((len(pictures), 3, *plane), dtype)
    board.gpu.prepare(pictures=board.place(laid, placed), normalisation=NORMALISATION, out=out, stream=board.stream)
    return board.get(out).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 1), (2, 3), (31, 32), (32, 64), (50, 97)])
def test_places_and_mirrors_as_the_cpu_does(board: Board, size: tuple[int, int], dtype: type) -> None:
    picture = noise(*size)
    padded = pad(picture, 32)
    result = prepare(board, [picture], [size], padded.shape[:2], dtype)
    assert np.abs(result - NORMALISATION([padded])).max() <= ROUNDING[dtype]


@pytest.mark.parametrize(("offset", "gap"), [(0, 1), (0, 4), (1, 0), (2, 5), (3, 64)])
def test_rows_may_begin_anywhere(board: Board, offset: int, gap: int) -> None:
    picture = noise(20, 44)
    result = prepare(board, [picture], [(20, 44)], (32, 64), np.float32, offset=offset, gap=gap)
    assert np.abs(result - NORMALISATION([pad(picture, 32)])).max() <= ROUNDING[np.float32]


@pytest.mark.parametrize("plane", [(5, 7), (20, 45), (21, 46), (33, 127), (8, 259)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_the_plane_may_have_any_size(board: Board, plane: tuple[int, int], dtype: type) -> None:
    picture = noise(4, 6)
    result = prepare(board, [picture], [(4, 6)], plane, dtype)
    assert np.abs(result - by_cpu([picture], [(4, 6)], plane)).max() <= ROUNDING[dtype]


@pytest.mark.parametrize(
    ("size", "most"),
    [((64, 64), 32), ((96, 63), 32), ((128, 200), 50), ((61, 83), 54), ((100, 100), 99), ((300, 7), 32), ((500, 1), 9),
     ((90, 90), 1), ((257, 129), 128)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_shrinks_within_one_grey_level(board: Board, size: tuple[int, int], most: int, dtype: type) -> None:
    picture = noise(*size)
    shrunk = shrink(picture, most)
    padded = pad(shrunk, 32)
    result = prepare(board, [picture], [shrunk.shape[:2]], padded.shape[:2], dtype, gap=3)
    difference = np.abs(result - NORMALISATION([padded]))
    assert difference.max() <= GREY_LEVEL + ROUNDING[dtype]
    assert (difference > GREY_LEVEL / 2).mean() < 0.005  # ties alone, which OpenCV's sums of floats miss by a hair


def test_an_even_picture_stays_even(board: Board) -> None:
    """No weight is lost and none counted twice, at factors that are no fractions of small numbers."""
    for size, placed in [((997, 31), (641, 20)), ((50, 2000), (25, 1021)), ((777, 776), (128, 128))]:
        for level in (1, 254, 255):
            picture = np.full((*size, 3), level, np.uint8)
            result = prepare(board, [picture], [placed], placed, np.float32)
            assert np.abs(result - (level * NORMALISATION.scale - 1)).max() < 1e-6
            board.gpu.arena.clear()


def test_one_launch_takes_pictures_of_many_sizes(board: Board) -> None:
    sizes = [(1 + 7 * i % 60, 1 + 11 * i % 90) for i in range(33)]
    pictures = [noise(height, width, seed) for seed, (height, width) in enumerate(sizes)]
    placed = [shrink(picture, 48).shape[:2] for picture in pictures]
    result = prepare(board, pictures, placed, (64, 64), np.float16, gap=2)
    expected = by_cpu(pictures, placed, (64, 64))
    for index in range(33):
        assert np.abs(result[index] - expected[index]).max() <= GREY_LEVEL + ROUNDING[np.float16], sizes[index]


@pytest.mark.parametrize("most", [7, 5, 3])
def test_reads_nothing_behind_a_picture(board: Board, most: int) -> None:
    picture = noise(7, 7)
    shrunk = shrink(picture, most)
    out = board.room((1, 3, 32, 32), np.float32)
    pictures = board.place([board.put_last(picture)], [shrunk.shape[:2]])
    board.gpu.prepare(pictures=pictures, normalisation=NORMALISATION, out=out, stream=board.stream)
    assert np.abs(board.get(out) - NORMALISATION([pad(shrunk, 32)])).max() <= GREY_LEVEL + 1e-6


def test_channels_become_rgb(board: Board) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 2] = 255  # red, in BGR
    result = prepare(board, [picture], [(32, 32)], (32, 32), np.float32)
    assert (result[0, 0] > 0.999).all() and (result[0, 1:] == -1).all()
