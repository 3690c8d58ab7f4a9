"""From a source to a decoded picture, or to the reason why there is none."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mag_rt.errors import PictureError
from mag_rt.findings import Failure
from mag_rt.pictures import Decoded, decode
from mag_rt.sources import Frame
from mag_rt.video import Sampling, shots

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Loaded:
    """A frame with its picture, or with the reason why there is none."""

    frame: Frame
    sha256: str | None = None
    """Of the file, hexadecimal; None where it could not be read, or for a picture in memory."""
    decoded: Decoded | None = None
    failure: Failure | None = None


def load_picture(source: str, enough: int | None) -> Loaded:
    """The picture in a file; `enough` as for `mag_rt.pictures.decode`."""
    digest = None
    try:
        data = _regular(source).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return Loaded(Frame(source), digest, decode(data, enough))
    except (PictureError, OSError, MemoryError) as error:
        return Loaded(Frame(source), digest, failure=_failure(error))


def load_video(source: str, sampling: Sampling) -> Iterator[Loaded]:
    """The frames of a video; behind them, where it could not be read to its end, the reason why."""
    digest = None
    try:
        hashed = hashlib.sha256()
        with _regular(source).open("rb") as file:
            while block := file.read(_BLOCK):
                hashed.update(block)
        digest = hashed.hexdigest()
        for shot in shots(source, sampling):
            frame = Frame(source, shot.index, round(shot.time_s, 3))
            yield Loaded(frame, digest, Decoded(shot.picture, shot.picture.shape[:2]))
    except (PictureError, OSError) as error:
        yield Loaded(Frame(source), digest, failure=_failure(error))


def _regular(source: str) -> Path:
    path = Path(source)
    if path.exists() and not path.is_file():
        raise PictureError("unreadable", "not a regular file")  # a pipe would wait forever
    return path


def _failure(error: PictureError | OSError | MemoryError) -> Failure:
    if isinstance(error, PictureError):
        return Failure(error.kind, str(error))
    return Failure("unreadable", getattr(error, "strerror", None) or str(error))
