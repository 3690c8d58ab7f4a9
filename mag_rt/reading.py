"""From pictures to readings: what a scan asks of the machine that it runs on, and how a CPU answers."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.backends import Backend
from mag_rt.backends.choice import choose
from mag_rt.bundle import Bundle
from mag_rt.errors import BackendError, BundleError, MagrtError, PictureError
from mag_rt.findings import GREY, Failure, Look, Reading, count, read, together
from mag_rt.pictures import Picture, as_grey, map_back, pad, shrink

OVERLAP = 128
"""Pixels that neighbouring tiles share: the network sees about that far."""
GRID = 16
"""Tiles begin at multiples of this many pixels, as a JPEG's blocks of subsampled colours do: the network sees those."""

MOST_THREADS = 4
"""Pictures decoded, and read, at the same time: each takes memory; further cores help with each picture."""

GPU_BACKENDS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backends on an NVIDIA GPU and the modules that they need."""

Map = NDArray[np.float32]


class Reader(Protocol):
    """A bundle on a machine."""

    name: str
    version: str
    """Of the library that runs the network."""
    precision: str
    reason: str
    """Why it is this one, in words."""
    fell_back: bool
    """Whether a GPU was tried in vain before: then `reason` says why that was."""
    threads: int
    """Threads that may call it at the same time."""
    batch: int
    """Pictures that it likes to get in one call."""

    def __call__(self, pictures: Sequence[Picture], sizes: Sequence[tuple[int, int]]) -> Sequence[Reading | Failure]:
        """The reading of each picture, H x W x 3 BGR as decoded. sizes: height and width that its mask is to have.

        A Failure stands where the network gives no answer (there is not the memory, FP16 overflows); the other pictures
        have their readings.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; calling it again does nothing."""
        ...


class HostReader:
    """A reader on the CPU: a picture at a time in each of `threads` threads, everything around the network by OpenCV.

    `max_side`: pictures with a longer side are shrunk to it, pixels; with `tiles` they are read a second time, at their
    own resolution in overlapping tiles of that side.
    """

    batch = 1

    def __init__(
        self,
        backend: Backend,
        bundle: Bundle,
        max_side: int,
        tiles: bool,
        threads: int,
        reason: str = "",
        *,
        fell_back: bool = False,
    ) -> None:
        self.name, self.version, self.precision = backend.name, backend.version, backend.precision
        self.reason, self.fell_back = reason, fell_back
        self.threads = threads
        self.network, self._bundle = backend, bundle
        self._max_side, self._tiles = max_side, tiles

    def __call__(self, pictures: Sequence[Picture], sizes: Sequence[tuple[int, int]]) -> list[Reading | Failure]:
        return [self._reading(picture, size) for picture, size in zip(pictures, sizes, strict=True)]

    def close(self) -> None:
        self.network.close()

    def _reading(self, picture: Picture, size: tuple[int, int]) -> Reading | Failure:
        try:
            return self._read(picture, size)
        except PictureError as error:
            return Failure(error.kind, str(error))
        except (MemoryError, cv2.error) as error:
            if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
                raise
            return Failure("too-large", "there is not enough memory to read it")

    def _read(self, picture: Picture, size: tuple[int, int]) -> Reading:
        threshold = self._bundle.mask_threshold
        look = self._look(picture, size)
        if self._tiles and max(picture.shape[:2]) > self._max_side:
            look = together(look, self._look_closely(picture), threshold)
        return read(look, threshold, self._bundle.classes)

    def _look(self, picture: Picture, size: tuple[int, int]) -> Look:
        """At the whole picture, shrunk as far as it has to be."""
        maps = self._annotate(shrink(picture, self._max_side))
        mask = map_back(maps[0], size)
        return mask, count(maps, mask, self._bundle.mask_threshold)

    def _annotate(self, picture: Picture) -> NDArray[np.uint8]:
        """The annotation maps of a picture, (2+K) x H x W grey levels."""
        height, width = picture.shape[:2]
        return self.network(self.prepared(picture))[0, :, :height, :width]

    def prepared(self, picture: Picture) -> Map:
        """What the network is given for a picture, or a tile, of the size that it sees: 1 x 3 x H x W."""
        return self._bundle.normalisation([pad(picture, self._bundle.multiple)])

    def _look_closely(self, picture: Picture) -> NDArray[np.uint8]:
        """The mask of a picture read in tiles; one row of them is held in memory at a time."""
        height, width = picture.shape[:2]
        side = max(self._bundle.multiple, self._max_side // self._bundle.multiple * self._bundle.multiple)
        mask = np.empty((height, width), np.uint8)
        rows, columns = list(tiling(height, side)), list(tiling(width, side))
        left_over = np.zeros((0, width), np.float32)
        for (top, row_weights), below in zip(rows, [*(start for start, _ in rows[1:]), height], strict=True):
            band = np.zeros((len(row_weights), width), np.float32)
            for left, column_weights in columns:
                window = np.s_[top : top + len(row_weights), left : left + len(column_weights)]
                band[:, window[1]] += GREY[self._annotate(picture[window])[0]] * (row_weights[:, None] * column_weights)
            band[: len(left_over)] += left_over
            mask[top:below] = as_grey(band[: below - top])
            left_over = band[below - top :]
        return mask


def open_reader(bundle: Bundle, max_side: int, tiles: bool, backend: str = "auto", precision: str = "auto") -> Reader:
    """The best reader of a bundle here, or the one of the `backend` and `precision` that were asked for.

    On its own it takes TensorRT where there is a GPU and an engine that agrees with the reference, else the CPU.
    Raises MagrtError with a line that says what is missing, on the GPU too where it was tried before the CPU.
    """
    if backend in GPU_BACKENDS:
        return _on_gpu(bundle, max_side, tiles, backend, precision)
    refusals = []
    for name, module in GPU_BACKENDS.items() if backend == "auto" else ():
        # Looked for only where it is installed, or where nothing else computes in what was asked for.
        if precision == "float16" or (find_spec("pycuda") and find_spec(module)):
            try:
                return _on_gpu(bundle, max_side, tiles, name, precision)
            except MagrtError as error:
                refusals.append(f"not {name}: {error}")
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    try:
        choice = choose(bundle, backend, precision, threads)
    except (BackendError, BundleError) as error:
        raise type(error)("; ".join([*refusals, str(error)])) from None
    reason = "; ".join([*refusals, choice.reason])
    return HostReader(choice.backend, bundle, max_side, tiles, threads, reason, fell_back=bool(refusals))


def _on_gpu(bundle: Bundle, max_side: int, tiles: bool, backend: str, precision: str) -> Reader:
    from mag_rt.backends.tensorrt import open_tensorrt

    computed_in = "float16" if precision == "auto" else precision
    reader = open_tensorrt(bundle, max_side, tiles, precision=computed_in, rtx=backend == "tensorrt-rtx")
    reader.reason = "there is a GPU with an engine that agrees with the reference"
    return reader


def tiling(length: int, side: int) -> Iterator[tuple[int, Map]]:
    """Where tiles of a side begin along an axis, evenly spread on `GRID`, and each one's weights along it.

    The last tile ends with the axis and may be a few pixels shorter. In the middle of what two neighbours share one
    fades out as the other fades in, over `OVERLAP` pixels (a quarter of the side where tiles are small); everywhere the
    weights of all tiles sum to 1.
    """
    side = min(side, length)
    overlap = min(OVERLAP, side // 4)
    cells = -((side - length) // GRID)  # from the first start to the last
    steps = -(-cells // max(1, (side - overlap) // GRID))
    starts = [GRID * round(index * cells / max(1, steps)) for index in range(steps + 1)]
    seams = [(before + side + after) / 2 for before, after in pairwise(starts)]
    for start, fades_in, fades_out in zip(starts, [None, *seams], [*seams, None], strict=True):
        pixels = np.arange(start, min(start + side, length), dtype=np.float32) + 0.5
        weights = np.ones(len(pixels), np.float32)
        if fades_in is not None:
            weights *= np.clip((pixels - fades_in) / overlap + 0.5, 0, 1)
        if fades_out is not None:
            weights *= np.clip((fades_out - pixels) / overlap + 0.5, 0, 1)
        yield start, weights
