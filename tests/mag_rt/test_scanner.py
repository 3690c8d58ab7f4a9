"""The road from source to finding, with a network whose answer is known: spliced is what is red."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mag_rt import Scanner, bundle
from mag_rt.bundle import Bundle
from mag_rt.errors import MagrtError
from tests.conftest import grey_with_red_box, save

EXAMPLES = Path(__file__).parents[2] / "examples/photos"


@pytest.fixture
def scanner(red_model: Path):
    with Scanner(red_model) as scanner:
        yield scanner


@pytest.mark.parametrize("isolate", [False, True] if os.name == "posix" else [False])
def test_a_jpeg_that_was_saved_coarsely_is_not_called_authentic(red_model: Path, tmp_path: Path, isolate: bool) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    save(tmp_path / "in" / "a.png", picture)
    for quality in (60, 95):
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        (tmp_path / "in" / f"{quality}.jpg").write_bytes(jpeg)
    with Scanner(red_model, isolate=isolate) as scanner:
        verdicts = {Path(each.source or "").name: each.verdict for each in scanner.scan(tmp_path / "in")}
        assert scanner.scan_image(picture).verdict == "authentic"
    assert verdicts == {"60.jpg": "inconclusive", "95.jpg": "authentic", "a.png": "authentic"}
    with Scanner(red_model, max_side=30, isolate=isolate) as scanner:
        assert {each.verdict for each in scanner.scan(tmp_path / "in")} == {"authentic"}


def test_the_map_lies_where_the_splice_is_at_the_size_of_the_picture(scanner: Scanner) -> None:
    picture = grey_with_red_box(75, 101, (40, 30, 21, 17))
    finding = scanner.scan_image(picture)
    assert (finding.width, finding.height) == (101, 75)
    assert finding.probability is not None and finding.probability.dtype == np.float32
    np.testing.assert_allclose(finding.probability, picture[..., 2] / 255, atol=1e-6)
    assert [region.bbox for region in finding.regions] == [(40, 30, 21, 17)]
    assert finding.verdict == "spliced" and finding.score is not None and finding.score > 0.9


def test_of_a_small_picture_nobody_can_be_sure_but_who_moves_the_threshold(red_bundle: Bundle, tmp_path: Path) -> None:
    small = replace(red_bundle.calibration, small=100 * 80)
    bundle.save(replace(red_bundle, calibration=small), tmp_path / "model")
    pictures = [grey_with_red_box(height, 100, (20, 20, 50, 40)) for height in (79, 80)]
    with Scanner(tmp_path / "model") as scanner:
        under, over = scanner.scan_images(pictures)
    assert (under.verdict, over.verdict) == ("inconclusive", "spliced") and under.regions
    with Scanner(tmp_path / "model", threshold=0.5) as scanner:
        assert scanner.scan_image(pictures[0]).verdict == "spliced"


def test_a_reader_that_does_not_close_leaves_no_process_behind(
    red_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise MagrtError("the GPU is gone")

    scanner = Scanner(red_model, isolate=True)
    assert scanner._decoders is not None
    (worker,) = scanner._decoders._idle
    monkeypatch.setattr(scanner.reader, "close", fail)
    with pytest.raises(MagrtError, match="the GPU is gone"):
        scanner.close()
    assert worker._process.poll() is not None


def test_the_thorough_annotator_that_ships_says_the_same_of_a_mirror_image() -> None:
    photo = cv2.imread(str(EXAMPLES / "spliced-sheep-meadow.jpg"))[192:448, 64:384]  # whole blocks: nothing is padded
    with Scanner("thorough", precision="float32") as scanner:
        finding, mirrored = scanner.scan_images([photo, np.ascontiguousarray(photo[:, ::-1])])
    assert finding.mask is not None and mirrored.mask is not None and finding.mask.max() > 128
    np.testing.assert_allclose(mirrored.mask[:, ::-1].astype(int), finding.mask, atol=1)
    assert mirrored.score == pytest.approx(finding.score, abs=0.02)


def test_a_large_picture_is_shrunk_for_the_network_and_its_map_brought_back(scanner: Scanner) -> None:
    picture = grey_with_red_box(600, 1000, (400, 300, 200, 100))  # max_side of the bundle is 256
    finding = scanner.scan_image(picture)
    assert finding.probability is not None and finding.probability.shape == (600, 1000)
    (region,) = finding.regions
    assert np.abs(np.array(region.bbox) - (400, 300, 200, 100)).max() <= 4
    assert np.abs(finding.probability - picture[..., 2] / 255).mean() < 0.01


def test_max_side_can_be_chosen(red_model: Path) -> None:
    picture = grey_with_red_box(600, 1000, (401, 301, 9, 9))
    with Scanner(red_model, max_side=1000) as scanner:
        assert [region.bbox for region in scanner.scan_image(picture).regions] == []  # 81 of 600,000 pixels: a speck
        probability = scanner.scan_image(picture).probability
    assert probability is not None and probability[301:310, 401:410].min() > 0.99


def test_tiles_find_what_shrinking_wipes_out_and_where_it_is_to_the_pixel(red_model: Path) -> None:
    line = grey_with_red_box(600, 1000, (401, 0, 1, 600))  # a quarter as red when it is shrunk
    with Scanner(red_model) as scanner:
        assert scanner.scan_image(line).regions == []
    with Scanner(red_model, tiles=True) as scanner:
        assert [region.bbox for region in scanner.scan_image(line).regions] == [(401, 0, 1, 600)]
        box = scanner.scan_image(grey_with_red_box(600, 1000, (401, 301, 40, 30)))
    assert [region.bbox for region in box.regions] == [(401, 301, 40, 30)]


def test_a_large_jpeg_is_decoded_smaller_and_everything_is_said_of_its_own_size(
    scanner: Scanner, tmp_path: Path
) -> None:
    path = save(tmp_path / "large.jpg", grey_with_red_box(1201, 1602, (400, 300, 400, 200)))  # max_side is 256
    (finding,) = scanner.scan([path])
    assert (finding.width, finding.height) == (1602, 1201)
    assert finding.picture is not None and finding.picture.shape == (301, 401, 3)
    assert finding.mask is not None and finding.mask.shape == (1201, 1602)
    (region,) = finding.regions
    assert np.abs(np.array(region.bbox) - (400, 300, 400, 200)).max() <= 8


def test_tiles_of_a_jpeg_are_of_its_own_resolution_too(red_model: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "large.jpg", grey_with_red_box(601, 802, (400, 300, 40, 30)))  # max_side is 256
    with Scanner(red_model, tiles=True) as scanner:
        (finding,) = scanner.scan(path)
    assert finding.picture is not None and finding.picture.shape == (601, 802, 3)
    (region,) = finding.regions
    assert np.abs(np.array(region.bbox) - (400, 300, 40, 30)).max() <= 2


def test_nothing_suspicious(scanner: Scanner) -> None:
    finding = scanner.scan_image(grey_with_red_box(64, 64))
    assert finding.verdict == "authentic" and finding.regions == [] and finding.error is None


def test_pictures_of_many_shapes_keep_their_order(scanner: Scanner) -> None:
    rng = np.random.default_rng(0)
    sizes = [tuple(int(side) for side in rng.integers(1, 200, 2)) for _ in range(25)]
    pictures = [grey_with_red_box(h, w, (0, 0, w // 2, h // 2)) for h, w in sizes]
    findings = scanner.scan_images(pictures)
    assert [(finding.height, finding.width) for finding in findings] == sizes
    for finding, picture in zip(findings, pictures, strict=True):
        assert finding.probability is not None
        np.testing.assert_allclose(finding.probability, picture[..., 2] / 255, atol=1e-6)


def test_files_come_in_source_order_with_their_hash_and_errors_in_their_place(scanner: Scanner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for index in range(16):
        save(folder / f"{index:02d}.png", grey_with_red_box(20 + index, 30))
    (folder / "05.png").write_bytes(b"not a picture")
    findings = list(scanner.scan([folder]))
    assert [Path(finding.source or "").name for finding in findings] == [f"{index:02d}.png" for index in range(16)]
    for index, finding in enumerate(findings):
        if index == 5:
            assert finding.error is not None and finding.error.type == "not-a-picture"
            assert finding.score is None and finding.verdict is None and finding.probability is None
        else:
            assert finding.error is None and finding.height == 20 + index
        assert finding.sha256 == hashlib.sha256((folder / f"{index:02d}.png").read_bytes()).hexdigest()


def test_one_source_needs_no_list(scanner: Scanner, tmp_path: Path) -> None:
    path = save(tmp_path / "in" / "a.png", grey_with_red_box(40, 40))
    for source in (str(path), path, path.parent):
        assert [finding.source for finding in scanner.scan(source)] == [str(path)]


def test_a_file_that_vanishes_costs_one_finding(scanner: Scanner, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("a.png", "b.png"):
        save(folder / name, grey_with_red_box(40, 40))
    findings = scanner.scan([folder])
    (folder / "a.png").unlink()
    first, second = findings
    assert first.error is not None and first.error.type == "unreadable"
    assert second.error is None


def test_a_pipe_is_unreadable_and_nobody_waits_for_it(scanner: Scanner, tmp_path: Path) -> None:
    save(tmp_path / "in" / "b.png", grey_with_red_box(40, 40))
    os.mkfifo(tmp_path / "in" / "a.png")
    first, second = scanner.scan([tmp_path / "in"])
    assert first.error is not None and first.error.message == "not a regular file"
    assert second.error is None


def test_scanning_is_lazy(scanner: Scanner, tmp_path: Path) -> None:
    for index in range(160):
        save(tmp_path / "in" / f"{index:03d}.png", grey_with_red_box(8, 8))
    findings = scanner.scan([tmp_path / "in"])
    next(findings)
    (tmp_path / "in" / f"{159:03d}.png").unlink()  # far ahead of what was asked for
    *_, last = findings
    assert last.error is not None


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8), [[0]]],
)
def test_an_array_that_is_no_picture_is_refused(scanner: Scanner, array) -> None:
    with pytest.raises(ValueError, match="a picture is"):
        scanner.scan_image(array)


def test_a_grey_array_is_a_picture(scanner: Scanner) -> None:
    finding = scanner.scan_image(np.full((33, 47), 255, np.uint8))
    assert finding.probability is not None and finding.probability.min() > 0.99


def test_the_given_array_is_not_changed(scanner: Scanner) -> None:
    picture = grey_with_red_box(50, 50, (10, 10, 20, 20))
    before = picture.copy()
    scanner.scan_image(picture)
    assert np.array_equal(picture, before)


def test_importing_mag_rt_is_light() -> None:
    heavy = "torch", "mag_train", "onnxruntime", "openvino", "onnx", "pycuda", "tensorrt"
    code = f"import sys, mag_rt; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_mag_rt_works_where_torch_and_mag_train_are_not_installed(red_model: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["mag_train"] = None  # importing them now fails
import numpy, mag_rt, mag_rt.cli
print(mag_rt.Scanner({str(red_model)!r}).scan_image(numpy.zeros((9, 9, 3), numpy.uint8)).verdict)
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "authentic"
