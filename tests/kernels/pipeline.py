"""Batches through `prepare`, one being copied while another is computed: how a backend drives the kernels."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mag_rt.cuda import Gpu, Placements
from mag_rt.device_memory import DeviceArray
from mag_rt.pictures import Normalisation

NORMALISATION = Normalisation(scale=1 / 127.5, offset=-1.0)
DEPTH = 2
"""Batches under way."""


class Slot:
    """What one batch under way needs: N pictures of H x W x 3, uint8, and the planes made of them, float32."""

    def __init__(self, gpu: Gpu, shape: tuple[int, int, int, int]) -> None:
        count, height, width, _ = shape
        self._gpu = gpu
        self.staging = gpu.pinned(shape, np.uint8)
        self.pictures = gpu.arena.take(shape, np.uint8)
        self.placements = Placements(gpu, gpu.arena, count)
        self.planes = gpu.arena.take((count, 3, height, width), np.float32)
        self.result = gpu.pinned((count, 3, height, width), np.float32)
        self.uploaded, self.prepared, self.downloaded = gpu.event(), gpu.event(), gpu.event()

    def start(self, batch: NDArray[np.uint8], upload: Any, compute: Any, download: Any) -> None:
        """Queue the batch. The slot must be free: its last result collected."""
        gpu = self._gpu
        self.staging[:] = batch
        gpu.upload(self.staging, self.pictures, upload)
        with gpu.current():
            self.uploaded.record(upload)
            compute.wait_for_event(self.uploaded)
        _, height, width, _ = batch.shape
        pictures = [
            DeviceArray(self.pictures.pointer + i * self.pictures.pitch, (height, width, 3), batch.dtype, 3 * width)
            for i in range(len(batch))
        ]
        self.placements.fill(pictures, [picture.shape[:2] for picture in pictures], compute)
        gpu.prepare(pictures=self.placements, normalisation=NORMALISATION, out=self.planes, stream=compute)
        with gpu.current():
            self.prepared.record(compute)
            download.wait_for_event(self.prepared)
        gpu.download(self.planes, self.result, download)
        with gpu.current():
            self.downloaded.record(download)

    def collect(self) -> NDArray[np.float32]:
        """The result, when it is there."""
        with self._gpu.current():
            self.downloaded.synchronize()
        return self.result.copy()


def prepare_all(gpu: Gpu, batches: Iterable[NDArray[np.uint8]], shape: tuple[int, int, int, int]) -> Iterator[NDArray]:
    """The planes of each batch, in their order."""
    streams = gpu.stream(), gpu.stream(), gpu.stream()
    slots = [Slot(gpu, shape) for _ in range(DEPTH)]
    started = 0
    for batch in batches:
        slot = slots[started % DEPTH]
        if started >= DEPTH:
            yield slot.collect()
        slot.start(batch, *streams)
        started += 1
    for number in range(max(0, started - DEPTH), started):
        yield slots[number % DEPTH].collect()
