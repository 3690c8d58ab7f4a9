"""From maps to statements: numbers worked out by hand."""

import math

import numpy as np
import pytest

from mag_rt.bundle import CLASS_NAMES
from mag_rt.findings import (
    Counts,
    Finding,
    Region,
    count,
    evidence,
    grey_level,
    levels,
    objects,
    read,
    regions,
    score,
    verdict,
)
from mag_rt.pictures import as_grey
from tests.conftest import CALIBRATION


def test_evidence_is_the_log_odds_of_the_most_suspicious_hundredth() -> None:
    plane = np.zeros((100, 100), np.uint8)
    plane[0, :50] = 204  # 0.8: 50 pixels of the 100 that count; the rest are 0
    assert evidence(levels(plane)) == pytest.approx(math.log(0.4 / 0.6))


def test_evidence_stays_finite_and_a_single_pixel_has_one() -> None:
    nothing, all_of_it = (evidence(levels(np.full((50, 50), level, np.uint8))) for level in (0, 255))
    assert nothing == pytest.approx(-all_of_it)
    assert math.isfinite(evidence(levels(np.full((1, 1), 255, np.uint8))))


def test_score_and_verdict() -> None:
    assert score(0.0, CALIBRATION) == 0.5
    assert score(math.log(3), CALIBRATION) == pytest.approx(0.75)
    verdicts = [verdict(value, CALIBRATION) for value in (0.0, 0.3, 0.31, 0.69, 0.7, 1.0)]
    assert verdicts == ["authentic", "authentic", "inconclusive", "inconclusive", "spliced", "spliced"]


def found(probability: np.ndarray) -> list[Region]:
    mask = as_grey(probability)
    return regions(mask, grey_level(0.5), (0, 0, *mask.shape[::-1]))


def test_regions_have_the_place_size_and_outline_of_what_is_suspicious() -> None:
    probability = np.full((100, 200), 0.1, np.float32)
    probability[20:50, 30:90] = 0.9
    probability[70:80, 150:160] = 0.6
    large, small = found(probability)
    assert large.bbox == (30, 20, 60, 30) and small.bbox == (150, 70, 10, 10)
    assert large.area_fraction == pytest.approx(0.09) and small.area_fraction == pytest.approx(0.005)
    assert large.score == pytest.approx(0.9, abs=2e-3) and small.score == pytest.approx(0.6, abs=2e-3)
    assert set(large.polygon) == {(30, 20), (89, 20), (89, 49), (30, 49)}


def test_a_speck_is_no_region_and_the_threshold_belongs_to_it() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[3, 3] = 1.0
    probability[50:60, 50:60] = 0.5
    assert [region.bbox for region in found(probability)] == [(50, 50, 10, 10)]


def test_an_area_with_a_hole_gets_its_outer_outline() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[20:80, 20:80] = 1.0
    probability[40:60, 40:60] = 0.0
    (ring,) = found(probability)
    assert ring.area_fraction == pytest.approx(0.32)
    assert set(ring.polygon) == {(20, 20), (79, 20), (79, 79), (20, 79)}


def test_regions_are_the_same_when_their_box_is_known() -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[20:50, 30:90] = 230
    mask[70:80, 150:160] = 150
    assert regions(mask, 128, (30, 20, 130, 60)) == regions(mask, 128, (0, 0, 200, 100))


def test_objects_are_named_largest_first() -> None:
    shares = np.zeros(len(CLASS_NAMES))
    shares[CLASS_NAMES.index("dog")] = 0.1
    shares[CLASS_NAMES.index("car")] = 0.5
    shares[CLASS_NAMES.index("cat")] = 0.0099  # under a hundredth of the picture
    assert [(seen.name, seen.area_fraction) for seen in objects(shares, CLASS_NAMES)] == [("car", 0.5), ("dog", 0.1)]


def test_a_reading_says_what_the_maps_hold() -> None:
    maps = np.zeros((2 + len(CLASS_NAMES), 80, 120), np.uint8)
    maps[0, 10:40, 20:50] = 230
    maps[2 + CLASS_NAMES.index("cat"), :20] = 128  # just likely
    maps[2 + CLASS_NAMES.index("dog"), :40] = 127
    mask = maps[0]
    counts = count(maps, mask, 0.5)
    assert counts.suspicious == 900 and counts.box == (20, 10, 30, 30)
    reading = read(mask, counts, 0.5, CLASS_NAMES)
    assert reading.evidence == evidence(levels(maps[0]))
    assert [region.bbox for region in reading.regions] == [(20, 10, 30, 30)]
    assert [(seen.name, seen.area_fraction) for seen in reading.objects] == [("cat", 0.25)]
    assert reading.mask is mask


def test_where_little_is_suspicious_no_region_is_looked_for() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[5, :4] = 255  # under SMALLEST_REGION
    nothing = np.zeros(len(CLASS_NAMES), int)
    flat = np.bincount(mask.ravel(), minlength=256)
    assert read(mask, Counts(flat, nothing, 4, (0, 5, 4, 1)), 0.5, CLASS_NAMES).regions == []
    assert read(mask * 0, Counts(flat, nothing, 0, (0, 0, 0, 0)), 0.5, CLASS_NAMES).regions == []


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.31, 0.5, 77 / 255, 1.0, 1.1])
def test_a_grey_level_reaches_the_threshold_as_its_probability_does(threshold: float) -> None:
    every = np.arange(256)
    assert ((every >= grey_level(threshold)) == (every.astype(np.float32) / np.float32(255) >= threshold)).all()


def test_the_probability_is_that_of_the_mask_and_pixels_can_be_dropped() -> None:
    finding = Finding("a.jpg", mask=np.array([[0, 51, 255]], np.uint8), picture=np.zeros((1, 3, 3), np.uint8))
    assert finding.probability.dtype == np.float32 and finding.probability.tolist() == [[0, pytest.approx(0.2), 1]]
    assert finding.without_pixels() == Finding("a.jpg") and finding.without_pixels().probability is None
