"""Scanner, the public face: from sources to findings on one straight road."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from math import prod
from types import TracebackType
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from mag_rt import bundle as bundles
from mag_rt.bundle import Calibration
from mag_rt.errors import MagrtError
from mag_rt.findings import Failure, Finding, Reading, score, verdict
from mag_rt.isolation import Decoders
from mag_rt.loading import Decode, Loaded, load_picture, load_video
from mag_rt.pictures import Decoded, Picture, decode
from mag_rt.pipeline import ahead, windows
from mag_rt.reading import MOST_THREADS, Reader, open_reader
from mag_rt.sources import Frame, find
from mag_rt.video import ONE_A_SECOND, Sampling, is_video, shots

DECODED_AHEAD = 1
"""Pictures that wait, decoded, for each one that is being read."""


class Scanner:
    """Finds splices in pictures.

    `bundle`: folder or zip of the annotator, or the name of one that ships: `edge`, as when None, or `thorough`, which
    reads each picture four ways: it finds more, four times as slowly. `max_side`: pictures with a longer side are
    shrunk to it, pixels; the bundle's own default when None. `tiles`: larger pictures are read a second time, at their
    own resolution in tiles of that side, and both readings count (`mag_rt.findings.together`). `threshold`: the score
    from which a picture is called spliced; the bundle's own when None. `sampling`: which frames of a video are looked
    at. `backend` (tensorrt, tensorrt-rtx, openvino, onnxruntime) and `precision` (float32, float16, int8): what runs
    the network; auto takes the fastest that works here. `isolate`: files are decoded in processes of their own
    (`mag_rt.isolation`).

    A scanner belongs to one thread at a time; it has threads of its own, and OpenVINO or ONNX Runtime theirs. Use it in
    a `with` statement, or call `close`: then it gives back all that it opened, and using it is a MagrtError.

    Raises BundleError when the bundle cannot be used, BackendError when what was asked for is not installed, MagrtError
    when `isolate` cannot start its processes, ValueError for a `max_side` below 1 or a `threshold` outside [0, 1].
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | None = None,
        *,
        max_side: int | None = None,
        tiles: bool = False,
        threshold: float | None = None,
        sampling: Sampling = ONE_A_SECOND,
        backend: str = "auto",
        precision: str = "auto",
        isolate: bool = False,
    ) -> None:
        self.bundle = bundles.load(bundles.located(bundle))
        self.max_side = self.bundle.max_side if max_side is None else max_side
        if self.max_side < 1:
            raise ValueError(f"max_side must be positive, not {max_side}")
        self.tiles, self.threshold, self.sampling, self.isolate = tiles, threshold, sampling, isolate
        self.calibration = self.bundle.calibration if threshold is None else _moved(self.bundle.calibration, threshold)
        self.closed, self._going_on = False, WeakSet[Generator[Finding, None, None]]()
        self._decoders = Decoders() if isolate else None  # which start while the network is being loaded
        try:
            self.reader: Reader = open_reader(self.bundle, self.max_side, tiles, backend, precision)
        except BaseException:
            if self._decoders:
                self._decoders.close()
            raise

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the network; the scanner cannot be used afterwards.

        Scans that have not come to their end are ended first; going on with one is a MagrtError.
        """
        self.closed = True
        try:
            for findings in list(self._going_on):
                findings.close()
            self.reader.close()
        finally:
            if self._decoders:
                self._decoders.close()

    def scan(
        self, sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Generator[Finding, None, None]:
        """Findings for every picture and video frame in `sources` (files, folders, globs; or one), in source order.

        A generator with bounded memory: a few pictures are decoded ahead. A file that cannot be read gives a finding
        with an `error` and the scan goes on.

        Raises SourceError, before the first finding, when a source does not exist or there is nothing to scan.
        """
        return self.scan_frames(find([sources] if isinstance(sources, str | os.PathLike) else sources))

    def scan_frames(self, frames: Iterable[Frame]) -> Generator[Finding, None, None]:
        """As `scan`, for frames that `mag_rt.sources.find` has found already."""
        enough = None if self.tiles else self.max_side
        at_once = self.reader.threads * self.reader.batch
        load = partial(_loaded, enough=enough, decode=self._decoders.decode if self._decoders else decode)
        threads = min(at_once, os.cpu_count() or 1, MOST_THREADS)
        return self._examined(ahead(load, self._opened(frames), DECODED_AHEAD * at_once, threads))

    def _opened(self, frames: Iterable[Frame]) -> Iterator[Frame | Loaded]:
        """Pictures as they are; videos as their frames, which cannot be decoded but one after the other."""
        for frame in frames:
            if frame.source and is_video(frame.source):
                loaded = load_video(frame.source, self.sampling, self._decoders.shots if self._decoders else shots)
                yield from _behind(loaded, frame.after)
            else:
                yield frame

    def scan_images(self, images: Sequence[NDArray[np.uint8]]) -> list[Finding]:
        """Findings for pictures in memory, H x W x 3 BGR or H x W grey, uint8, in their order.

        Raises ValueError for an array that is no such picture.
        """
        pictures = [_as_picture(image) for image in images]
        return list(self._examined(Loaded(Frame(None), None, Decoded(each, each.shape[:2])) for each in pictures))

    def scan_image(self, image: NDArray[np.uint8]) -> Finding:
        """The finding for one picture in memory, as `scan_images`."""
        return self.scan_images([image])[0]

    def _examined(self, loaded: Generator[Loaded, None, None]) -> Generator[Finding, None, None]:
        self._must_be_open()
        with closing(self._in_turn(loaded)) as findings:
            self._going_on.add(findings)
            yield from findings
        self._must_be_open()

    def _must_be_open(self) -> None:
        if self.closed:
            raise MagrtError("the scanner is closed")

    def _in_turn(self, loaded: Generator[Loaded, None, None]) -> Generator[Finding, None, None]:
        batches, threads = windows(loaded, self.reader.batch), self.reader.threads
        with closing(loaded), closing(ahead(self._examine, batches, threads + 1, threads)) as examined:
            for findings in examined:
                yield from findings

    def _examine(self, batch: list[Loaded]) -> list[Finding]:
        decoded = [each.decoded for each in batch if each.decoded]
        readings = iter(self.reader([each.picture for each in decoded], [each.size for each in decoded]))
        return [self._finding(each, each.decoded, next(readings)) if each.decoded else _failed(each) for each in batch]

    def _finding(self, loaded: Loaded, decoded: Decoded, reading: Reading | Failure) -> Finding:
        if isinstance(reading, Failure):
            return _failed(replace(loaded, failure=reading))
        value = score(reading.evidence, reading.pixels, self.calibration)
        # What saving did to single pixels is gone, like these themselves, where the scan shrinks a picture a lot.
        told_by = decoded.quality if 2 * reading.pixels > prod(decoded.size) else None
        return Finding(
            loaded.frame.source,
            loaded.frame.index,
            loaded.frame.time_s,
            width=decoded.size[1],
            height=decoded.size[0],
            sha256=loaded.sha256,
            score=value,
            verdict=verdict(value, reading.pixels, self.calibration, told_by),
            regions=reading.regions,
            objects=reading.objects,
            mask=reading.mask,
            picture=decoded.picture,
        )


def _moved(calibration: Calibration, threshold: float) -> Calibration:
    """The calibration with another threshold from which a picture, however small, is called spliced."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, not {threshold}")
    return replace(calibration, spliced=threshold, authentic=min(calibration.authentic, threshold), small=1)


def _behind(loaded: Iterator[Loaded], after: int | None) -> Iterator[Loaded]:
    return (each for each in loaded if after is None or each.frame.index is None or each.frame.index > after)


def _loaded(frame: Frame | Loaded, enough: int | None, decode: Decode) -> Loaded:
    if isinstance(frame, Loaded):
        return frame
    assert frame.source is not None
    return load_picture(frame.source, enough, decode)


def _failed(loaded: Loaded) -> Finding:
    frame = loaded.frame
    return Finding(frame.source, frame.index, frame.time_s, sha256=loaded.sha256, error=loaded.failure)


def _as_picture(image: NDArray[np.uint8]) -> Picture:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError("a picture is a uint8 array that is not empty")
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture is H x W x 3 or H x W, not {' x '.join(map(str, image.shape))}")
    return image
