"""From a folder to what a run sees: the stream that it trains on and the one that it is validated on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from mag_train.config import DataConfig
from mag_train.data.photos import labelled_photos
from mag_train.data.ready_made import LAYOUTS, ReadyMade, ReadyMadeStream, ready_made
from mag_train.data.stream import SpliceStream, Stream

HELD_OUT = 25
"""One photo in this many is kept from training and makes the validation pictures."""

T = TypeVar("T")


def open_stream(folder: Path, config: DataConfig, seed: int) -> tuple[Stream[Any], Stream[Any]]:
    """The streams to train on and to validate on, which makes its batches in the training process.

    Photos (`manifest.tsv`, or `images/` and `labels/`) are spliced on the fly; a folder in FantasticReality's layout
    (`ColorFakeImages/` ...) or of pictures with masks (`images/`, `masks/`, `authentic/`) is taken as it is.

    Raises ValueError when the folder holds none of these, or too little to hold something out.
    """
    # Another seed than training's: held-out photos, and pastes that training never draws.
    validation = config.model_copy(update={"workers": 0}), seed + 1
    pictures = ready_made(folder)
    if pictures is not None:
        held_out, training = split_by_host(*pictures)
        return ReadyMadeStream(*training, config, seed), ReadyMadeStream(*held_out, *validation)
    try:
        photos = labelled_photos(folder)
    except ValueError as error:
        raise ValueError(f"{error} (nor {' nor '.join(f'{name}/' for name in LAYOUTS)})") from None
    held_out_photos, training_photos = split(photos)
    return SpliceStream(training_photos, config, seed), SpliceStream(held_out_photos, *validation)


def split(photos: Sequence[T]) -> tuple[list[T], list[T]]:
    """Held-out and training photos; the same split every time for the same list. Raises ValueError for one photo."""
    held_out = list(photos[::HELD_OUT])
    training = [photo for index, photo in enumerate(photos) if index % HELD_OUT]
    if not training:
        raise ValueError("one photo is not enough: at least one must be held out of training")
    return held_out, training


Pictures = tuple[list[ReadyMade], list[ReadyMade]]
"""Spliced and authentic pictures."""


def split_by_host(spliced: list[ReadyMade], authentic: list[ReadyMade]) -> tuple[Pictures, Pictures]:
    """Held-out and training pictures: no picture of either is of a host of the other, as far as their names tell.

    Authentic pictures that are no splice's host are split by themselves; a side that is left without any takes all.
    """
    hosts = split(sorted({each.host for each in spliced}))
    others = sorted({each.host for each in authentic}.difference(*hosts))
    held_out = {*hosts[0], *others[::HELD_OUT]}

    def part(is_held_out: bool) -> Pictures:
        of_spliced, of_authentic = (
            [each for each in kind if (each.host in held_out) is is_held_out] for kind in (spliced, authentic)
        )
        return of_spliced, of_authentic or authentic

    return part(True), part(False)
