"""findings.jsonl: one line of JSON for each picture or frame, in source order (docs/formats.md)."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from mag_rt.errors import ResultsError
from mag_rt.findings import Finding

SCHEMA = 1
NAME = "findings.jsonl"


class JsonlSink:
    """Appends findings to `findings.jsonl` below a folder; the system has a line as soon as `write` returns.

    Half a line at its end, which a kill or a full disk has left, is cut off first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = (folder / NAME).open("ab", buffering=0)
        cut_off_half_a_line(folder / NAME)

    def write(self, finding: Finding, mask: str | None, overlay: str | None) -> str:
        """The line, which is written. `mask` and `overlay`: paths relative to the folder. Raises OSError."""
        result = finding.as_json()
        error = result.pop("error")
        source = finding.source and seen_from(self.folder, finding.source)
        line = {"schema": SCHEMA, "source": source, **result, "mask": mask, "overlay": overlay, "error": error}
        text = json.dumps(line)
        left = memoryview(f"{text}\n".encode("ascii"))
        while left:  # a disk that is nearly full takes a part
            left = left[self._file.write(left) :]
        return text

    def close(self) -> None:
        self._file.close()


def seen_from(folder: Path, source: str) -> str:
    """The path of a source relative to the folder; where none leads there, on another drive of Windows, absolute."""
    try:
        return os.path.relpath(source, folder)
    except ValueError:
        return os.path.abspath(source)


def cut_off_half_a_line(path: Path) -> None:
    """End a file behind its last whole line."""
    with path.open("r+b") as file:
        end = at = file.seek(0, os.SEEK_END)
        while at > 0:
            start = max(0, at - (1 << 16))
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                at = start + found + 1
                break
            at = start
        if at < end:
            file.truncate(at)


def whole_lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """The whole lines of `findings.jsonl` below a folder, each after where it begins in the file, bytes.

    Raises OSError when the file cannot be read.
    """
    offset = 0
    with (folder / NAME).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # one that lacks it was being written when the scan was killed
                yield offset, line
            offset += len(line)


def findings_in(folder: Path) -> Iterator[Finding]:
    """The findings of the whole lines of `findings.jsonl` below a folder, without pixels, one at a time.

    Raises ResultsError when a line is none of ours, OSError when the file cannot be read.
    """
    for number, (_, line) in enumerate(whole_lines(folder), 1):
        yield _finding(folder, number, line)


def _finding(folder: Path, number: int, line: bytes) -> Finding:
    try:
        return Finding.from_json(json.loads(line), folder)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ResultsError(f"{folder / NAME}: line {number} is no finding") from None
