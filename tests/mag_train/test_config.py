"""A configuration is right, or refused by name."""

from itertools import pairwise

import pytest

from mag_train.config import LossConfig, ScheduleConfig, load, presets


def test_the_presets_load() -> None:
    assert presets() == ["edge", "paper", "smoke"]
    for name in presets():
        load(name)


def test_the_paper_preset_is_the_papers() -> None:
    paper = load("paper")
    assert (paper.data.crop, paper.data.spliced, paper.data.authentic) == (512, 1, 1)
    assert (paper.optim.lr, paper.optim.adversary_lr, paper.optim.annotator_betas) == (2e-4, 2e-4, (0.5, 0.999))
    assert (paper.schedule.epochs, paper.schedule.decay_epochs, paper.schedule.adversary_from) == (400, 200, 0)
    assert paper.loss == LossConfig() and paper.optim.weight_decay == paper.optim.clip == paper.optim.average == 0
    assert (paper.model.retoucher_levels, paper.model.retoucher_width, paper.model.discriminator_width) == (9, 64, 64)


def test_overrides() -> None:
    config = load("smoke", ["optim.lr=1e-4", "model.annotator=paper", "optim.annotator_betas=[0.5, 0.9]"])
    assert config.optim.lr == 1e-4 and config.model.annotator == "paper" and config.optim.annotator_betas == (0.5, 0.9)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.learning_rate=1", "optim.learning_rate"),
        ("optim.lr=-1", "optim.lr"),
        ("optim.lr=fast", "optim.lr"),
        ("model.annotator=large", "model.annotator"),
        ("nothing.here=1", "nothing"),
        ("seed.deeper=1", "seed"),
        ("seed", "section.key=value"),
        ("optim.lrr=1", r"optim\.lrr: no such setting"),
        ("optim.lr=inf", "optim.lr"),
        ("seed=99999999999999999999", "seed"),
    ],
)
def test_what_is_unknown_or_not_allowed_is_refused_by_name(override: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load("smoke", [override])


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="edge, paper, smoke"):
        load("large")


def test_the_rate_rises_holds_and_falls_to_zero() -> None:
    schedule = ScheduleConfig(epochs=4, decay_epochs=2, ramp=5)
    rates = [schedule.rate(iteration, 40 - iteration, per_epoch=10) for iteration in range(40)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert set(rates[5:21]) == {1.0}
    assert rates[30] == pytest.approx(0.5) and rates[39] == pytest.approx(0.05)
    assert all(a >= b for a, b in pairwise(rates[5:]))
    assert ScheduleConfig(epochs=1, decay_epochs=0).rate(0, 10, 10) == 1.0
