"""Splices that lie on disk are trained on as they are; what does not fit is skipped by name, never learnt from."""

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mag_train.config import DataConfig
from mag_train.data import stream as streams
from mag_train.data.opening import HeldOutGoneError, held_out_of, open_stream, split, split_by_host
from mag_train.data.photos import Reader, labelled_photos
from mag_train.data.ready_made import ReadyMade, ReadyMadeStream, ready_made
from mag_train.data.stream import RawPictures, SpliceStream
from mag_train.data.tampered import Tampered
from mag_train.data.targets import pictures
from mag_train.data.writing import Recipe, begin, write
from tests.conftest import save
from tests.mag_train.conftest import labelled_photo

HEIGHT, WIDTH = 100, 140
CONFIG = DataConfig(crop=64, spliced=3, authentic=2, workers=0)


def fantastic_reality(folder: Path, count: int = 30, masks: str = "npz", classes: bool = True) -> Path:
    """Red boxes on blurred noise; the box is class 2, the rest class 1. Names as the authors' code has them."""
    for number in range(count):
        image, _ = labelled_photo(number, HEIGHT, WIDTH)
        image[..., 2] = 0
        save(folder / "ColorRealImages" / f"{number:03d}.png", image)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:30, 90:130] = 255
        image[mask > 0] = 0, 0, 255
        name = f"fantastic--_{number:03d}"
        save(folder / "ColorFakeImages" / f"{name}.png", image)
        plane(folder / "SegmentationFake" / f"{name}.{masks}", mask)
        if classes:
            plane(folder / "SegmentationFakeClass" / f"{name}.{masks}", 1 + mask // 255)
            plane(folder / "SegmentationRealClass" / f"{number:03d}.{masks}", np.ones_like(mask))
    return folder


def plane(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        save(path, values)
    else:
        np.savez_compressed(path, values[..., None])


def equal(first: RawPictures, second: RawPictures) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("image", "mask", "labels"))


@pytest.mark.parametrize("masks", ["npz", "png"])
def test_masks_and_class_maps_stay_on_their_pictures(tmp_path: Path, masks: str) -> None:
    training, validation = open_stream(fantastic_reality(tmp_path, masks=masks), CONFIG, 1)
    for stream in (training, validation):
        for iteration in range(4):
            a, b = stream[iteration]
            assert a.image.shape == (3, 64, 64, 3) and b.image.shape == (2, 64, 64, 3)
            red = a.image[..., 0] == 255  # RGB
            assert torch.equal(red, a.mask == 1) and torch.equal(a.labels, 1 + a.mask)
            assert a.mask.flatten(1).any(dim=1).all()  # a window shows part of its splice
            assert not b.mask.any() and (b.labels == 1).all() and not (b.image[..., 0] == 255).any()
    truth = pictures(a, torch.device("cpu")).truth
    assert truth[:, 1].any()  # the edge is made from the mask


def test_half_of_a_window_is_authentic(tmp_path: Path) -> None:
    stream, _ = open_stream(fantastic_reality(tmp_path), CONFIG, 1)
    reader = Reader(stream.hosts)
    windows = [stream.spliced_picture(number, reader, np.random.default_rng(number)) for number in range(50)]
    assert max(window.mask.mean() for window in windows) <= 0.5
    assert {window.mask.shape for window in windows} > {(64, 64)}  # of the crop, and of a few pixels less


def test_a_splice_of_one_pixel_is_in_every_window(tmp_path: Path) -> None:
    folder = fantastic_reality(tmp_path, 2)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[50, 70] = 255
    for number in range(2):
        plane(folder / "SegmentationFake" / f"fantastic--_{number:03d}.npz", mask)
    stream, _ = open_stream(folder, CONFIG, 1)
    reader = Reader(stream.hosts)
    for seed in range(400):
        assert stream.spliced_picture(0, reader, np.random.default_rng(seed)).mask.sum() == 1


def test_without_class_maps_nothing_is_labelled(tmp_path: Path) -> None:
    a, b = open_stream(fantastic_reality(tmp_path, classes=False), CONFIG, 1)[0][0]
    assert (a.labels == 255).all() and (b.labels == 255).all()
    counted = pictures(a, torch.device("cpu")).counted
    assert counted[:, :2].all() and not counted[:, 2:].any()


def test_a_batch_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    folder = fantastic_reality(tmp_path)
    one, two = open_stream(folder, CONFIG, 1)[0], open_stream(folder, CONFIG, 1)[0]
    one[0], one[3]
    assert all(equal(*pair) for pair in zip(one[7], two[7], strict=True))
    assert not equal(one[7][0], one[8][0]) and not equal(one[7][0], open_stream(folder, CONFIG, 2)[0][7][0])
    there = pickle.loads(pickle.dumps(one))  # as it travels to another process
    assert all(equal(*pair) for pair in zip(there[7], one[7], strict=True))


def test_every_splice_is_seen_once_an_epoch(tmp_path: Path) -> None:
    stream, _ = open_stream(fantastic_reality(tmp_path, 10), CONFIG, 1)
    assert stream.batches_per_epoch == 3  # 9 are not held out
    seen = [Path(source).name for iteration in range(3) for source in stream[iteration][0].sources]
    assert len(set(seen)) == len(seen) == 9


def test_a_picture_smaller_than_the_crop_is_reflected_not_enlarged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ENDS_SHORT", 0.0)
    config = CONFIG.model_copy(update={"crop": 320, "spliced": 12})
    a, _ = open_stream(fantastic_reality(tmp_path), config, 1)[0][0]
    assert a.image.shape == (12, 320, 320, 3)
    mirrored = [bool(mask[:, 200:].any()) for mask in a.mask]  # boxes at 90 to 130 and, reflected, 149 to 189
    assert set(mirrored) == {False, True}
    for image, mask, turned in zip(a.image, a.mask, mirrored, strict=True):
        picture, truth = (image.flip(1), mask.flip(1)) if turned else (image, mask)
        assert torch.equal(picture[:, :, 0] == 255, truth == 1)
        assert torch.equal(truth[HEIGHT : 2 * HEIGHT - 1].flip(0), truth[: HEIGHT - 1])
        assert torch.equal(truth[:, WIDTH : 2 * WIDTH - 1].flip(1), truth[:, : WIDTH - 1])


def broken_mask_size(folder: Path, name: str) -> str:
    plane(folder / "SegmentationFake" / f"{name}.npz", np.ones((9, 9), np.uint8))
    return "9 x 9, but the picture is 140 x 100"


def broken_mask_missing(folder: Path, name: str) -> str:
    (folder / "SegmentationFake" / f"{name}.npz").unlink()
    return "no such mask"


def broken_mask_empty(folder: Path, name: str) -> str:
    plane(folder / "SegmentationFake" / f"{name}.npz", np.zeros((HEIGHT, WIDTH), np.uint8))
    return "marks no region"


def broken_picture(folder: Path, name: str) -> str:
    (folder / "ColorFakeImages" / f"{name}.png").write_bytes(b"corrupt")
    return "no picture of a kind that can be decoded"


def broken_class(folder: Path, name: str) -> str:
    plane(folder / "SegmentationFakeClass" / f"{name}.npz", np.full((HEIGHT, WIDTH), 11, np.uint8))
    return "class 11 is neither 0 to 10 nor 255"


def broken_class_layers(folder: Path, name: str) -> str:
    np.savez_compressed(folder / "SegmentationFakeClass" / f"{name}.npz", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return "what is wanted is one id a pixel"


@pytest.mark.parametrize(
    "spoil",
    [broken_mask_size, broken_mask_missing, broken_mask_empty, broken_picture, broken_class, broken_class_layers],
)
def test_a_picture_that_does_not_fit_gives_way_and_is_named(tmp_path: Path, spoil: Callable[[Path, str], str]) -> None:
    reason = spoil(fantastic_reality(tmp_path), "fantastic--_007")
    stream, _ = open_stream(tmp_path, CONFIG, 1)
    drawn = [stream[iteration][0] for iteration in range(stream.batches_per_epoch)]
    assert all(batch.image.shape[0] == 3 for batch in drawn)
    unreadable = {Path(path).name: why for batch in drawn for path, why in batch.unreadable.items()}
    assert list(unreadable) == ["fantastic--_007.png"] and reason in unreadable["fantastic--_007.png"]


@pytest.mark.parametrize("level", [1, 60, 255])
def test_in_a_mask_of_fantastic_reality_whatever_is_not_black_is_spliced(tmp_path: Path, level: int) -> None:
    folder = fantastic_reality(tmp_path, 2, masks="png")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, :20] = level
    plane(folder / "SegmentationFake" / "fantastic--_000.png", mask)
    spliced, _ = ready_made(folder) or ([], [])
    assert np.array_equal(spliced[0].read().mask, mask > 0)


def test_a_mask_of_more_than_half_is_not_inverted(tmp_path: Path) -> None:
    folder = fantastic_reality(tmp_path, 2)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, :20] = 0
    for number in range(2):
        plane(folder / "SegmentationFake" / f"fantastic--_{number:03d}.npz", mask)
    spliced, _ = ready_made(folder) or ([], [])
    assert spliced[0].read().mask.mean() > 0.5


