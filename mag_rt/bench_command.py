"""magrt bench: how fast this machine scans, by backend and precision, and where the time goes."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mag_rt.errors import MagrtError
from mag_rt.pictures import decode, silence_decoders
from mag_rt.reading import HostReader
from mag_rt.scanner import Scanner
from mag_rt.sinks import written
from mag_rt.sinks.images import ImageSink
from mag_rt.sources import find
from mag_rt.video import is_video

WAYS = (
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("openvino", "float32"),
    ("openvino", "int8"),
    ("tensorrt", "float16"),
    ("tensorrt-rtx", "float16"),
)
"""Backends and precisions; the first is what the others are compared with."""
STAGES = ("decode", "network", "read", "write", "whole")


class Way(NamedTuple):
    """A backend and a precision, with pictures a second of each stage alone and of the whole scan."""

    backend: str
    precision: str
    speeds: dict[str, float]


def bench(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE...]", help="Pictures to measure with. [made ones, 1600x1200]")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Pictures in each measurement.")] = 16,
    model: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Another annotator than the one that ships.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure how fast this machine scans: every backend and precision that works here, each stage alone and all of it.

    Pictures a second: decode (file to pixels), network (alone, on all cores or the GPU), read (pixels to mask, regions
    and objects, the network in it), write (mask and overlay to disk), whole (the scan as it is). What does not work
    here is named with the reason.
    """
    silence_decoders()
    files = _given(sources, count) if sources else _made(count)
    measured = [_measure(model, backend, precision, files) for backend, precision in WAYS]
    ways = [each for each in measured if isinstance(each, Way)]
    missing = [each for each in measured if isinstance(each, str)]
    if as_json:
        typer.echo(json.dumps({"pictures": count, "cores": os.cpu_count(), "ways": _as_json(ways), "missing": missing}))
    else:
        _show(ways, missing)


def _measure(model: Path | None, backend: str, precision: str, files: list[bytes]) -> Way | str:
    """What was measured, or why nothing could be."""
    try:
        with Scanner(model, backend=backend, precision=precision) as scanner:
            return Way(backend, precision, _speeds(scanner, files))
    except MagrtError as error:
        return f"{backend} {precision}: {error}"


def _given(sources: list[str], count: int) -> list[bytes]:
    paths = [Path(frame.source) for frame in find(sources) if frame.source and not is_video(frame.source)]
    if not paths:
        raise typer.BadParameter("no pictures there", param_hint="SOURCE")
    return [paths[index % len(paths)].read_bytes() for index in range(count)]


def _made(count: int) -> list[bytes]:
    """JPEG files with detail at every scale."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(count):
        picture = np.zeros((1200, 1600, 3), np.float32)
        for cell in (4, 16, 64, 256):
            noise = rng.normal(0, 12 * cell**0.3, (1200 // cell + 1, 1600 // cell + 1, 3)).astype(np.float32)
            picture += cv2.resize(noise, (1600, 1200), interpolation=cv2.INTER_CUBIC)
        grey = np.clip(picture + 128, 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def _speeds(scanner: Scanner, files: list[bytes]) -> dict[str, float]:
    reader = scanner.reader
    threads = os.cpu_count() or 1
    decoded = [decode(data, scanner.max_side) for data in files]
    batches = [decoded[at : at + reader.batch] for at in range(0, len(decoded), reader.batch)]

    def read(batch: list[Any]) -> None:
        reader([each.picture for each in batch], [each.size for each in batch])

    read(batches[0])
    speeds = {"decode": _rate(lambda data: decode(data, scanner.max_side), files, threads)}
    if isinstance(reader, HostReader):
        speeds["network"] = _rate(reader.network, [reader.prepared(each.picture) for each in decoded], reader.threads)
    speeds["read"] = _rate(read, batches, reader.threads) * len(files) / len(batches)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index, data in enumerate(files):
            (folder / f"{index:04d}.jpg").write_bytes(data)
        frames = find([folder])
        findings = list(scanner.scan_frames(frames))
        speeds["write"] = _rate(ImageSink(folder / "alone").write, findings, threads)
        began = time.perf_counter()
        for _ in written(folder / "whole", scanner.scan_frames(frames)):
            pass
        speeds["whole"] = len(files) / (time.perf_counter() - began)
    return speeds


def _rate(work: Callable[[Any], object], items: Iterable[Any], threads: int) -> float:
    """Items a second, on that many threads."""
    todo = list(items)
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(work, todo))
        return len(todo) / (time.perf_counter() - began)


def _as_json(ways: list[Way]) -> list[dict[str, Any]]:
    return [
        {
            "backend": way.backend,
            "precision": way.precision,
            "pictures_per_second": {name: round(speed, 3) for name, speed in way.speeds.items()},
            "ratio": round(way.speeds["whole"] / ways[0].speeds["whole"], 3),
        }
        for way in ways
    ]


def _show(ways: list[Way], missing: list[str]) -> None:
    terminal = Console()
    table = Table(box=None, pad_edge=False, caption="pictures a second; ratio: of the whole, to the first line")
    table.add_column("backend")
    for heading in (*STAGES, "ratio"):
        table.add_column(heading, justify="right")
    for way, each in zip(ways, _as_json(ways), strict=True):
        cells = (f"{way.speeds[stage]:.1f}" if stage in way.speeds else "" for stage in STAGES)
        table.add_row(f"{way.backend} {way.precision}", *cells, f"{each['ratio']:.2f}")
    terminal.print(table)
    for line in missing:
        terminal.print(f"not measured: {line}", markup=False, highlight=False, soft_wrap=True)
