"""magtrain preview: figures with a column for each epoch, from nothing but the folder of a run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mag_train import cli, panels
from mag_train.contact_sheet import GAP, shape
from mag_train.models.annotator import CHANNELS
from mag_train.models.retoucher import Retouched
from mag_train.panels import PICTURES, SIDE
from mag_train.preview_command import MARGIN, figures, panels_of, spread
from tests.mag_train.test_panels import raw_pictures


class Epoch(nn.Module):
    """An annotator and a retoucher whose every output is the number of the epoch: as a grey level, and black."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(epoch)))

    def annotator(self, image: Tensor) -> Tensor:
        return self.level.div(255).expand(len(image), CHANNELS, *image.shape[2:])

    def forward(self, image: Tensor) -> Tensor:
        return self.annotator(image)


class Paint(Epoch):
    def forward(self, image: Tensor) -> Retouched:  # type: ignore[override]
        attention = self.annotator(image)[:, :1]
        return Retouched(torch.zeros_like(image), torch.zeros_like(image), attention)


def run_of(folder: Path, epochs: range, joined: int = 0, crop: int = 64) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    for epoch in epochs:
        panels.add(
            folder, epoch, raw_pictures(crop), Epoch(epoch), Paint(epoch) if joined and epoch >= joined else None
        )
    return folder


def grey_pixels(page: np.ndarray, column: int, level: int) -> int:
    """How often a grey level is met going down one column of the page, a few pixels from its left side."""
    line = page[:, MARGIN + GAP + column * (SIDE + GAP) + 3]
    return int((line == level).all(axis=-1).sum())


def preview(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["magtrain", "preview", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0


def test_a_column_for_each_epoch_beside_a_and_the_truth(tmp_path: Path) -> None:
    page = figures(panels_of(run_of(tmp_path / "run", range(1, 8), joined=1)))
    assert page.shape[1] == 2 * MARGIN + shape(1, 2 + 7, SIDE)[1]
    for epoch in range(1, 8):
        # In attention and in the splice mask; painted B^ is mid-grey everywhere.
        assert grey_pixels(page, 1 + epoch, epoch) == 2 * PICTURES * SIDE
        assert grey_pixels(page, 1 + epoch, 128) == PICTURES * SIDE
    assert (page[0] == 255).all() and (page[:, 0] == 255).all()


def test_of_a_long_run_eight_epochs_with_first_and_last(tmp_path: Path) -> None:
    (panel,) = panels_of(run_of(tmp_path / "run", range(1, 2))).values()
    shown = spread(dict.fromkeys([1, *range(32, 400, 32), 400], panel))
    assert len(shown) == 8 and min(shown) == 1 and max(shown) == 400
    steps = np.diff(list(shown))
    assert steps.min() >= 31 and steps.max() <= 80
    assert figures(shown).shape[1] == 2 * MARGIN + shape(1, 2 + 8, SIDE)[1]


def test_figure_5_is_left_out_of_a_run_without_retoucher(tmp_path: Path) -> None:
    without = figures(panels_of(run_of(tmp_path / "without", range(1, 3))))
    late = figures(panels_of(run_of(tmp_path / "late", range(1, 3), joined=2)))
    assert len(without) < 0.6 * len(late)
    assert grey_pixels(without, 3, 2) == PICTURES * SIDE
    assert grey_pixels(late, 2, 1) == PICTURES * SIDE and grey_pixels(late, 3, 2) == 2 * PICTURES * SIDE


def test_the_command_draws_from_a_copied_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(run_of(tmp_path / "run", range(1, 3)), tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    assert preview(monkeypatch, copied) == 0
    assert "epochs 1, 2" in capsys.readouterr().out
    with Image.open(copied / "preview.png") as page:
        assert np.array_equal(np.array(page), figures(panels_of(copied)))
    assert preview(monkeypatch, copied, "--out", tmp_path / "figure.png") == 0
    assert (tmp_path / "figure.png").read_bytes() == (copied / "preview.png").read_bytes()


def test_a_panel_that_a_going_run_has_just_thinned_out_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", range(1, 3))
    monkeypatch.setattr(panels, "epochs", lambda _: [1, 2, 3])
    assert list(panels_of(run)) == [1, 2]


def test_a_run_that_went_on_with_another_crop_is_drawn(tmp_path: Path) -> None:
    run_of(tmp_path / "run", range(1, 2), crop=64)
    run_of(tmp_path / "run", range(2, 3), crop=160)
    assert figures(panels_of(tmp_path / "run")).ndim == 3


def test_what_cannot_be_drawn_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path / "run", range(0))
    for arguments, said in (
        ((tmp_path / "nowhere",), "not the folder of a run"),
        ((run,), "no panels yet"),
        ((run, "--out", tmp_path / "figure.jpg"), "PNG"),
    ):
        assert preview(monkeypatch, *arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
