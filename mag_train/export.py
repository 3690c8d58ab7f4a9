"""From a run to a bundle: the averaged annotator as ONNX in float32 and float16, calibrated and checked."""

import logging
import os
import platform
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mag_rt import bundle
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend, load_onnxruntime
from mag_rt.bundle import Bundle
from mag_rt.errors import PictureError
from mag_rt.parity import Annotate
from mag_rt.pictures import Normalisation, pad, shrink
from mag_train import models
from mag_train.calibration import UNCALIBRATED, calibrate, calibration_photos, mask_slope
from mag_train.checkpoint import RunError, best_checkpoint, load_checkpoint, trained_so_far
from mag_train.config import Config
from mag_train.data.opening import split_photos
from mag_train.data.photos import Photo, labelled_photos
from mag_train.data.ready_made import ready_made
from mag_train.half import with_float16
from mag_train.models.annotator import Annotator
from mag_train.models.folding import folded, midway, of_bundle, rounded, tempered
from mag_train.models.retoucher import RetoucherOutputs
from mag_train.warm_start import averaged_weights, for_maps_of, slope_of, weights_of

NORMALISATION = Normalisation(scale=1 / 127.5, offset=-1.0)
MAX_SIDE = 1024
MASK_THRESHOLD = 0.5
LARGEST_DIFFERENCE = 1e-4
"""Between ONNX Runtime and torch, on any probability of the check pictures."""
HALF_CHECKED = 16
"""Photos that the float16 network is checked on."""
MEASURED_AT_EXPORT = {"mask_slope", "torch_difference", "calibration_check", "float16_difference", "int8_difference"}
"""Facts of a bundle that are of its networks as they are, not of how they were trained."""


def bundle_of_run(
    run: Path, data: Path | None, weights_licence: str, average_with: Path | None = None, thorough: bool = False
) -> Bundle:
    """The bundle of a run's best checkpoint, or of its last while there is no best.

    `data`: where the photos lie that calibrate the score (`calibration_photos`), the run's own unless given.
    `average_with`: a bundle, the one that the run started from, half way to whose weights those of the run are taken
    (`midway`). `thorough`: write a `ThoroughAnnotator` with the weights of the run's.

    Raises RunError when ONNX Runtime and torch disagree on the network, there are no photos or `thorough` is asked of
    another annotator than `edge`, BundleError or ValueError when the other bundle cannot be used.
    """
    state = load_checkpoint(best_checkpoint(run))
    config = Config.model_validate(state["config"])
    name = _thorough(config.model.annotator) if thorough else config.model.annotator
    own = Path(state["data"])
    held_out = state.get("held_out", ())
    photos = calibration_photos(data) if data and data.resolve() != own else calibration_photos(own, held_out)
    annotator = averaged_annotator(config, state, name)
    facts = _facts(config, state)
    if average_with:
        other = bundle.load(average_with)
        slope, weights = slope_of(other), for_maps_of(annotator, weights_of(other))
        annotator = tempered(midway(tempered(annotator, slope), weights), 1 / slope)
        facts["averaged_with"] = other.sha256
        facts.pop("validation_ap", None)  # that of the run's own weights
    draft = Bundle(
        annotator=name,
        multiple=annotator.side_multiple,
        max_side=MAX_SIDE,
        normalisation=NORMALISATION,
        classes=bundle.CLASS_NAMES,
        mask_threshold=MASK_THRESHOLD,
        calibration=UNCALIBRATED,
        training={**facts, "photos_by_class": photos_by_class(own, held_out)},
        weights_licence=weights_licence,
        networks={},
    )
    return _calibrated(annotator, draft, photos)


def calibrated_anew(model: Path, data: Path, thorough: bool = False) -> Bundle:
    """A bundle whose mask and score are calibrated on the photos in `data`, in float32 and float16.

    `thorough`: as for `bundle_of_run`. Raises BundleError, RunError when its annotator is none of ours or is asked to
    be thorough and cannot, its networks disagree or there are no photos.
    """
    given = bundle.load(model)
    name = _thorough(given.annotator) if thorough else given.annotator
    photos = calibration_photos(data)
    try:
        annotator = tempered(of_bundle(name, weights_of(given)), 1 / slope_of(given))
    except ValueError as error:
        raise RunError(f"{model}: {error}") from error
    facts = {name: fact for name, fact in given.training.items() if name not in MEASURED_AT_EXPORT}
    return _calibrated(annotator, replace(given, annotator=name, training=facts, networks={}), photos)


def _thorough(annotator: str) -> str:
    """The annotator that reads a picture four ways with the weights of the one called so."""
    if annotator not in ("edge", "thorough"):
        raise RunError(f"the {annotator} annotator has no thorough form; edge has")
    return "thorough"


