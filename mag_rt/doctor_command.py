"""`magrt doctor`: what this machine can run, proved by running it."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mag_rt import __version__
from mag_rt import bundle as bundles
from mag_rt.backends.tensorrt import open_tensorrt
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu, Placements
from mag_rt.driver import CudaError
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import Spec, describe, load_library
from mag_rt.errors import MagrtError
from mag_rt.findings import Failure, Reading, grey_level, levels
from mag_rt.layout import STATISTICS, counts
from mag_rt.parity import check_pictures
from mag_rt.pictures import Picture, as_grey, map_back, pad, shrink
from mag_rt.reading import Reader, open_reader
from mag_rt.terminal import UNUSABLE

CHECKED = (192, 256)
"""Height and width of the pictures that the CPU is asked to read."""
TIMED = (768, 1024)
"""The same for a GPU: what a scan makes of a photo."""

State = Literal["ok", "missing", "broken"]
STYLES = {"ok": "green", "missing": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `missing` is what a machine may well do without, `broken` what is there and fails;
    `says` has the details, or the reason in a line."""

    name: str
    state: State
    says: str


def doctor(
    model: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="thorough, or the folder or zip of another annotator. [edge]")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Of a scan: tensorrt, tensorrt-rtx, openvino or onnxruntime; auto takes the fastest.")
    ] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead, for a support request.")
    ] = False,
) -> None:
    """Say what this machine can run, and prove it.

    Every part is tried: the driver, our kernels against the CPU, TensorRT's engine against the float32 reference, what
    a scan runs on, and how fast that is. An engine that is not there yet is built, which may take minutes.

    Exit status: 0 a scan runs here on the backend asked for; 2 it does not, or something that is installed is broken.
    """
    checks = []
    console = Console(emoji=False)
    if not console.is_terminal:
        console.width = 4096  # a pipe has no width to wrap at
    for check in examine(model, backend):
        checks.append(check)
        if not as_json:
            _show(console, check)
    usable = any(check.name == "scan" and check.state == "ok" for check in checks)
    if as_json:
        facts = {"magrt": __version__, "python": platform.python_version(), "machine": machine(), "usable": usable}
        print(json.dumps({**facts, "checks": [asdict(check) for check in checks]}, indent=2))
    if not usable or any(check.state == "broken" for check in checks):
        raise typer.Exit(UNUSABLE)


def _show(console: Console, check: Check) -> None:
    line = Table(box=None, pad_edge=False, show_header=False)
    line.add_column(width=12)
    line.add_column(width=8)
    line.add_column(overflow="fold")
    line.add_row(check.name, f"[{STYLES[check.state]}]{check.state}[/]", check.says.replace("[", r"\["))
    console.print(line, highlight=False)


def machine() -> str:
    """Operating system, processor and cores; on a Jetson, which JetPack."""
    jetson = Path("/etc/nv_tegra_release")
    tegra = f", {jetson.read_text().splitlines()[0].strip('# ')}" if jetson.exists() else ""
    return f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores{tegra}"


def examine(model: Path | None, backend: str) -> Iterator[Check]:
    """Everything that is looked at, in its order, as it is found."""
    yield Check("magrt", "ok", f"{__version__}, Python {platform.python_version()}, {machine()}")
    try:
        bundle = bundles.load(bundles.located(model))
    except MagrtError as error:
        yield Check("model", "broken", str(error))
        return
    yield Check("model", "ok", f"{bundle.annotator} {bundle.sha256[:12]}: {', '.join(bundle.networks)}")
    for name in ("onnxruntime", "openvino"):
        yield _on_cpu(bundle, name)
    yield from _gpu(bundle)
    yield tried("scan", lambda: _scan(bundle, backend))


