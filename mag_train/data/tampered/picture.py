"""A picture of a benchmark and its truth: what every reader of a dataset gives, and how the truth is read."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.pictures import SUFFIXES, Picture, decode

Mask = NDArray[np.bool_]
"""H x W, true where the picture is spliced."""
Rule = Callable[[NDArray[np.uint8]], Mask]
"""From a mask file's pixels, H x W x 3 BGR, to what they mark."""

AUTHENTIC = "authentic"
"""The kind of a picture that has no mask because nothing was done to it."""
SAME_SHAPE = 0.02
"""Relative difference of the aspect ratios up to which a mask of another size is stretched to its picture."""


class TruthError(ValueError):
    """The truth of a tampered picture cannot be used. `kind` names the reason in a few words, for counting."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def white(pixels: NDArray[np.uint8]) -> Mask:
    """The splice is white on black, whatever a lossy format made of it."""
    return pixels.max(axis=2) > 127


def not_black(pixels: NDArray[np.uint8]) -> Mask:
    """The splice is whatever is not black."""
    return pixels.max(axis=2) > 0


def black(pixels: NDArray[np.uint8]) -> Mask:
    """The splice is black on white."""
    return ~white(pixels)


@dataclass(frozen=True)
class Truth:
    """The truth of a picture and what had to be done to it."""

    mask: Mask
    """Of the picture's size; marks the smaller region."""
    inverted: bool = False
    """The file marked more than half of the picture."""
    stretched: bool = False
    """The file was of another size, but of the same shape."""


@dataclass(frozen=True)
class Tampered:
    """A picture on disk and its mask; an authentic one has no mask and an all-black truth."""

    image: Path
    mask: Path | None
    """Where the mask ought to be: whether it is there shows when it is read."""
    dataset: str
    kind: str
    """How the picture was made: spliced, copymove, tampered (of several kinds) or authentic."""
    rule: Rule = white
    renamed: bool = False
    """The mask has another name than the picture and was found by its number."""

    def read(self) -> tuple[Picture, Truth]:
        """The picture, H x W x 3 BGR, and its truth. Raises PictureError, OSError (the picture) or TruthError."""
        picture = decode(self.image.read_bytes()).picture
        size = (picture.shape[0], picture.shape[1])
        if self.mask is None:
            return picture, Truth(np.zeros(size, bool))
        mask = self.rule(mask_pixels(self.mask))
        stretched = mask.shape != size
        if stretched:
            mask = _stretch(mask, size, self.mask)
        inverted = 2 * int(mask.sum()) > mask.size
        truth = Truth(~mask if inverted else mask, inverted, stretched)
        if not truth.mask.any():
            raise TruthError("mask of one colour", f"{self.mask}: marks no region")
        return picture, truth


def mask_pixels(path: Path) -> NDArray[np.uint8]:
    """The pixels of a mask file, H x W x 3; of an .npz the first array in it, H x W, as 0 and 255."""
    try:
        data = path.read_bytes()
    except OSError:
        raise TruthError("mask missing", f"{path}: no such mask") from None
    try:
        return _array_pixels(path) if path.suffix == ".npz" else decode(data).picture
    except Exception as error:  # numpy raises whatever zip, zlib and its header's parser do
        raise TruthError("mask unreadable", f"{path}: {error}") from None


def _array_pixels(path: Path) -> NDArray[np.uint8]:
    with np.load(path) as arrays:
        marked = arrays[arrays.files[0]].squeeze() > 0
    if marked.ndim != 2:
        raise ValueError(f"an array of {marked.ndim} dimensions, not H x W")
    return np.repeat(marked.astype(np.uint8)[:, :, None] * 255, 3, axis=2)


def _stretch(mask: Mask, size: tuple[int, int], path: Path) -> Mask:
    """The mask at `size` if it has the shape of that. Raises TruthError if not: it may be turned, or cropped."""
    (height, width), (wanted_height, wanted_width) = mask.shape, size
    if abs(math.log(height * wanted_width / (width * wanted_height))) > SAME_SHAPE:
        raise TruthError(
            "mask of another shape", f"{path}: {width} x {height}, but the picture is {wanted_width} x {wanted_height}"
        )
    return resize_mask(mask, size)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at another size (height, width), by nearest neighbour."""
    resized = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(bool)


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder, by name; none when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and everything below it, in a stable order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """The files by their names without suffix. Raises ValueError when two share one: the dataset is there twice."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem]} have one name: keep one copy of the dataset")
        found[path.stem] = path
    return found


def unexpected(folder: Path, dataset: str, expected: str, missing: str) -> ValueError:
    """The error for a folder that does not hold the dataset that it should."""
    return ValueError(f"{folder}: not {dataset}, of which is expected: {expected}; missing: {missing}")
