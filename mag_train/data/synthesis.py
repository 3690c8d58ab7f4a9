"""Splices made on the fly: objects and shapes of one photo pasted onto another, as in the paper's "Rough" split.

Both sides get a history of their own (colours, scale, JPEG), the host now and then a shallow focus; the cut-out is also
turned, flipped, blurred, given noise and brought nearer to the colours around it, its edge is hard or slightly
feathered, and the whole picture may be edited, blurred, filmed and saved once more (`mag_train/data/history.py`).
Everything is drawn from the generator that is passed in: the same generator state gives the same picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_train.data.history import (
    BLOCK,
    PUBLISHED_QUALITY,
    Image,
    blurred,
    noisy,
    publish,
    random_shape,
    recoloured,
    resized,
    saved,
    sent_on,
    shallow,
)

Size = tuple[int, int]
"""Height and width, pixels."""
Window = tuple[slice, ...]
"""Rows and columns."""

SMALLEST_OBJECT = 600
"""Pixels below which a labelled part of a photo is not worth cutting out."""
LARGEST_SPLICE = 0.5
"""Share of the picture: beyond it the smaller region would be the host, and the truth would name the wrong side."""
EDGE_WIDTH = 4
"""Width in pixels of the splice edge, centred on the mask's boundary."""
RECOLOURED, SHALLOW = 0.3, 0.2
"""Shares of the photos that are given other colours, or a shallow focus, before anything is pasted.

So that neither gives a splice away: cut-outs are recoloured too, and stand out before a blurred ground.
"""
SENT_ON = 0.4
"""Share of the finished pictures that are saved a second time."""


class ReadsPhotos(Protocol):
    """Draws a random photo: picture, H x W x 3 BGR, and labels, H x W."""

    def __call__(self, rng: np.random.Generator) -> tuple[Image, Image]: ...


@dataclass(frozen=True)
class Paste:
    """What was pasted into a picture, and from where."""

    bbox: tuple[int, int, int, int]
    """Left, top, width and height of the pasted pixels in the picture."""
    classes: tuple[int, ...]
    """The known classes that it brought, the largest first."""
    donor: int | None
    """Which of the photos that `donors` gave, counted from 0; None: the picture itself."""


@dataclass
class Picture:
    """A picture, H x W x 3 BGR; where it is spliced, H x W of 0 and 1; its labels, H x W, pasted objects included."""

    image: Image
    mask: Image
    labels: Image
    pastes: list[Paste] = field(default_factory=list)


@dataclass
class Cutout:
    """What is pasted: pixels, h x w x 3; opacity in [0, 1], h x w float32; the labels it brings, h x w.

    `harmony`: how far its colours are brought towards those of what it covers, in [0, 1].
    """

    image: Image
    alpha: NDArray[np.float32]
    labels: Image
    harmony: float = 0.0


def authentic(image: Image, labels: Image, size: Size, rng: np.random.Generator) -> Picture:
    """A picture of `size`, cropped from one photo, with the same history that a spliced one would have."""
    picture = frame(image, labels, _made_at(size, image, rng), rng)
    _spread(picture, size, rng)
    return picture


def spliced(image: Image, labels: Image, donors: ReadsPhotos, size: Size, rng: np.random.Generator) -> Picture:
    """A picture of `size`, cropped from a photo, with one or two cut-outs of `donors`, or of itself, pasted in.

    Now and then a cut-out ends up outside the picture or covers too much of it: then the picture stays as it was.
    """
    picture = frame(image, labels, _made_at(size, image, rng), rng)
    paste(picture, donors, rng)
    _spread(picture, size, rng)
    return picture


def _made_at(size: Size, photo: Image, rng: np.random.Generator) -> Size:
    """The size at which a picture of `size` is put together: now and then a larger one, which is scaled down later."""
    room = min(full / side for full, side in zip(photo.shape, size, strict=False))
    factor = rng.uniform(1.0, min(2.0, room)) if rng.random() < 0.2 and room > 1 else 1.0
    return round(size[0] * factor), round(size[1] * factor)


def _spread(picture: Picture, size: Size, rng: np.random.Generator) -> None:
    """The finished picture on its way to who looks at it: saved and scaled down, published, saved once more."""
    if picture.mask.shape != size:
        if rng.random() < 0.5:
            picture.image = saved(picture.image, *PUBLISHED_QUALITY, rng)
        _scale_down(picture, size, rng)
    picture.image = publish(picture.image, rng)
    if rng.random() < SENT_ON:
        picture.image = sent_on(picture.image, rng)


def _scale_down(picture: Picture, size: Size, rng: np.random.Generator) -> None:
    down, across = (new / old for new, old in zip(size, picture.mask.shape, strict=True))
    picture.image = resized(picture.image, size[::-1], rng)
    picture.mask, picture.labels = (
        cv2.resize(each, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) for each in (picture.mask, picture.labels)
    )
    for index, paste in enumerate(picture.pastes):
        left, top, width, height = paste.bbox
        box = (round(left * across), round(top * down), round(width * across), round(height * down))
        picture.pastes[index] = replace(paste, bbox=box)


