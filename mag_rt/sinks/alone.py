"""One at a time: a folder in which one process writes results that another one would spoil."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mag_rt.errors import ResultsError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Keep others that ask for it out of the folder in the meantime. Raises ResultsError when one is at work there.

    `what`: is done there, for the message. Where the system has no such locks (Windows, some network drives) it goes on
    without.
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
                raise ResultsError(f"{folder}: another {what} is writing there") from None
        yield
    finally:
        os.close(lock)
