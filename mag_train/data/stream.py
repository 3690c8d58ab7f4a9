"""The endless stream of training batches: which pictures an iteration sees depends on the seed and its number alone."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mag_train.config import DataConfig
from mag_train.data.history import Image
from mag_train.data.photos import Labelled, Readable, Reader, turn
from mag_train.data.synthesis import Picture, authentic, spliced
from mag_train.data.workers import end_with_parent

ENDS_SHORT = 0.5
"""Share of the pictures that lack rows and columns of the crop and are mirrored outwards, as the runtime pads them."""
LACKING = 32
"""They lack fewer than this many, the multiple that the sides of `edge` have."""


@dataclass
class RawPictures:
    """A batch as the workers hand it over, small enough to travel: everything uint8.

    image N x H x W x 3 RGB; mask N x H x W of 0 and 1; labels N x H x W (0 other, 1... classes, 255 unlabelled).
    `sources`: the photos that went in; `unreadable`: photos that should have and could not be read, and why.
    """

    image: Tensor
    mask: Tensor
    labels: Tensor
    sources: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


What = TypeVar("What")


class Stream(Dataset[tuple[RawPictures, RawPictures]], ABC, Generic[What]):
    """Item i is the batch of iteration i: spliced pictures A and authentic pictures B.

    Picture number n draws from a generator seeded with (seed, n), and whose turn it is comes from a permutation of the
    photos that changes with every epoch, so a resumed run sees exactly what an undisturbed one would have seen.
    """

    def __init__(
        self,
        spliced: Sequence[Readable[What]],
        authentic: Sequence[Readable[What]],
        config: DataConfig,
        seed: int,
    ) -> None:
        self.hosts, self.authentic = spliced, authentic
        self.config = config
        self.seed = seed

    @property
    def batches_per_epoch(self) -> int:
        """An epoch has shown every photo once as the host of a spliced picture."""
        return -(-len(self.hosts) // self.config.spliced)

    def __getitem__(self, iteration: int) -> tuple[RawPictures, RawPictures]:
        return (
            self._batch(0, self.hosts, self.spliced_picture, iteration, self.config.spliced),
            self._batch(1, self.authentic, self.authentic_picture, iteration, self.config.authentic),
        )

    @abstractmethod
    def spliced_picture(self, number: int, reader: Reader[What], rng: np.random.Generator) -> Picture:
        """Spliced picture `number` of the run, of at most `crop` pixels a side."""

    @abstractmethod
    def authentic_picture(self, number: int, reader: Reader[What], rng: np.random.Generator) -> Picture:
        """Authentic picture `number` of the run, of at most `crop` pixels a side."""

    def _batch(
        self,
        kind: int,
        photos: Sequence[Readable[What]],
        picture: Callable[[int, Reader[What], np.random.Generator], Picture],
        iteration: int,
        length: int,
    ) -> RawPictures:
        reader = Reader(photos)
        numbers = range(iteration * length, (iteration + 1) * length)
        drawn = (picture(number, reader, np.random.default_rng([self.seed, kind, number])) for number in numbers)
        made = [reflected(each, self.config.crop) for each in drawn]
        return RawPictures(
            torch.from_numpy(np.stack([each.image[..., ::-1] for each in made])),
            torch.from_numpy(np.stack([each.mask for each in made])),
            torch.from_numpy(np.stack([each.labels for each in made])),
            reader.sources,
            reader.unreadable,
        )

    def size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Height and width at which the next picture is made: those of the crop, or a few pixels less."""
        lacking = rng.integers(0, LACKING, 2) if rng.random() < ENDS_SHORT else (0, 0)
        height, width = (max(1, self.config.crop - int(pixels)) for pixels in lacking)
        return height, width

    def _host(self, number: int) -> int:
        """Which photo is the host of spliced picture `number`."""
        return turn(number, len(self.hosts), self.seed)


class SpliceStream(Stream[Labelled]):
    """Splices made on the fly from authentic photos; the same photos, unspliced, are the authentic pictures."""

    def __init__(self, photos: Sequence[Readable[Labelled]], config: DataConfig, seed: int) -> None:
        super().__init__(photos, photos, config, seed)

    def spliced_picture(self, number: int, reader: Reader[Labelled], rng: np.random.Generator) -> Picture:
        return spliced(*reader.read(self._host(number)), reader.draw, self.size(rng), rng)

    def authentic_picture(self, number: int, reader: Reader[Labelled], rng: np.random.Generator) -> Picture:
        return authentic(*reader.draw(rng), self.size(rng), rng)


def reflected(picture: Picture, least: int) -> Picture:
    """The picture mirrored outwards, at the right and at the bottom, until both sides are at least `least` pixels."""
    down, right = (max(0, least - side) for side in picture.mask.shape)
    if not down and not right:
        return picture

    def outwards(plane: Image) -> Image:
        return cv2.copyMakeBorder(plane, 0, down, 0, right, cv2.BORDER_REFLECT_101)

    return Picture(outwards(picture.image), outwards(picture.mask), outwards(picture.labels))


def batches(stream: Stream[Any], numbers: range) -> Iterator[tuple[RawPictures, RawPictures]]:
    """The batches of these numbers, in order, made ahead by `config.workers` processes."""
    workers = stream.config.workers
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # Not forked: a fork of a process in which OpenCV's threads have run waits for them forever.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else it draws from torch's own, and a resumed run would see other dropout
    )
    return iter(loader)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group; the training loop decides when to stop and needs its batch until then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()  # torch's own watch takes for its parent who adopts a worker whose parent died before it began