def test_held_out_pictures_have_other_hosts(tmp_path: Path) -> None:
    fantastic_reality(tmp_path, 60)
    (tmp_path / "ColorRealImages" / "010.png").unlink()  # so that splices and hosts are not counted alike
    spliced, authentic = ready_made(tmp_path) or ([], [])
    held_out, training = split_by_host(spliced, authentic, tmp_path)
    assert [len(kind) for kind in held_out] == [3, 3] and [len(kind) for kind in training] == [57, 56]
    numbers = [{each.image.stem[-3:] for kind in side for each in kind} for side in (held_out, training)]
    assert numbers[0].isdisjoint(numbers[1]) and len(numbers[0]) == 3  # a splice has the number of its host


def test_splices_whose_names_tell_no_host_are_split_one_by_one(tmp_path: Path) -> None:
    fantastic_reality(tmp_path, 30)
    for folder, suffix in (("ColorFakeImages", "png"), ("SegmentationFake", "npz")):
        for number in range(30):
            (tmp_path / folder / f"fantastic--_{number:03d}.{suffix}").rename(tmp_path / folder / f"{number}.{suffix}")
    spliced, authentic = ready_made(tmp_path) or ([], [])
    (held_out, _), (training, _) = split_by_host(spliced, authentic, tmp_path)
    assert (len(held_out), len(training)) == (2, 28)


