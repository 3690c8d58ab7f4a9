"""One iteration of MAG: the algorithm, readable top to bottom.

A   spliced picture         C   true annotation
B^  A after the retoucher   C'  the same with classes in authentic areas only
B   authentic picture       C^  what the annotator says
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from mag_train.config import Config
from mag_train.data.targets import Pictures
from mag_train.devices import average_over_processes
from mag_train.losses import (
    annotation_loss,
    annotator_loss,
    discriminator_loss,
    fidelity_loss,
    hiding_loss,
    realism_loss,
    retoucher_loss,
    semantic_loss,
)

Terms = dict[str, Tensor]
"""Loss terms and gradient norms by name, detached scalars."""


@dataclass
class Player:
    """A network and what moves it: its optimiser, its gradient scaler (idle unless training in float16), its clip."""

    network: nn.Module
    optimiser: Optimizer
    scaler: GradScaler
    clip: float = math.inf
    """Largest norm of the gradient."""


@dataclass
class Game:
    """The four players and the rules; no retoucher and no D_R in the ablation "No G_R"."""

    players: dict[str, Player]
    fabric: Fabric
    config: Config
    takes_step: bool = True
    """False while gradients are only added up, for a later batch to step on (`optim.accumulate`)."""

    @property
    def annotator(self) -> nn.Module:
        return self.players["annotator"].network


def warm_up_iteration(game: Game, a: Pictures, b: Pictures) -> Terms:
    """Eq. 8 before the retoucher has joined: the annotator alone, on spliced and authentic pictures."""
    loss = game.config.loss
    on_a, on_b = _annotate(game, a.image, b.image)
    terms = {
        "annotator/spliced": annotation_loss(a.authentic_truth, on_a, a.counted, loss),
        "annotator/authentic": annotation_loss(b.truth, on_b, b.counted, loss),
    }
    terms |= _descend(game, "annotator", terms["annotator/spliced"] + terms["annotator/authentic"])
    return _detached(terms)


def adversarial_iteration(game: Game, a: Pictures, b: Pictures) -> Terms:
    """One iteration of the paper: D_A, D_R, G_A and G_R each take a step, in this order.

    A and B^ share the truth C_A'. Networks that a step does not train are frozen in it: gradients pass through them
    and leave nothing behind.
    """
    weights = game.config.loss
    retoucher, d_a, d_r = (game.players[name].network for name in ("retoucher", "d_a", "d_r"))
    terms: Terms = {}

    # G_R retouches A (eq. 1), G_A annotates all three pictures in one forward pass.
    retouched = retoucher(a.image)
    b_hat = retouched.image.detach()
    on_a, on_b_hat, on_b = _annotate(game, a.image, b_hat, b.image)

    # D_A: (B^, C_A') and (B, C_B) are real, (B^, C^_B^) and (B, C^_B) are fake.
    terms["d_a"] = _judge_annotations(d_a, b_hat, on_b_hat, a, on_b, b)
    terms |= _descend(game, "d_a", terms["d_a"])

    # D_R: B is real, B^ is fake.
    terms["d_r"] = discriminator_loss(d_r(b.image), d_r(b_hat))
    terms |= _descend(game, "d_r", terms["d_r"])

    # G_A: eq. 8.
    terms["annotator/spliced"] = annotation_loss(a.authentic_truth, on_a, a.counted, weights)
    terms["annotator/retouched"] = annotation_loss(a.authentic_truth, on_b_hat, a.counted, weights)
    terms["annotator/authentic"] = annotation_loss(b.truth, on_b, b.counted, weights)
    with _frozen(d_a):
        terms["annotator/realism"] = realism_loss(d_a(torch.cat([b_hat, on_b_hat * a.counted], 1)))  # eq. 7
        loss = annotator_loss(
            terms["annotator/spliced"],
            terms["annotator/retouched"],
            terms["annotator/authentic"],
            weights.annotation_realism * terms["annotator/realism"],
        )
        terms |= _descend(game, "annotator", loss)

    # G_R: eq. 5, against the annotator as it is used: with the batch norm statistics that it has learnt.
    with _frozen(game.annotator, use_as_deployed=True), _frozen(d_r):
        annotation = game.annotator(retouched.image)
        terms["retoucher/semantic"] = semantic_loss(a.classes, annotation[:, 2:], a.counted[:, 2:])  # eq. 2
        terms["retoucher/hiding"] = hiding_loss(annotation[:, :1])  # eq. 3
        terms["retoucher/realism"] = realism_loss(d_r(retouched.image))  # eq. 4
        terms["retoucher/fidelity"] = fidelity_loss(retouched.image, a.image)
        loss = retoucher_loss(
            terms["retoucher/semantic"],
            terms["retoucher/hiding"],
            terms["retoucher/realism"],
            terms["retoucher/fidelity"],
            weights,
        )
        terms |= _descend(game, "retoucher", loss)
    return _detached(terms)


def unretouched_iteration(game: Game, a: Pictures, b: Pictures) -> Terms:
    """The paper's ablation "No G_R": as `adversarial_iteration`, with A where B^ was.

    Nothing is left to D_R, which saw the retoucher's work alone, and eq. 8 counts A once.
    """
    weights = game.config.loss
    d_a = game.players["d_a"].network
    terms: Terms = {}
    on_a, on_b = _annotate(game, a.image, b.image)

    terms["d_a"] = _judge_annotations(d_a, a.image, on_a, a, on_b, b)
    terms |= _descend(game, "d_a", terms["d_a"])

    terms["annotator/spliced"] = annotation_loss(a.authentic_truth, on_a, a.counted, weights)
    terms["annotator/authentic"] = annotation_loss(b.truth, on_b, b.counted, weights)
    with _frozen(d_a):
        terms["annotator/realism"] = realism_loss(d_a(torch.cat([a.image, on_a * a.counted], 1)))
        loss = annotator_loss(
            terms["annotator/spliced"],
            torch.zeros_like(terms["annotator/spliced"]),
            terms["annotator/authentic"],
            weights.annotation_realism * terms["annotator/realism"],
        )
        terms |= _descend(game, "annotator", loss)
    return _detached(terms)


def _judge_annotations(
    d_a: nn.Module, spliced: Tensor, on_spliced: Tensor, a: Pictures, on_b: Tensor, b: Pictures
) -> Tensor:
    """D_A's loss: truths beside their pictures are real, what the annotator says is fake. `spliced`: B^, or A."""
    pictures = torch.cat([spliced, b.image])
    counted = torch.cat([a.counted, b.counted])
    real = torch.cat([a.authentic_truth, b.truth]) * counted
    fake = torch.cat([on_spliced, on_b]).detach() * counted
    return discriminator_loss(d_a(torch.cat([pictures, real], 1)), d_a(torch.cat([pictures, fake], 1)))


