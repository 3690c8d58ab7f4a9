"""What a scan may rely on from the TensorRT backend, on any machine: TensorRT's double runs on the CUDA host.

With `pytest -m gpu` on a machine with a GPU the same tests run on it, with the TensorRT that is installed there; where
none is, with the double, which PyTorch runs on the GPU.
"""

import functools
import json
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from mag_rt import Scanner, engines
from mag_rt import bundle as bundles
from mag_rt.backends.loaded_engine import annotating
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.backends.tensorrt import TensorRTReader, open_tensorrt
from mag_rt.bundle import Bundle
from mag_rt.cuda import Gpu
from mag_rt.device_memory import DeviceArray, DoesNotFitError
from mag_rt.driver import CudaError
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import Built, EngineError, Spec
from mag_rt.errors import MagrtError
from mag_rt.findings import Failure, Reading
from mag_rt.parity import ParityError, gate
from mag_rt.pictures import Picture
from mag_rt.reading import HostReader
from tests import tensorrt_double as double
from tests.conftest import grey_with_red_box
from tests.kernels.fixtures import cuda as cuda
from tests.kernels.fixtures import open_gpu as open_gpu
from tests.tensorrt_contract import RUNNING, lacking
from tests.tensorrt_double import on_gpu

EXAMPLES = Path(__file__).parents[2] / "examples/photos"
ARENA = 64 << 20
MAX_SIDE = 256
CAT, DOG = 6, 7
DYNAMIC = Spec("float32", (1, 2, 3), ((32, 32), (192, 256), (256, 256)))
TILE = Spec("float32", (1, 2, 3), ((96, 96), (96, 96), (96, 96)))
SEEDS = pytest.mark.parametrize("seed", [0, 1, 3], indirect=True)  # of 3 on, a stream waits as long as it may


