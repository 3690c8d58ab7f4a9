"""From a run to a bundle: the averaged annotator as ONNX in float32 and float16, checked, and its calibration."""

import logging
import math
import os
import platform
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from mag_rt import Scanner, bundle
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle, Calibration
from mag_rt.errors import PictureError
from mag_rt.findings import score
from mag_rt.parity import Annotate
from mag_rt.pictures import Normalisation, pad, shrink
from mag_train import models
from mag_train.checkpoint import RunError, best_checkpoint, load_checkpoint, trained_so_far
from mag_train.config import Config
from mag_train.data.history import Image
from mag_train.data.opening import split
from mag_train.data.photos import Photo, labelled_photos
from mag_train.data.synthesis import spliced
from mag_train.half import with_float16
from mag_train.models.annotator import Annotator
from mag_train.models.folding import folded, midway
from mag_train.models.retoucher import RetoucherOutputs
from mag_train.warm_start import averaged_weights, weights_of

NORMALISATION = Normalisation(scale=1 / 127.5, offset=-1.0)
MAX_SIDE = 1024
MASK_THRESHOLD = 0.5
LARGEST_DIFFERENCE = 1e-4
"""Between ONNX Runtime and torch, on any probability of the check pictures."""
HALF_CHECKED = 16
"""Photos that the float16 network is checked on."""
FALSE_ALARMS = 0.03
"""Share of authentic calibration photos that may be called spliced."""
MISSED_SPLICES = 0.10
"""Share of spliced calibration pictures that may be called authentic."""
UNCALIBRATED = Calibration(slope=1.0, intercept=0.0, authentic=0.0, spliced=1.0)


def export(run: Path, out: Path, data: Path | None, weights_licence: str, average_with: Path | None = None) -> Bundle:
    """Write the bundle of a run to the folder `out`: of its best checkpoint, or of its last while there is no best.

    The photos of role `calibration` in the manifest of `data` (the run's own unless given), or else the photos that the
    run held out, calibrate the score. `average_with`: a bundle, the one that the run started from, half way to whose
    weights those of the run are taken (`midway`). Raises RunError when ONNX Runtime and torch disagree on the network,
    BundleError or ValueError when the other bundle cannot be used.
    """
    state = load_checkpoint(best_checkpoint(run))
    config = Config.model_validate(state["config"])
    photos = calibration_photos(data or Path(state["data"]))
    annotator = averaged_annotator(config, state)
    facts = _facts(config, state)
    if average_with:
        other = bundle.load(average_with)
        annotator, facts["averaged_with"] = midway(annotator, weights_of(other)), other.sha256
        del facts["validation_ap"]  # that of the run's own weights
    draft = Bundle(
        annotator=config.model.annotator,
        multiple=annotator.side_multiple,
        max_side=MAX_SIDE,
        normalisation=NORMALISATION,
        classes=bundle.CLASS_NAMES,
        mask_threshold=MASK_THRESHOLD,
        calibration=UNCALIBRATED,
        training={},
        weights_licence=weights_licence,
        networks={"float32": to_onnx(annotator)},
    )
    bundle.save(draft, out)
    with Scanner(out) as scanner:
        difference = _disagreement(annotator, scanner.bundle, photos)
        calibration, checked = calibrate(scanner, photos, config.seed)
    shown = photos_by_class(Path(state["data"]))
    training = {**facts, "photos_by_class": shown, "torch_difference": difference, **checked}
    finished = replace(draft, calibration=calibration, training=training)
    finished = with_float16(finished, _inputs(draft, photos, HALF_CHECKED), _in_torch(annotator))
    bundle.save(finished, out)
    return finished


def add_float16(model: Path, out: Path, data: Path) -> Bundle:
    """Write a bundle again, to the folder `out`, with a float16 network that is checked against its float32 one.

    Photos as for `export`. Raises BundleError, or RunError when the networks disagree.
    """
    given = bundle.load(model)
    photos = calibration_photos(data)
    finished = with_float16(given, _inputs(given, photos, HALF_CHECKED), OnnxRuntimeBackend(given).probabilities)
    bundle.save(finished, out)
    return finished