def tried(name: str, work: Callable[[], str], otherwise: State = "broken") -> Check:
    """What `work` says, or why it failed: a line in any case."""
    try:
        return Check(name, "ok", work())
    except MagrtError as error:
        return Check(name, otherwise, str(error))
    except Exception as error:  # libraries of others; what they raise is what a support engineer must see
        return Check(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _scan(bundle: Bundle, backend: str) -> str:
    """What a scan runs on, and why."""
    reader = open_reader(bundle, bundle.max_side, False, backend)
    try:
        return f"runs on {reader.name} {_timed(reader)}: {reader.reason}"
    finally:
        reader.close()


def _on_cpu(bundle: Bundle, backend: str) -> Check:
    """A backend on the CPU, and how fast it reads."""
    try:
        reader = open_reader(bundle, bundle.max_side, False, backend)
    except MagrtError as error:
        return Check(backend, "broken" if find_spec(backend) else "missing", str(error))
    try:
        return tried(backend, lambda: _timed(reader))
    finally:
        reader.close()


def _timed(reader: Reader) -> str:
    """Version, precision and speed."""
    return f"{reader.version}, {reader.precision}{_rate(_speed(reader, check_pictures(CHECKED))[0], CHECKED)}"


def _gpu(bundle: Bundle) -> Iterator[Check]:
    """Driver, GPU and kernels, and with them the engines of both libraries."""
    usable = False
    try:
        with Gpu(64 << 20) as gpu:
            yield Check("gpu", "ok", _describe(gpu))
            kernels = tried("kernels", lambda: kernels_agree(gpu, bundle))
            usable = kernels.state == "ok"
            yield kernels
    except CudaError as error:
        yield Check("gpu", "missing", str(error))
    for rtx in (False, True):
        yield _engine(bundle, rtx, usable)


def _describe(gpu: Gpu) -> str:
    import pycuda.driver as driver

    major, minor = divmod(driver.get_driver_version() // 10, 100)
    with gpu.current():
        _, total = driver.mem_get_info()
    release = ""
    with suppress(OSError):
        release = f", {Path('/proc/driver/nvidia/version').read_text().splitlines()[0]}"
    capability = ".".join(map(str, gpu.capability))
    return f"{gpu.name}, compute capability {capability}, {total >> 20} MiB, driver of CUDA {major}.{minor}{release}"


def _engine(bundle: Bundle, rtx: bool, usable: bool) -> Check:
    """A library, and where there is a GPU to use it on, its engine and what that reads."""
    name = "tensorrt-rtx" if rtx else "tensorrt"
    library = tried(name, lambda: load_library(rtx).__version__, otherwise="missing")
    if library.state != "ok":
        return library
    if not usable:
        return Check(name, "missing", f"{library.says} is installed, and has no GPU here that our kernels run on")
    return tried(name, lambda: f"{library.says}, {_prove(bundle, rtx)}")


def _prove(bundle: Bundle, rtx: bool) -> str:
    """Read pictures with the engine and on the CPU, and compare. Raises MagrtError when they differ."""
    known = _state(bundle, rtx)
    begun = time.perf_counter()
    reader = open_tensorrt(bundle, bundle.max_side, tiles=False, rtx=rtx)
    opened = time.perf_counter() - begun
    try:
        speed, readings = _speed(reader, check_pictures(TIMED))
    finally:
        reader.close()
    cpu = open_reader(bundle, bundle.max_side, False, "onnxruntime")
    try:
        expected = _read(cpu, check_pictures(TIMED))
    finally:
        cpu.close()
    apart = _masks_apart(readings, expected)
    engine = f"engine {known}, ready after {opened:.1f} s, agrees with float32"
    return f"{engine}, masks {apart:.2f} grey levels apart on average{_rate(speed, TIMED)}"


def _state(bundle: Bundle, rtx: bool) -> str:
    """Whether this user's cache has the engine that a scan would use."""
    trt, spec = load_library(rtx), Spec.default(bundle, "float16")
    with Gpu(1 << 20) as gpu:
        notes = EngineCache().notes(describe(trt, bundle, spec, gpu))
    return f"in the cache since {notes['built']}" if "built" in notes else "newly built"


def _masks_apart(readings: list[Reading | Failure], expected: list[Reading | Failure]) -> float:
    """Mean difference of the masks, grey levels. Raises MagrtError for a failure, or where it is over 2."""
    apart = []
    for one, other in zip(readings, expected, strict=True):
        if isinstance(one, Failure):
            raise MagrtError(f"a check picture failed: {one.message}")
        assert isinstance(other, Reading)  # the CPU's float32 has no failures
        apart.append(np.abs(one.mask.astype(int) - other.mask).mean())
    mean = float(np.mean(apart))
    if mean > 2:
        raise MagrtError(f"the masks of the check pictures are {mean:.1f} grey levels from those of the CPU")
    return mean


def _speed(reader: Reader, pictures: list[Picture]) -> tuple[float, list[Reading | Failure]]:
    """Pictures per second, when warm, and the readings."""
    _read(reader, pictures[: reader.batch])
    begun = time.perf_counter()
    readings = _read(reader, pictures)
    return len(pictures) / (time.perf_counter() - begun), readings


def _read(reader: Reader, pictures: list[Picture]) -> list[Reading | Failure]:
    sizes = [picture.shape[:2] for picture in pictures]
    batches = [slice(at, at + reader.batch) for at in range(0, len(sizes), reader.batch)]
    return [reading for batch in batches for reading in reader(pictures[batch], sizes[batch])]


def _rate(speed: float, size: tuple[int, int]) -> str:
    return f", {speed:.1f} pictures/s of {size[1]} x {size[0]}"


def kernels_agree(gpu: Gpu, bundle: Bundle) -> str:
    """Run the kernels around the network on check pictures and compare with the CPU. Raises MagrtError."""
    stream, normalisation = gpu.stream(), bundle.normalisation
    height, width = CHECKED[0] * 3 // 4, CHECKED[1] * 3 // 4  # so that there is something to shrink
    pictures = check_pictures(CHECKED)
    gpu.arena.clear()
    photos = [gpu.arena.take(picture.shape, np.uint8) for picture in pictures]
    placements = Placements(gpu, gpu.arena, len(pictures))
    for picture, photo in zip(pictures, photos, strict=True):
        gpu.upload(np.ascontiguousarray(picture), photo, stream)
    placements.fill(photos, [(height, width)] * len(pictures), stream)
    expected = normalisation([pad(shrink(picture, width), bundle.multiple) for picture in pictures])
    image = gpu.arena.take(expected.shape, np.float32)
    gpu.prepare(pictures=placements, normalisation=normalisation, out=image, stream=stream)
    given = np.empty(expected.shape, np.float32)
    gpu.download(image, given, stream)
    _settle(gpu, stream)
    levels = float(np.abs(given - expected).max()) / abs(normalisation.scale)
    if levels > 1.01:
        raise MagrtError(f"prepare is {levels:.1f} grey levels from what the CPU makes of the check pictures")
    apart = _finish_apart(gpu, stream, bundle, (given[:, 0] - given.min()) / np.ptp(given), (height, width))
    if apart > 1:
        raise MagrtError(f"finish is {apart} grey levels from the masks of the CPU")
    return f"{gpu.name} runs them; prepare and finish are within a grey level of the CPU"


def _finish_apart(gpu: Gpu, stream: Any, bundle: Bundle, planes: Any, placed: tuple[int, int]) -> int:
    """How far the kernels' masks of some planes are from the CPU's, grey levels; 256 where the counts differ."""
    classes = len(bundle.classes)
    maps = np.repeat(planes[:, None], 2 + classes, axis=1).astype(np.float32)
    on_gpu = gpu.arena.take(maps.shape, np.float32)
    gpu.upload(maps, on_gpu, stream)
    masks = [gpu.arena.take(CHECKED, np.uint8) for _ in maps]
    placements, statistics = Placements(gpu, gpu.arena, len(maps)), gpu.arena.take((len(maps),), STATISTICS)
    placements.fill(masks, [placed] * len(maps), stream)
    threshold = grey_level(bundle.mask_threshold)
    gpu.finish(maps=on_gpu, masks=placements, threshold=threshold, statistics=statistics, stream=stream)
    records, mask, worst = np.empty(len(maps), STATISTICS), np.empty(CHECKED, np.uint8), 0
    gpu.download(statistics, records, stream)
    for each, record, array in zip(maps[:, :, : placed[0], : placed[1]], records, masks, strict=True):
        gpu.download(array, mask, stream)
        _settle(gpu, stream)
        plane = np.ascontiguousarray(each[0])
        should = as_grey(map_back(plane, CHECKED))
        worst = max(worst, int(np.abs(mask.astype(int) - should).max()))
        if (counts(record, classes).levels != levels(as_grey(plane))).any():
            return 256
    return worst


def _settle(gpu: Gpu, stream: Any) -> None:
    with gpu.current():
        stream.synchronize()
