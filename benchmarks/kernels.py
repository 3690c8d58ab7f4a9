"""How near our CUDA kernels come to the bandwidth of the device's memory.

    python benchmarks/kernels.py             measure on this machine's GPU
    python benchmarks/kernels.py --roofline  no GPU needed: the least time that each launch can take on two devices

Every kernel is bound by memory: its least time is the bytes that it must move over the bandwidth. Counted is what a
perfect cache would leave: every input byte once, every output byte once. By default eight pictures go into a launch, so
that the tensors are larger than the caches of today's GPUs (72 MB on an RTX 4090).
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mag_rt.cuda import Gpu, Placements
from mag_rt.device_memory import DeviceArray
from mag_rt.driver import CudaError
from mag_rt.layout import STATISTICS
from mag_rt.pictures import Normalisation

SIDE = 1024
"""Of a square network input, pixels."""
PHOTO = (3000, 4000)
SHRUNK = (768, 1024)
CHANNELS = 12
TILE, OVERLAP = 512, 64
DEVICES = {"Jetson AGX Orin": 204.8e9, "RTX 4090": 1008e9}
"""Memory bandwidth by NVIDIA's data sheets, bytes/s."""
ARENA = 128 << 20
"""Bytes for each picture: enough for the largest case."""
WARM_UP, LAUNCHES, ROUNDS = 5, 20, 7


@dataclass(frozen=True)
class Case:
    """A launch to time: `nbytes` is what it must move for one picture, `prepare` gives the call for a batch."""

    kernel: str
    of: str
    nbytes: float
    pixels: int
    """That bytes per pixel are stated of."""
    ready: Callable[[Gpu, Any, int], Callable[[], None]]


