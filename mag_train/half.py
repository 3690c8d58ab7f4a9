"""The float16 network for strongly typed engines, made from a bundle's float32 one."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from mag_rt.backends.onnxruntime import load_onnxruntime
from mag_rt.bundle import Bundle
from mag_rt.parity import Agreement, Annotate, compare
from mag_train.checkpoint import RunError

ON_PHOTOS = Agreement(probability=0.05, mask=0.001, iou=0.0)
"""How far float16 may be from float32 on a photo. What is above the threshold may be a few pixels: IoU says little."""
_FLOAT32_INPUTS = {"Resize": (2,)}
"""Inputs that an operator wants in float32 whatever its others are: the scales."""
_SMALLEST_SUM = 1e-4
"""Of a filter, relative to its size; what is below sums to zero."""


def with_float16(bundle: Bundle, images: Iterable[NDArray[np.float32]], reference: Annotate) -> Bundle:
    """The bundle with its float16 network, and how far it is from `reference` on images, each 1 x 3 x H x W.

    What was found, at worst on any image, is `float16_difference` among the bundle's facts. Raises RunError when it is
    more than `ON_PHOTOS`.
    """
    network = half(bundle.network)
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(rehearsed(network), options, providers=["CPUExecutionProvider"])
    found = [
        compare(session.run(["annotation"], {"image": image})[0], reference(image), bundle.mask_threshold)
        for image in images
    ]
    worst = Agreement(
        float(np.max([each.probability for each in found])),  # NaN if any is, which Python's own max passes over
        float(np.max([each.mask for each in found])),
        min(each.iou for each in found),
    )
    if not worst.within(ON_PHOTOS):
        raise RunError(f"the float16 network disagrees with the float32 one: {worst} (allowed: {ON_PHOTOS})")
    facts = {"photos": len(found), **{name: round(value, 6) for name, value in asdict(worst).items()}}
    return replace(
        bundle,
        networks={**bundle.networks, "float16": network},
        training={**bundle.training, "float16_difference": facts},
    )


def half(network: bytes) -> bytes:
    """The network in float16, weights included: image float32 in, annotation float16 out, shapes as they were.

    What stays float32 is a convolution that has filters which sum to zero, and what stands before it: a high-pass tells
    differences far below a grey level, and the float16 step near 1 is a sixteenth of one. Casts stand where the two
    meet and nowhere else: for the `edge` network that makes one, of the picture beside its noise residuals.

    Raises ValueError when a weight does not fit into float16 or the network has types that this does not know.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network), strict_mode=True)
    graph = model.graph
    exact = _exact_nodes(graph)
    _convert(graph, exact)
    del graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the network cannot be made float16: {str(error).splitlines()[0]}") from None
    return model.SerializeToString()


def _exact_nodes(graph: GraphProto) -> set[str]:
    """The nodes that stay float32, by their first output: convolutions with high-passes and all that leads to them."""
    weights = {each.name: each for each in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    waiting = [
        node
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in weights and _holds_a_high_pass(weights[node.input[1]])
    ]
    exact = set()
    while waiting:
        node = waiting.pop()
        exact.add(node.output[0])
        waiting += [producers[name] for name in node.input if name in producers]
    return exact


def _holds_a_high_pass(weight: TensorProto) -> bool:
    filters: NDArray[np.float64] = numpy_helper.to_array(weight).astype(np.float64)
    taps = tuple(range(2, filters.ndim))
    sizes = abs(filters).sum(taps)
    sums_to_zero = (abs(filters.sum(taps)) <= _SMALLEST_SUM * sizes) & (sizes > 0)
    return bool(sums_to_zero.all(axis=1).any())


def _convert(graph: GraphProto, exact: set[str]) -> None:
    """Turn every node but the exact ones, and what they read, to float16."""
    weights = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    halves: dict[str, str] = {}
    floats = {each.name for each in graph.input if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {name for node in graph.node if node.output[0] in exact for name in node.output}
    nodes = []
    for node in graph.node:
        if node.output[0] not in exact:
            for position, name in _float_inputs(node, floats | set(weights)):
                if name not in halves:
                    halves[name] = f"{name}_half"
                    if name in weights:
                        graph.initializer.append(_rounded(weights[name], halves[name]))
                    else:
                        nodes.append(
                            helper.make_node(
                                "Cast", [name], [halves[name]], name=f"cast_{name}", to=TensorProto.FLOAT16
                            )
                        )
                node.input[position] = halves[name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    for output in graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT16


def _float_inputs(node: NodeProto, floats: set[str]) -> Iterator[tuple[int, str]]:
    for position, name in enumerate(node.input):
        if name in floats and position not in _FLOAT32_INPUTS.get(node.op_type, ()):
            yield position, name


def _rounded(weight: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(weight)
    if not (abs(values) <= np.finfo(np.float16).max).all():
        raise ValueError(f"{weight.name} holds {abs(values).max():g}, which float16 does not reach")
    return numpy_helper.from_array(values.astype(np.float16), name)


def drop_unused(graph: GraphProto) -> None:
    """Take out the constants that no node reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def rehearsed(network: bytes) -> bytes:
    """A float16 network for the CPU: float32 arithmetic, the result of every float16 node rounded to float16.

    That is what a GPU computes, up to the order of its sums. ONNX Runtime's own way with float16 on a CPU is no check:
    it rounds the weights and leaves the activations in float32. Run it without graph optimisations. The output is
    float32.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network), strict_mode=True)
    graph = model.graph
    values = (*graph.value_info, *graph.output)
    halves = {each.name for each in values if each.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = []
    for node in graph.node:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                attribute.i = TensorProto.FLOAT if attribute.i == TensorProto.FLOAT16 else attribute.i
        nodes.append(node)
        for position, name in enumerate(node.output):
            if name in halves:
                node.output[position] = f"{name}_exact"
                nodes.append(helper.make_node("Cast", [f"{name}_exact"], [f"{name}_rounded"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}_rounded"], [name], to=TensorProto.FLOAT))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float32), weight.name))
    for output in graph.output:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    return model.SerializeToString()
