"""`magrt scan`: from sources to findings, masks, overlays and a report in a folder."""

import ctypes
import os
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, suppress
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated

import cv2
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mag_rt import MagrtError, Scanner
from mag_rt.pictures import silence_decoders
from mag_rt.sinks import run as runs
from mag_rt.sinks import written
from mag_rt.sinks.alone import alone
from mag_rt.sources import Frame, find
from mag_rt.summary import Summary, show, show_end, show_unreadable
from mag_rt.terminal import (
    INTERRUPTED,
    NOT_WRITTEN,
    SOME_UNREADABLE,
    SPLICE_FOUND,
    UNUSABLE,
    complain,
    errors,
    print_nowhere,
    stop,
)
from mag_rt.video import Sampling, Segment, expected, is_video

terminal = Console(emoji=False)
if not terminal.is_terminal:
    terminal.width = 4096  # a pipe has no width to wrap at

RESULTS, READING, VIDEO, MODEL, MACHINES = "Results", "Reading", "Videos", "Model", "For scripts"
"""Panels of the help."""


class FailOn(str, Enum):
    """Verdicts that `--fail-on` takes."""

    spliced = "spliced"


class Save(str, Enum):
    """Pictures that `--save` takes."""

    all = "all"
    masks = "masks"
    overlays = "overlays"
    none = "none"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Pictures, videos, folders (recursive) or globs; - reads names from standard input, one a line or "
        "separated by NUL.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go; sources are never touched.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the results in DIR: scan what has no line there yet.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start afresh though DIR holds results.")]
Saved = Annotated[
    Save,
    typer.Option(
        "--save",
        metavar="WHICH",
        help="Pictures to write: all, masks, overlays or none.",
        rich_help_panel=RESULTS,
    ),
]
Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report.html to look at.", rich_help_panel=RESULTS)
]
Csv = Annotated[bool, typer.Option("--csv", help="Write findings.csv for a spreadsheet.", rich_help_panel=RESULTS)]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SCORE",
        help="Call a picture spliced from this score on. [model's own]",
        rich_help_panel=RESULTS,
    ),
]
MaxSide = Annotated[
    int | None,
    typer.Option(
        min=32,
        metavar="PIXELS",
        help="Shrink pictures with a longer side to it. [model's own]",
        rich_help_panel=READING,
    ),
]
Tiles = Annotated[
    bool,
    typer.Option(
        "--tiles",
        help="Look at larger pictures a second time, at their own resolution in tiles of that side: finds smaller "
        "splices and takes several times as long.",
        rich_help_panel=READING,
    ),
]
Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate",
        help="Decode files in processes of their own, limited in memory and time: for files of strangers.",
        rich_help_panel=READING,
    ),
]
Every = Annotated[int | None, typer.Option(min=1, metavar="N", help="Look at each N-th frame.", rich_help_panel=VIDEO)]
Fps = Annotated[
    float | None,
    typer.Option(min=0.001, max=1000, metavar="F", help="Look at F frames of each second. [1]", rich_help_panel=VIDEO),
]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="BUNDLE",
        help="thorough: read each picture four ways, finds more and takes four times as long; or the folder or zip of "
        "another annotator. [edge]",
        rich_help_panel=MODEL,
    ),
]
BackendName = Annotated[
    str,
    typer.Option(
        help="tensorrt, tensorrt-rtx, openvino or onnxruntime; auto takes the fastest that works here.",
        rich_help_panel=MODEL,
    ),
]
Precision = Annotated[
    str, typer.Option(help="float32, float16 (GPU) or int8; auto takes the fastest there.", rich_help_panel=MODEL)
]
Failing = Annotated[
    FailOn | None, typer.Option(help="Exit with status 10 when a picture has this verdict.", rich_help_panel=MACHINES)
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the lines of findings.jsonl as they come, no summary.", rich_help_panel=MACHINES
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print errors only: what could not be read, and what ended the scan.",
        rich_help_panel=MACHINES,
    ),
]


