"""Panels: what the networks make of a few fixed pictures, drawn at the end of an epoch and kept in the run's folder."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mag_rt.bundle import CLASS_NAMES
from mag_train.contact_sheet import GAP, Picture, grid, legend, paste, place, resized, shape
from mag_train.data.stream import RawPictures, Stream
from mag_train.data.targets import pictures

PICTURES = 3
"""Rows of a panel."""
CANDIDATES = 12
"""Pictures among which they are found."""
VISIBLE = 0.02
"""Share of the picture that a splice to look at covers at least."""
COLUMNS = (
    "A", "B^", "attention", "C': mask", "C': classes",
    "C^ on A: mask", "C^ on A: edge", "C^ on A: classes", "C^ on B^: mask", "C^ on B^: classes",
)  # fmt: skip
"""Columns of a panel; C' is what the annotator is to answer. Maps and attention are black where 0, white where 1."""
SIDE = 256
"""Largest side of a tile, pixels: larger pictures are shrunk to it, smaller ones enlarged as often as they fit."""
MOST_KEPT = 16
"""Panels that stay in the folder of a run, however long it is, besides its first and its last."""

FOOT = 60
"""Height of the legend, pixels."""
NOTHING = (228, 236, 246)
"""Fills the tile of what does not exist: the attention of a retoucher that has not joined, a channel not trained."""
UNLABELLED = (240, 226, 180)
CLASS_COLOURS = (
    (214, 39, 40), (31, 119, 180), (140, 86, 75), (148, 103, 189), (255, 127, 14),
    (120, 120, 120), (227, 119, 194), (188, 189, 34), (44, 160, 44), (23, 190, 207),
)  # fmt: skip
COLOURS = dict(zip(CLASS_NAMES, CLASS_COLOURS, strict=True)) | {"unlabelled": UNLABELLED, "no output": NOTHING}
"""The legend: classes are drawn in these colours on white."""


def fixed_pictures(stream: Stream[Any]) -> list[RawPictures]:
    """Spliced pictures from the beginning of a stream, each a batch of one; the same every time.

    They are its first, except that a splice too small to see gives way to one that is not.
    """
    found: list[RawPictures] = []
    for index in range(CANDIDATES):
        batch, _ = stream[index]
        parts = zip(*(torch.split(part, 1) for part in (batch.image, batch.mask, batch.labels)), strict=True)
        found += [RawPictures(*part) for part in parts]
        if len(found) >= CANDIDATES:
            break
    found.sort(key=lambda raw: bool(raw.mask.float().mean() < VISIBLE))
    return found[:PICTURES]


def add(
    run: Path, epoch: int, shown: Sequence[RawPictures], annotator: nn.Module, retoucher: nn.Module | None
) -> Picture | None:
    """Draw and keep the panel of an epoch (counted from 1) as `RUN/panels/epoch_0007.png`; thin out the older ones.

    `retoucher` is None while none has joined. Gives the panel if it is one that stays, of which there are few enough
    for TensorBoard's files too, and None if the next one takes its place.
    """
    panel = draw(shown, annotator, retoucher)
    folder = run / "panels"
    folder.mkdir(exist_ok=True)
    partial = folder / "panel.partial"
    Image.fromarray(panel).save(partial, "PNG")
    os.replace(partial, _file(run, epoch))
    step = _step(epoch)
    for other in epochs(run):
        if other not in (1, epoch) and other % step:
            _file(run, other).unlink(missing_ok=True)
    return panel if epoch == 1 or epoch % step == 0 else None


def forget(run: Path, after: int) -> None:
    """Remove the panels of epochs past the one at which a run goes on."""
    for epoch in epochs(run):
        if epoch > after:
            _file(run, epoch).unlink()


def epochs(run: Path) -> list[int]:
    """The epochs of which a run's folder holds panels, in order."""
    names = (re.fullmatch(r"epoch_(\d+)\.png", path.name) for path in (run / "panels").glob("epoch_*.png"))
    return sorted(int(name[1]) for name in names if name)


