"""Where training photos come from: pictures with a class-label map beside them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import CLASS_NAMES
from mag_rt.errors import PictureError
from mag_rt.pictures import SUFFIXES, decode
from mag_rt.sources import find

TRAINING = "training"
"""The role of what is trained on."""
UNLABELLED = 255
"""Label of a pixel whose class nobody knows: it counts in no class term."""

What = TypeVar("What", covariant=True)


class NoPhotosError(ValueError):
    """A folder or a manifest can be read, and there is nothing in it that was asked for."""


class Readable(Protocol[What]):
    """Something to train on that lies on disk and is named after its picture."""

    @property
    def image(self) -> Path: ...

    def read(self) -> What:
        """Raises PictureError, ValueError or OSError, naming the file, when it cannot be used."""
        ...


Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A picture, H x W x 3 BGR, and its labels, H x W: 0 other, 1... the classes, 255 unlabelled."""


@dataclass(frozen=True)
class Photo:
    """An authentic photo on disk and, when it has one, its label map."""

    image: Path
    labels: Path | None

    def read(self) -> Labelled:
        """The picture and its labels.

        Raises `PictureError` (unreadable) or ValueError (labels of another size or with unknown ids), naming the file.
        """
        image = read_picture(self.image)
        if self.labels is None:
            return image, unlabelled(image)
        return image, read_labels(self.labels, self.image.name, image.shape[:2])


def read_picture(path: Path) -> NDArray[np.uint8]:
    """The picture in a file, H x W x 3 BGR. Raises PictureError, naming the file, or OSError."""
    try:
        return decode(path.read_bytes()).picture
    except PictureError as error:
        raise PictureError(error.kind, f"{path}: {error}") from None


def unlabelled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The labels of a picture of which nothing is known."""
    return np.full(image.shape[:2], UNLABELLED, np.uint8)


def read_labels(path: Path, picture: str, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map of a picture of this size (height, width): a PNG of ids, or the first array of an .npz.

    Raises OSError, or ValueError, naming the file, when it is no such map, of another size, or holds unknown ids.
    """
    try:
        labels = _array(path) if path.suffix == ".npz" else _ids(path)
    except OSError:
        raise
    except Exception as error:  # numpy and OpenCV raise whatever zip, zlib and their own parsers do
        raise ValueError(f"{path}: not a label map ({error})") from None
    if labels.shape != size:
        shape = f"{labels.shape[1]} x {labels.shape[0]}"
        raise ValueError(f"{path}: {shape}, not a label map of the size of {picture}, {size[1]} x {size[0]}")
    unknown = labels[((labels < 0) | (labels > len(CLASS_NAMES))) & (labels != UNLABELLED)]
    if unknown.size:
        raise ValueError(f"{path}: class {unknown[0]} is neither 0 to {len(CLASS_NAMES)} nor {UNLABELLED}")
    return labels.astype(np.uint8)


def _ids(path: Path) -> NDArray[Any]:
    data = path.read_bytes()
    if not data or (data.startswith(b"\x89PNG") and b"IEND" not in data):
        raise ValueError("the file ends too early")
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise ValueError("no picture that can be decoded")
    if labels.ndim != 2:
        raise ValueError("a picture in colour; what is wanted is grey, one id a pixel")
    return labels


def _array(path: Path) -> NDArray[Any]:
    with np.load(path) as arrays:
        labels = arrays[arrays.files[0]]
    labels = labels[..., 0] if labels.ndim == 3 and labels.shape[2] == 1 else labels
    if labels.ndim != 2 or labels.dtype.kind not in "bui":
        raise ValueError(f"an array of shape {labels.shape} and type {labels.dtype}; what is wanted is one id a pixel")
    return labels


class Reader(Generic[What]):
    """Reads photos by number and keeps account of them; one that cannot be read gives way to the next.

    `called`: what the photos are, for the message that there are none.
    """

    def __init__(self, photos: Sequence[Readable[What]], called: str = "photos") -> None:
        self.photos, self.called = photos, called
        self.sources: list[str] = []
        """The photos that were read, in order."""
        self.unreadable: dict[str, str] = {}
        """Photos that should have been read and could not be, and why."""

    def read(self, index: int) -> What:
        """Photo number `index`, or the next that can be read. Raises RuntimeError when none can."""
        for offset in range(len(self.photos)):
            photo = self.photos[(index + offset) % len(self.photos)]
            try:
                what = photo.read()
            except (PictureError, ValueError, OSError) as error:
                self.unreadable[str(photo.image)] = str(error)
            else:
                self.sources.append(str(photo.image))
                return what
        reasons = list(self.unreadable.values())
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise RuntimeError(f"none of the {self.called} can be read: " + "; ".join(reasons[:3]) + more)

    def draw(self, rng: np.random.Generator) -> What:
        """A photo at random."""
        return self.read(int(rng.integers(len(self.photos))))


def turn(number: int, photos: int, seed: int) -> int:
    """Whose turn it is: each of `photos` comes once in that many numbers, in an order that changes every time."""
    epoch, position = divmod(number, photos)
    return int(_permutation(photos, seed, epoch)[position])


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 2, epoch]).permutation(length)


def labelled_photos(root: Path, role: str = TRAINING) -> list[Photo]:
    """The photos under `root`, in a stable order.

    Either `root/manifest.tsv` lists them (columns image, label, role: only rows of `role` are taken), or they lie in
    `root/images` with label maps of the same stem in `root/labels` (PNG), all of them to train on; a photo without a
    map is unlabelled.

    Raises NoPhotosError when neither is there or no photo of that role is found, ValueError for a broken manifest.
    """
    manifest = root / "manifest.tsv"
    if manifest.is_file():
        rows = manifest_rows(manifest, {"role", "image", "label"}, role)
        photos = [Photo(root / row["image"], root / row["label"] if row["label"] else None) for row in rows]
    elif (root / "images").is_dir():
        photos = _paired(root) if role == TRAINING else []
    else:
        raise NoPhotosError(f"{root}: holds neither manifest.tsv nor a folder images/")
    if not photos:
        raise NoPhotosError(f"{root}: no photos of role {role!r}")
    return photos


def photos_below(folder: Path) -> list[Photo]:
    """All pictures in a folder and those below it, unlabelled. Raises SourceError when there are none."""
    paths = [Path(frame.source) for frame in find([folder]) if frame.source]
    return [Photo(path, None) for path in paths if path.suffix.lower() in SUFFIXES]


def _paired(root: Path) -> list[Photo]:
    images = sorted(path for path in (root / "images").iterdir() if path.suffix.lower() in SUFFIXES)
    maps = [root / "labels" / f"{path.stem}.png" for path in images]
    return [Photo(image, labels if labels.is_file() else None) for image, labels in zip(images, maps, strict=True)]


def manifest_rows(manifest: Path, columns: Iterable[str], role: str) -> list[dict[str, str]]:
    """The rows of a role in a table of tabs, by column; what is missing at the end of a row is empty.

    Raises ValueError, naming the table, when it lacks one of the columns, names no image in such a row or is no text in
    UTF-8.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, delimiter="\t", restval="")
            missing = set(columns).difference(table.fieldnames or ())
            rows = [row for row in table if not missing and row["role"] == role]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{manifest}: not a table of tabs in UTF-8 ({error})") from None
    if missing:
        raise ValueError(f"{manifest}: lacks the column {', '.join(sorted(missing))}")
    if any(not row["image"] for row in rows):
        raise ValueError(f"{manifest}: a row of role {role!r} names no image")
    return rows
