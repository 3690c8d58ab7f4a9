"""From annotation maps to what is said of a picture: score, verdict, regions, objects."""

import math
import os
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
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
EVIDENCE_SHARE = 0.01
"""Share of the picture's pixels, the most suspicious ones, whose mean probability is the evidence for the score."""
TELLING_QUALITY = 78
"""Of a JPEG that may be called authentic: of splices saved below it twice as many would be (docs/model-card.md)."""
GREY: NDArray[np.float32] = np.arange(256, dtype=np.float32) / np.float32(255)
"""The probability that each grey level of a mask stands for."""
LIKELY = 128
"""The lowest grey level of a probability of 1/2 or more."""
DOUBT = 0.02
"""What `together` allows for in a probability of 0 or 1: a grey level more or less moves it by a few at most."""
_BAND = 64
"""Rows of two masks that it looks up at once: they stay in the cache."""


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
    """Why a source has no result. `type` is an error type of docs/formats.md."""

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
    mask: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    """Splice probability of each pixel, H x W in 256 steps, at the picture's own size."""
    picture: Picture | None = field(default=None, repr=False, compare=False)
    """The picture itself, h x w x 3 BGR, as it was decoded: a large JPEG at a half, a quarter or an eighth."""

    @property
    def probability(self) -> NDArray[np.float32] | None:
        """Splice probability of each pixel, H x W in [0, 1], at the picture's own size, in steps of 1/255."""
        return None if self.mask is None else GREY[self.mask]

    def without_pixels(self) -> "Finding":
        """The same without `mask` and `picture`, small enough to keep thousands."""
        return replace(self, mask=None, picture=None)

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

    @classmethod
    def from_json(cls, line: dict[str, Any], folder: Path) -> "Finding":
        """The finding, without pixels, of a line of the findings.jsonl in `folder`, where `source` is relative to."""
        error = line["error"]
        return cls(
            source=line["source"] and os.path.normpath(folder / line["source"]),
            frame=line["frame"],
            time_s=line["time_s"],
            width=line["width"],
            height=line["height"],
            sha256=line["sha256"],
            score=line["score"],
            verdict=line["verdict"],
            regions=[_region_from_json(region) for region in line["regions"] or ()],
            objects=[SeenObject(seen["class"], seen["area_fraction"]) for seen in line["objects"] or ()],
            error=error and Failure(error["type"], error["message"]),
        )


def _region_as_json(region: Region) -> dict[str, Any]:
    return {
        "bbox": list(region.bbox),
        "area_fraction": round(region.area_fraction, 5),
        "score": round(region.score, 4),
        "polygon": [list(point) for point in region.polygon],
    }


def _region_from_json(region: dict[str, Any]) -> Region:
    left, top, width, height = region["bbox"]
    polygon = [(x, y) for x, y in region["polygon"]]
    return Region((left, top, width, height), region["area_fraction"], region["score"], polygon)


@dataclass(frozen=True)
class Counts:
    """What was counted of one picture's annotation where it was made, so that its maps need not be looked at again."""

    levels: NDArray[np.integer[Any]]
    """256: pixels of each grey level in the splice map as the network made it."""
    likely: NDArray[np.integer[Any]]
    """K: pixels of probability 1/2 or more in each class map."""
    suspicious: int
    """Pixels of the mask, at the picture's own size, that reach the threshold ..."""
    box: tuple[int, int, int, int]
    """... and their bounding box: left, top, width, height."""


Look = tuple[NDArray[np.uint8], Counts]
"""A mask, H x W grey levels at the picture's own size, and what was counted of the maps behind it."""


@dataclass(frozen=True)
class Reading:
    """What an annotation says of one picture, before calibration."""

    evidence: float
    pixels: int
    """That the network saw of the picture: all, unless it was shrunk."""
    regions: list[Region]
    objects: list[SeenObject]
    mask: NDArray[np.uint8]
    """Splice probability in 256 steps, H x W, at the picture's own size."""


def read(look: Look, threshold: float, names: tuple[str, ...]) -> Reading:
    """The reading of a look at a picture.

    `threshold`: the probability from which a pixel belongs to a region. `names`: of the classes.
    """
    mask, counts = look
    found = counts.suspicious >= SMALLEST_REGION * mask.size  # fewer pixels make no region
    pixels = int(counts.levels.sum())
    return Reading(
        evidence(counts.levels),
        pixels,
        regions(mask, grey_level(threshold), counts.box) if found else [],
        objects(counts.likely / pixels, names),
        mask,
    )


def count(maps: NDArray[np.uint8], mask: NDArray[np.uint8], threshold: float) -> Counts:
    """What `read` needs of annotation maps, (2+K) x h x w grey levels, and of the mask that was made of the first."""
    likely = np.array([np.count_nonzero(plane >= LIKELY) for plane in maps[2:]])
    return Counts(levels(maps[0]), likely, *suspicion(mask, threshold))


