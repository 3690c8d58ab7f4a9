"""What makes probabilities of a network's answers: how soft its mask is, and the logistic that gives the score."""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mag_rt import Scanner, bundle
from mag_rt.bundle import Bundle, Calibration
from mag_rt.errors import PictureError, SourceError
from mag_rt.findings import Reading, score, verdict
from mag_rt.parity import Annotate
from mag_rt.pictures import pad, shrink
from mag_train.checkpoint import RunError
from mag_train.data.history import BLOCK, Image
from mag_train.data.opening import authentic_photos
from mag_train.data.photos import Photo, Reader
from mag_train.data.synthesis import Picture, authentic, spliced
from mag_train.data.tampered import resize_mask

FALSE_ALARMS = 0.02
"""Share of authentic calibration pictures, of either kind, that may be called spliced. Of other kinds of photos two to
three times as many are (docs/model-card.md), and 5% is what is promised."""
MISSED_SPLICES = 0.10
"""Share of spliced calibration pictures that may be called authentic."""
UNCALIBRATED = Calibration(slope=1.0, intercept=0.0, authentic=0.0, spliced=1.0)
SEED = 1
"""Of the splices, so that bundles are calibrated on the same ones."""
TOO_SMALL = "the photos to calibrate on are too small to be spliced"
DRAWS = 8
"""A photo is left out when so many tries to make a splice of it leave it as it is."""
PIXELS = 4096
"""Of a splice, drawn at random, that the mask is held against."""
SOFTEST = 0.25
"""The least that the logits of a mask are multiplied by: what a network hardly trained says is not made nothing of."""
SIDES = (0.95, 0.7, 0.5, 0.35)
"""Of a photo's: the sides of the pictures that are made of it for the score, which has to hold for all sizes."""
SMALL = 50_000
"""Pixels below which nothing is called spliced. `growth` is learnt from pieces of photos, which hold less to mistake
than the whole; but a picture that small is mostly a large one shrunk, which holds as much, and sharper."""
MADE_OF = 0.75
"""The same for the mask. All are below 1, so that making a splice need not enlarge the photo."""


@dataclass(frozen=True)
class Evidence:
    """What a network says of N pictures of each kind, each three alike in size and photo.

    `authentic`: cut out of the photo as it is; `published`: after all that happens to a splice but the paste. With one
    of the two alone the score would partly tell what was scaled and saved from what was not.
    """

    photos: NDArray[np.int64]
    pixels: NDArray[np.int64]
    kinds: dict[str, NDArray[np.float64]]
    """authentic, published, spliced."""

    def half(self, which: int) -> "Evidence":
        """Of every other photo: 0 or 1."""
        chosen = np.unique(self.photos, return_inverse=True)[1] % 2 == which
        kinds = {kind: of_kind[chosen] for kind, of_kind in self.kinds.items()}
        return Evidence(self.photos[chosen], self.pixels[chosen], kinds)

    def scores(self, calibration: Calibration) -> dict[str, list[float]]:
        """By kind."""
        return {
            kind: [score(value, int(pixels), calibration) for value, pixels in zip(of_kind, self.pixels, strict=True)]
            for kind, of_kind in self.kinds.items()
        }


console = Console(stderr=True, emoji=False)


def calibration_photos(data: Path, held_out: Collection[str] | None = None) -> list[Photo]:
    """The authentic photos in `data` that the score is calibrated on (`opening.authentic_photos`).

    A line says which of them cannot be read. Raises RunError when there are none.
    """
    try:
        photos = [photo for photo in authentic_photos(data, held_out) if can_be_read(photo)]
    except (ValueError, SourceError) as error:
        raise RunError(f"{error}; name a folder of authentic photos by --data to calibrate the score on") from None
    if not photos:
        raise RunError(f"{data}: none of the photos to calibrate the score on can be read")
    return photos


