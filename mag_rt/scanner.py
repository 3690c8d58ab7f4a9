"""Scanner, the public face: from sources to findings on one straight road."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from mag_rt import bundle as bundles
from mag_rt.backends import Backend
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.errors import PictureError
from mag_rt.findings import Failure, Finding, evidence, objects, regions, score, verdict
from mag_rt.pictures import Picture, decode, map_back, pad, shrink
from mag_rt.pipeline import ahead, windows
from mag_rt.sources import Frame, find

WINDOW = 8
"""Pictures that are looked at together to find those that can share a batch."""
BATCH_PIXELS = 1024 * 1024
"""Padded pixels in a batch, so that memory does not grow with the pictures; one picture may exceed it alone."""


@dataclass(frozen=True)
class _Loaded:
    """A frame with its picture, or with the reason why there is none."""

    frame: Frame
    sha256: str | None = None
    picture: Picture | None = None
    failure: Failure | None = None


class Scanner:
    """Finds splices in pictures.

    `bundle`: folder or zip of the annotator, the one that ships when None. `max_side`: pictures with a longer side are
    shrunk to it, pixels; the bundle's own default when None.

    A scanner belongs to one thread at a time. Use it in a `with` statement, or call `close`.

    Raises BundleError when the bundle cannot be used.
    """

    def __init__(self, bundle: str | os.PathLike[str] | None = None, *, max_side: int | None = None) -> None:
        self.bundle = bundles.load(bundles.bundled() if bundle is None else Path(bundle))
        self.max_side = self.bundle.max_side if max_side is None else max_side
        if self.max_side < 1:
            raise ValueError(f"max_side must be positive, not {max_side}")
        self.backend: Backend = OnnxRuntimeBackend(self.bundle)

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the network; the scanner cannot be used afterwards."""
        self.backend.close()

    def scan(self, sources: Iterable[str | os.PathLike[str]]) -> Iterator[Finding]:
        """Findings for every picture in `sources` (files, folders, globs), in source order.

        A generator with bounded memory: at most about three windows of `WINDOW` pictures are held at once. A file that
        cannot be read gives a finding with an `error` and the scan goes on.

        Raises SourceError, before the first finding, when a source does not exist or there is nothing to scan.
        """
        return self.scan_frames(find(sources))

    def scan_frames(self, frames: Iterable[Frame]) -> Iterator[Finding]:
        """As `scan`, for frames that `mag_rt.sources.find` has found already."""
        loaded = ahead(_load, frames, depth=WINDOW)
        for findings in ahead(self._examine, windows(loaded, WINDOW), depth=1):
            yield from findings

    def scan_images(self, images: Sequence[NDArray[np.uint8]]) -> list[Finding]:
        """Findings for pictures in memory, H x W x 3 BGR or H x W grey, uint8, in their order.

        Raises ValueError for an array that is no such picture.
        """
        loaded = [_Loaded(Frame(None), picture=_as_picture(image)) for image in images]
        return [finding for window in windows(loaded, WINDOW) for finding in self._examine(window)]

    def scan_image(self, image: NDArray[np.uint8]) -> Finding:
        """The finding for one picture in memory, as `scan_images`."""
        return self.scan_images([image])[0]

    def _examine(self, window: list[_Loaded]) -> list[Finding]:
        annotations = iter(self._annotate([each.picture for each in window if each.picture is not None]))
        return [
            _failed(each) if each.picture is None else self._finding(each, each.picture, next(annotations))
            for each in window
        ]

    def _annotate(self, pictures: list[Picture]) -> list[NDArray[np.float32]]:
        """The annotation maps of each picture, (2+K) x h x w, where h x w is the shrunk picture without its padding."""
        placed = [shrink(picture, self.max_side) for picture in pictures]
        padded = [pad(picture, self.bundle.multiple) for picture in placed]
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(padded):
            alike[picture.shape].append(index)
        annotations: dict[int, NDArray[np.float32]] = {}
        for (height, width, _), indices in alike.items():
            for batch in windows(indices, max(1, BATCH_PIXELS // (height * width))):
                maps = self.backend(self.bundle.normalisation([padded[index] for index in batch]))
                annotations.update(zip(batch, maps, strict=True))
        return [annotations[i][:, : picture.shape[0], : picture.shape[1]] for i, picture in enumerate(placed)]

    def _finding(self, loaded: _Loaded, picture: Picture, maps: NDArray[np.float32]) -> Finding:
        size = picture.shape[:2]
        calibration = self.bundle.calibration
        # The score comes from the map as the network made it: how far the picture was shrunk must not matter.
        value = score(evidence(maps[0]), calibration)
        probability = map_back(maps[0], size)
        return Finding(
            loaded.frame.source,
            loaded.frame.index,
            loaded.frame.time_s,
            width=size[1],
            height=size[0],
            sha256=loaded.sha256,
            score=value,
            verdict=verdict(value, calibration),
            regions=regions(probability, self.bundle.mask_threshold),
            objects=objects(maps[2:], self.bundle.classes),
            probability=probability,
            picture=picture,
        )


def _load(frame: Frame) -> _Loaded:
    assert frame.source is not None
    digest = None
    path = Path(frame.source)
    try:
        if path.exists() and not path.is_file():
            return _Loaded(frame, failure=Failure("unreadable", "not a regular file"))  # a pipe would wait forever
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return _Loaded(frame, digest, decode(data))
    except PictureError as error:
        return _Loaded(frame, digest, failure=Failure(error.kind, str(error)))
    except (OSError, MemoryError) as error:
        return _Loaded(frame, digest, failure=Failure("unreadable", getattr(error, "strerror", None) or str(error)))


def _failed(loaded: _Loaded) -> Finding:
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
