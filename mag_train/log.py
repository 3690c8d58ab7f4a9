"""What a run records of itself as it goes: tables that any program reads, and the same numbers for TensorBoard."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mag_train.step import Terms

LOG_EVERY = 20
"""Iterations in a row of metrics.csv, whose terms are means over them."""


class Log:
    """`metrics.csv` and `validation.csv` in a run's folder, and both again, with pictures, in its `tensorboard/`.

    Rows past the iteration at which a run goes on were written by one that died before it saved: they are dropped from
    the tables. TensorBoard's files only grow: there a restart is marked, and its readers drop what lies past it.
    """

    METRICS = (
        "iteration", "rate", "pictures_per_second", "waiting_for_data",
        "annotator/spliced", "annotator/retouched", "annotator/authentic", "annotator/realism", "annotator/norm",
        "retoucher/semantic", "retoucher/hiding", "retoucher/realism", "retoucher/fidelity", "retoucher/norm",
        "d_a", "d_a/norm", "d_r", "d_r/norm",
    )  # fmt: skip
    VALIDATION = ("epoch", "iteration", "AP", "seconds")

    def __init__(self, folder: Path, iteration: int) -> None:
        """Raises RuntimeError when TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise RuntimeError("TensorBoard is missing: pip install 'magrt[train]'") from None
        self.metrics, self.validation = folder / "metrics.csv", folder / "validation.csv"
        for table, columns in ((self.metrics, self.METRICS), (self.validation, self.VALIDATION)):
            _rewrite(table, columns, _rows_until(table, iteration))
        # At a first start too: readers take the first mark in a folder for no restart, and the next must not be it.
        self.events = SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)
        self._begin_row()

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.events.close()

    def _begin_row(self) -> None:
        self.pending: list[Terms] = []
        self.pictures, self.seconds, self.waited = 0, 0.0, 0.0

    def add(
        self, iteration: int, terms: "Terms", rate: float, pictures: int, seconds: float, waited: float
    ) -> dict[str, float] | None:
        """Keep the terms of an iteration; when a row is complete write it and return it.

        `pictures`: how many it saw, A and B together, on all devices. `seconds`: how long it took, with the `waited`
        seconds for its data, without what came between iterations.
        """
        self.pending.append(terms)
        self.pictures, self.seconds, self.waited = (
            self.pictures + pictures,
            self.seconds + seconds,
            self.waited + waited,
        )
        if iteration % LOG_EVERY:
            return None
        # Terms that began within these iterations (the retoucher has just joined) wait for the next row.
        names = [name for name in terms if all(name in each for each in self.pending)]
        row = {name: sum(float(each[name]) for each in self.pending) / len(self.pending) for name in names}
        row |= {
            "rate": rate,
            "pictures_per_second": self.pictures / self.seconds,
            "waiting_for_data": self.waited / self.seconds,
        }
        self._scalars(iteration, row)
        row["iteration"] = iteration
        with self.metrics.open("a", newline="") as file:
            csv.DictWriter(file, self.METRICS).writerow(row)
        self._begin_row()
        return row

    def validated(self, epoch: int, iteration: int, score: float, seconds: float) -> None:
        """Record the AP on the held-out splices after an epoch, and how long the run has trained until then.

        It takes the place of what a run that died before it saved has said of the same iteration.
        """
        _rewrite(self.validation, self.VALIDATION, _rows_until(self.validation, iteration - 1))
        with self.validation.open("a", newline="") as file:
            csv.writer(file).writerow([epoch, iteration, f"{score:.5f}", round(seconds)])
        self._scalars(iteration, {"validation/AP": score})

    def panel(self, iteration: int, panel: NDArray[np.uint8]) -> None:
        """Show a panel, H x W x 3 RGB, in TensorBoard."""
        self.events.add_image("panels", panel, iteration, dataformats="HWC")
        self.events.flush()

    def _scalars(self, iteration: int, values: dict[str, float]) -> None:
        """Flushed at once: a run that is killed and goes on from a checkpoint never writes these points again."""
        for name, value in values.items():
            self.events.add_scalar(name, value, iteration)
        self.events.flush()


def _rows_until(path: Path, iteration: int) -> list[dict[str, str]]:
    """The rows of a table up to an iteration; a line cut short is no row."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    table = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
    numbered = (row for row in table if (row["iteration"] or "").isdigit())
    return [row for row in numbered if int(row["iteration"]) <= iteration]


def _rewrite(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Put a table in the place of another, atomically. A column that is no longer kept is left out."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)
