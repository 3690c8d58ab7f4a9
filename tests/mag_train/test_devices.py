"""Several processes, several precisions: the same training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mag_train import config as configuration
from mag_train import trainer
from mag_train.checkpoint import load_checkpoint
from mag_train.devices import launch
from mag_train.models import Mag

AT_REST = """
import torch
from torch import nn
# Adam's first steps are all of one size: where a gradient is nearly 0, float32's rounding may turn its step around.
torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
# Batch norm and dropout at rest: in training they see each process's own pictures, which is not what is compared here.
nn.BatchNorm2d.forward = lambda self, x: x * self.weight[:, None, None] + self.bias[:, None, None]
nn.Dropout.forward = lambda self, x: x
from mag_train.cli import main
main()
"""
SMALL = [
    "--preset", "smoke", "--set", "schedule.epochs=2", "--set", "schedule.adversary_from=1",
    # Eq. 2 is a mean over the labelled pixels, of which each process has another number.
    "--set", "loss.semantic=0",
]  # fmt: skip

STOPS = """
import os, signal
from mag_train import trainer
iterate = trainer.Run._iterate
def counted(run, *arguments):
    # The second process alone is asked to stop, in the iteration before the one named.
    if run.iteration + 1 == int(os.environ["STOP_AT"]) and run.fabric.global_rank == 1:
        signal.raise_signal(signal.SIGTERM)
    return iterate(run, *arguments)
