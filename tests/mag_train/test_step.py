"""Who learns what from whom in an adversarial iteration."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import SGD

from mag_train import config as configuration
from mag_train import step as algorithm
from mag_train.config import Config
from mag_train.data.targets import Pictures
from mag_train.devices import launch
from mag_train.losses import annotation_loss, discriminator_loss, realism_loss, semantic_loss
from mag_train.models import Mag
from mag_train.step import Game, Player, Terms, adversarial_iteration, unretouched_iteration, warm_up_iteration

NAMES = ("annotator", "retoucher", "d_a", "d_r")


def batch(count: int, spliced: bool) -> Pictures:
    truth = torch.zeros(count, 12, 64, 64)
    if spliced:
        truth[:, 0, 16:40, 16:40] = 1
        truth[:, 1, 14:18, 14:42] = 1
    truth[:, 2, :32] = 1
    return Pictures(torch.rand(count, 3, 64, 64) * 2 - 1, truth, torch.ones_like(truth))


@pytest.fixture
def game() -> Game:
    torch.manual_seed(0)
    rules: Config = configuration.load("smoke")
    return seated(rules)


def seated(rules: Config) -> Game:
    """Four players on plain gradient descent, whose steps are easy to reckon."""
    fabric, players = launch(rules.precision), {}
    for name, network in Mag(rules.model).named_children():
        optimiser = SGD(network.parameters(), lr=0.01)
        scaler = GradScaler("cpu", enabled=rules.precision == "16-mixed")
        players[name] = Player(*fabric.setup(network, optimiser), scaler)
    return Game(players, fabric, rules)


def weights(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(network: nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(now, then) for now, then in zip(network.parameters(), before, strict=True))


WEIGHTS = ["semantic=2", "hiding=3", "realism=5", "fidelity=7", "annotation_realism=11"]


@dataclass
class Watched:
    """What annotator and retoucher said, call by call, and the losses that were descended."""

    said: dict[str, list[Any]] = field(default_factory=lambda: {"annotator": [], "retoucher": []})
    losses: dict[str, torch.Tensor] = field(default_factory=dict)

    def parts(self, *pictures: Pictures) -> tuple[torch.Tensor, ...]:
        """The annotator's first answer, taken apart by what it was asked about."""
        return self.said["annotator"][0].split([len(each.image) for each in pictures])


