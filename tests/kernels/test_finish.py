"""Annotation maps to masks and counts: what the CPU path makes of the same maps."""

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from mag_rt.pictures import as_grey, map_back
from tests.kernels.board import Board

DTYPES = [np.float16, np.float32]
THRESHOLD = 128


def maps_like(count: int, channels: int, plane: tuple[int, int], dtype: DTypeLike, seed: int = 0) -> NDArray:
    """Probabilities that are 0 or 1 in places, as a network's are."""
    noise = np.random.default_rng(seed).normal(0.5, 0.6, (count, channels, *plane))
    return np.clip(noise, 0, 1).astype(dtype)


def finish(
    board: Board,
    maps: NDArray,
    sizes: list[tuple[int, int]],
    placed: list[tuple[int, int]],
    *,
    threshold: int = THRESHOLD,
    offset: int = 0,
    gap: int = 0,
    map_offset: int = 0,
) -> tuple[list[NDArray[np.uint8]], NDArray]:
    masks = [board.room(size, np.uint8, offset=offset, gap=gap) for size in sizes]
    statistics = board.statistics(len(maps))
    board.gpu.finish(
        maps=board.put(maps, offset=map_offset),
        masks=board.place(masks, placed),
        threshold=threshold,
        statistics=statistics,
        stream=board.stream,
    )
    return [board.get(mask) for mask in masks], board.get(statistics)


def check_counts(counts: np.void, maps: NDArray, mask: NDArray[np.uint8], threshold: int = THRESHOLD) -> None:
    """Against numpy: `maps` C x h x w is the placed part, `mask` what the device wrote."""
    wide = maps.astype(np.float32)
    assert counts["nan"] == np.isnan(wide).sum() and counts["infinite"] == np.isinf(wide).sum()
    with np.errstate(invalid="ignore"):
        assert counts["likely"][: len(maps)].tolist() == (wide >= 0.5).sum(axis=(1, 2)).tolist()
    assert not counts["likely"][len(maps) :].any() and counts["unused"] == 0
    grey = as_grey(np.nan_to_num(np.clip(wide[0], 0, 1)))
    assert counts["histogram"].tolist() == np.bincount(grey.ravel(), minlength=256).tolist()
    rows, columns = np.nonzero(mask >= threshold)
    assert counts["suspicious"] == rows.size
    if rows.size:
        box = [columns.min(), rows.min(), columns.max(), rows.max()]
        assert [counts[side] for side in ("left", "top", "right", "bottom")] == box
    else:
        assert counts["right"] < counts["left"] and counts["bottom"] < counts["top"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("placed", [(1, 1), (1, 37), (32, 64), (31, 33), (40, 57), (63, 1)])
def test_a_map_at_the_pictures_own_size(board: Board, placed: tuple[int, int], dtype: DTypeLike) -> None:
    maps = maps_like(1, 12, (64, 64), dtype)
    (mask,), (counts,) = finish(board, maps, [placed], [placed])
    inside = maps[0, :, : placed[0], : placed[1]]
    assert np.array_equal(mask, as_grey(inside[0].astype(np.float32)))
    check_counts(counts, inside, mask)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "placed"),
    [((2, 2), (1, 1)), ((100, 131), (33, 43)), ((65, 64), (64, 63)), ((250, 77), (50, 15)), ((9, 300), (1, 32))],
)
def test_a_map_of_a_shrunk_picture_is_enlarged_as_on_the_cpu(
    board: Board, size: tuple[int, int], placed: tuple[int, int], dtype: DTypeLike
) -> None:
    maps = maps_like(1, 3, (64, 64), dtype)
    (mask,), (counts,) = finish(board, maps, [size], [placed])
    inside = maps[0, :, : placed[0], : placed[1]]
    expected = as_grey(np.clip(map_back(np.ascontiguousarray(inside[0], np.float32), size), 0, 1))
    assert np.abs(mask.astype(int) - expected).max() <= 1
    assert (mask != expected).mean() < 0.01
    check_counts(counts, inside, mask)


