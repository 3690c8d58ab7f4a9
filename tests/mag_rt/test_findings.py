"""From maps to statements: numbers worked out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mag_rt.bundle import CLASS_NAMES
from mag_rt.findings import (
    MOST_REGIONS,
    TELLING_QUALITY,
    Counts,
    Finding,
    Region,
    SeenObject,
    count,
    evidence,
    grey_level,
    levels,
    objects,
    read,
    regions,
    score,
    together,
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
    assert nothing == pytest.approx(-all_of_it) == pytest.approx(-6.2, abs=0.05)
    assert math.isfinite(evidence(levels(np.full((1, 1), 255, np.uint8))))


def test_score_and_verdict() -> None:
    assert score(0.0, 1, CALIBRATION) == 0.5
    assert score(math.log(3), 1, CALIBRATION) == pytest.approx(0.75)
    verdicts = [verdict(value, 1, CALIBRATION) for value in (0.0, 0.3, 0.31, 0.69, 0.7, 1.0)]
    assert verdicts == ["authentic", "authentic", "inconclusive", "inconclusive", "spliced", "spliced"]


def test_a_small_picture_is_not_called_spliced() -> None:
    small = replace(CALIBRATION, small=50_000)
    assert [verdict(1.0, pixels, small) for pixels in (1, 49_999, 50_000)] == ["inconclusive"] * 2 + ["spliced"]
    assert [verdict(value, 100, small) for value in (0.0, 0.5)] == ["authentic", "inconclusive"]


def test_a_picture_that_was_saved_coarsely_is_not_called_authentic() -> None:
    found = [verdict(0.0, 1, CALIBRATION, quality) for quality in (None, 100, TELLING_QUALITY, TELLING_QUALITY - 1, 1)]
    assert found == ["authentic"] * 3 + ["inconclusive"] * 2
    assert [verdict(value, 1, CALIBRATION, 1) for value in (0.5, 1.0)] == ["inconclusive", "spliced"]


def test_the_larger_a_picture_the_more_evidence_the_same_score_takes() -> None:
    """Within the sizes that the calibration knows: beyond them nobody has measured."""
    sized = replace(CALIBRATION, growth=0.5, least_pixels=100, most_pixels=10_000)
    base = score(0.5 * math.log(1_000), 1_000, sized)
    assert base == 0.5
    assert score(0.5 * math.log(2_000), 2_000, sized) == pytest.approx(base)
    assert score(1.0, 50, sized) == score(1.0, 100, sized) > score(1.0, 101, sized)
    assert score(1.0, 20_000, sized) == score(1.0, 10_000, sized) < score(1.0, 9_999, sized)


def test_a_score_is_a_number_whatever_a_bundle_says() -> None:
    wild = replace(CALIBRATION, slope=-50.0, intercept=300.0, growth=50.0, most_pixels=1 << 40)
    assert [score(value, 1 << 50, wild) for value in (-6.2, 6.2)] == [1.0, 1.0]
    assert score(6.2, 1 << 50, replace(wild, slope=50.0)) == 0.0


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
    probability[3, 3:7] = 1.0
    probability[50:60, 50:60] = 0.5
    assert [region.bbox for region in found(probability)] == [(50, 50, 10, 10)]
    probability[3, 7] = 1.0  # a two-thousandth of the picture
    assert [region.bbox for region in found(probability)] == [(50, 50, 10, 10), (3, 3, 5, 1)]


def test_the_most_suspicious_regions_come_first_and_no_more_than_can_be_looked_at() -> None:
    """Neither the largest nor the hottest."""
    probability = np.zeros((100, 100), np.float32)
    probability[:20, :50] = 0.6
    probability[30:50, :40] = 0.9
    probability[60:70, :20] = 1.0
    assert [region.bbox[1] for region in found(probability)] == [30, 0, 60]
    probability[75::5, ::5] = 1.0  # a pixel each is a speck ...
    assert len(found(probability)) == 3
    probability = np.kron(np.arange(1, 26, dtype=np.float32).reshape(5, 5) / 50 + 0.5, np.pad(np.ones((9, 9)), (0, 1)))
    assert len(found(probability)) == MOST_REGIONS
    assert min(region.score for region in found(probability)) == pytest.approx(0.62, abs=0.01)


def test_areas_that_touch_at_a_corner_are_one_region_and_others_in_its_box_are_not() -> None:
    probability = np.zeros((100, 100), np.float32)
    probability[10:20, 10:20] = probability[20:40, 20:40] = 0.8
    probability[10:15, 30:40] = 0.6
    large, small = found(probability)
    assert large.bbox == (10, 10, 30, 30) and large.area_fraction == pytest.approx(0.05)
    assert large.score == pytest.approx(0.8, abs=2e-3) and small.score == pytest.approx(0.6, abs=2e-3)


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
    mask[60, 70:76] = 255  # a speck of the picture, though not of the box
    assert regions(mask, 128, (30, 20, 130, 60)) == regions(mask, 128, (0, 0, 200, 100))


def test_objects_are_named_largest_first() -> None:
    shares = np.zeros(len(CLASS_NAMES))
    shares[CLASS_NAMES.index("dog")] = 0.1
    shares[CLASS_NAMES.index("car")] = 0.5
    shares[CLASS_NAMES.index("bus")] = 0.01
    shares[CLASS_NAMES.index("cat")] = 0.0099  # under a hundredth of the picture
    seen = [(each.name, each.area_fraction) for each in objects(shares, CLASS_NAMES)]
    assert seen == [("car", 0.5), ("dog", 0.1), ("bus", 0.01)]


def test_a_reading_says_what_the_maps_hold() -> None:
    maps = np.zeros((2 + len(CLASS_NAMES), 80, 120), np.uint8)
    maps[0, 10:40, 20:50] = 230
    maps[2 + CLASS_NAMES.index("cat"), :20] = 128  # just likely
    maps[2 + CLASS_NAMES.index("dog"), :40] = 127
    mask = maps[0]
    counts = count(maps, mask, 0.5)
    assert counts.suspicious == 900 and counts.box == (20, 10, 30, 30)
    reading = read((mask, counts), 0.5, CLASS_NAMES)
    assert reading.evidence == evidence(levels(maps[0]))
    assert [region.bbox for region in reading.regions] == [(20, 10, 30, 30)]
    assert [(seen.name, seen.area_fraction) for seen in reading.objects] == [("cat", 0.25)]
    assert reading.mask is mask
    larger = np.repeat(np.repeat(mask, 2, 0), 2, 1)  # of a picture that was shrunk for the network
    assert read((larger, count(maps, larger, 0.5)), 0.5, CLASS_NAMES).objects == reading.objects


def test_two_looks_that_agree_say_what_one_says() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    counts = Counts(np.bincount(ramp.ravel(), minlength=256), np.arange(10), 128, (0, 8, 16, 8))
    both, counted = together((ramp, counts), ramp, 0.5)
    assert np.array_equal(both, ramp) and counted == counts


def test_of_two_looks_the_surer_one_counts_more() -> None:
    one, other = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    counts = Counts(np.arange(256), np.arange(10), 0, (0, 0, 0, 0))
    both, counted = together((one, counts), other, 0.5)
    odds = np.log((one / 255 + 0.02) / (1.02 - one / 255)) + np.log((other / 255 + 0.02) / (1.02 - other / 255))
    clear = np.abs(odds) > 1e-6
    assert np.array_equal((both >= 128)[clear], (odds > 0)[clear])
    assert np.array_equal(both, together((other, counts), one, 0.5)[0])
    steps = np.diff(both.astype(int), axis=0)
    assert steps.min() >= 0 and steps.max() <= 7  # rounded another way in one look, it is not another mask
    assert both[128, 255] > 200 > (128 + 255) / 2  # undecided and sure: nearly sure
    assert counted.suspicious == (both >= 128).sum() and counted.box == (0, 0, 256, 256)
    # The score and the objects are those of the whole picture.
    assert counted.levels is counts.levels and counted.likely is counts.likely


def test_where_little_is_suspicious_no_region_is_looked_for() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[5, :4] = 255  # under SMALLEST_REGION
    nothing = np.zeros(len(CLASS_NAMES), int)
    flat = np.bincount(mask.ravel(), minlength=256)
    assert read((mask, Counts(flat, nothing, 4, (0, 5, 4, 1))), 0.5, CLASS_NAMES).regions == []
    mask[5, 4] = 255
    assert len(read((mask, Counts(flat, nothing, 5, (0, 5, 5, 1))), 0.5, CLASS_NAMES).regions) == 1
    assert read((mask * 0, Counts(flat, nothing, 0, (0, 0, 0, 0))), 0.5, CLASS_NAMES).regions == []


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.31, 0.5, 77 / 255, 1.0, 1.1])
def test_a_grey_level_reaches_the_threshold_as_its_probability_does(threshold: float) -> None:
    every = np.arange(256)
    assert ((every >= grey_level(threshold)) == (every.astype(np.float32) / np.float32(255) >= threshold)).all()


def test_the_probability_is_that_of_the_mask_and_pixels_can_be_dropped() -> None:
    finding = Finding("a.jpg", mask=np.array([[0, 51, 255]], np.uint8), picture=np.zeros((1, 3, 3), np.uint8))
    assert finding.probability.dtype == np.float32 and finding.probability.tolist() == [[0, pytest.approx(0.2), 1]]
    assert finding.without_pixels() == Finding("a.jpg") and finding.without_pixels().probability is None


def test_a_line_keeps_four_digits_of_a_score_and_leads_back_to_the_source() -> None:
    region = Region((1, 2, 3, 4), 0.1234567, 0.7654321, [(1, 2), (3, 5)])
    finding = Finding("in/a.jpg", score=0.1234567, regions=[region], objects=[SeenObject("dog", 0.7654321)])
    line = {"source": "../in/a.jpg", **finding.as_json()}
    again = Finding.from_json(line, Path("out"))
    assert again.source == "in/a.jpg" and again.score == 0.1235 and again.objects == [SeenObject("dog", 0.7654)]
    assert again.regions == [Region((1, 2, 3, 4), 0.12346, 0.7654, [(1, 2), (3, 5)])]
