"""A GPU ready for work: its context, one arena of device memory, and our kernels as checked calls."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mag_rt.device_memory import Arena, DeviceArray, DoesNotFitError
from mag_rt.driver import LEAST_CAPABILITY, CudaError, allocate, first_line, load_kernels, open_driver, release, retain
from mag_rt.layout import MOST_CHANNELS, PLACEMENT, STATISTICS
from mag_rt.pictures import Normalisation

LARGEST_SIDE = 32767
"""Pixels: the kernels' coordinates are exact up to here."""

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING, which pycuda does not name
_BLOCK = (32, 8, 1)  # of a kernel that works on planes: a warp along a row
_THREADS = 256  # in every block
_FLOATS = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32"}


class Placements:
    """The records of one batch: which pictures (or masks) it holds, and which part of each H x W plane they take up.

    Kept in page-locked memory and on the device. Not to be filled again while work that reads them is under way, so
    every batch under way has its own. `gpu`: whose kernels will read them; `arena`: where to keep room for `most`.
    """

    def __init__(self, gpu: "Gpu", arena: Arena, most: int) -> None:
        self._gpu = gpu
        self._host = gpu.pinned((most,), PLACEMENT)
        self._device = arena.take((most,), PLACEMENT)
        self.pictures: list[DeviceArray] = []

    def fill(self, pictures: Sequence[DeviceArray], placed: Sequence[tuple[int, int]], stream: Any) -> None:
        """Send the records of `pictures` (H x W x 3 BGR, or H x W grey; uint8), placed at (height, width), by `stream`.

        Raises DoesNotFitError for a side over `LARGEST_SIDE`, ValueError for what is no picture, or enlarged.
        """
        if not 0 < len(pictures) <= len(self._host) or len(pictures) != len(placed):
            raise ValueError(f"{len(pictures)} pictures, {len(placed)} sizes, room for {len(self._host)}")
        records = self._host[: len(pictures)]
        for record, picture, (height, width) in zip(records, pictures, placed, strict=True):
            self._gpu.check(picture, "a picture", (None, None, 3)[: max(2, len(picture.shape))], np.uint8, pitched=True)
            if max(picture.shape[:2]) > LARGEST_SIDE:
                sides = f"a side of {max(picture.shape[:2])} pixels"
                raise DoesNotFitError(f"{sides}; the kernels take up to {LARGEST_SIDE}")
            if not (0 < height <= picture.shape[0] and 0 < width <= picture.shape[1]):
                raise ValueError(f"a picture of {picture.shape[:2]} cannot be placed at {height, width}")
            record["pixels"], record["pitch"] = picture.pointer, picture.pitch
            record["height"], record["width"] = picture.shape[:2]
            record["placed_height"], record["placed_width"] = height, width
        self._gpu.upload(records, self._device.first(len(pictures)), stream)
        self.pictures = list(pictures)

    def device(self, name: str, channels: int, plane: tuple[int, int]) -> DeviceArray:
        """The records on the device. Raises ValueError unless the pictures have `channels` and lie within `plane`."""
        if not self.pictures:
            raise ValueError(f"{name} has not been filled")
        if {prod(picture.shape[2:]) for picture in self.pictures} != {channels}:
            raise ValueError(f"{name} must hold pictures of {channels} channels")
        records = self._host[: len(self.pictures)]
        if records["placed_height"].max() > plane[0] or records["placed_width"].max() > plane[1]:
            raise ValueError(f"{name} holds pictures placed beyond the plane of {plane}")
        return self._device.first(len(self.pictures))