def _calibrated(annotator: Annotator, draft: Bundle, photos: list[Photo]) -> Bundle:
    """The bundle of an annotator, in float32 and float16, with its mask and its score calibrated on photos.

    draft: all the rest of it. Its facts are kept, and what is measured here is added to them.
    """
    slope = mask_slope(_in_torch(annotator), draft, photos)
    annotator = tempered(annotator, slope)
    shipped = rounded(annotator)
    given = replace(draft, networks={"float32": to_onnx(shipped)})
    difference = _disagreement(shipped, given, photos)
    calibration, checked = calibrate(given, photos)
    facts = {**draft.training, "mask_slope": round(slope, 4), "torch_difference": difference, **checked}
    calibrated = replace(given, calibration=calibration, training=facts)
    return with_float16(calibrated, _inputs(given, photos, HALF_CHECKED), _in_torch(annotator))


def retoucher_of_run(run: Path) -> bytes:
    """A run's retoucher as ONNX, for studies of robustness: image to `retouched`, N x 4 x H x W.

    RGB and attention: eq. 1 of them and the image gives B^. It is that of the best checkpoint, or of the last when it
    had not joined before. Raises RunError when the run has no retoucher, none that has been trained, or ONNX Runtime
    and torch disagree on it.
    """
    state = load_checkpoint(best_checkpoint(run))
    if not _retoucher_has_joined(state) and run.suffix != ".pt":
        state = load_checkpoint(run / "last.pt")
    config = Config.model_validate(state["config"])
    if config.model.retoucher == "none":
        raise RunError(f"{run}: trained without a retoucher")
    if not _retoucher_has_joined(state):
        raise RunError(f"{run}: the retoucher never joined (schedule.adversary_from): its weights are random")
    networks = models.Mag(config.model)
    networks.load_state_dict(state["networks"])
    outputs = RetoucherOutputs(networks.retoucher).eval()
    network = to_onnx(outputs, output="retouched")
    side = 2 * outputs.side_multiple
    image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32) * 2 - 1
    session = load_onnxruntime().InferenceSession(network, providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run(["retouched"], {"image": image})[0] - _in_torch(outputs)(image)).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise RunError(f"ONNX Runtime differs from torch by {difference:.2g} on the retoucher")
    return network


def _retoucher_has_joined(state: dict[str, Any]) -> bool:
    """Whether it has taken a step."""
    return "retoucher" in state["optimisers"] and bool(state["optimisers"]["retoucher"]["state"])


def averaged_annotator(config: Config, state: dict[str, Any], name: str | None = None) -> Annotator:
    """The annotator of a checkpoint with its averaged weights, ready to be used; or the one called `name` with them."""
    network = models.annotator(config.model, name)
    network.load_state_dict(averaged_weights(state))
    return network.eval()


def to_onnx(network: Annotator | RetoucherOutputs, output: str = "annotation") -> bytes:
    """The network as ONNX with batch norm folded into the convolutions; batch, height and width are free.

    The exporter notes for each node where in which source file it comes from: that is taken out, since it shows the
    folders of the machine to whoever gets the bundle.
    """
    side = 2 * network.side_multiple
    # The exporter warns of packages that this network does not need and of its own deprecations.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            folded(network),
            (torch.zeros(2, 3, side, side),),
            input_names=["image"],
            output_names=[output],
            dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for noted in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        noted.ClearField("metadata_props")
    return model.SerializeToString()


def _disagreement(annotator: Annotator, written: Bundle, photos: list[Photo]) -> float:
    """The largest difference of any probability between torch and the bundle on a few photos."""
    backend, expected = OnnxRuntimeBackend(written).probabilities, _in_torch(annotator)
    largest = float(np.max([np.abs(backend(image) - expected(image)).max() for image in _inputs(written, photos, 4)]))
    if not largest <= LARGEST_DIFFERENCE:
        raise RunError(f"ONNX Runtime differs from torch by {largest:.2g}; {LARGEST_DIFFERENCE} is allowed")
    return largest


def _in_torch(network: nn.Module) -> Annotate:
    def annotate(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    return annotate


def _inputs(given: Bundle, photos: list[Photo], count: int) -> Iterator[NDArray[np.float32]]:
    """Up to `count` of the photos, evenly chosen, each 1 x 3 x H x W as the bundle wants it."""
    for photo in photos[:: max(1, len(photos) // count)][:count]:
        yield given.normalisation([pad(shrink(photo.read()[0], given.max_side), given.multiple)])


def photos_by_class(data: Path, held_out: Collection[str] = ()) -> dict[str, int] | None:
    """How many of the photos that a run on `data` trained on show each class; None for splices that lay on disk."""
    try:
        if ready_made(data) is not None:
            return None
        photos = split_photos(labelled_photos(data), data, held_out)[1]
    except ValueError:
        return None
    counts: Counter[int] = Counter()
    for photo in photos:
        with suppress(PictureError, ValueError, OSError):  # training went on without it
            counts.update(np.unique(photo.read()[1]).tolist())
    return {name: counts[index] for index, name in enumerate(bundle.CLASS_NAMES, 1)}


def _facts(config: Config, state: dict[str, Any]) -> dict[str, Any]:
    so_far, validation_ap = trained_so_far(state), state.get("validation_ap")
    return {
        **so_far,
        "hours": round(so_far["hours"], 2),
        **({} if validation_ap is None else {"validation_ap": round(validation_ap, 4)}),
        "machine": f"{os.cpu_count()} x {platform.machine()}, torch {torch.__version__}",
        "config": config.model_dump(mode="json"),
    }
