"""Which photos of a folder are held out, and which are measured on."""

from pathlib import Path

import pytest

from mag_rt.errors import SourceError
from mag_train.data.opening import authentic_photos, split
from mag_train.data.photos import Photo, labelled_photos
from tests.conftest import save
from tests.mag_train.conftest import labelled_photo
from tests.mag_train.test_ready_made import fantastic_reality


@pytest.fixture
def two_photos(tmp_path: Path) -> Path:
    for name in "ba":
        save(tmp_path / f"{name}.png", labelled_photo(0)[0])
    return tmp_path


def manifest(folder: Path, *rows: str) -> None:
    (folder / "manifest.tsv").write_text("\n".join(["role\timage\tlabel", *rows]))


def test_what_was_trained_on_is_measured_on_what_was_held_out(photo_folder: Path, tmp_path: Path) -> None:
    """The others the network has seen, and would find nothing odd in them."""
    assert authentic_photos(photo_folder, held_out=[]) == split(labelled_photos(photo_folder))[0]
    splices = fantastic_reality(tmp_path, 30)
    held_out = authentic_photos(splices, held_out=[])
    assert [photo.image.parent.name for photo in held_out] == ["ColorRealImages"] * 2
    assert len(authentic_photos(splices)) == 30


def test_a_manifest_has_a_role_for_it(two_photos: Path) -> None:
    manifest(two_photos, "training\ta.png\t", "calibration\tb.png\t")
    for held_out in (None, []):
        assert authentic_photos(two_photos, held_out) == [Photo(two_photos / "b.png", None)]


def test_a_manifest_without_that_role_gives_what_is_trained_on(two_photos: Path) -> None:
    manifest(two_photos, "training\ta.png\t", "development\tb.png\t")
    assert authentic_photos(two_photos) == [Photo(two_photos / "a.png", None)]


def test_what_a_manifest_says_wrongly_is_an_error(two_photos: Path) -> None:
    """And no reason to take other photos than it says."""
    manifest(two_photos, "training\ta.png\t", "calibration\t\t")
    with pytest.raises(ValueError, match="'calibration' names no image"):
        authentic_photos(two_photos)
    manifest(two_photos, "development\ta.png\t")
    with pytest.raises(ValueError, match="no photos of role 'training'"):
        authentic_photos(two_photos)


def test_a_folder_of_authentic_photos_will_do(two_photos: Path) -> None:
    save(two_photos / "below" / "c.jpg", labelled_photo(0)[0])
    (two_photos / "film.mp4").write_bytes(b"no photo")
    assert [photo.image.name for photo in authentic_photos(two_photos)] == ["a.png", "b.png", "c.jpg"]
    with pytest.raises(SourceError):
        authentic_photos(two_photos / "nowhere")


def test_of_a_folder_to_train_on_the_photos_are_taken_and_not_what_lies_beside_them(
    photo_folder: Path, tmp_path: Path
) -> None:
    """Label maps and masks are pictures too, and no network is to see any."""
    assert [photo.image for photo in authentic_photos(photo_folder)] == sorted((photo_folder / "images").iterdir())
    splices = fantastic_reality(tmp_path, 3, masks="png")
    assert {photo.image.parent.name for photo in authentic_photos(splices)} == {"ColorRealImages"}