def export_retoucher(run: Path, out: Path) -> None:
    """Write a run's retoucher as ONNX, for studies of robustness: image to `retouched`, N x 4 x H x W.

    RGB and attention: eq. 1 of them and the image gives B^. Raises RunError when the run has no retoucher or ONNX
    Runtime and torch disagree on it.
    """
    state = load_checkpoint(best_checkpoint(run))
    config = Config.model_validate(state["config"])
    if config.model.retoucher == "none":
        raise RunError(f"{run}: trained without a retoucher")
    networks = models.Mag(config.model)
    networks.load_state_dict(state["networks"])
    outputs = RetoucherOutputs(networks.retoucher).eval()
    network = to_onnx(outputs, output="retouched")
    side = 2 * outputs.side_multiple
    image = np.random.default_rng(0).random((1, 3, side, side), dtype=np.float32) * 2 - 1
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    difference = float(np.abs(session.run(["retouched"], {"image": image})[0] - _in_torch(outputs)(image)).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise RunError(f"ONNX Runtime differs from torch by {difference:.2g} on the retoucher")
    out.write_bytes(network)


def averaged_annotator(config: Config, state: dict[str, Any]) -> Annotator:
    """The annotator of a checkpoint with its averaged weights, ready to be used."""
    network = models.annotator(config.model)
    network.load_state_dict(averaged_weights(state))
    return network.eval()


def to_onnx(network: Annotator | RetoucherOutputs, output: str = "annotation") -> bytes:
    """The network as ONNX with batch norm folded into the convolutions; batch, height and width are free."""
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
    return program.model_proto.SerializeToString()


def _disagreement(annotator: Annotator, written: Bundle, photos: list[Photo]) -> float:
    """The largest difference of any probability between torch and the bundle on a few photos."""
    backend, expected = OnnxRuntimeBackend(written).probabilities, _in_torch(annotator)
    largest = max(float(np.abs(backend(image) - expected(image)).max()) for image in _inputs(written, photos, 4))
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


def calibration_photos(data: Path) -> list[Photo]:
    """The photos that calibrate a run on `data`; none of them was trained on."""
    with suppress(ValueError):
        return labelled_photos(data, role="calibration")
    try:
        return split(labelled_photos(data))[0]
    except ValueError as error:
        raise RunError(f"{error}; name a folder of authentic photos by --data to calibrate the score on") from None


def photos_by_class(data: Path) -> dict[str, int] | None:
    """How many of the photos that a run on `data` trained on show each class; None for splices that lay on disk."""
    try:
        photos = split(labelled_photos(data))[1]
    except ValueError:
        return None
    counts: Counter[int] = Counter()
    for photo in photos:
        with suppress(PictureError, ValueError, OSError):  # training went on without it
            counts.update(np.unique(photo.read()[1]).tolist())
    return {name: counts[index] for index, name in enumerate(bundle.CLASS_NAMES, 1)}


def calibrate(scanner: Scanner, photos: list[Photo], seed: int) -> tuple[Calibration, dict[str, Any]]:
    """Fit the score on authentic photos, as they are, and on splices made of them, at even odds.

    `scanner` has the bundle with the calibration `UNCALIBRATED`.
    All photos are fitted on. How well such a fit holds on photos that it has not seen is returned beside: each half of
    them is held against the fit of the other one.
    """
    on_authentic, on_spliced = _evidence(scanner, photos, seed)
    halves = [(on_authentic[start::2], on_spliced[start::2]) for start in (0, 1)]
    rates = [_rates(_fitted(*fit), *check) for fit, check in (halves, halves[::-1])]
    checked = {name: round(float(np.mean([each[name] for each in rates])), 4) for name in rates[0]}
    return _fitted(on_authentic, on_spliced), {"calibration_check": {"photos": len(photos), **checked}}


def _fitted(on_authentic: NDArray[np.float64], on_spliced: NDArray[np.float64]) -> Calibration:
    """The logistic of the evidence on authentic and on spliced pictures, and its two thresholds."""
    truth = np.repeat([0.0, 1.0], [len(on_authentic), len(on_spliced)])
    slope, intercept = fit_logistic(np.concatenate([on_authentic, on_spliced]), truth)
    line = Calibration(slope, intercept, authentic=0.0, spliced=1.0)
    spliced_from = float(np.quantile([score(value, line) for value in on_authentic], 1 - FALSE_ALARMS))
    missed = float(np.quantile([score(value, line) for value in on_spliced], MISSED_SPLICES))
    return replace(line, authentic=min(spliced_from, missed), spliced=spliced_from)


def _rates(fitted: Calibration, on_authentic: NDArray[np.float64], on_spliced: NDArray[np.float64]) -> dict[str, float]:
    """How often authentic and spliced pictures of such evidence get either verdict."""
    rates = {}
    for kind, evidence in (("authentic", on_authentic), ("spliced", on_spliced)):
        scores = np.array([score(value, fitted) for value in evidence])
        rates[f"{kind}_called_spliced"] = float((scores >= fitted.spliced).mean())
        rates[f"{kind}_called_authentic"] = float((scores <= fitted.authentic).mean())
    return rates


def _evidence(scanner: Scanner, photos: list[Photo], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The evidence of each photo as it is, and of a splice made from it with another of the photos as donor."""

    def donors(rng: np.random.Generator) -> tuple[Image, Image]:
        return photos[rng.integers(len(photos))].read()

    def evidence_of(image: Image) -> float:
        value = scanner.scan_image(image).score
        assert value is not None
        return math.log(value / (1 - value))  # an uncalibrated score is the sigmoid of the evidence

    values = []
    for number, photo in enumerate(photos):
        image, labels = photo.read()
        rng = np.random.default_rng([seed, 3, number])
        # Three quarters of the photo, so that making the splice need not enlarge it.
        size = (image.shape[0] * 3 // 4, image.shape[1] * 3 // 4)
        values.append((evidence_of(image), evidence_of(spliced(image, labels, donors, size, rng).image)))
    on_authentic, on_spliced = np.array(values).T
    return on_authentic, on_spliced


def fit_logistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of y (0 or 1) on x, both of length N, by Newton's method.

    A weak pull of the slope towards 0 keeps it finite when x separates the classes.
    """
    design = np.stack([x, np.ones_like(x)], axis=1)
    weights = np.zeros(2)
    ridge = np.diag([1e-3, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (y - p) - ridge @ weights
        hessian = (design.T * (p * (1 - p))) @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


def _facts(config: Config, state: dict[str, Any]) -> dict[str, Any]:
    so_far = trained_so_far(state)
    return {
        **so_far,
        "hours": round(so_far["hours"], 2),
        "validation_ap": round(state["best"], 4),
        "machine": f"{os.cpu_count()} x {platform.machine()}, torch {torch.__version__}",
        "config": config.model_dump(mode="json"),
    }
