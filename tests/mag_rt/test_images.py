"""What the scan draws: overlays that can be printed and read, thumbnails for the report; only what was asked for."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mag_rt.findings import Finding, Region
from mag_rt.pictures import Picture
from mag_rt.sinks.images import (
    NARROWEST_LEGEND,
    STRONGEST_HEAT,
    ImageSink,
    draw_overlay,
    file_name,
    thumbnail_paths,
)


def found(picture: Picture, mask: NDArray[np.uint8], regions: list[Region] | None = None) -> Finding:
    height, width = mask.shape
    return Finding(
        "a.jpg", None, None, width, height, score=0.7, verdict="spliced", regions=regions or [], mask=mask,
        picture=picture,
    )  # fmt: skip


def box(left: int, top: int, side: int) -> Region:
    right, bottom = left + side - 1, top + side - 1
    return Region(
        (left, top, side, side), 0.25, 0.9, [(left, top), (right, top), (right, bottom), (left, bottom)]
    )  # fmt: skip


def black(height: int, width: int) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


def test_the_heat_follows_the_probability_as_eq1_blends_it() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 10:30] = 255
    overlay = draw_overlay(found(picture, mask), picture, mask)
    hot = mask > 0
    assert np.array_equal(overlay[~hot], picture[~hot])
    heat = overlay[hot].astype(float) - (1 - STRONGEST_HEAT) * picture[hot]
    assert np.ptp(heat, axis=0).max() <= 2  # one colour, whatever the picture is


@pytest.mark.parametrize("ground", [0, 255])
def test_an_outline_is_seen_on_bright_ground_and_on_dark(ground: int) -> None:
    picture = np.full((60, 60, 3), ground, np.uint8)
    finding = found(picture, picture[..., 0] * 0, [box(10, 10, 30)])
    overlay = draw_overlay(finding, picture, picture[..., 0] * 0).astype(int)
    across = overlay[25, 36:43].min(axis=1)
    assert across.max() > 200 and across.min() < 50  # light and dark side by side
    assert overlay[25, 25].tolist() == [ground] * 3
    assert (picture == ground).all()  # the caller's picture is not drawn on


def test_outlines_are_as_wide_as_it_takes_to_see_them_in_a_large_picture() -> None:
    picture = black(60, 1500)
    overlay = draw_overlay(found(picture, picture[..., 0], [box(10, 10, 40)]), picture, picture[..., 0])
    assert (overlay[30, :100].min(axis=1) > 200).sum() >= 6  # three for each side


def test_regions_have_numbers_where_there_are_several() -> None:
    picture, mask = black(300, 400), np.zeros((300, 400), np.uint8)
    one, other = box(50, 100, 60), box(250, 100, 60)
    several = draw_overlay(found(picture, mask, [one, other]), picture, mask)[:300]
    alone = draw_overlay(found(picture, mask, [one]), picture, mask)[:300]
    assert several[70:97, 40:60].max() > 200 and several[70:97, 240:260].max() > 200
    assert not alone[70:97, 40:60].any()


def test_numbers_count_from_1_above_the_region_and_inside_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = black(1500, NARROWEST_LEGEND - 1)  # whose letters are large
    right = picture.shape[1] - 5
    tip = Region((60, 50, 50, 50), 0.1, 0.9, [(60, 99), (109, 99), (100, 50)])
    regions = [box(0, 0, 5), box(right, 0, 5), box(0, 1495, 5), box(right, 1495, 5), tip]
    written = []

    def put(
        image: Picture, text: str, at: tuple[int, int], font: int, size: float, _: object, stroke: int, *__: int
    ) -> None:
        wide, high = cv2.getTextSize(text, font, size, stroke)[0]
        written.append((text, at[0], at[0] + wide, at[1] - high, at[1]))

    monkeypatch.setattr(cv2, "putText", put)
    draw_overlay(found(picture, picture[..., 0], regions), picture, picture[..., 0])
    assert [text for text, *_ in written] == ["1", "2", "3", "4", "5"]
    assert all(0 <= left < end <= right + 5 and top >= 0 for _, left, end, top, _ in written)
    assert all(base < 1495 for *_, base in written[2:4])
    _, left, end, _, base = written[4]
    assert left <= 100 <= end and 30 < base < 50


def test_the_legend_lies_below_the_picture_and_hides_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (300, 640, 3), dtype=np.uint8)
    mask = np.zeros((300, 640), np.uint8)
    overlay = draw_overlay(found(picture, mask), picture, mask)
    assert np.array_equal(overlay[:300], picture)
    strip = overlay[300:]
    assert 15 < strip.shape[0] < 60 and strip.max() > 200
    bar = strip[strip.shape[0] // 2].max(axis=1) > 90
    assert bar[:320].sum() > 80  # the colours' end is bright
    sides = [(strip[:, half] > 200).all(axis=2).sum() for half in (slice(0, 320), slice(320, 640))]
    assert min(sides) > 100  # words at both sides


def test_a_picture_too_narrow_for_words_has_no_legend() -> None:
    picture = black(50, NARROWEST_LEGEND - 1)
    assert draw_overlay(found(picture, picture[..., 0]), picture, picture[..., 0]).shape == picture.shape
    picture = black(50, NARROWEST_LEGEND)
    assert draw_overlay(found(picture, picture[..., 0]), picture, picture[..., 0]).shape > picture.shape


def test_a_picture_decoded_smaller_than_its_mask_is_drawn_with_everything_in_its_place(tmp_path: Path) -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[100:400, 100:400] = 255
    _, path = ImageSink(tmp_path).write(found(black(60, 60), mask, [box(100, 100, 300)]))
    overlay = cv2.imread(str(tmp_path / str(path)))
    assert overlay is not None and overlay.shape == (60, 60, 3)
    assert overlay[10, 25].max() > 150 and overlay[20, 20].max() > 50 and overlay[50:, 50:].max() < 20


def test_a_fine_pattern_of_a_large_mask_is_not_passed_over_in_a_small_overlay(tmp_path: Path) -> None:
    mask = np.tile(np.array([255, 255, 255, 0, 0, 255, 255, 255], np.uint8), (400, 50))
    _, path = ImageSink(tmp_path).write(found(black(50, 50), mask))
    overlay = cv2.imread(str(tmp_path / str(path)))
    assert overlay is not None and overlay.max(axis=2).min() > 50


def test_overlays_of_huge_pictures_are_small_enough_to_look_at(tmp_path: Path) -> None:
    picture = black(100, 5000)
    _, path = ImageSink(tmp_path).write(found(picture, picture[..., 0]))
    overlay = cv2.imread(str(tmp_path / str(path)))
    assert overlay is not None and overlay.shape[1] == 2048


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("overlays", [True, False])
@pytest.mark.parametrize("thumbnails", [True, False])
def test_only_what_was_asked_for_is_written(tmp_path: Path, masks: bool, overlays: bool, thumbnails: bool) -> None:
    picture = black(30, 40)
    written = ImageSink(tmp_path, masks, overlays, thumbnails).write(found(picture, picture[..., 0]))
    assert [bool(path) for path in written] == [masks, overlays]
    assert all((tmp_path / path).is_file() for path in written if path)
    folders = {path.parent.name for path in tmp_path.rglob("*") if path.is_file()}
    wanted = {"masks": masks, "overlays": overlays, "thumbnails": thumbnails}
    assert folders == {name for name, on in wanted.items() if on} == {path.name for path in tmp_path.iterdir()}


def test_an_unreadable_source_has_no_pictures(tmp_path: Path) -> None:
    assert ImageSink(tmp_path).write(Finding("a.jpg")) == (None, None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [(30, 40), (1500, 2000), (1501, 999), (3000, 1), (5, 4000)])
def test_thumbnails_are_small_never_enlarged_and_lie_on_each_other(tmp_path: Path, size: tuple[int, int]) -> None:
    picture, mask = black(*size), np.zeros(size, np.uint8)
    picture[:, size[1] // 2 :] = 255
    mask[:, size[1] // 2 :] = 255
    mask_path, overlay = ImageSink(tmp_path).write(found(picture, mask))
    line = {"source": os.path.relpath("a.jpg", tmp_path), "frame": None, "mask": mask_path, "overlay": overlay}
    paths = thumbnail_paths(line, tmp_path)
    photo, small = (cv2.imread(str(tmp_path / path), cv2.IMREAD_UNCHANGED) for path in paths)
    assert photo is not None and small is not None
    assert small.dtype == np.uint8 and small.shape == photo.shape[:2]
    assert max(small.shape) == min(max(size), 384)
    assert np.abs(photo[..., 0].astype(int) - small).mean() < 4


@pytest.mark.parametrize("drawn", [{"masks": False, "overlays": False}, {"masks": False}, {"overlays": False}])
@pytest.mark.parametrize("frame", [None, 7])
@pytest.mark.parametrize("source", ["x.jpg", "a/../b/x y\n.jpg", "caf\udce9.jpg", '"><img src=x>.jpg'])
def test_thumbnails_are_found_again_from_a_line_of_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, frame: int | None, drawn: dict[str, bool]
) -> None:
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    out, picture = Path("results/now"), black(9, 9)
    finding = replace(found(picture, picture[..., 0]), source=source, frame=frame)
    mask, overlay = ImageSink(out, **drawn).write(finding)
    written = {"source": os.path.relpath(source, out), "frame": frame, "mask": mask, "overlay": overlay}
    line = json.loads(json.dumps(written))
    for folder in (out, tmp_path / "before" / out):
        assert all((folder / path).is_file() for path in thumbnail_paths(line, folder))
    (tmp_path / "before").rename(tmp_path / "moved")  # photos and results together
    assert all((tmp_path / "moved" / out / path).is_file() for path in thumbnail_paths(line, tmp_path / "moved" / out))


def test_a_disk_that_fills_up_leaves_no_half_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, picture, really = ImageSink(tmp_path), black(60, 80), Path.write_bytes

    def write_half(path: Path, data: bytes) -> int:
        really(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="No space left"):
        sink.write(found(picture, picture[..., 0]))
    assert not [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg")]


def test_several_threads_may_write_at_once(tmp_path: Path) -> None:
    sink, picture = ImageSink(tmp_path), black(60, 80)
    findings = [replace(found(picture, picture[..., 0]), source=f"{n}.jpg") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(sink.write, findings))
    assert all((tmp_path / path).is_file() for pair in paths for path in pair if path)
    assert not list(tmp_path.rglob("*.partial"))


def test_names_are_recognisable_and_differ_by_path_and_frame() -> None:
    names = {file_name(Finding(source, frame), Path()) for source in ("a/x.jpg", "b/x.jpg") for frame in (None, 0, 1)}
    assert len(names) == 6 and all(name.startswith("x-") for name in names)
    frames = [file_name(Finding("x.mp4", frame), Path()) for frame in (0, 9, 10, 99_999)]
    assert frames == sorted(frames)  # in a folder they lie in the order of time
    assert "/" not in file_name(Finding("../../etc/pass wd?.jpg"), Path())
