"""The annotator through TensorRT or TensorRT-RTX on a GPU, our kernels around it.

A call is cut into *runs* of the engine, and each run has one of two *slots* in turn. Three parties work at the same
time, each in its own order; arrows are the events (recorded by the one, waited for by the other):

    host           stage k+1 ............  wait for download k, copy its masks  stage k+2 ...
    copy stream    upload k+1 ──uploaded──▸         wait ▸ download k ──downloaded──▸ host
    compute stream              wait ▸ prepare, engine, finish of k+1 ──computed──▸ copy stream

The copy stream gets download k behind upload k+1: else that upload would wait until run k is computed.
Regions are looked for in the copied masks by threads of their own.

Who owns what. A slot has what two parties touch: staged and uploaded pictures, masks, counts; it is the run's from the
staging until the host has waited for `downloaded`, and that wait is what makes it free for run k+2. What only the
compute stream touches (input, maps, sums of tiles) exists once: the order of that stream keeps runs apart. All of it is
page-locked memory and pieces of the arena of the Gpu, which the reader takes over. Weights and activations are
TensorRT's own.
"""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mag_rt.backends.batching import Batching, Run, Task, Tiles
from mag_rt.backends.loaded_engine import LoadedEngine, annotating
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu, Placements
from mag_rt.device_memory import ALIGNMENT, Arena, DeviceArray, DoesNotFitError
from mag_rt.driver import CudaError
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import Size, Spec, UnloadableError, engine_for, load_library
from mag_rt.findings import Failure, Look, Reading, grey_level, read, together
from mag_rt.layout import STATISTICS, counts
from mag_rt.pictures import Picture
from mag_rt.pipeline import ahead
from mag_rt.reading import OVERLAP, HostReader

ARENA_BYTES = 512 << 20
"""Of the Gpu to open for a reader."""
TILES_ARENA_BYTES = 2 << 30
"""The same for pictures in tiles, whose maps add up in 52 bytes for each pixel."""
READING_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
"""Regions of a large mask take a core longer than the GPU takes to make it."""
READ_AHEAD = 2 * READING_THREADS
"""Pictures whose regions are looked for while the GPU makes the next masks."""
SLOT_BYTES = 128 << 20
"""Of the arena for each slot's pictures and masks, or a quarter of it; the rest is for the planes."""


