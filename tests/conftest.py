"""What the tests share: pictures, and a bundle whose network is simple enough to know its answer."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mag_rt import bundle
from mag_rt.bundle import Bundle, Calibration
from mag_rt.pictures import Normalisation

CALIBRATION = Calibration(slope=1.0, intercept=0.0, authentic=0.3, spliced=0.7)


def red_is_spliced() -> bytes:
    """A network that calls a pixel spliced as far as it is red: mask = (R + 1) / 2, every other channel 0."""
    nodes = [
        helper.make_node("Gather", ["image", "first"], ["red"], axis=1),
        helper.make_node("Add", ["red", "one"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "half"], ["mask"]),
        helper.make_node("Pad", ["mask", "pads"], ["annotation"]),
    ]
    constants = [
        helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
        helper.make_tensor("pads", TensorProto.INT64, [8], [0, 0, 0, 0, 0, 11, 0, 0]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    annotation = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, ["n", 12, "h", "w"])
    graph = helper.make_graph(nodes, "red", [image], [annotation], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def small_unet(filters: int = 8) -> bytes:
    """A network with all that is hard to quantise: high-pass filters beside the picture, two scales, a gate, skips."""
    rng = np.random.default_rng(1)
    weights: dict[str, NDArray[np.float32]] = {}

    def conv(source: str, name: str, inside: int, outside: int, side: int = 3, stride: int = 1) -> list[NodeProto]:
        weight = rng.normal(0, (inside * side * side) ** -0.5, (outside, inside, side, side))
        weights[f"{name}.weight"] = weight.astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, outside).astype(np.float32)
        inputs, pads = [source, f"{name}.weight", f"{name}.bias"], [side // 2] * 4
        return [helper.make_node("Conv", inputs, [name], name, pads=pads, strides=[stride, stride])]

    def relu(source: str) -> NodeProto:
        return helper.make_node("Relu", [source], [f"{source}_relu"])

    nodes = [
        *conv("image", "noise", 3, 2),
        helper.make_node("Concat", ["image", "noise"], ["views"], axis=1),
        *conv("views", "stem", 5, filters),
        relu("stem"),
        *conv("stem_relu", "down", filters, 2 * filters, stride=2),
        relu("down"),
        helper.make_node("GlobalAveragePool", ["down_relu"], ["mean"]),
        *conv("mean", "gate", 2 * filters, 2 * filters, side=1),
        helper.make_node("Sigmoid", ["gate"], ["opened"]),
        helper.make_node("Mul", ["down_relu", "opened"], ["gated"]),
        helper.make_node("Resize", ["gated", "", "twice"], ["larger"], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        helper.make_node("Concat", ["larger", "stem_relu"], ["joined"], axis=1),
        *conv("joined", "up", 3 * filters, filters),
        relu("up"),
        helper.make_node("Add", ["up_relu", "stem_relu"], ["summed"]),
        *conv("summed", "head", filters, 12, side=1),
        helper.make_node("Sigmoid", ["head"], ["annotation"]),
    ]  # fmt: skip
    weights["noise.weight"] -= weights["noise.weight"].mean(axis=(2, 3), keepdims=True)
    weights["twice"] = np.array([1, 1, 2, 2], np.float32)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    annotation = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, ["n", 12, "h", "w"])
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "small", [image], [annotation], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def red_bundle() -> Bundle:
    return Bundle(
        annotator="edge",
        multiple=32,
        max_side=256,
        normalisation=Normalisation(scale=1 / 127.5, offset=-1.0),
        classes=bundle.CLASS_NAMES,
        mask_threshold=0.5,
        calibration=CALIBRATION,
        training={},
        weights_licence="none needed",
        networks={"float32": red_is_spliced()},
    )


@pytest.fixture
def without_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a GPU, though other tests may have brought the CUDA host into this process."""
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def red_model(red_bundle: Bundle, tmp_path: Path) -> Path:
    """The folder of `red_bundle`, a copy for each test."""
    folder = tmp_path / "red"
    bundle.save(replace(red_bundle), folder)
    return folder


def grey_with_red_box(height: int, width: int, box: tuple[int, int, int, int] = (0, 0, 0, 0)) -> NDArray[np.uint8]:
    """A picture without any red but for a box (left, top, width, height) of pure red; BGR."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., :2] = 90
    left, top, w, h = box
    picture[top : top + h, left : left + w] = (0, 0, 255)
    return picture


def save(path: Path, picture: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # imencode, since imwrite does not take every name.
    path.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())
    return path
