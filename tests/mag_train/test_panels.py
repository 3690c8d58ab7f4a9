"""Panels: each tile shows the tensor that its caption names, and a long run keeps few of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mag_rt.bundle import CLASS_NAMES
from mag_train import config as configuration
from mag_train import panels
from mag_train.data.photos import UNLABELLED, labelled_photos
from mag_train.data.stream import RawPictures, SpliceStream
from mag_train.data.targets import pictures
from mag_train.models.annotator import CHANNELS
from mag_train.models.retoucher import Retoucher
from mag_train.panels import NOTHING, PICTURES, SIDE, add, draw, epochs, fixed_pictures, forget, read, tile

CROP = 64


class Smooth(nn.Module):
    """An annotator that needs no training: every map another mixture of the picture's colours."""

    def __init__(self, maps: int = CHANNELS) -> None:
        super().__init__()
        self.maps = maps
        self.body = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.BatchNorm2d(CHANNELS), nn.Dropout(0.5))

    def forward(self, image: Tensor) -> Tensor:
        return torch.sigmoid(3 * self.body(image)) * (torch.arange(CHANNELS) < self.maps)[:, None, None]


class Certain(nn.Module):
    """An annotator that sees one class everywhere, with a given probability."""

    def __init__(self, name: str, probability: float) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.zeros(CHANNELS, 1, 1))
        self.answer.data[2 + CLASS_NAMES.index(name)] = probability

    def forward(self, image: Tensor) -> Tensor:
        return self.answer.expand(len(image), -1, *image.shape[2:])


