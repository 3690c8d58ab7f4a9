"""magrt, the command line of the runtime."""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mag_rt import Finding, MagrtError, Scanner, __version__
from mag_rt.bench_command import bench
from mag_rt.build_command import build
from mag_rt.doctor_command import doctor
from mag_rt.info_command import info
from mag_rt.pictures import silence_decoders
from mag_rt.sinks import written
from mag_rt.sinks.jsonl import SCHEMA
from mag_rt.sources import Frame, find
from mag_rt.terminal import (
    INTERRUPTED,
    NOT_WRITTEN,
    SOME_UNREADABLE,
    SPLICE_FOUND,
    UNUSABLE,
    complain,
    errors,
    stop,
)
from mag_rt.video import Sampling, Segment, expected, is_video, segments

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
terminal = Console()
if not terminal.is_terminal:
    terminal.width = 4096  # a pipe has no width to wrap at

SHOWN = 20
"""Rows of the summary table."""


class FailOn(str, Enum):
    """Verdicts that `--fail-on` takes."""

    spliced = "spliced"


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.print(f"magrt {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def magrt(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Find which pixels of a photograph were pasted in from another one. Nothing leaves this machine."""


@app.command()
def scan(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Pictures, videos, folders (recursive) or globs.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go; sources are never touched.")],
    model: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Folder or zip of another annotator than the one that ships.")
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(min=32, metavar="PIXELS", help="Shrink pictures with a longer side to it. [model's own]"),
    ] = None,
    tiles: Annotated[
        bool, typer.Option("--tiles", help="Read larger pictures in tiles of that side, at their own resolution.")
    ] = False,
    backend: Annotated[
        str,
        typer.Option(help="tensorrt, tensorrt-rtx, openvino or onnxruntime; auto takes the fastest that works here."),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, float16 (GPU) or int8; auto takes the fastest there.")
    ] = "auto",
    every: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of a video, look at each N-th frame.")] = None,
    fps: Annotated[
        float | None, typer.Option(min=0.001, metavar="F", help="Of a video, look at F frames of each second. [1]")
    ] = None,
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with status 10 when a picture has this verdict.")] = None,
) -> None:
    """Localise splices in pictures and video frames.

    Writes findings.jsonl (one line for each picture or frame, in source order), masks/, overlays/ and run.json to DIR
    and prints the most suspicious pictures first.

    Exit status: 0 all scanned; 3 finished, some sources unreadable; 2 usage or model error, no such source, nothing to
    scan; 4 results could not be written; 10 with --fail-on spliced when a picture is; 130 interrupted.
    """
    if every and fps:
        raise typer.BadParameter("give one of them", param_hint="--every and --fps")
    sampling = Sampling(every, None if every else fps or 1.0)
    silence_decoders()
    begun, started = time.perf_counter(), datetime.now(timezone.utc)
    findings: list[Finding] = []
    try:
        frames = find(sources, exclude=out)
        with Scanner(
            model, max_side=max_side, tiles=tiles, sampling=sampling, backend=backend, precision=precision
        ) as scanner:
            ready = time.perf_counter()
            _scan_into(out, scanner, frames, findings)
            options = {
                "sources": sources,
                "max_side": scanner.max_side,
                "tiles": tiles,
                "every": sampling.every,
                "fps": sampling.fps,
                "fail_on": fail_on and fail_on.value,
            }
            now = time.perf_counter()
            timings = _timings(len(findings), started, now - begun, now - ready)
            _write_run(out, scanner, findings, options, timings)
    except MagrtError as error:
        stop(error, UNUSABLE)
    except OSError as error:
        stop(f"cannot write results to {error.filename or out}: {error.strerror or error}", NOT_WRITTEN)
    except KeyboardInterrupt:
        stop(f"interrupted after {len(findings)} pictures; their results are in {out}", INTERRUPTED)
    _summarise(findings, out, time.perf_counter() - begun)
    if fail_on and any(finding.verdict == fail_on.value for finding in findings):
        raise typer.Exit(SPLICE_FOUND)
    if any(finding.error for finding in findings):
        raise typer.Exit(SOME_UNREADABLE)


def _scan_into(out: Path, scanner: Scanner, frames: list[Frame], findings: list[Finding]) -> None:
    """Write the results of every frame below `out` as they come and collect the findings without their pixels."""
    expected_pictures = sum(_pictures_in(frame, scanner.sampling) for frame in frames)
    with _progress(expected_pictures) as advance, closing(written(out, scanner.scan_frames(frames))) as results:
        for finding in results:
            findings.append(finding)
            advance()


