"""From what the user names (files, folders, globs) to the pictures and videos to scan, in a stable order."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from mag_rt import pictures, video
from mag_rt.errors import SourceError

SUFFIXES = pictures.SUFFIXES | video.SUFFIXES


@dataclass(frozen=True)
class Frame:
    """A file to scan, a frame of a video, or a picture in memory."""

    source: str | None
    """The path as the user would write it; None for a picture in memory."""
    index: int | None = None
    """Number of the frame in its video, from 0; None for a picture."""
    time_s: float | None = None
    """Time of the frame in its video, seconds; None for a picture."""
    after: int | None = None
    """Of a video to scan: only the frames behind this one are wanted; None for all."""


def find(
    sources: Iterable[str | os.PathLike[str]], exclude: Path | None = None, listed: Iterable[str] = ()
) -> list[Frame]:
    """The pictures and videos that `sources` name, each once, in the order given; folders are walked by name.

    A file that is named is taken whatever its suffix; in folders only `SUFFIXES` count, symbolic links to folders are
    not followed, and nothing below `exclude` (the results of a scan) is taken. A folder that cannot be listed is a
    source itself, so that the scan has an error for it. `listed`: names that a program has found before; they are no
    globs, and one that is gone by now is a frame all the same, whose finding will say so.

    Raises SourceError when a source does not exist or when there is nothing to scan.
    """
    excluded = None if exclude is None else os.path.join(os.path.realpath(exclude), "")
    real = cache(os.path.realpath)  # the folder of results may be reached by other names than its own
    found: dict[str, Frame] = {}
    named = (path for source in sources for path in _expand(os.fspath(source)))
    given = (path for name in listed for path in (_walk(name) if os.path.isdir(name) else [name]))
    for path in chain(named, given):
        absolute = os.path.abspath(path)
        if excluded is None or not os.path.join(real(os.path.dirname(absolute)), "").startswith(excluded):
            found.setdefault(absolute, Frame(path))
    if not found:
        among = ", ".join(map(str, sources)) or "an empty list"
        raise SourceError(f"nothing to scan: no picture and no video in {among}")
    return list(found.values())


def _expand(source: str) -> Iterator[str]:
    if os.path.isdir(source):
        yield from _walk(source)
    elif os.path.lexists(source):
        yield source
    elif glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise SourceError(f"{source}: matches nothing")
        for match in matches:
            yield from _walk(match) if os.path.isdir(match) else [match]
    else:
        raise SourceError(f"{source}: no such file or folder")


def _walk(folder: str) -> Iterator[str]:
    """Not by os.walk, which passes over folders that cannot be listed, and whose depth has a limit in Python 3.11."""
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(parent) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            yield parent  # to get a line that says why
            continue
        below = []
        for entry in entries:
            if _is_folder(entry):
                below += [] if entry.is_symlink() else [entry.path]
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                yield entry.path
        waiting += reversed(below)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False
