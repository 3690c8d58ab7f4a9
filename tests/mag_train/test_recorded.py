"""On a GPU, recorded iterations are those that are launched kernel by kernel."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mag_train import config as configuration
from mag_train import recorded, trainer
from mag_train.checkpoint import load_checkpoint
from mag_train.config import Config

NEVER = 1 << 30

pytestmark = pytest.mark.gpu


@pytest.fixture
def rules() -> Config:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU here")
    epochs = ["schedule.epochs=4", "schedule.adversary_from=2", "schedule.decay_epochs=2", "optim.clip=5.0"]
    return configuration.load("smoke", [*epochs, "data.spliced=2", "data.authentic=1"])


def moved(rules: Config, data: Path, run: Path, before: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """How far each network has come from where it began, with that many iterations before one is recorded."""
    monkeypatch.setattr(recorded.Recorded, "BEFORE", before)
    fresh = trainer.start(rules, data, run)
    began = {name: player.network.state_dict() for name, player in fresh.game.players.items()}
    began = {name: {key: value.clone() for key, value in state.items()} for name, state in began.items()}
    assert fresh.fit()
    assert all(each._graph is not None for each in fresh.recorded.values()) == (before != NEVER)
    return {
        name: torch.cat([(player.network.state_dict()[key] - value).flatten() for key, value in began[name].items()])
        for name, player in fresh.game.players.items()
    }


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_recorded_iterations_train_as_others_do(
    rules: Config, precision: str, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With warm-up, adversary and a falling rate; a GPU adds in another order each time, so not to the last digit."""
    rules = configuration.override(rules, [f"precision={precision}"])
    one_by_one = moved(rules, photo_folder, tmp_path / "one", NEVER, monkeypatch)
    again = moved(rules, photo_folder, tmp_path / "again", NEVER, monkeypatch)
    at_once = moved(rules, photo_folder, tmp_path / "two", 2, monkeypatch)
    for name, expected in one_by_one.items():
        noise = (again[name] - expected).norm() / expected.norm()
        apart = (at_once[name] - expected).norm() / expected.norm()
        assert apart < max(0.05, 3 * noise), name


def test_a_run_goes_on_with_the_optimisers_of_one_that_did_not_record(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on a CPU, for instance."""
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Run, "records", False)
        assert trainer.start(rules, photo_folder, tmp_path / "run").fit()
    before = load_checkpoint(tmp_path / "run" / "last.pt")["iteration"]
    longer = trainer.resume(tmp_path / "run", None, ["schedule.epochs=6"])
    assert longer.records and longer.fit()
    after = load_checkpoint(tmp_path / "run" / "last.pt")
    assert after["iteration"] == before * 6 // 4
    assert {float(each["step"]) for each in after["optimisers"]["annotator"]["state"].values()} == {after["iteration"]}