def together(whole: Look, close: NDArray[np.uint8], threshold: float) -> Look:
    """A look at a whole picture, shrunk, and the mask, H x W, of a closer one at the same picture, in tiles.

    Each pixel of the mask gets the mean of their log-odds: where one of them is undecided the other one's word counts.
    What the score and the objects come from stays as it is: they are made for whole pictures, and tiles see parts.
    """
    mask, counts = whole
    table, both = _together(), np.empty_like(mask)
    for top in range(0, len(mask), _BAND):
        band = np.s_[top : top + _BAND]
        np.take(table, mask[band].astype(np.uint16) * 256 + close[band], out=both[band])
    suspicious, box = suspicion(both, threshold)
    return both, replace(counts, suspicious=suspicious, box=box)


@cache
def _together() -> NDArray[np.uint8]:
    """256 * one grey level + another to that of the mean of their log-odds; of twice the same it is that one."""
    odds = np.log((GREY + DOUBT) / (1 - GREY + DOUBT))
    ratio = np.exp((odds[:, None] + odds) / 2)
    return np.rint(255 * (ratio * (1 + DOUBT) - DOUBT) / (1 + ratio)).astype(np.uint8).ravel()


def suspicion(mask: NDArray[np.uint8], threshold: float) -> tuple[int, tuple[int, int, int, int]]:
    """How many pixels of a mask reach a probability, and their bounding box: left, top, width, height."""
    reached = (mask >= grey_level(threshold)).view(np.uint8)
    return cv2.countNonZero(reached), cv2.boundingRect(reached)


def levels(plane: NDArray[np.uint8]) -> NDArray[np.integer[Any]]:
    """The number of pixels at each of the 256 grey levels of a map."""
    return np.bincount(plane.ravel(), minlength=256)


def grey_level(threshold: float) -> int:
    """The lowest grey level that reaches a probability; 256 where none does."""
    return int(np.count_nonzero(threshold > GREY))


def evidence(levels: NDArray[np.integer[Any]]) -> float:
    """How strongly a map speaks for a splice: log-odds of the mean of its most suspicious `EVIDENCE_SHARE` of pixels.

    levels: 256, the number of pixels of each grey level. Between -6.2 and 6.2.
    """
    wanted = max(1, round(EVIDENCE_SHARE * int(levels.sum())))
    taken = np.diff(np.minimum(np.cumsum(levels[::-1]), wanted), prepend=0)
    mean = float(taken @ np.arange(255, -1, -1)) / wanted / 255
    mean = min(max(mean, 0.5 / 255), 1 - 0.5 / 255)
    return math.log(mean / (1 - mean))


def score(evidence: float, pixels: int, calibration: Calibration) -> float:
    """The calibrated probability, in [0, 1], that a picture holds a splice of which the network saw so many pixels."""
    counted = min(max(pixels, calibration.least_pixels), calibration.most_pixels)
    odds = calibration.slope * (evidence - calibration.growth * math.log(counted)) + calibration.intercept
    return (1 + math.tanh(odds / 2)) / 2  # the logistic function, finite whatever a bundle says


def verdict(score: float, pixels: int, calibration: Calibration, quality: int | None = None) -> Verdict:
    """What to call a picture of this score of which the network saw so many pixels: the tool may be unsure.

    `quality`: at which it was saved, if as a JPEG whose pixels the network saw much as they are.
    """
    if score >= calibration.spliced:
        return "spliced" if pixels >= calibration.small else "inconclusive"
    told = quality is None or quality >= TELLING_QUALITY
    return "authentic" if score <= calibration.authentic and told else "inconclusive"


def regions(mask: NDArray[np.uint8], level: int, box: tuple[int, int, int, int]) -> list[Region]:
    """The connected areas (8-neighbourhood) that reach a grey level, most suspicious first, at most `MOST_REGIONS`.

    `box` (left, top, width, height) holds all that reaches it: only there is looked.
    """
    x, y, w, h = box
    looked_at = mask[y : y + h, x : x + w]
    _, parts, stats, _ = cv2.connectedComponentsWithStats((looked_at >= level).view(np.uint8))
    large = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= SMALLEST_REGION * mask.size) + 1
    found = []
    for part in large:
        left, top, width, height, area = (int(value) for value in stats[part])
        window = np.s_[top : top + height, left : left + width]
        inside = (parts[window] == part).view(np.uint8)
        score = cv2.mean(looked_at[window], inside)[0] / 255
        left, top = left + x, top + y
        outline = _outline(inside, (left, top))
        found.append(Region((left, top, width, height), area / mask.size, score, outline))
    found.sort(key=lambda region: region.score * region.area_fraction, reverse=True)
    return found[:MOST_REGIONS]


def _outline(part: NDArray[np.uint8], offset: tuple[int, int]) -> list[tuple[int, int]]:
    """Of one connected area, which has one outer contour."""
    (contour,), _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=offset)
    simple = cv2.approxPolyDP(contour, max(1.0, 0.0015 * cv2.arcLength(contour, True)), True)
    return [(int(x), int(y)) for x, y in simple[:, 0]]


def objects(shares: NDArray[np.float64], names: tuple[str, ...]) -> list[SeenObject]:
    """The classes that fill a share of the picture worth naming, largest first. shares: K in [0, 1]."""
    seen = [
        SeenObject(name, float(share)) for name, share in zip(names, shares, strict=True) if share >= SMALLEST_OBJECT
    ]
    return sorted(seen, key=lambda each: each.area_fraction, reverse=True)
