"""What happens to pictures before anybody looks at them: saved again, resized, cut, seen on a screen, blurred."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.pictures import Picture
from mag_train.data.tampered import resize_mask

Mask = NDArray[np.bool_]

SCREENSHOT_QUALITY = 85
PLACE = 3, 5
"""Where a screenshot shows a picture, pixels from its top and left: no multiples of the 8 pixels of a JPEG block."""
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Degradation:
    """What is done to a picture, and to its mask where that moves pixels, before anybody looks at it."""

    name: str
    apply: Callable[[Picture, Mask], tuple[Picture, Mask]]


UNCHANGED = Degradation("none", lambda picture, mask: (picture, mask))


def degradation(text: str) -> Degradation:
    """The degradation written as `jpeg:QUALITY`, `resize:FACTOR`, `crop:PIXELS`, `screenshot:FACTOR` or `blur:SIGMA`.

    A crop loses that many pixels at the right and at the bottom, so that it may have to be padded for the network;
    sigma is in pixels. Raises ValueError.
    """
    name, _, amount = text.partition(":")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if name == "jpeg" and 1 <= value <= 100 and value.is_integer():
        return Degradation(text, lambda picture, mask: (as_jpeg(picture, int(value)), mask))
    if name == "resize" and 0 < value <= 8:
        interpolation = cv2.INTER_AREA if value < 1 else cv2.INTER_CUBIC
        return Degradation(text, lambda picture, mask: _resize(picture, mask, value, interpolation))
    if name == "crop" and 1 <= value <= 1000 and value.is_integer():
        return Degradation(text, lambda picture, mask: _cropped(picture, mask, int(value)))
    if name == "screenshot" and 0 < value <= 8:
        return Degradation(text, lambda picture, mask: _screenshot(picture, mask, value))
    if name == "blur" and 0 < value <= 100:
        return Degradation(text, lambda picture, mask: (cv2.GaussianBlur(picture, (0, 0), value), mask))
    raise ValueError(
        f"--degrade {text}: write jpeg:QUALITY (1 to 100), resize:FACTOR or screenshot:FACTOR (up to 8), crop:PIXELS "
        "(up to 1000) or blur:SIGMA (up to 100 pixels)"
    )


def as_jpeg(picture: Picture, quality: int) -> Picture:
    """The picture, H x W x 3 BGR uint8, as it is once saved as a JPEG of a quality from 1 to 100."""
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _resize(picture: Picture, mask: Mask, factor: float, interpolation: int) -> tuple[Picture, Mask]:
    size = (max(1, round(picture.shape[0] * factor)), max(1, round(picture.shape[1] * factor)))
    return cv2.resize(picture, size[::-1], interpolation=interpolation), resize_mask(mask, size)


def _cropped(picture: Picture, mask: Mask, pixels: int) -> tuple[Picture, Mask]:
    height, width = (max(1, side - pixels) for side in mask.shape)
    return picture[:height, :width], mask[:height, :width]


def _screenshot(picture: Picture, mask: Mask, factor: float) -> tuple[Picture, Mask]:
    """Shown at another size, as screens do it, and saved as a JPEG whose blocks lie elsewhere than they did."""
    shown, its_mask = _resize(picture, mask, factor, cv2.INTER_LINEAR)
    top, left = PLACE
    page = cv2.copyMakeBorder(shown, top, 0, left, 0, cv2.BORDER_CONSTANT, value=WHITE)
    return as_jpeg(page, SCREENSHOT_QUALITY)[top:, left:], its_mask
