"""Degradations do to pictures, and to masks where pixels move, what their names say."""

import cv2
import numpy as np
import pytest

from mag_train import degradations
from mag_train.degradations import UNCHANGED, degradation


def test_degradations_change_picture_and_mask_as_they_say() -> None:
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), (0, 0), 1)
    mask = np.zeros((60, 80), bool)
    mask[12:32, 8:48] = True
    smaller, its_mask = degradation("resize:0.75").apply(picture, mask)
    assert smaller.shape == (45, 60, 3) and its_mask.shape == (45, 60)
    assert its_mask[9:24, 6:36].all() and its_mask.sum() == 15 * 30
    coarse, fine = (degradation(text).apply(picture, mask)[0].astype(int) for text in ("jpeg:30", "jpeg:95"))
    assert np.abs(coarse - picture).mean() > 2 * np.abs(fine - picture).mean() > 0
    shown, its_mask = degradation("screenshot:0.75").apply(picture, mask)
    assert shown.shape == smaller.shape and its_mask.sum() == 15 * 30
    alike = np.corrcoef(shown.mean(axis=2).ravel(), smaller.mean(axis=2).ravel())[0, 1]
    assert 0.9 < alike < 1  # the same picture where it was, saved once more
    blurred, same = degradation("blur:1.5").apply(picture, mask)
    assert degradation("blur:3").apply(picture, mask)[0].std() < 0.8 * blurred.std() < 0.64 * picture.std()
    assert same is mask
    cut, its_mask = degradation("crop:16").apply(picture, mask)
    assert np.array_equal(cut, picture[:44, :64]) and np.array_equal(its_mask, mask[:44, :64])
    assert UNCHANGED.apply(picture, mask)[0] is picture


@pytest.mark.parametrize(
    "text",
    [
        "jpeg",
        "jpeg:0",
        "jpeg:70.5",
        "jpeg:101",
        "resize:-1",
        "resize:0",
        "crop:0",
        "crop:.5",
        "screenshot:9",
        "blur:x",
        "x:1",
    ],
)
def test_a_degradation_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"--degrade {text}: write jpeg"):
        degradation(text)


@pytest.mark.parametrize("text", ["jpeg:1", "jpeg:100", "resize:8", "screenshot:8", "crop:1000", "blur:100"])
def test_the_limits_that_the_message_names_are_allowed(text: str) -> None:
    assert degradation(text).name == text


def test_a_picture_is_made_smaller_by_means_of_what_each_pixel_covers_and_larger_smoothly() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[::2, ::2] = picture[1::2, 1::2] = 200
    smaller, larger = (degradation(f"resize:{factor}").apply(picture, picture[..., 0] > 0)[0] for factor in (0.5, 2))
    assert np.array_equal(smaller, np.full((4, 4, 3), 100))
    assert np.array_equal(larger, cv2.resize(picture, (16, 16), interpolation=cv2.INTER_CUBIC))


def test_a_screenshot_is_saved_as_85_on_a_white_page() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    page = np.full((3 + 32, 5 + 48, 3), 255, np.uint8)
    page[3:, 5:] = cv2.resize(picture, (48, 32), interpolation=cv2.INTER_LINEAR)
    file = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    shown, _ = degradation("screenshot:0.5").apply(picture, np.zeros((64, 96), bool))
    assert np.array_equal(shown, cv2.imdecode(file, cv2.IMREAD_COLOR)[3:, 5:])


def test_the_blocks_of_a_screenshot_lie_elsewhere_than_the_pictures_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degradations, "SCREENSHOT_QUALITY", 5)
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8), (0, 0), 2)
    shown, _ = degradation("screenshot:1").apply(picture, np.zeros((160, 160), bool))
    luma = cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY).astype(int)
    for axis, first in ((0, 8 - 3), (1, 8 - 5)):  # the first row and the first column of a block
        steps = np.abs(np.diff(luma, axis=axis)).mean(axis=1 - axis)
        assert np.argmax([steps[phase::8].mean() for phase in range(8)]) + 1 == first
