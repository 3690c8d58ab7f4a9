"""What the commands say of files is what the files are called."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from mag_train import calibration, cli, evaluate_command, synthesize_command, trainer

NAME = "photos/:cat:.jpg"


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
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"magtrain: {NAME}: no such folder\n"
