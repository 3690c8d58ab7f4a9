"""The score is fitted on photos that were not trained on, against authentic ones of the same history."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle, Calibration
from mag_rt.findings import score
from mag_train import calibration
from mag_train.calibration import Evidence, calibrate, calibration_photos, fit_logistic
from mag_train.checkpoint import RunError
from mag_train.data.history import Image
from mag_train.data.photos import Photo, Reader, labelled_photos
from mag_train.data.synthesis import Picture
from tests.conftest import save
from tests.mag_train.conftest import labelled_photo


def test_a_photo_that_cannot_be_read_is_skipped_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png", labelled_photo(0)[0])
    (tmp_path / "images" / "a.png").write_bytes(b"corrupt")
    assert [photo.image.stem for photo in calibration_photos(tmp_path)] == ["b"]
    assert "skipped" in (said := capsys.readouterr().err) and "a.png" in said
    with pytest.raises(RunError, match="none of the photos to calibrate the score on can be read"):
        calibration_photos(tmp_path, held_out=[])  # which held out the first
    with pytest.raises(RunError, match="name a folder of authentic photos by --data"):
        calibration_photos(tmp_path / "nowhere")


def test_the_bundle_of_a_fit_is_held_against_photos_that_it_was_not_fitted_on(
    red_bundle: Bundle, photo_folder: Path
) -> None:
    photos = labelled_photos(photo_folder)
    _, facts = calibrate(red_bundle, photos)
    check = facts["calibration_check"]
    assert check["photos"] == len(photos)
    for kind in ("authentic", "published", "spliced"):
        assert 0 <= check[f"{kind}_called_spliced"] + check[f"{kind}_called_authentic"] <= 1
    assert calibrate(red_bundle, photos[:2])[1]["calibration_check"]["photos"] == 2
    once, again = (calibrate(red_bundle, photos[:1]) for _ in range(2))
    assert once[1] == {}  # no other half
    assert once == again  # on the same splices


def alike(
    kinds: dict[str, NDArray[np.float64]],
    pixels: NDArray[np.int64] | None = None,
    photos: NDArray[np.int64] | None = None,
) -> Evidence:
    count = len(kinds["spliced"])
    return Evidence(
        np.arange(count) if photos is None else photos, np.full(count, 1000) if pixels is None else pixels, kinds
    )


def test_each_half_of_the_photos_is_judged_by_the_fit_of_the_other(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves that lie so far apart that each fit is right on its own one and wrong on the other."""
    photos = np.repeat(np.arange(10), 2)  # two pictures of each, which stay together
    there = 8.0 * (photos % 2)
    evidence = alike({"authentic": there - 2, "published": there - 2, "spliced": there + 2}, photos=photos)
    monkeypatch.setattr(calibration, "_evidence", lambda *_: evidence)
    check = calibrate(red_bundle, [])[1]["calibration_check"]
    assert check["authentic_called_spliced"] == check["published_called_spliced"] == 0.5
    assert check["authentic_called_authentic"] == check["spliced_called_authentic"] == 0.5


