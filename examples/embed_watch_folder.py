"""A newsroom's ingest: scan what arrives in a folder and append a line of JSON for each picture.

    python examples/embed_watch_folder.py INBOX findings.jsonl

A picture is scanned once two looks have found it with the same size and time, so that none is read while it is being
copied; none is moved or changed. Ctrl-C or SIGTERM stops it after the picture in hand. What has a line is not scanned
again after a restart, unless the file has changed since.
"""

import argparse
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mag_rt import Scanner, SourceError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds: whether a file is the one that it was."""


def look(inbox: Path) -> dict[str, State]:
    """The pictures that lie in the folder or below it now, by their path in it."""
    found = {}
    for parent, _, names in os.walk(inbox):
        for name in sorted(each for each in names if each.lower().endswith(PICTURES)):
            path = Path(parent, name)
            with suppress(OSError):  # gone again
                found[os.path.relpath(path, inbox)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def scan(scanner: Scanner, inbox: Path, ready: dict[str, State]) -> Iterator[dict[str, Any]]:
    """A line for each picture that is ready; a file that is none, or that is damaged, gives one with an error."""
    with suppress(SourceError):  # one of them has gone: the next look will not have it
        for finding in scanner.scan([inbox / name for name in ready]):
            name = os.path.relpath(finding.source or "", inbox)
            yield {"source": name, "state": ready[name], **finding.as_json()}


def done_before(lines: Path) -> dict[str, State]:
    """What has a line. A last line that is not whole, as a crash leaves it, is taken away."""
    data = lines.read_bytes() if lines.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        os.truncate(lines, len(whole))
    return {line["source"]: tuple(line["state"]) for line in map(json.loads, whole.splitlines())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inbox", type=Path)
    parser.add_argument("lines", type=Path, help="where a line for each picture is appended")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two looks (2)")
    parser.add_argument("--model", type=Path, help="another annotator than the one that ships")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    done, before = done_before(options.lines), look(options.inbox)
    with Scanner(options.model) as scanner, options.lines.open("a", encoding="ascii") as out:
        while not stop.wait(options.every):
            now = look(options.inbox)
            ready = {name: state for name, state in now.items() if state == before.get(name) != done.get(name)}
            before = now
            for line in scan(scanner, options.inbox, ready):
                out.write(json.dumps(line) + "\n")
                out.flush()
                done[line["source"]] = line["state"]
                if stop.is_set():
                    break


if __name__ == "__main__":
    main()