class Gpu:
    """A GPU ready for work: its primary context retained, the kernels loaded, an arena of `arena_bytes` allocated.

    The primary context is the one that torch and other users of the CUDA runtime share, and they live on unharmed.
    Methods make it current for as long as they need it; around pycuda's own calls (waiting for an event, say) do the
    same with `current()`. Any thread may work with a Gpu, one at a time. Use it in a `with` statement, or call
    `close`: its streams, events, page-locked arrays and device arrays are dead afterwards.

    Launches are asynchronous: they queue work on the given stream, and the caller orders streams with events. Their
    arrays come from `arena`, are passed by name and checked (ValueError) for dtype, shape, pitch and place.

    Raises CudaError when pycuda, driver, GPU and kernels do not go together or memory is short.
    """

    def __init__(self, arena_bytes: int, ordinal: int = 0) -> None:
        self._driver = driver = open_driver()
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._pinned: list[NDArray[Any]] = []
        self._functions: dict[str, Any] = {}
        self._memory: Any = None
        if ordinal >= driver.Device.count():
            raise CudaError(f"there is no CUDA device {ordinal}: the driver shows {driver.Device.count()}")
        device = driver.Device(ordinal)
        self.name: str = device.name()
        self.capability: tuple[int, int] = device.compute_capability()
        if self.capability < LEAST_CAPABILITY:
            have, need = (".".join(map(str, pair)) for pair in (self.capability, LEAST_CAPABILITY))
            raise CudaError(f"{self.name} has compute capability {have}, the kernels need {need}")
        with ExitStack() as undo:
            self._context = retain(driver, device)
            undo.callback(release, self._context, ordinal)
            undo.callback(self._free)
            with self.current():
                self._functions = load_kernels(driver)
                self._memory = allocate(driver, arena_bytes)
            self._undo = undo.pop_all()
        self.arena = Arena(int(self._memory), arena_bytes)

    def __enter__(self) -> "Gpu":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for the work under way, then give everything back; calling it again does nothing."""
        self._undo.close()

    def _free(self) -> None:
        with self.current():
            with suppress(self._driver.Error):  # what a failed launch left must not keep us from freeing
                self._driver.Context.synchronize()
            self._events.clear()
            self._streams.clear()
            self._functions.clear()
            for array in self._pinned:
                array.base.free()  # type: ignore[union-attr]
            self._pinned.clear()
            if self._memory is not None:
                self._memory.free()
                self._memory = None

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the primary context current for this thread. Raises CudaError for any error of pycuda's within."""
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise CudaError(f"{self.name}: {first_line(error)}") from error
        finally:
            self._driver.Context.pop()

    def stream(self) -> Any:
        """A pycuda Stream that does not wait for the legacy default stream."""
        with self.current():
            self._streams.append(self._driver.Stream(_NON_BLOCKING))
        return self._streams[-1]

    def event(self, *, timing: bool = False) -> Any:
        """A pycuda Event; without `timing` it is cheaper and orders streams only."""
        flags = self._driver.event_flags
        with self.current():
            self._events.append(self._driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING))
        return self._events[-1]

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A page-locked array on the host, from and to which copies run beside other work."""
        with self.current():
            self._pinned.append(self._driver.pagelocked_empty(shape, np.dtype(dtype)))
        return self._pinned[-1]

    def upload(self, source: NDArray[Any], target: DeviceArray, stream: Any) -> None:
        """Queue a copy to the device. `source`: page-locked, unchanged until the stream has passed the copy."""
        self._check_copy(source, target)
        with self.current():
            self._driver.memcpy_htod_async(target.pointer, source, stream)

    def download(self, source: DeviceArray, target: NDArray[Any], stream: Any) -> None:
        """Queue a copy from the device. `target`: page-locked, not read until the stream has passed the copy."""
        self._check_copy(target, source)
        with self.current():
            self._driver.memcpy_dtoh_async(target, source.pointer, stream)

    def zero(self, array: DeviceArray, stream: Any) -> None:
        """Queue setting an array to zero; float32 or another type of 4 bytes."""
        self.check(array, "an array to set to zero", array.shape, array.dtype)
        with self.current():
            self._driver.memset_d32_async(array.pointer, 0, array.nbytes // 4, stream)

    def attention_blend(
        self, *, colour: DeviceArray, alpha: DeviceArray, image: DeviceArray, out: DeviceArray, stream: Any
    ) -> None:
        """Eq. 1: out = alpha * colour + (1 - alpha) * image.

        float16 or float32; N x 3 x H x W, alpha N x 1 x H x W. alpha counts as clamped to [0, 1]; where it is 0 or NaN
        the image is left as it is. Computed in float32, rounded once. `out` may be `colour` or `image`.
        """
        suffix = _suffix(out)
        count, _, height, width = self.check(out, "out", (None, 3, None, None), out.dtype)
        self.check(colour, "colour", out.shape, out.dtype)
        self.check(image, "image", out.shape, out.dtype)
        self.check(alpha, "alpha", (count, 1, height, width), out.dtype)
        _check_apart("out", out, alpha=alpha)
        _check_apart_or_same("out", out, colour=colour, image=image)
        packs = _blocks(height * width, 16 // out.dtype.itemsize)
        arguments = (colour.pointer, alpha.pointer, image.pointer, out.pointer, height * width)
        self._launch(f"attention_blend_{suffix}", (_blocks(packs, _THREADS), count, 1), stream, *arguments, flat=True)

    def heat_overlay(
        self,
        *,
        photo: DeviceArray,
        mask: DeviceArray,
        heat: DeviceArray,
        strongest: float,
        out: DeviceArray,
        stream: Any,
    ) -> None:
        """Eq. 1 with a mask as attention: the heat colour of each grey level over the photo.

        uint8; photo and out H x W x 3 BGR, mask H x W, rows of any pitch; heat 256 x 3 BGR. `strongest`: the opacity
        in [0, 1] where the mask is 255. `out` may be `photo`.
        """
        height, width, _ = self.check(photo, "photo", (None, None, 3), np.uint8, pitched=True)
        self.check(mask, "mask", (height, width), np.uint8, pitched=True)
        self.check(heat, "heat", (256, 3), np.uint8)
        self.check(out, "out", (height, width, 3), np.uint8, pitched=True)
        _check_apart("out", out, mask=mask, heat=heat)
        _check_apart_or_same("out", out, photo=photo)
        if not 0 <= strongest <= 1:
            raise ValueError(f"strongest must be in [0, 1], not {strongest}")
        planes = (photo.pointer, photo.pitch, mask.pointer, mask.pitch, heat.pointer, strongest / 255)
        grid = (_blocks(width, 4 * _BLOCK[0]), _blocks(height, _BLOCK[1]), 1)
        self._launch("heat_overlay", grid, stream, *planes, out.pointer, out.pitch, width, height)

    def accumulate_tiles(
        self,
        *,
        tiles: DeviceArray,
        corners: DeviceArray,
        overlap: int,
        total: DeviceArray,
        weight: DeviceArray,
        stream: Any,
    ) -> None:
        """Add the maps of overlapping tiles to a large map, weighted down towards their edges over `overlap` pixels.

        tiles N x C x h x w, float16 or float32; corners N x 2 int32, (left, top) of each, which may lie outside;
        total C x H x W and weight H x W, float32, zeroed by the caller before the first batch of tiles. The sums run
        in the order of the tiles: the result is the same each time. NaN stays NaN.
        """
        count, channels, tile_height, tile_width = self.check(tiles, "tiles", (None, None, None, None), tiles.dtype)
        _, height, width = self.check(total, "total", (channels, None, None), np.float32)
        self.check(weight, "weight", (height, width), np.float32)
        self.check(corners, "corners", (count, 2), np.int32)
        _check_apart("total", total, tiles=tiles, corners=corners, weight=weight)
        _check_apart("weight", weight, tiles=tiles, corners=corners)
        if not 0 <= overlap < LARGEST_SIDE:
            raise ValueError(f"overlap must be in [0, {LARGEST_SIDE}), not {overlap}")
        source = (tiles.pointer, corners.pointer, count, tile_width, tile_height, overlap + 1)
        grid = (_blocks(width, _BLOCK[0]), _blocks(height, _BLOCK[1]), channels)
        kernel = f"accumulate_tiles_{_suffix(tiles)}"
        self._launch(kernel, grid, stream, *source, total.pointer, weight.pointer, width, height)

    def normalise_tiles(self, *, total: DeviceArray, weight: DeviceArray, stream: Any) -> None:
        """Divide the accumulated `total` (C x H x W) by its `weight` (H x W), in place; 0 where no tile was."""
        channels, height, width = self.check(total, "total", (None, None, None), np.float32)
        self.check(weight, "weight", (height, width), np.float32)
        _check_apart("total", total, weight=weight)
        grid = (_blocks(height * width, _THREADS), 1, 1)
        arguments = (total.pointer, weight.pointer, channels, height * width)
        self._launch("normalise_tiles", grid, stream, *arguments, flat=True)

    def prepare(self, *, pictures: Placements, normalisation: Normalisation, out: DeviceArray, stream: Any) -> None:
        """Shrink, pad and normalise a batch of pictures into the network's input, as mag_rt.pictures does.

        out N x 3 x H x W RGB, float16 or float32. Each picture is shrunk to its placed size (area average, rounded to
        8 bits), mirrored outwards at the right and at the bottom, and scaled.
        """
        _, _, height, width = self.check(out, "out", (None, 3, None, None), out.dtype)
        records = pictures.device("pictures", 3, (height, width))
        self.check(out, "out", (records.shape[0], 3, height, width), out.dtype)
        _check_apart("out", out, **{f"picture {i}": picture for i, picture in enumerate(pictures.pictures)})
        grid = (_blocks(width, 4 * _BLOCK[0]), _blocks(height, _BLOCK[1]), records.shape[0])
        arguments = (records.pointer, normalisation.scale, normalisation.offset, out.pointer, width, height)
        self._launch(f"prepare_{_suffix(out)}", grid, stream, *arguments)

    def finish(
        self, *, maps: DeviceArray, masks: Placements, threshold: int, statistics: DeviceArray, stream: Any
    ) -> None:
        """Write the masks of a batch at each picture's own size, and count what the finding needs.

        maps N x C x H x W, float16 or float32, C up to `MOST_CHANNELS`; only the placed part of each is looked at.
        Channel 0, clamped to [0, 1] and NaN taken for 0, is interpolated (bilinear) and rounded to 8 bits. statistics:
        N records of `STATISTICS`, emptied first; `threshold` is the grey level from which on mask pixels count as
        suspicious.
        """
        count, channels, height, width = self.check(maps, "maps", (None, None, None, None), maps.dtype)
        if channels > MOST_CHANNELS:
            raise ValueError(f"maps of {channels} channels; the kernels take up to {MOST_CHANNELS}")
        if not 0 <= threshold <= 256:
            raise ValueError(f"threshold must be a grey level, or 256 for none, not {threshold}")
        records = masks.device("masks", 1, (height, width))
        self.check(maps, "maps", (records.shape[0], channels, height, width), maps.dtype)
        self.check(statistics, "statistics", records.shape, STATISTICS)
        _check_apart("statistics", statistics, maps=maps)
        for i, mask in enumerate(masks.pictures):
            _check_apart(f"mask {i}", mask, maps=maps, statistics=statistics)
        suffix = _suffix(maps)
        self._launch("finish_clear", (count, 1, 1), stream, statistics.pointer, flat=True)
        grid = (_blocks(height, 32), channels, count)
        arguments = (maps.pointer, records.pointer, statistics.pointer, width, height)
        self._launch(f"finish_statistics_{suffix}", grid, stream, *arguments)
        rows, columns = (max(mask.shape[axis] for mask in masks.pictures) for axis in (0, 1))
        grid = (_blocks(columns, 4 * _BLOCK[0]), _blocks(rows, 8 * _BLOCK[1]), count)
        target = (records.pointer, threshold, statistics.pointer)
        self._launch(f"finish_masks_{suffix}", grid, stream, maps.pointer, *target, channels, width, height)

    def check(
        self,
        array: DeviceArray,
        name: str,
        shape: tuple[int | None, ...],
        dtype: DTypeLike,
        *,
        pitched: bool = False,
    ) -> tuple[int, ...]:
        """The array's shape. Raises ValueError unless it has that shape (None: any) and dtype and lies in the arena."""
        expected = " x ".join("?" if side is None else str(side) for side in shape)
        if len(array.shape) != len(shape) or any(
            want not in (None, side) for want, side in zip(shape, array.shape, strict=True)
        ):
            raise ValueError(f"{name} must be {expected}, not {' x '.join(map(str, array.shape))}")
        if array.dtype != np.dtype(dtype):
            raise ValueError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
        if not (array.contiguous or (pitched and array.pitch > prod(array.shape[1:]) * array.dtype.itemsize)):
            raise ValueError(f"{name} has rows {array.pitch} bytes apart")
        if array.pointer % (8 if array.dtype.fields else array.dtype.itemsize):
            raise ValueError(f"{name} is not aligned to its {array.dtype}")
        start, end = self.arena.pointer, self.arena.pointer + self.arena.nbytes
        if self._memory is None or not start <= array.pointer <= array.pointer + array.nbytes <= end:
            raise ValueError(f"{name} does not lie in this GPU's arena")
        if prod(array.shape[-2:]) > 2**30:
            raise ValueError(f"{name} has planes of more than {2**30} values")
        return array.shape

    def _check_copy(self, host: NDArray[Any], array: DeviceArray) -> None:
        self.check(array, "a copy", array.shape, array.dtype)
        if host.shape != array.shape or host.dtype != array.dtype or not host.flags.c_contiguous:
            raise ValueError(f"a copy between {host.dtype} {host.shape} and {array.dtype} {array.shape}")

    def _launch(
        self, kernel: str, grid: tuple[int, int, int], stream: Any, *arguments: float, flat: bool = False
    ) -> None:
        if max(grid[1:]) > 65535:
            raise ValueError(f"{kernel}: a batch or picture of {max(grid[1:])} blocks is too large")
        block = (_THREADS, 1, 1) if flat else _BLOCK
        with self.current():
            self._functions[kernel].prepared_async_call(grid, block, stream, *arguments)


def _suffix(array: DeviceArray) -> str:
    if array.dtype not in _FLOATS:
        raise ValueError(f"the kernels take float16 and float32, not {array.dtype}")
    return _FLOATS[array.dtype]


def _blocks(items: int, of: int) -> int:
    return -(-items // of)


def _check_apart(name: str, array: DeviceArray, **others: DeviceArray) -> None:
    """Raises ValueError when memory that is written is part of what other threads still read."""
    for other_name, other in others.items():
        if array.pointer < other.pointer + other.nbytes and other.pointer < array.pointer + array.nbytes:
            raise ValueError(f"{name} overlaps {other_name}")


def _check_apart_or_same(name: str, array: DeviceArray, **others: DeviceArray) -> None:
    for other_name, other in others.items():
        if (array.pointer, array.pitch) != (other.pointer, other.pitch):
            _check_apart(name, array, **{other_name: other})
