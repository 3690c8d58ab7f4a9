"""The float16 network reads as the float32 one does, since what needs float32 has stayed float32, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mag_rt import bundle as bundles
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.parity import check_pictures, compare
from mag_train.checkpoint import RunError
from mag_train.half import half, rehearsed, with_float16


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return bundles.load(bundles.bundled())


@pytest.fixture(scope="module")
def images(shipped: Bundle) -> NDArray[np.float32]:
    return shipped.normalisation(check_pictures((128, 160)))


@pytest.fixture(scope="module")
def expected(shipped: Bundle, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return OnnxRuntimeBackend(shipped).probabilities(images)


def rehearse(network: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(rehearsed(network), options, providers=["CPUExecutionProvider"])
    return session.run(["annotation"], {"image": images})[0]


def test_the_bundle_that_ships_has_what_half_gives(shipped: Bundle) -> None:
    made, kept = (onnx.load_from_string(each).graph for each in (half(shipped.network), shipped.networks["float16"]))
    assert list(made.node) == list(kept.node) and list(made.initializer) == list(kept.initializer)


def test_it_takes_float32_gives_float16_and_leaves_the_shapes_free(shipped: Bundle) -> None:
    session = onnxruntime.InferenceSession(shipped.networks["float16"], providers=["CPUExecutionProvider"])
    (image,), (annotation,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, annotation.name, annotation.type) == (
        "image",
        "tensor(float)",
        "annotation",
        "tensor(float16)",
    )
    for shape in ((1, 3, 32, 64), (3, 3, 96, 32)):
        maps = session.run(None, {"image": np.zeros(shape, np.float32)})[0]
        assert maps.shape == (shape[0], 12, *shape[2:])


def test_the_high_pass_alone_is_float32_and_one_cast_is_all(shipped: Bundle) -> None:
    graph = onnx.load_from_string(shipped.networks["float16"]).graph
    assert sum(node.op_type == "Cast" for node in graph.node) == 1
    weights = {each.name: each for each in graph.initializer}
    exact = [
        node
        for node in graph.node
        if node.op_type == "Conv" and weights[node.input[1]].data_type != TensorProto.FLOAT16
    ]
    assert [numpy_helper.to_array(weights[node.input[1]]).shape for node in exact] == [(36, 3, 6, 6)]


def test_it_reads_as_float32_does(shipped: Bundle, images: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    agreement = compare(rehearse(shipped.networks["float16"], images), expected, 0.5)
    assert agreement.probability < 0.01 and agreement.mask < 1e-4 and agreement.iou > 0.999


def small(weight: NDArray[np.float32], nodes: list[onnx.NodeProto] | None = None) -> bytes:
    """A network of one 3x3 convolution of the given weight."""
    nodes = nodes or [helper.make_node("Conv", ["image", "w"], ["annotation"], pads=[1, 1, 1, 1])]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w_"])
    annotation = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, ["n", 12, "h", "w_"])
    graph = helper.make_graph(nodes, "small", [image], [annotation], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_the_rehearsal_rounds_what_onnx_runtime_would_not() -> None:
    """x to the eighth by squares: exact at first, so that there is no error but what is rounded on the way."""
    weight = np.zeros((12, 3, 3, 3), np.float32)
    weight[:, :, 1, 1] = 0.25
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["x"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Mul", ["square", "square"], ["fourth"]),
        helper.make_node("Mul", ["fourth", "fourth"], ["annotation"]),
    ]
    image = np.random.default_rng(0).integers(128, 256, (1, 3, 32, 32)).astype(np.float32) / 256
    network = half(small(weight, nodes))
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    exact = (image.sum(axis=1, keepdims=True) / 4) ** 8
    lenient = np.abs(session.run(None, {"image": image})[0].astype(np.float32) - exact).mean()
    assert np.abs(rehearse(network, image) - exact).mean() > 2 * lenient


def test_a_weight_beyond_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="w holds 70000, which float16 does not reach"):
        half(small(np.full((12, 3, 3, 3), 7e4, np.float32)))


def test_overflow_on_the_way_shows_in_the_rehearsal() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["large"], pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["large", "large"], ["annotation"]),
    ]
    maps = rehearse(half(small(np.full((12, 3, 3, 3), 6e4, np.float32), nodes)), np.ones((1, 3, 32, 32), np.float32))
    assert np.isnan(maps).any()


def test_a_zero_sum_weight_stays_as_it_is() -> None:
    weight = np.random.default_rng(0).normal(size=(12, 3, 3, 3)).astype(np.float32)
    for each, kind in ((weight, TensorProto.FLOAT16), (weight - weight.mean((2, 3), keepdims=True), TensorProto.FLOAT)):
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["maps"], pads=[1, 1, 1, 1]),
            helper.make_node("Sigmoid", ["maps"], ["annotation"]),
        ]
        (kept,) = onnx.load_from_string(half(small(each, nodes))).graph.initializer
        assert kept.data_type == kind


def test_what_is_read_twice_is_cast_once() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["one"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["image", "w"], ["two"], pads=[1, 1, 1, 1], dilations=[1, 1]),
        helper.make_node("Mul", ["one", "two"], ["annotation"]),
    ]
    graph = onnx.load_from_string(half(small(np.ones((12, 3, 3, 3), np.float32), nodes))).graph
    assert [node.op_type for node in graph.node] == ["Cast", "Conv", "Conv", "Mul"] and len(graph.initializer) == 1


def test_what_was_found_goes_into_the_bundle(shipped: Bundle, images: NDArray[np.float32]) -> None:
    plain = replace(shipped, networks={"float32": shipped.network}, training={"hours": 1})
    finished = with_float16(plain, [image[None] for image in images], OnnxRuntimeBackend(shipped).probabilities)
    facts = finished.training["float16_difference"]
    assert finished.training["hours"] == 1 and finished.networks["float32"] == shipped.network
    assert facts["photos"] == len(images) and 0 < facts["probability"] < 0.01 and facts["mask"] < 1e-3
    network, reference = finished.networks["float16"], OnnxRuntimeBackend(shipped).probabilities
    found = [compare(rehearse(network, image[None]), reference(image[None]), 0.5) for image in images]
    assert facts["probability"] == pytest.approx(max(each.probability for each in found), abs=1e-6)
    assert facts["iou"] == pytest.approx(min(each.iou for each in found), abs=1e-6)


@pytest.mark.parametrize("wrong", [lambda maps: maps * 0.9, lambda maps: maps * np.nan])
def test_a_float16_network_that_disagrees_is_not_written(
    shipped: Bundle, images: NDArray[np.float32], wrong: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    """On any of the photos."""
    reference, second = OnnxRuntimeBackend(shipped).probabilities, images[1:2]
    with pytest.raises(RunError, match="the float16 network disagrees with the float32 one"):
        with_float16(
            shipped,
            [images[:1], second],
            lambda image: wrong(reference(image)) if np.array_equal(image, second) else reference(image),
        )