def scan(
    sources: Sources,
    out: Out,
    resume: Resume = False,
    overwrite: Overwrite = False,
    save: Saved = Save.all,
    report: Report = True,
    csv: Csv = False,
    threshold: Threshold = None,
    max_side: MaxSide = None,
    tiles: Tiles = False,
    isolate: Isolate = False,
    every: Every = None,
    fps: Fps = None,
    model: Model = None,
    backend: BackendName = "auto",
    precision: Precision = "auto",
    fail_on: Failing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Localise splices in pictures and video frames.

    Writes report.html (to look at), findings.jsonl (one line for each picture or frame, in source order), masks/,
    overlays/ and run.json to DIR and prints the most suspicious pictures first. Interrupted or killed, the same command
    with --resume goes on where it was.

    Exit status: 0 all scanned; 3 finished, some sources unreadable; 2 usage or model error, no such source, nothing to
    scan, results in the way; 4 results could not be written; 10 with --fail-on spliced when a picture is; 130
    interrupted (Ctrl-C, SIGTERM).
    """
    if every and fps:
        raise typer.BadParameter("give one of them", param_hint="--every and --fps")
    if resume and overwrite:
        raise typer.BadParameter("give one of them", param_hint="--resume and --overwrite")
    sampling = Sampling(every, None if every else fps or 1.0)
    silence_decoders()
    cv2.setNumThreads(1)  # the pictures' threads are ours: OpenCV's own would take the cores from the network
    _share_arenas()
    out = _where_it_lies(out)
    started, begun = datetime.now(timezone.utc), time.perf_counter()
    failing = fail_on and fail_on.value
    options = {"sources": sources, "save": save.value, "report": report, "csv": csv, "fail_on": failing}
    scanned, passed_over = 0, Counter[str]()
    try:
        frames = find([each for each in sources if each != "-"], out, _listed(sources), passed_over)
        with alone(out, "scan"):
            with Scanner(
                model,
                max_side=max_side,
                tiles=tiles,
                threshold=threshold,
                sampling=sampling,
                backend=backend,
                precision=precision,
                isolate=isolate,
            ) as scanner:
                run = runs.described(scanner, options, passed_over, started)
                runs.begin(out, run, resume, overwrite)
                if scanner.reader.fell_back and not quiet:
                    complain(f"scanning with {scanner.reader.name}: {scanner.reader.reason}")
                ready = time.perf_counter()
                with closing(_scan_into(out, scanner, frames, save, report, hidden=quiet or as_json)) as lines:
                    for line in lines:
                        scanned += 1
                        if as_json:
                            _print_line(line, out)
            now = time.perf_counter()
            summary, stretches = runs.finish(out, run, scanned, now - begun, now - ready)
    except MagrtError as error:
        stop(error, UNUSABLE)
    except OSError as error:
        stop(f"cannot write results to {error.filename or out}: {error.strerror or error}", NOT_WRITTEN)
    except KeyboardInterrupt:
        stop(f"interrupted after {scanned} pictures; --resume goes on with what is in {out}", INTERRUPTED)
    if not as_json:
        _tell(summary, stretches, passed_over, scanned, out, time.perf_counter() - begun, quiet)
    if fail_on and summary.counts[fail_on]:
        raise typer.Exit(SPLICE_FOUND)
    if summary.counts["unreadable"]:
        raise typer.Exit(SOME_UNREADABLE)


def _print_line(line: str, out: Path) -> None:
    """At once, for who reads them through a pipe wants them now."""
    try:
        print(line, flush=True)
    except BrokenPipeError:  # `magrt scan --json | head -1`
        print_nowhere()
        stop(f"nobody reads the lines any more; --resume goes on with what is in {out}", NOT_WRITTEN)
    except OSError as error:
        print_nowhere()
        stop(f"cannot print the lines: {error.strerror or error}; --resume goes on with what is in {out}", NOT_WRITTEN)


def _where_it_lies(folder: Path) -> Path:
    """As it was named, unless a link leads to it: the `..` of paths relative to it lead up from where it lies."""
    real = os.path.realpath(folder)
    return folder if real == os.path.abspath(folder) else Path(real)


def _share_arenas() -> None:
    """Have the threads of a scan allocate from two arenas of glibc instead of one each (M_ARENA_MAX of mallopt(3)).

    Each arena keeps what its largest picture took; with two a scan takes about a twentieth less memory, and no longer.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(-8, 2)


def _listed(sources: list[str]) -> list[str]:
    """The names on standard input, where a source is `-`; none where it is closed."""
    if "-" not in sources or sys.stdin is None:
        return []
    given = sys.stdin.buffer.read()
    # Lines may end as on Windows; a name that ends in a carriage return comes separated by NUL.
    names = given.split(b"\0") if b"\0" in given else [line.removesuffix(b"\r") for line in given.split(b"\n")]
    return [os.fsdecode(name) for name in names if name]


def _scan_into(
    out: Path, scanner: Scanner, frames: list[Frame], save: Save, report: bool, hidden: bool
) -> Generator[str, None, None]:
    """The lines of what of `frames` is not in the folder yet, as they are written; a progress bar unless `hidden`."""
    left = list(runs.left(out, frames))
    masks, overlays = save in (Save.all, Save.masks), save in (Save.all, Save.overlays)
    columns = (TextColumn("scanning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = errors.is_terminal and not hidden
    with (
        Progress(*columns, console=errors, transient=True, disable=not shown) as progress,
        closing(written(out, scanner.scan_frames(left), masks, overlays, report)) as lines,
    ):
        done = len(frames) - len(left)
        to_come = _pictures_in(left, scanner) if shown else None
        task = progress.add_task("", total=None if to_come is None else done + to_come, completed=done)
        for line in lines:
            yield line
            progress.advance(task)


def _pictures_in(frames: list[Frame], scanner: Scanner) -> int | None:
    """About how many pictures and frames of videos there are; None with videos that may not be opened here."""
    videos = [frame.source for frame in frames if frame.source and is_video(frame.source)]
    if videos and scanner.isolate:
        return None
    return len(frames) - len(videos) + sum(expected(video, scanner.sampling) for video in videos)


def _tell(
    summary: Summary,
    stretches: list[Segment],
    passed_over: Counter[str],
    scanned: int,
    out: Path,
    seconds: float,
    quiet: bool,
) -> None:
    """What the scan has found, for a person; its exit status counts even if nobody reads that."""
    try:
        if not quiet:
            show(summary, stretches, terminal)
            show_end(summary, passed_over, scanned, out, seconds, terminal)
        show_unreadable(summary, out, errors)
    except (BrokenPipeError, SystemExit):  # `magrt scan | head -1`: rich makes the one the other
        print_nowhere()
    except OSError as error:
        print_nowhere()
        stop(f"cannot print the summary: {error.strerror or error}; the results are in {out}", NOT_WRITTEN)