def frame(image: Image, labels: Image, size: Size | None, rng: np.random.Generator) -> Picture:
    """A photo with a history (focus, colours, scale, JPEG), cropped to `size` and mirrored half of the time.

    Without a size it is whole, but for less than `BLOCK` pixels at its border, and never mirrored.
    """
    if rng.random() < SHALLOW:
        subject = np.zeros_like(labels)
        where, subject[where] = _outline(labels, rng)
        image = shallow(image, subject, rng)
    if rng.random() < RECOLOURED:
        image = recoloured(image, rng)
    factor = rng.uniform(0.6, 1.4) if rng.random() < 0.5 else 1.0
    if size:
        factor = max(factor, *((side + BLOCK) / full for side, full in zip(size, image.shape, strict=False)))
    if factor != 1.0:
        scaled = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = resized(image, scaled, rng)
        labels = cv2.resize(labels, scaled, interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.5:
        image = saved(image, 60, 98, rng)
    full, mirrored = labels.shape, False
    if size:
        mirrored = rng.random() < 0.5
        where = window(full, size, [range(side) for side in full], mirrored, rng)
    else:
        off_grid = rng.random() < 0.5
        where = tuple(slice(int(rng.integers(min(BLOCK, side))) if off_grid else 0, side) for side in full)
    step = -1 if mirrored else 1
    image, labels = (plane[where][:, ::step].copy() for plane in (image, labels))
    return Picture(image, np.zeros_like(labels), labels)


def window(
    full: tuple[int, ...], size: Size, starts: Sequence[range], mirrored: bool, rng: np.random.Generator
) -> Window:
    """A window of `size` inside a picture of size `full` that begins in `starts` (rows, columns).

    Half of them keep the `BLOCK` grid of the picture's JPEG file, as a picture that was pasted into and saved again
    does; one that is to be `mirrored` keeps it by where it ends.
    """
    grid = BLOCK if rng.random() < 0.5 else 1
    turned = (0, -size[1] % grid if mirrored else 0)
    places = []
    for whole, side, allowed, first in zip(full, size, starts, turned, strict=True):
        low, high = allowed[0], min(allowed[-1], whole - side)
        least, most = -(-(low - first) // grid), (high - first) // grid
        on_grid = least <= most
        start = int(rng.integers(least, most + 1)) * grid + first if on_grid else int(rng.integers(low, high + 1))
        places.append(slice(start, start + side))
    return tuple(places)


def paste(picture: Picture, donors: ReadsPhotos, rng: np.random.Generator) -> None:
    """Paste one or two cut-outs of `donors`, or of the picture itself, into it and note them in its `pastes`."""
    drawn = 0
    for _ in range(1 if rng.random() < 0.85 else 2):
        own = rng.random() < 0.2
        donor = (picture.image, picture.labels) if own else donors(rng)
        # A copy within the photo often keeps its scale and colours: that is what makes it hard to see.
        cutout = _cut_out(*donor, rng)
        if not own or rng.random() < 0.5:
            cutout = _rework(cutout, min(picture.mask.shape), rng)
        if rng.random() < 0.25:
            cutout.harmony = rng.uniform(0.3, 1.0)
        _paste(picture, _feather(cutout, rng), rng, None if own else drawn)
        drawn += not own


def mask_edge(mask: Image) -> Image:
    """The boundary of a mask, H x W of 0 and 1: 1 within half of `EDGE_WIDTH` of it, on both sides."""
    reach = np.ones((EDGE_WIDTH + 1, EDGE_WIDTH + 1), np.uint8)
    return cv2.dilate(mask, reach) - cv2.erode(mask, reach)


def _cut_out(image: Image, labels: Image, rng: np.random.Generator) -> Cutout:
    where, shape = _outline(labels, rng)
    return Cutout(image[where].copy(), shape.astype(np.float32), labels[where].copy())


def _outline(labels: Image, rng: np.random.Generator) -> tuple[Window, Image]:
    """Where in a photo something lies, and its shape there, h x w of 0 and 1.

    A labelled object two times in three, if the photo has one, else a polygon, an ellipse or a box.
    """
    if rng.random() < 0.65:
        thing = _object(labels, rng)
        if thing is not None:
            return thing
    height, width = labels.shape
    h, w = _side(height, rng), _side(width, rng)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    return np.s_[top : top + h, left : left + w], random_shape(h, w, rng)


def _object(labels: Image, rng: np.random.Generator) -> tuple[Window, Image] | None:
    known = ((labels > 0) & (labels < 255)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(known)
    large = [part for part in range(1, count) if stats[part, cv2.CC_STAT_AREA] > SMALLEST_OBJECT]
    if not large:
        return None
    part = int(rng.choice(large))
    left, top, w, h = stats[part, :4]
    where = np.s_[top : top + h, left : left + w]
    return where, (parts[where] == part).astype(np.uint8)


def _side(full: int, rng: np.random.Generator) -> int:
    """A side of a cut-out, pixels: 40 to 260, but shorter than the photo's unless that is below 40 itself."""
    least = min(40, full)
    return int(rng.integers(least, max(least, min(260, full - 1)) + 1))


def _rework(cutout: Cutout, host_side: int, rng: np.random.Generator) -> Cutout:
    """What a forger and the donor's own past do to a cut-out before it is pasted."""
    image, alpha, labels = cutout.image, cutout.alpha, cutout.labels
    if rng.random() < 0.5:
        image, alpha, labels = cv2.flip(image, 1), cv2.flip(alpha, 1), cv2.flip(labels, 1)
    factor = np.exp(rng.uniform(-0.7, 0.5)) if rng.random() < 0.6 else 1.0
    if max(image.shape[:2]) * factor > 1.1 * host_side:
        factor = rng.uniform(0.12, 0.75) * host_side / max(image.shape[:2])
    factor = max(factor, 12 / min(image.shape[:2]))
    if factor != 1.0:
        size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image, alpha = resized(image, size, rng), cv2.resize(alpha, size)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    if rng.random() < 0.25:
        size = image.shape[1::-1]
        turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.uniform(-40, 40), 1.0)
        image = cv2.warpAffine(image, turn, size, borderMode=cv2.BORDER_REFLECT)
        alpha, labels = cv2.warpAffine(alpha, turn, size), cv2.warpAffine(labels, turn, size, flags=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image = saved(image, 50, 98, rng)
    if rng.random() < 0.5:
        image = recoloured(image, rng)
    if rng.random() < 0.15:
        image = blurred(image, 0.4, 1.5, rng)
    if rng.random() < 0.1:
        image = noisy(image, 1.0, 6.0, rng)
    return Cutout(image, alpha, labels)


def _feather(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    """The cut-out with a soft edge, six times in ten, also where it touches its box: that is widened for it."""
    if rng.random() > 0.6:
        return cutout
    sigma = rng.uniform(0.4, 2.0)
    room = 4 * (math.ceil(3 * sigma),)
    image = cv2.copyMakeBorder(cutout.image, *room, cv2.BORDER_REFLECT_101)
    alpha, labels = (cv2.copyMakeBorder(plane, *room, cv2.BORDER_CONSTANT) for plane in (cutout.alpha, cutout.labels))
    return replace(cutout, image=image, alpha=cv2.GaussianBlur(alpha, (0, 0), sigma), labels=labels)


def _harmonised(brought: Image, host: Image, pasted: NDArray[np.bool_], harmony: float) -> Image | NDArray[np.float32]:
    """Brightness, contrast and colour of the pasted pixels, brought some way towards those of what they cover."""
    if not harmony:
        return brought
    statistics = [(each[pasted].mean(0), each[pasted].std(0) + 1) for each in (brought, host)]
    (mean, spread), (host_mean, host_spread) = statistics
    gain = np.clip(1 + harmony * (host_spread / spread - 1), 0.5, 2)
    return ((brought - mean) * gain + mean + harmony * (host_mean - mean)).astype(np.float32)


def _paste(picture: Picture, cutout: Cutout, rng: np.random.Generator, donor: int | None = None) -> None:
    """Blend the cut-out in at a random place, at most a quarter of it outside; the mask is where alpha is above 1/2."""
    height, width = picture.mask.shape
    h, w = cutout.alpha.shape
    # A cut-out larger than the picture hangs out on both sides, so the bounds may come in either order.
    bounds = (sorted((-side // 4, full - side + side // 4)) for side, full in ((h, height), (w, width)))
    top, left = (int(rng.integers(low, high, endpoint=True)) for low, high in bounds)
    here = np.s_[max(0, top) : min(height, top + h), max(0, left) : min(width, left + w)]
    there = np.s_[here[0].start - top : here[0].stop - top, here[1].start - left : here[1].stop - left]
    alpha = cutout.alpha[there]
    pasted = alpha > 0.5
    if pasted.sum() < 64 or picture.mask.sum() + pasted.sum() > LARGEST_SPLICE * picture.mask.size:
        return
    opacity = alpha[..., None]
    host = picture.image[here]
    brought = _harmonised(cutout.image[there], host, pasted, cutout.harmony)
    blend = opacity * brought + (1 - opacity) * host
    picture.image[here] = np.clip(blend + 0.5, 0, 255).astype(np.uint8)
    picture.mask[here][pasted] = 1
    picture.labels[here][pasted] = cutout.labels[there][pasted]
    left, top, w, h = cv2.boundingRect(pasted.astype(np.uint8))
    ids, areas = np.unique(cutout.labels[there][pasted], return_counts=True)
    classes = tuple(int(ids[k]) for k in np.argsort(-areas, kind="stable") if 0 < ids[k] < 255)
    picture.pastes.append(Paste((here[1].start + left, here[0].start + top, w, h), classes, donor))
