"""Spliced datasets made of photos and written to disk, picture by picture, in FantasticReality's layout.

Picture `number` depends on the photos, the recipe and its number alone, so several processes can share the work and an
interrupted dataset is finished with the bytes that it would have had.

The layout is that of the mirror that everyone uses, as the authors' code and others' (CAT-Net, TruFor) read it: a mask
or map is the array `arr_0`, H x W x 1, of an .npz with the picture's name, and behind the first 12 characters of a
spliced picture's name stands that of its host. Masks and edges are 0 and 255. Class ids are ours: 1 to 10 in the
order of `mag_rt.bundle.CLASS_NAMES`, 0 other, 255 unlabelled; the authors' code counts them from 0.
"""

import errno
import hashlib
import io
import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from mag_rt.bundle import CLASS_NAMES
from mag_rt.pictures import silence_decoders
from mag_rt.sinks.alone import alone
from mag_train.data.history import PUBLISHED_QUALITY, Image, jpeg, publish, wear
from mag_train.data.photos import Labelled, Readable, Reader, turn
from mag_train.data.synthesis import Picture, frame, mask_edge, paste
from mag_train.data.workers import end_with_parent

FAKE, REAL = "ColorFakeImages", "ColorRealImages"
MASK, EDGE, FAKE_CLASS, REAL_CLASS = (
    "SegmentationFake",
    "SegmentationFakeEdge",
    "SegmentationFakeClass",
    "SegmentationRealClass",
)
PREFIX = "pasted_into_"
"""Of a spliced picture's name, before that of its host: 12 characters, which the authors' code cuts off."""
MANIFEST, RECIPE = "manifest.jsonl", "recipe.json"
ATTEMPTS = 40
"""Tries at a picture until something is pasted, every four with another host."""
AHEAD = 4
"""Pictures that wait for each process."""

Row = dict[str, Any]
"""A line of the manifest: a picture, its host, and what was pasted into it from where."""
NAMES = ("spliced", "authentic", "host")
"""What every line of it names."""


@dataclass(frozen=True)
class Recipe:
    """What decides a dataset's pictures, beside its photos."""

    seed: int
    size: int | None
    """Side of square pictures, pixels; None: the photos' own size, give or take their scaling."""
    pictures: Literal["jpg", "png"]
    quality: int | None
    """Of JPEG files; None: drawn for each."""
    masks: Literal["npz", "png"]


@dataclass(frozen=True)
class Made:
    """A picture of the dataset: its line of the manifest, its files, and the photos that could not be read for it."""

    row: Row
    files: dict[str, bytes]
    unreadable: dict[str, str]


class UnfinishedError(RuntimeError):
    """A dataset that could not be finished for now; the message says why. The same call goes on."""


def make(photos: Sequence[Readable[Labelled]], root: Path, recipe: Recipe, number: int) -> Made:
    """Picture `number`: a splice, and its host as it was before. Raises RuntimeError when nothing can be pasted."""
    unreadable: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        key = [recipe.seed, number, attempt]
        rng, reader = np.random.default_rng(key), Reader(photos)
        photo = reader.read(turn(number, len(photos), recipe.seed) + attempt // 4)
        picture = frame(*photo, (recipe.size, recipe.size) if recipe.size else None, rng)
        host = Picture(picture.image.copy(), picture.mask, picture.labels.copy())
        paste(picture, reader.draw, rng)
        unreadable |= reader.unreadable
        if picture.mask.any():
            sources = [Path(each).relative_to(root).as_posix() for each in reader.sources]
            files = _files(picture, host, f"{number:07d}_{Path(sources[0]).stem[:60]}", recipe, rng)
            return Made(_row(picture, sources, key, list(files)), files, unreadable)
    raise RuntimeError(f"nothing could be pasted into {reader.sources[0]} and those before it: are the photos tiny?")


def _files(picture: Picture, host: Picture, name: str, recipe: Recipe, rng: np.random.Generator) -> dict[str, bytes]:
    """The files of a splice and its host by path, in the order of `_paths`."""
    planes = [picture.mask * np.uint8(255), mask_edge(picture.mask) * np.uint8(255), picture.labels, host.labels]
    encoded = [_png(plane) if recipe.masks == "png" else _npz(plane) for plane in planes]
    encoded += [_encode(image, recipe, rng) for image in (host.image, picture.image)]
    return dict(zip(_paths(name, recipe), encoded, strict=True))


def _paths(name: str, recipe: Recipe) -> list[str]:
    """The files of a picture whose host is `name`, the spliced picture last: where it is, the others are."""
    folders = {MASK: PREFIX, EDGE: PREFIX, FAKE_CLASS: PREFIX, REAL_CLASS: "", REAL: "", FAKE: PREFIX}
    suffixes = [recipe.masks] * 4 + [recipe.pictures] * 2
    return [f"{folder}/{prefix}{name}.{end}" for (folder, prefix), end in zip(folders.items(), suffixes, strict=True)]


def _row(picture: Picture, sources: list[str], key: list[int], paths: list[str]) -> Row:
    height, width = picture.mask.shape
    return {
        "number": key[1],
        "spliced": paths[-1],
        "authentic": paths[-2],
        "width": width,
        "height": height,
        "host": sources[0],
        "pastes": [
            {
                "bbox": each.bbox,
                "classes": [CLASS_NAMES[id - 1] for id in each.classes],
                "donor": None if each.donor is None else sources[1 + each.donor],
            }
            for each in picture.pastes
        ],
        "seed": key,
    }


def _encode(image: Image, recipe: Recipe, rng: np.random.Generator) -> bytes:
    """The file of a picture. A JPEG is the picture's last saving itself, else its history holds whatever is drawn."""
    if recipe.pictures == "png":
        return _png(publish(image, rng))
    low, high = (recipe.quality, recipe.quality) if recipe.quality else PUBLISHED_QUALITY
    return jpeg(wear(image, rng), low, high, rng)


def _png(plane: Image) -> bytes:
    return bytes(cv2.imencode(".png", plane)[1])


def _npz(plane: Image) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, plane[..., None])
    return file.getvalue()


