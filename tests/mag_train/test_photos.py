"""Training photos are found by manifest or by folder, and a label map that does not fit is refused by name."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mag_rt import PictureError
from mag_train.data.photos import UNLABELLED, Photo, labelled_photos
from tests.conftest import save


def test_a_folder_pairs_images_and_labels_by_stem(photo_folder: Path) -> None:
    photos = labelled_photos(photo_folder)
    assert [photo.image.stem for photo in photos] == [f"{index:02d}" for index in range(12)]
    assert photos[5].labels is None and photos[6].labels == photo_folder / "labels" / "06.png"


def test_the_photos_of_a_folder_are_to_train_on(photo_folder: Path) -> None:
    with pytest.raises(ValueError, match="no photos of role 'calibration'"):
        labelled_photos(photo_folder, "calibration")


def test_a_photo_without_labels_is_unlabelled_everywhere(photo_folder: Path) -> None:
    image, labels = labelled_photos(photo_folder)[5].read()
    assert labels.shape == image.shape[:2] and (labels == UNLABELLED).all()


def test_a_manifest_gives_the_photos_of_one_role(tmp_path: Path) -> None:
    rows = ["role\timage\tlabel", "training\ta.jpg\ta.png", "development\tb.jpg\t", "training\tc.jpg\t"]
    (tmp_path / "manifest.tsv").write_text("\n".join(rows) + "\n")
    assert labelled_photos(tmp_path) == [Photo(tmp_path / "a.jpg", tmp_path / "a.png"), Photo(tmp_path / "c.jpg", None)]
    assert labelled_photos(tmp_path, "development") == [Photo(tmp_path / "b.jpg", None)]


@pytest.mark.parametrize(("first", "ends"), [("\ufeff", "\r\n"), ("\ufeff", "\n"), ("", "\r\n")])
def test_a_manifest_may_come_from_windows(first: str, ends: str, tmp_path: Path) -> None:
    rows = ["role\timage\tlabel", "training\ta.jpg\ta.png", "training\tb.jpg\t"]
    (tmp_path / "manifest.tsv").write_bytes((first + ends.join(rows) + ends).encode())
    assert labelled_photos(tmp_path) == [Photo(tmp_path / "a.jpg", tmp_path / "a.png"), Photo(tmp_path / "b.jpg", None)]


def test_a_manifest_without_its_columns_and_a_corrupt_photo_are_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.tsv").write_text("image\tkind\na.jpg\tx\n")
    with pytest.raises(ValueError, match=r"manifest\.tsv: lacks the column label, role"):
        labelled_photos(tmp_path)
    (tmp_path / "manifest.tsv").write_text("label\trole\timage\n\ttraining\n")
    with pytest.raises(ValueError, match=r"manifest\.tsv: a row of role 'training' names no image"):
        labelled_photos(tmp_path)
    (tmp_path / "manifest.tsv").write_bytes(b"image\trole\tlabel\n\xff.jpg\ttraining\t\n")
    with pytest.raises(ValueError, match=r"manifest\.tsv: not a table of tabs in UTF-8"):
        labelled_photos(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"corrupt")
    with pytest.raises(PictureError, match=r"bad\.jpg"):
        Photo(tmp_path / "bad.jpg", None).read()


def test_labels_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    labels = save(tmp_path / "wrong.png", np.zeros((20, 10), np.uint8))
    with pytest.raises(ValueError, match=r"wrong\.png"):
        Photo(image, labels).read()


def test_labels_with_unknown_classes_are_refused_by_name(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    labels = save(tmp_path / "odd.png", np.full((10, 20), 11, np.uint8))
    with pytest.raises(ValueError, match=r"odd\.png: class 11 is neither 0 to 10 nor 255"):
        Photo(image, labels).read()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.png", b"", "ends too early"),
        ("text.png", b"text", "no picture"),
        (
            "cut.png",
            cv2.imencode(".png", np.random.default_rng(0).integers(0, 9, (90, 90), np.uint8))[1][:2000],
            "early",
        ),
        ("palette.png", cv2.imencode(".png", np.zeros((10, 20, 3), np.uint8))[1], "one id a pixel"),
        ("deep.png", cv2.imencode(".png", np.full((10, 20), 256, np.uint16))[1], "class 256 is neither"),
        ("broken.npz", b"PK broken", "not a label map"),
    ],
)
def test_a_file_that_is_no_label_map_is_refused_by_name(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    (tmp_path / name).write_bytes(bytes(data))
    with pytest.raises(ValueError, match=f"{name}: .*{reason}"):
        Photo(image, tmp_path / name).read()


@pytest.mark.parametrize("layers", [(), (1,)])
def test_labels_may_be_an_array(tmp_path: Path, layers: tuple[int, ...]) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    np.savez_compressed(tmp_path / "a.npz", np.full((10, 20, *layers), 3, np.int64))
    labels = Photo(image, tmp_path / "a.npz").read()[1]
    assert labels.dtype == np.uint8 and labels.shape == (10, 20) and (labels == 3).all()


def test_an_empty_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither manifest\.tsv nor a folder images"):
        labelled_photos(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="no photos"):
        labelled_photos(tmp_path)