def made(name: str, host: str, spliced: bool) -> ReadyMade:
    kind = "spliced" if spliced else "authentic"
    return ReadyMade(Tampered(Path(f"{kind}-{name}.png"), Path("mask.png") if spliced else None, "d", kind), None, host)


def test_authentic_pictures_that_are_no_host_are_held_out_by_themselves() -> None:
    spliced = [made(f"{number:02d}", f"host-{number:02d}", True) for number in range(30)]
    authentic = [made(f"{number:02d}", f"{number:02d}", False) for number in range(30)]
    (_, held_out), (_, training) = split_by_host(spliced, authentic, Path())
    assert [each.host for each in held_out] == ["00", "25"] and len(training) == 28


def test_a_side_without_authentic_pictures_takes_all_and_they_are_not_called_held_out() -> None:
    spliced = [made(f"{number:02d}", f"{number:02d}", True) for number in range(30)]
    authentic = [made("03", "03", False)]
    held_out, training = split_by_host(spliced, authentic, Path())
    assert held_out[1] == training[1] == authentic
    streams_of_both = (ReadyMadeStream(*side, CONFIG, 1) for side in (training, held_out))
    assert held_out_of(Path(), *streams_of_both) == ["spliced-00.png", "spliced-25.png"]


def test_held_out_splices_stay_held_out_when_others_are_lost(tmp_path: Path) -> None:
    folder = fantastic_reality(tmp_path, 60)
    before = open_stream(folder, CONFIG, 1)
    names = held_out_of(folder, *before)
    assert len(names) == 6
    for kind in ("ColorFakeImages/fantastic--_000.png", "ColorRealImages/000.png", "ColorRealImages/007.png"):
        (folder / kind).unlink()
    training, validation = open_stream(folder, CONFIG, 1, names)
    assert [each.image.name for each in validation.hosts] == ["fantastic--_025.png", "fantastic--_050.png"]
    assert {*held_out_of(folder, training, validation)} == {name for name in names if (folder / name).is_file()}
    for part, was in ((training, before[0]), (validation, before[1])):
        now, then = ({each.image for each in (*stream.hosts, *stream.authentic)} for stream in (part, was))
        assert now and now <= then
    with pytest.raises(HeldOutGoneError, match="none of the splices that the run has held out is there"):
        open_stream(folder, CONFIG, 1, ["ColorFakeImages/other.png"])


