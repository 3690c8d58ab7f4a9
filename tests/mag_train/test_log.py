"""The log: every number is in the tables and in TensorBoard, once, whatever happened to the run in between."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from mag_train import log
from mag_train.log import Log

TERMS = [name for name in Log.METRICS if "/" in name or name.startswith("d_")]


@pytest.fixture(autouse=True)
def rows_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOG_EVERY", 2)
    # Readers take event files by name: those of one second and one process follow each other by this number.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def terms(value: float, names: Iterable[str] = TERMS) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value + index) for index, name in enumerate(names)}


def train(log: Log, iterations: Iterable[int], offset: float = 0.0) -> None:
    for iteration in iterations:
        log.add(iteration, terms(iteration + offset), rate=0.5, pictures=4, seconds=2.0, waited=0.5)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def validation(folder: Path) -> list[list[str]]:
    """Its rows under the head."""
    with (folder / "validation.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["epoch", "iteration", "AP", "seconds"]
    return rows


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard shows of a run."""
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, pytest.approx(point.value)) for point in events(folder).Scalars(tag)]


def test_an_epoch_validated_again_has_one_row(tmp_path: Path) -> None:
    """As after a kill between the validation and the checkpoint that knows of it."""
    for score in (0.5, 0.75):
        with Log(tmp_path, 6) as log:
            log.validated(1, 6, score, 10.0)
    assert [row[:3] for row in validation(tmp_path)] == [["1", "6", "0.75000"]]


def test_every_column_is_a_curve_in_tensorboard_with_the_same_values(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as kept:
        train(kept, range(1, 5))
    rows = metrics(tmp_path)
    assert [row["iteration"] for row in rows] == ["2", "4"]
    for name in set(Log.METRICS) - {"iteration"}:
        assert points(tmp_path, name) == [(2, float(rows[0][name])), (4, float(rows[1][name]))], name


def test_a_row_has_means_over_its_iterations(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as kept:
        assert kept.add(1, terms(1.0), 0.1, pictures=6, seconds=1.0, waited=0.2) is None
        row = kept.add(2, terms(2.0), 0.1, pictures=6, seconds=3.0, waited=0.2)
    assert row is not None and row[TERMS[0]] == 1.5 and row[TERMS[1]] == 2.5
    assert row["pictures_per_second"] == 3.0 and row["waiting_for_data"] == pytest.approx(0.1)


def test_a_term_that_begins_within_a_row_waits_for_the_next(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as kept:
        kept.add(1, terms(1.0, ["annotator/spliced"]), 0.1, 4, 1.0, 0.0)
        train(kept, range(2, 5))
    first, second = metrics(tmp_path)
    assert first["d_a"] == "" and float(first["annotator/spliced"]) > 0 and float(second["d_a"]) > 0


def test_validation_and_panels_are_shown_too(tmp_path: Path) -> None:
    panel = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    with Log(tmp_path, 0) as kept:
        kept.validated(1, 320, 0.25, 61.4)
        kept.panel(320, panel)
    assert validation(tmp_path) == [["1", "320", "0.25000", "61"]]
    assert points(tmp_path, "validation/AP") == [(320, 0.25)]
    (image,) = events(tmp_path).Images("panels")
    assert (image.step, image.height, image.width) == (320, 20, 30)


@pytest.mark.parametrize("went_on_from", [0, 4])
def test_after_a_resume_no_number_is_there_twice_and_none_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, went_on_from: int
) -> None:
    monkeypatch.setattr(log, "LOG_EVERY", 1)
    died = Log(tmp_path, 0)
    train(died, range(1, 9))
    for iteration in (4, 8):
        died.validated(iteration // 4, iteration, 0.1, 9.0)
        died.panel(iteration, np.zeros((8, 8, 3), np.uint8))
    with Log(tmp_path, went_on_from) as kept:  # the first one was never closed
        train(kept, range(went_on_from + 1, 7), offset=100.0)
        kept.validated(2, 8, 0.3, 9.0)
    expected = [(step, step if step <= went_on_from else step + 100) for step in range(1, 7)]
    assert points(tmp_path, TERMS[0]) == expected
    assert [(int(row["iteration"]), float(row[TERMS[0]])) for row in metrics(tmp_path)] == expected
    epochs = [(4, 0.1), (8, 0.3)] if went_on_from else [(8, 0.3)]
    assert points(tmp_path, "validation/AP") == epochs
    assert [(int(row[1]), float(row[2])) for row in validation(tmp_path)] == epochs
    shown = events(tmp_path)
    images = shown.Images("panels") if "panels" in shown.Tags()["images"] else []
    assert [image.step for image in images] == ([4] if went_on_from else [])


def test_lines_and_events_cut_short_by_a_crash_are_no_obstacle(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as died:
        train(died, range(1, 9))
        died.validated(1, 8, 0.1, 9.0)
    for path in (tmp_path / "metrics.csv", tmp_path / "validation.csv", *(tmp_path / "tensorboard").iterdir()):
        path.write_bytes(path.read_bytes()[:-7])
    with Log(tmp_path, 8) as kept:
        train(kept, range(9, 11))
    assert [row["iteration"] for row in metrics(tmp_path)] == ["2", "4", "6", "10"]
    assert validation(tmp_path) == []
    assert [step for step, _ in points(tmp_path, TERMS[0])] == [2, 4, 6, 8, 10]


def test_a_run_killed_in_an_instant_has_shown_all_its_rows(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, torch; from pathlib import Path; from mag_train import log\n"
        "log.LOG_EVERY = 1; kept = log.Log(Path(sys.argv[1]), 0)\n"
        "row = dict.fromkeys(log.Log.METRICS[4:], torch.tensor(1.0))\n"
        "for iteration in range(1, 31): kept.add(iteration, row, 0.1, 4, 1.0, 0.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path]).returncode == -signal.SIGKILL
    for name in TERMS:
        assert [step for step, _ in points(tmp_path, name)] == list(range(1, 31)), name
    assert len(metrics(tmp_path)) == 30


def test_dying_while_the_tables_are_rewritten_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Log(tmp_path, 0) as kept:
        train(kept, range(1, 9))
    before = (tmp_path / "metrics.csv").read_bytes()

    def die(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(OSError, match="No space"):
        Log(tmp_path, 4)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_a_table_with_a_column_of_another_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("iteration,rate,iterations_per_second\n2,0.5,7.0\n")
    with Log(tmp_path, 2) as kept:
        train(kept, range(3, 5))
    assert [(row["iteration"], row["rate"]) for row in metrics(tmp_path)] == [("2", "0.5"), ("4", "0.5")]


def test_without_tensorboard_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match=r"pip install 'magrt\[train\]'"):
        Log(tmp_path, 0)
