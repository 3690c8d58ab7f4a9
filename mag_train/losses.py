"""The losses of the paper, eqs. 2 to 8, one function each.

Norms are means over pixels. The adversarial terms log(1 - D(x)) that the paper writes for the generators are trained
in their non-saturating form, -log D(x) (Goodfellow et al. 2014): same fixed point, gradients that do not vanish while
the discriminator wins. Discriminators give logits, so that -log D(x) is softplus(-logit).
"""

import torch
from torch import Tensor
from torch.nn import functional

from mag_train.config import LossConfig


def semantic_loss(classes: Tensor, annotated_classes: Tensor, counted: Tensor) -> Tensor:
    """Eq. 2, L_sem = || C_s - G_A(B^)_s ||_1: the retouched picture still shows the same objects.

    All N x K x H x W in [0, 1]; `counted` is 0 where the class is unknown.
    """
    return ((classes - annotated_classes).abs() * counted).sum() / counted.sum().clamp(min=1)


def hiding_loss(annotated_mask: Tensor) -> Tensor:
    """Eq. 3, L_adv^GA = || 0 - G_A(B^)_m ||_1: the annotator finds no splice. N x 1 x H x W in [0, 1]."""
    return annotated_mask.abs().mean()


def realism_loss(logits: Tensor) -> Tensor:
    """Eqs. 4 and 7, L_adv^DR and L_adv^DA, non-saturating: -E log D(fake). Any shape of discriminator logits."""
    return functional.softplus(-logits).mean()


def fidelity_loss(retouched: Tensor, spliced: Tensor) -> Tensor:
    """|| B^ - A ||_1, what retouching has changed. Both N x 3 x H x W in [-1, 1]. Not in the paper."""
    return (retouched - spliced).abs().mean()


def retoucher_loss(semantic: Tensor, hiding: Tensor, realism: Tensor, fidelity: Tensor, config: LossConfig) -> Tensor:
    """Eq. 5, L_R = 10 L_sem + 10 L_adv^GA + 0.25 L_adv^DR, and with `config.fidelity` that of B^ to A."""
    paper = config.semantic * semantic + config.hiding * hiding + config.realism * realism
    return paper + config.fidelity * fidelity


def balanced_loss(truth: Tensor, annotation: Tensor, counted: Tensor) -> Tensor:
    """Eq. 6, L_bal, per picture and channel: |C & (1-C^)| / |C| + |(1-C) & C^| / |1-C|.

    Intersections are sums of products, so a white area of any size weighs as much as the black one around it. All
    three N x C x H x W in [0, 1]; pixels where `counted` is 0 are left out of every area. A term whose area is empty
    is 0. Gives N x C in [0, 2].
    """
    truth = truth * counted
    white, every = truth.sum(dim=(2, 3)), counted.sum(dim=(2, 3))
    black = every - white
    found = (truth * annotation).sum(dim=(2, 3))  # |C & C^|
    claimed = (counted * annotation).sum(dim=(2, 3))  # |C^|
    return (white - found) / white.clamp(min=1) + (claimed - found) / black.clamp(min=1)


def annotation_loss(truth: Tensor, annotation: Tensor, counted: Tensor, config: LossConfig) -> Tensor:
    """One L_bal of eq. 8: eq. 6 summed over the channels, averaged over the batch. N x (2+K) x H x W in [0, 1].

    The paper weighs every channel alike. `config.class_weight` and the cross entropies are ours, for the `edge`
    annotator; 1 and 0 are the paper's. That of the classes is a mean over the known pixels, summed over the classes:
    L_bal is bounded, so its gradient dies in the sigmoid of a channel that is silent; that of a cross entropy does not.
    """
    terms = balanced_loss(truth, annotation, counted)
    loss = (terms[:, :2].sum(dim=1) + config.class_weight * terms[:, 2:].sum(dim=1)).mean()
    if config.mask_cross_entropy:
        loss = loss + config.mask_cross_entropy * cross_entropy(truth[:, :1], annotation[:, :1]).mean()
    if config.class_cross_entropy:
        known = counted[:, 2:]
        told = (cross_entropy(truth[:, 2:], annotation[:, 2:]) * known).sum()
        loss = loss + config.class_cross_entropy * known.shape[1] * told / known.sum().clamp(min=1)
    return loss


def cross_entropy(truth: Tensor, annotation: Tensor) -> Tensor:
    """-log of the probability that the annotation gives to the truth, at most 87. Any shape; truth is 0 or 1.

    In 0.4 of the time of torch's own, which on a CPU takes one value after the other, forward and backward.
    """
    return -(1 - truth - annotation).abs().clamp(min=torch.finfo(annotation.dtype).tiny).log()


def annotator_loss(on_spliced: Tensor, on_retouched: Tensor, on_authentic: Tensor, realism: Tensor) -> Tensor:
    """Eq. 8, L_A = L_bal(C_A', C^_A) + L_bal(C_A', C^_B^) + L_bal(C_B, C^_B) + L_adv^DA."""
    return on_spliced + on_retouched + on_authentic + realism


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(real) - E log(1 - D(fake)), halved as in pix2pix so that D learns at half the generators' pace."""
    return 0.5 * (functional.softplus(-real_logits).mean() + functional.softplus(fake_logits).mean())
