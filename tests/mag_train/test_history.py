"""What pictures go through leaves them where they were."""

import numpy as np
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