def can_be_read(photo: Photo) -> bool:
    """Whether a photo can be used; if not, a line says why."""
    try:
        photo.read()
    except (PictureError, ValueError, OSError) as error:
        console.print(f"skipped {error}", markup=False, soft_wrap=True)
        return False
    return True


def mask_slope(annotate: Annotate, given: Bundle, photos: list[Photo]) -> float:
    """What to multiply the logits of a network's masks by, in [`SOFTEST`, 1], so that they tell probabilities.

    Networks are surer than they are right (Guo et al. 2017, https://arxiv.org/abs/1706.04599): this is the slope of the
    logistic regression of the truth on the logits, over pixels of splices made of `photos`. Its intercept, which tells
    how much of these pictures is pasted, is left out, so that 1/2 stays where it is. A softer mask also loses less in
    256 grey levels. `given`: how pictures are made ready for the network. Raises RunError when no photo can be spliced.
    """
    rng = np.random.default_rng(SEED)
    logits, truths = [], []
    for *_, picture in _splices(photos, MADE_OF):
        image = shrink(picture.image, given.max_side)
        height, width = image.shape[:2]
        mask = annotate(given.normalisation([pad(image, given.multiple)]))[0, 0, :height, :width].astype(np.float64)
        drawn = rng.integers(mask.size, size=PIXELS)
        said = mask.ravel()[drawn].clip(1e-9, 1 - 1e-9)
        logits.append(np.log(said / (1 - said)))
        truths.append(resize_mask(picture.mask > 0, (height, width)).ravel()[drawn])
    if not logits:
        raise RunError(TOO_SMALL)
    slope, _ = fit_logistic(np.concatenate(logits), np.concatenate(truths).astype(np.float64))
    return min(max(slope, SOFTEST), 1.0)


def calibrate(draft: Bundle, photos: list[Photo]) -> tuple[Calibration, dict[str, Any]]:
    """Fit the score of a bundle on authentic photos and on splices made of them, at even odds.

    All photos are fitted on. How well such a fit holds on photos that it has not seen is returned beside, unless there
    is only one: each half of them, small pictures like large ones, is held against the fit of the other one. Raises
    RunError when no photo can be spliced.
    """
    evidence = _evidence(draft, photos)
    count = len(np.unique(evidence.photos))
    fitted = partial(_fitted, most_pixels=draft.max_side**2)
    calibration = replace(fitted(evidence), small=SMALL)
    if count == 1:
        return calibration, {}
    halves = [evidence.half(which) for which in (0, 1)]
    rates = [_rates(fitted(fit), check) for fit, check in (halves, halves[::-1])]
    checked = {name: round(float(np.mean([each[name] for each in rates])), 4) for name in rates[0]}
    return calibration, {"calibration_check": {"photos": count, **checked}}


def _fitted(evidence: Evidence, most_pixels: int) -> Calibration:
    """The logistic of the evidence on authentic and on spliced pictures, and its two thresholds.

    What the evidence of false alarms gains with the size is taken to go on up to `most_pixels`: as many as a scan sees.
    """
    logs, kinds = np.log(evidence.pixels), evidence.kinds
    growth = false_alarm_growth(np.concatenate([kinds["authentic"], kinds["published"]]), np.tile(logs, 2))
    on_spliced = np.tile(kinds["spliced"], 2)  # as many as there are authentic pictures of both kinds
    x = np.concatenate([kinds["authentic"], kinds["published"], on_spliced]) - growth * np.tile(logs, 4)
    slope, intercept = fit_logistic(x, np.repeat([0.0, 1.0], len(on_spliced)))
    line = Calibration(slope, intercept, 0.0, 1.0, growth, int(evidence.pixels.min()), most_pixels)
    scores = evidence.scores(line)
    spliced_from = max(float(np.quantile(scores[kind], 1 - FALSE_ALARMS)) for kind in ("authentic", "published"))
    missed = float(np.quantile(scores["spliced"], MISSED_SPLICES))
    return replace(line, authentic=min(spliced_from, missed), spliced=spliced_from)