@functools.cache
def network(dtype: DTypeLike = np.float32, *, reach: int = 1, root: bool = False, steep: bool = False) -> bytes:
    """Of picture values in [-1, 1] in RGB, 12 maps: the mask is the red mean of reach x reach pixels, dogs are green.

    With `root` the mask is the square root of red, which is NaN where red is less than 0. When `steep` it is 60000
    times red and more, which float16 does not hold where red is 1.
    """
    weights = np.zeros((12, 3, reach, reach), dtype)
    weights[0, 0] = 0.5 / reach**2
    weights[2 + DOG, 1, reach // 2, reach // 2] = 0.5
    bias = np.zeros(12, dtype)
    bias[[0, 2 + DOG]] = 0.5
    if root:
        weights[0, 0], bias[0] = 1, 0
    if steep:
        weights[0, 0], bias[0] = 60000, 60000
    nodes = [helper.make_node("Conv", ["image", "weights", "bias"], ["sums"], pads=[reach // 2] * 4)]
    nodes.append(helper.make_node("Sqrt" if root else "Identity", ["sums"], ["annotation"]))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    image = helper.make_tensor_value_info("image", kind, ["n", 3, "h", "w"])
    annotation = helper.make_tensor_value_info("annotation", kind, ["n", 12, "h", "w"])
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "patterned", [image], [annotation], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@dataclass(frozen=True)
class Maker:
    """Opens readers; `real` on a GPU."""

    trt: Any
    open_gpu: Callable[..., Gpu]
    bundle: Bundle
    real: bool

    def engine(self, model: bytes, spec: Spec) -> bytes:
        if hasattr(self.trt, "Builder"):
            return engines.build(self.trt, model, spec).engine
        return double.serialise(model, {"image": spec.shapes})

    def reader(
        self,
        spec: Spec = DYNAMIC,
        model: bytes | None = None,
        *,
        engine: bytes | None = None,
        gpu: Gpu | None = None,
        arena: int = ARENA,
        max_side: int = MAX_SIDE,
        tiles: bool = False,
    ) -> TensorRTReader:
        gpu = gpu or self.open_gpu(arena)
        if engine is None:
            try:
                engine = self.engine(model or self.bundle.network, spec)
            except BaseException:
                gpu.close()
                raise
        return TensorRTReader(
            self.trt, engine, self.bundle, gpu, precision=spec.precision, max_side=max_side, tiles=tiles
        )


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the CUDA host; it is read where that starts, which a test on a GPU must not do."""
    given = int(os.environ.get("CUDA_HOST_SEED", "0"))
    monkeypatch.setenv("CUDA_HOST_SEED", str(given + getattr(request, "param", 0)))


@pytest.fixture
def bundle(red_bundle: Bundle) -> Bundle:
    return replace(red_bundle, networks={"float32": network()})


def _library_on_a_gpu() -> Any:
    try:
        return engines.load_library(rtx=False)
    except EngineError as error:
        missing = error
    try:
        return on_gpu.library()
    except CudaError as error:
        pytest.skip(f"{missing}; {error}")


@pytest.fixture
def maker(open_gpu: Callable[..., Gpu], bundle: Bundle, request: pytest.FixtureRequest) -> Iterator[Maker]:
    """Fails when a rule of TensorRT is broken or something is not given back."""
    if "device" in request.node.callspec.id:
        yield Maker(_library_on_a_gpu(), open_gpu, bundle, real=True)
        assert not double.broken_rules
        return
    yield Maker(double.library(), open_gpu, bundle, real=False)
    assert not double.broken_rules
    host = request.getfixturevalue("cuda")
    assert host.primary_users == 0, "the reader leaves its GPU open"


def on_cpu(
    bundle: Bundle,
    pictures: list[Picture],
    sizes: list[tuple[int, int]],
    *,
    max_side: int = MAX_SIDE,
    tiles: bool = False,
) -> list[Reading]:
    reader = HostReader(OnnxRuntimeBackend(bundle), bundle, max_side, tiles, 1)
    readings = reader(pictures, sizes)
    reader.close()
    return readings


def own_sizes(pictures: list[Picture]) -> list[tuple[int, int]]:
    return [picture.shape[:2] for picture in pictures]


def scene(height: int, width: int, seed: int = 0) -> Picture:
    """Soft colours, no two scenes alike, with red where a box is."""
    rng = np.random.default_rng((height, width, seed))
    soft = rng.integers(0, 110, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    picture = cv2.resize(soft, (width, height), interpolation=cv2.INTER_CUBIC)
    top, left = height // 4 + seed % 5, width // 5
    picture[top : top + height // 3, left : left + width // 2] = (20 + 10 * seed % 200, 40, 250 - seed)
    return picture


def check_alike(found: list[Reading | Failure], expected: list[Reading], levels: int) -> None:
    """`levels`: grey levels by which a mask may differ."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Reading), one
        assert one.pixels == other.pixels
        assert one.mask.shape == other.mask.shape and one.mask.dtype == np.uint8
        assert np.abs(one.mask.astype(int) - other.mask).max() <= levels
        assert one.evidence == pytest.approx(other.evidence, abs=0.03 * levels)
        assert [each.name for each in one.objects] == [each.name for each in other.objects]
        for this, that in zip(one.objects, other.objects, strict=True):
            assert this.area_fraction == pytest.approx(that.area_fraction, abs=0.01 * levels)
        assert len(one.regions) == len(other.regions)
        for this, that in zip(one.regions, other.regions, strict=True):
            assert np.abs(np.subtract(this.bbox, that.bbox)).max() <= 2
            assert this.score == pytest.approx(that.score, abs=levels / 255)


MIXED = [
    scene(1, 1),
    scene(97, 131),
    scene(31, 33),
    scene(300, 631),  # shrunk
    scene(97, 131, 1),
    scene(64, 64),
    scene(256, 256),
    scene(1, 200),
    scene(100, 130, 2),  # the same plane as 97 x 131
    scene(900, 40),  # shrunk, upright
    grey_with_red_box(64, 64),  # nothing there
    scene(96, 128, 4),
]


def test_the_double_has_what_the_bindings_have() -> None:
    assert not lacking(double.library(), RUNNING)


@pytest.mark.parametrize("model", ["edge", "thorough"])
def test_pytorch_computes_in_the_double_what_onnx_runtime_does(model: str) -> None:
    shipped = bundles.load(bundles.located(Path(model)))
    image = np.random.default_rng(1).uniform(-1, 1, (2, 3, 64, 96)).astype(np.float32)
    found = on_gpu.Network(shipped.network, "cpu")({"image": torch.from_numpy(image)})
    expected = OnnxRuntimeBackend(shipped).probabilities(image)
    assert np.abs(found["annotation"].numpy() - expected).max() < 1e-4


@SEEDS
@pytest.mark.parametrize(
    ("takes", "gives", "levels"), [("float32", "float32", 1), ("float32", "float16", 1), ("float16", "float16", 2)]
)
def test_readings_are_those_of_the_cpu(maker: Maker, takes: str, gives: str, levels: int) -> None:
    bundle = replace(maker.bundle, networks={"float32": network(reach=3)})
    spec = replace(DYNAMIC, precision=gives)
    model = network(takes, reach=3) if takes == gives else cast("annotation", TensorProto.FLOAT16, network(reach=3))
    reader = replace(maker, bundle=bundle).reader(spec, model)
    try:
        found = reader(MIXED, own_sizes(MIXED))
        again = reader(MIXED[::-1], own_sizes(MIXED[::-1]))
    finally:
        reader.close()
    expected = on_cpu(bundle, MIXED, own_sizes(MIXED))
    check_alike(found, expected, levels)
    check_alike(again, expected[::-1], levels)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_annotator_that_ships_reads_a_photo_as_on_the_cpu(maker: Maker, precision: str) -> None:
    shipped = bundles.load(bundles.bundled())
    if precision not in shipped.networks:
        pytest.skip(f"the bundle has no {precision} network")
    picture = cv2.imread(str(EXAMPLES / "spliced-dog-stream.jpg"))
    spec = Spec(precision, (1, 1, 1), ((32, 32), (256, 320), (320, 320)))
    reader = replace(maker, bundle=shipped).reader(spec, shipped.networks[precision], max_side=320)
    (found,) = reader([picture], [picture.shape[:2]])
    reader.close()
    (expected,) = on_cpu(shipped, [picture], [picture.shape[:2]], max_side=320)
    assert isinstance(found, Reading)
    assert found.evidence == pytest.approx(expected.evidence, abs=0.1)
    assert np.abs(found.mask.astype(int) - expected.mask).mean() < 1
    assert [each.name for each in found.objects] == [each.name for each in expected.objects]
    assert len(found.regions) == len(expected.regions)


def test_a_scan_finds_what_it_finds_on_the_cpu(maker: Maker, tmp_path: Path) -> None:
    bundles.save(replace(maker.bundle, max_side=MAX_SIDE), tmp_path)
    with Scanner(tmp_path, backend="onnxruntime") as scanner:
        expected = scanner.scan_images(MIXED)
        scanner.reader.close()
        scanner.reader = maker.reader()
        found = scanner.scan_images(MIXED)
    for one, other in zip(found, expected, strict=True):
        assert one.verdict == other.verdict and one.score == pytest.approx(other.score, abs=0.01)
        assert (one.width, one.height) == (other.width, other.height)


def test_a_scan_goes_on_after_an_overflow(maker: Maker, tmp_path: Path) -> None:
    bundles.save(maker.bundle, tmp_path)
    red, grey = np.full((50, 60, 3), 255, np.uint8), np.full((50, 60, 3), 90, np.uint8)
    with Scanner(tmp_path, backend="onnxruntime") as scanner:
        scanner.reader.close()
        scanner.reader = maker.reader(replace(DYNAMIC, precision="float16"), network(np.float16, root=True))
        first, failed, last = scanner.scan_images([red, grey, red])
    assert failed.error is not None and failed.error.type == "overflow" and failed.score is None
    assert first.score == last.score and first.error is None


@SEEDS
def test_batches_of_every_size(maker: Maker) -> None:
    """Full ones, smaller ones after larger ones, and more than two of them."""
    pictures = [scene(60, 90, seed) for seed in range(8)]
    expected = on_cpu(maker.bundle, pictures, own_sizes(pictures))
    reader = maker.reader()
    assert reader.batch == 6 and reader.threads == 1
    for count in (4, 1, 8, 2, 3, 0, 5):
        check_alike(reader(pictures[:count], own_sizes(pictures[:count])), expected[:count], 1)
    reader.close()


@SEEDS
def test_masks_have_the_size_that_is_asked_for(maker: Maker) -> None:
    """A large JPEG is decoded at a half, a quarter or an eighth."""
    pictures, sizes = [scene(60, 90), scene(200, 256), scene(61, 90, 3)], [(119, 180), (797, 1021), (61, 90)]
    reader = maker.reader()
    found = reader(pictures, sizes)
    reader.close()
    check_alike(found, on_cpu(maker.bundle, pictures, sizes), 1)


@SEEDS
def test_an_engine_of_one_size_takes_pictures_of_any(maker: Maker) -> None:
    """Small ones lie in its plane, large ones are read in overlapping tiles."""
    pictures = [
        scene(96, 96),
        scene(1, 1),
        scene(33, 90),
        scene(150, 100, 1),
        scene(97, 96, 2),
        scene(220, 300),
        scene(20, 150),
    ]
    reader = maker.reader(TILE, max_side=160)
    found = reader(pictures, own_sizes(pictures))
    reader.close()
    check_alike(found, on_cpu(maker.bundle, pictures, own_sizes(pictures), max_side=160), 1)


@SEEDS
def test_tiles_show_no_seam(maker: Maker) -> None:
    """With a network that looks beyond the pixel: where tiles meet, the one fades into the other."""
    bundle = replace(maker.bundle, networks={"float32": network(reach=9)})
    picture = scene(150, 160)
    reader = replace(maker, bundle=bundle).reader(TILE)
    (found,) = reader([picture], [picture.shape[:2]])
    reader.close()
    (expected,) = on_cpu(bundle, [picture], [picture.shape[:2]])
    assert isinstance(found, Reading)
    difference = np.abs(found.mask.astype(int) - expected.mask)[8:-8, 8:-8]
    assert difference.max() <= 12 and difference.mean() < 0.5


@SEEDS
def test_tiles_at_the_pictures_own_resolution(maker: Maker) -> None:
    pictures = [scene(100, 140), scene(60, 60), scene(65, 200, 2)]
    reader = maker.reader(max_side=64, tiles=True)
    found = reader(pictures, own_sizes(pictures))
    reader.close()
    expected = on_cpu(maker.bundle, pictures, own_sizes(pictures), max_side=64, tiles=True)
    check_alike(found, expected, 2)  # a pixel more in a region whose edge is soft
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Reading) and np.abs(one.mask.astype(int) - other.mask).max() <= 1
        assert one.evidence == pytest.approx(other.evidence, abs=0.03)


def test_a_batch_that_the_engine_asks_for_is_filled_up(maker: Maker) -> None:
    reader = maker.reader(replace(DYNAMIC, batch=(2, 2, 2)))
    pictures = [scene(60, 90, seed) for seed in range(3)]
    found = reader(pictures, own_sizes(pictures))
    reader.close()
    check_alike(found, on_cpu(maker.bundle, pictures, own_sizes(pictures)), 1)


@SEEDS
def test_what_does_not_fit_is_read_on_the_cpu(maker: Maker) -> None:
    pictures = [scene(60, 90), scene(900, 1200), scene(2, 33000), scene(60, 91, 1)]
    reader = maker.reader(arena=12 << 20)
    found = reader(pictures, own_sizes(pictures))
    runs = len(double.IExecutionContext.runs)
    reader.close()
    check_alike(found, on_cpu(maker.bundle, pictures, own_sizes(pictures)), 1)
    assert maker.real or runs == 1


def test_says_that_the_arena_is_too_small(maker: Maker) -> None:
    with pytest.raises(DoesNotFitError, match="4 MiB of device memory are too few for pictures of 256 x 256"):
        maker.reader(arena=4 << 20)


def host_only(maker: Maker) -> None:
    if maker.real:
        pytest.skip("looks into the double")


@pytest.mark.parametrize("seed", [0, 3], indirect=True)  # nothing is done that nobody waits for
def test_a_run_is_queued_while_the_one_before_is_under_way(maker: Maker) -> None:
    host_only(maker)
    pictures = [scene(60, 90, seed) for seed in range(12)]
    reader = maker.reader()
    reader(pictures, own_sizes(pictures))
    reader.close()
    assert [run.ahead for run in double.IExecutionContext.runs] == [2, 3, 4, 4]


class Journal(Gpu):
    """Notes copies: which way, by which stream."""

    def __init__(self, arena_bytes: int) -> None:
        super().__init__(arena_bytes)
        self.copies: list[tuple[str, Any]] = []

    def upload(self, source: NDArray[Any], target: DeviceArray, stream: Any) -> None:
        self.copies.append(("up", stream))
        super().upload(source, target, stream)

    def download(self, source: DeviceArray, target: NDArray[Any], stream: Any) -> None:
        self.copies.append(("down", stream))
        super().download(source, target, stream)


def test_an_upload_does_not_wait_for_the_run_before(maker: Maker) -> None:
    """Copies have a stream, and in it the next pictures go up before the last masks, which take their time, come."""
    host_only(maker)
    gpu = Journal(ARENA)
    reader = maker.reader(gpu=gpu)
    pictures = [scene(60, 90, seed) for seed in range(9)]
    reader(pictures, own_sizes(pictures))
    reader.close()
    assert len({id(stream) for _, stream in gpu.copies}) == 1
    turns = [(way, len(list(copies))) for way, copies in groupby(way for way, _ in gpu.copies)]
    up, down = 3 + 2, 3 + 1  # pictures and two kinds of records; masks and counts
    assert turns == [("up", 2 * up), ("down", down), ("up", up), ("down", 2 * down)]


def test_an_overflow_is_the_pictures_own_failure(maker: Maker) -> None:
    red, grey = np.full((50, 60, 3), 255, np.uint8), np.full((50, 60, 3), 90, np.uint8)
    spec = replace(DYNAMIC, precision="float16")
    reader = maker.reader(spec, network(np.float16, root=True))
    first, failure, last = reader([red, grey, red], [(50, 60)] * 3)
    reader.close()
    assert isinstance(failure, Failure) and failure.type == "overflow"
    assert failure.message.startswith("3000 values of the engine's annotation are NaN or infinite: FP16 overflow")
    for reading in (first, last):
        assert isinstance(reading, Reading) and (reading.mask == 255).all()


def test_infinity_is_an_overflow(maker: Maker) -> None:
    red, grey = np.full((50, 60, 3), 255, np.uint8), np.full((50, 60, 3), 90, np.uint8)
    reader = maker.reader(replace(DYNAMIC, precision="float16"), network(np.float16, steep=True))
    first, last = reader([red, grey], [(50, 60)] * 2)
    reader.close()
    assert isinstance(first, Failure) and "3000 values" in first.message and isinstance(last, Reading)


@pytest.mark.parametrize("close", [False, True])
def test_an_overflow_in_a_tile_is_found(maker: Maker, close: bool) -> None:
    """Also where the first look, at the whole picture shrunk, has none."""
    picture = np.full((150, 150, 3), 255, np.uint8)
    picture[130, 130] = 0
    spec, side = (DYNAMIC, 64) if close else (TILE, MAX_SIDE)
    reader = maker.reader(
        replace(spec, precision="float16"), network(np.float16, root=True), max_side=side, tiles=close
    )
    failure, well = reader([picture, np.full_like(picture, 255)], [(150, 150)] * 2)
    reader.close()
    assert isinstance(failure, Failure) and failure.message.startswith("1 values")
    assert isinstance(well, Reading)


@pytest.mark.parametrize("turn", [0, 1, 2])
@SEEDS
def test_an_engine_that_fails_leaves_a_reader_that_works(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    host_only(maker)
    run, turns = double.IExecutionContext.execute_async_v3, iter(range(100))

    def fail(self: double.IExecutionContext, stream: int) -> bool:
        return (
            run(self, stream)
            if next(turns) != turn
            else self._refuse("enqueueV3: Error Code 1: Cuda Runtime\nIn x.cpp")
        )

    monkeypatch.setattr(double.IExecutionContext, "execute_async_v3", fail)
    pictures = [scene(60, 90, seed) for seed in range(9)]
    reader = maker.reader()
    with pytest.raises(EngineError, match=r"does not run a batch of 3 x 3 x 64 x 96: .*Error Code 1: Cuda Runtime$"):
        reader(pictures, own_sizes(pictures))
    assert not double.under_way()
    check_alike(reader(pictures, own_sizes(pictures)), on_cpu(maker.bundle, pictures, own_sizes(pictures)), 1)
    reader.close()


@pytest.mark.parametrize("call", [0, 3, 7, 11])
def test_a_gpu_that_fails_leaves_a_reader_that_works_or_closes(maker: Maker, call: int) -> None:
    host_only(maker)

    class Failing(Journal):
        def _fail(self) -> None:
            if len(self.copies) == call:
                self.copies.append(("failed", None))
                raise CudaError("the copy failed")

        def upload(self, *arguments: Any) -> None:
            self._fail()
            super().upload(*arguments)

        def download(self, *arguments: Any) -> None:
            self._fail()
            super().download(*arguments)

    reader = maker.reader(gpu=Failing(ARENA))
    pictures = [scene(60, 90, seed) for seed in range(7)]
    with pytest.raises(CudaError, match="the copy failed"):
        reader(pictures, own_sizes(pictures))
    assert not double.under_way()
    check_alike(reader(pictures, own_sizes(pictures)), on_cpu(maker.bundle, pictures, own_sizes(pictures)), 1)
    reader.close()
    reader.close()


def renamed(of: bytes | None = None, **names: str) -> bytes:
    model = onnx.load_from_string(of or network())
    for tensor in (*model.graph.input, *model.graph.output):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model.SerializeToString()


def cast(name: str, kind: int, of: bytes | None = None) -> bytes:
    """A network with an input or output of another type."""
    model = onnx.load_from_string(renamed(of, **{name: "inside"}))
    (tensor,) = (each for each in (*model.graph.input, *model.graph.output) if each.name == "inside")
    tensor.name, tensor.type.tensor_type.elem_type = name, kind
    if name == "image":
        model.graph.node.insert(0, helper.make_node("Cast", [name], ["inside"], to=TensorProto.FLOAT))
    else:
        model.graph.node.append(helper.make_node("Cast", ["inside"], [name], to=kind))
    return model.SerializeToString()


def shrinking() -> bytes:
    model = onnx.load_from_string(network())
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))
    for dimension in model.graph.output[0].type.tensor_type.shape.dim[2:]:
        dimension.Clear()
        dimension.dim_param = "half"
    return model.SerializeToString()


def outgrowing() -> bytes:
    """Its annotation of a picture of more than 32 rows has rows to spare."""
    model = onnx.load_from_string(renamed(annotation="inside"))
    for name, value in {"begin": 32, "end": 2**31, "axis": 2}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    model.graph.node.append(helper.make_node("Slice", ["inside", "begin", "end", "axis"], ["below"]))
    model.graph.node.append(helper.make_node("Concat", ["inside", "below"], ["annotation"], axis=2))
    model.graph.output[0].name = "annotation"
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "more"
    return model.SerializeToString()


PROFILE = [(1, 3, 32, 32), (2, 3, 192, 256), (3, 3, 256, 256)]


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (b"no engine", "TensorRT does not load this engine: .*Serialization assertion"),
        (double.serialise(network(), version="10.9.0"), r"does not load this engine: .* 10\.9\.0"),
        (
            double.serialise(renamed(image="input"), {"input": PROFILE}),
            "the engine has input and annotation, where image and annotation belong",
        ),
        (
            double.serialise(renamed(image="annotation", annotation="image"), {"annotation": PROFILE}),
            "the engine's image is no input",
        ),
        (
            double.serialise(cast("image", TensorProto.UINT8), {"image": PROFILE}),
            "the engine's image is UINT8; the kernels take FLOAT and HALF",
        ),
        (
            double.serialise(cast("annotation", TensorProto.INT32), {"image": PROFILE}),
            "the engine's annotation is INT32",
        ),
        (
            double.serialise(network(), {"image": [(1, 3, 40, 40), (1, 3, 40, 40), (1, 3, 50, 50)]}),
            "the engine takes pictures of 40 x 40 to 50 x 50, the annotator multiples of 32",
        ),
        (double.serialise(shrinking(), {"image": PROFILE}), "which is no annotation of it"),
    ],
    ids=["garbage", "version", "name", "mode", "input type", "output type", "profile", "half the size"],
)
def test_an_engine_of_something_else_is_refused(maker: Maker, engine: bytes, reason: str) -> None:
    host_only(maker)
    with pytest.raises(EngineError, match=reason) as caught:
        maker.reader(engine=engine)
    assert "\n" not in str(caught.value)


