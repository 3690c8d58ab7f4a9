"""magtrain synthesize: from the command line to a spliced dataset on disk."""

import os
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # at run time only inside the functions: magtrain --help must not wait for OpenCV
    from mag_train.data.writing import Made

progress_console = Console(stderr=True, emoji=False)

NAMED = 10
"""Photos that cannot be read are named up to this many, then counted."""


class PictureFormat(str, Enum):
    """What `--pictures` takes."""

    jpg = "jpg"
    png = "png"


class MaskFormat(str, Enum):
    """What `--masks` takes."""

    npz = "npz"
    png = "png"


Photos = Annotated[
    Path,
    typer.Argument(
        metavar="PHOTOS",
        help="A folder with manifest.tsv (columns image, label, role: the rows of role training are taken) or with "
        "images/ and labels/ (grey PNGs of the same names: 1 person, 2 car, 3 truck, 4 van, 5 bus, 6 building, "
        "7 cat, 8 dog, 9 tram, 10 boat, 0 other, 255 unlabelled); with --annotations, the folder of the pictures.",
    ),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the dataset: new, or one to go on with.")]
Annotations = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE",
        help="Take the photos and their objects from a COCO annotation file (instances_*.json). Categories named "
        "as a class become that class; COCO's train, which includes trams, and crowds are unlabelled; others 0.",
    ),
]
Count = Annotated[
    int | None,
    typer.Option("--count", min=1, help="Spliced pictures in all; as many authentic ones. [one for each photo]"),
]
Side = Annotated[
    int | None, typer.Option("--size", min=64, help="Crop square pictures of this side, pixels. [the photos' own size]")
]
Pictures = Annotated[PictureFormat, typer.Option("--pictures", help="Format of the pictures.")]
Quality = Annotated[
    int | None, typer.Option("--quality", min=1, max=100, help="JPEG quality. [drawn from 50 to 100 for each picture]")
]
Masks = Annotated[
    MaskFormat, typer.Option("--masks", help="Format of masks and maps: npz, as published, or png, to look at.")
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, help="The same seed and photos give the same files, byte for byte.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes; the files do not depend on it. [one for each processor]"),
]


def synthesize(
    photos: Photos,
    out: Out,
    annotations: Annotations = None,
    count: Count = None,
    size: Side = None,
    pictures: Pictures = PictureFormat.jpg,
    quality: Quality = None,
    masks: Masks = MaskFormat.npz,
    seed: Seed = 1,
    workers: Workers = None,
) -> None:
    """Paste objects of photos onto each other and write a spliced dataset in FantasticReality's layout.

    Each spliced picture in ColorFakeImages/ comes with its host as it was before (ColorRealImages/), the mask of what
    was pasted (SegmentationFake/), the mask's edge (SegmentationFakeEdge/) and class maps of both
    (SegmentationFakeClass/, SegmentationRealClass/). manifest.jsonl says of each what was pasted where, and from which
    photo. Train on it with magtrain fit --data OUT; measure with magtrain evaluate --dataset fantastic-reality:OUT.

    Interrupted, even killed, the same command goes on where it stopped; a larger --count adds to what is there. A photo
    that cannot be read, or whose labels do not fit, gives way to another, is named and counted.
    """
    from mag_rt.pictures import silence_decoders
    from mag_train.data.writing import Recipe, UnfinishedError, begin, missing, write
    from mag_train.stopping import stop_request

    if quality is not None and pictures is PictureFormat.png:
        raise ValueError("--quality is for JPEG: leave it out, or leave out --pictures png")
    silence_decoders()  # what cannot be read is named here
    found = _photos(photos, annotations)
    recipe = Recipe(seed, size, pictures.value, quality, masks.value)
    there = begin(out, recipe, found, photos)
    total = max(count or len(found), len(there))
    todo = missing(out, recipe, there, total)
    processes = min(workers or os.cpu_count() or 1, max(len(todo), 1))
    made, unreadable = total - len(todo), set[str]()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=progress_console, disable=not progress_console.is_terminal)
    try:
        # Closed here and not by an exception: one that breaks into the pool of processes can leave it waiting forever.
        with (
            stop_request() as stop,
            shown,
            closing(write(found, photos, recipe, out, todo, processes)) as pictures_made,
        ):
            task = shown.add_task("pasting", total=total, completed=made)
            for picture in pictures_made:
                made += 1
                _name_unreadable(picture, unreadable)
                shown.advance(task)
                if stop.requested:
                    break
    except UnfinishedError as error:
        raise UnfinishedError(f"{error}; {made} of {total} pictures are made, the same command goes on") from None
    if made < total:
        _say(f"Stopped with {made} of {total} pictures made; the same command goes on.")
        raise typer.Exit(130)
    typer.echo(f"{out}: {total} spliced and {total} authentic pictures, {len(todo)} of each made now")
    if unreadable:
        typer.echo(f"{len(unreadable)} of {len(found)} photos could not be used and gave way to others")


def _photos(folder: Path, annotations: Path | None) -> list[Any]:
    from mag_train.data.coco import annotated_photos
    from mag_train.data.photos import labelled_photos

    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if annotations is None:
        return labelled_photos(folder)
    photos, absent = annotated_photos(folder, annotations)
    if absent:
        _say(f"{absent} photos of {annotations} are not in {folder}; there are {len(photos)}")
    return photos


def _name_unreadable(made: "Made", known: set[str]) -> None:
    for path in made.unreadable.keys() - known:
        known.add(path)
        if len(known) <= NAMED:
            _say(f"skipped {made.unreadable[path]}")
        if len(known) == NAMED:
            _say("further ones are counted only")


def _say(text: str) -> None:
    progress_console.print(text, markup=False, highlight=False, soft_wrap=True)