def raw_pictures(crop: int = CROP, seed: int = 0) -> list[RawPictures]:
    """Noise with a pasted person on its left half, an authentic dog on the right, an unlabelled row at the bottom."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(PICTURES):
        mask = np.zeros((1, crop, crop), np.uint8)
        mask[:, 10:40, : crop // 2] = 1
        labels = np.where(mask == 1, CLASS_NAMES.index("person") + 1, 0).astype(np.uint8)
        labels[:, 10:40, crop // 2 :] = CLASS_NAMES.index("dog") + 1
        labels[:, -8:] = UNLABELLED
        image = rng.integers(0, 256, (1, crop, crop, 3), dtype=np.uint8)
        found.append(RawPictures(*map(torch.from_numpy, (image, mask, labels))))
    return found


@pytest.fixture
def shown() -> list[RawPictures]:
    return raw_pictures()


@pytest.fixture
def networks() -> tuple[Smooth, Retoucher]:
    torch.manual_seed(0)
    annotator, retoucher = Smooth(), Retoucher(levels=5, width=4)
    for network in (annotator, retoucher):  # batch norm that has learnt something
        network(torch.randn(4, 3, CROP, CROP))
    return annotator, retoucher


def bytes_of(values: Tensor) -> np.ndarray:
    """C x H x W in [0, 1] as a tile of a small picture shows it."""
    large = torch.nn.functional.interpolate(values[None], scale_factor=SIDE // values.shape[-1])[0]
    return large.mul(255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()


def test_every_tile_is_what_its_caption_says(shown: list[RawPictures], networks: tuple[Smooth, Retoucher]) -> None:
    annotator, retoucher = networks
    panel = draw(shown, annotator, retoucher)
    annotator.eval(), retoucher.eval()
    with torch.no_grad():
        for row, raw in enumerate(shown):
            picture = pictures(raw, torch.device("cpu"))
            retouched = retoucher(picture.image)
            on_a, on_b_hat = annotator(picture.image)[0], annotator(retouched.image)[0]
            expected = {
                "A": raw.image[0].permute(2, 0, 1) / 255,
                "B^": (retouched.image[0] + 1) / 2,
                "attention": retouched.attention[0],
                "C': mask": raw.mask.float(),
                "C^ on A: mask": on_a[:1],
                "C^ on A: edge": on_a[1:2],
                "C^ on B^: mask": on_b_hat[:1],
            }
            for column, values in expected.items():
                drawn, wanted = tile(panel, row, column).astype(int), bytes_of(values)
                assert np.abs(drawn - wanted).max() <= 1, column  # a rounding apart
            for column, maps in (("C^ on A: classes", on_a), ("C^ on B^: classes", on_b_hat)):
                small = panels._classes(maps[2:]).astype(int)
                wanted = small.repeat(SIDE // CROP, axis=0).repeat(SIDE // CROP, axis=1)
                assert np.abs(tile(panel, row, column) - wanted).max() <= 2, column
            assert not np.array_equal(tile(panel, row, "B^"), tile(panel, row, "A"))


def test_classes_wear_their_colours_paler_where_less_likely(shown: list[RawPictures]) -> None:
    boat = np.array(panels.COLOURS["boat"])
    certain = draw(shown, Certain("boat", 1.0), None)
    assert (tile(certain, 0, "C^ on A: classes") == boat).all()
    unsure = tile(draw(shown, Certain("boat", 0.5), None), 0, "C^ on A: classes")
    assert np.abs(unsure - (255 + boat) / 2).max() <= 1


def test_the_truth_beside_is_what_the_annotator_is_to_answer(shown: list[RawPictures]) -> None:
    truth = tile(draw(shown, Smooth(), None), 0, "C': classes")
    times = SIDE // CROP
    left, right = truth[20 * times, 10 * times], truth[20 * times, 50 * times]
    assert tuple(left) == (255, 255, 255)  # silent on what was pasted
    assert tuple(right) == panels.COLOURS["dog"]
    assert tuple(truth[-1, 0]) == panels.COLOURS["unlabelled"]


def test_without_a_retoucher_b_hat_is_a_and_there_is_no_attention(shown: list[RawPictures]) -> None:
    panel = draw(shown, Smooth(), None)
    for row in range(PICTURES):
        assert np.array_equal(tile(panel, row, "B^"), tile(panel, row, "A"))
        assert (tile(panel, row, "attention") == NOTHING).all()
        assert np.array_equal(tile(panel, row, "C^ on B^: mask"), tile(panel, row, "C^ on A: mask"))


def test_an_annotator_of_the_mask_alone_shows_nothing_else(shown: list[RawPictures]) -> None:
    panel = draw(shown, Smooth(maps=1), None)
    assert tile(panel, 0, "C^ on A: mask").std() > 0
    for column in ("C^ on A: edge", "C^ on A: classes", "C^ on B^: classes"):
        assert (tile(panel, 0, column) == NOTHING).all(), column


def test_drawing_leaves_no_trace_in_the_training(shown: list[RawPictures], networks: tuple[Smooth, Retoucher]) -> None:
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    networks[0].eval()
    generator = torch.get_rng_state()
    draw(shown, *networks)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not networks[0].training and networks[1].training
    for network, states in zip(networks, before, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, states[name]), name


def test_a_large_picture_is_shrunk(shown: list[RawPictures]) -> None:
    large = raw_pictures(crop=2 * SIDE)
    panel = draw(large, Smooth(), None)
    assert panel.shape == draw(shown, Smooth(), None).shape
    means = large[1].image[0].float().reshape(SIDE, 2, SIDE, 2, 3).mean(dim=(1, 3)).numpy()
    assert np.abs(tile(panel, 1, "A") - means).max() <= 1


def test_the_pictures_are_always_the_same_with_splices_to_see(photo_folder: Path) -> None:
    data = configuration.load("smoke").data
    first, second = (fixed_pictures(SpliceStream(labelled_photos(photo_folder), data, seed=3)) for _ in range(2))
    assert len(first) == PICTURES
    for one, other in zip(first, second, strict=True):
        assert one.image.shape == (1, data.crop, data.crop, 3)
        assert torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask)
        assert one.mask.float().mean() >= panels.VISIBLE


def test_a_splice_too_small_to_see_gives_way(shown: list[RawPictures]) -> None:
    blank = RawPictures(shown[0].image, torch.zeros_like(shown[0].mask), shown[0].labels)
    numbered = [blank, shown[0], blank, *shown[1:], *12 * [blank]]
    found = fixed_pictures([(each, None) for each in numbered])  # type: ignore[arg-type]
    assert all(torch.equal(one.image, other.image) and one.mask.any() for one, other in zip(found, shown, strict=True))


def test_what_is_kept_is_what_was_drawn(tmp_path: Path, shown: list[RawPictures]) -> None:
    annotator = Smooth()
    drawn = add(tmp_path, 1, shown, annotator, None)
    assert drawn is not None and np.array_equal(read(tmp_path, 1), drawn)
    assert [path.name for path in (tmp_path / "panels").iterdir()] == ["epoch_0001.png"]


def test_a_damaged_panel_is_named(tmp_path: Path, shown: list[RawPictures]) -> None:
    add(tmp_path, 1, shown, Smooth(), None)
    path = tmp_path / "panels" / "epoch_0001.png"
    for content in (path.read_bytes()[:-2000], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"epoch_0001\.png: damaged"):
            read(tmp_path, 1)


def test_a_long_run_keeps_a_spread_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "draw", lambda *_: np.zeros((1, 1, 3), np.uint8))
    lasting = []
    for epoch in range(1, 401):
        if add(tmp_path, epoch, [], Smooth(), None) is not None:
            lasting.append(epoch)
        kept = epochs(tmp_path)
        assert len(kept) <= panels.MOST_KEPT + 2 and kept[0] == 1 and kept[-1] == epoch
        assert epoch < panels.MOST_KEPT or len(kept) >= panels.MOST_KEPT // 2
    assert kept == [1, *range(32, 400, 32), 400]
    assert set(kept[:-1]) < set(lasting) and len(lasting) < 70


def test_panels_past_the_epoch_of_a_resume_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(tmp_path, after=0)  # a run that has none yet
    monkeypatch.setattr(panels, "draw", lambda *_: np.zeros((1, 1, 3), np.uint8))
    for epoch in range(1, 6):
        add(tmp_path, epoch, [], Smooth(), None)
    forget(tmp_path, after=3)
    assert epochs(tmp_path) == [1, 2, 3]
