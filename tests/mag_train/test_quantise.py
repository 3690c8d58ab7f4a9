"""INT8 as TensorRT takes it, where it does no harm, and near enough to float32 to point at the same pixels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mag_rt import bundle as bundles
from mag_rt.bundle import Bundle
from mag_rt.parity import check_pictures
from mag_train import quantise as quantising
from mag_train.cli import app
from mag_train.data.opening import authentic_photos
from mag_train.data.photos import Photo
from mag_train.quantise import quantise, with_int8
from tests.conftest import red_is_spliced, save, small_unet


@pytest.fixture(scope="module")
def images(red_bundle: Bundle) -> list[NDArray[np.float32]]:
    pictures = check_pictures((96, 64))
    return [red_bundle.normalisation([picture]) for picture in pictures[:4]]


@pytest.fixture(scope="module")
def graph(images: list[NDArray[np.float32]]) -> onnx.GraphProto:
    return onnx.load_from_string(quantise(small_unet(), images)).graph


def by_kind(graph: onnx.GraphProto, kind: str) -> Iterator[NodeProto]:
    return (node for node in graph.node if node.op_type == kind)


def convolutions(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    return {node.name: node for node in by_kind(graph, "Conv")}


def test_integers_are_signed_and_zero_is_zero(graph: onnx.GraphProto) -> None:
    constants = {each.name: each for each in graph.initializer}
    pairs = [*by_kind(graph, "QuantizeLinear"), *by_kind(graph, "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero, scale = constants[node.input[2]], numpy_helper.to_array(constants[node.input[1]])
        assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
        assert (scale > 0).all()
    assert {each.data_type for each in graph.initializer if each.name.endswith(".bias")} == {TensorProto.FLOAT}


def test_picture_high_pass_and_gate_stay_float_and_the_rest_does_not(graph: onnx.GraphProto) -> None:
    read = {name: (node.input[0], node.input[1]) for name, node in convolutions(graph).items()}
    assert read["noise"] == ("image", "noise.weight")
    assert read["stem"] == ("views", "stem.weight")
    assert read["gate"] == ("mean", "gate.weight")
    for name in ("down", "up", "head"):
        assert all(each.endswith("_dq") for each in read[name]), read[name]


def test_each_output_channel_of_a_weight_has_its_scale(graph: onnx.GraphProto) -> None:
    original = {
        each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(small_unet()).graph.initializer
    }
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    for name in ("down", "up", "head"):
        scale = constants[f"{name}.weight_scale"]
        assert scale.shape == original[f"{name}.weight"].shape[:1]
        restored = constants[f"{name}.weight_q"] * scale[:, None, None, None]
        worst = np.abs(restored - original[f"{name}.weight"]).max(axis=(1, 2, 3))
        assert (worst <= scale / 2 * 1.001).all() and np.abs(constants[f"{name}.weight_q"]).max() <= 127


def test_a_weight_that_two_convolutions_read_is_there_once(images: list[NDArray[np.float32]]) -> None:
    """And each has a DequantizeLinear of its own for it, which is where TensorRT looks for one."""
    model = onnx.load_from_string(small_unet())
    for node in list(model.graph.node):
        again = helper.make_node(node.op_type, [], [])
        again.CopyFrom(node)
        inner = {name for each in model.graph.node for name in each.output}
        again.name = f"{node.name}_again" if node.name else ""
        again.input[:] = [f"{name}_again" if name in inner else name for name in node.input]
        again.output[:] = [f"{name}_again" for name in node.output]
        model.graph.node.append(again)
    model.graph.node.append(helper.make_node("Add", ["annotation", "annotation_again"], ["both"]))
    model.graph.output[0].name = "both"
    quantised = quantise(model.SerializeToString(), images)
    graph = onnx.load_from_string(quantised).graph
    assert [each.name for each in graph.initializer if each.name.startswith("up.weight_q")] == ["up.weight_q"]
    read = [node.input[1] for node in graph.node if node.op_type == "Conv" and node.name.startswith("up")]
    assert len(set(read)) == 2 and all(name.endswith("_dq") for name in read)
    once = onnxruntime.InferenceSession(quantise(small_unet(), images)).run(None, {"image": images[0]})[0]
    twice = onnxruntime.InferenceSession(quantised).run(None, {"image": images[0]})[0]
    np.testing.assert_allclose(twice, 2 * once, atol=1e-5)


def test_what_is_concatenated_shares_the_scale_of_the_whole(images: list[NDArray[np.float32]]) -> None:
    """Also where what has a reader of its own is the smaller part."""
    model = onnx.load_from_string(small_unet())
    weight = next(each for each in model.graph.initializer if each.name == "down.weight")
    weight.CopyFrom(numpy_helper.from_array(10 * numpy_helper.to_array(weight), weight.name))
    network = model.SerializeToString()
    constants = onnx.load_from_string(quantise(network, images)).graph.initializer
    scales = {each.name.removesuffix("_scale"): each for each in constants}
    (scale,) = {numpy_helper.to_array(scales[name]).item() for name in ("gated", "stem_relu", "joined")}
    clips = quantising._clips(network, ["joined", "stem_relu"], images)
    assert clips["joined"] > 2 * clips["stem_relu"] and scale == pytest.approx(clips["joined"] / quantising.STEPS)


def test_behind_a_resize_that_may_overshoot_a_convolution_stays_float(images: list[NDArray[np.float32]]) -> None:
    model = onnx.load_from_string(small_unet())
    (resize,) = by_kind(model.graph, "Resize")
    next(each for each in resize.attribute if each.name == "mode").s = b"cubic"
    found = convolutions(onnx.load_from_string(quantise(model.SerializeToString(), images)).graph)
    assert found["up"].input[0] == "joined" and found["down"].input[0] == "stem_relu_dq"


def test_it_says_what_the_float_network_says_on_any_shape(images: list[NDArray[np.float32]]) -> None:
    before, after = (
        onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
        for network in (small_unet(), quantise(small_unet(), images))
    )
    for image in (*images, np.concatenate([images[0], images[1]])[:, :, :64, :32]):
        expected, given = (each.run(["annotation"], {"image": image})[0] for each in (before, after))
        assert given.shape == expected.shape
        assert np.abs(given - expected).mean() < 0.005 and np.abs(given - expected).max() < 0.05


def convolution_behind_convolution(pads: int = 0, read_twice: bool = False) -> bytes:
    """The first with a stride, as of high-pass filters; the second pads so much; `read_twice`: a third reads it too."""
    rng = np.random.default_rng(1)
    shapes = {"first": (6, 3, 4, 4), "first_bias": (6,), "second": (12, 6, 3, 3), "third": (12, 12, 1, 1)}
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node(
            "Conv", ["image", "first", "first_bias"], ["between"], "noise", pads=[3, 2] * 2, strides=[2, 2]
        ),
        helper.make_node("Conv", ["between", "second"], ["stem"], "stem", pads=[pads] * 4),
        helper.make_node("Conv", ["between", "second"], ["twin"], "twin", pads=[pads] * 4),
        helper.make_node("Add", ["stem", "twin"], ["both"]),
        helper.make_node("Relu", ["both" if read_twice else "stem"], ["stem_relu"]),
        helper.make_node("Conv", ["stem_relu", "third"], ["head"], "head"),
        helper.make_node("Sigmoid", ["head"], ["annotation"]),
    ]
    if not read_twice:
        del nodes[2:4]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    annotation = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, ["n", 12, "h2", "w2"])
    constants = [numpy_helper.from_array(each, name) for name, each in weights.items()]
    graph = helper.make_graph(nodes, "residuals", [image], [annotation], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("network", "float_ones"),
    [
        (convolution_behind_convolution(), {"stem": "image"}),
        (convolution_behind_convolution(pads=1), {"noise": "image", "stem": "between"}),
        (convolution_behind_convolution(read_twice=True), {"noise": "image", "stem": "between", "twin": "between"}),
    ],
    ids=["joined", "padded between", "read twice"],
)
def test_convolution_behind_convolution_stays_float_as_one_where_that_is_the_same(
    network: bytes, float_ones: dict[str, str], images: list[NDArray[np.float32]]
) -> None:
    quantised = quantise(network, images)
    graph = onnx.load_from_string(quantised).graph
    assert {name: node.input[0] for name, node in convolutions(graph).items()} == {**float_ones, "head": "stem_relu_dq"}
    assert {each.name for each in graph.initializer} <= {name for node in graph.node for name in node.input}
    before, after = (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"])
        for each in (with_stem(network), with_stem(quantised))
    )
    for image in images:
        expected, given = (each.run(["stem"], {"image": image})[0] for each in (before, after))
        np.testing.assert_allclose(given, expected, atol=1e-4)


def with_stem(network: bytes) -> bytes:
    """The network with what `stem` gives as an output too."""
    model = onnx.load_from_string(network)
    model.graph.output.append(helper.make_empty_tensor_value_info("stem"))
    return model.SerializeToString()


def test_a_network_without_relus_has_nothing_to_quantise(red_bundle: Bundle, images: list[NDArray[np.float32]]) -> None:
    with pytest.raises(ValueError, match="nothing to quantise"):
        quantise(red_bundle.network, images)


def test_a_photo_that_cannot_be_read_costs_a_line_and_not_the_network(
    red_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, picture in enumerate(check_pictures((96, 64))):
        save(tmp_path / f"{index}.png", picture)
    (tmp_path / "0.png").write_bytes(b"corrupt")
    made = with_int8(replace(red_bundle, networks={"float32": small_unet()}), authentic_photos(tmp_path))
    assert made.training["int8_difference"]["calibrated_on"] == 5
    assert "skipped" in (said := capsys.readouterr().err) and "0.png" in said
    with pytest.raises(RuntimeError, match="none of the photos to calibrate the int8 network on can be read"):
        with_int8(replace(red_bundle, networks={"float32": small_unet()}), authentic_photos(tmp_path)[:1])


def test_the_middle_of_photos_from_all_over_the_folder_calibrates_whatever_their_labels(
    red_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantising, "PHOTOS", 3)
    monkeypatch.setattr(quantising, "SIDE", 64)
    for number in range(9):
        picture = np.full((96, 128, 3), 25 * number, np.uint8)
        picture[:16] = picture[-16:] = picture[:, :32] = picture[:, -32:] = 255
        save(tmp_path / f"{number}.png", picture)
    photos = [Photo(path, tmp_path / "no such labels.png") for path in sorted(tmp_path.iterdir())]
    levels = [(image + 1) * 127.5 for image in quantising._inputs(red_bundle, photos)]
    assert [each.shape for each in levels] == 3 * [(1, 3, 64, 64)]
    assert [np.unique(each.round()).tolist() for each in levels] == [[0], [100], [200]]


def test_a_bundle_gets_its_int8_network_by_export(red_bundle: Bundle, tmp_path: Path) -> None:
    check = dict.fromkeys(("photos", "authentic_called_spliced", "spliced_called_spliced"), 0.0)
    training = {"pictures": 0, "calibration_check": check}
    bundles.save(replace(red_bundle, networks={"float32": small_unet()}, training=training), tmp_path / "old")
    for index, picture in enumerate(check_pictures((96, 64))):
        save(tmp_path / "photos" / f"{index}.png", picture)
    arguments = ["export", str(tmp_path / "old"), str(tmp_path / "new"), "--int8", str(tmp_path / "photos")]
    app(arguments, standalone_mode=False)
    old, new = bundles.load(tmp_path / "old"), bundles.load(tmp_path / "new")
    assert new.network == old.network and new.calibration == old.calibration
    assert set(new.networks) == {"float32", "int8"}
    assert new.training["int8_difference"]["calibrated_on"] == 6
    assert new.training["int8_difference"]["mask"] < 0.005


def test_an_int8_network_that_says_something_else_is_not_written(
    red_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mag_train.quantise.quantise", lambda *_: red_is_spliced())
    save(tmp_path / "photo.png", check_pictures((96, 64))[0])
    with pytest.raises(RuntimeError, match="int8 network disagrees"):
        with_int8(replace(red_bundle, networks={"float32": small_unet()}), authentic_photos(tmp_path))
