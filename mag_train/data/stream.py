"""The endless stream of training batches: which pictures an iteration sees depends on the seed and its number alone."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mag_rt.errors import PictureError
from mag_train.config import DataConfig
from mag_train.data.photos import Photo
from mag_train.data.synthesis import Image, Picture, authentic, spliced


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


class SpliceStream(Dataset[tuple[RawPictures, RawPictures]]):
    """Item i is the batch of iteration i: spliced pictures A and authentic pictures B.

    Picture number n draws from a generator seeded with (seed, n) and takes its host from a permutation of the photos
    that changes with every epoch, so a resumed run sees exactly what an undisturbed one would have seen.
    """

    def __init__(self, photos: list[Photo], config: DataConfig, seed: int) -> None:
        self.photos = photos
        self.config = config
        self.seed = seed

    @property
    def iterations_per_epoch(self) -> int:
        """An epoch has shown every photo once as the host of a spliced picture."""
        return -(-len(self.photos) // self.config.spliced)

    def __getitem__(self, iteration: int) -> tuple[RawPictures, RawPictures]:
        config, size = self.config, (self.config.crop, self.config.crop)
        reader = _Reader(self.photos)
        a = []
        for number in range(iteration * config.spliced, (iteration + 1) * config.spliced):
            rng = np.random.default_rng([self.seed, 0, number])
            a.append(spliced(*reader.read(self._host(number)), reader.draw, size, rng))
        spliced_batch = reader.batch(a)
        reader = _Reader(self.photos)
        b = []
        for number in range(iteration * config.authentic, (iteration + 1) * config.authentic):
            rng = np.random.default_rng([self.seed, 1, number])
            b.append(authentic(*reader.draw(rng), size, rng))
        return spliced_batch, reader.batch(b)

    def _host(self, number: int) -> int:
        """Which photo is the host of spliced picture `number`."""
        epoch, position = divmod(number, len(self.photos))
        return int(_permutation(len(self.photos), self.seed, epoch)[position])


class _Reader:
    """Reads the photos of one batch and keeps account of them; one that cannot be read gives way to the next."""

    def __init__(self, photos: list[Photo]) -> None:
        self.photos = photos
        self.sources: list[str] = []
        self.unreadable: dict[str, str] = {}

    def read(self, index: int) -> tuple[Image, Image]:
        for offset in range(len(self.photos)):
            photo = self.photos[(index + offset) % len(self.photos)]
            try:
                image, labels = photo.read()
            except (PictureError, ValueError, OSError) as error:
                self.unreadable[str(photo.image)] = str(error)
            else:
                self.sources.append(str(photo.image))
                return image, labels
        raise RuntimeError("none of the photos can be read: " + "; ".join(self.unreadable.values()))

    def draw(self, rng: np.random.Generator) -> tuple[Image, Image]:
        return self.read(int(rng.integers(len(self.photos))))

    def batch(self, pictures: list[Picture]) -> RawPictures:
        return RawPictures(
            torch.from_numpy(np.stack([picture.image[..., ::-1] for picture in pictures])),
            torch.from_numpy(np.stack([picture.mask for picture in pictures])),
            torch.from_numpy(np.stack([picture.labels for picture in pictures])),
            self.sources,
            self.unreadable,
        )


@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 2, epoch]).permutation(length)


def batches(stream: SpliceStream, start: int, stop: int) -> Iterator[tuple[RawPictures, RawPictures]]:
    """The batches of iterations start to stop - 1, in order, made ahead by `config.workers` processes."""
    workers = stream.config.workers
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=range(start, stop),
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