@pytest.mark.parametrize(("offset", "gap", "map_offset"), [(1, 0, 0), (0, 3, 4), (2, 4, 8), (3, 1, 12)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_begin_anywhere(board: Board, offset: int, gap: int, map_offset: int, dtype: DTypeLike) -> None:
    maps = maps_like(2, 2, (9, 35), dtype)
    masks, counts = finish(
        board, maps, [(9, 35), (7, 30)], [(9, 35), (7, 30)], offset=offset, gap=gap, map_offset=map_offset
    )
    for i, (height, width) in enumerate([(9, 35), (7, 30)]):
        assert np.array_equal(masks[i], as_grey(maps[i, 0, :height, :width].astype(np.float32)))
        check_counts(counts[i], maps[i, :, :height, :width], masks[i])


def test_a_batch_of_many_sizes(board: Board) -> None:
    placed = [(1 + 5 * i % 31, 1 + 9 * i % 47) for i in range(33)]
    sizes = [(height * (1 + i % 3), width * (1 + i % 3) + i % 2) for i, (height, width) in enumerate(placed)]
    maps = maps_like(33, 4, (32, 64), np.float16)
    masks, counts = finish(board, maps, sizes, placed, gap=1)
    for i, (height, width) in enumerate(placed):
        inside = maps[i, :, :height, :width]
        expected = as_grey(np.clip(map_back(np.ascontiguousarray(inside[0], np.float32), sizes[i]), 0, 1))
        assert np.abs(masks[i].astype(int) - expected).max() <= 1, (sizes[i], placed[i])
        check_counts(counts[i], inside, masks[i])


@pytest.mark.parametrize("size", [(5, 7), (11, 23)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_nothing_behind_the_maps(board: Board, size: tuple[int, int], dtype: DTypeLike) -> None:
    maps = maps_like(1, 2, (5, 7), dtype)
    mask, statistics = board.room(size, np.uint8), board.statistics(1)
    board.gpu.finish(
        maps=board.put_last(maps),
        masks=board.place([mask], [(5, 7)]),
        threshold=THRESHOLD,
        statistics=statistics,
        stream=board.stream,
    )
    check_counts(board.get(statistics)[0], maps[0], board.get(mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_probability_is_defined_and_reported(board: Board, dtype: DTypeLike) -> None:
    maps = np.full((1, 3, 32, 32), 0.25, dtype)
    maps[0, 0, 3, :5] = [np.nan, np.inf, -np.inf, -7, 7]
    maps[0, 1, 8, 8], maps[0, 2, 9, 9] = np.nan, -np.inf
    maps[0, :, 30:], maps[0, :, :, 30:] = np.nan, np.inf  # beyond the placed part
    (mask,), (counts,) = finish(board, maps, [(30, 30)], [(30, 30)])
    assert mask[3, :5].tolist() == [0, 255, 0, 0, 255]
    assert counts["nan"] == 2 and counts["infinite"] == 3
    check_counts(counts, maps[0, :, :30, :30], mask)


def test_a_value_that_is_no_number_spoils_no_neighbour(board: Board) -> None:
    maps = np.ones((1, 1, 32, 32), np.float16)
    maps[0, 0, 10, 10] = np.nan
    (mask,), _ = finish(board, maps, [(96, 96)], [(32, 32)])
    assert (mask[31, 31], mask[31, 28], mask[28, 31]) == (0, 255, 255)


@pytest.mark.parametrize("threshold", [0, 1, 77, 255, 256])
def test_suspicious_are_the_levels_from_the_threshold_on(board: Board, threshold: int) -> None:
    maps = (np.arange(32 * 64, dtype=np.float32).reshape(1, 1, 32, 64) % 256) / 255
    (mask,), (counts,) = finish(board, maps, [(32, 60)], [(32, 60)], threshold=threshold)
    check_counts(counts, maps[0, :, :, :60], mask, threshold)


def test_counts_begin_at_nothing_each_time(board: Board) -> None:
    statistics = board.statistics(1)  # full of poison
    for maps in (np.ones((1, 2, 32, 32), np.float32), np.zeros((1, 2, 32, 32), np.float32)):
        mask = board.room((32, 32), np.uint8)
        board.gpu.finish(
            maps=board.put(maps), masks=board.place([mask]), threshold=128, statistics=statistics, stream=board.stream
        )
        (counts,) = board.get(statistics)
        check_counts(counts, maps[0], board.get(mask))


def test_a_large_even_map_is_counted_to_the_last_pixel(board: Board) -> None:
    """More rows and columns than one block has, and every value falls into one bin."""
    maps = np.zeros((1, 1, 300, 1100), np.float16)
    maps[0, 0, 290:, 1090:] = 1
    (mask,), (counts,) = finish(board, maps, [(300, 1100)], [(300, 1100)])
    check_counts(counts, maps[0], mask)
