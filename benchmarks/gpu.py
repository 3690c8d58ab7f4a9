"""How fast the TensorRT backend reads pictures on this machine's GPU, and what overlaps.

    python benchmarks/gpu.py [--rtx] [--precision float16] [--pictures 256]
    PYTHONPATH=. python benchmarks/gpu.py --stand-in    # a GPU without TensorRT: the network by PyTorch

For photos of several sizes, as they come out of the decoder, it prints

- pictures/s: whole calls, from decoded pictures to readings, regions included;
- alone: the same when every run of the engine is a call of its own, so that nothing overlaps, and the gain of
  overlapping over it;
- copies: the bytes that go up and come down in a second, and their share of what one copy after the other reaches.

What the engine does alone, `trtexec --loadEngine` tells; docs/deployment.md says where the engine lies. With
`--stand-in` the network's part in this is PyTorch's, and how that agrees with the float32 network is printed first;
uploads, kernels, downloads and their order are those of every scan on a GPU.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mag_rt import bundle as bundles
from mag_rt.backends.loaded_engine import annotating
from mag_rt.backends.tensorrt import ARENA_BYTES, TensorRTReader, open_tensorrt
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu
from mag_rt.engines import Spec, checked_bytes, checked_shape
from mag_rt.errors import MagrtError
from mag_rt.parity import check_pictures, gate
from mag_rt.pictures import Picture

SIZES = [(384, 256), (768, 1024), (1500, 2000)]
"""Height and width: of small web pictures, of what is read of a large JPEG, of a photo that is shrunk on the GPU."""
ROUNDS = 5
COPY = 64 << 20
"""Bytes of the copies that measure what the bus reaches."""


def seconds(work: Callable[[], Any]) -> float:
    """Of one call, the median of some."""
    work()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def in_calls_of(reader: TensorRTReader, pictures: list[Picture], step: int) -> Callable[[], None]:
    def work() -> None:
        for at in range(0, len(pictures), step):
            batch = pictures[at : at + step]
            reader(batch, [picture.shape[:2] for picture in batch])

    return work


def bus(gpu: Gpu) -> float:
    """Bytes/s of copies up and down in turn, page-locked."""
    stream, staged, array = gpu.stream(), gpu.pinned((COPY,), np.uint8), gpu.arena.take((COPY,), np.uint8)

    def work() -> None:
        gpu.upload(staged, array, stream)
        gpu.download(array, staged, stream)
        with gpu.current():
            stream.synchronize()

    return 2 * COPY / seconds(work)


def stand_in(bundle: Bundle, precision: str) -> TensorRTReader:
    """A reader whose engine is run by PyTorch, after the gate that an engine of TensorRT has to pass."""
    from tests.tensorrt_double import on_gpu, serialise

    trt, spec = on_gpu.library(), Spec.default(bundle, precision)
    engine = serialise(bundle.network_in(precision), {"image": spec.shapes})
    with Gpu(checked_bytes(spec, bundle)) as gpu, annotating(trt, engine, bundle, gpu) as annotate:
        print(f"{precision} by PyTorch: {gate(annotate, bundle, precision, *checked_shape(spec, bundle.multiple))}")
    gpu, side = Gpu(ARENA_BYTES), bundle.max_side
    return TensorRTReader(trt, engine, bundle, gpu, precision=precision, max_side=side, tiles=False)


def measure(precision: str, rtx: bool, number: int, with_stand_in: bool) -> None:
    bundle = bundles.load(bundles.bundled())
    with Gpu(2 * COPY) as gpu:
        name, peak = gpu.name, bus(gpu)
    if with_stand_in:
        reader = stand_in(bundle, precision)
    else:
        reader = open_tensorrt(bundle, bundle.max_side, tiles=False, precision=precision, rtx=rtx)
    try:
        run = reader.batch // 2
        library = "PyTorch for TensorRT" if with_stand_in else f"{reader.name} {reader.version}"
        print(f"{name}, {library}, {precision}, {run} pictures to a run; bus {peak / 1e9:.1f} GB/s")
        for size in SIZES:
            pictures = (check_pictures(size) * (number // 6 + 1))[:number]
            together = number / seconds(in_calls_of(reader, pictures, number))
            alone = number / seconds(in_calls_of(reader, pictures, run))
            copied = together * 4 * size[0] * size[1]  # three bytes of a pixel go up, one of its mask comes down
            speeds = f"{together:8.1f} pictures/s, {alone:8.1f} alone (x {together / alone:.2f})"
            print(f"{size[1]:5} x {size[0]:<5} {speeds}, copies {copied / 1e9:6.2f} GB/s ({copied / peak:.0%})")
    finally:
        reader.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rtx", action="store_true", help="TensorRT-RTX instead of TensorRT")
    arguments.add_argument("--stand-in", action="store_true", help="PyTorch instead of TensorRT")
    arguments.add_argument("--precision", default="float16", choices=("float16", "float32", "int8"))
    arguments.add_argument("--pictures", type=int, default=256, help="in a call (256)")
    options = arguments.parse_args()
    try:
        measure(options.precision, options.rtx, options.pictures, options.stand_in)
    except MagrtError as error:
        sys.exit(f"nothing measured: {error}")


if __name__ == "__main__":
    main()
