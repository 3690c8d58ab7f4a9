"""From a source to a decoded picture, or to the reason why there is none."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from mag_rt.errors import PictureError
from mag_rt.findings import Failure
from mag_rt.pictures import MOST_BYTES, Decoded, decode
from mag_rt.sources import Frame
from mag_rt.video import Sampling, Shot, shots

_BLOCK = 1 << 20

Decode = Callable[[bytes, int | None], Decoded]
"""A way to decode a picture: `mag_rt.pictures.decode`, or the same in isolation."""
Shots = Callable[[str, Sampling], Iterator[Shot]]
"""A way to the frames of a video: `mag_rt.video.shots`, or the same in isolation."""


@dataclass(frozen=True)
class Loaded:
    """A frame with its picture, or with the reason why there is none."""

    frame: Frame
    sha256: str | None = None
    """Of the file, hexadecimal; None where it could not be read, or for a picture in memory."""
    decoded: Decoded | None = None
    failure: Failure | None = None


def load_picture(source: str, enough: int | None, decode: Decode = decode) -> Loaded:
    """The picture in a file; `enough` as for `mag_rt.pictures.decode`, which another decoder may stand in for."""
    digest = None
    try:
        data = contents(source)
        digest = hashlib.sha256(data).hexdigest()
        return Loaded(Frame(source), digest, decode(data, enough))
    except (PictureError, OSError, MemoryError) as error:
        return Loaded(Frame(source), digest, failure=_failure(error))


def load_video(source: str, sampling: Sampling, shots: Shots = shots) -> Iterator[Loaded]:
    """The frames of a video; behind them, where it could not be read to its end, the reason why.

    Another way to its frames may stand in for `mag_rt.video.shots`.
    """
    digest = None
    try:
        hashed = hashlib.sha256()
        with _opened(source) as (file, before):
            while block := file.read(_BLOCK):
                hashed.update(block)
        digest = hashed.hexdigest()
        for shot in shots(source, sampling):
            frame = Frame(source, shot.index, round(shot.time_s, 3))
            yield Loaded(frame, digest, Decoded(shot.picture, shot.picture.shape[:2]))
        _must_be_unchanged(before, os.stat(source))
    except (PictureError, OSError, MemoryError) as error:
        yield Loaded(Frame(source), digest, failure=_failure(error))


def contents(source: str) -> bytes:
    """The bytes of a picture's file. Raises PictureError (no regular file, too large, changed meanwhile) or OSError."""
    with _opened(source) as (file, before):
        if before.st_size > MOST_BYTES:
            raise PictureError(
                "too-large", f"the file has {before.st_size / 1e6:.0f} MB; {MOST_BYTES / 1e6:.0f} are read"
            )
        data = file.read(before.st_size)  # and no more, should it grow without end
        _must_be_unchanged(before, os.fstat(file.fileno()))
    return data


@contextmanager
def _opened(source: str) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """A regular file, open for reading, and what is known of it now."""
    status = os.stat(source)
    if stat.S_ISDIR(status.st_mode):
        os.scandir(source).close()  # which says why it is here
    _must_be_regular(status)  # before it is opened, since a device may do something then
    with open(source, "rb", opener=_without_waiting) as file:
        before = os.fstat(file.fileno())
        _must_be_regular(before)  # it may have been replaced since
        yield file, before


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _must_be_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PictureError("unreadable", "not a regular file")


def _must_be_unchanged(before: os.stat_result, after: os.stat_result) -> None:
    def version(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    if version(before) != version(after):
        raise PictureError("changed", "the file was changed while it was read")


def _failure(error: PictureError | OSError | MemoryError) -> Failure:
    if isinstance(error, PictureError):
        return Failure(error.kind, str(error))
    if isinstance(error, MemoryError):
        return Failure("too-large", "there is not enough memory to decode it")
    return Failure("unreadable", error.strerror or str(error))
