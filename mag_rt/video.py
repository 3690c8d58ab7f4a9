"""Frames of a video, some of them, each with the time at which a viewer sees it."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from mag_rt.errors import PictureError
from mag_rt.findings import Finding
from mag_rt.pictures import MOST_PIXELS, Picture

SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".mts", ".m2ts", ".m2t",
    ".ts", ".mxf", ".wmv", ".asf", ".flv", ".ogv",
})  # fmt: skip
"""File names that are taken for videos, lower case."""
MISSED = 0.02
"""Share of the frames that a container may promise too many of, as some only estimate it."""
PROBED, LEAST_PROBED = 100, 10
"""Frames from the beginning that must not all look alike where the file tells them apart; of fewer nothing is said."""
ANEW_S = 0.25
"""Seconds by which time stamps go back where they begin anew; by less they are out of order between neighbours."""
_BEGINNINGS = (
    (0, (b"\x1a\x45\xdf\xa3", b"RIFF", b"\0\0\1\xba", b"\0\0\1\xb3", b"G")),  # Matroska, AVI, MPEG
    (0, (b"\x06\x0e\x2b\x34", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"FLV\1", b"OggS")),  # MXF, WMV, FLV, Ogg
    (4, (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"G")),  # MP4, 3GP and QuickTime, MTS
)
"""Where and how the files begin that are taken for videos. FFmpeg would also follow a playlist to other files."""


def is_video(source: str) -> bool:
    """Whether a file is one, by its name."""
    return Path(source).suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Sampling:
    """Which frames are looked at: each `every`-th, or as many of each second as `fps` says.

    Raises ValueError for an `every` below 1 and, without one, for an `fps` that is not positive and finite.
    """

    every: int | None = None
    fps: float | None = 1.0

    def __post_init__(self) -> None:
        if self.every is not None:
            if not self.every >= 1:
                raise ValueError(f"every must be 1 or more, not {self.every}")
        elif self.fps is None or not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be positive and finite, not {self.fps}")

    def takes(self, index: int, time_s: float, last_s: float | None) -> bool:
        """Whether a frame is looked at; the last one before it that was looked at had the time `last_s`."""
        if self.every:
            return index % self.every == 0
        assert self.fps is not None
        return last_s is None or self._tick(time_s) > self._tick(last_s)

    def _tick(self, time_s: float) -> int:
        return math.floor(time_s * (self.fps or 0) + 1e-6)


ONE_A_SECOND = Sampling()


@dataclass(frozen=True)
class Shot:
    """A frame: its number from 0, its time in seconds, its picture, H x W x 3 BGR, turned as a viewer shows it."""

    index: int
    time_s: float
    picture: Picture


def shots(path: str, sampling: Sampling, alive: Callable[[], object] = lambda: None) -> Iterator[Shot]:
    """The frames that the sampling takes, in order. The video's own time stamps count, so its rate may vary.

    Where they begin anew, as in recordings that were joined, the time goes on as in a player; it never goes back.
    `alive` is called before each frame, those that are passed over included.

    Raises PictureError: empty, not-a-video, too-large, or truncated, behind the last frame that could be read. OSError.
    """
    index, time_s, last_s = 0, 0.0, None
    clock = _Clock()
    with _opened(path) as video, _no_cv2_error():
        if video is None or not video.isOpened():
            raise PictureError("not-a-video", "the file is damaged, or no video of a kind that can be decoded")
        if video.get(cv2.CAP_PROP_FRAME_WIDTH) * video.get(cv2.CAP_PROP_FRAME_HEIGHT) > MOST_PIXELS:
            raise PictureError("too-large", f"a frame has more than {MOST_PIXELS // 10**6} megapixels")
        if _comes_out_empty(path, alive):
            raise PictureError(
                "not-a-video",
                "its frames come out empty: OpenCV 4.13 and later do not read interlaced video, 4.12 does",
            )
        promised = video.get(cv2.CAP_PROP_FRAME_COUNT)
        while True:
            alive()
            if not video.grab():
                break
            stamp_s = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not math.isfinite(stamp_s):
                raise PictureError("truncated", f"frame {index} has no time")
            time_s = clock(stamp_s)
            if sampling.takes(index, time_s, last_s):
                decoded, picture = video.retrieve()
                if not decoded:
                    break
                yield Shot(index, time_s, picture)
                last_s = time_s
            index += 1
        # Of a video whose rate varies the promise may be its length in seconds times a rate that it rarely has.
        rate = video.get(cv2.CAP_PROP_FPS)
        ends_early = not 0 < rate < math.inf or time_s < promised / rate * (1 - MISSED) - 1
        if index == 0 or (index < promised * (1 - MISSED) - 1 and ends_early):
            raise PictureError("truncated", f"the video ends after {index} of {promised:.0f} frames")


def _comes_out_empty(path: str, alive: Callable[[], object]) -> bool:
    """Whether frames all look alike that are not alike in the file.

    OpenCV from 4.13 on fails to convert interlaced frames and says nothing: it gives the memory where they were to go.
    """
    first, alike = None, 0
    try:
        with _opened(path) as video:
            while alike < PROBED and video and video.grab():
                alive()
                decoded, picture = video.retrieve()
                first = picture if first is None else first
                if not decoded or not np.array_equal(picture, first):
                    return False
                alike += 1
        if first is None or alike < LEAST_PROBED:
            return False
        with _opened(path, [cv2.CAP_PROP_FORMAT, -1]) as video:
            packed = [bytes(video.retrieve()[1]) for _ in range(alike) if video and video.grab()]
    except cv2.error:  # which is said when its turn comes
        return False
    sizes = {len(frame) for frame in packed}  # as they are in the file: most are of one size where nothing moves
    tape = len(set(packed)) > alike / 2 and max(sizes) > first[..., 0].size / 5  # in DV all are, whatever moves
    return len(sizes) > alike / 2 or tape


class _Clock:
    """From the time stamps of a video's frames, each in its turn, to times that never go back."""

    def __init__(self) -> None:
        self._time_s = self._step_s = 0.0
        self._ahead_s = 0.0
        """Of the stamps, since they began anew."""

    def __call__(self, stamp_s: float) -> float:
        if stamp_s + self._ahead_s < self._time_s - ANEW_S:
            self._ahead_s = self._time_s + self._step_s - stamp_s
        before, self._time_s = self._time_s, max(self._time_s, stamp_s + self._ahead_s)
        self._step_s = self._time_s - before or self._step_s
        return self._time_s


