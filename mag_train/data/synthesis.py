"""Splices made on the fly: objects and shapes of one photo pasted onto another, as in the paper's "Rough" split.

Both sides get a history of their own (scale, JPEG), the cut-out is also turned, flipped, recoloured, blurred and
given noise, its edge is hard or slightly feathered, and the whole picture may be blurred and saved once more.
Everything is drawn from the generator that is passed in: the same generator state gives the same picture.
"""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width, pixels."""

FILTERS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA)
CHROMA_SAMPLINGS = (
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)
SMALLEST_OBJECT = 600
"""Pixels below which a labelled part of a photo is not worth cutting out."""
LARGEST_SPLICE = 0.5
"""Share of the picture: beyond it the smaller region would be the host, and the truth would name the wrong side."""


class ReadsPhotos(Protocol):
    """Draws a random photo: picture, H x W x 3 BGR, and labels, H x W."""

    def __call__(self, rng: np.random.Generator) -> tuple[Image, Image]: ...


@dataclass
class Picture:
    """A picture, H x W x 3 BGR; where it is spliced, H x W of 0 and 1; its labels, H x W, pasted objects included."""

    image: Image
    mask: Image
    labels: Image


@dataclass
class Cutout:
    """What is pasted: pixels, h x w x 3; opacity in [0, 1], h x w float32; the labels it brings, h x w."""

    image: Image
    alpha: NDArray[np.float32]
    labels: Image


def authentic(image: Image, labels: Image, size: Size, rng: np.random.Generator) -> Picture:
    """A picture of `size`, cropped from one photo, with the same history that a spliced one would have."""
    picture = _host(image, labels, size, rng)
    picture.image = _publish(picture.image, rng)
    return picture


def spliced(image: Image, labels: Image, donors: ReadsPhotos, size: Size, rng: np.random.Generator) -> Picture:
    """A picture of `size`, cropped from a photo, with one or two cut-outs of `donors`, or of itself, pasted in.

    Now and then a cut-out ends up outside the picture or covers too much of it: then the picture stays as it was.
    """
    picture = _host(image, labels, size, rng)
    for _ in range(1 if rng.random() < 0.85 else 2):
        own = rng.random() < 0.2
        donor = (picture.image, picture.labels) if own else donors(rng)
        # A copy within the photo often keeps its scale and colours: that is what makes it hard to see.
        cutout = _cut_out(*donor, rng)
        if not own or rng.random() < 0.5:
            cutout = _rework(cutout, min(size), rng)
        _paste(picture, _feather(cutout, rng), rng)
    picture.image = _publish(picture.image, rng)
    return picture


def _jpeg(image: Image, low: int, high: int, rng: np.random.Generator) -> Image:
    sampling = int(rng.choice(CHROMA_SAMPLINGS))
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(low, high + 1)), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return cv2.imdecode(cv2.imencode(".jpg", image, options)[1], cv2.IMREAD_COLOR)


def _resize(image: Image, size: tuple[int, int], rng: np.random.Generator) -> Image:
    return cv2.resize(image, size, interpolation=int(rng.choice(FILTERS)))


def _blur(image: Image, least: float, most: float, rng: np.random.Generator) -> Image:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(least, most))


def _noise(image: Image, least: float, most: float, rng: np.random.Generator) -> Image:
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(rng.uniform(least, most))
    return np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)


def _host(image: Image, labels: Image, size: Size, rng: np.random.Generator) -> Picture:
    factor = rng.uniform(0.6, 1.4) if rng.random() < 0.5 else 1.0
    factor = max(factor, *((side + 8) / full for side, full in zip(size, image.shape, strict=False)))
    if factor != 1.0:
        scaled = (round(image.shape[1] * factor), round(image.shape[0] * factor))
        image = _resize(image, scaled, rng)
        labels = cv2.resize(labels, scaled, interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image = _jpeg(image, 60, 98, rng)
    # Half of the crops keep the photo's 8x8 JPEG grid, as a picture that was pasted into and saved again does.
    grid = 8 if rng.random() < 0.5 else 1
    top, left = (
        int(rng.integers(0, (full - side) // grid + 1)) * grid for side, full in zip(size, image.shape, strict=False)
    )
    window = np.s_[top : top + size[0], left : left + size[1]]
    return Picture(image[window].copy(), np.zeros(size, np.uint8), labels[window].copy())


def _publish(image: Image, rng: np.random.Generator) -> Image:
    """What happens to the finished picture as a whole before anybody looks at it."""
    if rng.random() < 0.2:
        image = _blur(image, 0.3, 0.9, rng)
    if rng.random() < 0.2:
        image = _noise(image, 0.5, 4.0, rng)
    return _jpeg(image, 65, 100, rng) if rng.random() < 0.6 else image


def _cut_out(image: Image, labels: Image, rng: np.random.Generator) -> Cutout:
    """A labelled object of the photo two times in three, if it has one, else a polygon, an ellipse or a box."""
    if rng.random() < 0.65:
        thing = _object(image, labels, rng)
        if thing is not None:
            return thing
    height, width = image.shape[:2]
    h, w = (int(rng.integers(40, min(260, side - 1) + 1)) for side in (height, width))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    window = np.s_[top : top + h, left : left + w]
    return Cutout(image[window].copy(), _shape(h, w, rng).astype(np.float32), labels[window].copy())


def _object(image: Image, labels: Image, rng: np.random.Generator) -> Cutout | None:
    known = ((labels > 0) & (labels < 255)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(known)
    large = [part for part in range(1, count) if stats[part, cv2.CC_STAT_AREA] > SMALLEST_OBJECT]
    if not large:
        return None
    part = int(rng.choice(large))
    left, top, w, h = stats[part, :4]
    window = np.s_[top : top + h, left : left + w]
    return Cutout(image[window].copy(), (parts[window] == part).astype(np.float32), labels[window].copy())


def _shape(h: int, w: int, rng: np.random.Generator) -> Image:
    kind = rng.random()
    shape = np.zeros((h, w), np.uint8)
    if kind < 0.55:
        corners = int(rng.integers(4, 11))
        angles, radii = np.sort(rng.random(corners)) * 2 * np.pi, rng.uniform(0.4, 1.0, corners)
        points = np.stack([w / 2 * (1 + radii * np.cos(angles)), h / 2 * (1 + radii * np.sin(angles))], axis=1)
        cv2.fillPoly(shape, [points.astype(np.int32)], 1)
    elif kind < 0.8:
        cv2.ellipse(shape, (w // 2, h // 2), (w // 2 - 1, h // 2 - 1), 0, 0, 360, 1, -1)
    else:
        shape[:] = 1
    return shape


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
        image, alpha = _resize(image, size, rng), cv2.resize(alpha, size)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.25:
        size = image.shape[1::-1]
        turn = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), rng.uniform(-40, 40), 1.0)
        image = cv2.warpAffine(image, turn, size, borderMode=cv2.BORDER_REFLECT)
        alpha, labels = cv2.warpAffine(alpha, turn, size), cv2.warpAffine(labels, turn, size, flags=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        image = _jpeg(image, 50, 98, rng)
    if rng.random() < 0.5:
        recoloured = image * rng.uniform(0.8, 1.2, 3) + rng.uniform(-25, 25)
        image = np.clip(recoloured + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        image = _blur(image, 0.4, 1.5, rng)
    if rng.random() < 0.1:
        image = _noise(image, 1.0, 6.0, rng)
    return Cutout(image, alpha, labels)


def _feather(cutout: Cutout, rng: np.random.Generator) -> Cutout:
    if rng.random() < 0.6:
        cutout.alpha = cv2.GaussianBlur(cutout.alpha, (0, 0), rng.uniform(0.4, 2.0))
    return cutout


def _paste(picture: Picture, cutout: Cutout, rng: np.random.Generator) -> None:
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
    blend = opacity * cutout.image[there] + (1 - opacity) * picture.image[here]
    picture.image[here] = np.clip(blend + 0.5, 0, 255).astype(np.uint8)
    picture.mask[here][pasted] = 1
    picture.labels[here][pasted] = cutout.labels[there][pasted]