class TensorRTReader:
    """A bundle's engine on a GPU, as a Reader.

    `trt`: the module, tensorrt or tensorrt_rtx. `engine`: as the library serialised it; input `image` N x 3 x H x W and
    output `annotation` N x (2+K) x H x W, each float16 or float32. `precision`: what it computes in, for people. `gpu`:
    taken over; it is closed with the reader, or here when this raises. Pictures with a side over `max_side` are shrunk
    to it, and with `tiles` read a second time in tiles of it, as a HostReader does; what the engine's profile is too
    small for is read in tiles as well, and what the arena is too small for is read on the CPU.

    Raises EngineError, CudaError, and DoesNotFitError when the arena is too small for a picture of `max_side`.
    """

    threads = 1
    reason, fell_back = "", False

    def __init__(
        self, trt: Any, engine: bytes, bundle: Bundle, gpu: Gpu, *, precision: str, max_side: int, tiles: bool
    ) -> None:
        self.name, self.version, self.precision = trt.__name__.replace("_", "-"), trt.__version__, precision
        self._bundle, self._gpu, self._max_side, self._tiles = bundle, gpu, max_side, tiles
        self._on_cpu: HostReader | None = None
        with ExitStack() as undo:
            undo.callback(gpu.close)
            undo.callback(self._let_go)
            self._copy, self._compute = gpu.stream(), gpu.stream()
            self._engine = LoadedEngine(trt, engine, bundle, gpu, self._compute)
            undo.callback(self._engine.close)
            self._slots, self._planes = self._share_out()
            slot_bytes, plane_bytes = self._slots[0].arena.nbytes, self._planes.nbytes
            self._batching = Batching(self._engine, max_side, tiles, slot_bytes=slot_bytes, plane_bytes=plane_bytes)
            self._undo = undo.pop_all()
        self.batch = 2 * self._engine.batch_most  # two runs, so that they overlap

    def close(self) -> None:
        """Wait for the work under way and give everything back; calling it again does nothing."""
        try:
            if self._on_cpu:
                self._on_cpu.close()
        finally:
            self._undo.close()

    def __call__(self, pictures: Sequence[Picture], sizes: Sequence[Size]) -> list[Reading | Failure]:
        """The reading of each picture; a Failure where the engine's maps hold what is no number.

        Raises CudaError or EngineError when the GPU or the engine fails; nothing is under way afterwards.
        """
        readings: list[Reading | Failure | None] = [None] * len(pictures)
        tasks = [self._batching.tasks(i, *each) for i, each in enumerate(zip(pictures, sizes, strict=True))]
        fitting = [each for each in tasks if all(map(self._batching.fits, each))]
        with closing(ahead(self._numbered_reading, self._looked_at(fitting), READ_AHEAD, READING_THREADS)) as found:
            for index, reading in found:
                readings[index] = reading
        return [
            reading or self._read_on_cpu(picture, size)
            for reading, picture, size in zip(readings, pictures, sizes, strict=True)
        ]

    def _looked_at(self, pictures: list[list[Task]]) -> Generator[tuple[int, list[Look | Failure]], None, None]:
        """The looks at each picture and its number, as soon as they are complete."""
        looks: dict[Task, Look | Failure] = {}
        of = {task.index: tasks for tasks in pictures for task in tasks}
        with closing(self._looks([task for tasks in pictures for task in tasks])) as found:
            for task, look in found:
                looks[task], same = look, of[task.index]
                if all(each in looks for each in same):
                    yield task.index, [looks.pop(each) for each in same]

    def _looks(self, tasks: list[Task]) -> Generator[tuple[Task, Look | Failure], None, None]:
        """What the tasks give, in the order of their runs; the next run is under way as one's are looked at."""
        slots, before = cycle(self._slots), None
        try:
            for run in self._batching.runs(tasks):
                slot = next(slots)  # free: its last run was collected in the round before
                self._queue_upload(slot, run)
                self._queue_compute(slot, run)
                if before:
                    yield from self._collect(before)
                before = slot
            if before:
                yield from self._collect(before)
        except BaseException:
            self._settle()
            raise

    def _let_go(self) -> None:
        """Streams and events end with their last owner, which has to be the Gpu: it has their context."""
        self._copy = self._compute = None
        self._slots = []

    def _read_on_cpu(self, picture: Picture, size: Size) -> Reading | Failure:
        if self._on_cpu is None:
            backend = OnnxRuntimeBackend(self._bundle)
            self._on_cpu = HostReader(backend, self._bundle, self._max_side, self._tiles, threads=1)
        return self._on_cpu([picture], [size])[0]

    def _queue_upload(self, slot: "_Slot", run: Run) -> None:
        """On the copy stream, up to `uploaded`: pictures, and the records of where they and their masks lie."""
        gpu, stream = self._gpu, self._copy
        slot.run = run
        slot.arena.clear()
        photos = [slot.take(picture.shape) for picture in run.pictures]
        for photo, picture in zip(photos, run.pictures, strict=True):
            slot.rows(photo)[:, : picture.shape[1] * 3] = picture.reshape(len(picture), -1)
            gpu.upload(slot.staged(photo), _flat(photo), stream)
        slot.pictures.fill(photos, run.placed, stream)
        if run.finishes:
            masks = [slot.take(task.size) for task in run.finishes]
            slot.masks.fill(masks, [task.placed for task in run.finishes], stream)
        if run.tiles:
            slot.staged_corners[: len(run.tiles.corners)] = run.tiles.corners
            gpu.upload(slot.staged_corners, slot.corners, stream)
        self._record(slot.uploaded, stream)

    def _queue_compute(self, slot: "_Slot", run: Run) -> None:
        """On the compute stream, from `uploaded` to `computed`: pictures to maps to masks and counts."""
        gpu, stream = self._gpu, self._compute
        self._wait(stream, slot.uploaded)
        self._planes.clear()
        # First of all, so that they are at the same place for all tiles of a picture.
        total, weight = self._sums(run.tiles, stream) if run.tiles else (None, None)
        count = len(run.pictures)
        image, maps = self._engine.take(self._planes, max(count, self._engine.batch_least), run.plane)
        normalisation = self._bundle.normalisation
        gpu.prepare(pictures=slot.pictures, normalisation=normalisation, out=image.first(count), stream=stream)
        self._engine.queue(image, maps)
        maps = maps.first(count)
        if run.tiles and total and weight:
            overlap = max(1, min(OVERLAP, min(run.plane) // 4))
            corners = slot.corners.first(count)
            gpu.accumulate_tiles(
                tiles=maps, corners=corners, overlap=overlap, total=total, weight=weight, stream=stream
            )
            if run.finishes:
                gpu.normalise_tiles(total=total, weight=weight, stream=stream)
            maps = DeviceArray(total.pointer, (1, *total.shape), total.dtype, total.nbytes)
        if run.finishes:
            threshold = grey_level(self._bundle.mask_threshold)
            statistics = slot.statistics.first(len(run.finishes))
            gpu.finish(maps=maps, masks=slot.masks, threshold=threshold, statistics=statistics, stream=stream)
        self._record(slot.computed, stream)

    def _sums(self, tiles: Tiles, stream: Any) -> tuple[DeviceArray, DeviceArray]:
        """Where the maps of a picture's tiles and their weights add up: total and weight, empty before the first."""
        total = self._planes.take((self._engine.channels, *tiles.placed), np.float32)
        weight = self._planes.take(tiles.placed, np.float32)
        if tiles.first:
            self._gpu.zero(total, stream)
            self._gpu.zero(weight, stream)
        return total, weight

    def _collect(self, slot: "_Slot") -> Iterator[tuple[Task, Look | Failure]]:
        """Queue the download on the copy stream, from `computed` to `downloaded`, wait for it, and take what came."""
        gpu, stream, finishes = self._gpu, self._copy, slot.run.finishes
        self._wait(stream, slot.computed)
        if finishes:
            for mask in slot.masks.pictures:
                gpu.download(_flat(mask), slot.staged(mask), stream)
            gpu.download(slot.statistics, slot.fetched, stream)
        self._record(slot.downloaded, stream)
        with gpu.current():
            slot.downloaded.synchronize()
        if finishes:
            for task, mask, record in zip(finishes, slot.masks.pictures, slot.fetched, strict=False):
                yield task, self._look(slot.rows(mask)[:, : mask.shape[1]], record)

    def _look(self, mask: NDArray[np.uint8], record: np.void) -> Look | Failure:
        if lost := int(record["nan"]) + int(record["infinite"]):
            why = ": FP16 overflow; `--precision float32` has the range" if self.precision == "float16" else ""
            return Failure("overflow", f"{lost} values of the engine's annotation are NaN or infinite{why}")
        # A copy: the slot's memory is the next run's.
        return mask.copy(), counts(record, len(self._bundle.classes))

    def _numbered_reading(self, numbered: tuple[int, list[Look | Failure]]) -> tuple[int, Reading | Failure]:
        index, looks = numbered
        return index, self._reading(*looks)

    def _reading(self, whole: Look | Failure, close: Look | Failure | None = None) -> Reading | Failure:
        """Of a picture's one look, or of two."""
        if isinstance(whole, Failure):
            return whole
        if isinstance(close, Failure):
            return close
        threshold = self._bundle.mask_threshold
        return read(together(whole, close[0], threshold) if close else whole, threshold, self._bundle.classes)

    def _share_out(self) -> tuple[list["_Slot"], Arena]:
        """Both slots, and the arena of the planes. Raises DoesNotFitError when there is no room to work in."""
        arena, most, side = self._gpu.arena, self._engine.batch_most, self._max_side
        share = min(arena.nbytes // 4, SLOT_BYTES)
        for_pictures = share - _Slot.bytes_beside(most)
        for_planes = arena.nbytes - 2 * share - ALIGNMENT
        needed = self._engine.batch_least * self._engine.bytes_of(self._engine.plane((side, side)))
        if for_pictures < 4 * side**2 or for_planes < needed + 2 * ALIGNMENT:
            raise DoesNotFitError(
                f"{arena.nbytes >> 20} MiB of device memory are too few for pictures of {side} x {side}"
            )
        slots = [_Slot(self._gpu, most, for_pictures) for _ in range(2)]
        planes = arena.take((for_planes,), np.uint8)
        return slots, Arena(planes.pointer, planes.nbytes)

    def _record(self, event: Any, stream: Any) -> None:
        with self._gpu.current():
            event.record(stream)

    def _wait(self, stream: Any, event: Any) -> None:
        with self._gpu.current():
            stream.wait_for_event(event)

    def _settle(self) -> None:
        """Wait until nothing is under way."""
        for stream in (self._copy, self._compute):
            with suppress(CudaError), self._gpu.current():  # a GPU that has failed does nothing more
                stream.synchronize()


class _Slot:
    """One run's pictures, masks and counts, on the device and page-locked on the host, and its three events.

    `most`: pictures in a run; `nbytes`: for pictures and masks. Both live as long as the Gpu.
    """

    run: Run

    def __init__(self, gpu: Gpu, most: int, nbytes: int) -> None:
        region = gpu.arena.take((nbytes,), np.uint8)
        self.arena = Arena(region.pointer, region.nbytes)
        self._staging = gpu.pinned((nbytes,), np.uint8)  # laid out as the arena is
        self.pictures, self.masks = Placements(gpu, gpu.arena, most), Placements(gpu, gpu.arena, most)
        self.corners, self.staged_corners = gpu.arena.take((most, 2), np.int32), gpu.pinned((most, 2), np.int32)
        self.statistics, self.fetched = gpu.arena.take((most,), STATISTICS), gpu.pinned((most,), STATISTICS)
        self.uploaded, self.computed, self.downloaded = gpu.event(), gpu.event(), gpu.event()

    @staticmethod
    def bytes_beside(most: int) -> int:
        """That a slot takes of the Gpu's arena beside those for pictures and masks, at most."""
        return most * (STATISTICS.itemsize + 256) + 5 * ALIGNMENT

    def take(self, shape: tuple[int, ...]) -> DeviceArray:
        """Room for a picture or mask. Raises DoesNotFitError."""
        return self.arena.take(shape, np.uint8, aligned_rows=True)

    def staged(self, array: DeviceArray) -> NDArray[np.uint8]:
        """The page-locked bytes of a picture or mask of this slot."""
        begin = array.pointer - self.arena.pointer
        return self._staging[begin : begin + array.nbytes]

    def rows(self, array: DeviceArray) -> NDArray[np.uint8]:
        """The same, a row of them for each row of pixels, which they begin with."""
        return self.staged(array).reshape(array.shape[0], array.pitch)


def _flat(array: DeviceArray) -> DeviceArray:
    """An array as bytes, the ends of its rows included."""
    return DeviceArray(array.pointer, (array.nbytes,), np.dtype(np.uint8), 1)


def open_tensorrt(
    bundle: Bundle, max_side: int, tiles: bool, *, precision: str = "float16", rtx: bool = False
) -> TensorRTReader:
    """A reader with the engine that this user's cache has for the GPU, or with a new one, which may take minutes.

    A kept engine that no longer loads is built anew, once. Raises EngineError, ParityError, CudaError or
    DoesNotFitError: a line that says why there is none.
    """
    trt, spec = load_library(rtx), Spec.default(bundle, precision)

    def opened(*, anew: bool) -> TensorRTReader:
        gpu = Gpu(TILES_ARENA_BYTES if tiles else ARENA_BYTES)
        try:
            run = partial(annotating, trt, bundle=bundle, gpu=gpu)
            engine = engine_for(trt, bundle, spec, gpu, run, EngineCache(), anew=anew)
        except BaseException:
            gpu.close()
            raise
        return TensorRTReader(trt, engine, bundle, gpu, precision=precision, max_side=max_side, tiles=tiles)

    with suppress(UnloadableError):  # it was kept; whatever it was built with is no longer what is here
        return opened(anew=False)
    return opened(anew=True)
