"""A training run: epochs, checkpoints, progress, resume."""

import math
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mag_rt.sinks.alone import alone
from mag_train import panels
from mag_train.checkpoint import RunError, load_checkpoint, save_checkpoint
from mag_train.config import Config, override
from mag_train.data.opening import HeldOutGoneError, held_out_of, name_in, open_stream
from mag_train.data.stream import RawPictures, batches
from mag_train.data.targets import pictures
from mag_train.devices import launch, of_each_process
from mag_train.log import Log
from mag_train.metrics import average_precision
from mag_train.models import Mag
from mag_train.recorded import Recorded, Step
from mag_train.step import Game, Player, Terms, adversarial_iteration, unretouched_iteration, warm_up_iteration
from mag_train.stopping import stop_request
from mag_train.warm_start import warm_start

VALIDATION_BATCHES = 16
SAVE_EVERY = 600
"""Seconds between checkpoints within an epoch: what a crash costs at most."""
WARM_START_BATCHES = 4
"""Batches whose spliced pictures give the statistics of batch norm when training starts from a bundle."""

console = Console(stderr=True, emoji=False)


class Run:
    """A run and its folder: `config.json`, `metrics.csv`, `last.pt` every few minutes, `best.pt` by validation AP.

    With several processes each of them has a Run, on its own share of the same batches; the first one writes.
    """

    def __init__(
        self, config: Config, data: Path, folder: Path, fabric: Fabric, held_out: Collection[str] = ()
    ) -> None:
        self.config, self.data, self.folder, self.fabric = config, data.resolve(), folder, fabric
        console.quiet = not fabric.is_global_zero
        torch.manual_seed(config.seed)
        self._open(held_out)
        self.mag = Mag(config.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recorded: dict[Step, Recorded] = {}
        self.game = Game(self._players(), fabric, config)
        self._refuse_crop()
        decay = get_ema_multi_avg_fn(config.optim.average)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.mag.annotator, multi_avg_fn=decay, use_buffers=True)
        self.iteration, self.pictures, self.seconds, self.best = 0, 0, 0.0, 0.0
        self.epoch, self.step, self.batch = 0, 0, 0  # finished; iterations since then; the stream's next
        self.validated: dict[int, float] = {}  # validation AP by iteration, the last one
        self.before: dict[str, float] = {}  # what the model that it started from had been trained on
        self.unreadable: set[str] = set()
        self.shown = panels.fixed_pictures(self.validation) if fabric.is_global_zero else []
        self.validated_on = self._validated_on()
        if fabric.global_rank:  # the same weights everywhere, other dropout
            torch.manual_seed(config.seed + fabric.global_rank)

    def _open(self, held_out: Collection[str]) -> None:
        """The streams, holding out what was so far, as long as any of it is there: what is lost may come back."""
        settings = self.data, self.config.data, self.config.seed
        try:
            self.stream, self.validation = open_stream(*settings, held_out)
        except HeldOutGoneError as error:
            line = f"{error}: others are held out from here on, which it may have been trained on"
            console.print(line, markup=False, soft_wrap=True)
            held_out = ()
            self.stream, self.validation = open_stream(*settings)
        self.held_out = sorted({*held_out, *held_out_of(self.data, self.stream, self.validation)})

    def _validated_on(self) -> int:
        """A checksum of what decides the pictures of the validation: their number, their hosts, how they are made."""
        hosts = [name_in(self.data, each.image) for each in self.validation.hosts]
        about = "\n".join([f"{VALIDATION_BATCHES} x {self.config.data.spliced}", *hosts])
        pictures = (raw.image.numpy().tobytes() for raw in self.shown)
        return zlib.crc32(b"".join([about.encode(errors="surrogateescape"), *pictures]))

    def _refuse_crop(self) -> None:
        """Now, not when the network that cannot take the pictures joins, epochs later."""
        crop, schedule = self.config.data.crop, self.config.schedule
        playing = [self.mag.annotator]
        if "retoucher" in self.game.players and schedule.adversary_from < schedule.epochs:
            playing.append(self.mag.retoucher)
        multiple = max(network.side_multiple for network in playing)
        if crop % multiple:
            raise RunError(f"data.crop {crop}: the networks take pictures whose sides are multiples of {multiple}")

    def _players(self) -> dict[str, Player]:
        optim = self.config.optim
        adversary: dict[str, Any] = {"lr": optim.adversary_lr, "betas": (0.5, 0.999), "weight_decay": 0.0}
        annotator: dict[str, Any] = {"lr": optim.lr, "betas": optim.annotator_betas, "weight_decay": optim.weight_decay}
        players = {}
        for name, network in self.mag.named_children():
            options = annotator if name == "annotator" else adversary
            if self.records:
                rate = torch.tensor(options["lr"], device=self.fabric.device)  # what is recorded looks there each time
                options = {**options, "lr": rate, "capturable": True, "fused": True}
            optimiser = AdamW(network.parameters(), **options)
            scaler = GradScaler(self.fabric.device.type, enabled=self.config.precision == "16-mixed")
            clip = optim.clip if name == "annotator" and optim.clip else math.inf
            module, moved_optimiser = self.fabric.setup(network, optimiser)
            players[name] = Player(module, moved_optimiser, scaler, clip)
        return players

    @property
    def batches_per_iteration(self) -> int:
        """Batches between two steps of the players, over all processes."""
        return self.config.optim.accumulate * self.fabric.world_size

    @property
    def iterations_per_epoch(self) -> int:
        """An epoch has shown every photo once as the host of a spliced picture."""
        return -(-self.stream.batches_per_epoch // self.batches_per_iteration)

    def fit(self) -> bool:
        """Train from where the run stands to its last epoch, and whether it came there.

        Ctrl-C or SIGTERM saves `last.pt` and returns early. Raises ResultsError when the run is going on elsewhere.
        """
        per_epoch, schedule = self.iterations_per_epoch, self.config.schedule
        last = self.iteration + (schedule.epochs - self.epoch) * per_epoch - self.step
        seen = (self.config.data.spliced + self.config.data.authentic) * self.batches_per_iteration
        with self._log() as log, stop_request() as stop, _progress() as progress:
            bar = progress.add_task("", total=last, completed=self.iteration, state="")
            drawn = self._drawn(last)
            if self.step == per_epoch:  # an epoch whose validation did not come to its end
                self._end_epoch(log)
            asked = saved = time.perf_counter()
            while self.iteration < last:
                rate = self._set_rate(schedule.rate(self.iteration, last - self.iteration, per_epoch))
                joined = self.epoch >= schedule.adversary_from
                terms, waited = self._iterate(drawn, joined)
                self.average.update_parameters(self.mag.annotator)
                self.iteration += 1
                self.step += 1
                self.batch += self.batches_per_iteration
                self.pictures += seen
                taken = time.perf_counter() - asked
                self.seconds += taken
                progress.update(bar, completed=self.iteration)
                if log and (row := log.add(self.iteration, terms, rate, seen, taken, waited)):
                    progress.update(bar, state=_brief(row))
                if self.step == per_epoch:
                    self.save("last.pt")  # whatever happens to the validation, the epoch is not lost
                    self._end_epoch(log)
                leaving = self._any(stop.requested)
                if leaving or self._any(time.perf_counter() - saved > SAVE_EVERY):
                    self.save("last.pt")
                    saved = time.perf_counter()
                if leaving and self.iteration < last:
                    console.print(f"Stopped after iteration {self.iteration}; --resume continues.")
                    return False
                asked = time.perf_counter()
        return True

    @contextmanager
    def _log(self) -> Iterator[Log | None]:
        """What the first process writes, alone; rows and panels of a time past the one that is resumed are dropped."""
        if not self.fabric.is_global_zero:
            yield None
            return
        with alone(self.folder, "run"):
            (self.folder / "config.json").write_text(self.config.model_dump_json(indent=2))
            panels.forget(self.folder, after=self.epoch)
            with Log(self.folder, self.iteration) as log:
                yield log

    def _drawn(self, last: int) -> Iterator[tuple[RawPictures, RawPictures]]:
        """This process's batches from here to iteration `last`: every so many of the stream's, beginning at its own."""
        end = self.batch + (last - self.iteration) * self.batches_per_iteration
        return batches(self.stream, range(self.batch + self.fabric.global_rank, end, self.fabric.world_size))

    def _iterate(self, drawn: Iterator[tuple[RawPictures, RawPictures]], joined: bool) -> tuple[Terms, float]:
        """One step of each player, on as many batches as are added up: the terms of the last, seconds spent waiting."""
        waited = 0.0
        for left in reversed(range(self.config.optim.accumulate)):
            asked = time.perf_counter()
            raw_a, raw_b = next(drawn)
            waited += time.perf_counter() - asked
            self._report_unreadable(raw_a, raw_b)
            mask_only = self.config.model.tasks == "mask"
            a, b = (pictures(raw, self.fabric.device, mask_only) for raw in (raw_a, raw_b))
            self.game.takes_step = left == 0
            terms = self._step(joined)(self.game, a, b)
            self._refuse_nan(terms, raw_a.sources + raw_b.sources)
        return terms, waited

    def _step(self, joined: bool) -> Step:
        step = warm_up_iteration
        if joined:
            step = adversarial_iteration if "retoucher" in self.game.players else unretouched_iteration
        return self.recorded.setdefault(step, Recorded(step)) if self.records else step

    @property
    def records(self) -> bool:
        """Whether iterations are recorded: on one GPU, where nothing between their kernels is decided on the host."""
        alone = self.fabric.world_size == 1 and self.config.optim.accumulate == 1
        return self.on_gpu and alone and self.config.precision != "16-mixed"

    def _any(self, flag: bool) -> bool:
        """Whether the flag is up in any process, so that all of them leave the loop together."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag), device=self.fabric.device), reduce_op="sum"))

    def _refuse_nan(self, terms: Terms, sources: list[str]) -> None:
        # In float16 a gradient may overflow now and then: its scaler leaves the step out and lowers the scale.
        scaled = self.config.precision == "16-mixed"
        values = [term.float() for name, term in terms.items() if not (scaled and name.endswith("/norm"))]
        bad = not torch.stack(values).isfinite().all()
        if not self._any(bad):
            return
        if not bad:
            raise RunError(f"iteration {self.iteration} is not finite in another process")
        said = ", ".join(f"{name} {float(term):.4g}" for name, term in terms.items())
        photos = ", ".join(sorted(set(sources)))
        raise RunError(f"iteration {self.iteration} is not finite: {said}; its photos: {photos}")

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
            base = optim.lr if player is self.game.players["annotator"] else optim.adversary_lr
            for group in player.optimiser.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(base * factor)
                else:
                    group["lr"] = base * factor
        return optim.lr * factor

    def _end_epoch(self, log: Log | None) -> None:
        self.epoch, self.step = self.epoch + 1, 0
        epoch, is_best = self.epoch, False
        if log:
            score = self.validate()
            console.print(f"epoch {epoch}: validation AP {score:.4f}")
            log.validated(epoch, self.iteration, score, self.seconds)
            is_best, self.best, self.validated = score > self.best, max(score, self.best), {self.iteration: score}
            joined = epoch > self.config.schedule.adversary_from and "retoucher" in self.game.players
            panel = panels.add(self.folder, epoch, self.shown, self.average, self.mag.retoucher if joined else None)
            if panel is not None:
                log.panel(self.iteration, panel)
        if self._any(is_best):
            self.save("best.pt")
        self.save("last.pt")

    @cached_property
    def held_out_splices(self) -> list[RawPictures]:
        """What `validate` looks at: made once, for on a GPU it takes longer to make them than to look at them."""
        return [self.validation[index][0] for index in range(VALIDATION_BATCHES)]

    @torch.no_grad()
    def validate(self) -> float:
        """Mean AP of the averaged annotator over splices of the held-out photos, always the same ones.

        Raises RunError when its answers are no numbers.
        """
        self.average.eval()
        scores = []
        for raw in self.held_out_splices:
            self._report_unreadable(raw)
            masks = self.average(pictures(raw, self.fabric.device).image)[:, 0].cpu().numpy()
            if not np.isfinite(masks).all():
                raise RunError(f"after iteration {self.iteration} the annotator gives no numbers: training diverged")
            scores += [average_precision(t, m) for t, m in zip(raw.mask.numpy() > 0, masks, strict=True)]
        return float(np.nanmean(scores))

    def save(self, name: str) -> None:
        """Write everything that `load` needs to the checkpoint `name`; every process calls, the first one writes."""
        state = {
            "config": self.config.model_dump(mode="json"),
            "data": str(self.data),
            "held_out": self.held_out,
            "iteration": self.iteration,
            "epoch": self.epoch,
            "step": self.step,
            "iterations_per_epoch": self.iterations_per_epoch,
            "drawn": self.batch * self.config.data.spliced,
            "pictures": self.pictures,
            "seconds": self.seconds,
            "before": self.before,
            "best": self.best,
            "validation_ap": self.validated.get(self.iteration),
            "validated_on": self.validated_on,
            "networks": self.mag.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": {name: player.optimiser.state_dict() for name, player in self.game.players.items()},
            "scalers": {name: player.scaler.state_dict() for name, player in self.game.players.items()},
            "random": of_each_process(self.fabric, torch.get_rng_state()),
            "random_cuda": of_each_process(self.fabric, torch.cuda.get_rng_state()) if self.on_gpu else None,
        }
        if self.fabric.is_global_zero:
            save_checkpoint(state, self.folder / name)

    def load(self, state: dict[str, Any]) -> None:
        """Go back to where `save` was called; the run goes on as if it had never stopped.

        On another number of processes it goes on from there too, with other dropout.
        """
        self._take_up(state)
        self.iteration, self.pictures, self.seconds = state["iteration"], state["pictures"], state["seconds"]
        self.before = state["before"]
        # Other photos or another synthesis: other pictures, on which nothing has been the best yet.
        self.best = state["best"] if state.get("validated_on") == self.validated_on else 0.0
        self.mag.load_state_dict(state["networks"])
        self.average.load_state_dict(state["average"])
        for name, player in self.game.players.items():
            saved = state["optimisers"][name]
            groups = zip(player.optimiser.param_groups, saved["param_groups"], strict=True)
            as_now = [{**now, "params": before["params"]} for now, before in groups]
            player.optimiser.load_state_dict({**saved, "param_groups": as_now})
            if scaler := state["scalers"][name]:  # empty unless it trained in float16
                player.scaler.load_state_dict(scaler)
        if len(state["random"]) == self.fabric.world_size:
            torch.set_rng_state(state["random"][self.fabric.global_rank].clone())
            if self.on_gpu and state["random_cuda"] is not None:
                torch.cuda.set_rng_state(state["random_cuda"][self.fabric.global_rank].clone())

    def _take_up(self, state: dict[str, Any]) -> None:
        """Go on at the same share of the epoch in hand and with the next batch of the stream, of whatever size now.

        A checkpoint of before these were kept has counted iterations, all of one length.
        """
        before = Config.model_validate(state["config"])
        batches_before = before.optim.accumulate * len(state["random"])
        photos = len(self.stream.hosts)
        length = state.get("iterations_per_epoch", -(-photos // (before.data.spliced * batches_before)))
        self.epoch, step = (state["epoch"], state["step"]) if "epoch" in state else divmod(state["iteration"], length)
        self.step = step * self.iterations_per_epoch // length
        drawn = state.get("drawn", state["iteration"] * batches_before * before.data.spliced)
        self.batch = -(-drawn // self.config.data.spliced)

    @property
    def on_gpu(self) -> bool:
        return self.fabric.device.type == "cuda"


def start(
    config: Config, data: Path, folder: Path, warm: Path | None = None, devices: int = 1, num_nodes: int = 1
) -> Run:
    """A new run in `folder`, which must not hold one already; `warm`: the model whose annotator it starts from."""
    fabric = launch(config.precision, devices, num_nodes)
    if (folder / "last.pt").exists():
        raise RunError(f"{folder} holds a run already: --resume continues it, another --out starts afresh")
    fabric.barrier()  # all have looked before the first one writes
    run = Run(config, data, folder, fabric)
    if warm:
        shown = [pictures(run.stream[number][0], fabric.device).image for number in range(WARM_START_BATCHES)]
        run.before = warm_start(run.mag.annotator, warm, torch.cat(shown))
        run.average.module.load_state_dict(run.mag.annotator.state_dict())
    if fabric.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    run.save("last.pt")
    return run


def resume(folder: Path, data: Path | None, overrides: Sequence[str], devices: int = 1, num_nodes: int = 1) -> Run:
    """The run in `folder` as its last checkpoint left it, on its own photos unless `data` names others.

    Raises RunError when there is none, or when `overrides` ask for other networks than it has.
    """
    state = load_checkpoint(folder / "last.pt")
    before = Config.model_validate(state["config"])
    config = override(before, overrides)
    for name, value in before.model:
        if getattr(config.model, name) != value:
            raise RunError(f"{folder}: model.{name} is {value} and stays so: --start-from begins another run with it")
    fabric = launch(config.precision, devices, num_nodes)
    run = Run(config, data or Path(state["data"]), folder, fabric, state.get("held_out", ()))
    run.load(state)
    return run


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
