"""magrt bench: how fast this machine scans, by backend, precision and batch size, and where the time goes."""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from mag_rt.backends import Backend
from mag_rt.errors import MagrtError, PictureError
from mag_rt.loading import contents
from mag_rt.pictures import Picture, decode, shrink, silence_decoders
from mag_rt.reading import HostReader, Reader
from mag_rt.scanner import Scanner
from mag_rt.sinks import written
from mag_rt.sources import Frame, find
from mag_rt.terminal import UNUSABLE, stop
from mag_rt.video import is_video

WAYS = (
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("openvino", "float32"),
    ("openvino", "int8"),
    ("tensorrt", "float16"),
    ("tensorrt-rtx", "float16"),
)
"""Backends and precisions; the first that works is what the others are compared with."""
BATCHES = (1, 2, 4, 8)
"""Pictures in a call of the network."""
NETWORK_INPUT = (192, 256)
"""Height and width of these, pixels, as far as the network takes them."""
MADE = (600, 800)
"""Height and width of the pictures that are made where none are given."""
MOST = 1000
"""Pictures in a measurement, which all lie in memory."""
ROUNDS = 3


class Job(NamedTuple):
    """Work on so many pictures."""

    pictures: int
    run: Callable[[], object]


Key = tuple[str | int, ...]
"""What a job measures: a stage, or the whole or the network, then backend and precision, then the batch."""
Rates = dict[Key, list[float]]
"""Pictures a second in each round."""


def bench(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE...]", help="Pictures to measure with. [made ones, 800x600]")
    ] = None,
    count: Annotated[int, typer.Option(min=2, max=MOST, help="Pictures in each measurement.")] = 8,
    model: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="thorough, or the folder or zip of another annotator. [edge]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how fast this machine scans: every backend and precision that works here, each stage alone and all of it.

    Pictures a second. The whole: a scan of files as it is, results written. The network alone, by the number of
    pictures in a call, as many calls at once as a scan makes; on a GPU a call holds the kernels and copies around it
    too. The stages that are the same everywhere: decode (file to pixels), around (shrinking, normalising, mask, regions
    and objects, by the CPU, with an answer of the network that is there already), write (results to disk).

    All take turns, and ratios are medians over the rounds of what was found within one, so that what else the machine
    does cancels out. What does not work here is named with the reason. Exit status: 0; 2 nothing works, or usage.
    """
    silence_decoders()
    files = _given(sources, count) if sources else _made(count)
    with ExitStack() as held:
        scanners, missing = _opened(held, model)
        if not scanners:
            stop(f"nothing can be measured: {missing[0]}", UNUSABLE)
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        for index, data in enumerate(files):
            (folder / f"{index:04d}.jpg").write_bytes(data)
        frames = find([folder])
        results = folder / "results"
        jobs = _by_way(scanners, frames, results)
        jobs |= _stages(next(iter(scanners.values())), files, frames, results)
        rates = in_turns(jobs)
    measured = as_facts(rates, count, missing)
    if as_json:
        typer.echo(json.dumps(measured))
    else:
        _show(measured)


def _given(sources: list[str], count: int) -> list[bytes]:
    paths = [frame.source for frame in find(sources) if frame.source and not is_video(frame.source)]
    if not paths:
        raise typer.BadParameter("no pictures there", param_hint="SOURCE")
    files = [_read(path) for path in paths[:count]]
    return [files[index % len(files)] for index in range(count)]


def _read(path: str) -> bytes:
    try:
        data = contents(path)
        decode(data, 1)  # at an eighth, if it can: whether it is a picture is said here, with its name
        return data
    except PictureError as error:
        stop(f"{path}: {error}", UNUSABLE)
    except OSError as error:
        stop(f"{path}: {error.strerror or error}", UNUSABLE)


def _made(count: int) -> list[bytes]:
    """JPEG files with detail at every scale."""
    rng = np.random.default_rng(0)
    height, width = MADE
    files = []
    for _ in range(count):
        picture = np.zeros((height, width, 3), np.float32)
        for cell in (4, 16, 64, 256):
            noise = rng.normal(0, 12 * cell**0.3, (height // cell + 1, width // cell + 1, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        grey = np.clip(picture + 128, 0, 255).astype(np.uint8)
        files.append(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return files


def _opened(held: ExitStack, model: Path | None) -> tuple[dict[str, Scanner], list[str]]:
    """A scanner for each way that works, by its name, and why the others do not."""
    opened = {f"{backend} {precision}": _open(held, model, backend, precision) for backend, precision in WAYS}
    scanners = {way: each for way, each in opened.items() if isinstance(each, Scanner)}
    return scanners, [f"{way}: {each}" for way, each in opened.items() if isinstance(each, MagrtError)]


def _open(held: ExitStack, model: Path | None, backend: str, precision: str) -> Scanner | MagrtError:
    try:
        return held.enter_context(Scanner(model, backend=backend, precision=precision))
    except MagrtError as error:
        return error


class _Answered:
    """A network whose answer to pictures of a shape is there already."""

    name = version = precision = "answered"

    def __init__(self, network: Backend) -> None:
        self.network = network
        self.answers: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        if images.shape not in self.answers:
            self.answers[images.shape] = self.network(images).copy()
        return self.answers[images.shape]

    def close(self) -> None:
        pass


def _stages(scanner: Scanner, files: list[bytes], frames: list[Frame], out: Path) -> dict[Key, Job]:
    """What is the same for every way, on all cores."""
    threads = os.cpu_count() or 1
    decoded = [decode(data, scanner.max_side) for data in files]
    findings = list(scanner.scan_frames(frames))
    jobs: dict[str, Callable[[], object]] = {
        "decode": lambda: _all(lambda data: decode(data, scanner.max_side), files, threads),
        "write": lambda: list(written(out, iter(findings))),
    }
    if isinstance(scanner.reader, HostReader):
        answered = _Answered(scanner.reader.network)
        around = HostReader(answered, scanner.bundle, scanner.max_side, tiles=False, threads=threads)
        around([each.picture for each in decoded], [each.size for each in decoded])
        jobs["around"] = lambda: _all(lambda each: around([each.picture], [each.size]), decoded, threads)
    return {(name,): Job(len(files), run) for name, run in jobs.items()}


def _by_way(scanners: dict[str, Scanner], frames: list[Frame], out: Path) -> dict[Key, Job]:
    """The whole scan and the network by batch, of every way."""
    jobs: dict[Key, Job] = {}
    for way, scanner in scanners.items():
        jobs["whole", way] = Job(len(frames), partial(_scan, scanner, frames, out))
        multiple = scanner.bundle.multiple
        shape = [-(-side // multiple) * multiple for side in NETWORK_INPUT]
        picture = shrink(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8), scanner.max_side)
        for batch in BATCHES:
            call, threads = _call(scanner.reader, picture, batch), scanner.reader.threads
            call()  # what a shape needs for the first time
            calls = [call] * (threads * BATCHES[-1] // batch)
            jobs["network", way, batch] = Job(len(calls) * batch, partial(_all, _run, calls, threads))
    return jobs


def _scan(scanner: Scanner, frames: list[Frame], out: Path) -> None:
    for _ in written(out, scanner.scan_frames(frames)):
        pass


def _call(reader: Reader, picture: Picture, batch: int) -> Callable[[], object]:
    """A call of a reader's network on so many pictures; on a GPU a call of the reader."""
    if isinstance(reader, HostReader):
        images = np.repeat(reader.prepared(picture), batch, axis=0)
        return lambda: reader.network(images)
    return lambda: reader([picture] * batch, [picture.shape[:2]] * batch)


