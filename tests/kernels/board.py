"""Arrays on the device with guards around them, so that what a kernel touches beside its arrays shows."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mag_rt.cuda import Gpu, Placements
from mag_rt.device_memory import DeviceArray
from mag_rt.layout import STATISTICS
from tests.cuda_host import host

GUARD = 256
POISON = 0xFF  # NaN as float16 and float32, white as a grey level


@dataclass(frozen=True)
class _Laid:
    array: DeviceArray
    raw: DeviceArray
    guards: NDArray[np.bool_]
    """True for the bytes of `raw` that are none of the array's."""


class Board:
    """Lays arrays out in a Gpu's arena, wherever a test wants them, and picks results up."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.stream = gpu.stream()
        self._laid: dict[DeviceArray, _Laid] = {}

    def room(self, shape: tuple[int, ...], dtype: DTypeLike, *, offset: int = 0, gap: int = 0) -> DeviceArray:
        """An array full of poison, `offset` bytes off a good alignment, its rows `gap` bytes longer than they need."""
        dtype = np.dtype(dtype)
        row = prod(shape[1:]) * dtype.itemsize
        pitch = row + gap
        guards = np.ones(GUARD + offset + shape[0] * pitch + GUARD, np.bool_)
        guards[GUARD + offset : -GUARD].reshape(shape[0], pitch)[:, :row] = False
        raw = self.gpu.arena.take(guards.shape, np.uint8)
        array = DeviceArray(raw.pointer + GUARD + offset, shape, dtype, pitch)
        self._laid[array] = _Laid(array, raw, guards)
        self._upload(raw, np.full(guards.shape, POISON, np.uint8))
        self._forbid_guards(self._laid[array])
        return array

    def put(self, values: NDArray[Any], *, offset: int = 0, gap: int = 0) -> DeviceArray:
        """An array of these values."""
        array = self.room(values.shape, values.dtype, offset=offset, gap=gap)
        laid = self._laid[array]
        raw = np.full(laid.guards.shape, POISON, np.uint8)
        raw[~laid.guards] = np.ascontiguousarray(values).view(np.uint8).ravel()
        self._upload(laid.raw, raw)
        return array

    def put_last(self, values: NDArray[Any]) -> DeviceArray:
        """An array that ends where the arena, and with it the device's allocation, ends: reading on is an error."""
        arena = self.gpu.arena
        array = DeviceArray(arena.pointer + arena.nbytes - values.nbytes, values.shape, values.dtype, values.strides[0])
        self._upload(array, values)
        return array

    def get(self, array: DeviceArray) -> NDArray[Any]:
        """What the array holds when all work is done; fails when its surroundings have changed."""
        laid = self._laid[array]
        raw = np.empty(laid.guards.shape, np.uint8)
        self.gpu.download(laid.raw, raw, self.stream)
        self._wait()
        assert (raw[laid.guards] == POISON).all(), "written beside the array"
        return raw[~laid.guards].view(array.dtype).reshape(array.shape)

    def place(self, pictures: list[DeviceArray], placed: list[tuple[int, int]] | None = None) -> Placements:
        """The records of a batch, by default of pictures that are not shrunk."""
        placements = Placements(self.gpu, self.gpu.arena, len(pictures))
        placements.fill(pictures, placed or [picture.shape[:2] for picture in pictures], self.stream)
        return placements

    def statistics(self, count: int) -> DeviceArray:
        return self.room((count,), STATISTICS)

    def _forbid_guards(self, laid: _Laid) -> None:
        """On the CUDA host no kernel may even read them."""
        if not host.load.cache_info().currsize:
            return
        host.load().allow(laid.raw.pointer, laid.raw.nbytes)  # of an array that lay here before
        edges = np.flatnonzero(np.diff(laid.guards, prepend=False, append=False))
        for start, end in edges.reshape(-1, 2).tolist():
            host.load().forbid(laid.raw.pointer + start, end - start)

    def _upload(self, raw: DeviceArray, values: NDArray[Any]) -> None:
        self.gpu.upload(values, raw, self.stream)
        self._wait()

    def _wait(self) -> None:
        with self.gpu.current():
            self.stream.synchronize()
