"""A run: it learns, it stops when asked, and what is resumed goes on as if it had never stopped."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mag_rt.errors import ResultsError
from mag_rt.sinks.alone import alone
from mag_train import config as configuration
from mag_train import log, panels, trainer
from mag_train.calibration import calibration_photos
from mag_train.checkpoint import RunError, load_checkpoint, save_checkpoint
from mag_train.config import Config
from mag_train.data.stream import batches
from mag_train.data.targets import Pictures, pictures
from mag_train.export import photos_by_class
from mag_train.metrics import average_precision
from mag_train.step import Game
from mag_train.trainer import Run
from tests.conftest import save
from tests.mag_train.conftest import labelled_photo

CLOCKED = {"pictures_per_second", "waiting_for_data"}
"""Columns that a second run cannot repeat."""
SMALL = ["data.spliced=2", "schedule.adversary_from=1", "optim.average=0.5"]


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(log, "LOG_EVERY", 1)
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    return configuration.load("smoke", SMALL)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in CLOCKED} for row in csv.DictReader(file)]


def stop_after(run: Run, iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run to stop, as Ctrl-C does, in its n-th iteration from here."""
    warm_up, adversarial, left = trainer.warm_up_iteration, trainer.adversarial_iteration, [iterations]

    def counted(step):
        def iteration(*arguments):
            left[0] -= 1
            if not left[0]:
                signal.raise_signal(signal.SIGINT)
            return step(*arguments)

        return iteration

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "warm_up_iteration", counted(warm_up))
        patch.setattr(trainer, "adversarial_iteration", counted(adversarial))
        run.fit()


