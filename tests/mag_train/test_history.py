"""What pictures go through leaves them where they were."""

import io

import cv2
import numpy as np
import PIL.Image
import PIL.JpegImagePlugin
import pytest

from mag_train.data import history
from tests.mag_train.conftest import labelled_photo


@pytest.mark.parametrize("codec", history.FILM_CODECS)
@pytest.mark.parametrize("shape", [(96, 128), (97, 131), (9, 11)])
def test_a_frame_of_a_film_shows_the_picture_where_it_was(
    codec: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FILM_CODECS", (codec,))
    image, _ = labelled_photo(3, *shape)
    seen, again = (history.filmed(image, np.random.default_rng(7)) for _ in range(2))
    assert seen.shape == image.shape and np.array_equal(seen, again)
    differences = [np.abs(np.roll(seen, shift, axis=1).astype(int) - image).mean() for shift in (-3, 0, 3)]
    assert 0.3 < differences[1] < 12 and differences[1] == min(differences)


def test_editing_a_picture_as_a_whole_moves_nothing() -> None:
    image, _ = labelled_photo(3)
    for seed in range(20):
        edited = history.edited(image, np.random.default_rng(seed))
        assert edited.shape == image.shape and edited.dtype == np.uint8
        assert np.corrcoef(edited.ravel(), image.ravel())[0, 1] > 0.95 and not np.array_equal(edited, image)


@pytest.mark.parametrize("seed", range(20))
def test_a_picture_that_was_sent_on_is_where_it_was(seed: int) -> None:
    slope = np.linspace(0, 255, 64 * 96 * 3).reshape(64, 96, 3).astype(np.uint8)
    sent = history.sent_on(slope, np.random.default_rng(seed))
    assert sent.shape == slope.shape and np.abs(sent.astype(int) - slope).mean() < 4


def test_files_have_the_tables_of_libjpeg_of_cameras_and_of_photo_editors() -> None:
    """Photoshop quantises high frequencies hardly more than low ones: 12 to 24, where the standard has 16 to 121."""
    image, _ = labelled_photo(3)
    frequency = np.add.outer(np.arange(8), np.arange(8)).ravel()
    standard = history._standard_tables()[0]
    tilts = []
    for seed in range(200):
        table = tables_of(history.jpeg(image, 60, 80, np.random.default_rng(seed)))
        tilts.append(np.polyfit(frequency / 14, np.log(table / standard), 1)[0])
    of_libjpeg = np.abs(tilts) < 0.05
    assert 0.4 < np.mean(of_libjpeg) < 0.65
    assert np.mean(np.array(tilts) < -1.1) > 0.15 and np.mean(~of_libjpeg & (np.abs(tilts) < 0.9)) > 0.15


@pytest.mark.parametrize("own_tables", [0.0, 1.0])
def test_files_have_every_chroma_sampling_and_quality_and_the_colours_of_the_picture(
    own_tables: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes them: libjpeg with its own tables, or Pillow with those of others."""
    monkeypatch.setattr(history, "OWN_TABLES", own_tables)
    image = np.full((64, 64, 3), (30, 90, 200), np.uint8)
    image[:32] = (200, 120, 40)
    samplings, steps = set(), set()
    for seed in range(60):
        file = history.jpeg(image, 50, 100, np.random.default_rng(seed))
        steps.add(tables_of(file).mean())
        with PIL.Image.open(io.BytesIO(file)) as picture:
            samplings.add(PIL.JpegImagePlugin.get_sampling(picture))
            assert np.abs(np.array(picture)[..., ::-1].astype(int) - image)[4:24].max() < 12
    assert samplings == {0, 1, 2} and len(steps) > 25


def test_finished_pictures_are_edited_blurred_made_noisy_filmed_and_saved_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    for name in ("edited", "blurred", "noisy", "filmed", "saved"):
        monkeypatch.setattr(history, name, lambda image, *_, name=name: seen.append(name) or image)
    for seed in range(1000):
        history.publish(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(seed))
    shares = {name: seen.count(name) / 1000 for name in seen}
    assert shares == pytest.approx(
        {"edited": 0.25, "blurred": 0.2, "noisy": 0.2, "filmed": 0.06, "saved": 0.75}, abs=0.05
    )
    assert shares["filmed"] > 0.03


def test_four_in_ten_pictures_that_are_sent_on_get_another_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "saved", lambda image, *_: sizes.append(image.shape[:2]) or image)
    sizes: list[tuple[int, int]] = []
    for seed in range(400):
        history.sent_on(np.zeros((40, 40, 3), np.uint8), np.random.default_rng(seed))
    moved = [size for size in sizes if size != (40, 40)]
    assert 0.3 < len(moved) / len(sizes) < 0.5
    assert {max(side) for side in zip(*moved, strict=True)} == {40 + history.BLOCK - 1}


def test_grain_is_as_strong_as_it_is_said_to_be() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    spreads = [history.noisy(grey, 2.0, 4.0, np.random.default_rng(seed)).std() for seed in range(30)]
    assert 1.9 < min(spreads) < 2.5 and 3.5 < max(spreads) < 4.1


def test_grain_makes_nothing_brighter_or_darker_and_white_stays_white() -> None:
    grey, white = (np.full((64, 64, 3), level, np.uint8) for level in (128, 255))
    assert abs(history.noisy(grey, 4.0, 4.0, np.random.default_rng(0)).mean() - 128) < 0.2
    assert history.noisy(white, 4.0, 4.0, np.random.default_rng(0)).min() > 220


def test_edits_leave_black_black_and_white_white_and_sharpen_what_they_sharpen() -> None:
    image, _ = labelled_photo(3)
    halves = np.zeros_like(image)
    halves[:, 80:] = 255
    for seed in range(40):
        black, white = np.split(history.edited(halves, np.random.default_rng(seed)), 2, axis=1)
        assert black.mean() < 40 and white.mean() > 215
        if np.random.default_rng(seed).integers(5) < 2:
            sharpened = history.edited(image, np.random.default_rng(seed))
            assert cv2.Laplacian(sharpened, cv2.CV_64F).std() > 1.1 * cv2.Laplacian(image, cv2.CV_64F).std()


def test_tables_of_others_are_about_as_coarse_as_libjpegs_at_any_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "OWN_TABLES", 1.0)
    image, _ = labelled_photo(3)
    standard = history._standard_tables()[0]
    for quality, factor in ((20, 2.5), (75, 0.5)):  # libjpeg's rule
        files = (history.jpeg(image, quality, quality, np.random.default_rng(seed)) for seed in range(100))
        steps = np.array([tables_of(file) for file in files])[:, 4] / standard[4]  # where no tilt changes much
        assert 0.85 * factor < np.median(steps) < 1.15 * factor
    finest = (tables_of(history.jpeg(image, 100, 100, np.random.default_rng(seed))) for seed in range(5))
    assert min(min(table) for table in finest) == 1


def test_shapes_are_polygons_ellipses_and_boxes() -> None:
    filled = np.array([history.random_shape(60, 80, np.random.default_rng(seed)).mean() for seed in range(300)])
    boxes, ellipses = filled == 1, (filled > 0.72) & (filled < 0.8)
    assert 0.12 < boxes.mean() < 0.28 and ellipses.mean() > 0.17 and (filled < 0.72).mean() > 0.35


def tables_of(file: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(file)) as image:
        return np.array(image.quantization[0], float)