def _annotate(game: Game, *pictures: Tensor) -> tuple[Tensor, ...]:
    """One forward pass over all pictures, so that batch norm sees the three kinds together; then taken apart."""
    return game.annotator(torch.cat(pictures)).split([len(picture) for picture in pictures])


def _descend(game: Game, name: str, loss: Tensor) -> Terms:
    """Move one player down its loss; the norm of its gradient before clipping is returned.

    While gradients are only added up the player stays where it is, and nothing is returned.
    """
    player = game.players[name]
    game.fabric.backward(player.scaler.scale(loss / game.config.optim.accumulate))
    if not game.takes_step:
        return {}
    average_over_processes(game.fabric, player.network)
    player.scaler.unscale_(player.optimiser)
    norm = clip_grad_norm_(player.network.parameters(), player.clip)
    player.scaler.step(player.optimiser)
    player.scaler.update()
    player.optimiser.zero_grad()
    return {f"{name}/norm": norm}


@contextmanager
def _frozen(network: nn.Module, use_as_deployed: bool = False) -> Iterator[None]:
    """Gradients pass through the network but not into it; `use_as_deployed`: batch norm and dropout rest too."""
    network.requires_grad_(False)
    network.train(not use_as_deployed)
    try:
        yield
    finally:
        network.requires_grad_(True)
        network.train()


def _detached(terms: Terms) -> Terms:
    return {name: term.detach() for name, term in terms.items()}
