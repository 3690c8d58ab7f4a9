"""A training run: epochs, checkpoints, progress, resume."""

import csv
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mag_train.config import Config, override
from mag_train.data.photos import Photo, labelled_photos
from mag_train.data.stream import RawPictures, SpliceStream, batches
from mag_train.data.targets import pictures
from mag_train.metrics import average_precision
from mag_train.models import Mag
from mag_train.step import Game, Player, Terms, adversarial_iteration, warm_up_iteration

HELD_OUT = 25
"""One photo in this many is kept from training and makes the validation splices."""
VALIDATION_BATCHES = 16
LOG_EVERY = 20
"""Iterations in a row of metrics.csv, whose terms are means over them."""

console = Console(stderr=True)


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says why, for the person who started it."""


class Run:
    """A run and its folder: `config.json`, `metrics.csv`, `last.pt` after every epoch, `best.pt` by validation AP."""

    def __init__(self, config: Config, data: Path, folder: Path) -> None:
        self.config, self.data, self.folder = config, data.resolve(), folder
        torch.manual_seed(config.seed)
        held_out, training = split(labelled_photos(data))
        self.stream = SpliceStream(training, config.data, config.seed)
        # Another seed than training's: held-out photos, and pastes that training never draws.
        self.validation = SpliceStream(held_out, config.data.model_copy(update={"workers": 0}), config.seed + 1)
        self.fabric = fabric(config)
        self.mag = Mag(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.game = self._game()
        decay = get_ema_multi_avg_fn(config.optim.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.mag.annotator, multi_avg_fn=decay, use_buffers=True)
        self.iteration, self.best, self.seconds = 0, 0.0, 0.0
        self.unreadable: set[str] = set()

    def _game(self) -> Game:
        optim = self.config.optim
        adversary = {"lr": optim.adversary_lr, "betas": (0.5, 0.999), "weight_decay": 0.0}
        options: dict[str, dict[str, Any]] = {
            "annotator": {"lr": optim.lr, "betas": optim.annotator_betas, "weight_decay": optim.weight_decay},
            "retoucher": adversary,
            "d_a": adversary,
            "d_r": adversary,
        }
        players = {}
        for name, option in options.items():
            network = getattr(self.mag, name)
            players[name] = Player(*self.fabric.setup(network, AdamW(network.parameters(), **option)))
        return Game(**players, fabric=self.fabric, config=self.config)

    def fit(self) -> None:
        """Train from where the run stands to its last epoch; Ctrl-C or SIGTERM saves `last.pt` and returns early."""
        per_epoch, schedule = self.stream.iterations_per_epoch, self.config.schedule
        last = schedule.epochs * per_epoch
        log = Log(self.folder / "metrics.csv", self.iteration)
        with _stop_request() as stop, _progress() as progress:
            bar = progress.add_task("", total=last, completed=self.iteration, state="")
            asked = time.perf_counter()
            for raw_a, raw_b in batches(self.stream, self.iteration, last):
                waited = time.perf_counter() - asked
                self._report_unreadable(raw_a, raw_b)
                a, b = pictures(raw_a, self.fabric.device), pictures(raw_b, self.fabric.device)
                rate = self._set_rate(schedule.rate(self.iteration, per_epoch))
                joined = self.iteration >= schedule.adversary_from * per_epoch
                terms = (adversarial_iteration if joined else warm_up_iteration)(self.game, a, b)
                _refuse_nan(self.iteration, terms, raw_a.sources + raw_b.sources)
                self.average.update_parameters(self.mag.annotator)
                self.iteration += 1
                self.seconds += time.perf_counter() - asked
                progress.update(bar, completed=self.iteration)
                if row := log.add(self.iteration, terms, rate, waited):
                    progress.update(bar, state=_brief(row))
                if self.iteration % per_epoch == 0:
                    self._end_epoch(self.iteration // per_epoch)
                if stop.requested:
                    self.save(self.folder / "last.pt")
                    console.print(f"Stopped after iteration {self.iteration}; --resume continues.")
                    return
                asked = time.perf_counter()

    def _report_unreadable(self, *batch: RawPictures) -> None:
        """Say once of each photo that it could not be read; the stream has put the next one in its place."""
        for raw in batch:
            for path, reason in raw.unreadable.items():
                if path not in self.unreadable:
                    self.unreadable.add(path)
                    line = f"skipped {reason} ({len(self.unreadable)} so far)"
                    console.print(line, markup=False, soft_wrap=True)

    def _set_rate(self, factor: float) -> float:
        optim = self.config.optim
        for player in self.game.players.values():
            base = optim.lr if player is self.game.annotator else optim.adversary_lr
            for group in player.optimiser.param_groups:
                group["lr"] = base * factor
        return optim.lr * factor

    def _end_epoch(self, epoch: int) -> None:
        score = self.validate()
        console.print(f"epoch {epoch}: validation AP {score:.4f}")
        with (self.folder / "validation.csv").open("a", newline="") as file:
            csv.writer(file).writerow([epoch, self.iteration, f"{score:.5f}", round(self.seconds)])
        if score > self.best:
            self.best = score
            self.save(self.folder / "best.pt")
        self.save(self.folder / "last.pt")

    @torch.no_grad()
    def validate(self) -> float:
        """Mean AP of the averaged annotator over splices of the held-out photos, always the same ones."""
        self.average.eval()
        scores = []
        for index in range(VALIDATION_BATCHES):
            raw, _ = self.validation[index]
            masks = self.average(pictures(raw, self.fabric.device).image)[:, 0].cpu().numpy()
            scores += [average_precision(t, m) for t, m in zip(raw.mask.numpy() > 0, masks, strict=True)]
        return float(np.nanmean(scores))

    def save(self, path: Path) -> None:
        """Write everything that `load` needs, atomically: the file is the old one or the new one, never a part."""
        state = {
            "config": self.config.model_dump(mode="json"),
            "data": str(self.data),
            "iteration": self.iteration,
            "best": self.best,
            "seconds": self.seconds,
            "networks": self.mag.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": {name: player.optimiser.state_dict() for name, player in self.game.players.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `save` was called; the run goes on as if it had never stopped."""
        self.iteration, self.best, self.seconds = state["iteration"], state["best"], state["seconds"]
        self.mag.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        for name, optimiser in state["optimisers"].items():
            self.game.players[name].optimiser.load_state_dict(optimiser)
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])