def test_held_out_pictures_of_a_synthesized_dataset_are_of_other_photos(photo_folder: Path, tmp_path: Path) -> None:
    photos, recipe = labelled_photos(photo_folder), Recipe(1, None, "jpg", None, "npz")
    begin(tmp_path / "out", recipe, photos, photo_folder)
    hosts = {
        made.row[kind]: made.row["host"]
        for made in write(photos, photo_folder, recipe, tmp_path / "out", range(30), 1)
        for kind in ("spliced", "authentic")
    }
    training, validation = open_stream(tmp_path / "out", CONFIG, 1)
    assert isinstance(training, ReadyMadeStream)
    photos_of = [
        {hosts[each.image.relative_to(tmp_path / "out").as_posix()] for each in (*stream.hosts, *stream.authentic)}
        for stream in (training, validation)
    ]
    assert photos_of[0].isdisjoint(photos_of[1]) and len(photos_of[0] | photos_of[1]) == 12
    a, b = training[0]
    assert a.mask.any() and not b.mask.any() and (a.labels == 1).any()


def test_pictures_with_masks_of_your_own(tmp_path: Path) -> None:
    fantastic_reality(tmp_path / "fr", 4, masks="png", classes=False)
    for mine, theirs in (
        ("images", "ColorFakeImages"),
        ("masks", "SegmentationFake"),
        ("authentic", "ColorRealImages"),
    ):
        (tmp_path / mine).mkdir()
        for path in (tmp_path / "fr" / theirs).iterdir():
            path.rename(tmp_path / mine / path.name)
    a, b = open_stream(tmp_path, CONFIG, 1)[0][0]
    assert torch.equal(a.image[..., 0] == 255, a.mask == 1) and not b.mask.any()


def test_photos_are_spliced_on_the_fly(photo_folder: Path) -> None:
    training, validation = open_stream(photo_folder, CONFIG, 1)
    assert isinstance(training, SpliceStream) and len(training.hosts) == 11 and len(validation.hosts) == 1
    assert not {photo.image for photo in training.hosts} & {photo.image for photo in validation.hosts}
    assert training[0][0].mask.any()


@pytest.mark.parametrize("ready", [False, True])
def test_validation_draws_what_training_never_draws_and_needs_no_process(
    ready: bool, photo_folder: Path, tmp_path: Path
) -> None:
    folder = fantastic_reality(tmp_path, 3) if ready else photo_folder
    training, validation = open_stream(folder, CONFIG.model_copy(update={"workers": 2}), 1)
    assert (training.seed, training.config.workers) == (1, 2)
    assert validation.seed != 1 and validation.config.workers == 0


def test_folders_that_cannot_be_trained_on_are_refused_by_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither manifest\.tsv nor a folder images/ \(nor ColorFakeImages/"):
        open_stream(tmp_path, CONFIG, 1)
    folder = fantastic_reality(tmp_path / "fr", 3)
    for path in (folder / "ColorRealImages").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="authentic pictures too; there are none in ColorRealImages"):
        open_stream(folder, CONFIG, 1)
    for path in (folder / "SegmentationFake").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="missing: masks in SegmentationFake"):
        open_stream(folder, CONFIG, 1)
    with pytest.raises(ValueError, match="one photo is not enough"):
        split([1])


@pytest.mark.parametrize("text", ["spliced\n", "[1]\n", '{"spliced": "a.png", "authentic": "b.png"}\n'])
def test_a_manifest_of_something_else_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (fantastic_reality(tmp_path, 3) / "manifest.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.jsonl: not a manifest of a synthesized dataset"):
        open_stream(tmp_path, CONFIG, 1)


def test_a_window_keeps_the_jpeg_grid_half_of_the_time_mirrored_or_not(tmp_path: Path) -> None:
    """16 pixels, which a JPEG's subsampled colours take: a forger's picture mostly keeps the grid of its host."""
    folder = fantastic_reality(tmp_path, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    for path in (folder / "ColorRealImages").iterdir():
        cv2.imwrite(str(path), np.dstack([rows, columns, columns]))
    stream, _ = open_stream(folder, CONFIG.model_copy(update={"authentic": 400}), 1)
    top_row = stream[0][1].image[:, 0]  # RGB: column, column, row
    mirrored = top_row[:, 0, 0] > top_row[:, 1, 0]
    # What lies at the left is the first column of a block, or, mirrored, the last.
    on_grid = (top_row[:, 0, 2] % 16 == 0) & ((top_row[:, 0, 0] + mirrored.byte()) % 16 == 0)
    assert 0.4 < mirrored.float().mean() < 0.6
    for turned in (False, True):
        assert 0.4 < on_grid[mirrored == turned].float().mean() < 0.65
