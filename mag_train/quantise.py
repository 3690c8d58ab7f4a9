"""The INT8 network, made from a bundle's float32 one: QDQ for OpenVINO, ONNX Runtime and TensorRT alike.

Signed and symmetric with zero point 0, weights by output channel, activations by tensor: TensorRT takes nothing else.
The picture and the convolutions with and behind the high-pass filters, as one, stay float: residuals are smaller than a
grey level. A convolution is quantised whose input is never negative, for it comes out of ReLUs; there OpenVINO can take
unsigned integers, which have twice as many steps (mag_rt/backends/openvino.py).

Activations are quantised where they are made, once for all that read them, and again before the convolution when
something was concatenated on the way, which changes nothing but shows TensorRT that the convolution reads INT8. What is
concatenated shares one scale.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from mag_rt.backends.onnxruntime import OnnxRuntimeBackend, load_onnxruntime
from mag_rt.bundle import Bundle
from mag_rt.parity import BOUNDS, Agreement, compare
from mag_rt.pictures import pad, shrink
from mag_train.calibration import can_be_read
from mag_train.checkpoint import RunError
from mag_train.data.photos import Photo
from mag_train.half import drop_unused

PHOTOS = 48
"""Photos that calibrate."""
SIDE = 512
"""Pixels of the middle of each photo: enough to see what its activations are like."""
STEPS = 127
BINS = 2048
_NEVER_NEGATIVE = {"Relu", "Sigmoid"}
_KEEPS_SIGN = {"Concat", "Resize", "Mul", "Add"}
"""Operators whose result has no negative number when none of their inputs has one."""
_MOVES_PIXELS = {"Concat", "Resize"}
"""Operators, nearest resizing meant, that compute no new numbers."""

Image = NDArray[np.float32]


def with_int8(bundle: Bundle, photos: list[Photo]) -> Bundle:
    """The bundle with its INT8 network, calibrated on photos, and how far that is from the float32 one on them.

    Raises ValueError when the network has nothing to quantise, RunError when the two differ by more than they may or no
    photo can be read.
    """
    images = list(_inputs(bundle, photos))
    if not images:
        raise RunError("none of the photos to calibrate the int8 network on can be read")
    calibrated = replace(bundle, networks={**bundle.networks, "int8": quantise(bundle.network, images)})
    given, reference = (OnnxRuntimeBackend(calibrated, precision).probabilities for precision in ("int8", "float32"))
    found = [compare(given(image), reference(image), bundle.mask_threshold) for image in images[::4]]
    mean = Agreement(
        max(each.probability for each in found),
        sum(each.mask for each in found) / len(found),
        sum(each.iou for each in found) / len(found),
    )
    if not mean.mask <= BOUNDS["int8"].mask:
        raise RunError(f"the int8 network disagrees with the float32 one: {mean} (allowed: {BOUNDS['int8']})")
    facts = {
        "calibrated_on": len(images),
        "photos": len(found),
        **{name: round(value, 6) for name, value in asdict(mean).items()},
    }
    return replace(calibrated, training={**bundle.training, "int8_difference": facts})


def _inputs(bundle: Bundle, photos: list[Photo]) -> Iterator[Image]:
    """The middle of up to `PHOTOS` photos, evenly chosen, each 1 x 3 x H x W as the bundle wants it.

    A line says which of them cannot be read.
    """
    for index in np.linspace(0, len(photos) - 1, min(PHOTOS, len(photos))).astype(int):
        photo = Photo(photos[index].image, None)  # whatever is the matter with its labels
        if not can_be_read(photo):
            continue
        picture = shrink(photo.read()[0], bundle.max_side)
        top, left = (max(0, side - SIDE) // 2 for side in picture.shape[:2])
        yield bundle.normalisation([pad(picture[top : top + SIDE, left : left + SIDE], bundle.multiple)])


def quantise(network: bytes, images: list[Image]) -> bytes:
    """The network with QDQ pairs, calibrated on images, each 1 x 3 x H x W: shapes and types outside as they were.

    Biases stay float32, as TensorRT wants them. Raises ValueError when nothing can be quantised.
    """
    model = onnx.load_from_string(network)
    graph = model.graph
    _join(graph)
    producers = {output: node for node in graph.node for output in node.output}
    weights = {each.name: each for each in graph.initializer}
    convolutions = [
        node
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights and _never_negative(node.input[0], producers)
    ]
    if not convolutions:
        raise ValueError("no convolution of the network reads what ReLUs give: nothing to quantise")
    read = [node.input[0] for node in convolutions]
    scales = _scales(model.SerializeToString(), read, producers, images)
    for name, scale in scales.items():
        graph.initializer.append(helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, [], [scale]))
    graph.initializer.append(helper.make_tensor("zero_point", TensorProto.INT8, [], [0]))
    for name in dict.fromkeys(node.input[1] for node in convolutions):
        _quantise_weight(graph, weights[name])
    _insert(graph, scales, {node.input[1] for node in convolutions})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _join(graph: GraphProto) -> None:
    """Make one convolution of two where the second alone reads what the first gives, and pads nothing to it.

    The function stays what it was. In the `edge` network picture and noise residuals lie between the two: in integers
    the residuals, a tenth as large, lose too much there, and in float the one takes less time than the two.
    """
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    readers = Counter([name for node in graph.node for name in node.input] + [each.name for each in graph.output])
    for second in list(graph.node):
        first = producers.get(second.input[0])
        if first is None or readers[first.output[0]] > 1 or not _can_join(first, second, weights):
            continue
        stride = _settings(first)["strides"]
        inner, outer = weights[first.input[1]], weights[second.input[1]]
        bias = outer.sum(axis=(2, 3)) @ _bias(first, weights) + _bias(second, weights)
        made = {f"{second.output[0]}_weight": _joined(inner, outer, stride), f"{second.output[0]}_bias": bias}
        graph.initializer.extend(numpy_helper.from_array(each.astype(np.float32), name) for name, each in made.items())
        strides = [one * other for one, other in zip(stride, _settings(second)["strides"], strict=True)]
        kept = {"name": second.name, "pads": _settings(first)["pads"], "strides": strides}
        second.CopyFrom(helper.make_node("Conv", [first.input[0], *made], second.output, **kept))
        graph.node.remove(first)
    drop_unused(graph)


def _can_join(first: NodeProto, second: NodeProto, weights: dict[str, NDArray[np.float32]]) -> bool:
    plain = {"dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    return _settings(second)["pads"] == [0, 0, 0, 0] and all(
        node.op_type == "Conv" and {*node.input[1:]} <= {*weights} and plain.items() <= _settings(node).items()
        for node in (first, second)
    )


def _settings(convolution: NodeProto) -> dict[str, Any]:
    """The attributes of a convolution of pictures, those that are left out too."""
    default = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    return default | {each.name: helper.get_attribute_value(each) for each in convolution.attribute}


def _bias(convolution: NodeProto, weights: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    name = next(iter(convolution.input[2:]), None)
    return weights[name] if name else np.zeros(len(weights[convolution.input[1]]), np.float32)


def _joined(inner: NDArray[np.float32], outer: NDArray[np.float32], stride: list[int]) -> NDArray[np.float64]:
    """The weight, out x in x h x w, of an `inner` convolution of that stride and the `outer` one behind it."""
    sides = [i + step * (o - 1) for i, o, step in zip(inner.shape[2:], outer.shape[2:], stride, strict=True)]
    weight = np.zeros((len(outer), inner.shape[1], *sides))
    for y, x in np.ndindex(outer.shape[2:]):
        top, left = y * stride[0], x * stride[1]
        window = np.s_[..., top : top + inner.shape[2], left : left + inner.shape[3]]
        weight[window] += np.einsum("om,mihw->oihw", outer[..., y, x].astype(np.float64), inner)
    return weight


def _never_negative(name: str, producers: dict[str, NodeProto]) -> bool:
    node = producers.get(name)
    if node is None:
        return False
    if node.op_type == "Resize":
        return _is_nearest(node) and _never_negative(node.input[0], producers)
    keeps = node.op_type in _KEEPS_SIGN and all(_never_negative(each, producers) for each in node.input)
    return keeps or node.op_type in _NEVER_NEGATIVE


def _is_nearest(resize: NodeProto) -> bool:
    return all(each.s == b"nearest" for each in resize.attribute if each.name == "mode")


def _makers(name: str, producers: dict[str, NodeProto]) -> list[str]:
    """The tensors that a tensor consists of, before they were resized and concatenated."""
    node = producers[name]
    if node.op_type not in _MOVES_PIXELS:
        return [name]
    sources = node.input[:1] if node.op_type == "Resize" else node.input
    return [maker for source in sources for maker in _makers(source, producers)]


def _scales(network: bytes, read: list[str], producers: dict[str, NodeProto], images: list[Image]) -> dict[str, float]:
    """The scale of each tensor that convolutions read and of those that it consists of."""
    clips = _clips(network, list(dict.fromkeys(read)), images)
    scales: dict[str, float] = {}
    # Concatenations first: they decide for what they are made of.
    for name in sorted(clips, key=lambda each: -len(_makers(each, producers))):
        makers = _makers(name, producers)
        scale = next((scales[each] for each in makers if each in scales), clips[name] / STEPS)
        scales.update(dict.fromkeys([*makers, name], scale))
    return scales


def _clips(network: bytes, names: list[str], images: list[Image]) -> dict[str, float]:
    """Where to clip each of these tensors, none of which is negative, by what they are on the images."""
    activations = _activations(network, names, images)
    largest = dict.fromkeys(names, 1e-6)
    for name, values in activations():
        largest[name] = max(largest[name], float(values.max()))
    histograms = {name: np.zeros(BINS) for name in names}
    for name, values in activations():
        histograms[name] += np.histogram(values, BINS, (0, largest[name]))[0]
    return {name: _best_clip(histograms[name], largest[name]) for name in names}


def _activations(
    network: bytes, names: list[str], images: list[Image]
) -> Callable[[], Iterator[tuple[str, NDArray[np.float32]]]]:
    """What these tensors are, by name, on each of the images in turn."""
    model = onnx.load_from_string(network)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of outputs without a shape
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def activations() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for image in images:
            yield from zip(names, session.run(names, {"image": image}), strict=True)

    return activations


def _best_clip(histogram: NDArray[np.float64], largest: float) -> float:
    """Where to clip for the least error of rounding and clipping together, to the fourth power.

    The square, as is usual, clips too much: other photos go farther than those that calibrate, and what is cut off
    there costs more than finer steps bring (docs/benchmarks.md).
    """
    middles = (np.arange(BINS) + 0.5) / BINS * largest

    def error(clip: float) -> float:
        step = clip / STEPS
        rounded = np.minimum(np.round(middles / step), STEPS) * step
        return float(histogram @ (middles - rounded) ** 4)

    return min((largest * share for share in np.linspace(0.05, 1, 96)), key=error)


def _quantise_weight(graph: GraphProto, weight: TensorProto) -> None:
    """Replace a weight, out x in x h x w, by `..._q`, INT8, and one scale for each output channel."""
    values = numpy_helper.to_array(weight)
    scale = (np.maximum(np.abs(values).max(axis=(1, 2, 3)), 1e-12) / STEPS).astype(np.float32)
    quantised = np.round(values / scale[:, None, None, None]).astype(np.int8)
    name = weight.name
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(quantised, f"{name}_q"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}_zero"))


def _insert(graph: GraphProto, scales: dict[str, float], weights: set[str]) -> None:
    """Put the QDQ pairs behind the tensors that have scales, and a DequantizeLinear before each reader of a weight."""
    nodes = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in scales:
                node.input[position] = f"{name}_dq"
            elif name in weights:
                inputs, restored = [f"{name}_q", f"{name}_scale", f"{name}_zero"], f"{name}_for_{node.output[0]}_dq"
                nodes.append(helper.make_node("DequantizeLinear", inputs, [restored], restored, axis=0))
                node.input[position] = restored
        nodes.append(node)
        for name in set(node.output) & set(scales):
            factors = [f"{name}_scale", "zero_point"]
            nodes.append(helper.make_node("QuantizeLinear", [name, *factors], [f"{name}_q"], f"{name}_q"))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *factors], [f"{name}_dq"], f"{name}_dq"))
    del graph.node[:]
    graph.node.extend(nodes)
