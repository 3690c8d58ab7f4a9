"""Whether a network on an accelerator still says what the float32 reference says."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.errors import MagrtError
from mag_rt.pictures import Picture

Annotate = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""Normalised pictures N x 3 x H x W to annotations N x (2+K) x H x W in [0, 1], on the host."""


class ParityError(MagrtError):
    """The network disagrees with the reference; the message has the numbers."""


@dataclass(frozen=True)
class Agreement:
    """How near a network comes to the reference on the check pictures, or how near it has to come."""

    probability: float
    """The greatest difference of any probability of any channel."""
    mask: float
    """The mean difference of the splice mask's probabilities."""
    iou: float
    """Of the areas above the bundle's threshold, over all check pictures."""

    def within(self, bounds: "Agreement") -> bool:
        return self.probability <= bounds.probability and self.mask <= bounds.mask and self.iou >= bounds.iou

    def __str__(self) -> str:
        return f"probability {self.probability:.4f}, mask {self.mask:.5f}, IoU {self.iou:.4f}"


BOUNDS = {
    "float32": Agreement(probability=0.01, mask=0.0005, iou=0.99),
    "float16": Agreement(probability=0.03, mask=0.001, iou=0.98),
    "int8": Agreement(probability=1.0, mask=0.02, iou=0.80),
}
"""By the precision of the network. docs/deployment.md says what was measured and why they stand here."""


def gate(annotate: Annotate, bundle: Bundle, precision: str, batch: int, size: tuple[int, int]) -> Agreement:
    """Compare a network with the bundle's float32 reference on the check pictures, `batch` of them at a time.

    size: height and width of the check pictures. Raises ParityError with the numbers when they differ by more than the
    `BOUNDS` of its precision, or when what it gives are no probabilities: NaN, infinite or outside [0, 1].
    """
    images = bundle.normalisation(check_pictures(size))
    reference = OnnxRuntimeBackend(bundle)
    expected = np.concatenate([reference.probabilities(image[None]) for image in images])
    reference.close()
    given = np.concatenate(
        [_annotated(annotate, images[at : at + batch], batch) for at in range(0, len(images), batch)]
    )
    if given.shape != expected.shape:
        raise ParityError(
            f"the {precision} network gives {_by(given.shape)} where the reference gives {_by(expected.shape)}"
        )
    _check_probabilities(given, precision)
    agreement = compare(given, expected, bundle.mask_threshold)
    if not agreement.within(BOUNDS[precision]):
        raise ParityError(
            f"the {precision} network disagrees with the float32 reference: {agreement} (allowed: {BOUNDS[precision]})"
        )
    return agreement


def compare(given: NDArray[np.floating], expected: NDArray[np.float32], threshold: float) -> Agreement:
    """How near annotations N x (2+K) x H x W come to others."""
    difference = np.abs(given.astype(np.float32) - expected)
    above, should = given[:, 0] >= threshold, expected[:, 0] >= threshold
    union = int((above | should).sum())
    iou = int((above & should).sum()) / union if union else 1.0
    return Agreement(float(difference.max()), float(difference[:, 0].mean()), iou)


def _annotated(annotate: Annotate, images: NDArray[np.float32], batch: int) -> NDArray[np.floating]:
    """The annotations of up to `batch` images; the last ones are filled up to the batch and the rest is dropped."""
    filled = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
    return np.asarray(annotate(filled))[: len(images)]


def _check_probabilities(given: NDArray[np.floating], precision: str) -> None:
    overflow = ": numbers beyond 65504, float16's largest, on the way?" if precision == "float16" else ""
    for name, wrong in (
        ("NaN", np.isnan(given)),
        ("infinite", np.isinf(given)),
        ("not in [0, 1]", (given < 0) | (given > 1)),
    ):
        if wrong.any():
            raise ParityError(f"{wrong.mean():.2%} of what the {precision} network gives is {name}{overflow}")


def check_pictures(size: tuple[int, int]) -> list[Picture]:
    """Pictures, height x width of `size`, the same every time: two with a splice, and what is hard on the arithmetic.

    Made, not photographed: they need no licence and no room in the bundle.
    """
    rng = np.random.default_rng(2019)
    height, width = size
    grain, smooth = _scene(rng, size, grain=14), _scene(rng, size, grain=1)
    rows, columns = np.indices(size)
    board = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    ramp = np.stack([columns * 255 // width, rows * 255 // height, 255 - columns * 255 // width], 2).astype(np.uint8)
    noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return [
        _paste(_recompressed(grain, 60), smooth),
        _paste(smooth, _recompressed(grain, 40)),
        board,
        ramp,
        noise,
        noise // 255,
    ]


def _scene(rng: np.random.Generator, size: tuple[int, int], grain: float) -> Picture:
    """Soft shapes of all sizes, as scenery has them, under the grain of a sensor (standard deviation, grey levels)."""
    scene = np.full((*size, 3), 128.0)
    for cells in (2, 4, 8, 16):
        coarse = rng.normal(0, 120 / cells, (cells, cells, 3))
        scene += cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(scene + rng.normal(0, grain, scene.shape), 0, 255).astype(np.uint8)


def _recompressed(picture: Picture, quality: int) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def _paste(onto: Picture, source: Picture) -> Picture:
    height, width = onto.shape[:2]
    spliced = onto.copy()
    window = np.s_[height // 4 : height * 3 // 4, width // 3 : width * 2 // 3]
    spliced[window] = source[window]
    return spliced


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