def _run(call: Callable[[], object]) -> None:
    call()


def _all(work: Callable[[Any], object], items: Iterable[Any], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, items))


def in_turns(jobs: dict[Key, Job]) -> Rates:
    """Pictures a second of every job in each of `ROUNDS` rounds."""
    rates: Rates = {key: [] for key in jobs}
    for _ in range(ROUNDS):
        for key, job in jobs.items():
            began = time.perf_counter()
            job.run()
            rates[key].append(job.pictures / (time.perf_counter() - began))
    return rates


def as_facts(rates: Rates, count: int, missing: list[str]) -> dict[str, Any]:
    """What was measured: medians over the rounds; ratios to the first way, for the network at one picture."""
    ways = [str(key[1]) for key in rates if key[0] == "whole"]

    def against(key: Key, reference: Key) -> dict[str, float]:
        ratio = median(rate / other for rate, other in zip(rates[key], rates[reference], strict=True))
        return {"pictures_per_second": round(median(rates[key]), 3), "ratio": round(ratio, 3)}

    return {
        "pictures": count,
        "rounds": ROUNDS,
        "cores": os.cpu_count(),
        "stages": {str(key[0]): round(median(rate), 3) for key, rate in rates.items() if len(key) == 1},
        "ways": [
            {
                "backend": way.split()[0],
                "precision": way.split()[1],
                "whole": against(("whole", way), ("whole", ways[0])),
                "network": [
                    {"batch": batch, **against(("network", way, batch), ("network", ways[0], BATCHES[0]))}
                    for batch in BATCHES
                ],
            }
            for way in ways
        ],
        "missing": missing,
    }


def _show(facts: dict[str, Any]) -> None:
    terminal = Console(emoji=False)
    if not terminal.is_terminal:
        terminal.width = 4096  # a pipe has no width to wrap at
    table = Table(box=None, pad_edge=False)
    table.add_column("pictures a second")
    for heading in ("whole", *(f"network x{batch}" for batch in BATCHES)):
        table.add_column(heading, justify="right")
    for way in facts["ways"]:
        cells = (f"{each['pictures_per_second']:.1f} ({each['ratio']:.2f})" for each in (way["whole"], *way["network"]))
        table.add_row(f"{way['backend']} {way['precision']}", *cells)
    terminal.print(table)
    stages = ", ".join(f"{name} {rate:.1f}" for name, rate in facts["stages"].items())
    height, width = NETWORK_INPUT
    for line in (
        f"each stage alone, the same for all of them: {stages}",
        f"network x2: calls of two pictures of {width}x{height}; in parentheses the ratio to the first line, to its x1",
        *(f"not measured: {each}" for each in facts["missing"]),
    ):
        terminal.print(line, markup=False, highlight=False, soft_wrap=True)
