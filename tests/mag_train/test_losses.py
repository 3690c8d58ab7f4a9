"""Eqs. 2 to 8 against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mag_train.config import LossConfig
from mag_train.losses import (
    annotation_loss,
    annotator_loss,
    balanced_loss,
    cross_entropy,
    discriminator_loss,
    fidelity_loss,
    hiding_loss,
    realism_loss,
    retoucher_loss,
    semantic_loss,
)

PAPER = LossConfig()


def one_map(*rows: list[float]) -> Tensor:
    """A 1 x 1 x H x W map."""
    return torch.tensor([[list(rows)]])


TRUTH = one_map([1.0, 0.0], [0.0, 0.0])
ANNOTATION = one_map([0.75, 0.5], [0.25, 0.0])


def test_eq6_on_a_2x2_map() -> None:
    # Missed: 1 - 0.75 of a white area of 1. Claimed: 0.5 + 0.25 + 0 of a black area of 3.
    loss = balanced_loss(TRUTH, ANNOTATION, torch.ones_like(TRUTH))
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(0.25 / 1 + 0.75 / 3)


def test_eq6_is_0_for_the_truth_and_2_for_its_inverse() -> None:
    ones = torch.ones_like(TRUTH)
    assert balanced_loss(TRUTH, TRUTH, ones).item() == 0
    assert balanced_loss(TRUTH, 1 - TRUTH, ones).item() == 2


@pytest.mark.parametrize(("value", "other_term"), [(0.0, 0.375), (1.0, 0.625)])
def test_eq6_without_white_or_without_black_area_keeps_the_other_term(value: float, other_term: float) -> None:
    truth = torch.full_like(TRUTH, value)
    loss = balanced_loss(truth, ANNOTATION, torch.ones_like(TRUTH))
    assert loss.item() == pytest.approx(other_term)  # mean annotation 0.375


def test_eq6_with_nothing_counted_is_0_and_has_a_gradient_of_0() -> None:
    annotation = ANNOTATION.clone().requires_grad_()
    loss = balanced_loss(TRUTH, annotation, torch.zeros_like(TRUTH))
    loss.sum().backward()
    assert loss.item() == 0 and annotation.grad is not None and annotation.grad.abs().sum() == 0


def test_eq6_leaves_ignored_pixels_out_of_every_area() -> None:
    counted = one_map([1.0, 0.0], [1.0, 1.0])
    # Claimed: 0.25 + 0 of a black area of 2; the pixel with 0.5 is ignored.
    assert balanced_loss(TRUTH, ANNOTATION, counted).item() == pytest.approx(0.25 / 1 + 0.25 / 2)
    # Whatever stands in an ignored pixel's truth does not matter.
    assert balanced_loss(one_map([1.0, 1.0], [0.0, 0.0]), ANNOTATION, counted).item() == pytest.approx(0.375)


def test_eq6_weighs_each_picture_of_a_batch_by_its_own_areas() -> None:
    truths = torch.cat([TRUTH, one_map([1.0, 1.0], [1.0, 0.0])])
    annotations = torch.cat([ANNOTATION, ANNOTATION])
    terms = balanced_loss(truths, annotations, torch.ones_like(truths))
    assert terms[0].item() == pytest.approx(0.5)
    assert terms[1].item() == pytest.approx((0.25 + 0.5 + 0.75) / 3)


def test_annotation_loss_sums_channels_and_averages_pictures() -> None:
    truth = TRUTH.expand(2, 12, 2, 2)
    annotation = ANNOTATION.expand(2, 12, 2, 2)
    counted = torch.ones_like(truth)
    assert annotation_loss(truth, annotation, counted, PAPER).item() == pytest.approx(12 * 0.5)
    light = LossConfig(class_weight=0.1)
    assert annotation_loss(truth, annotation, counted, light).item() == pytest.approx(2 * 0.5 + 10 * 0.1 * 0.5)


def test_the_cross_entropy_of_the_edge_preset_is_on_the_mask_alone() -> None:
    truth, annotation = TRUTH.expand(1, 12, 2, 2), ANNOTATION.expand(1, 12, 2, 2).clone()
    annotation[:, 1:, 1, 1] = 0.5  # edge and classes
    counted = torch.ones_like(truth)
    with_it = annotation_loss(truth, annotation, counted, LossConfig(mask_cross_entropy=2.0))
    entropy = -(math.log(0.75) + math.log(0.5) + math.log(0.75) + math.log(1.0)) / 4
    assert with_it - annotation_loss(truth, annotation, counted, PAPER) == pytest.approx(2 * entropy, rel=1e-5)


def test_the_cross_entropy_is_torchs_and_learns_from_answers_that_are_wholly_wrong() -> None:
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 16, 16, requires_grad=True)
    truth = (torch.rand(2, 3, 16, 16) < 0.3).float()
    expected = functional.binary_cross_entropy(torch.sigmoid(logits), truth, reduction="none")
    found = cross_entropy(truth, torch.sigmoid(logits))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    wrong = torch.tensor([1.0, 0.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(cross_entropy(torch.tensor([0.0, 1.0]), wrong).sum(), wrong)
    assert gradient.isfinite().all()


def test_the_cross_entropy_of_classes_is_summed_over_them_where_they_are_known() -> None:
    truth, annotation = TRUTH.expand(1, 12, 2, 2), ANNOTATION.expand(1, 12, 2, 2)
    counted = torch.ones_like(truth).clone()
    counted[:, 2:, 0, 0] = 0
    with_it = annotation_loss(truth, annotation, counted, LossConfig(class_cross_entropy=0.5))
    entropy = -(math.log(0.5) + math.log(0.75) + math.log(1.0)) / 3
    assert with_it - annotation_loss(truth, annotation, counted, PAPER) == pytest.approx(0.5 * 10 * entropy, rel=1e-5)


def test_a_class_that_is_silent_still_learns_by_cross_entropy() -> None:
    """Eq. 6 is bounded: where a sigmoid says nothing, nothing of its gradient is left."""
    truth = TRUTH.expand(1, 12, 2, 2)
    pulls = {}
    for weight in (0.0, 0.3):
        logits = torch.full((1, 12, 2, 2), -12.0, requires_grad=True)
        config = LossConfig(class_cross_entropy=weight)
        annotation_loss(truth, torch.sigmoid(logits), torch.ones_like(truth), config).backward()
        assert logits.grad is not None
        pulls[weight] = logits.grad[0, 3, 0, 0].abs().item()
    assert pulls[0.0] < 1e-4 < 0.01 < pulls[0.3]


def test_eq2_is_the_mean_difference_over_counted_pixels() -> None:
    assert semantic_loss(TRUTH, ANNOTATION, torch.ones_like(TRUTH)).item() == pytest.approx((0.25 + 0.5 + 0.25) / 4)
    counted = one_map([1.0, 0.0], [1.0, 1.0])
    assert semantic_loss(TRUTH, ANNOTATION, counted).item() == pytest.approx((0.25 + 0.25) / 3)
    assert semantic_loss(TRUTH, ANNOTATION, torch.zeros_like(TRUTH)).item() == 0


def test_eq3_is_the_mean_of_the_mask() -> None:
    assert hiding_loss(ANNOTATION).item() == pytest.approx(1.5 / 4)


def test_eqs_4_and_7_do_not_saturate() -> None:
    logits = torch.tensor([0.0, -20.0], requires_grad=True)
    loss = realism_loss(logits)
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + 20) / 2)
    # Where the discriminator is sure of a fake, log(1 - D) would have no gradient left; -log D has its largest.
    assert logits.grad is not None and logits.grad[1].item() == pytest.approx(-0.5)


def test_fidelity_is_what_retouching_has_changed() -> None:
    white = torch.ones(1, 3, 2, 2)
    assert fidelity_loss(white, white).item() == 0
    assert fidelity_loss(-white, torch.cat([white[..., :1], -white[..., :1]], dim=3)).item() == 1


def test_eq5_weighs_10_10_and_a_quarter() -> None:
    one, two, four = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)
    assert retoucher_loss(one, two, four, one, PAPER).item() == 10 + 20 + 1
    own = LossConfig(semantic=3.0, hiding=5.0, realism=7.0, fidelity=11.0)
    assert retoucher_loss(one, two, four, two, own).item() == 3 + 10 + 28 + 22


def test_eq8_adds_its_four_terms() -> None:
    parts = [torch.tensor(value) for value in (1.0, 2.0, 4.0, 8.0)]
    assert annotator_loss(*parts).item() == 15


def test_a_discriminator_that_knows_nothing_pays_log_2() -> None:
    assert discriminator_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(math.log(2))
    assert discriminator_loss(torch.full((3,), 9.0), torch.full((5,), -9.0)).item() < 1e-3
