"""Overlays show the picture where nothing is suspicious and heat where something is."""

import numpy as np

from mag_rt.findings import Finding, Region
from mag_rt.sinks.images import OVERLAY_SIDE, STRONGEST_HEAT, draw_overlay, file_name


def test_the_heat_follows_the_probability_as_eq1_blends_it() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 255
    overlay = draw_overlay(Finding("a.jpg", mask=mask, picture=picture))
    hot = mask > 0
    assert np.array_equal(overlay[~hot], picture[~hot])
    heat = overlay[hot].astype(float) - (1 - STRONGEST_HEAT) * picture[hot]
    assert np.ptp(heat, axis=0).max() <= 2  # one colour, whatever the picture is


def test_regions_are_outlined() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    region = Region((10, 10, 30, 30), 0.25, 0.9, [(10, 10), (39, 10), (39, 39), (10, 39)])
    finding = Finding("a.jpg", regions=[region], mask=np.zeros((60, 60), np.uint8), picture=picture)
    overlay = draw_overlay(finding)
    assert overlay[10, 25].min() > 200 and overlay[25, 39].min() > 200 and overlay[25, 25].max() < 50
    assert not picture.any()  # the caller's picture is not drawn on


def test_a_picture_decoded_smaller_than_its_mask_is_drawn_with_everything_in_its_place() -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[100:400, 100:400] = 255
    region = Region((100, 100, 300, 300), 0.25, 1.0, [(100, 100), (399, 100), (399, 399), (100, 399)])
    overlay = draw_overlay(Finding("a.jpg", regions=[region], mask=mask, picture=np.zeros((60, 60, 3), np.uint8)))
    assert overlay.shape == (60, 60, 3)
    assert overlay[10, 25].min() > 200 and overlay[20, 20].max() > 50 and not overlay[50:, 50:].any()


def test_overlays_of_huge_pictures_are_small_enough_to_look_at() -> None:
    picture = np.zeros((100, 3 * OVERLAY_SIDE, 3), np.uint8)
    assert draw_overlay(Finding("a.jpg", mask=picture[..., 0], picture=picture)).shape[1] == OVERLAY_SIDE


def test_names_are_recognisable_and_differ_by_path_and_frame() -> None:
    names = {file_name(Finding(source, frame)) for source in ("a/x.jpg", "b/x.jpg") for frame in (None, 0, 1)}
    assert len(names) == 6 and all(name.startswith("x-") for name in names)
    assert "/" not in file_name(Finding("../../etc/pass wd?.jpg"))