trainer.Run._iterate = counted
from mag_train.cli import main
main()
"""


def fit(script: Path, *arguments: object, stop_at: int = 0) -> None:
    command = [sys.executable, script, "fit", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STOP_AT": str(stop_at)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == (130 if stop_at else 0), done.stderr


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = tmp_path_factory.mktemp("script") / "at_rest.py"
    script.write_text(AT_REST)
    return script


def test_two_processes_agree_with_one_on_the_union_of_their_data(
    at_rest: Path, photo_folder: Path, tmp_path: Path
) -> None:
    """After three iterations of warm-up and three with the retoucher: to a billionth of how far each has moved."""
    one, two = tmp_path / "one", tmp_path / "two"
    fit(at_rest, "--data", photo_folder, "--out", one, *SMALL, "--set", "data.spliced=4", "--set", "data.authentic=2")
    fit(at_rest, "--data", photo_folder, "--out", two, *SMALL, "--set", "data.spliced=2", "--set", "data.authentic=1",
        "--devices", 2)  # fmt: skip
    alone, together = load_checkpoint(one / "last.pt"), load_checkpoint(two / "last.pt")
    assert alone["iteration"] == together["iteration"] == 6
    torch.manual_seed(1)
    start = Mag(configuration.load("smoke").model).state_dict()
    for player in ("annotator", "retoucher", "d_a", "d_r"):
        moved, apart = (
            torch.cat([(these[name] - those[name]).flatten() for name in start if name.startswith(player)]).norm()
            for these, those in ((alone["networks"], start), (together["networks"], alone["networks"]))
        )
        assert moved > 0.01 and apart < 1e-9 * moved, player


def test_adding_up_gradients_agrees_with_a_larger_batch(at_rest: Path, photo_folder: Path, tmp_path: Path) -> None:
    """In the warm-up; in the game the players answer to each other as they were when the first batch came."""
    shared = [*SMALL, "--data", photo_folder, "--set", "schedule.adversary_from=2"]
    fit(at_rest, "--out", tmp_path / "one", *shared, "--set", "data.spliced=4", "--set", "data.authentic=2")
    fit(at_rest, "--out", tmp_path / "two", *shared, "--set", "data.spliced=2", "--set", "data.authentic=1",
        "--set", "optim.accumulate=2")  # fmt: skip
    large, added = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    assert large["iteration"] == added["iteration"] == 6
    for name, tensor in large["networks"].items():
        torch.testing.assert_close(added["networks"][name], tensor, atol=1e-9, rtol=1e-9, msg=name)


def test_two_processes_stop_together_and_go_on_with_their_own_dropout(photo_folder: Path, tmp_path: Path) -> None:
    """Exactly as one process does: what was interrupted equals what was not."""
    script = tmp_path / "magtrain.py"
    script.write_text(STOPS)
    shared = ["--preset", "smoke", "--devices", 2, "--set", "data.spliced=2", "--set", "schedule.adversary_from=1"]
    fit(script, "--data", photo_folder, "--out", tmp_path / "whole", *shared)
    fit(script, "--data", photo_folder, "--out", tmp_path / "broken", *shared, stop_at=5)
    stopped = load_checkpoint(tmp_path / "broken" / "last.pt")
    assert stopped["iteration"] == 5 and not torch.equal(*stopped["random"])
    fit(script, "--resume", "--out", tmp_path / "broken", "--devices", 2)
    whole, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "broken"))
    assert whole["iteration"] == resumed["iteration"] == 6
    for name, tensor in whole["networks"].items():
        assert torch.equal(tensor, resumed["networks"][name]), name
    assert (tmp_path / "whole" / "validation.csv").read_text().count("\n") == 3  # a head and two epochs


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_a_run_of_low_precision_trains_all_four_players(precision: str, photo_folder: Path, tmp_path: Path) -> None:
    rules = configuration.load("smoke", [f"precision={precision}", "schedule.adversary_from=0", "schedule.epochs=1"])
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    before = {name: each.clone() for name, each in run.mag.state_dict().items()}
    run.fit()
    moved = {n.split(".")[0] for n, each in run.mag.state_dict().items() if not torch.equal(each, before[n])}
    assert moved == {"annotator", "retoucher", "d_a", "d_r"}
    scales = load_checkpoint(tmp_path / "run" / "last.pt")["scalers"]
    assert all(bool(scales[name]) == (precision == "16-mixed") for name in moved)


def test_a_run_goes_on_in_another_precision(photo_folder: Path, tmp_path: Path) -> None:
    rules = configuration.load("smoke", ["schedule.epochs=1"])
    trainer.start(rules, photo_folder, tmp_path / "run").fit()
    for precision in ("16-mixed", "32-true"):
        run = trainer.resume(tmp_path / "run", None, [f"precision={precision}"])
        run.save("last.pt")
        scales = load_checkpoint(tmp_path / "run" / "last.pt")["scalers"]
        assert bool(scales["annotator"]) == (precision == "16-mixed")


def test_a_float16_run_goes_on_at_the_scale_that_it_had_found(photo_folder: Path, tmp_path: Path) -> None:
    """Else it begins again with the largest, and loses steps until the scale has come down."""
    run = trainer.start(configuration.load("smoke", ["precision=16-mixed"]), photo_folder, tmp_path / "run")
    scaler = run.game.players["annotator"].scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": 512.0})
    run.save("last.pt")
    again = trainer.resume(tmp_path / "run", None, [])
    assert again.game.players["annotator"].scaler.get_scale() == 512
    assert again.game.players["d_a"].scaler.get_scale() > 512


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_low_precision_leaves_the_picture_as_it_is(precision: str) -> None:
    """Near white its steps are half a grey level, and traces of a splice are smaller."""
    network = launch(precision).setup(torch.nn.Identity())
    image = torch.linspace(-1, 1, 256)
    assert torch.equal(network(image), image)


def test_an_overflow_in_float16_costs_one_player_one_step(photo_folder: Path, tmp_path: Path) -> None:
    rules = configuration.load("smoke", ["precision=16-mixed", "schedule.adversary_from=0"])
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    for name, player in run.game.players.items():
        scale = 1e38 if name == "d_r" else 256.0  # the others': far from what any picture would make overflow
        player.scaler.load_state_dict({**player.scaler.state_dict(), "scale": scale})
    before = {name: each.clone() for name, each in run.mag.state_dict().items() if name.endswith("weight")}
    run._iterate(run._drawn(1), joined=True)
    moved = {n.split(".")[0] for n in before if not torch.equal(run.mag.state_dict()[n], before[n])}
    assert moved == {"annotator", "retoucher", "d_a"}
    assert run.game.players["d_r"].scaler.get_scale() == pytest.approx(5e37)
    assert run.game.players["annotator"].scaler.get_scale() == 256
