"""Training on splices that lie on disk already: FantasticReality, a synthesized dataset, or your own pictures.

Spliced pictures with masks and authentic pictures, with class maps where there are any. The splice edge is always made
from the mask (`mag_train.data.targets`): edge maps on disk are not read, so that every dataset has edges of one width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mag_train.data.photos import Reader, read_labels, read_picture, unlabelled
from mag_train.data.stream import Stream, reflected
from mag_train.data.synthesis import LARGEST_SPLICE, Picture, Window, window
from mag_train.data.tampered import Tampered, fantastic_reality, pair
from mag_train.data.tampered.picture import mask_pixels
from mag_train.data.writing import read_manifest

LAYOUTS = {"ColorFakeImages": fantastic_reality.read, "masks": pair.read}
"""The folder that gives a layout away, and who reads it."""
CLASS_MAPS = ("SegmentationFakeClass", "SegmentationRealClass")
HOST_NAME = 12
"""Where the name of the host begins in the name of a spliced picture, as in the authors' code (`fname[12:]`)."""
WINDOWS = 8
"""Windows that are tried for one in which the splice is the smaller part."""


@dataclass(frozen=True)
class ReadyMade:
    """A picture on disk, its mask unless it is authentic, and its class map when it has one."""

    tampered: Tampered
    labels: Path | None
    host: str
    """What it was made of, as far as its name tells: held-out pictures have other hosts than those trained on."""

    @property
    def image(self) -> Path:
        return self.tampered.image

    def read(self) -> Picture:
        """The picture whole. Without a class map its labels are unlabelled.

        Raises PictureError, OSError, or ValueError when mask or class map are missing, unreadable or of another size.
        """
        image = read_picture(self.image)
        size: tuple[int, ...] = image.shape[:2]
        mask = np.zeros(size, np.uint8)
        if self.tampered.mask is not None:
            mask = self.tampered.rule(mask_pixels(self.tampered.mask)).astype(np.uint8)
            if mask.shape != size:
                shapes = f"{mask.shape[1]} x {mask.shape[0]}, but the picture is {size[1]} x {size[0]}"
                raise ValueError(f"{self.tampered.mask}: {shapes}")
            if not mask.any():
                raise ValueError(f"{self.tampered.mask}: marks no region")
        labels = read_labels(self.labels, self.image.name, size) if self.labels else unlabelled(image)
        return Picture(image, mask, labels)


class ReadyMadeStream(Stream[Picture]):
    """Windows of ready-made pictures: nothing is resized, and whatever history they have is theirs.

    A window of `crop` pixels, or a few less, is cut at random, half of them on the grid of the picture's JPEG, and
    mirrored half of the time, as in the authors' training; a smaller picture is reflected outwards first. The window of
    a spliced picture shows part of its splice and, if one of `WINDOWS` draws finds such a place, as much again that is
    authentic.
    """

    def spliced_picture(self, number: int, reader: Reader[Picture], rng: np.random.Generator) -> Picture:
        picture, size = reflected(reader.read(self._host(number)), self.config.crop), self.size(rng)
        marked, mirrored = np.flatnonzero(picture.mask), rng.random() < 0.5
        for _ in range(WINDOWS):
            pixel = np.unravel_index(marked[rng.integers(len(marked))], picture.mask.shape)
            starts = [range(max(0, int(at) - side + 1), int(at) + 1) for at, side in zip(pixel, size, strict=True)]
            where = window(picture.mask.shape, size, starts, mirrored, rng)
            if picture.mask[where].mean() <= LARGEST_SPLICE:
                break
        return _cut(picture, where, mirrored)

    def authentic_picture(self, number: int, reader: Reader[Picture], rng: np.random.Generator) -> Picture:
        picture, size = reflected(reader.draw(rng), self.config.crop), self.size(rng)
        starts, mirrored = [range(full) for full in picture.mask.shape], rng.random() < 0.5
        return _cut(picture, window(picture.mask.shape, size, starts, mirrored, rng), mirrored)


def ready_made(folder: Path) -> tuple[list[ReadyMade], list[ReadyMade]] | None:
    """The spliced and the authentic pictures in `folder`, or None when it holds no layout of `LAYOUTS`.

    Raises ValueError when either kind is missing.
    """
    reads = [read for name, read in LAYOUTS.items() if (folder / name).is_dir()]
    if not reads:
        return None
    pictures = reads[0](folder)
    fakes, reals = ([each for each in pictures if (each.mask is None) is real] for real in (False, True))
    if not reals:
        missing = "ColorRealImages/" if reads[0] is fantastic_reality.read else "authentic/"
        raise ValueError(f"{folder}: training needs authentic pictures too; there are none in {missing}")
    maps = [_class_maps(folder / name) for name in CLASS_MAPS]
    hosts = _hosts(folder, fakes, reals)
    spliced, authentic = (
        [ReadyMade(each, labels.get(each.image.stem), hosts[each.image.name]) for each in kind]
        for kind, labels in zip((fakes, reals), maps, strict=True)
    )
    return spliced, authentic


def _class_maps(folder: Path) -> dict[str, Path]:
    return {path.stem: path for suffix in ("png", "npz") for path in sorted(folder.glob(f"*.{suffix}"))}


def _hosts(folder: Path, fakes: Sequence[Tampered], reals: Sequence[Tampered]) -> dict[str, str]:
    """The host of each picture by name: from a synthesized dataset's manifest, or from FantasticReality's names."""
    hosts = {real.image.name: real.image.stem for real in reals}
    stems = {real.image.stem for real in reals}
    for fake in fakes:
        host = fake.image.stem[HOST_NAME:]
        hosts[fake.image.name] = host if host in stems else fake.image.stem
    for row in read_manifest(folder):
        hosts |= {Path(row[kind]).name: row["host"] for kind in ("spliced", "authentic")}
    return hosts


def _cut(picture: Picture, where: Window, mirrored: bool) -> Picture:
    step = -1 if mirrored else 1
    image, mask, labels = (each[where][:, ::step] for each in (picture.image, picture.mask, picture.labels))
    return Picture(image, mask, labels)
