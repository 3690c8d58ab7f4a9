"""What pictures go through leaves them where they were."""

import io

import numpy as np
import PIL.Image
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


def tables_of(file: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(file)) as image:
        return np.array(image.quantization[0], float)