def expected(path: str, sampling: Sampling) -> int:
    """About how many frames of a video will be looked at; 1 where that cannot be told."""
    if not os.path.isfile(path):  # a pipe would wait forever
        return 1
    try:
        with _opened(path) as video:
            count = video.get(cv2.CAP_PROP_FRAME_COUNT) if video else 0
            rate = video.get(cv2.CAP_PROP_FPS) if video else 0
    except (OSError, PictureError):
        return 1
    if not (1 <= count < math.inf and 0 < rate < math.inf):
        return 1
    return max(1, round(count / sampling.every if sampling.every else min(count, count / rate * (sampling.fps or 0))))


@contextmanager
def _opened(path: str, settings: Sequence[int] = ()) -> Iterator[cv2.VideoCapture | None]:
    """The video in a file, with these settings of OpenCV; None where it does not begin as one.

    Raises PictureError: empty. OSError.
    """
    with Path(path).open("rb") as file:
        head = file.read(16)
        if not head:
            raise PictureError("empty", "the file is empty")
        if not any(head.startswith(beginning, at) for at, beginning in _BEGINNINGS):
            yield None
            return
        # Absolute, since FFmpeg takes a name like `concat:a` for a protocol's. OpenCV crashes of a name that is no
        # Unicode.
        name = os.path.abspath(path) if _is_unicode(path) else f"/dev/fd/{file.fileno()}"
        video = cv2.VideoCapture(name, cv2.CAP_FFMPEG, settings)
        try:
            yield video
        finally:
            video.release()


@contextmanager
def _no_cv2_error() -> Iterator[None]:
    try:
        yield
    except cv2.error:  # a frame whose size changes to a huge one, say
        raise PictureError("truncated", "a frame cannot be decoded") from None


def _is_unicode(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)


@dataclass(frozen=True)
class Segment:
    """A stretch of a video whose frames that were looked at are all spliced. Times in seconds."""

    source: str
    from_s: float
    to_s: float
    peak_s: float
    peak_score: float


def segments(findings: Iterable[Finding]) -> list[Segment]:
    """The spliced stretches of the videos among findings, in their order."""
    found: list[Segment] = []
    last: Finding | None = None
    for finding in findings:
        if finding.verdict == "spliced" and finding.source and finding.time_s is not None and finding.score is not None:
            here = Segment(finding.source, finding.time_s, finding.time_s, finding.time_s, finding.score)
            if last and last.verdict == "spliced" and last.source == finding.source:
                before = found.pop()
                peak = max(before, here, key=lambda each: each.peak_score)
                here = replace(before, to_s=here.to_s, peak_s=peak.peak_s, peak_score=peak.peak_score)
            found.append(here)
        last = finding
    return found
