"""What a command is told reaches the work, and what it says of files is what the files are called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from rich.console import Console

from mag_train import calibration, cli, evaluate_command, synthesize_command, trainer

NAME = "photos/:cat:.jpg"
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "console",
    [
        trainer.console,
        calibration.console,
        synthesize_command.progress_console,
        evaluate_command.progress_console,
        evaluate_command.terminal,
    ],
)
def test_a_name_between_colons_is_no_picture_of_it(console: Console) -> None:
    with console.capture() as said:
        console.print(NAME)
    assert said.get() == f"{NAME}\n"


def test_nor_is_it_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["magtrain", "synthesize", NAME, str(tmp_path / "out")])
    for process, said in (("0", f"magtrain: {NAME}: no such folder\n"), ("1", "")):
        monkeypatch.setenv("LOCAL_RANK", process)  # of several processes the first one speaks
        with pytest.raises(SystemExit):
            cli.main()
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "arguments", [["fit", "--preset", "smoke", "--data", "photos", "--out", "run"], ["export", "run", "bundle"]]
)
def test_without_what_training_needs_a_line_says_what_to_install(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n")
    done = subprocess.run(
        [sys.executable, "-c", "from mag_train.cli import main; main()", *arguments],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "magtrain: torch is missing: pip install 'magrt[train]'\n")


def test_a_name_that_is_no_unicode_is_said_as_escapes(photo_folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(photo_folder, odd / "photos")
    for folder in ("images", "labels"):
        for path in sorted((odd / "photos" / folder).iterdir()):
            path.rename(path.with_stem(path.stem + os.fsdecode(b"\xe9")))
    done = subprocess.run(
        [sys.executable, "-c", "from mag_train.cli import main; main()", "synthesize", odd / "photos", odd / "made"],
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9/made: 12 spliced and 12 authentic pictures" in done.stdout


def test_fit_trains_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    for name in ("start", "resume"):
        run = SimpleNamespace(fit=lambda: True)
        monkeypatch.setattr(trainer, name, lambda *of, name=name, run=run: told.append((name, *of)) or run)
    words = ["fit", "--out", "run", "--precision", "16-mixed", "--set", "seed=7", "--devices", "2", "--num-nodes", "3"]
    given = ["--preset", "smoke", "--data", "photos", "--start-from", "model"]
    cli.app([*words, *given], standalone_mode=False)
    cli.app([*words, "--resume"], standalone_mode=False)
    (_, config, *started), resumed = told
    assert (config.precision, config.seed, config.data.crop) == ("16-mixed", 7, 64)
    assert started == [Path("photos"), Path("run"), Path("model"), 2, 3]
    assert resumed == ("resume", Path("run"), None, ["precision=16-mixed", "seed=7"], 2, 3)


@pytest.mark.parametrize(
    ("option", "said"),
    [(["--start-from", "model"], "has its own weights"), (["--preset", "edge"], "own settings; --set changes one")],
)
def test_what_only_a_new_run_can_be_given_is_refused_on_resume(
    option: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "resume", lambda *_: pytest.fail("it went on as if that had not been said"))
    with pytest.raises(typer.BadParameter, match=said):
        cli.app(["fit", "--out", "run", "--resume", *option], standalone_mode=False)
