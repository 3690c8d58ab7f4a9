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
from torch.optim import Optimizer

from mag_train.config import Config
from mag_train.data.targets import Pictures
from mag_train.losses import (
    annotation_loss,
    annotator_loss,
    discriminator_loss,
    hiding_loss,
    realism_loss,
    retoucher_loss,
    semantic_loss,
)

Terms = dict[str, Tensor]
"""Loss terms and gradient norms by name, detached scalars."""


@dataclass
class Player:
    """A network and the optimiser that moves it, both set up by Fabric."""

    network: nn.Module
    optimiser: Optimizer


@dataclass
class Game:
    """The four players and the rules."""

    annotator: Player
    retoucher: Player
    d_a: Player
    d_r: Player
    fabric: Fabric
    config: Config

    @property
    def players(self) -> dict[str, Player]:
        """By name."""
        return {"annotator": self.annotator, "retoucher": self.retoucher, "d_a": self.d_a, "d_r": self.d_r}


def warm_up_iteration(game: Game, a: Pictures, b: Pictures) -> Terms:
    """Eq. 8 before the retoucher has joined: the annotator alone, on spliced and authentic pictures."""
    loss = game.config.loss
    on_a, on_b = _annotate(game, a.image, b.image)
    terms = {
        "annotator/spliced": annotation_loss(a.authentic_truth, on_a, a.counted, loss),
        "annotator/authentic": annotation_loss(b.truth, on_b, b.counted, loss),
    }
    total = terms["annotator/spliced"] + terms["annotator/authentic"]
    terms["annotator/norm"] = _descend(game, game.annotator, total, game.config.optim.clip)
    return _detached(terms)


def adversarial_iteration(game: Game, a: Pictures, b: Pictures) -> Terms:
    """One iteration of the paper: D_A, D_R, G_A and G_R each take a step, in this order.

    A and B^ share the truth C_A'. Networks that a step does not train are frozen in it: gradients pass through them
    and leave nothing behind.
    """
    config = game.config
    d_a, d_r = game.d_a.network, game.d_r.network
    terms: Terms = {}

    # G_R retouches A (eq. 1), G_A annotates all three pictures in one forward pass.
    retouched = game.retoucher.network(a.image)
    b_hat = retouched.image.detach()
    on_a, on_b_hat, on_b = _annotate(game, a.image, b_hat, b.image)

    # D_A: (B^, C_A') and (B, C_B) are real, (B^, C^_B^) and (B, C^_B) are fake.
    pictures = torch.cat([b_hat, b.image])
    counted = torch.cat([a.counted, b.counted])
    real = torch.cat([a.authentic_truth, b.truth]) * counted
    fake = torch.cat([on_b_hat, on_b]).detach() * counted
    terms["d_a"] = discriminator_loss(d_a(torch.cat([pictures, real], 1)), d_a(torch.cat([pictures, fake], 1)))
    terms["d_a/norm"] = _descend(game, game.d_a, terms["d_a"])

    # D_R: B is real, B^ is fake.
    terms["d_r"] = discriminator_loss(d_r(b.image), d_r(b_hat))
    terms["d_r/norm"] = _descend(game, game.d_r, terms["d_r"])

    # G_A: eq. 8.
    terms["annotator/spliced"] = annotation_loss(a.authentic_truth, on_a, a.counted, config.loss)
    terms["annotator/retouched"] = annotation_loss(a.authentic_truth, on_b_hat, a.counted, config.loss)
    terms["annotator/authentic"] = annotation_loss(b.truth, on_b, b.counted, config.loss)
    with _frozen(d_a):
        terms["annotator/realism"] = realism_loss(d_a(torch.cat([b_hat, on_b_hat * a.counted], 1)))
        loss = annotator_loss(
            terms["annotator/spliced"],
            terms["annotator/retouched"],
            terms["annotator/authentic"],
            config.loss.annotation_realism * terms["annotator/realism"],
        )
        terms["annotator/norm"] = _descend(game, game.annotator, loss, config.optim.clip)

    # G_R: eq. 5, against the annotator as it is used: with the batch norm statistics that it has learnt.
    with _frozen(game.annotator.network, use_as_deployed=True), _frozen(d_r):
        annotation = game.annotator.network(retouched.image)
        terms["retoucher/semantic"] = semantic_loss(a.classes, annotation[:, 2:], a.counted[:, 2:])  # eq. 2
        terms["retoucher/hiding"] = hiding_loss(annotation[:, :1])  # eq. 3
        terms["retoucher/realism"] = realism_loss(d_r(retouched.image))  # eq. 4
        loss = retoucher_loss(
            terms["retoucher/semantic"], terms["retoucher/hiding"], terms["retoucher/realism"], config.loss
        )
        terms["retoucher/norm"] = _descend(game, game.retoucher, loss)
    return _detached(terms)


def _annotate(game: Game, *pictures: Tensor) -> tuple[Tensor, ...]:
    """One forward pass over all pictures, so that batch norm sees the three kinds together; then taken apart."""
    return game.annotator.network(torch.cat(pictures)).split([len(picture) for picture in pictures])


def _descend(game: Game, player: Player, loss: Tensor, clip: float = 0.0) -> Tensor:
    """Move one player down its loss; the norm of its gradient before clipping is returned."""
    player.optimiser.zero_grad()
    game.fabric.backward(loss)
    norm = game.fabric.clip_gradients(
        player.network,
        player.optimiser,
        max_norm=clip or math.inf,
        error_if_nonfinite=False,  # the trainer says it better, with the terms and the photos
    )
    player.optimiser.step()
    assert norm is not None
    return norm


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
