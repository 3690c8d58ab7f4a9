"""What is pasted is what the mask says, and the same generator draws the same picture."""

from collections.abc import Callable

import numpy as np
import pytest

from mag_train.data import history, synthesis
from mag_train.data.synthesis import Cutout, Picture, authentic, spliced
from tests.mag_train.conftest import labelled_photo

SIZE = (64, 96)


def donors(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return labelled_photo(int(rng.integers(100, 200)))


def draw(seed: int) -> Picture:
    return spliced(*labelled_photo(seed), donors, SIZE, np.random.default_rng(seed))


def test_the_same_generator_gives_the_same_picture() -> None:
    for seed in range(5):
        first, second = draw(seed), draw(seed)
        for name in ("image", "mask", "labels"):
            assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(draw(0).image, draw(1).image)


def test_pictures_have_the_size_asked_for_and_most_hold_a_splice_of_reasonable_size() -> None:
    pictures = [draw(seed) for seed in range(60)]
    for picture in pictures:
        assert picture.image.shape == (*SIZE, 3) and picture.image.dtype == np.uint8
        assert picture.mask.shape == picture.labels.shape == SIZE and set(np.unique(picture.mask)) <= {0, 1}
        assert picture.mask.mean() <= 0.5
    assert np.mean([picture.mask.any() for picture in pictures]) > 0.8


def test_some_pictures_are_put_together_larger_and_scaled_down() -> None:
    """As pictures on the web are: the traces of the paste shrink with them. A photo with no room for it is left."""
    large = labelled_photo(0, 300, 400)
    sizes = {synthesis._made_at(SIZE, large[0], np.random.default_rng(seed)) for seed in range(60)}
    assert SIZE in sizes and len(sizes) > 5 and max(sizes) <= (2 * SIZE[0], 2 * SIZE[1])
    assert synthesis._made_at(SIZE, labelled_photo(0, 60, 90)[0], np.random.default_rng(0)) == SIZE


def scaled_down(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picture = Picture(image, labels.copy(), labels)
    synthesis._scale_down(picture, (int(rng.integers(60, 110)), int(rng.integers(70, 150))), rng)
    assert np.array_equal(picture.mask, picture.labels)
    return picture.image, picture.labels


def framed(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    picture = synthesis.frame(image, labels, None, rng)
    return picture.image, picture.labels


def reworked(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    cutout = synthesis._rework(Cutout(image, labels.astype(np.float32), labels), 2000, rng)
    assert np.abs(centroid(cutout.alpha > 0.5) - centroid(cutout.labels > 0)).max() < 0.5
    return cutout.image * (cutout.alpha > 0)[..., None], cutout.labels  # at the border a turned picture is mirrored


def centroid(shape: np.ndarray) -> np.ndarray:
    return np.argwhere(shape).mean(axis=0)


@pytest.mark.parametrize("made", [scaled_down, framed, reworked])
def test_masks_and_labels_lie_on_what_they_name_whatever_the_scale(
    made: Callable[..., tuple[np.ndarray, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a tenth of a pixel: an edge four pixels wide is learnt from them."""
    monkeypatch.setattr(synthesis, "SHALLOW", 0.0)
    for step in ("saved", "recoloured", "blurred", "noisy"):
        monkeypatch.setattr(synthesis, step, lambda image, *_: image)
    labels = np.zeros((120, 160), np.uint8)
    labels[31:92, 43:118] = 1
    apart = []
    for seed in range(60):
        image, names = made(
            np.repeat(labels[..., None] * np.uint8(255), 3, axis=2), labels, np.random.default_rng(seed)
        )
        apart.append(centroid(image[..., 0] > 127) - centroid(names == 1))
    assert np.abs(np.mean(apart, axis=0)).max() < 0.1 and np.abs(apart).max() < 0.5


def test_an_authentic_picture_has_an_empty_mask() -> None:
    picture = authentic(*labelled_photo(0), SIZE, np.random.default_rng(0))
    assert picture.image.shape == (*SIZE, 3) and not picture.mask.any()


def test_an_authentic_picture_goes_the_way_of_a_spliced_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the photo to the last file: else the way, and not the splice, would tell one from the other."""
    way: list[str] = []
    for name in ("_made_at", "frame", "_spread", "publish"):
        step = getattr(synthesis, name)
        monkeypatch.setattr(synthesis, name, lambda *of, name=name, step=step: way.append(name) or step(*of))
    authentic(*labelled_photo(0), SIZE, np.random.default_rng(0))
    spliced(*labelled_photo(0), donors, SIZE, np.random.default_rng(0))
    assert way == 2 * ["_made_at", "frame", "_spread", "publish"]


def test_a_photo_smaller_than_the_picture_is_enlarged() -> None:
    assert authentic(*labelled_photo(0, 30, 40), SIZE, np.random.default_rng(0)).image.shape == (*SIZE, 3)


@pytest.mark.parametrize("seed", range(20))
def test_pixels_change_where_the_mask_says_and_nowhere_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    picture = Picture(np.full((50, 60, 3), 100, np.uint8), np.zeros((50, 60), np.uint8), np.zeros((50, 60), np.uint8))
    h, w = (int(side) for side in rng.integers(10, 40, 2))
    cutout = Cutout(np.full((h, w, 3), 200, np.uint8), np.ones((h, w), np.float32), np.full((h, w), 7, np.uint8))
    synthesis._paste(picture, cutout, rng)
    changed = picture.image[..., 0] == 200
    assert np.array_equal(changed, picture.mask == 1)
    assert np.array_equal(changed, picture.labels == 7)  # the whole picture's classes: pasted objects included


def test_the_mask_of_a_feathered_paste_is_where_alpha_exceeds_one_half() -> None:
    picture = Picture(np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8))
    alpha = np.tile(np.linspace(0, 1, 20, dtype=np.float32), (20, 1))
    cutout = Cutout(np.full((20, 20, 3), 200, np.uint8), alpha, np.zeros((20, 20), np.uint8))
    synthesis._paste(picture, cutout, np.random.default_rng(0))
    assert (picture.image[picture.mask == 1] > 100).all() and (picture.image[picture.mask == 0] <= 100).all()


def test_an_object_is_cut_out_along_its_labels() -> None:
    _, labels = labelled_photo(3)
    found = synthesis._object(labels, np.random.default_rng(0))
    assert found is not None
    where, shape = found
    assert shape.sum() == (labels == 1).sum() and (labels[where][shape == 1] == 1).all()


def test_one_object_is_cut_out_and_neither_its_neighbour_nor_a_scrap() -> None:
    labels = np.zeros((80, 80), np.uint8)
    labels[10:70, 10:20] = labels[60:70, 10:70] = 3  # an L, with another object in its corner
    labels[15:50, 30:65] = 3
    labels[2:8, 2:70] = 5  # 408 pixels
    sizes = {int(synthesis._object(labels, np.random.default_rng(seed))[1].sum()) for seed in range(40)}
    assert sizes == {60 * 10 + 10 * 50, 35 * 35}


def test_a_photo_without_objects_gives_shapes() -> None:
    image, labels = labelled_photo(3)
    assert synthesis._object(np.full_like(labels, 255), np.random.default_rng(0)) is None
    assert synthesis._cut_out(image, np.full_like(labels, 255), np.random.default_rng(0)).alpha.any()


def test_what_was_pasted_is_listed_with_its_box_its_classes_and_its_donor() -> None:
    pictures = [draw(seed) for seed in range(60)]
    for picture in pictures:
        rows, columns = np.nonzero(picture.mask)
        assert bool(picture.pastes) == bool(len(rows))
        if not picture.pastes:
            continue
        # A pixel more or less where the picture was scaled down after the paste.
        assert abs(min(paste.bbox[0] for paste in picture.pastes) - columns.min()) <= 1
        assert abs(max(paste.bbox[1] + paste.bbox[3] for paste in picture.pastes) - rows.max() - 1) <= 1
        pasted = set(np.unique(picture.labels[picture.mask == 1])) - {0, 255}
        assert pasted <= {id for paste in picture.pastes for id in paste.classes}
    donors = [paste.donor for picture in pictures for paste in picture.pastes]
    assert {None, 0, 1} <= set(donors)  # the picture itself, the first and the second photo that was drawn


def test_the_known_classes_of_what_was_pasted_are_listed_the_largest_first() -> None:
    picture = Picture(*(np.zeros(shape, np.uint8) for shape in ((50, 60, 3), (50, 60), (50, 60))))
    labels = np.repeat(np.array([255, 2, 7, 7, 7, 0, 0, 0, 0, 2], np.uint8)[:, None], 10, axis=1)
    labels[:2] = 255
    cutout = Cutout(np.ones((10, 10, 3), np.uint8), np.ones((10, 10), np.float32), labels)
    for seed in range(50):
        synthesis._paste(picture, cutout, np.random.default_rng(seed))
    assert max((paste.classes for paste in picture.pastes), key=len) == (7, 2)


def test_cutouts_are_reworked_and_brought_nearer_to_the_host_now_and_then_and_feathered_as_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    pasted: list[tuple[bool, int | None]] = []
    drawn: list[list[int]] = []
    for name in ("_rework", "_feather"):
        monkeypatch.setattr(synthesis, name, lambda cutout, *_, name=name: steps.append(name) or cutout)
    monkeypatch.setattr(
        synthesis, "_paste", lambda _picture, cutout, _rng, donor: pasted.append((cutout.harmony > 0, donor))
    )
    picture = synthesis.frame(*labelled_photo(0), None, np.random.default_rng(0))
    for seed in range(400):
        before = len(pasted)
        synthesis.paste(picture, donors, np.random.default_rng(seed))
        drawn.append([donor for _, donor in pasted[before:] if donor is not None])
    assert all(numbers == [0, 1][: len(numbers)] for numbers in drawn)  # as they were drawn, whatever came between
    assert 430 < len(pasted) < 490 and steps.count("_feather") == len(pasted)
    assert 0.85 < steps.count("_rework") / len(pasted) < 0.95  # a copy within the photo often stays as it was
    assert 0.2 < np.mean([harmonised for harmonised, _ in pasted]) < 0.3
    assert 0.15 < np.mean([donor is None for _, donor in pasted]) < 0.25


def test_host_and_cutout_were_files_before_half_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of other qualities: traces of a splice are those of two pasts, not of one file and none."""
    saved: list[str] = []
    image, labels = labelled_photo(0)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(synthesis, "saved", lambda image, *_: saved.append("host") or image)
        synthesis.frame(image, labels, SIZE, rng)
        monkeypatch.setattr(synthesis, "saved", lambda image, *_: saved.append("cutout") or image)
        synthesis._rework(Cutout(image, labels.astype(np.float32), labels), 2000, rng)
    assert 120 < saved.count("host") < 180 and 120 < saved.count("cutout") < 180


@pytest.mark.parametrize(("harmony", "mean", "spread"), [(0.0, 60, 10), (0.5, 100, 15), (1.0, 140, 20)])
def test_harmony_brings_brightness_and_contrast_towards_what_is_covered(
    harmony: float, mean: float, spread: float
) -> None:
    rng = np.random.default_rng(0)
    brought, host = (rng.normal(level, sigma, (40, 50, 3)).astype(np.uint8) for level, sigma in ((60, 10), (140, 20)))
    pasted = np.ones((40, 50), bool)
    pasted[:, 40:] = False
    host[~pasted] = 0  # what is not covered does not count
    given = synthesis._harmonised(brought, host, pasted, harmony)[pasted]
    assert given.mean() == pytest.approx(mean, abs=2) and given.std() == pytest.approx(spread, abs=1.5)


@pytest.mark.parametrize("side", [1, 2, 3, 11, 39, 40, 41, 64])
def test_a_photo_of_any_size_can_be_a_host_or_a_donor(side: int) -> None:
    small = np.zeros((side, side + 1, 3), np.uint8), np.ones((side, side + 1), np.uint8)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        picture = synthesis.frame(*small, None, rng)
        synthesis.paste(picture, lambda _: small, rng)
        assert history.publish(picture.image, rng).shape[:2] == picture.mask.shape


def test_a_picture_of_the_photos_own_size_is_not_resized_to_fit() -> None:
    image, labels = labelled_photo(0)
    shapes = {synthesis.frame(image, labels, None, np.random.default_rng(seed)).mask.shape for seed in range(40)}
    whole = [shape for shape in shapes if shape[0] > 112 and shape[1] > 152 and shape <= labels.shape]
    assert labels.shape in shapes and len(whole) > 3  # whole, or less a few pixels that move the JPEG grid


def test_half_of_the_crops_keep_the_grid_of_the_photos_jpeg_mirrored_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 pixels, which subsampled colours take: a picture that was pasted into and saved again has it so."""
    for share in ("SHALLOW", "RECOLOURED"):
        monkeypatch.setattr(synthesis, share, 0.0)
    monkeypatch.setattr(synthesis, "saved", lambda image, low, high, rng: image)
    monkeypatch.setattr(synthesis, "resized", lambda image, size, rng: np.zeros((*size[::-1], 3), np.uint8))
    height, width = 150, 203
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    kept = {False: [], True: []}
    for seed in range(600):
        rng = np.random.default_rng(seed)
        picture = synthesis.frame(np.dstack([rows, columns, columns]), np.zeros_like(rows), (70, 90), rng)
        crop = picture.image.astype(int)
        if not crop.any():
            continue  # scaled: the photo's grid is gone
        mirrored = crop[0, 0, 1] > crop[0, 1, 1]
        # What lies at the left is the first column of a block, or, mirrored, the last.
        kept[bool(mirrored)].append(crop[0, 0, 0] % 16 == 0 and (crop[0, 0, 1] + mirrored) % 16 == 0)
    assert 0.4 < len(kept[True]) / (len(kept[True]) + len(kept[False])) < 0.6
    assert all(0.4 < np.mean(each) < 0.6 for each in kept.values())


def test_a_shallow_focus_blurs_all_but_the_subject_or_the_subject_alone() -> None:
    grain = np.random.default_rng(0).integers(60, 190, (60, 80, 3), np.uint8)
    subject = np.zeros((60, 80), np.uint8)
    subject[:, 40:] = 1
    blurred_subjects = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image = history.shallow(grain, subject, rng).astype(float)
        far, near = (image[:, part].std() for part in (np.s_[:10], np.s_[70:]))  # 30 pixels from the subject's border
        assert max(far, near) > 2 * min(far, near)
        blurred_subjects += near < far
    assert 2 <= blurred_subjects <= 16


def test_new_colours_are_of_the_whole_photo_and_not_of_its_details() -> None:
    image = labelled_photo(0)[0]
    given = [history.recoloured(image, np.random.default_rng(seed)).astype(float) for seed in range(20)]
    for each in given:
        inside = ((each > 0) & (each < 255)).all(axis=2)  # what is neither black nor white
        before = np.column_stack([image[inside], np.ones(inside.sum())])
        assert np.abs(before @ np.linalg.lstsq(before, each[inside], rcond=None)[0] - each[inside]).max() < 1
    assert np.std([each.mean() for each in given]) > 5


def test_hosts_are_recoloured_and_out_of_focus_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cut-outs are recoloured and stand out: else that alone would give a splice away."""
    seen: list[str] = []
    for name in ("shallow", "recoloured"):
        monkeypatch.setattr(synthesis, name, lambda image, *rest, name=name: seen.append(name) or image)
    for seed in range(300):
        authentic(*labelled_photo(seed), SIZE, np.random.default_rng(seed))
    assert 40 < seen.count("shallow") < 80 and 65 < seen.count("recoloured") < 115


@pytest.mark.parametrize("side", [3, 40])
def test_a_soft_edge_is_soft_all_around_also_where_it_touches_the_box(side: int) -> None:
    """It was cut off there: three straight edges in four stayed hard."""
    soft = 0
    for seed in range(60):
        box = Cutout(
            *(np.full(shape, 1, kind) for shape, kind in (((side, 9, 3), "u1"), ((side, 9), "f4"), ((side, 9), "u1")))
        )
        cutout = synthesis._feather(box, np.random.default_rng(seed))
        assert cutout.image.shape[:2] == cutout.alpha.shape == cutout.labels.shape and (cutout.image == 1).all()
        if cutout.alpha.shape == (side, 9):
            assert (cutout.alpha == 1).all()
            continue
        soft += 1
        border = np.concatenate([cutout.alpha[0], cutout.alpha[-1], cutout.alpha[:, 0], cutout.alpha[:, -1]])
        assert border.max() < 0.01 and np.isclose(cutout.alpha.sum(), side * 9, rtol=0.01)
        assert (cutout.labels.astype(bool).sum()) == side * 9
    assert 25 < soft < 47


def test_pictures_are_saved_never_once_or_twice_after_the_paste(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes from the web was mostly saved by whoever made it, and often again by whoever passed it on."""
    saved: list[int] = []
    for module in (history, synthesis):
        monkeypatch.setattr(module, "saved", lambda image, low, high, rng: saved.append(seed) or image)
    for seed in range(300):
        picture = Picture(*(np.zeros(shape, np.uint8) for shape in ((*SIZE, 3), SIZE, SIZE)))
        synthesis._spread(picture, SIZE, np.random.default_rng(seed))
    times = np.bincount([saved.count(seed) for seed in range(300)]) / 300
    assert len(times) == 3 and times.min() > 0.1