def test_evidence_is_of_a_photo_as_it_is_as_published_and_spliced_in_several_sizes(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, plane = np.full((64, 96, 3), 100, np.uint8), np.zeros((64, 96), np.uint8)

    def splice(image: Image, labels: Image, donors: object, size: tuple[int, int], rng: object) -> Picture:
        return Picture(np.full((*size, 3), 140, np.uint8), np.ones(size, np.uint8), np.zeros(size, np.uint8))

    def publish(image: Image, labels: Image, size: tuple[int, int], rng: object) -> Picture:
        return Picture(np.full((*size, 3), 120, np.uint8), plane, plane)

    monkeypatch.setattr(calibration, "spliced", splice)
    monkeypatch.setattr(calibration, "authentic", publish)
    monkeypatch.setattr(Reader, "read", lambda *_: (image, plane))
    found = calibration._evidence(red_bundle, [Photo(Path("a"), None), Photo(Path("b"), None)])
    sizes = [int(64 * side) * int(96 * side) for side in calibration.SIDES]
    assert sorted(zip(found.photos, found.pixels, strict=True)) == sorted((n, size) for n in (0, 1) for size in sizes)
    kinds = found.kinds
    assert (kinds["authentic"] < kinds["published"]).all() and (kinds["published"] < kinds["spliced"]).all()
    calibrated = replace(red_bundle, calibration=Calibration(0.5, 3.0, 0.3, 0.7, growth=1.0, most_pixels=99))
    again = calibration._evidence(calibrated, [Photo(Path("a"), None)])
    assert again.kinds["spliced"][0] == kinds["spliced"][0]  # whatever it was calibrated to before


@pytest.mark.parametrize("sureness", [0.5, 2.0, 100.0])
def test_a_mask_that_is_too_sure_is_made_as_sure_as_it_is_right(
    sureness: float, red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is not sure enough is left as it is: sharper masks lose more in 256 grey levels."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 96, 3), np.uint8)
    odds = 4 * (image[..., 2] / 127.5 - 1)
    mask = (rng.random((64, 96)) < 1 / (1 + np.exp(-odds))).astype(np.uint8)
    splice = Picture(image, mask, np.zeros_like(mask))
    monkeypatch.setattr(calibration, "_splices", lambda *_: [(0, image, mask, splice)])

    def annotate(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return torch.sigmoid(torch.from_numpy(sureness * 4 * images[:, :1])).numpy()

    wanted = min(1.0, max(calibration.SOFTEST, 1 / sureness))
    assert calibration.mask_slope(annotate, red_bundle, []) == pytest.approx(wanted, rel=0.1)


def test_a_mask_is_held_against_its_own_pixels_also_where_the_picture_was_shrunk(
    red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, mask = np.zeros((100, 520, 3), np.uint8), np.zeros((100, 520), np.uint8)
    image[..., :260, 2], mask[:, :260] = 200, 1
    monkeypatch.setattr(calibration, "_splices", lambda *_: [(0, image, mask, Picture(image, mask, mask))])

    def annotate(images: NDArray[np.float32]) -> NDArray[np.float32]:
        assert images.shape == (1, 3, 64, red_bundle.max_side)
        return torch.sigmoid(torch.from_numpy(images[:, :1])).numpy()

    assert calibration.mask_slope(annotate, red_bundle, []) == 1.0  # right, and not as sure as it could be


def test_photos_too_small_to_be_spliced_are_left_out(red_bundle: Bundle, tmp_path: Path) -> None:
    small = Photo(save(tmp_path / "small.png", np.zeros((9, 9, 3), np.uint8)), None)
    with pytest.raises(RunError, match="too small to be spliced"):
        calibrate(red_bundle, [small])
    with pytest.raises(RunError, match="too small to be spliced"):
        calibration.mask_slope(OnnxRuntimeBackend(red_bundle).probabilities, red_bundle, [small])


@pytest.mark.parametrize("louder", ["authentic", "published"])
def test_of_either_kind_of_authentic_pictures_at_most_two_in_a_hundred_are_called_spliced(louder: str) -> None:
    rng = np.random.default_rng(0)
    evidence = {
        kind: rng.normal(mean, 1, 1000) for kind, mean in (("authentic", -2), ("published", -2), ("spliced", 2))
    }
    evidence[louder] += 1.5
    fitted = calibration._fitted(alike(evidence), 1 << 20)
    called = {
        kind: np.mean([score(value, 1000, fitted) >= fitted.spliced for value in evidence[kind]]) for kind in evidence
    }
    assert called[louder] == pytest.approx(0.02, abs=0.002) and called["spliced"] > 0.5
    assert max(called["authentic"], called["published"]) <= 0.021
    missed = np.mean([score(value, 1000, fitted) <= fitted.authentic for value in evidence["spliced"]])
    assert missed == pytest.approx(0.1, abs=0.002)
    halfway = [score(value, 1000, fitted) for kind in ("authentic", "published", "spliced") for value in evidence[kind]]
    assert np.mean(halfway[:2000]) == pytest.approx(1 - np.mean(halfway[2000:]), abs=0.01)  # at even odds


def test_no_picture_is_both_spliced_and_authentic_however_well_they_are_told_apart() -> None:
    kinds = {"authentic": np.full(9, -5.0), "published": np.full(9, -4.0), "spliced": np.ones(9)}
    fitted = calibration._fitted(alike(kinds), 1 << 20)
    assert fitted.authentic == fitted.spliced == pytest.approx(score(-4.0, 1000, fitted))


def test_false_alarms_are_as_many_in_small_pictures_as_in_large_ones() -> None:
    """Chance reaches further where there is more of a picture, and what it reaches says less there."""
    rng = np.random.default_rng(0)
    pixels = np.repeat([20_000, 60_000, 180_000, 540_000], 1000)
    kinds = {
        kind: rng.normal(mean, 1, 4000) + 0.6 * np.log(pixels / 100_000)
        for kind, mean in (("authentic", -2), ("published", -2), ("spliced", 2))
    }
    fitted = calibration._fitted(alike(kinds, pixels), 1 << 20)
    assert fitted.growth == pytest.approx(0.6, abs=0.1)
    assert (fitted.least_pixels, fitted.most_pixels) == (20_000, 1 << 20)
    for size in np.unique(pixels):
        of_size = kinds["authentic"][pixels == size]
        called = np.mean([score(value, size, fitted) >= fitted.spliced for value in of_size])
        assert called == pytest.approx(0.02, abs=0.012)


def test_pictures_of_which_nobody_can_be_sure_are_called_neither() -> None:
    evidence = alike({"spliced": np.array([-3, 0, 0.1, 2])})
    rates = calibration._rates(Calibration(1.0, 0.0, authentic=0.3, spliced=0.7), evidence)
    assert rates == {"spliced_called_spliced": 0.25, "spliced_called_authentic": 0.25}


def test_the_logistic_fit_finds_the_odds_it_was_drawn_from() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 20000)
    y = (rng.random(20000) < 1 / (1 + np.exp(-(1.5 * x - 0.7)))).astype(float)
    assert fit_logistic(x, y) == pytest.approx((1.5, -0.7), abs=0.1)


def test_the_logistic_fit_stays_finite_on_separable_data() -> None:
    slope, intercept = fit_logistic(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert 0 < slope < 100 and abs(intercept) < 10
