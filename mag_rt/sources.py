"""From what the user names (files, folders, globs) to the pictures and videos to scan, in a stable order."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from mag_rt import pictures, video
from mag_rt.errors import SourceError

SUFFIXES = pictures.SUFFIXES | video.SUFFIXES
NOT_READ = frozenset({
    ".heic", ".heif", ".hif", ".jxl", ".psd", ".psb", ".xcf",
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw",
    ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
    ".braw", ".dv", ".r3d", ".rm", ".rmvb",
})  # fmt: skip
"""Names of pictures and videos, lower case, of kinds that are not read: a folder scan counts what it passes over."""

COMPANION = "._"
"""How the names of the files begin that macOS puts beside others, photos too, on cards and network drives."""
RESULTS = frozenset({"findings.jsonl", "run.json"})
"""What the folder of a scan's results holds; its `DRAWN` folders are no photos then."""
DRAWN = frozenset({"masks", "overlays", "thumbnails"})


@dataclass(frozen=True)
class Frame:
    """A file to scan, a frame of a video, or a picture in memory."""

    source: str | None
    """The path as the user would write it, but for `..` behind a link; None for a picture in memory."""
    index: int | None = None
    """Number of the frame in its video, from 0; None for a picture."""
    time_s: float | None = None
    """Time of the frame in its video, seconds; None for a picture."""
    after: int | None = None
    """Of a video to scan: only the frames behind this one are wanted; None for all."""


def find(
    sources: Iterable[str | os.PathLike[str]],
    exclude: Path | None = None,
    listed: Iterable[str] = (),
    passed_over: Counter[str] | None = None,
) -> list[Frame]:
    """The pictures and videos that `sources` name, each once, in the order given; folders are walked by name.

    A file that is named is taken whatever its suffix; in folders only `SUFFIXES` count, no `COMPANION`, symbolic links
    to folders are not followed, and neither what a scan has drawn into the folder of its results nor anything below
    `exclude` (where those of this one go) is taken. Below where its first wildcard stands a glob passes over what was
    drawn as well. A folder that cannot be listed is a source itself, so that the scan has an error for it. `listed`:
    names that a program has found before; they are no globs, and one that is gone by now is a frame all the same, whose
    finding will say so. `passed_over` counts, by suffix without its dot, the files in folders that are pictures or
    videos by name, but of kinds that are not read.

    Raises SourceError when a source does not exist or when there is nothing to scan.
    """
    excluded = None if exclude is None else os.path.join(os.path.realpath(exclude), "")
    real = cache(os.path.realpath)  # the folder of results may be reached by other names than its own
    followed = cache(_followed)
    found: dict[str, Frame] = {}
    within = None
    folders = _Folders(Counter() if passed_over is None else passed_over)
    named = (path for source in sources for path in _expand(os.fspath(source), folders))
    given = (path for name in listed for path in (folders.walk(name) if os.path.isdir(name) else [name]))
    for path in chain(named, given):
        parent, name = os.path.split(path)
        if followed(parent) != parent:
            path = os.path.join(followed(parent), name)
        absolute = os.path.abspath(path)
        if excluded is None or not os.path.join(real(os.path.dirname(absolute)), "").startswith(excluded):
            found.setdefault(absolute, Frame(path))
        else:
            within = path
    if not found and within is not None:
        raise SourceError(
            f"nothing to scan: {within} and all else lies within {exclude}, where results go: give another --out"
        )
    if not found:
        among = ", ".join(map(str, sources)) or "an empty list"
        but = f" (passed over: {as_text(folders.passed_over)})" if folders.passed_over else ""
        raise SourceError(f"nothing to scan: no picture and no video in {among}{but}")
    return list(found.values())


def as_text(passed_over: Mapping[str, int]) -> str:
    """What was passed over, the most first: `12 HEIC, 1 CR2, of kinds that are not read`."""
    counts = ", ".join(f"{count} {suffix.upper()}" for suffix, count in Counter(passed_over).most_common())
    return f"{counts}, of kinds that are not read"


def _expand(source: str, folders: "_Folders") -> Iterator[str]:
    if os.path.isdir(source):
        yield from folders.walk(source)
    elif os.path.lexists(source):
        yield source
    elif glob.has_magic(source):
        matches = sorted(glob.glob(source, recursive=True))
        if not matches:
            raise SourceError(f"{source}: matches nothing")
        begins_at = next(at for at, part in enumerate(Path(source).parts) if glob.has_magic(part))
        matches = [match for match in matches if not _is_drawn(match, begins_at)]
        if not matches:
            raise SourceError(f"{source}: matches nothing but what a scan has drawn; name its folder to scan that")
        for match in matches:
            yield from folders.walk(match) if os.path.isdir(match) else [match]
    else:
        raise SourceError(f"{source}: no such file or folder")


def _is_drawn(path: str, begins_at: int) -> bool:
    """Whether a scan has drawn it, or it is such a folder, below those of its folders that were named."""
    parts = Path(path).parts
    return any(
        parts[at] in DRAWN and all(Path(*parts[:at], result).exists() for result in RESULTS)
        for at in range(begins_at, len(parts))
    )


class _Folders:
    """Folders on their way through `find`, each walked once; counts what is passed over in them."""

    def __init__(self, passed_over: Counter[str]) -> None:
        self.passed_over = passed_over
        self._walked: set[str] = set()

    def walk(self, folder: str) -> Iterator[str]:
        """Not by os.walk, which passes over folders that cannot be listed, and whose depth has a limit in Python 3.11.

        A folder that was walked before is none of this walk.
        """
        waiting = [_followed(folder)]
        while waiting:
            parent = waiting.pop()
            if (absolute := os.path.abspath(parent)) in self._walked:
                continue
            self._walked.add(absolute)
            try:
                with os.scandir(parent) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError:
                yield parent  # to get a line that says why
                continue
            below = []
            drawn = DRAWN if RESULTS.issubset(entry.name for entry in entries) else ()
            for entry in entries:
                suffix = Path(entry.name).suffix.lower()
                if _is_folder(entry):
                    below += [] if entry.is_symlink() or entry.name in drawn else [entry.path]
                elif entry.name.startswith(COMPANION):
                    continue
                elif suffix in SUFFIXES:
                    yield entry.path
                elif suffix in NOT_READ:
                    self.passed_over[suffix[1:]] += 1
            waiting += reversed(below)


def _followed(folder: str) -> str:
    """As it was named, unless its `..` lead up from behind a link: by their text alone they would lead elsewhere."""
    if os.pardir not in Path(folder).parts:
        return folder
    real = os.path.realpath(folder)
    return folder if real == os.path.realpath(os.path.normpath(folder)) else real


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False
