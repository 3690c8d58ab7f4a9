"""Checkpoints: which one of a run is used, what it says of its training, and that opening one runs nothing.

That a save which fails leaves the old one is in test_trainer.py.
"""

import os
from pathlib import Path

import pytest
import torch

from mag_train.checkpoint import RunError, best_checkpoint, load_checkpoint, save_checkpoint, trained_so_far


class Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_checkpoint_of_somebody_else_runs_nothing(tmp_path: Path) -> None:
    """Else who shares a run shares whatever program its pickle holds."""
    torch.save({"before": {}, "networks": Hostile(tmp_path / "owned")}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="not a checkpoint of a run"):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("cut_short", [True, False])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, cut_short: bool) -> None:
    """Also where the damage is in the numbers alone, which torch does not notice."""
    path = tmp_path / "last.pt"
    save_checkpoint({"before": {}, "networks": torch.full((100_000,), 7.0)}, path)
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] if cut_short else whole[:half] + bytes(1000) + whole[half + 1000 :])
    with pytest.raises(RunError, match=r"last\.pt: not a checkpoint of a run, or a damaged one"):
        load_checkpoint(path)


def test_of_a_run_the_best_is_used_or_the_last_before_any_is_best(tmp_path: Path) -> None:
    (tmp_path / "last.pt").touch()
    assert best_checkpoint(tmp_path) == tmp_path / "last.pt"
    (tmp_path / "best.pt").touch()
    assert best_checkpoint(tmp_path) == tmp_path / "best.pt"
    assert best_checkpoint(tmp_path / "last.pt") == tmp_path / "last.pt"  # named, it is taken


def test_training_is_counted_in_iterations_pictures_and_hours_those_before_the_run_included() -> None:
    state = {"iteration": 10, "pictures": 80, "seconds": 5400.0, "before": {"pictures": 20, "hours": 2.0}}
    assert trained_so_far(state) == {"iterations": 10, "pictures": 100, "hours": 3.5}