def read(run: Path, epoch: int) -> Picture:
    """The panel of an epoch. Raises FileNotFoundError when there is none, ValueError when the file is no panel."""
    path = _file(run, epoch)
    try:
        with Image.open(path) as image:
            panel = np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError):  # what Pillow says of a file cut short
        panel = np.empty((0, 0, 3), np.uint8)
    if panel[FOOT:].shape != shape(PICTURES, len(COLUMNS), _side(panel)):
        raise ValueError(f"{path}: damaged, or not a panel of this version; remove it")
    return panel


def tile(panel: Picture, row: int, column: str) -> Picture:
    """The part of a panel that shows one picture in one of `COLUMNS`."""
    return panel[place(row, COLUMNS.index(column), _side(panel))]


def _side(panel: Picture) -> int:
    """Of its tiles, pixels."""
    return (panel.shape[1] - GAP) // len(COLUMNS) - GAP


def _file(run: Path, epoch: int) -> Path:
    return run / "panels" / f"epoch_{epoch:04d}.png"


def _step(epoch: int) -> int:
    """Panels of epochs that are multiples of this power of two stay: it doubles when there would be too many."""
    return int(2 ** max(0, math.ceil(math.log2(epoch / MOST_KEPT))))


@torch.no_grad()
def draw(shown: Sequence[RawPictures], annotator: nn.Module, retoucher: nn.Module | None) -> Picture:
    """The panel of a moment: a row for each picture, each a batch of one, a column for each of `COLUMNS`; a legend.

    Networks are shown as they are used: batch norm with what it has learnt, no dropout. Without a retoucher B^ is A.
    """
    device = next(annotator.parameters()).device
    rows = []
    for raw in shown:
        picture = pictures(raw, device)
        a = picture.image
        with _resting(annotator, retoucher):
            retouched = retoucher(a) if retoucher else None
            b_hat = retouched.image if retouched else a
            on_a, on_b_hat = annotator(a)[0], annotator(b_hat)[0]
        only_mask = not on_a[1:].any()  # as an annotator of a single task leaves the other channels
        blank = np.full((*a.shape[2:], 3), NOTHING, np.uint8)
        tiles = [
            _photo(a[0]),
            _photo(b_hat[0]),
            _grey(retouched.attention[0, 0]) if retouched else blank,
            _grey(picture.mask[0, 0]),
            _classes(picture.authentic_truth[0, 2:], picture.counted[0, -1]),
            _grey(on_a[0]),
            blank if only_mask else _grey(on_a[1]),
            blank if only_mask else _classes(on_a[2:]),
            _grey(on_b_hat[0]),
            blank if only_mask else _classes(on_b_hat[2:]),
        ]
        rows.append([_sized(each) for each in tiles])
    panel = grid(rows, COLUMNS)
    foot = np.full((FOOT, panel.shape[1], 3), 255, np.uint8)
    paste(foot, legend(COLOURS, FOOT), 0, 0)
    return np.concatenate([panel, foot])


@contextmanager
def _resting(*networks: nn.Module | None) -> Iterator[None]:
    """Networks in eval mode, as they were afterwards."""
    training = [network for network in networks if network and network.training]
    for network in training:
        network.eval()
    try:
        yield
    finally:
        for network in training:
            network.train()


def _photo(image: Tensor) -> Picture:
    """3 x H x W in [-1, 1]."""
    return image.add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def _grey(channel: Tensor) -> Picture:
    """H x W in [0, 1]."""
    return channel.mul(255).round().byte()[..., None].expand(-1, -1, 3).cpu().numpy()


def _classes(maps: Tensor, known: Tensor | None = None) -> Picture:
    """K x H x W in [0, 1]: the colour of the likeliest class, the paler the less likely; `known` H x W, 0 where not."""
    likelihood, best = (each.cpu().numpy() for each in maps.max(dim=0))
    colour = np.array(CLASS_COLOURS, np.float32)[best]
    drawn = 255 + (colour - 255) * likelihood[..., None]
    if known is not None:
        drawn[known.cpu().numpy() == 0] = UNLABELLED
    return drawn.round().astype(np.uint8)


def _sized(tile: Picture) -> Picture:
    side = len(tile)
    if side > SIDE:
        return resized(tile, SIDE)
    times = SIDE // side
    return tile.repeat(times, axis=0).repeat(times, axis=1)
