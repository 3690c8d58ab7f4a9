"""From annotation maps to what is said of a picture: score, verdict, regions, objects."""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import Calibration
from mag_rt.pictures import Picture

Verdict = Literal["spliced", "authentic", "inconclusive"]

SMALLEST_REGION = 0.0005
"""Share of the picture below which a connected area above the threshold is no region."""
MOST_REGIONS = 20
SMALLEST_OBJECT = 0.01
"""Share of the picture below which a class is not listed among the objects."""
EVIDENCE_SHARE = 0.005
"""Share of the picture's pixels, the most suspicious ones, whose mean probability is the evidence for the score."""


@dataclass(frozen=True)
class Region:
    """A connected suspicious area. Coordinates are pixels of the picture as a viewer shows it."""

    bbox: tuple[int, int, int, int]
    """Left, top, width, height."""
    area_fraction: float
    """Of the picture, in [0, 1]."""
    score: float
    """Mean probability of its pixels, in [0, 1]."""
    polygon: list[tuple[int, int]]
    """Its outline, simplified."""


@dataclass(frozen=True)
class SeenObject:
    """A class that the annotator sees in the authentic areas of the picture."""

    name: str
    area_fraction: float


@dataclass(frozen=True)
class Failure:
    """Why a source has no result. `type` is a kind of PictureError, or unreadable."""

    type: str
    message: str


@dataclass(frozen=True)
class Finding:
    """What the scan says of one picture or frame. With an `error` everything that would need the picture is None."""

    source: str | None
    """The path as found; None for an array."""
    frame: int | None = None
    time_s: float | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    """Of the file, hexadecimal."""
    score: float | None = None
    """Calibrated probability that the picture holds a splice, in [0, 1]."""
    verdict: Verdict | None = None
    regions: list[Region] = field(default_factory=list)
    """Most suspicious first."""
    objects: list[SeenObject] = field(default_factory=list)
    """Largest first."""
    error: Failure | None = None
    probability: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """Splice probability of each pixel, H x W in [0, 1], at the picture's own size."""
    picture: Picture | None = field(default=None, repr=False, compare=False)
    """The picture itself, H x W x 3 BGR."""

    def without_pixels(self) -> "Finding":
        """The same without `probability` and `picture`, small enough to keep thousands."""
        return replace(self, probability=None, picture=None)

    def as_json(self) -> dict[str, Any]:
        """The fields of a line of findings.jsonl that come from the scan, in the order of docs/formats.md."""
        failed = self.error is not None
        return {
            "frame": self.frame,
            "time_s": self.time_s,
            "width": self.width,
            "height": self.height,
            "sha256": self.sha256,
            "score": None if self.score is None else round(self.score, 4),
            "verdict": self.verdict,
            "regions": None if failed else [_region_as_json(region) for region in self.regions],
            "objects": None
            if failed
            else [{"class": seen.name, "area_fraction": round(seen.area_fraction, 4)} for seen in self.objects],
            "error": None if self.error is None else {"type": self.error.type, "message": self.error.message},
        }


def _region_as_json(region: Region) -> dict[str, Any]:
    return {
        "bbox": list(region.bbox),
        "area_fraction": round(region.area_fraction, 5),
        "score": round(region.score, 4),
        "polygon": [list(point) for point in region.polygon],
    }


def evidence(probability: NDArray[np.float32]) -> float:
    """How strongly a mask speaks for a splice: log-odds of the mean of its most suspicious `EVIDENCE_SHARE` of pixels.

    H x W in [0, 1], read in 256 steps so that a histogram gives it. Between -6.2 and 6.2.
    """
    counts = np.bincount((probability * 255 + 0.5).astype(np.uint8).ravel(), minlength=256)[::-1]
    wanted = max(1, round(EVIDENCE_SHARE * probability.size))
    taken = np.diff(np.minimum(np.cumsum(counts), wanted), prepend=0)
    mean = float(taken @ np.arange(255, -1, -1)) / wanted / 255
    mean = min(max(mean, 0.5 / 255), 1 - 0.5 / 255)
    return math.log(mean / (1 - mean))


def score(evidence: float, calibration: Calibration) -> float:
    """The calibrated probability, in [0, 1], that the picture holds a splice."""
    return 1 / (1 + math.exp(-(calibration.slope * evidence + calibration.intercept)))


def verdict(score: float, calibration: Calibration) -> Verdict:
    """What to call a picture of this score: the tool may be unsure."""
    if score >= calibration.spliced:
        return "spliced"
    return "authentic" if score <= calibration.authentic else "inconclusive"


def regions(probability: NDArray[np.float32], threshold: float) -> list[Region]:
    """The connected areas (8-neighbourhood) that reach the threshold, most suspicious first, at most `MOST_REGIONS`."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats((probability >= threshold).astype(np.uint8))
    found = []
    for part in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[part])
        if area < SMALLEST_REGION * probability.size:
            continue
        window = np.s_[top : top + height, left : left + width]
        inside = parts[window] == part
        score = float(probability[window][inside].mean())
        outline = _outline(inside.astype(np.uint8), (left, top))
        found.append(Region((left, top, width, height), area / probability.size, score, outline))
    found.sort(key=lambda region: region.score * region.area_fraction, reverse=True)
    return found[:MOST_REGIONS]


def _outline(part: NDArray[np.uint8], offset: tuple[int, int]) -> list[tuple[int, int]]:
    contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    longest = max(contours, key=len)
    simple = cv2.approxPolyDP(longest, max(1.0, 0.0015 * cv2.arcLength(longest, True)), True)
    return [(int(x), int(y)) for x, y in simple[:, 0]]


def objects(class_maps: NDArray[np.float32], names: tuple[str, ...]) -> list[SeenObject]:
    """The classes that fill a share worth naming (probability 1/2 or more), largest first. K x H x W in [0, 1]."""
    shares = zip(names, (class_maps >= 0.5).mean(axis=(1, 2)), strict=True)
    seen = [SeenObject(name, float(share)) for name, share in shares if share >= SMALLEST_OBJECT]
    return sorted(seen, key=lambda each: each.area_fraction, reverse=True)