def begin(out: Path, recipe: Recipe, photos: Sequence[Readable[Labelled]], root: Path) -> list[Row]:
    """Open the dataset in `out`, which may be new: the rows that it has already.

    Raises ValueError when `out` holds something else, or a dataset of another recipe or of other photos.
    """
    names = "\n".join(photo.image.relative_to(root).as_posix() for photo in photos).encode(errors="surrogateescape")
    wanted = asdict(recipe) | {"photos": len(photos), "sha256": hashlib.sha256(names).hexdigest()}
    path = out / RECIPE
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        for key, value in wanted.items():
            if begun.get(key) != value:
                what = "other photos" if key in ("photos", "sha256") else f"{key} {begun.get(key)}, not {value}"
                raise ValueError(f"{out} was begun with {what}: give the same to go on, or another folder")
        return read_manifest(out)
    if out.is_dir() and any(each.name != f"{RECIPE}.partial" for each in out.iterdir()):
        raise ValueError(f"{out} is not empty, and no dataset was begun in it: give another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write(path, (json.dumps(wanted, indent=2) + "\n").encode())
    return []


def missing(out: Path, recipe: Recipe, rows: Sequence[Row], count: int) -> list[int]:
    """The numbers below `count` that have no row, or of which a file is not there."""
    names = [Path(row["authentic"]).stem for row in rows[:count]]
    gone = [
        number for number, name in enumerate(names) if not all((out / path).is_file() for path in _paths(name, recipe))
    ]
    return [*gone, *range(len(rows), count)]


def read_manifest(folder: Path) -> list[Row]:
    """The rows of a dataset's manifest, if it has one, in order; a line that was cut off is none.

    Raises ValueError, naming the file, when it is a manifest of something else.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return []
    of_something_else = ValueError(f"{path}: not a manifest of a synthesized dataset")
    try:
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
    except ValueError:
        raise of_something_else from None
    if not all(isinstance(row, dict) and isinstance(row.get(key), str) for row in rows for key in NAMES):
        raise of_something_else
    return rows


def write(
    photos: Sequence[Readable[Labelled]], root: Path, recipe: Recipe, out: Path, numbers: Sequence[int], workers: int
) -> Generator[Made, None, None]:
    """Make these pictures of the dataset that `begin` has opened, and write each when it is its turn to be yielded.

    The files of a picture are written before its row, so a row stands for files that are there. Yields without files.

    Raises UnfinishedError when the disk is full or cannot be written to, or a worker dies, ResultsError when another
    process is writing there.
    """
    work = partial(_make_and_write, photos, root, recipe, out)
    path = out / MANIFEST
    try:
        with alone(out, "synthesis"), path.open("ab") as manifest:
            known = len(read_manifest(out))
            manifest.truncate(path.read_bytes().rfind(b"\n") + 1)  # a line that was cut off goes
            for folder in (FAKE, REAL, MASK, EDGE, FAKE_CLASS, REAL_CLASS):
                (out / folder).mkdir(exist_ok=True)
            for made in _in_order(work, numbers, workers):
                if made.row["number"] >= known:
                    manifest.write((json.dumps(made.row) + "\n").encode())
                    manifest.flush()
                yield made
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UnfinishedError(f"{out}: the disk is full" if full else str(error)) from None
    except BrokenProcessPool:
        raise UnfinishedError(f"{out}: a worker was killed; if for want of memory, take fewer") from None


def _make_and_write(photos: Sequence[Readable[Labelled]], root: Path, recipe: Recipe, out: Path, number: int) -> Made:
    made = make(photos, root, recipe, number)
    for name, data in made.files.items():
        _write(out / name, data)
    return Made(made.row, {}, made.unreadable)


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f"{path.name}.partial")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _in_order(work: Callable[[int], Made], numbers: Iterable[int], workers: int) -> Iterator[Made]:
    """`work` on each of `numbers`, in their order, by several processes."""
    if workers == 1:
        yield from map(work, numbers)
        return
    # Not forked: a fork of a process in which OpenCV's threads have run waits for them forever.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (work,))
    try:
        waiting: deque[Future[Made]] = deque()
        for number in numbers:
            waiting.append(pool.submit(_work, number))
            if len(waiting) == workers * AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


_job: Callable[[int], Made]
"""What this process has been started to do."""


def _start_worker(job: Callable[[int], Made]) -> None:
    global _job
    _job = job
    silence_decoders()
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group: the parent lets the pictures in hand be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _work(number: int) -> Made:
    return _job(number)