def at_rest(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> tuple[Game, Watched]:
    """A game whose players take steps of length 0, so that all of it can be reckoned again; each term counts."""
    torch.manual_seed(0)
    game, watched = seated(configuration.load("smoke", [*overrides, *(f"loss.{each}" for each in WEIGHTS)])), Watched()
    with torch.no_grad():
        game.annotator.head.bias.normal_()  # of no opinion, 1/2, whatever is true is as far away as what is not
    for name, player in game.players.items():
        player.optimiser.param_groups[0]["lr"] = 0.0
        if name in watched.said:
            player.network.register_forward_hook(lambda *call, said=watched.said[name]: said.append(call[-1]))
    descend = algorithm._descend

    def watch(game: Game, name: str, loss: torch.Tensor) -> Terms:
        watched.losses[name] = loss.detach()
        return descend(game, name, loss)

    monkeypatch.setattr(algorithm, "_descend", watch)
    return game, watched


def pasted_objects() -> tuple[Pictures, Pictures]:
    """Three spliced and two authentic pictures; objects are pasted too, and of a border nobody knows the class."""
    a, b = batch(3, True), batch(2, False)
    for each in (a, b):
        each.counted[:, 2:, :, :8] = 0
    return a, b


def silent_on_pasted(a: Pictures) -> torch.Tensor:
    """C_A', from its definition."""
    truth = a.truth.clone()
    truth[:, 2:] *= 1 - truth[:, :1]
    return truth


def beside(image: torch.Tensor, annotation: torch.Tensor) -> torch.Tensor:
    return torch.cat([image, annotation], dim=1)


def judged(
    d_a: nn.Module, a: Pictures, shown: torch.Tensor, on_shown: torch.Tensor, b: Pictures, on_b: torch.Tensor
) -> torch.Tensor:
    """D_A's loss: (B^, C_A') and (B, C_B) are real, (B^, C^_B^) and (B, C^_B) are fake."""
    images, known = torch.cat([shown, b.image]), torch.cat([a.counted, b.counted])
    real, fake = torch.cat([silent_on_pasted(a), b.truth]) * known, torch.cat([on_shown, on_b]) * known
    return discriminator_loss(d_a(beside(images, real)), d_a(beside(images, fake)))


def test_every_term_of_the_game_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eqs. 2 to 8 from what the networks say: who is shown what, what it is held to, and what counts how much."""
    game, watched = at_rest(monkeypatch)
    a, b = pasted_objects()
    terms = adversarial_iteration(game, a, b)
    on_a, on_b_hat, on_b = watched.parts(a, a, b)
    b_hat, at_last = watched.said["retoucher"][0].image, watched.said["annotator"][1]
    d_a, d_r, rules = game.players["d_a"].network, game.players["d_r"].network, game.config.loss
    expected = {
        "d_a": judged(d_a, a, b_hat, on_b_hat, b, on_b),
        "d_r": discriminator_loss(d_r(b.image), d_r(b_hat)),
        "annotator/spliced": annotation_loss(silent_on_pasted(a), on_a, a.counted, rules),
        "annotator/retouched": annotation_loss(silent_on_pasted(a), on_b_hat, a.counted, rules),
        "annotator/authentic": annotation_loss(b.truth, on_b, b.counted, rules),
        "annotator/realism": realism_loss(d_a(beside(b_hat, on_b_hat * a.counted))),
        "retoucher/semantic": semantic_loss(a.truth[:, 2:], at_last[:, 2:], a.counted[:, 2:]),
        "retoucher/hiding": at_last[:, 0].mean(),
        "retoucher/realism": realism_loss(d_r(b_hat)),
        "retoucher/fidelity": (b_hat - a.image).abs().mean(),
    }
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term.detach(), msg=name)
    sums = {
        "d_a": terms["d_a"],
        "d_r": terms["d_r"],
        "annotator": sum(terms[f"annotator/{name}"] for name in ("spliced", "retouched", "authentic"))
        + 11 * terms["annotator/realism"],
        "retoucher": 2 * terms["retoucher/semantic"] + 3 * terms["retoucher/hiding"]
        + 5 * terms["retoucher/realism"] + 7 * terms["retoucher/fidelity"],
    }  # fmt: skip
    assert watched.losses.keys() == sums.keys()
    for name, loss in sums.items():
        torch.testing.assert_close(watched.losses[name], loss, msg=name)


def test_without_a_retoucher_the_terms_are_those_of_a_where_b_hat_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """And eq. 8 counts A once."""
    game, watched = at_rest(monkeypatch, "model.retoucher=none")
    a, b = pasted_objects()
    terms = unretouched_iteration(game, a, b)
    on_a, on_b = watched.parts(a, b)
    d_a, rules = game.players["d_a"].network, game.config.loss
    spliced = annotation_loss(silent_on_pasted(a), on_a, a.counted, rules)
    authentic = annotation_loss(b.truth, on_b, b.counted, rules)
    realism = realism_loss(d_a(beside(a.image, on_a * a.counted)))
    torch.testing.assert_close(terms["d_a"], judged(d_a, a, a.image, on_a, b, on_b).detach())
    torch.testing.assert_close(watched.losses["annotator"], (spliced + authentic + 11 * realism).detach())


def test_the_warm_up_is_eq_8_without_its_adversaries(monkeypatch: pytest.MonkeyPatch) -> None:
    game, watched = at_rest(monkeypatch)
    a, b = pasted_objects()
    warm_up_iteration(game, a, b)
    on_a, on_b = watched.parts(a, b)
    spliced = annotation_loss(silent_on_pasted(a), on_a, a.counted, game.config.loss)
    authentic = annotation_loss(b.truth, on_b, b.counted, game.config.loss)
    torch.testing.assert_close(watched.losses["annotator"], (spliced + authentic).detach())


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_step_is_no_longer_than_the_clip_allows(precision: str) -> None:
    """Of the gradient itself, not of what float16's scaler makes of it; the log has its norm before that."""
    torch.manual_seed(0)
    game = seated(configuration.load("smoke", [f"precision={precision}"]))
    player = game.players["annotator"]
    player.clip = 0.01
    player.scaler = GradScaler("cpu", init_scale=256.0, enabled=precision == "16-mixed")
    before = weights(player.network)
    terms = warm_up_iteration(game, batch(2, True), batch(2, False))
    after = weights(player.network)
    length = torch.cat([(now - then).flatten() for now, then in zip(after, before, strict=True)]).norm()
    assert length == pytest.approx(0.01 * player.clip, rel=0.01)  # at a rate of 0.01
    assert 0.1 < terms["annotator/norm"] < 100


def test_each_step_moves_its_own_network_and_no_other(game: Game, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    descend = algorithm._descend

    def watched(game: Game, name: str, loss: torch.Tensor) -> Terms:
        before = {each: weights(game.players[each].network) for each in NAMES}
        norm = descend(game, name, loss)
        steps.append([each for each in NAMES if moved(game.players[each].network, before[each])])
        return norm

    monkeypatch.setattr(algorithm, "_descend", watched)
    terms = adversarial_iteration(game, batch(3, True), batch(1, False))
    assert steps == [["d_a"], ["d_r"], ["annotator"], ["retoucher"]]  # the order of DESIGN's update
    assert all(torch.isfinite(term) for term in terms.values())


def test_the_retoucher_learns_through_the_annotator(game: Game) -> None:
    """With the realism term off and D_R out of it, eqs. 2 and 3 alone must reach the retoucher."""
    loss = game.config.loss.model_copy(update={"realism": 0.0})
    game.config = game.config.model_copy(update={"loss": loss})
    before = weights(game.players["retoucher"].network)
    adversarial_iteration(game, batch(2, True), batch(2, False))
    assert moved(game.players["retoucher"].network, before)


def test_the_annotator_hears_from_its_discriminator(game: Game) -> None:
    """Eq. 7 trains the annotator: from the same start, its step with L_adv^DA is another than without."""
    pictures = batch(2, True), batch(2, False)
    start = {name: copy.deepcopy(game.players[name].network.state_dict()) for name in NAMES}
    stepped = []
    for weight in (0.0, 0.0, 1.0):
        for name in NAMES:
            game.players[name].network.load_state_dict(start[name])
        loss = game.config.loss.model_copy(update={"annotation_realism": weight})
        game.config = game.config.model_copy(update={"loss": loss})
        torch.manual_seed(1)
        adversarial_iteration(game, *pictures)
        stepped.append(weights(game.annotator))
    without, again, with_it = stepped
    assert all(torch.equal(a, b) for a, b in zip(without, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(without, with_it, strict=True))


def test_gradients_pass_through_a_frozen_network_and_leave_nothing_behind(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = {}
    descend = algorithm._descend

    def watched(game: Game, name: str, loss: torch.Tensor) -> Terms:
        others = [game.players[other].network for other in NAMES if other != name]
        before = [[p.grad.clone() for p in net.parameters() if p.grad is not None] for net in others]
        norm = descend(game, name, loss)
        after = [[p.grad for p in net.parameters() if p.grad is not None] for net in others]
        for one, other in zip(before, after, strict=True):
            left[len(left)] = len(one) == len(other) and all(map(torch.equal, one, other))
        return norm

    monkeypatch.setattr(algorithm, "_descend", watched)
    adversarial_iteration(game, batch(2, True), batch(2, False))
    assert all(left.values()) and len(left) == 12


def test_no_network_is_left_frozen(game: Game) -> None:
    adversarial_iteration(game, batch(2, True), batch(2, False))
    for name in NAMES:
        network = game.players[name].network
        assert network.training and all(parameter.requires_grad for parameter in network.parameters())


def test_the_retouchers_step_leaves_the_annotators_statistics_alone(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    descend = algorithm._descend

    def watched(game: Game, name: str, loss: torch.Tensor) -> Terms:
        if name == "annotator":
            seen["after annotator"] = copy.deepcopy(dict(game.annotator.named_buffers()))
        return descend(game, name, loss)

    monkeypatch.setattr(algorithm, "_descend", watched)
    adversarial_iteration(game, batch(2, True), batch(2, False))
    for name, buffer in game.annotator.named_buffers():
        assert torch.equal(buffer, seen["after annotator"][name]), name


def test_the_warm_up_moves_the_annotator_alone(game: Game) -> None:
    before = {name: weights(game.players[name].network) for name in NAMES}
    terms = warm_up_iteration(game, batch(3, True), batch(1, False))
    assert [name for name in NAMES if moved(game.players[name].network, before[name])] == ["annotator"]
    assert set(terms) == {"annotator/spliced", "annotator/authentic", "annotator/norm"}


def test_annotations_of_a_stacked_pass_go_to_their_own_pictures(game: Game) -> None:
    a, b = batch(3, True).image, batch(2, False).image
    game.annotator.eval()
    with torch.no_grad():
        on_a, on_b = algorithm._annotate(game, a, b)
        torch.testing.assert_close(on_a, game.annotator(a), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(on_b, game.annotator(b), atol=1e-5, rtol=1e-4)


def test_without_a_retoucher_annotator_and_d_a_play_alone() -> None:
    """The paper's ablation "No G_R", by one setting."""
    game = seated(configuration.load("smoke", ["model.retoucher=none"]))
    assert set(game.players) == {"annotator", "d_a"}
    before = {name: weights(player.network) for name, player in game.players.items()}
    terms = unretouched_iteration(game, batch(3, True), batch(1, False))
    assert all(moved(player.network, before[name]) for name, player in game.players.items())
    assert set(terms) == {
        "d_a", "d_a/norm", "annotator/spliced", "annotator/authentic", "annotator/realism", "annotator/norm",
    }  # fmt: skip
    for player in game.players.values():
        assert player.network.training and all(parameter.requires_grad for parameter in player.network.parameters())


def test_without_a_retoucher_d_a_still_trains_the_annotator() -> None:
    stepped = []
    for weight in (0, 1):
        torch.manual_seed(0)
        game = seated(configuration.load("smoke", ["model.retoucher=none", f"loss.annotation_realism={weight}"]))
        unretouched_iteration(game, batch(2, True), batch(2, False))
        stepped.append(weights(game.annotator))
    assert any(not torch.equal(without, with_it) for without, with_it in zip(*stepped, strict=True))


def test_a_single_task_annotator_learns_from_the_mask_alone() -> None:
    """Whatever edges and classes are, it takes the same step and says nothing of them."""
    stepped = []
    for truth in (0.0, 1.0):
        torch.manual_seed(0)
        game = seated(configuration.load("smoke", ["model.tasks=mask"]))
        a, b = batch(2, True), batch(2, False)
        for each in (a, b):
            each.truth[:, 1:] = truth
            each.counted[:, 1:] = 0
        terms = adversarial_iteration(game, a, b)
        assert all(torch.isfinite(term) for term in terms.values())
        stepped.append(weights(game.annotator))
    assert all(torch.equal(one, other) for one, other in zip(*stepped, strict=True))
    assert game.annotator(a.image).shape == (2, 12, 64, 64)
    assert not game.annotator(a.image)[:, 1:].any()


def test_players_hold_still_while_gradients_are_added_up(game: Game) -> None:
    before = {name: weights(game.players[name].network) for name in NAMES}
    game.takes_step = False
    terms = adversarial_iteration(game, batch(2, True), batch(2, False))
    assert not any(moved(game.players[name].network, before[name]) for name in NAMES)
    assert not any(name.endswith("/norm") for name in terms)
    game.takes_step = True
    adversarial_iteration(game, batch(2, True), batch(2, False))
    assert all(moved(game.players[name].network, before[name]) for name in NAMES)
