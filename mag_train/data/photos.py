"""Where training photos come from: pictures with a class-label map beside them."""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import CLASS_NAMES
from mag_rt.errors import PictureError
from mag_rt.pictures import SUFFIXES, decode

UNLABELLED = 255
"""Label of a pixel whose class nobody knows: it counts in no class term."""


@dataclass(frozen=True)
class Photo:
    """An authentic photo on disk and, when it has one, its label map."""

    image: Path
    labels: Path | None

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The picture, H x W x 3 BGR, and its labels, H x W: 0 other, 1... the classes, 255 unlabelled.

        Raises `PictureError` (unreadable) or ValueError (labels of another size or with unknown ids), naming the file.
        """
        try:
            image = decode(self.image.read_bytes())
        except PictureError as error:
            raise PictureError(error.kind, f"{self.image}: {error}") from None
        if self.labels is None:
            return image, np.full(image.shape[:2], UNLABELLED, np.uint8)
        labels = cv2.imdecode(np.fromfile(self.labels, np.uint8), cv2.IMREAD_GRAYSCALE)
        if labels is None or labels.shape != image.shape[:2]:
            raise ValueError(f"{self.labels}: not a label map of the size of {self.image.name}")
        unknown = labels[(labels > len(CLASS_NAMES)) & (labels != UNLABELLED)]
        if unknown.size:
            raise ValueError(f"{self.labels}: class {unknown[0]} is neither 0 to {len(CLASS_NAMES)} nor {UNLABELLED}")
        return image, labels


def labelled_photos(root: Path, role: str = "training") -> list[Photo]:
    """The photos under `root`, in a stable order.

    Either `root/manifest.tsv` lists them (columns image, label, role: only rows of `role` are taken), or they lie in
    `root/images` with label maps of the same stem in `root/labels` (PNG); a photo without a map is unlabelled.

    Raises ValueError when neither is there or no photo is found.
    """
    manifest = root / "manifest.tsv"
    if manifest.is_file():
        with manifest.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = {"role", "image", "label"}.difference(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{manifest}: lacks the column {', '.join(sorted(missing))}")
            rows = [row for row in reader if row["role"] == role]
        photos = [Photo(root / row["image"], root / row["label"] if row["label"] else None) for row in rows]
    elif (root / "images").is_dir():
        images = sorted(path for path in (root / "images").iterdir() if path.suffix.lower() in SUFFIXES)
        maps = [root / "labels" / f"{path.stem}.png" for path in images]
        photos = [
            Photo(image, labels if labels.is_file() else None) for image, labels in zip(images, maps, strict=True)
        ]
    else:
        raise ValueError(f"{root}: holds neither manifest.tsv nor a folder images/")
    if not photos:
        raise ValueError(f"{root}: no photos of role {role!r}")
    return photos
