"""From maps to statements: numbers worked out by hand."""

import math

import numpy as np
import pytest

from mag_rt.bundle import CLASS_NAMES
from mag_rt.findings import Finding, evidence, objects, regions, score, verdict
from tests.conftest import CALIBRATION


def test_evidence_is_the_log_odds_of_the_most_suspicious_half_a_percent() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[0, :25] = 0.8  # 25 pixels of the 50 that count; the rest are 0
    assert evidence(probability) == pytest.approx(math.log(0.4 / 0.6))


def test_evidence_stays_finite_and_a_single_pixel_has_one() -> None:
    assert evidence(np.zeros((50, 50), np.float32)) == pytest.approx(-evidence(np.ones((50, 50), np.float32)))
    assert math.isfinite(evidence(np.ones((1, 1), np.float32)))


def test_score_and_verdict() -> None:
    assert score(0.0, CALIBRATION) == 0.5
    assert score(math.log(3), CALIBRATION) == pytest.approx(0.75)
    verdicts = [verdict(value, CALIBRATION) for value in (0.0, 0.3, 0.31, 0.69, 0.7, 1.0)]
    assert verdicts == ["authentic", "authentic", "inconclusive", "inconclusive", "spliced", "spliced"]


def test_regions_have_the_place_size_and_outline_of_what_is_suspicious() -> None:
    probability = np.full((100, 200), 0.1, np.float32)
    probability[20:50, 30:90] = 0.9
    probability[70:80, 150:160] = 0.6
    large, small = regions(probability, 0.5)
    assert large.bbox == (30, 20, 60, 30) and small.bbox == (150, 70, 10, 10)
    assert large.area_fraction == pytest.approx(0.09) and small.area_fraction == pytest.approx(0.005)
    assert large.score == pytest.approx(0.9) and small.score == pytest.approx(0.6)
    assert set(large.polygon) == {(30, 20), (89, 20), (89, 49), (30, 49)}


def test_a_speck_is_no_region_and_the_threshold_belongs_to_it() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[3, 3] = 1.0
    probability[50:60, 50:60] = 0.5
    assert [region.bbox for region in regions(probability, 0.5)] == [(50, 50, 10, 10)]


def test_an_area_with_a_hole_gets_its_outer_outline() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[20:80, 20:80] = 1.0
    probability[40:60, 40:60] = 0.0
    (ring,) = regions(probability, 0.5)
    assert ring.area_fraction == pytest.approx(0.32)
    assert set(ring.polygon) == {(20, 20), (79, 20), (79, 79), (20, 79)}


def test_objects_are_named_largest_first() -> None:
    maps = np.zeros((len(CLASS_NAMES), 100, 100), np.float32)
    maps[CLASS_NAMES.index("dog"), :10] = 0.9
    maps[CLASS_NAMES.index("car"), 50:] = 0.5
    maps[CLASS_NAMES.index("cat"), 0, :99] = 1.0  # under a hundredth of the picture
    assert [(seen.name, seen.area_fraction) for seen in objects(maps, CLASS_NAMES)] == [("car", 0.5), ("dog", 0.1)]


def test_pixels_can_be_dropped() -> None:
    finding = Finding("a.jpg", probability=np.zeros((2, 2), np.float32), picture=np.zeros((2, 2, 3), np.uint8))
    assert finding.without_pixels() == Finding("a.jpg")