def test_nothing_is_written_past_the_maps_of_a_network_whose_annotation_outgrows_its_input(maker: Maker) -> None:
    host_only(maker)
    reader = maker.reader(engine=double.serialise(outgrowing(), {"image": PROFILE}))
    assert isinstance(reader([scene(32, 32)], [(32, 32)])[0], Reading)
    with pytest.raises(EngineError, match=r"makes \(1, 12, 96, 96\) of \(1, 3, 64, 96\), which is no annotation of it"):
        reader([scene(60, 90)], [(60, 90)])
    assert not double.under_way()
    reader.close()


def test_an_engine_of_another_annotator_is_refused(maker: Maker) -> None:
    other = replace(maker.bundle, classes=maker.bundle.classes[:5])
    with pytest.raises(MagrtError, match=r"annotation is \(-1, 12, -1, -1\), where N x 7 x H x W belongs"):
        replace(maker, bundle=other).reader(engine=maker.engine(network(), DYNAMIC))


def test_a_gpu_without_room_for_the_engine(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    host_only(maker)
    monkeypatch.setattr(double.ICudaEngine, "create_execution_context", lambda self: None)
    with pytest.raises(EngineError, match="TensorRT gives no execution context"):
        maker.reader()


@pytest.mark.parametrize(("dtype", "apart"), [(np.float32, 0.005), (np.float16, 0.02)])
@SEEDS
def test_takes_part_in_the_parity_gate(maker: Maker, dtype: DTypeLike, apart: float) -> None:
    gpu = maker.open_gpu(ARENA)
    precision = np.dtype(dtype).name
    engine = maker.engine(network(dtype), replace(DYNAMIC, precision=precision))
    try:
        with annotating(maker.trt, engine, maker.bundle, gpu) as annotate:
            assert gate(annotate, maker.bundle, precision, 3, (160, 192)).probability <= apart
    finally:
        reader = maker.reader(engine=engine, gpu=gpu)  # the Gpu serves on
    check_alike(reader(MIXED[:3], own_sizes(MIXED[:3])), on_cpu(maker.bundle, MIXED[:3], own_sizes(MIXED[:3])), 2)
    reader.close()


def test_what_the_gate_uploads_is_kept_until_it_has_been_read(maker: Maker) -> None:
    host_only(maker)

    class Uploads(Gpu):
        def upload(self, source: NDArray[Any], target: DeviceArray, stream: Any) -> None:
            sources.append(weakref.ref(source))
            super().upload(source, target, stream)

        def download(self, source: DeviceArray, target: NDArray[Any], stream: Any) -> None:
            kept.append(sources[-1]() is not None)
            super().download(source, target, stream)

    sources: list[weakref.ref[NDArray[Any]]] = []
    kept: list[bool] = []
    engine = maker.engine(network(np.float16), replace(DYNAMIC, precision="float16"))  # its input is another array
    with Uploads(ARENA) as gpu, annotating(maker.trt, engine, maker.bundle, gpu) as annotate:
        annotate(np.zeros((1, 3, 64, 64), np.float32))
    assert kept == [True]


class Ledger(Gpu):
    """Knows which of its streams and events are still there."""

    def __init__(self, arena_bytes: int) -> None:
        super().__init__(arena_bytes)
        self.made: list[weakref.ref[Any]] = []

    def stream(self) -> Any:
        stream = super().stream()
        self.made.append(weakref.ref(stream))
        return stream

    def event(self, *, timing: bool = False) -> Any:
        event = super().event(timing=timing)
        self.made.append(weakref.ref(event))
        return event


def test_streams_and_events_end_with_the_gpu_though_somebody_keeps_the_reader(maker: Maker) -> None:
    """Else they would be left in a primary context that torch lives on in."""
    host_only(maker)
    gpu = Ledger(ARENA)
    reader = maker.reader(gpu=gpu)
    reader(MIXED[:5], own_sizes(MIXED[:5]))
    assert [each() for each in gpu.made].count(None) == 0 and len(gpu.made) == 8
    reader.close()
    assert [each() for each in gpu.made] == [None] * 8
    reader.close()


@SEEDS
def test_a_reader_that_is_not_used_closes(maker: Maker) -> None:
    maker.reader().close()
    gpu = maker.open_gpu(ARENA)
    with annotating(maker.trt, maker.engine(network(), DYNAMIC), maker.bundle, gpu):
        pass
    gpu.close()


# From the user's cache ------------------------------------------------------------------------------------------------


@dataclass
class Workshop:
    """A bundle in float32 and float16, and how often an engine of it was built; `made` is what a build gives then."""

    bundle: Bundle
    builds: int = 0
    made: Callable[[bytes], bytes] = lambda engine: engine

    def open(self, *, tiles: bool = False, precision: str = "float16") -> TensorRTReader:
        return open_tensorrt(self.bundle, MAX_SIDE, tiles, precision=precision)


@pytest.fixture
def workshop(maker: Maker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Workshop:
    """Nobody's own cache is looked at or written to."""
    host_only(maker)
    shop = Workshop(replace(maker.bundle, networks={"float32": network(), "float16": network(np.float16)}))

    def build(trt: Any, model: bytes, spec: Spec, timings: bytes = b"") -> Built:
        shop.builds += 1
        return Built(shop.made(maker.engine(model, spec)), b"")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "build", build)
    monkeypatch.setattr("mag_rt.backends.tensorrt.load_library", lambda rtx: maker.trt)
    monkeypatch.setattr("mag_rt.backends.tensorrt.ARENA_BYTES", ARENA)
    monkeypatch.setattr("mag_rt.backends.tensorrt.TILES_ARENA_BYTES", ARENA)
    return shop


@pytest.mark.parametrize(("precision", "levels"), [("float32", 1), ("float16", 2)])
def test_an_engine_is_built_for_the_first_reader_and_serves_the_next(
    workshop: Workshop, precision: str, levels: int
) -> None:
    for _ in range(2):
        reader = workshop.open(precision=precision)
        check_alike(reader(MIXED, own_sizes(MIXED)), on_cpu(workshop.bundle, MIXED, own_sizes(MIXED)), levels)
        assert reader.precision == precision
        reader.close()
    assert workshop.builds == 1


def test_a_reader_of_tiles_has_an_arena_of_its_own_size(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mag_rt.backends.tensorrt.ARENA_BYTES", 16 << 20)
    workshop.open().close()
    reader = workshop.open(tiles=True)
    picture = scene(400, 600)  # the sums of its tiles take 13 MB
    runs = len(double.IExecutionContext.runs)
    found = reader([picture], [(400, 600)])
    assert len(double.IExecutionContext.runs) > runs
    reader.close()
    check_alike(found, on_cpu(workshop.bundle, [picture], [(400, 600)], tiles=True), 2)


@pytest.mark.parametrize("met", [True, False])
def test_a_kept_engine_that_no_longer_loads_is_built_anew_once(workshop: Workshop, met: bool) -> None:
    """Whether this GPU has met it before or not."""
    workshop.open().close()
    cache = EngineCache()
    (sidecar,) = cache.folder.glob("*.json")
    notes = json.loads(sidecar.read_text())
    agreements = notes["agreements"] if met else {"another GPU": {}}
    cache.store(notes["facts"], b"of another time", notes | {"agreements": agreements})
    for _ in range(2):
        reader = workshop.open()
        assert isinstance(reader(MIXED[:1], own_sizes(MIXED[:1]))[0], Reading)
        reader.close()
    assert workshop.builds == 2
    cache.store(notes["facts"], b"of another time", notes | {"agreements": agreements})
    workshop.made = lambda engine: b"useless"
    with pytest.raises(EngineError, match="does not load this engine"):
        workshop.open()
    assert workshop.builds == 3


def test_a_new_engine_that_is_no_good_is_built_once_and_leaves_the_gpu(workshop: Workshop) -> None:
    workshop.made = lambda engine: b"useless"
    with pytest.raises(EngineError, match="does not load this engine"):
        workshop.open()
    wrong = network(np.float16, root=True)
    workshop.made = lambda engine: double.serialise(
        wrong, {"image": [(1, 3, 32, 32), (1, 3, 32, 32), (4, 3, 256, 256)]}
    )
    with pytest.raises(ParityError, match="is NaN"):
        workshop.open()
    with pytest.raises(EngineError, match="magrt build tries again"):
        workshop.open()
    assert workshop.builds == 2
