"""Checkpoints on disk: written whole or not at all, and read with errors that a person understands."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says why, for the person who started it."""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write `state` atomically: the file is the old one or the new one, never a part.

    Raises RunError when it cannot be written, as on a full disk; the old file is then untouched.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.touch()  # of a folder that has gone or may not be written to, torch says what it says of a full disk
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else "the disk is full or failing, make room"
        goes_on = "--resume goes on from the last checkpoint" if path.with_name("last.pt").exists() else "start again"
        raise RunError(f"cannot write {path}: {reason}; {goes_on}") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote. Raises RunError when it is missing, damaged or no checkpoint of this version."""
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():  # torch would load it
                raise ValueError(damaged)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch.load raises whatever pickle and zip do
        raise RunError(f"{path}: not a checkpoint of a run, or a damaged one ({type(error).__name__})") from error
    if "before" not in state:
        raise RunError(f"{path}: the checkpoint of a run of another version, which did not count pictures")
    return state


def trained_so_far(state: dict[str, Any]) -> dict[str, float]:
    """Iterations, pictures and hours behind a checkpoint, those of the model that its run started from included."""
    own = {"iterations": state["iteration"], "pictures": state["pictures"], "hours": state["seconds"] / 3600}
    return {unit: amount + state["before"].get(unit, 0) for unit, amount in own.items()}


def best_checkpoint(run: Path) -> Path:
    """The checkpoint to use: a checkpoint itself, or of a run's folder the best, or the last before any is best."""
    if run.suffix == ".pt":
        return run
    best = run / "best.pt"
    return best if best.is_file() else run / "last.pt"
