"""From a folder to what a run sees: the stream that it trains on and the one that it is validated on."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from mag_train.config import DataConfig
from mag_train.data.photos import NoPhotosError, Photo, labelled_photos, photos_below
from mag_train.data.ready_made import LAYOUTS, ReadyMade, ReadyMadeStream, ready_made
from mag_train.data.stream import SpliceStream, Stream

HELD_OUT = 25
"""One photo in this many is kept from training and makes the validation pictures."""

T = TypeVar("T")


class HeldOutGoneError(ValueError):
    """None of the pictures that a run has held out is where it was; the message says where."""


def open_stream(
    folder: Path, config: DataConfig, seed: int, held_out: Collection[str] = ()
) -> tuple[Stream[Any], Stream[Any]]:
    """The streams to train on and to validate on, which makes its batches in the training process.

    Photos (`manifest.tsv`, or `images/` and `labels/`) are spliced on the fly; a folder in FantasticReality's layout
    (`ColorFakeImages/` ...) or of pictures with masks (`images/`, `masks/`, `authentic/`) is taken as it is.

    `held_out`: what a run has held out so far (`held_out_of`), so that pictures lost or added change no side; new ones
    are trained on.

    Raises ValueError when the folder holds none of these, or too little to hold something out, and HeldOutGoneError.
    """
    # Another seed than training's: held-out photos, and pastes that training never draws.
    unseen = config.model_copy(update={"workers": 0})
    pictures = ready_made(folder)
    if pictures is not None:
        held_out_pictures, training = split_by_host(*pictures, folder, held_out)
        return ReadyMadeStream(*training, config, seed), ReadyMadeStream(*held_out_pictures, unseen, seed + 1)
    try:
        photos = labelled_photos(folder)
    except ValueError as error:
        raise ValueError(f"{error} (nor {' nor '.join(f'{name}/' for name in LAYOUTS)})") from None
    held_out_photos, training_photos = split_photos(photos, folder, held_out)
    return SpliceStream(training_photos, config, seed), SpliceStream(held_out_photos, unseen, seed + 1)


def authentic_photos(folder: Path, held_out: Collection[str] | None = None) -> list[Photo]:
    """The authentic photos in a folder that are to be measured on, however they lie there.

    Those of role `calibration` in its manifest; without any, all authentic ones of a layout that `open_stream` takes;
    in a folder that is nothing but photos, all of those. `held_out`: the folder was trained on, and of such a layout
    only what was held out counts (`held_out_of`; chosen anew when that is empty).

    Raises ValueError or SourceError when there are none.
    """
    with suppress(NoPhotosError):
        return labelled_photos(folder, role="calibration")
    pictures = ready_made(folder)
    if pictures is not None:
        _, authentic = pictures if held_out is None else split_by_host(*pictures, folder, held_out)[0]
        return [Photo(real.image, real.labels) for real in authentic]
    if held_out is None and not any((folder / name).exists() for name in ("manifest.tsv", "images")):
        return photos_below(folder)
    photos = labelled_photos(folder)
    return photos if held_out is None else split_photos(photos, folder, held_out)[0]


def held_out_of(folder: Path, training: Stream[Any], validation: Stream[Any]) -> list[str]:
    """What is validated on and not trained on, as paths in the folder."""
    trained_on, validated_on = (
        {each.image for each in (*stream.hosts, *stream.authentic)} for stream in (training, validation)
    )
    return sorted(name_in(folder, image) for image in validated_on - trained_on)


def name_in(folder: Path, image: Path) -> str:
    """What a picture is called in checkpoints: its path in the folder."""
    return (image.relative_to(folder) if image.is_relative_to(folder) else image).as_posix()


def split_photos(
    photos: Sequence[Photo], folder: Path, held_out: Collection[str] = ()
) -> tuple[list[Photo], list[Photo]]:
    """Held-out and training photos: the former are those `held_out` by name, or chosen anew when no names are given.

    Raises ValueError when nothing is left to train on, HeldOutGoneError when none of the names is there.
    """
    if not held_out:
        return split(photos)
    names = {*held_out}
    kept, training = (
        [each for each in photos if (name_in(folder, each.image) in names) is is_in] for is_in in (True, False)
    )
    if not kept:
        raise HeldOutGoneError(f"{folder}: none of the photos that the run has held out is there")
    if not training:
        raise ValueError(f"{folder}: there are only the photos that the run has held out, and none to train on")
    return kept, training


def split(photos: Sequence[T]) -> tuple[list[T], list[T]]:
    """Held-out and training photos; the same split every time for the same list. Raises ValueError for one photo."""
    held_out = list(photos[::HELD_OUT])
    training = [photo for index, photo in enumerate(photos) if index % HELD_OUT]
    if not training:
        raise ValueError("one photo is not enough: at least one must be held out of training")
    return held_out, training


Pictures = tuple[list[ReadyMade], list[ReadyMade]]
"""Spliced and authentic pictures."""


def split_by_host(
    spliced: list[ReadyMade], authentic: list[ReadyMade], folder: Path, held_out: Collection[str] = ()
) -> tuple[Pictures, Pictures]:
    """Held-out and training pictures: no picture of either is of a host of the other, as far as their names tell.

    Authentic pictures that are no splice's host are split by themselves; a side that is left without any takes all.
    The held-out hosts are those of the pictures `held_out` by name, or chosen anew when no names are given.

    Raises ValueError when nothing is left on either side, HeldOutGoneError when no spliced one of the names is there.
    """
    if held_out:
        names = {*held_out}
        hosts = {each.host for each in (*spliced, *authentic) if name_in(folder, each.image) in names}
        if hosts.isdisjoint(each.host for each in spliced):
            raise HeldOutGoneError(f"{folder}: none of the splices that the run has held out is there")
        if hosts.issuperset(each.host for each in spliced):
            raise ValueError(f"{folder}: there are only the splices that the run has held out, and none to train on")
    else:
        chosen = split(sorted({each.host for each in spliced}))
        others = sorted({each.host for each in authentic}.difference(*chosen))
        hosts = {*chosen[0], *others[::HELD_OUT]}

    def part(is_held_out: bool) -> Pictures:
        of_spliced, of_authentic = (
            [each for each in kind if (each.host in hosts) is is_held_out] for kind in (spliced, authentic)
        )
        return of_spliced, of_authentic or authentic

    return part(True), part(False)