def false_alarm_growth(evidence: NDArray[np.float64], logs: NDArray[np.float64]) -> float:
    """How fast the evidence that `FALSE_ALARMS` of authentic pictures reach grows with the logarithm of their pixels.

    Of N pictures each: the slope, from 0 to 2, of their quantile regression (Koenker and Bassett 1978). Without it one
    threshold would ask more of small pictures than of large ones, and raise more false alarms in these.
    """

    def loss(growth: float) -> float:
        rest = evidence - growth * logs
        over = rest - np.quantile(rest, 1 - FALSE_ALARMS)
        return float(np.maximum((1 - FALSE_ALARMS) * over, -FALSE_ALARMS * over).mean())

    return float(min(np.linspace(0, 2, 81), key=loss))


def _rates(fitted: Calibration, evidence: Evidence) -> dict[str, float]:
    """How often pictures of each kind get either verdict."""
    rates: dict[str, float] = {}
    for kind, scores in evidence.scores(fitted).items():
        verdicts = [verdict(value, int(pixels), fitted) for value, pixels in zip(scores, evidence.pixels, strict=True)]
        rates |= {f"{kind}_called_{said}": verdicts.count(said) / len(verdicts) for said in ("spliced", "authentic")}
    return rates


def _evidence(draft: Bundle, photos: list[Photo]) -> Evidence:
    """What a bundle says of pictures made of the photos, in all `SIDES`. Raises RunError when there are none."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(draft, Path(folder))
        with Scanner(folder) as scanner:
            for number, pictures in (each for side in SIDES for each in _alike(photos, side)):
                readings = [_reading(scanner, picture) for picture in pictures]
                rows.append((number, readings[0].pixels, *(reading.evidence for reading in readings)))
    if not rows:
        raise RunError(TOO_SMALL)
    numbers, pixels, *kinds = zip(*rows, strict=True)
    by_kind = dict(zip(("authentic", "published", "spliced"), map(np.array, kinds), strict=True))
    return Evidence(np.array(numbers), np.array(pixels), by_kind)


def _reading(scanner: Scanner, picture: Image) -> Reading:
    (reading,) = scanner.reader([picture], [(picture.shape[0], picture.shape[1])])
    assert isinstance(reading, Reading)
    return reading


def _alike(photos: list[Photo], side: float) -> Iterator[tuple[int, list[Image]]]:
    """Each photo's number and three pictures of one size: cut out of it along its blocks, published, spliced."""
    for number, image, labels, pasted in _splices(photos, side):
        rng, size = np.random.default_rng([SEED, 4, number]), pasted.mask.shape
        published = authentic(image, labels, size, rng)
        top, left = (
            BLOCK * int(rng.integers((whole - part) // BLOCK + 1))
            for whole, part in zip(image.shape, size, strict=False)
        )
        yield number, [image[top : top + size[0], left : left + size[1]], published.image, pasted.image]


def _splices(photos: list[Photo], side: float) -> Iterator[tuple[int, Image, Image, Picture]]:
    """Each photo's number, image and labels, and a splice with `side` of its sides; those without are left out."""
    reader = Reader(photos)
    for number in range(len(photos)):
        image, labels = reader.read(number)
        size = (int(image.shape[0] * side), int(image.shape[1] * side))
        rng = np.random.default_rng([SEED, 3, number])
        draws = (spliced(image, labels, reader.draw, size, rng) for _ in range(DRAWS))
        pasted = next((picture for picture in draws if picture.mask.any()), None)
        if pasted is not None:
            yield number, image, labels, pasted


def fit_logistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of y (0 or 1) on x, both of length N, by Newton's method.

    A weak pull of the slope towards 0 keeps it finite when x separates the classes.
    """
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.zeros(2)
    ridge = np.diag([1e-3, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (y - p) - ridge @ weights
        hessian = (design.T * (p * (1 - p))) @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])
