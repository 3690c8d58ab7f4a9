"""run.json: what was scanned with what, and whether a scan may go on in a folder that holds results."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mag_rt.errors import ResultsError
from mag_rt.sinks import jsonl, report, table
from mag_rt.sinks.whole import whole
from mag_rt.sources import Frame

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = "run.json"
MADE_AT_THE_END = {"csv": table.NAME, "report": report.NAME}
"""By the option that asks for it."""
FREE = frozenset({"sources", "fail_on", "csv", "isolate"})
"""Options that may change when a scan goes on: what a picture's line says does not depend on them."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other scans out of the folder in the meantime. Raises ResultsError when one is at work there.

    Where the system has no such locks (Windows, some network drives) it goes on without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ResultsError(f"{folder}: another scan is writing there") from None
        yield
    finally:
        os.close(lock)


def begin(folder: Path, run: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Make the folder ready for the scan that `run` describes, and say in its run.json that it has not finished.

    Where the scan goes on, report and table of before stay until its end if it will replace them then. Files of such
    names that no scan made there are somebody's own: they stay, and only `overwrite` lets this one replace them.

    Raises ResultsError when the folder holds results and neither `resume` nor `overwrite` says what to do with them,
    when they are of another model, backend or options than `run`, or when somebody's own file is in the way; OSError
    when nothing can be written there.
    """
    before, to_come = _made_before(folder), _made_at_the_end(run)
    goes_on = (folder / jsonl.NAME).exists() and not overwrite
    if goes_on and not resume:
        raise ResultsError(f"{folder} holds results: --resume goes on with them, --overwrite starts afresh")
    if goes_on:
        _refuse_another(folder, run)
    for name in () if overwrite else sorted(to_come - before):
        if (folder / name).exists():
            raise ResultsError(f"{folder / name} is of no scan there: move it, take another --out, or --overwrite")
    for name in before - to_come if goes_on else before | {jsonl.NAME}:
        (folder / name).unlink(missing_ok=True)
    write(folder, run)


def _read(folder: Path) -> dict[str, Any] | None:
    """The folder's run.json; None where there is none that can be read."""
    try:
        run = json.loads((folder / NAME).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) else None


def _made_before(folder: Path) -> set[str]:
    """Those of `MADE_AT_THE_END` that a scan has made there; all of them where its results have lost their run.json."""
    run = _read(folder)
    if run is None:
        return {*MADE_AT_THE_END.values()} if (folder / jsonl.NAME).exists() else set()
    return _made_at_the_end(run)


def _made_at_the_end(run: dict[str, Any]) -> set[str]:
    options = run.get("options")
    return {name for option, name in MADE_AT_THE_END.items() if isinstance(options, dict) and options.get(option)}


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


def _refuse_another(folder: Path, run: dict[str, Any]) -> None:
    try:
        before = _compared(_read(folder) or {})
    except (KeyError, TypeError, AttributeError):
        raise ResultsError(
            f"{folder}: no {NAME} says what its results were made with: --overwrite starts afresh"
        ) from None
    for what, now in _compared(run).items():
        if before.get(what) != now:
            raise ResultsError(
                f"{folder} was scanned with another {what} ({before.get(what)}, now {now}): "
                "take that again, another --out, or --overwrite"
            )


def _compared(run: dict[str, Any]) -> dict[str, Any]:
    options = {f"--{name.replace('_', '-')}": value for name, value in run["options"].items() if name not in FREE}
    return {
        "model": f"{run['model']['annotator']} {run['model']['sha256'][:12]}",
        "backend": run["backend"]["name"],
        "precision": run["backend"]["precision"],
        **options,
    }
