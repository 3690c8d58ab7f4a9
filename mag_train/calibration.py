"""The calibration of a score: the logistic of what a network finds in authentic and in spliced pictures."""

import math
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from mag_rt import Scanner, bundle
from mag_rt.bundle import Bundle, Calibration
from mag_rt.errors import PictureError
from mag_rt.findings import score
from mag_train.checkpoint import RunError
from mag_train.data.history import Image
from mag_train.data.opening import split, split_by_host
from mag_train.data.photos import Photo, Reader, labelled_photos
from mag_train.data.ready_made import ready_made
from mag_train.data.synthesis import ReadsPhotos, Size, authentic, spliced

FALSE_ALARMS = 0.03
"""Share of authentic calibration pictures, of either kind, that may be called spliced."""
MISSED_SPLICES = 0.10
"""Share of spliced calibration pictures that may be called authentic."""
UNCALIBRATED = Calibration(slope=1.0, intercept=0.0, authentic=0.0, spliced=1.0)
DRAWS = 8
"""A photo is left out when so many tries to make a splice of it leave it as it is."""

Evidence = dict[str, NDArray[np.float64]]
"""Of each photo: `authentic`, as it is; `published`, after all that happens to a splice but the paste; `spliced`.

With one of the first two alone the score would partly tell what was scaled and saved from what was not.
"""

console = Console(stderr=True)


def calibration_photos(data: Path, trained_on: bool) -> list[Photo]:
    """The authentic photos in `data` that the score is calibrated on; a line says which cannot be read.

    Those of role `calibration` in its manifest; without any, what a run `trained_on` this folder held out, or else all
    of them. Raises RunError when there are none.
    """
    photos = [photo for photo in _listed(data, trained_on) if _can_be_read(photo)]
    if not photos:
        raise RunError(f"{data}: none of the photos to calibrate the score on can be read")
    return photos


def _can_be_read(photo: Photo) -> bool:
    try:
        photo.read()
    except (PictureError, ValueError, OSError) as error:
        console.print(f"skipped {error}", markup=False, soft_wrap=True)
        return False
    return True


def _listed(data: Path, trained_on: bool) -> list[Photo]:
    with suppress(ValueError):
        return labelled_photos(data, role="calibration")
    try:
        pictures = ready_made(data)
        if pictures is None:
            photos = labelled_photos(data)
            return split(photos)[0] if trained_on else photos
        reals = (split_by_host(*pictures)[0] if trained_on else pictures)[1]
        return [Photo(real.image, real.labels) for real in reals]
    except ValueError as error:
        raise RunError(f"{error}; name a folder of authentic photos by --data to calibrate the score on") from None


def calibrate(draft: Bundle, photos: list[Photo], seed: int) -> tuple[Calibration, dict[str, Any]]:
    """Fit the score of a bundle on authentic photos and on splices made of them, at even odds.

    All photos are fitted on. How well such a fit holds on photos that it has not seen is returned beside, unless there
    is only one: each half of them is held against the fit of the other one. Raises RunError when no photo can be
    spliced.
    """
    evidence = _evidence(draft, photos, seed)
    count = len(evidence["spliced"])
    if count == 1:
        return _fitted(evidence), {}
    halves = [{kind: of_kind[start::2] for kind, of_kind in evidence.items()} for start in (0, 1)]
    rates = [_rates(_fitted(fit), check) for fit, check in (halves, halves[::-1])]
    checked = {name: round(float(np.mean([each[name] for each in rates])), 4) for name in rates[0]}
    return _fitted(evidence), {"calibration_check": {"photos": count, **checked}}


def _fitted(evidence: Evidence) -> Calibration:
    """The logistic of the evidence on authentic and on spliced pictures, and its two thresholds."""
    on_spliced = np.tile(evidence["spliced"], 2)  # as many as there are authentic pictures of both kinds
    x = np.concatenate([evidence["authentic"], evidence["published"], on_spliced])
    slope, intercept = fit_logistic(x, np.repeat([0.0, 1.0], len(on_spliced)))
    line = Calibration(slope, intercept, authentic=0.0, spliced=1.0)

    def reached(kind: str, share: float) -> float:
        return float(np.quantile([score(value, line) for value in evidence[kind]], share))

    spliced_from = max(reached(kind, 1 - FALSE_ALARMS) for kind in ("authentic", "published"))
    return replace(line, authentic=min(spliced_from, reached("spliced", MISSED_SPLICES)), spliced=spliced_from)


def _rates(fitted: Calibration, evidence: Evidence) -> dict[str, float]:
    """How often pictures of each kind get either verdict."""
    rates = {}
    for kind, of_kind in evidence.items():
        scores = np.array([score(value, fitted) for value in of_kind])
        rates[f"{kind}_called_spliced"] = float((scores >= fitted.spliced).mean())
        rates[f"{kind}_called_authentic"] = float((scores <= fitted.authentic).mean())
    return rates


def _evidence(draft: Bundle, photos: list[Photo], seed: int) -> Evidence:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundle.save(replace(draft, calibration=UNCALIBRATED), Path(folder))
        with Scanner(folder) as scanner:
            reader = Reader(photos)
            for number in range(len(photos)):
                image, labels = reader.read(number)
                # Three quarters of the photo, so that making the splice need not enlarge it.
                size = (image.shape[0] * 3 // 4, image.shape[1] * 3 // 4)
                pasted = _splice(image, labels, reader.draw, size, np.random.default_rng([seed, 3, number]))
                if pasted is not None:
                    published = authentic(image, labels, size, np.random.default_rng([seed, 4, number])).image
                    rows.append([_evidence_in(scanner, each) for each in (image, published, pasted)])
    if not rows:
        raise RunError("the photos to calibrate the score on are too small to be spliced")
    return dict(zip(("authentic", "published", "spliced"), np.array(rows).T, strict=True))


def _splice(image: Image, labels: Image, donors: ReadsPhotos, size: Size, rng: np.random.Generator) -> Image | None:
    """A picture with something pasted in, or None when none of `DRAWS` has anything."""
    draws = (spliced(image, labels, donors, size, rng) for _ in range(DRAWS))
    return next((picture.image for picture in draws if picture.mask.any()), None)


def _evidence_in(scanner: Scanner, image: Image) -> float:
    value = scanner.scan_image(image).score
    assert value is not None
    return math.log(value / (1 - value))  # an uncalibrated score is the sigmoid of the evidence


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
