"""Where training may start from instead of random weights: the annotator of a bundle or of another run."""

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from mag_rt import bundle
from mag_rt.errors import BundleError
from mag_train.checkpoint import RunError, best_checkpoint, load_checkpoint, trained_so_far
from mag_train.models.annotator import CHANNELS, Annotator
from mag_train.models.folding import tempered, unfold


def warm_start(annotator: Annotator, model: Path, images: Tensor) -> dict[str, float]:
    """Give `annotator` the weights of `model`: a bundle (folder or .zip), a run's folder or a checkpoint (.pt).

    A bundle's batch norm is folded away; its statistics are taken anew on `images`, N x 3 x H x W in [-1, 1]. Its mask
    is as sure again as it was before it was calibrated. An annotator of the mask alone takes from one of all tasks what
    the mask is made with.
    Gives the iterations, pictures and hours that the model was trained on, as far as it says.
    Raises BundleError or RunError when the model cannot be read or has another annotator.
    """
    try:
        if model.suffix == ".pt" or best_checkpoint(model).is_file():
            state = load_checkpoint(best_checkpoint(model))
            annotator.load_state_dict(for_maps_of(annotator, averaged_weights(state)))
            return trained_so_far(state)
        given = bundle.load(model)
        unfold(annotator, for_maps_of(annotator, weights_of(given)), images)
        annotator.load_state_dict(tempered(annotator, 1 / slope_of(given)).state_dict())
        return bundle.numbers({unit: given.training.get(unit) for unit in ("iterations", "pictures", "hours")})
    except (ValueError, RuntimeError) as error:
        if isinstance(error, RunError | BundleError):
            raise
        raise RunError(f"{model}: not the weights of this run's annotator ({str(error).splitlines()[0]})") from error


def for_maps_of(annotator: Annotator, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, without the rows of the last layer that make maps which `annotator` does not have."""
    kept = dict(weights)
    for name, target in annotator.state_dict().items():
        given = weights.get(name)
        if given is not None and len(given.shape) and len(given) * annotator.maps == len(target) * CHANNELS:
            kept[name] = given[: len(target)]
    return kept


def averaged_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of the annotator in a checkpoint, by the names of the annotator's own."""
    prefix = "module."  # AveragedModel's
    return {name.removeprefix(prefix): each for name, each in state["average"].items() if name.startswith(prefix)}


def slope_of(given: bundle.Bundle) -> float:
    """What the logits of a bundle's mask were multiplied by when it was calibrated (`calibration.mask_slope`)."""
    slope = bundle.numbers(given.training).get("mask_slope", 1.0)
    return slope if 0 < slope <= 1 else 1.0


def weights_of(given: bundle.Bundle) -> dict[str, Tensor]:
    """The constants of a bundle's float32 network by name, batch norm folded away."""
    graph = onnx.load_from_string(given.network).graph
    return {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
