"""run.json: what was scanned with what, and whether a scan may go on in a folder that holds results."""

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mag_rt import Scanner, __version__
from mag_rt.errors import ResultsError
from mag_rt.sinks import jsonl, report, table
from mag_rt.sinks.whole import whole
from mag_rt.sources import Frame
from mag_rt.summary import Summary, summed_up
from mag_rt.video import Segment, segments

NAME = "run.json"
MADE_AT_THE_END = {"csv": table.NAME, "report": report.NAME}
"""By the option that asks for it."""
FREE = frozenset({"sources", "fail_on", "csv", "isolate"})
"""Options that may change when a scan goes on: what a picture's line says does not depend on them."""


def described(
    scanner: Scanner, options: dict[str, Any], passed_over: Counter[str], started: datetime
) -> dict[str, Any]:
    """run.json of a scan that has not finished (docs/formats.md)."""
    return {
        "schema": jsonl.SCHEMA,
        "finished": False,
        "versions": {
            "magrt": __version__,
            "python": platform.python_version(),
            scanner.reader.name: scanner.reader.version,
        },
        "model": {
            "annotator": scanner.bundle.annotator,
            "sha256": scanner.bundle.sha256,
            "mask_threshold": scanner.bundle.mask_threshold,
            "calibration": asdict(scanner.bundle.calibration),
        },
        "backend": {
            "name": scanner.reader.name,
            "precision": scanner.reader.precision,
            "reason": scanner.reader.reason,
        },
        "options": {
            **options,
            "max_side": scanner.max_side,
            "tiles": scanner.tiles,
            "isolate": scanner.isolate,
            "threshold": scanner.threshold,
            "every": scanner.sampling.every,
            "fps": scanner.sampling.fps,
        },
        "passed_over": dict(passed_over.most_common()),
        "counts": None,
        "segments": None,
        "timings": {"started": started.isoformat(timespec="seconds")},
    }


def begin(folder: Path, run: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make the folder ready for the scan that `run` describes, and say in its run.json that it has not finished.

    Nothing is removed but what a scan has written, as the run.json there says (results that have lost theirs: all of
    it). Where the scan goes on, report and table of before stay until its end if it will replace them then.

    Raises ResultsError when the folder holds results, or a file that no scan has written in the place of one, and
    neither `resume` nor `overwrite` says what to do with it, or when the results are of another model, backend or
    options than `run`; OSError when nothing can be written there.
    """
    before, there = _before(folder), (folder / jsonl.NAME).exists()
    goes_on = there and not overwrite
    if goes_on and not resume:
        raise ResultsError(f"{folder} holds results: --resume goes on with them, --overwrite starts afresh")
    if goes_on:
        _refuse_another(folder, before, run)
    wanted = _made_at_the_end(run)
    made = {*MADE_AT_THE_END.values()} if there and not before else _made_at_the_end(before)
    for name in sorted(wanted - made if before else {NAME, *wanted}):
        if (folder / name).exists() and not overwrite:
            raise ResultsError(f"{folder / name} is of no scan: give another --out, or --overwrite replaces it")
    for name in made - wanted if goes_on else {jsonl.NAME, *made}:
        (folder / name).unlink(missing_ok=True)
    write(folder, run)


def write(folder: Path, run: dict[str, Any]) -> None:
    """Write run.json, whole or not at all. Raises OSError."""
    with whole(folder / NAME) as partial:
        partial.write_text(json.dumps(run, indent=2) + "\n", encoding="ascii")


def left(folder: Path, frames: Iterable[Frame]) -> Iterator[Frame]:
    """What of `frames` has no line in the folder's findings.jsonl; before all, the rest of the video of its last line.

    Before all, so that the last line always tells which video has not been finished.
    """
    last, done = None, set()
    if (folder / jsonl.NAME).exists():
        for last in jsonl.findings_in(folder):
            done.add(os.path.abspath(last.source or ""))
    sources = [(os.path.abspath(frame.source or ""), frame) for frame in frames]
    if last and last.frame is not None:
        begun = os.path.abspath(last.source or "")
        yield from (replace(frame, after=last.frame) for source, frame in sources if source == begun)
    yield from (frame for source, frame in sources if source not in done)


def finish(
    folder: Path, run: dict[str, Any], scanned: int, seconds: float, scanning: float
) -> tuple[Summary, list[Segment]]:
    """Sum up what the folder holds now, parts of the scan before this one too, in run.json and what is made of it.

    `scanned`: pictures of this scan; `seconds`: that it took in all; `scanning`: without starting up. Raises OSError.
    """
    run["timings"] |= _timings(scanned, seconds, scanning)
    summary, stretches = summed_up(jsonl.findings_in(folder)), segments(jsonl.findings_in(folder))
    run["counts"] = {"pictures": summary.pictures, **summary.counts}
    run["segments"] = [_segment_as_json(segment, folder) for segment in stretches]
    run["finished"] = True
    if run["options"]["csv"]:
        table.write_table(folder)
    write(folder, run)
    if run["options"]["report"]:
        report.write_report(folder)
    return summary, stretches


def _before(folder: Path) -> dict[str, Any]:
    """The run.json of the scan before; empty where there is none, or a file of that name that no scan has written."""
    try:
        run: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="ascii"))
        _compared(run)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return run


def _made_at_the_end(run: dict[str, Any]) -> set[str]:
    return {name for option, name in MADE_AT_THE_END.items() if run and run["options"].get(option)}


def _refuse_another(folder: Path, before: dict[str, Any], run: dict[str, Any]) -> None:
    if not before:
        raise ResultsError(f"{folder}: no {NAME} says what its results were made with: --overwrite starts afresh")
    made_with = _compared(before)
    for what, now in _compared(run).items():
        if made_with.get(what) != now:
            raise ResultsError(
                f"{folder} was scanned with another {what} ({made_with.get(what)}, now {now}): "
                "take that again, another --out, or --overwrite"
            )


def _compared(run: dict[str, Any]) -> dict[str, Any]:
    options = {f"--{name.replace('_', '-')}": value for name, value in run["options"].items() if name not in FREE}
    model = run["model"]
    return {
        "model": f"{model['annotator']} {model['sha256'][:12]}",
        "threshold of masks": model.get("mask_threshold"),
        **{f"calibration ({name})": value for name, value in model.get("calibration", {}).items()},
        "backend": run["backend"]["name"],
        "precision": run["backend"]["precision"],
        **options,
    }


def _timings(pictures: int, seconds: float, scanning: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "scanning_seconds": round(scanning, 3),
        "pictures": pictures,
        "pictures_per_second": round(pictures / scanning, 3),
    }


def _segment_as_json(segment: Segment, folder: Path) -> dict[str, Any]:
    rounded = {name: round(value, 4) for name, value in asdict(segment).items() if name != "source"}
    return {"source": jsonl.seen_from(folder, segment.source), **rounded}