def _pictures_in(frame: Frame, sampling: Sampling) -> int:
    return expected(frame.source, sampling) if frame.source and is_video(frame.source) else 1


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; the function that it gives moves it on by one picture."""
    columns = (TextColumn("scanning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)


def _counts(findings: list[Finding]) -> dict[str, int]:
    counts = Counter(finding.verdict or "unreadable" for finding in findings)
    return {name: counts[name] for name in ("spliced", "inconclusive", "authentic", "unreadable")}


def _write_run(
    out: Path, scanner: Scanner, findings: list[Finding], options: dict[str, Any], timings: dict[str, Any]
) -> None:
    run = {
        "schema": SCHEMA,
        "versions": {
            "magrt": __version__,
            "python": platform.python_version(),
            scanner.reader.name: scanner.reader.version,
        },
        "model": {"annotator": scanner.bundle.annotator, "sha256": scanner.bundle.sha256},
        "backend": {
            "name": scanner.reader.name,
            "precision": scanner.reader.precision,
            "reason": scanner.reader.reason,
        },
        "options": options,
        "counts": {"pictures": len(findings), **_counts(findings)},
        "segments": [_segment_as_json(segment, out) for segment in segments(findings)],
        "timings": timings,
    }
    partial = out / "run.json.partial"
    partial.write_text(json.dumps(run, indent=2) + "\n", encoding="ascii")
    os.replace(partial, out / "run.json")


def _timings(pictures: int, started: datetime, seconds: float, scanning: float) -> dict[str, Any]:
    """`seconds`: in all; `scanning`: without starting up."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "scanning_seconds": round(scanning, 3),
        "pictures_per_second": round(pictures / scanning, 3),
    }


def _segment_as_json(segment: Segment, out: Path) -> dict[str, Any]:
    rounded = {name: round(value, 4) for name, value in asdict(segment).items() if name != "source"}
    return {"source": os.path.relpath(segment.source, out), **rounded}


VERDICT_STYLES = {"spliced": "bold red", "inconclusive": "yellow", "authentic": "green"}


def _summarise(findings: list[Finding], out: Path, seconds: float) -> None:
    """The most suspicious pictures first, then what could not be read, then the totals."""
    ranked = sorted((each for each in findings if each.score is not None), key=lambda each: -(each.score or 0))
    if ranked:
        table = Table(box=None, pad_edge=False)
        for heading, justify in (("score", "right"), ("verdict", "left"), ("regions", "right"), ("area", "right")):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        table.add_column("picture", overflow="fold")
        for finding in ranked[:SHOWN]:
            verdict = finding.verdict or ""
            area = sum(region.area_fraction for region in finding.regions)
            cells = (
                f"{finding.score:.2f}",
                f"[{VERDICT_STYLES[verdict]}]{verdict}[/]",
                str(len(finding.regions)),
                f"{area:.1%}",
            )
            at = "" if finding.time_s is None else f" at {_clock(finding.time_s)}"
            table.add_row(*cells, escape(_printable(finding.source) + at))
        terminal.print(table)
        if len(ranked) > SHOWN:
            terminal.print(f"... and {len(ranked) - SHOWN} less suspicious", highlight=False)
    for segment in segments(findings):
        stretch = f"{_clock(segment.from_s)} to {_clock(segment.to_s)}"
        peak = f"most suspicious at {_clock(segment.peak_s)} ({segment.peak_score:.2f})"
        terminal.print(f"{_printable(segment.source)}: {stretch} spliced, {peak}", markup=False, highlight=False)
    for finding in findings:
        if finding.error:
            line = f"unreadable: {_printable(finding.source)}: {finding.error.message}"
            errors.print(line, markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} {name}" for name, count in _counts(findings).items() if count)
    rate = len(findings) / seconds
    terminal.print(
        f"{counts} in {seconds:.1f} s ({rate:.1f} pictures/s); results in {out}", markup=False, highlight=False
    )


def _clock(seconds: float) -> str:
    """Minutes, seconds and tenths."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"


def _printable(path: str | None) -> str:
    """A path as it can be shown: control characters and undecodable bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path or "")


app.command()(bench)
app.command()(build)
app.command()(doctor)
app.command()(info)


def main() -> None:
    """Entry point: an error that a person can mend is one line on stderr and exit status 2."""
    try:
        app()
    except MagrtError as error:
        complain(error)
        sys.exit(UNUSABLE)
