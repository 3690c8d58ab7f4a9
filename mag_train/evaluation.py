"""A dataset through an annotator into the numbers of the paper's table: models, protocols, sums.

Whatever is measured is a `Method`: a model under one of the two protocols, or a baseline that needs no training. Each
picture's map is held against its truth once, and rows of the table are means over pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from mag_rt import MagrtError, PictureError
from mag_rt import bundle as bundles
from mag_rt.backends.choice import choose
from mag_rt.backends.onnxruntime import load_onnxruntime
from mag_rt.bundle import MANIFEST, Calibration
from mag_rt.findings import GREY, evidence, levels, score, verdict
from mag_rt.pictures import Normalisation, Picture, as_grey, map_back, pad, shrink
from mag_rt.pipeline import ahead
from mag_train.data.tampered import Tampered, TruthError, resize_mask
from mag_train.degradations import UNCHANGED, Degradation, Mask, as_jpeg
from mag_train.metrics import (
    Ranking,
    auc,
    best_f1,
    bootstrap_interval,
    class_iou,
    f1_at,
    permuted_average_precision,
    ranked_average_precision,
)

Map = NDArray[np.float32]
Protocol = Literal["native", "paper"]

PAPER_SIDE = 512
METRICS = ("AP", "p-AP", "cIoU", "F1@0.5", "best F1")
"""What is measured on tampered pictures, in the order of the table."""
ELA_QUALITY = 90
READ_AHEAD = 4


@dataclass(frozen=True)
class Model:
    """An annotator that is ready to run, from wherever it came."""

    name: str
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    """Normalised pictures N x 3 x H x W to annotations N x (2+K) x H x W, channel 0 the mask's probability."""
    normalisation: Normalisation
    multiple: int
    max_side: int
    calibration: Calibration | None
    """None: the model does not say how likely a whole picture is to hold a splice."""


