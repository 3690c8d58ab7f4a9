"""Eq. 1 on the device, bit for bit what numpy computes in float32 and rounds once."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import DTypeLike, NDArray

from mag_rt.findings import Finding
from mag_rt.sinks.images import STRONGEST_HEAT, draw_overlay
from mag_train.models import compositing
from tests.kernels.board import Board

SHAPES = [(1, 1, 1), (1, 1, 3), (2, 5, 7), (1, 32, 64), (3, 16, 10), (33, 4, 4), (1, 63, 65), (2, 1, 4096)]
DTYPES = [np.float16, np.float32]
HEAT = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
Inputs = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


def inputs(shape: tuple[int, int, int], dtype: DTypeLike, seed: int = 0) -> Inputs:
    count, height, width = shape
    rng = np.random.default_rng(seed)
    colour = rng.uniform(-1, 1, (count, 3, height, width)).astype(dtype)
    alpha = rng.uniform(-0.2, 1.2, (count, 1, height, width)).astype(dtype)
    image = rng.uniform(-1, 1, (count, 3, height, width)).astype(dtype)
    return colour, alpha, image


def reference(colour: NDArray[np.floating], alpha: NDArray[np.floating], image: NDArray[np.floating]) -> NDArray:
    wide = np.clip(alpha.astype(np.float32), 0, 1)
    with np.errstate(all="ignore"):
        blended = (wide * colour.astype(np.float32) + (1 - wide) * image.astype(np.float32)).astype(image.dtype)
    kept = np.broadcast_to(~(wide > 0), image.shape)
    covered = np.broadcast_to(wide == 1, image.shape)
    return np.where(kept, image, np.where(covered, colour, blended))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_blends_any_batch_and_size(board: Board, shape: tuple[int, int, int], dtype: DTypeLike) -> None:
    colour, alpha, image = inputs(shape, dtype)
    out = board.room(image.shape, dtype)
    board.gpu.attention_blend(
        colour=board.put(colour), alpha=board.put(alpha), image=board.put(image), out=out, stream=board.stream
    )
    assert np.array_equal(board.get(out), reference(colour, alpha, image))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "offsets", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2, 2, 2, 2), (1, 2, 3, 4)]
)
def test_blends_from_and_to_addresses_that_suit_no_pack(
    board: Board, offsets: tuple[int, int, int, int], dtype: DTypeLike
) -> None:
    colour, alpha, image = inputs((2, 8, 16), dtype)
    steps = [offset * np.dtype(dtype).itemsize for offset in offsets]
    out = board.room(image.shape, dtype, offset=steps[3])
    board.gpu.attention_blend(
        colour=board.put(colour, offset=steps[0]),
        alpha=board.put(alpha, offset=steps[1]),
        image=board.put(image, offset=steps[2]),
        out=out,
        stream=board.stream,
    )
    assert np.array_equal(board.get(out), reference(colour, alpha, image))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("onto", ["colour", "image"])
def test_may_write_onto_what_it_reads(board: Board, onto: str, dtype: DTypeLike) -> None:
    colour, alpha, image = inputs((3, 9, 8), dtype)
    arrays = {"colour": board.put(colour), "alpha": board.put(alpha), "image": board.put(image)}
    board.gpu.attention_blend(**arrays, out=arrays[onto], stream=board.stream)
    assert np.array_equal(board.get(arrays[onto]), reference(colour, alpha, image))


@pytest.mark.parametrize("last", ["colour", "alpha", "image"])
@pytest.mark.parametrize("shape", [(2, 3, 3), (1, 2, 3), (2, 4, 4)])
def test_reads_nothing_behind_its_arrays(board: Board, shape: tuple[int, int, int], last: str) -> None:
    values = dict(zip(("colour", "alpha", "image"), inputs(shape, np.float16), strict=True))
    arrays = {name: board.put_last(array) if name == last else board.put(array) for name, array in values.items()}
    out = board.room(values["image"].shape, np.float16)
    board.gpu.attention_blend(**arrays, out=out, stream=board.stream)
    assert np.array_equal(board.get(out), reference(**values))


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_beyond_its_range_or_no_number_is_defined(board: Board, dtype: DTypeLike) -> None:
    alpha = np.array([0, -0.0, -3, -np.inf, np.nan, 1, 2, np.inf, 0.5, 0.5], dtype).reshape(1, 1, 1, -1)
    colour = np.full((1, 3, 1, 10), np.inf, dtype)
    image = np.full((1, 3, 1, 10), 0.25, dtype)
    image[..., 5:8] = np.nan  # where there is only colour
    colour[..., 9] = np.nan
    out = board.room(image.shape, dtype)
    board.gpu.attention_blend(
        colour=board.put(colour), alpha=board.put(alpha), image=board.put(image), out=out, stream=board.stream
    )
    expected = np.array([0.25] * 5 + [np.inf] * 4 + [np.nan], dtype)
    assert np.array_equal(board.get(out), np.broadcast_to(expected, image.shape), equal_nan=True)


def test_half_is_computed_in_float32_and_rounded_once(board: Board) -> None:
    """In half arithmetic, and with two roundings, other values come out for many of these."""
    colour, alpha, image = inputs((1, 256, 256), np.float16, seed=4)
    in_half = np.clip(alpha, 0, 1) * colour + (1 - np.clip(alpha, 0, 1)) * image
    expected = reference(colour, alpha, image)
    assert (in_half != expected).mean() > 0.1
    out = board.room(image.shape, np.float16)
    board.gpu.attention_blend(
        colour=board.put(colour), alpha=board.put(alpha), image=board.put(image), out=out, stream=board.stream
    )
    assert np.array_equal(board.get(out), expected)


def test_is_the_retouchers_compositing(board: Board) -> None:
    colour, alpha, image = inputs((3, 12, 20), np.float32)
    alpha = np.clip(alpha, 0, 1)
    expected = compositing.attention_blend(*map(torch.from_numpy, (colour, alpha, image))).numpy()
    out = board.room(image.shape, np.float32)
    board.gpu.attention_blend(
        colour=board.put(colour), alpha=board.put(alpha), image=board.put(image), out=out, stream=board.stream
    )
    assert np.abs(board.get(out) - expected).max() < 1e-6


def photo_and_mask(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(height * width)
    photo = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 256, (height, width), dtype=np.uint8)
    mask.flat[0], mask.flat[-1] = 255, 0
    return photo, mask


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 5), (9, 130), (17, 128), (70, 33)])
@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("gaps", [(0, 0, 0), (4, 8, 12), (3, 0, 7)])
def test_overlay_is_that_of_the_cpu_within_a_grey_level(
    board: Board, size: tuple[int, int], offset: int, gaps: tuple[int, int, int]
) -> None:
    photo, mask = photo_and_mask(*size)
    out = board.room(photo.shape, np.uint8, offset=offset, gap=gaps[2])
    board.gpu.heat_overlay(
        photo=board.put(photo, offset=offset, gap=gaps[0]),
        mask=board.put(mask, offset=offset, gap=gaps[1]),
        heat=board.put(HEAT),
        strongest=STRONGEST_HEAT,
        out=out,
        stream=board.stream,
    )
    height, width = mask.shape
    expected = draw_overlay(Finding(None, width=width, height=height), photo, mask)[:height]  # without the legend
    assert np.abs(board.get(out).astype(int) - expected).max() <= 1


def test_overlay_leaves_what_is_not_suspicious_and_may_be_drawn_onto_the_photo(board: Board) -> None:
    photo, mask = photo_and_mask(19, 37)
    mask[:, :20] = 0
    drawn = board.put(photo, gap=1)
    board.gpu.heat_overlay(
        photo=drawn, mask=board.put(mask), heat=board.put(HEAT), strongest=1.0, out=drawn, stream=board.stream
    )
    result = board.get(drawn)
    assert np.array_equal(result[:, :20], photo[:, :20])
    full = mask == 255
    assert full.any() and (result[full] == HEAT[255]).all()


def tent(size: int, overlap: int) -> NDArray[np.float32]:
    at = np.arange(size)
    return np.minimum(np.minimum(at + 1, size - at), overlap + 1)


def blended_tiles(
    tiles: NDArray[np.floating], corners: NDArray[np.int32], overlap: int, size: tuple[int, int]
) -> NDArray[np.float64]:
    height, width = tiles.shape[2:]
    shares = np.outer(tent(height, overlap), tent(width, overlap)) / (overlap + 1) ** 2
    margin = 64  # room for tiles that stick out
    total = np.zeros((tiles.shape[1], size[0] + 2 * margin, size[1] + 2 * margin))
    weight = np.zeros(total.shape[1:])
    for tile, (left, top) in zip(tiles.astype(np.float64), corners, strict=True):
        window = np.s_[..., top + margin : top + margin + height, left + margin : left + margin + width]
        total[window] += shares * tile
        weight[window] += shares
    mean = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    return mean[:, margin : margin + size[0], margin : margin + size[1]]


Blend = Callable[[NDArray[np.floating], NDArray[np.int32], int, tuple[int, int], int], NDArray[np.float32]]


@pytest.fixture
def blend_tiles(board: Board) -> Blend:
    def run(
        tiles: NDArray[np.floating], corners: NDArray[np.int32], overlap: int, size: tuple[int, int], batch: int
    ) -> NDArray[np.float32]:
        total = board.put(np.zeros((tiles.shape[1], *size), np.float32))
        weight = board.put(np.zeros(size, np.float32))
        for start in range(0, len(tiles), batch):
            part = np.s_[start : start + batch]
            board.gpu.accumulate_tiles(
                tiles=board.put(tiles[part]),
                corners=board.put(corners[part]),
                overlap=overlap,
                total=total,
                weight=weight,
                stream=board.stream,
            )
        board.gpu.normalise_tiles(total=total, weight=weight, stream=board.stream)
        board.get(weight)
        return board.get(total)

    return run


def grid_of_tiles(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> NDArray[np.int32]:
    down, across = tile[0] - overlap, tile[1] - overlap
    return np.array([(x, y) for y in range(0, size[0], down) for x in range(0, size[1], across)], np.int32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((1, 1), (1, 1), 0), ((40, 70), (32, 24), 8), ((33, 9), (16, 17), 15), ((64, 64), (32, 32), 0)],
)
def test_overlapping_tiles_are_blended_by_weight(
    blend_tiles: Blend, size: tuple[int, int], tile: tuple[int, int], overlap: int, dtype: DTypeLike
) -> None:
    corners = grid_of_tiles(size, tile, overlap)
    tiles = np.random.default_rng(5).random((len(corners), 2, *tile)).astype(dtype)
    at_once = blend_tiles(tiles, corners, overlap, size, len(tiles))
    assert np.abs(at_once - blended_tiles(tiles, corners, overlap, size)).max() < 1e-6
    in_batches = blend_tiles(tiles, corners, overlap, size, 3)
    assert np.abs(at_once - in_batches).max() < 1e-6


def test_a_block_may_lie_under_any_of_more_tiles_than_it_has_threads(blend_tiles: Blend) -> None:
    """And each of them counts where it is: in the order of their numbers, wherever they lie."""
    corners = grid_of_tiles((40, 70), (5, 6), 3)
    corners = corners[np.random.default_rng(8).permutation(len(corners))]
    assert len(corners) > 256
    tiles = np.random.default_rng(9).random((len(corners), 2, 5, 6)).astype(np.float32)
    at_once = blend_tiles(tiles, corners, 3, (40, 70), len(tiles))
    assert np.abs(at_once - blended_tiles(tiles, corners, 3, (40, 70))).max() < 1e-6


def test_tiles_of_one_map_give_it_back(blend_tiles: Blend) -> None:
    whole = np.random.default_rng(6).random((3, 48, 56), np.float32)
    corners = np.array([(x, y) for y in (0, 24) for x in (0, 16, 32)], np.int32)
    tiles = np.stack([whole[:, y : y + 24, x : x + 24] for x, y in corners])
    assert np.abs(blend_tiles(tiles, corners, 8, (48, 56), 2) - whole).max() < 1e-6


def test_tiles_that_stick_out_gaps_and_values_that_are_no_numbers(blend_tiles: Blend) -> None:
    corners = np.array([(-5, -3), (20, 10), (100, 100)], np.int32)
    tiles = np.random.default_rng(7).random((3, 1, 8, 8)).astype(np.float32)
    tiles[1, 0, 2, 3] = np.nan
    result = blend_tiles(tiles, corners, 2, (16, 30), 3)
    assert np.isnan(result[0, 12, 23]) and np.isnan(result).sum() == 1
    assert (result[0, :, 8:20] == 0).all() and (result[0, 6:10] == 0).all()
    expected = blended_tiles(tiles, np.minimum(corners, 60), 2, (16, 30))
    assert np.nanmax(np.abs(result - expected)) < 1e-6
