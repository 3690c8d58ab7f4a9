"""Where the time of a training iteration goes, and how much memory it takes.

    python benchmarks/training.py --data PHOTOS            the loop and the passes, edge preset
    python benchmarks/training.py --data PHOTOS --preset smoke
    python benchmarks/training.py --memory paper           peak memory of one iteration, random pictures

The loop: `magtrain fit` as it is, warm-up and adversarial, with the clock in every network, backward pass and
optimiser. The passes: the forward and backward passes that the algorithm cannot do without, each timed by itself on
pictures of the same shapes, against the whole iteration.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mag_train import config as configuration
from mag_train import trainer
from mag_train.config import Config
from mag_train.data.targets import Pictures
from mag_train.devices import launch
from mag_train.models import Mag
from mag_train.models.annotator import CHANNELS
from mag_train.step import Game, Player, adversarial_iteration


class Clock:
    """Adds up seconds by name. On a GPU it waits for the work to be done, so that the seconds are the work's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = now()
        yield
        self.seconds[name] += now() - began

    def wrap(self, owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self(name):
                return inner(*arguments, **options)

        object.__setattr__(owner, method, timed)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def loop(config: Config, data: Path, iterations: int, joined: bool) -> dict[str, float]:
    """Shares of the loop's time: in the networks, waiting for data, everything else."""
    with tempfile.TemporaryDirectory() as folder:
        run = trainer.start(config, data, Path(folder) / "run")
        drawn = run._drawn(iterations + 3)
        clock = Clock()
        for index in range(iterations + 3):
            if index == 3:  # the first ones start workers and fill caches
                for player in run.game.players.values():
                    clock.wrap(player.network, "forward", "networks")
                    clock.wrap(player.optimiser, "step", "networks")
                clock.wrap(run.fabric, "backward", "networks")
                began, waited = now(), 0.0
            waited_here = run._iterate(drawn, joined)[1]
            run.average.update_parameters(run.mag.annotator)
            if index >= 3:
                waited += waited_here
        total = now() - began
    return {
        "seconds_per_iteration": total / iterations,
        "in_networks": clock.seconds["networks"] / total,
        "waiting_for_data": waited / total,
    }


def game(config: Config) -> Game:
    """The four players of a configuration, with the optimisers of a run."""
    fabric = launch(config.precision)
    mag = Mag(config.model).to(memory_format=torch.channels_last)
    players = {}
    for name, network in mag.named_children():
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
        players[name] = Player(*fabric.setup(network, optimiser), torch.amp.GradScaler(enabled=False))
    return Game(players, fabric, config)


def random_pictures(config: Config, count: int, device: torch.device) -> Pictures:
    side = config.data.crop
    truth = (torch.rand(count, CHANNELS, side, side, device=device) > 0.5).float()
    image = torch.rand(count, 3, side, side, device=device) * 2 - 1
    return Pictures(image.contiguous(memory_format=torch.channels_last), truth, torch.ones_like(truth))


def passes(config: Config, repeats: int) -> tuple[dict[str, float], float]:
    """Median seconds of each pass that the algorithm needs, and of the whole adversarial iteration, taken in turns."""
    players = game(config)
    device, spliced, authentic = players.fabric.device, config.data.spliced, config.data.authentic
    a, b = random_pictures(config, spliced, device), random_pictures(config, authentic, device)
    annotated = random_pictures(config, 2 * spliced + authentic, device).image
    judged = torch.cat([annotated[: spliced + authentic], torch.cat([a.truth, b.truth])], dim=1)
    retoucher, annotator, d_a, d_r = (players.players[name] for name in ("retoucher", "annotator", "d_a", "d_r"))

    def learn(player: Player, *inputs: Tensor) -> Callable[[], None]:
        """Forward and backward into the network's weights, and its optimiser's step."""

        def run() -> None:
            outputs = [player.network(each) for each in inputs]
            players.fabric.backward(sum(_sum(output) for output in outputs))
            player.optimiser.step()
            player.optimiser.zero_grad()

        return run

    def listen(player: Player, picture: Tensor, deployed: bool = False) -> Callable[[], None]:
        """Forward, and backward into the input alone."""

        def run() -> None:
            player.network.requires_grad_(False).train(not deployed)
            players.fabric.backward(_sum(player.network(picture.detach().requires_grad_())))
            player.network.requires_grad_(True).train()

        return run

    needed = {
        "G_R on A, forward and backward": learn(retoucher, a.image),
        "G_A on A, B^, B, forward and backward": learn(annotator, annotated),
        "D_A on true and on given annotations": learn(d_a, judged, judged),
        "D_R on B and on B^": learn(d_r, b.image, a.image),
        "D_A for G_A (eq. 7)": listen(d_a, judged[:spliced]),
        "G_A for G_R (eqs. 2, 3)": listen(annotator, a.image, deployed=True),
        "D_R for G_R (eq. 4)": listen(d_r, a.image),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats + 1):
        for name, run in {**needed, "iteration": lambda: adversarial_iteration(players, a, b)}.items():
            began = now()
            run()
            seconds[name].append(now() - began)
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    return medians, medians.pop("iteration")


def _sum(output: Any) -> Tensor:
    return (output if isinstance(output, Tensor) else output.image).float().sum()


def memory(preset: str) -> dict[str, float]:
    """Peak memory of one adversarial iteration of a preset, GiB, as the operating system or the GPU counts it."""
    config = configuration.load(preset)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    players = game(config)
    device = players.fabric.device
    a, b = (random_pictures(config, count, device) for count in (config.data.spliced, config.data.authentic))
    for _ in range(2):  # the optimisers' moments come with the first step
        began = now()
        adversarial_iteration(players, a, b)
        taken = now() - began
    if device.type == "cuda":
        return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30, "seconds_per_iteration": taken}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"peak_gib": peak, "of_it_python_and_torch_gib": before, "seconds_per_iteration": taken}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="photos to train on")
    parser.add_argument("--preset", default="edge")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--memory", metavar="PRESET", help="measure the peak memory of this preset instead")
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    if arguments.memory:
        results: dict[str, Any] = {"preset": arguments.memory, "memory": memory(arguments.memory)}
    elif arguments.data is None:
        parser.error("--data is needed")
    else:
        config = configuration.load(arguments.preset)
        results = {"preset": arguments.preset}
        for name, joined in (("warm-up", False), ("adversarial", True)):
            results[name] = loop(config, arguments.data, arguments.iterations, joined)
        needed, iteration = passes(config, arguments.iterations)
        results["passes"] = needed | {"sum": sum(needed.values()), "iteration": iteration}
        results["iteration_to_passes"] = iteration / sum(needed.values())
    text = json.dumps(results, indent=2)
    sys.stdout.write(text + "\n")
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