@dataclass(frozen=True)
class Answer:
    """What a method says of a picture: a map, high where spliced; for a calibrated model also score and verdict."""

    map: Map
    score: float | None = None
    flagged: bool | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table in the making."""

    name: str
    answer: Callable[[Picture], Answer]
    is_probability: bool = False
    """The map holds probabilities, so that cutting it at 0.5 means something."""
    judges: bool = False
    """It gives a whole picture a score."""


@dataclass(frozen=True)
class Result:
    """One picture under one degradation: either `skipped`, or what each method, by name, makes of it."""

    picture: Tampered
    degradation: str
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """By method, then by metric; empty for an authentic picture."""
    scores: dict[str, float] = field(default_factory=dict)
    flagged: dict[str, bool] = field(default_factory=dict)
    inverted: bool = False
    stretched: bool = False
    skipped: str = ""
    """The reason in a few words, for counting; empty when the picture was measured."""
    message: str = ""
    """The reason in full."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """The table's row for a method on the pictures of one kind; the dataset's authentic pictures stand against them."""

    degradation: str
    dataset: str
    kind: str
    method: str
    tampered: int
    authentic: int
    metrics: dict[str, Estimate]
    auc: float | None
    """Of the score, tampered against authentic pictures."""
    flagged: float | None
    """Share of the authentic pictures that are called spliced."""


def load_model(path: Path, precision: str = "float32") -> Model:
    """The annotator at `path`: a bundle (folder or zip), a run's folder (its best checkpoint), a .pt or a bare .onnx.

    precision: which of a bundle's networks, float32 or int8; it runs on the backend that a scan would take for it.
    Raises ValueError or RunError when it is none of them or damaged.
    """
    if (path / MANIFEST).is_file() or path.suffix == ".zip":
        return _from_bundle(path, precision)
    if path.is_dir() or path.suffix == ".pt":
        return _from_run(path)
    if path.suffix == ".onnx":
        return _from_onnx(path)
    raise ValueError(f"{path}: neither a bundle (folder or .zip), a run's folder, a checkpoint (.pt) nor an .onnx file")


def _from_bundle(path: Path, precision: str) -> Model:
    try:
        bundle = bundles.load(path)
        backend = choose(bundle, precision=precision).backend
    except MagrtError as error:
        raise ValueError(str(error)) from None
    name = str(path) if precision == "float32" else f"{path} ({precision}, {backend.name})"

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return GREY[backend(images)]

    return Model(name, run, bundle.normalisation, bundle.multiple, bundle.max_side, bundle.calibration)


def _from_run(path: Path) -> Model:
    """The averaged annotator in torch, on the GPU if there is one."""
    import torch

    from mag_train.checkpoint import best_checkpoint, load_checkpoint
    from mag_train.config import Config
    from mag_train.export import MAX_SIDE, NORMALISATION, averaged_annotator

    state = load_checkpoint(best_checkpoint(path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    annotator = averaged_annotator(Config.model_validate(state["config"]), state).to(device)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return annotator(torch.from_numpy(images).to(device)).cpu().numpy()

    return Model(str(path), run, NORMALISATION, annotator.side_multiple, MAX_SIDE, calibration=None)


def _from_onnx(path: Path) -> Model:
    """A network without a manifest: it gets what `export` writes, and what sides it takes is tried out."""
    from mag_train.export import MAX_SIDE, NORMALISATION

    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # trying out must not look like an error
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except OSError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return session.run(["annotation"], {"image": images})[0]

    # One that takes only 512 may be of that fixed size: so nothing larger is asked of it.
    for multiple, max_side in ((32, MAX_SIDE), (PAPER_SIDE, PAPER_SIDE)):
        if _takes(run, multiple):
            return Model(str(path), run, NORMALISATION, multiple, max_side, calibration=None)
    raise ValueError(f"{path}: does not turn `image`, N x 3 x 512 x 512, into `annotation`, N x channels x 512 x 512")


def _takes(run: Callable[[NDArray[np.float32]], NDArray[np.float32]], side: int) -> bool:
    try:
        return run(np.zeros((1, 3, side, side), np.float32)).shape[2:] == (side, side)
    except Exception:
        return False


def native(model: Model, picture: Picture) -> Answer:
    """As the product scans: at its own size unless that is too large, padded, never stretched."""
    placed = shrink(picture, model.max_side)
    height, width = placed.shape[:2]
    plane = model.run(model.normalisation([pad(placed, model.multiple)]))[0, 0, :height, :width]
    return _judged(model, plane, (picture.shape[0], picture.shape[1]))


def paper(model: Model, picture: Picture) -> Answer:
    """As in the paper: stretched to 512x512, where the map stays."""
    side = (PAPER_SIDE, PAPER_SIDE)
    shrinks = picture.shape[0] * picture.shape[1] > PAPER_SIDE**2
    stretched = cv2.resize(picture, side, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return _judged(model, model.run(model.normalisation([stretched]))[0, 0], side)


def _judged(model: Model, plane: Map, size: tuple[int, int]) -> Answer:
    if model.calibration is None:
        return Answer(map_back(plane, size))
    # As in the scanner: the score comes from the map as the network made it.
    value = score(evidence(levels(as_grey(plane))), plane.size, model.calibration)
    return Answer(map_back(plane, size), value, verdict(value, plane.size, model.calibration) == "spliced")


def error_level(picture: Picture) -> Answer:
    """Error level analysis (Krawetz, 2007): what saving the picture as JPEG at quality 90 changes.

    The largest change of a channel, averaged over 9x9 pixels: parts with another past change by another amount.
    """
    again = as_jpeg(picture, ELA_QUALITY)
    return Answer(cv2.blur(cv2.absdiff(picture, again).max(axis=2).astype(np.float32), (9, 9)))


def constant(picture: Picture) -> Answer:
    """A map that says nothing: what a metric gives for free on these pictures."""
    return Answer(np.zeros(picture.shape[:2], np.float32))


def methods(models: Iterable[Model], protocol: Protocol) -> list[Method]:
    """The models under a protocol, then the baselines."""
    rule = native if protocol == "native" else paper
    rows = [Method(each.name, partial(rule, each), True, each.calibration is not None) for each in models]
    return [*rows, Method("error level analysis", error_level), Method("constant map", constant)]


@dataclass(frozen=True)
class _Loaded:
    """A result without its measurements, and, unless skipped, what to measure."""

    result: Result
    image: Picture | None = None
    mask: Mask | None = None


def evaluate(
    pictures: Iterable[Tampered], ways: Sequence[Method], protocol: Protocol, degraded: Degradation = UNCHANGED
) -> Iterator[Result]:
    """The result of every picture, in order; the next ones are read while one is measured.

    Under protocol `paper` maps and masks meet at 512x512, under `native` at the picture's own size. A picture or mask
    that cannot be used gives a result that says so.

    Raises ValueError, naming method and picture, when a map is not made of numbers.
    """
    for loaded in ahead(partial(_load, protocol=protocol, degraded=degraded), pictures, READ_AHEAD):
        yield _measure(loaded, ways)


def _load(picture: Tampered, protocol: Protocol, degraded: Degradation) -> _Loaded:
    def skip(kind: str, error: object) -> _Loaded:
        return _Loaded(Result(picture, degraded.name, skipped=kind, message=str(error)))

    try:
        image, truth = picture.read()
    except PictureError as error:
        return skip(f"picture {error.kind}", f"{picture.image}: {error}")
    except TruthError as error:
        return skip(error.kind, error)
    except (OSError, MemoryError) as error:
        return skip("picture unreadable", error)
    image, mask = degraded.apply(image, truth.mask)
    if protocol == "paper":
        mask = resize_mask(mask, (PAPER_SIDE, PAPER_SIDE))
    if picture.mask is not None and not mask.any():
        return skip("splice lost", f"{picture.mask}: no pixel is left of the splice")
    result = Result(picture, degraded.name, inverted=truth.inverted, stretched=truth.stretched)
    return _Loaded(result, image, mask)


def _measure(loaded: _Loaded, ways: Sequence[Method]) -> Result:
    result, tampered = loaded.result, loaded.result.picture.mask is not None
    if loaded.image is None or loaded.mask is None:
        return result
    for way in ways:
        if not tampered and not way.judges:
            continue
        answer = way.answer(loaded.image)
        if answer.score is not None and answer.flagged is not None:
            result.scores[way.name], result.flagged[way.name] = answer.score, answer.flagged
        if tampered:
            try:
                # Only a baseline's map has another size here: it needs the picture's own pixels under either protocol.
                ranking = Ranking.of(loaded.mask, map_back(answer.map, loaded.mask.shape))
            except ValueError as error:
                raise ValueError(f"{way.name} on {result.picture.image}: {error}") from None
            result.metrics[way.name] = _metrics(ranking, way.is_probability)
    return result


def _metrics(ranking: Ranking, is_probability: bool) -> dict[str, float]:
    found = {
        "AP": ranked_average_precision(ranking),
        "p-AP": permuted_average_precision(ranking),
        "cIoU": class_iou(ranking),
        "best F1": best_f1(ranking),
    }
    return found | {"F1@0.5": f1_at(ranking, 0.5)} if is_probability else found


def summarise(results: Iterable[Result], ways: Sequence[Method]) -> list[Row]:
    """The rows of the table: by degradation, dataset, kind and method, in the order in which they came."""
    groups: dict[tuple[str, str], dict[str, list[Result]]] = {}
    for result in results:
        if not result.skipped:
            kinds = groups.setdefault((result.degradation, result.picture.dataset), {})
            kinds.setdefault("" if result.picture.mask is None else result.picture.kind, []).append(result)
    rows = []
    for (name, dataset), kinds in groups.items():
        authentic = kinds.pop("", [])
        for kind, tampered in kinds.items() or [("authentic", [])]:
            found = (_row(name, dataset, kind, way, tampered, authentic) for way in ways)
            rows += [row for row in found if row.metrics or row.flagged is not None]
    return rows


def _row(degraded: str, dataset: str, kind: str, way: Method, tampered: list[Result], authentic: list[Result]) -> Row:
    metrics = {}
    for metric in METRICS:
        values = np.array([each.metrics[way.name][metric] for each in tampered if metric in each.metrics[way.name]])
        if len(values):
            metrics[metric] = Estimate(float(values.mean()), *bootstrap_interval(values))
    area, flagged = None, None
    if authentic and way.judges:
        flagged = float(np.mean([each.flagged[way.name] for each in authentic]))
        if tampered:
            scores = np.array([each.scores[way.name] for each in (*tampered, *authentic)])
            area = auc(Ranking.of(np.arange(len(scores)) < len(tampered), scores))
    return Row(degraded, dataset, kind, way.name, len(tampered), len(authentic), metrics, area, flagged)
