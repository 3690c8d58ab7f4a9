"""Device memory as the kernels see it: arrays by their address, handed out from one arena."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from mag_rt.errors import MagrtError

ALIGNMENT = 256
"""Bytes: where every piece of the arena begins, as cudaMalloc's own would."""
ROW_ALIGNMENT = 32
"""Bytes: where rows begin that are asked to be aligned; a sector of the GPU's memory."""


class DoesNotFitError(MagrtError):
    """More than the arena has left or the kernels take: such a picture is for the CPU to prepare."""


@dataclass(frozen=True)
class DeviceArray:
    """An array in device memory, C order; `pitch` bytes lie between the entries of its first axis."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pitch: int

    @property
    def nbytes(self) -> int:
        """From the first byte to the last, the ends of padded rows included."""
        return self.shape[0] * self.pitch

    @property
    def contiguous(self) -> bool:
        return self.pitch == prod(self.shape[1:]) * self.dtype.itemsize

    def first(self, count: int) -> "DeviceArray":
        """The first entries of the first axis. Raises ValueError when there are not as many."""
        if not 0 < count <= self.shape[0]:
            raise ValueError(f"the first {count} of {self.shape[0]} entries")
        return replace(self, shape=(count, *self.shape[1:]))


class Arena:
    """A stretch of device memory, handed out in aligned pieces from its start and taken back all at once."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.pointer = pointer
        self.nbytes = nbytes
        self._taken = 0

    def take(self, shape: tuple[int, ...], dtype: DTypeLike, *, aligned_rows: bool = False) -> DeviceArray:
        """A piece for an array; with `aligned_rows` its rows begin at multiples of `ROW_ALIGNMENT`.

        Raises DoesNotFitError, and hands out nothing, when not enough is left; ValueError for an empty array.
        """
        dtype = np.dtype(dtype)
        if not shape or min(shape) < 1:
            raise ValueError(f"an array of {shape} in device memory")
        pitch = prod(shape[1:]) * dtype.itemsize
        if aligned_rows:
            pitch += -pitch % ROW_ALIGNMENT
        start = self._taken + -(self.pointer + self._taken) % ALIGNMENT
        if start + shape[0] * pitch > self.nbytes:
            raise DoesNotFitError(
                f"{shape[0] * pitch} bytes do not fit into the {max(0, self.nbytes - start)} that are left"
            )
        self._taken = start + shape[0] * pitch
        return DeviceArray(self.pointer + start, shape, dtype, pitch)

    def clear(self) -> None:
        """Take every piece back. The caller sees to it that no work on them is under way."""
        self._taken = 0