def test_rates_follow_the_schedule_and_the_average_its_decay(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve iterations that do nothing but say their number in every weight and statistic of the annotator."""
    rates: list[dict[str, float]] = []

    def said(game: Game, a: Pictures, b: Pictures) -> dict[str, torch.Tensor]:
        rates.append({name: player.optimiser.param_groups[0]["lr"] for name, player in game.players.items()})
        for each in game.annotator.state_dict().values():
            each.fill_(len(rates))
        return {"annotator/spliced": torch.tensor(0.0)}

    monkeypatch.setattr(trainer, "warm_up_iteration", said)
    monkeypatch.setattr(Run, "validate", lambda _: 0.5)
    # It ticks whenever somebody looks: three times an iteration, that for the data included.
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=count(0.0).__next__))
    own = ["optim.lr=0.4", "optim.adversary_lr=0.1", "optim.clip=5.0", "schedule.adversary_from=2"]
    run = trainer.start(configuration.override(rules, own), photo_folder, tmp_path / "run")
    adversaries = {"retoucher", "d_r", "d_a"}
    clips = {name: player.clip for name, player in run.game.players.items()}
    assert clips == {"annotator": 5.0, **dict.fromkeys(adversaries, np.inf)}
    run.fit()
    assert run.seconds == 3 * 12
    factors = [
        1 / 2,
        *5 * [1],
        *(left / 6 for left in (6, 5, 4, 3, 2, 1)),
    ]  # up over two iterations, down over an epoch
    for said_then, factor in zip(rates, factors, strict=True):
        assert said_then == pytest.approx({"annotator": 0.4 * factor, **dict.fromkeys(adversaries, 0.1 * factor)})
    average = 1.0
    for number in range(2, 13):
        average += 0.5 * (number - average)
    for name, each in run.average.module.state_dict().items():
        assert not each.is_floating_point() or each.flatten()[0].item() == pytest.approx(average), name


def test_the_ablations_of_the_paper_are_a_setting_each(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    iteration = trainer.unretouched_iteration
    monkeypatch.setattr(
        trainer,
        "unretouched_iteration",
        lambda game, a, b: counted.extend((a.counted, b.counted)) or iteration(game, a, b),
    )
    settings = ["model.tasks=mask", "model.retoucher=none", "schedule.epochs=1", "schedule.adversary_from=0"]
    trainer.start(configuration.override(rules, settings), photo_folder, tmp_path / "run").fit()
    assert counted and all(each[:, 0].all() and not each[:, 1:].any() for each in counted)
    for row in rows(tmp_path / "run"):
        assert float(row["d_a"]) > 0 and not row["d_r"] and not row["retoucher/hiding"]


def test_validation_is_the_ap_of_the_averaged_annotator_as_it_is_used(
    rules: Config, photo_folder: Path, tmp_path: Path
) -> None:
    run = trainer.start(configuration.override(rules, ["schedule.epochs=1"]), photo_folder, tmp_path / "run")
    run.fit()
    raw, _ = run.validation[0]
    scores = {}
    for name, annotator in (("average", run.average), ("last", run.mag.annotator)):
        with torch.no_grad():
            masks = annotator.eval()(pictures(raw, torch.device("cpu")).image)[:, 0].numpy()
        scores[name] = np.mean([average_precision(t > 0, m) for t, m in zip(raw.mask.numpy(), masks, strict=True)])
    run.average.train()
    assert run.validate() == pytest.approx(scores["average"]) != pytest.approx(scores["last"])
    run.epoch += 1
    assert run.validate() == pytest.approx(scores["average"])  # on the same pictures every time


def test_a_resumed_run_equals_an_undisturbed_one(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer.start(rules, photo_folder, tmp_path / "whole").fit()
    broken = trainer.start(rules, photo_folder, tmp_path / "broken")
    stop_after(broken, 3, monkeypatch)  # in the warm-up
    assert broken.iteration == 3
    again = trainer.resume(tmp_path / "broken", None, [])
    assert (again.seconds, again.pictures) == (broken.seconds, broken.pictures) and min(
        again.seconds, again.pictures
    ) > 0
    stop_after(again, 5, monkeypatch)  # with the retoucher in the game
    assert again.iteration == 8
    trainer.resume(tmp_path / "broken", None, []).fit()

    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    whole, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "broken"))
    assert whole["iteration"] == resumed["iteration"] == 12
    for part in ("networks", "average"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), name


@pytest.mark.parametrize(
    "changed", [["optim.accumulate=2"], ["data.spliced=4"], ["data.spliced=1"]], ids=["longer", "larger", "smaller"]
)
@pytest.mark.parametrize("old", [False, True], ids=["checkpoint", "checkpoint of before positions were kept"])
def test_iterations_of_another_length_leave_epochs_and_pictures_as_they_are(
    changed: list[str], old: bool, rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven photos, two a batch, so six iterations an epoch: stopped in the middle of the second of four."""
    four = configuration.override(rules, ["schedule.epochs=4", "schedule.adversary_from=3", "schedule.decay_epochs=2"])
    stop_after(trainer.start(four, photo_folder, tmp_path / "run"), 10, monkeypatch)
    if old:
        state = load_checkpoint(tmp_path / "run" / "last.pt")
        for key in ("epoch", "step", "iterations_per_epoch", "drawn"):
            del state[key]
        save_checkpoint(state, tmp_path / "run" / "last.pt")
    run = trainer.resume(tmp_path / "run", None, changed)
    shown: list[int] = []
    monkeypatch.setattr(trainer, "batches", lambda stream, numbers: shown.extend(numbers) or batches(stream, numbers))
    run.fit()
    per_epoch = {"optim.accumulate=2": 3, "data.spliced=4": 3, "data.spliced=1": 11}[changed[0]]
    assert run.epoch == 4 and run.step == 0 and run.iteration == 10 + 2 * per_epoch + -(-per_epoch // 3)
    assert shown[0] * run.config.data.spliced == 20 and shown == list(range(shown[0], shown[-1] + 1))
    logged = rows(tmp_path / "run")
    rates = [float(row["rate"]) for row in logged]
    assert max(rates[: -2 * per_epoch]) == rates[-2 * per_epoch] == four.optim.lr
    assert rates[-per_epoch] == pytest.approx(four.optim.lr / 2)
    assert [bool(row["d_a"]) for row in logged] == [False] * (len(logged) - per_epoch) + [True] * per_epoch
    with (tmp_path / "run" / "validation.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


def test_settings_of_the_optimiser_can_be_changed_on_resume(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer.start(configuration.override(rules, ["schedule.epochs=1"]), photo_folder, tmp_path / "run").fit()
    settings = ["optim.weight_decay=0.5", "optim.annotator_betas=[0.8, 0.99]"]
    run = trainer.resume(tmp_path / "run", None, settings)
    players = run.game.players
    (group,) = players["annotator"].optimiser.param_groups
    assert group["weight_decay"] == 0.5 and tuple(group["betas"]) == (0.8, 0.99)
    (group,) = players["d_a"].optimiser.param_groups
    assert group["weight_decay"] == 0 and tuple(group["betas"]) == (0.5, 0.999)
    run.fit()
    kept = Config.model_validate_json((tmp_path / "run" / "config.json").read_text())
    assert kept.optim.weight_decay == 0.5 and kept.schedule.epochs == 1


def test_a_run_goes_on_with_the_photos_that_it_is_given(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer.start(rules, photo_folder, tmp_path / "run")
    moved = shutil.copytree(photo_folder, tmp_path / "moved")
    assert trainer.resume(tmp_path / "run", None, []).data == photo_folder
    run = trainer.resume(tmp_path / "run", moved, [])
    assert run.data == moved and run.stream.hosts[0].image.is_relative_to(moved)


def test_what_was_best_on_other_validation_pictures_is_forgotten(
    rules: Config, photo_folder: Path, tmp_path: Path
) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    run.fit()
    assert trainer.resume(tmp_path / "run", None, ["schedule.epochs=3"]).best == run.best > 0
    assert trainer.resume(tmp_path / "run", None, ["seed=7"]).best == 0
    assert trainer.resume(tmp_path / "run", None, ["data.spliced=3"]).best == 0  # more of them


def test_a_checkpoint_has_the_validation_of_its_own_weights(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    run.fit()
    run.iteration += 1
    run.save("between.pt")
    with (tmp_path / "run" / "validation.csv").open() as file:
        scores = [float(row["AP"]) for row in csv.DictReader(file)]
    found = [load_checkpoint(tmp_path / "run" / name)["validation_ap"] for name in ("last.pt", "best.pt", "between.pt")]
    assert found == [pytest.approx(scores[-1], abs=1e-4), pytest.approx(max(scores), abs=1e-4), None]


def test_a_run_leaves_what_it_promises(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    run.fit()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.json", "metrics.csv", "validation.csv", "last.pt", "best.pt", "panels", "tensorboard",
    }  # fmt: skip
    logged = rows(tmp_path / "run")
    assert [int(row["iteration"]) for row in logged] == list(range(1, 13))
    assert all(row["d_a"] == "" for row in logged[:6]) and all(float(row["d_a"]) > 0 for row in logged[6:])
    assert (panels.tile(panels.read(tmp_path / "run", 1), 0, "attention") == panels.NOTHING).all()  # it joins later
    drawn = panels.draw(run.shown, run.average, run.mag.retoucher)
    assert np.array_equal(panels.read(tmp_path / "run", 2), drawn)
    assert Config.model_validate_json((tmp_path / "run" / "config.json").read_text()) == rules


def test_training_lowers_the_loss(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    longer = configuration.override(rules, ["schedule.epochs=6", "schedule.adversary_from=6"])
    trainer.start(longer, photo_folder, tmp_path / "run").fit()
    losses = [float(row["annotator/spliced"]) + float(row["annotator/authentic"]) for row in rows(tmp_path / "run")]
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_held_out_photos_are_never_trained_on(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    assert not set(run.stream.hosts) & set(run.validation.hosts)
    assert len(run.stream.hosts) + len(run.validation.hosts) == 12


def test_photos_lost_or_added_change_no_side(
    rules: Config, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a run that goes on is validated, and its bundle calibrated, on photos that it has been trained on."""
    photos = tmp_path / "photos"
    shutil.copytree(photo_folder, photos)
    run = trainer.start(rules, photos, tmp_path / "run")
    held_out = [photo.image.name for photo in run.validation.hosts]
    assert held_out == ["00.jpg"]
    shutil.copy(photos / "images" / "01.jpg", photos / "images" / "0.jpg")  # now the first
    again = trainer.resume(tmp_path / "run", None, [])
    again.save("last.pt")
    assert [photo.image.name for photo in again.validation.hosts] == held_out
    assert "0.jpg" in {photo.image.name for photo in again.stream.hosts}
    state = load_checkpoint(tmp_path / "run" / "last.pt")
    calibrating = calibration_photos(photos, held_out=state["held_out"])
    assert [photo.image.name for photo in calibrating] == held_out
    known = photos_by_class(photos, state["held_out"])
    assert known and known["person"] == 10  # neither 00.jpg nor the two without maps
    (photos / "images" / "00.jpg").unlink()
    with pytest.raises(RunError, match="none of the photos that the run has held out is there; name a folder"):
        calibration_photos(photos, held_out=state["held_out"])
    capsys.readouterr()
    assert [photo.image.name for photo in trainer.resume(tmp_path / "run", None, []).validation.hosts] == ["0.jpg"]
    assert "others are held out from here on" in capsys.readouterr().err


def test_photos_whose_names_are_no_unicode_are_trained_on(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    for path in [each for each in (tmp_path / "photos").rglob("*") if each.is_file()]:
        path.rename(path.with_stem(path.stem + os.fsdecode(b"\xe9")))
    assert trainer.start(rules, tmp_path / "photos", tmp_path / "run").fit()


def test_held_out_photos_are_known_again_by_whatever_path(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest may name photos from the root, and the folder be given from where one stands."""
    listed = tmp_path / "listed"
    shutil.copytree(photo_folder, listed)
    rows = [f"training\t{path}\t" for path in sorted((listed / "images").iterdir(), reverse=True)]
    (listed / "manifest.tsv").write_text("\n".join(["role\timage\tlabel", *rows]))
    monkeypatch.chdir(tmp_path)
    run = trainer.start(rules, Path("listed"), tmp_path / "run")
    (listed / "manifest.tsv").write_text("\n".join(["role\timage\tlabel", *rows[::-1]]))
    monkeypatch.chdir(listed)
    again = trainer.resume(tmp_path / "run", None, [])
    assert [photo.image for photo in again.validation.hosts] == [photo.image for photo in run.validation.hosts]


def test_a_folder_with_a_run_is_not_overwritten(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer.start(rules, photo_folder, tmp_path / "run")
    with pytest.raises(RunError, match="--resume"):
        trainer.start(rules, photo_folder, tmp_path / "run")


def test_a_run_that_is_going_on_is_not_gone_on_with_elsewhere(
    rules: Config, photo_folder: Path, tmp_path: Path
) -> None:
    """Both would write its tables and checkpoints; the first keeps them, the second has changed nothing."""
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    with alone(tmp_path / "run", "run"):
        second = trainer.resume(tmp_path / "run", None, ["optim.lr=0.5"])
        with pytest.raises(ResultsError, match="another run is writing there"):
            second.fit()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"last.pt"}
    met = []

    def look(name: str) -> None:
        with pytest.raises(ResultsError, match="another run"), alone(tmp_path / "run", "run"):
            pass
        met.append(name)

    run.save = look  # type: ignore[method-assign]
    run.fit()
    assert met[-1] == "last.pt"


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such checkpoint"):
        trainer.resume(tmp_path, None, [])
    (tmp_path / "last.pt").write_bytes(b"nonsense")
    with pytest.raises(RunError, match="not a checkpoint"):
        trainer.resume(tmp_path, None, [])


def test_a_run_that_goes_on_keeps_its_networks(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    trainer.start(rules, photo_folder, tmp_path / "run")
    with pytest.raises(RunError, match=r"model\.retoucher is unet and stays so: --start-from"):
        trainer.resume(tmp_path / "run", None, ["model.retoucher=none"])


def test_a_save_that_fails_leaves_the_old_checkpoint(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, most))
    try:
        with pytest.raises(RunError, match=r"cannot write .*last\.pt: the disk is full .*make room; --resume goes on"):
            run.save("last.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert (tmp_path / "run" / "last.pt").read_bytes() == before
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"last.pt"}


def test_a_folder_that_has_gone_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot write .*last\.pt: No such file or directory; start again"):
        save_checkpoint({}, tmp_path / "run" / "last.pt")


def test_a_run_that_could_not_save_its_beginning_is_started_again(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without a checkpoint holds nothing to go on from, and nothing to lose."""

    def full_disk(_state: object, path: Path) -> None:
        path.write_bytes(b"half a checkpoint")
        raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file data/0")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full_disk)
        with pytest.raises(RunError, match=r"full or failing, make room; start again"):
            trainer.start(rules, photo_folder, tmp_path / "run")
    trainer.start(rules, photo_folder, tmp_path / "run")
    assert trainer.resume(tmp_path / "run", None, []).iteration == 0


def test_a_loss_that_is_no_number_stops_the_run_and_names_terms_and_photos(
    rules: Config, photo_folder: Path, tmp_path: Path
) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    with torch.no_grad():
        next(run.mag.annotator.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match=r"iteration 0 is not finite: annotator/spliced nan, .*images/\d\d\.jpg"):
        run.fit()
    assert torch.isfinite(load_checkpoint(tmp_path / "run" / "last.pt")["networks"]["annotator.head.weight"]).all()


def test_training_that_has_diverged_is_called_that(rules: Config, photo_folder: Path, tmp_path: Path) -> None:
    run = trainer.start(rules, photo_folder, tmp_path / "run")
    for weights in run.average.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(RunError, match="after iteration 0 the annotator gives no numbers: training diverged"):
        run.validate()


def test_a_corrupt_photo_is_skipped_and_said_once(
    rules: Config, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photo_folder, tmp_path / "photos")
    (tmp_path / "photos" / "images" / "03.jpg").write_bytes(b"corrupt")
    trainer.start(rules, tmp_path / "photos", tmp_path / "run").fit()
    said = capsys.readouterr().err
    assert "03.jpg" in said and "(1 so far)" in said and "(2 so far)" not in said
    assert len(rows(tmp_path / "run")) == 12


def test_held_out_photos_that_cannot_be_read_are_said_and_cost_no_epoch(
    rules: Config, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    for number in range(26):
        save(photos / "images" / f"{number:02d}.png", labelled_photo(number)[0])
    run = trainer.start(configuration.override(rules, ["data.spliced=5"]), photos, tmp_path / "run")
    first, second = (photo.image for photo in run.validation.hosts)
    (photos / "first.png").write_bytes(first.read_bytes())
    first.write_bytes(b"corrupt")
    run.validate()
    assert "skipped" in (said := capsys.readouterr().err) and "00.png" in said and "(1 so far)" in said
    run = trainer.resume(tmp_path / "run", None, [])  # one that has not looked at them yet
    second.unlink()
    with pytest.raises(RuntimeError, match=f"none of the photos can be read: .*{second.name}.*{first.name}"):
        run.fit()
    assert load_checkpoint(tmp_path / "run" / "last.pt")["iteration"] == 5
    (photos / "first.png").replace(first)
    trainer.resume(tmp_path / "run", None, []).fit()
    assert len(load_checkpoint(tmp_path / "run" / "last.pt")["held_out"]) == 2  # what is lost may come back
    with (tmp_path / "run" / "validation.csv").open() as file:
        assert [(row["epoch"], row["iteration"]) for row in csv.DictReader(file)] == [("1", "5"), ("2", "10")]


def magtrain(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from mag_train.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_ctrl_c_at_the_command_line_saves_and_exits(photo_folder: Path, tmp_path: Path) -> None:
    """The signal goes to the whole process group, as a terminal sends it: the workers must not die of it."""
    run = tmp_path / "run"
    many = ("--set", "schedule.epochs=10000", "--set", "data.workers=1")
    process = magtrain("fit", "--preset", "smoke", "--data", photo_folder, "--out", run, *many)
    timer = threading.Timer(100, process.kill)
    timer.start()
    while process.poll() is None and not (run / "best.pt").exists():
        threading.Event().wait(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    timer.cancel()
    assert process.returncode == 130, said  # fit && export must not export half a run
    assert "--resume continues" in said and "Traceback" not in said
    assert load_checkpoint(run / "last.pt")["iteration"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "neither manifest.tsv nor"),
        ([], "--data"),
        (["--data", "nowhere", "--preset", "huge"], "no preset 'huge'"),
        (["--data", "nowhere", "--set", "optim.lr=x"], "optim.lr"),
        (["--resume"], "no such checkpoint"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], said: str, tmp_path: Path) -> None:
    process = magtrain("fit", "--out", tmp_path / "run", *arguments)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said in text and "Traceback" not in text


def test_a_crop_that_the_retoucher_cannot_take_is_refused_at_once(photo_folder: Path, tmp_path: Path) -> None:
    """Not after the epochs before it joins; without it the annotator's multiple is enough."""
    with pytest.raises(RunError, match=r"data\.crop 96: the networks take pictures whose sides are multiples of 64"):
        trainer.start(configuration.load("smoke", ["data.crop=96"]), photo_folder, tmp_path / "run")
    for without in ("model.retoucher=none", "schedule.adversary_from=1000"):
        trainer.start(configuration.load("smoke", ["data.crop=96", without]), photo_folder, tmp_path / without)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    rules: Config, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two checkpoints of an epoch, with rows in its tables that no checkpoint knows of."""
    trainer.start(rules, photo_folder, tmp_path / "whole").fit()
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY", 0)
        run = trainer.start(rules, photo_folder, tmp_path / "killed")
        save = run.save

        def killed(name: str) -> None:
            save(name)
            if run.iteration == 8:
                patch.setattr(trainer, "SAVE_EVERY", 1e9)
                patch.setattr(run, "save", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))  # at the epoch's end

        patch.setattr(run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run.fit()
    panel_of_no_checkpoint = tmp_path / "killed" / "panels" / "epoch_0009.png"
    panel_of_no_checkpoint.touch()
    assert len(rows(tmp_path / "killed")) == 12 and load_checkpoint(tmp_path / "killed" / "last.pt")["iteration"] == 8
    trainer.resume(tmp_path / "killed", None, []).fit()
    assert not panel_of_no_checkpoint.exists()
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")
    ends = [(tmp_path / name / "validation.csv").read_text().splitlines() for name in ("whole", "killed")]
    assert [line.rsplit(",", 1)[0] for line in ends[0]] == [line.rsplit(",", 1)[0] for line in ends[1]]