class ExactInput(MixedPrecision):
    """Mixed precision that leaves a network's input in float32.

    Fabric's own rounds it to the low precision first: near white, a bfloat16 step is half a grey level, and traces of
    a splice are smaller than that. Autocast lowers what each layer can bear by itself.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def fabric(config: Config) -> Fabric:
    """Fabric on the best device here, in the run's precision."""
    if config.precision == "32-true":
        return Fabric(accelerator="auto", devices=1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Fabric(accelerator="auto", devices=1, plugins=[ExactInput(config.precision, device)])


def start(config: Config, data: Path, folder: Path) -> Run:
    """A new run in `folder`, which must not hold one already."""
    if (folder / "config.json").exists():
        raise RunError(f"{folder} holds a run already: --resume continues it, another --out starts afresh")
    run = Run(config, data, folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2))
    run.save(folder / "last.pt")
    return run


def resume(folder: Path, data: Path | None, overrides: Sequence[str]) -> Run:
    """The run in `folder` as its last checkpoint left it, on its own photos unless `data` names others."""
    state = load_checkpoint(folder / "last.pt")
    config = override(Config.model_validate(state["config"]), overrides)
    run = Run(config, data or Path(state["data"]), folder)
    run.load(state)
    (folder / "config.json").write_text(config.model_dump_json(indent=2))
    return run


def split(photos: list[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Held-out and training photos; the same split every time for the same list."""
    held_out = photos[::HELD_OUT]
    training = [photo for index, photo in enumerate(photos) if index % HELD_OUT]
    if not training:
        raise RunError("one photo is not enough: at least one must be held out of training")
    return held_out, training


def best_checkpoint(run: Path) -> Path:
    """The checkpoint of a run to use: its best, or its last while it has not been validated yet."""
    best = run / "best.pt"
    return best if best.is_file() else run / "last.pt"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `Run.save` wrote. Raises RunError when the file is missing or no checkpoint."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch.load raises whatever pickle and zip do
        raise RunError(f"{path}: not a checkpoint of a run ({type(error).__name__})") from error


class Log:
    """`metrics.csv`: a row every `LOG_EVERY` iterations. Rows past where a run resumes from are dropped."""

    FIELDS = (
        "iteration", "rate", "iterations_per_second", "waiting_for_data",
        "annotator/spliced", "annotator/retouched", "annotator/authentic", "annotator/realism", "annotator/norm",
        "retoucher/semantic", "retoucher/hiding", "retoucher/realism", "retoucher/norm",
        "d_a", "d_a/norm", "d_r", "d_r/norm",
    )  # fmt: skip

    def __init__(self, path: Path, iteration: int) -> None:
        self.path = path
        self.pending: list[Terms] = []
        self.waited, self.since = 0.0, time.perf_counter()
        kept = []
        if iteration and path.is_file():
            with path.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.FIELDS)
            writer.writeheader()
            writer.writerows(kept)

    def add(self, iteration: int, terms: Terms, rate: float, waited: float) -> dict[str, float] | None:
        """Keep the terms of an iteration and the seconds it waited; when a row is complete write it and return it."""
        self.pending.append(terms)
        self.waited += waited
        if iteration % LOG_EVERY:
            return None
        # Terms that began within these iterations (the retoucher has just joined) wait for the next row.
        names = [name for name in terms if all(name in each for each in self.pending)]
        row = {name: sum(float(each[name]) for each in self.pending) / len(self.pending) for name in names}
        taken = time.perf_counter() - self.since
        row |= {
            "iteration": iteration,
            "rate": rate,
            "iterations_per_second": len(self.pending) / taken,
            "waiting_for_data": self.waited / taken,
        }
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.FIELDS).writerow(row)
        self.pending, self.waited, self.since = [], 0.0, time.perf_counter()
        return row


def _refuse_nan(iteration: int, terms: Terms, sources: list[str]) -> None:
    if not torch.stack([term.float() for term in terms.values()]).isfinite().all():
        values = ", ".join(f"{name} {float(term):.4g}" for name, term in terms.items())
        raise RunError(f"iteration {iteration} is not finite: {values}; its photos: {', '.join(sorted(set(sources)))}")


class _Stop:
    requested = False


@contextmanager
def _stop_request() -> Iterator[_Stop]:
    """While inside, Ctrl-C and SIGTERM ask the loop to stop after the iteration in hand, not the process."""
    stop = _Stop()

    def request(_signal: int, _frame: FrameType | None) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[state]}"))
    return Progress(*columns, console=console)


def _brief(row: dict[str, float]) -> str:
    shown = {
        "annotator/spliced": "A",
        "annotator/retouched": "B^",
        "annotator/authentic": "B",
        "retoucher/hiding": "hide",
    }
    return " ".join(f"{short} {row[name]:.3f}" for name, short in shown.items() if name in row)
