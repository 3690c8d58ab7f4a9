"""Overlays show the picture where nothing is suspicious and heat where something is."""

import numpy as np

from mag_rt.findings import Finding, Region
from mag_rt.sinks.images import STRONGEST_HEAT, as_grey, draw_overlay, file_name


def test_the_heat_follows_the_probability_as_eq1_blends_it() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    probability = np.zeros((40, 60), np.float32)
    probability[10:20, 10:30] = 1.0
    overlay = draw_overlay(picture, Finding("a.jpg", probability=probability, picture=picture))
    hot = probability > 0
    assert np.array_equal(overlay[~hot], picture[~hot])
    heat = overlay[hot].astype(float) - (1 - STRONGEST_HEAT) * picture[hot]
    assert np.ptp(heat, axis=0).max() <= 2  # one colour, whatever the picture is


def test_regions_are_outlined() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    region = Region((10, 10, 30, 30), 0.25, 0.9, [(10, 10), (39, 10), (39, 39), (10, 39)])
    finding = Finding("a.jpg", regions=[region], probability=np.zeros((60, 60), np.float32), picture=picture)
    overlay = draw_overlay(picture, finding)
    assert overlay[10, 25].min() > 200 and overlay[25, 39].min() > 200 and overlay[25, 25].max() < 50
    assert not picture.any()  # the caller's picture is not drawn on


def test_probability_is_rounded_to_8_bits() -> None:
    assert as_grey(np.array([[0, 0.5, 0.998, 1.0]], np.float32)).tolist() == [[0, 128, 254, 255]]


def test_names_are_recognisable_and_differ_by_path_and_frame() -> None:
    names = {file_name(Finding(source, frame)) for source in ("a/x.jpg", "b/x.jpg") for frame in (None, 0, 1)}
    assert len(names) == 6 and all(name.startswith("x-") for name in names)
    assert "/" not in file_name(Finding("../../etc/pass wd?.jpg"))