def blend(dtype: type) -> Callable[[Gpu, Any, int], Callable[[], None]]:
    def ready(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
        colour, image, out = (gpu.arena.take((batch, 3, SIDE, SIDE), dtype) for _ in range(3))
        alpha = gpu.arena.take((batch, 1, SIDE, SIDE), dtype)
        return lambda: gpu.attention_blend(colour=colour, alpha=alpha, image=image, out=out, stream=stream)

    return ready


def overlay(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
    photos = [gpu.arena.take((*PHOTO, 3), np.uint8, aligned_rows=True) for _ in range(batch)]
    masks = [gpu.arena.take(PHOTO, np.uint8, aligned_rows=True) for _ in range(batch)]
    heat = gpu.arena.take((256, 3), np.uint8)

    def launch() -> None:
        for photo, mask in zip(photos, masks, strict=True):
            gpu.heat_overlay(photo=photo, mask=mask, heat=heat, strongest=0.65, out=photo, stream=stream)

    return launch


def tiles(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
    step = TILE - OVERLAP
    places = [(x, y) for y in range(0, batch * SIDE - OVERLAP, step) for x in range(0, SIDE - OVERLAP, step)]
    maps = gpu.arena.take((len(places), CHANNELS, TILE, TILE), np.float16)
    corners = gpu.arena.take((len(places), 2), np.int32)
    staged = gpu.pinned((len(places), 2), np.int32)
    staged[:] = places
    gpu.upload(staged, corners, stream)
    total, weight = large_map(gpu, batch)
    return lambda: gpu.accumulate_tiles(
        tiles=maps, corners=corners, overlap=OVERLAP, total=total, weight=weight, stream=stream
    )


def normalise(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
    total, weight = large_map(gpu, batch)
    ones = gpu.pinned(weight.shape, np.float32)
    ones[:] = 1  # where there is no weight, nothing is read or written
    gpu.upload(ones, weight, stream)
    return lambda: gpu.normalise_tiles(total=total, weight=weight, stream=stream)


def large_map(gpu: Gpu, batch: int) -> tuple[DeviceArray, DeviceArray]:
    shape = (batch * SIDE, SIDE)
    return gpu.arena.take((CHANNELS, *shape), np.float32), gpu.arena.take(shape, np.float32)


def prepare(size: tuple[int, int], placed: tuple[int, int]) -> Callable[[Gpu, Any, int], Callable[[], None]]:
    def ready(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
        pictures = Placements(gpu, gpu.arena, batch)
        photos = [gpu.arena.take((*size, 3), np.uint8, aligned_rows=True) for _ in range(batch)]
        pictures.fill(photos, [placed] * batch, stream)
        out = gpu.arena.take((batch, 3, *placed), np.float16)
        normalisation = Normalisation(1 / 127.5, -1.0)
        return lambda: gpu.prepare(pictures=pictures, normalisation=normalisation, out=out, stream=stream)

    return ready


def finish(size: tuple[int, int], placed: tuple[int, int]) -> Callable[[Gpu, Any, int], Callable[[], None]]:
    def ready(gpu: Gpu, stream: Any, batch: int) -> Callable[[], None]:
        masks = Placements(gpu, gpu.arena, batch)
        masks.fill([gpu.arena.take(size, np.uint8, aligned_rows=True) for _ in range(batch)], [placed] * batch, stream)
        maps = gpu.arena.take((batch, CHANNELS, *placed), np.float16)
        counts = gpu.arena.take((batch,), STATISTICS)
        return lambda: gpu.finish(maps=maps, masks=masks, threshold=128, statistics=counts, stream=stream)

    return ready


def cases() -> list[Case]:
    plane, photo, shrunk = SIDE * SIDE, PHOTO[0] * PHOTO[1], SHRUNK[0] * SHRUNK[1]
    covered = (TILE / (TILE - OVERLAP)) ** 2  # tiles over a pixel, on average
    square, large = f"{SIDE} x {SIDE}", f"{PHOTO[1]} x {PHOTO[0]}"
    small = f"{SHRUNK[1]} x {SHRUNK[0]}"
    return [
        Case("attention_blend_f16", square, 10 * 2 * plane, plane, blend(np.float16)),
        Case("attention_blend_f32", square, 10 * 4 * plane, plane, blend(np.float32)),
        Case("heat_overlay", large, (3 + 1 + 3) * photo, photo, overlay),
        Case("accumulate_tiles_f16", square, (CHANNELS * (2 * covered + 8) + 8) * plane, plane, tiles),
        Case("normalise_tiles", square, (CHANNELS * 8 + 4) * plane, plane, normalise),
        Case("prepare_f16", square, (3 + 6) * plane, plane, prepare((SIDE, SIDE), (SIDE, SIDE))),
        Case("prepare_f16", f"{large} to {small}", 3 * photo + 6 * shrunk, photo, prepare(PHOTO, SHRUNK)),
        Case("finish (3 kernels)", square, (2 * CHANNELS + 2 + 1) * plane, plane, finish((SIDE, SIDE), (SIDE, SIDE))),
        Case(
            "finish (3 kernels)",
            f"{small} to {large}",
            (2 * CHANNELS + 2) * shrunk + photo,
            photo,
            finish(PHOTO, SHRUNK),
        ),
    ]


def roofline() -> None:
    """The table of kernels/README.md: derived, not measured."""
    print("| kernel | picture | bytes per pixel | " + " | ".join(f"{device}, µs" for device in DEVICES) + " |")
    print("|---|---|---|" + "---|" * len(DEVICES))
    for case in cases():
        times = " | ".join(f"{case.nbytes / bandwidth * 1e6:.1f}" for bandwidth in DEVICES.values())
        print(f"| {case.kernel} | {case.of} | {case.nbytes / case.pixels:.3g} | {times} |")


def measure(batch: int) -> None:
    with Gpu(batch * ARENA) as gpu:
        peak = peak_bandwidth(gpu)
        print(f"{gpu.name}: {peak / 1e9:.0f} GB/s at most; {batch} pictures to a launch")
        for case in cases():
            gpu.arena.clear()
            stream = gpu.stream()
            seconds = time(gpu, stream, case.ready(gpu, stream, batch))
            achieved = batch * case.nbytes / seconds
            print(
                f"{case.kernel:21} {case.of:26} {seconds / batch * 1e6:8.1f} µs/picture"
                f" {achieved / 1e9:8.1f} GB/s {achieved / peak:6.0%}"
            )


def peak_bandwidth(gpu: Gpu) -> float:
    """Of the device's memory, bytes/s: two transfers for each tick of its clock."""
    from pycuda import driver

    with gpu.current():
        device = driver.Context.get_device()
        kilohertz = device.get_attribute(driver.device_attribute.MEMORY_CLOCK_RATE)
        bits = device.get_attribute(driver.device_attribute.GLOBAL_MEMORY_BUS_WIDTH)
    return 2e3 * kilohertz * bits / 8


def time(gpu: Gpu, stream: Any, launch: Callable[[], None]) -> float:
    """Seconds for one call, the median of some rounds."""
    begin, end = gpu.event(timing=True), gpu.event(timing=True)
    rounds = []
    for _ in range(WARM_UP):
        launch()
    for _ in range(ROUNDS):
        with gpu.current():
            begin.record(stream)
        for _ in range(LAUNCHES):
            launch()
        with gpu.current():
            end.record(stream)
            end.synchronize()
            rounds.append(begin.time_till(end) / 1e3 / LAUNCHES)
    return statistics.median(rounds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--roofline", action="store_true", help="print the bounds and measure nothing")
    arguments.add_argument("--batch", type=int, default=8, help="pictures in a launch (8)")
    options = arguments.parse_args()
    if options.roofline:
        roofline()
        return
    try:
        measure(options.batch)
    except CudaError as error:
        sys.exit(f"nothing measured: {error}")


if __name__ == "__main__":
    main()
