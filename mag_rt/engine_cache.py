"""Engines kept on disk, each beside a JSON that says what it is, within a limit of space."""

import hashlib
import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 2 * 1024**3
"""Bytes of engines that a cache keeps unless told otherwise; the least recently used go first."""
_ABANDONED_S = 24 * 3600
"""Age at which a partial file is nobody's any more: its writer was killed."""


def user_cache() -> Path:
    """Where this user's engines are kept: `magrt/engines` in $XDG_CACHE_HOME, or %LOCALAPPDATA%, or ~/.cache."""
    own = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    try:
        return (Path(own) if own else Path("~/.cache").expanduser()) / "magrt" / "engines"
    except RuntimeError:  # the user has no home: below a file nothing can be written, so nothing is kept
        return Path(os.devnull) / "magrt" / "engines"


@dataclass(frozen=True)
class Entry:
    """What is kept of an engine."""

    engine: bytes
    """As the library gave it, not a byte more: trtexec loads the file."""
    notes: dict[str, Any]
    """The JSON beside it."""


class EngineCache:
    """A folder of engines that any number of processes use at once. Raises OSError where it cannot write.

    An engine is found by its `facts`, everything that it depends on. A file is there as a whole or not at all: it is
    written under another name and renamed, the JSON last. What was damaged since is not found.
    """

    def __init__(self, folder: Path | None = None, largest: int = LARGEST) -> None:
        self.folder = user_cache() if folder is None else folder
        self.largest = largest

    def find(self, facts: dict[str, Any]) -> Entry | None:
        """The engine of these facts; it counts as used now."""
        path = self._path(facts)
        notes = self.notes(facts)
        try:
            engine = path.read_bytes()
        except OSError:
            return None
        if notes.get("sha256") != hashlib.sha256(engine).hexdigest():
            return None
        with suppress(OSError):
            os.utime(path)
        return Entry(engine, notes)

    def notes(self, facts: dict[str, Any]) -> dict[str, Any]:
        """What the JSON says, also where there is no engine since it was refused; empty without a JSON of ours."""
        try:
            notes = json.loads(self._path(facts).with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) and notes.get("facts") == facts else {}

    def store(self, facts: dict[str, Any], engine: bytes, notes: dict[str, Any]) -> Path:
        """Keep an engine, with notes for a reader, and make room for it; the engine's path."""
        path = self._path(facts)
        write(path, engine)
        digest = hashlib.sha256(engine).hexdigest()
        self._describe(path, {**notes, "facts": facts, "sha256": digest, "bytes": len(engine)})
        self._make_room(path)
        return path

    def refuse(self, facts: dict[str, Any], reason: str) -> Path:
        """Drop the engine of these facts and keep the reason; the path of the JSON that holds it."""
        path = self._path(facts)
        self._describe(path, {"facts": facts, "refused": reason})
        path.unlink(missing_ok=True)
        return path.with_suffix(".json")

    def _path(self, facts: dict[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{facts['annotator']}-{facts['precision']}-{key}.engine"

    def _describe(self, path: Path, notes: dict[str, Any]) -> None:
        write(path.with_suffix(".json"), (json.dumps(notes, indent=2) + "\n").encode())

    def _make_room(self, newest: Path) -> None:
        for partial in self.folder.glob("*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_S:
                    partial.unlink()
        engines = []
        for path in self.folder.glob("*.engine"):
            with suppress(FileNotFoundError):  # another process makes room too
                engines.append((path.stat().st_mtime, path.stat().st_size, path))
        total = sum(size for _, size, _ in engines)
        for _, size, path in sorted(engines):
            if total > self.largest and path != newest:
                path.unlink(missing_ok=True)
                path.with_suffix(".json").unlink(missing_ok=True)
                total -= size


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is the old one or the new one at any time, never a part, even when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # At random: in containers that share a cache every process may have the number 1.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
