"""Photos with a COCO annotation file: its instances become label maps.

The format is that of https://cocodataset.org/#format-data: `images`, `categories` and `annotations`, whose segmentation
is a list of polygons or a run-length code, plain or compressed.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import CLASS_NAMES
from mag_train.data.photos import UNLABELLED, Labelled, read_picture

CATEGORIES = {name: number for number, name in enumerate(CLASS_NAMES, 1)} | {"train": UNLABELLED}
"""From a category's name to a label; any other is 0. COCO's trains include trams, so of those it is not known."""

FINE = 4
"""Times by which a polygon is drawn finer than its picture: OpenCV paints every pixel that an outline touches."""


@dataclass(frozen=True)
class Instance:
    """An object as it stands in the file: decoded when its photo is read, so hundreds of thousands stay small."""

    annotation: int
    """Its id."""
    label: int
    segmentation: str
    """JSON."""

    def region(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Where it is in a picture of this size (height, width). Raises ValueError when that cannot be made out."""
        try:
            segmentation = json.loads(self.segmentation)
            if isinstance(segmentation, dict):
                counts = segmentation["counts"]
                counts = counts if isinstance(counts, list) else decompress(counts)
                return run_lengths(counts, tuple(segmentation["size"]), size)
            return polygons(segmentation, size)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"annotation {self.annotation} is no polygon and no run-length code ({error})") from None


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo on disk and the objects that an annotation file names in it."""

    image: Path
    size: tuple[int, int]
    """Height and width of the picture that was annotated."""
    instances: tuple[Instance, ...]

    def read(self) -> Labelled:
        """The picture and its labels: smaller objects lie over larger ones, and all over what is unlabelled.

        Raises PictureError, OSError, or ValueError when the picture is not of the annotated size or a code is wrong.
        """
        image = read_picture(self.image)
        if image.shape[:2] != self.size:
            shapes = f"{image.shape[1]} x {image.shape[0]}, but annotated as {self.size[1]} x {self.size[0]}"
            raise ValueError(f"{self.image}: {shapes}")
        try:
            regions = [(each.label, each.region(self.size)) for each in self.instances]
        except ValueError as error:
            raise ValueError(f"{self.image}: its {error}") from None
        regions.sort(key=lambda each: (each[0] != UNLABELLED, -int(each[1].sum())))
        labels = np.zeros(self.size, np.uint8)
        for label, region in regions:
            labels[region] = label
        return image, labels


def annotated_photos(folder: Path, annotations: Path) -> tuple[list[AnnotatedPhoto], int]:
    """The photos of an annotation file that are in `folder`, in its order, and how many of its photos are not there.

    A category that has the name of a class is that class, COCO's train is unlabelled, and so is a crowd, whose outline
    is coarse; whatever else is 0.

    Raises ValueError when the file is no COCO annotation, none of its categories is a class, or no photo is there.
    """
    try:
        tree = json.loads(annotations.read_text(encoding="utf-8-sig"))
        labels = {each["id"]: CATEGORIES.get(each["name"].lower(), 0) for each in tree["categories"]}
        instances = _by_image(tree["annotations"], labels)
        photos = [
            AnnotatedPhoto(folder / each["file_name"], (each["height"], each["width"]), tuple(instances[each["id"]]))
            for each in tree["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{annotations}: not COCO annotations of instances: {reason}") from None
    if not any(labels.values()):
        names = ", ".join(CLASS_NAMES)
        raise ValueError(f"{annotations}: none of its categories is a class ({names})")
    there = [photo for photo in photos if photo.image.is_file()]
    if not there:
        raise ValueError(f"{folder}: holds none of the {len(photos)} photos of {annotations}")
    return there, len(photos) - len(there)


def _by_image(annotations: list[dict[str, Any]], labels: dict[int, int]) -> dict[int, list[Instance]]:
    """The instances of known categories by image."""
    found: dict[int, list[Instance]] = defaultdict(list)
    for each in annotations:
        if label := labels.get(each["category_id"], 0):
            label = UNLABELLED if each.get("iscrowd") else label
            found[each["image_id"]].append(Instance(each["id"], label, json.dumps(each.get("segmentation"))))
    return found


def polygons(outlines: list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask, H x W, of the pixels of which about half or more lies inside any of some polygons x, y, x, y..."""
    region = np.zeros(size, bool)
    for outline in outlines:
        points = np.array(outline, np.float64).reshape(-1, 2).clip(0, size[::-1])
        left, top = np.floor(points.min(axis=0)).astype(int)
        width, height = np.ceil(points.max(axis=0)).astype(int) - (left, top)
        if width and height:
            fine = np.zeros((height * FINE, width * FINE), np.uint8)
            # COCO counts from a pixel's corner, OpenCV from its centre.
            cv2.fillPoly(fine, [np.round((points - (left, top)) * FINE - 0.5).astype(np.int32)], 255)
            inside = cv2.resize(fine, (int(width), int(height)), interpolation=cv2.INTER_AREA) > 127
            region[top : top + height, left : left + width] |= inside
    return region


def run_lengths(counts: list[int], coded: tuple[int, ...], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask, H x W, that a run-length code stands for: column by column, and first what is not in it.

    Raises ValueError when the code is of a mask of another size.
    """
    if coded != size or sum(counts) != size[0] * size[1] or min(counts) < 0:
        raise ValueError(f"{sum(counts)} pixels of {coded}, the picture has {size}")
    mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return mask.reshape(size[1], size[0]).T


def decompress(code: str) -> list[int]:
    """The counts of a compressed run-length code, as `rleFrString` of pycocotools reads it.

    Each character carries five bits, the lowest first, and in a sixth whether the number goes on; from the fourth
    number on, what is written is the difference to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for character in code.encode("ascii"):
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:  # the number's sign
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("a compressed run-length code ends in the middle of a number")
    return counts
