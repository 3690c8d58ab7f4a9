"""Batch norm folded into the convolutions before it, as bundles ship it, and taken out again, to train on."""

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mag_train.models.annotator import ANNOTATORS, Annotator, NoiseViews

Folds = TypeVar("Folds", bound=nn.Module)


def folded(network: Folds) -> Folds:
    """A copy in which every convolution has taken in the batch norm behind it; in evaluation both give the same."""
    network = copy.deepcopy(network)
    for block, (conv_name, conv), (norm_name, norm) in _pairs(network):
        setattr(block, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(block, norm_name, nn.Identity())
    return network


@torch.no_grad()
def unfold(network: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> None:
    """Give `network` the folded weights of its like, and its batch norms the statistics that they have on `images`.

    In evaluation the network then gives what the folded one gives; in training each batch norm goes on from where the
    data is. `weights`: by the names of `folded(network)`. The strided weight of `NoiseViews`, which an export computes
    into a constant without a name, is taken by its shape. images: N x 3 x H x W, enough for a mean and a variance in
    every channel.

    Raises ValueError when the weights are of another network.
    """
    norms = {}
    targets = dict(network.state_dict())
    for block, (conv_name, _), (norm_name, norm) in _pairs(network):
        prefix = next(name for name, module in network.named_modules() if module is block)
        norms[norm] = weights.get(f"{prefix}.{conv_name}.bias")
        for key in norm.state_dict():
            del targets[f"{prefix}.{norm_name}.{key}"]
    for target, given in _matched(network, targets, weights):
        target.copy_(given)
    _set_statistics(network, norms, images)


@torch.no_grad()
def midway(network: Folds, weights: Mapping[str, Tensor]) -> Folds:
    """`folded(network)` with the mean of its weights and the folded `weights` of its like, as for `unfold`.

    Between a network and what became of it in more training, on other pictures, often lies one that is better than
    both on either's (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903). Raises ValueError as `unfold` does.
    """
    network = folded(network)
    for target, given in _matched(network, network.state_dict(), weights):
        target.lerp_(given, 0.5)
    return network


@torch.no_grad()
def rounded(network: Folds) -> Folds:
    """`folded(network)` with weights that float16 holds too: files pack into 60%, and float16 changes no weight.

    Filters that `NoiseViews` makes of its weights sum to zero as before; they are computed from what is rounded.
    """
    network = folded(network)
    for parameter in network.parameters():
        parameter.copy_(parameter.half())
    return network


@torch.no_grad()
def tempered(network: Annotator, slope: float) -> Annotator:
    """A copy of an annotator whose mask's logits are `slope` times as large: a softer mask, and 1/2 where it was."""
    network = copy.deepcopy(network)
    *_, last = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    of_mask = last.out_channels // network.maps  # rows of the last convolution belong to one map after the other
    for parameter in last.parameters():
        parameter[:of_mask] *= slope
    return network


@torch.no_grad()
def of_bundle(name: str, weights: Mapping[str, Tensor]) -> Annotator:
    """The annotator called `name`, folded, with the weights of a bundle. Raises ValueError when they are another's."""
    if name not in ANNOTATORS:
        raise ValueError(f"an annotator {name!r} is not known; there are {', '.join(ANNOTATORS)}")
    network = folded(ANNOTATORS[name]().eval())
    for target, given in _matched(network, network.state_dict(), weights):
        target.copy_(given)
    return network


def _matched(
    network: nn.Module, targets: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each of the network's `targets`, by name, with the weight that belongs there."""
    given = {**weights, **_computed(network, weights)}
    for name, target in targets.items():
        found = given.get(name)
        if found is None or found.shape != target.shape:
            raise ValueError(f"the weights are of another network: {name} is missing or has another shape")
        yield target, found


def _computed(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of which an export shows only what was computed of them."""
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, NoiseViews):
            shape = module.strided().shape
            found |= {f"{name}.weight": module.filters(each) for each in weights.values() if each.shape == shape}
    return found


def _set_statistics(network: nn.Module, biases: dict[nn.BatchNorm2d, Tensor | None], images: Tensor) -> None:
    """One pass in which each batch norm measures what reaches it and sets itself to add its bias and nothing else."""

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
        bias = biases[norm]
        norm.running_mean.copy_(mean)  # type: ignore[union-attr]
        norm.running_var.copy_(variance)  # type: ignore[union-attr]
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean if bias is None else mean + bias)

    hooks = [norm.register_forward_pre_hook(measure) for norm in biases]
    training = network.training
    network.eval()(images)
    network.train(training)
    for hook in hooks:
        hook.remove()


def _pairs(
    network: nn.Module,
) -> Iterator[tuple[nn.Sequential, tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Every convolution with the batch norm right behind it, by name, and the block that holds both."""
    for block in network.modules():
        if isinstance(block, nn.Sequential):
            for (conv_name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    yield block, (conv_name, conv), (norm_name, norm)
