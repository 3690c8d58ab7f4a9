"""Engines of the shipped network are built for real, by TensorRT-RTX, which needs no GPU to build; and used with care.

What cannot be built is told in one line of the library's own words. What is built is kept, and used only if it agrees.
"""

import json
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from mag_rt import bundle as bundles
from mag_rt import engines
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.bundle import Bundle
from mag_rt.engine_cache import EngineCache
from mag_rt.engines import Built, EngineError, Spec, UnloadableError, build, engine_for, load_library
from mag_rt.errors import BundleError
from mag_rt.parity import Agreement, Annotate, ParityError
from mag_rt.pictures import Normalisation

SIZES = ((32, 32), (96, 128), (128, 128))


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return bundles.load(bundles.bundled())


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (Linux on x86-64 has it)")


# Real builds


@pytest.fixture(scope="module")
def built(trt: Any, shipped: Bundle) -> dict[str, Built]:
    return {
        precision: build(trt, shipped.networks[precision], Spec.default(shipped, precision))
        for precision in ("float32", "float16")
    }


def test_the_shipped_network_is_built_in_float32_and_float16(built: dict[str, Built]) -> None:
    assert len(built["float16"].engine) < 0.6 * len(built["float32"].engine)


@pytest.mark.parametrize("batch", [(1, 1, 1), (2, 4, 8)])
def test_an_engine_may_be_for_one_size_of_tile(trt: Any, shipped: Bundle, batch: tuple[int, int, int]) -> None:
    spec = Spec("float16", batch, ((256, 256),) * 3)
    assert build(trt, shipped.networks["float16"], spec).engine


def refused(trt: Any, network: bytes, message: str, precision: str = "float16") -> None:
    with pytest.raises(EngineError, match=message) as caught:
        build(trt, network, Spec(precision, (1, 1, 4), SIZES))
    assert "\n" not in str(caught.value)


def edited(network: bytes, edit: Callable[[ModelProto], Any]) -> bytes:
    model = onnx.load_from_string(network)
    edit(model)
    return model.SerializeToString()


def test_float32_left_inside_is_named(trt: Any, shipped: Bundle) -> None:
    refused(trt, shipped.network, "float32 is left inside the float16 network: 25 layers, node_conv2d_1")


def test_one_layer_left_in_float32_is_named(trt: Any, shipped: Bundle) -> None:
    def spare_the_head(model: ModelProto) -> None:
        (head,) = (node for node in model.graph.node if node.op_type == "Conv" and "head." in node.input[1])
        at = list(model.graph.node).index(head)
        wide = []
        for name in head.input:
            wide.append(f"{name}_wide")
            model.graph.node.insert(at, helper.make_node("Cast", [name], [wide[-1]], to=TensorProto.FLOAT))
            at += 1
        output = head.output[0]
        head.input[:], head.output[0] = wide, "wide"
        model.graph.node.insert(at + 1, helper.make_node("Cast", ["wide"], [output], to=TensorProto.FLOAT16))

    spared = edited(shipped.networks["float16"], spare_the_head)
    refused(trt, spared, "float32 is left inside .*: 1 layers, node_conv2d_25")


def test_a_product_of_vectors_left_in_float32_is_named(trt: Any, shipped: Bundle) -> None:
    def weigh(model: ModelProto) -> None:
        vector = helper.make_tensor("vector", TensorProto.FLOAT, [4], [0.5] * 4)
        model.graph.initializer.append(vector)
        last = model.graph.node[-1]
        model.graph.node.extend(
            [
                helper.make_node("MatMul", ["vector", "vector"], ["product"], "weighing"),
                helper.make_node("Cast", ["product"], ["weight"], to=TensorProto.FLOAT16),
                helper.make_node("Mul", ["unweighed", "weight"], [last.output[0]]),
            ]
        )
        last.output[0] = "unweighed"

    refused(trt, edited(shipped.networks["float16"], weigh), "float32 is left inside .*: 1 layers, weighing")


COLLECTED_IN_THE_LOG = """
import gc, sys
import tensorrt_rtx as trt
from mag_rt import engines

gc.disable()
kept = [trt.Builder(engines.library_log(trt))]
kept.append(kept)
del kept
engines._plain = lambda message: str(gc.collect())
spec = engines.Spec("float16", (1, 1, 4), ((32, 32), (96, 128), (128, 128)))
try:
    engines.build(trt, b"no network", spec)
except engines.EngineError:
    sys.exit(0)
"""


def test_an_earlier_build_that_python_collects_while_the_library_speaks_hangs_nothing(trt: Any) -> None:
    """It did, for ever: the library logs while it holds the lock that the end of a builder waits for."""
    done = subprocess.run([sys.executable, "-c", COLLECTED_IN_THE_LOG], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_input_name_is_named(trt: Any, shipped: Bundle) -> None:
    def rename(model: ModelProto) -> None:
        model.graph.input[0].name = "picture"
        for node in model.graph.node:
            node.input[:] = ["picture" if name == "image" else name for name in node.input]

    network = edited(shipped.networks["float16"], rename)
    refused(trt, network, "turns picture into annotation; an annotator turns image into annotation")


def test_a_second_input_without_a_profile_is_named(trt: Any, shipped: Bundle) -> None:
    def add_input(model: ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT16, ["n", 1, 1, 1]))
        last = model.graph.node[-1]
        model.graph.node.append(helper.make_node("Mul", ["ungained", "gain"], [last.output[0]]))
        last.output[0] = "ungained"

    refused(trt, edited(shipped.networks["float16"], add_input), "turns image, gain into annotation")


def test_an_unknown_operator_is_named(trt: Any, shipped: Bundle) -> None:
    def invent(model: ModelProto) -> None:
        model.graph.node[30].op_type = "Frobnicate"

    refused(trt, edited(shipped.networks["float16"], invent), "cannot be read: Frobnicate node_.*: unknown operator")


def test_a_network_of_one_size_is_not_asked_for_others(trt: Any, shipped: Bundle) -> None:
    def fix(model: ModelProto) -> None:
        for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 512, 512), strict=True):
            dimension.dim_value = side

    network = edited(shipped.networks["float16"], fix)
    refused(trt, network, "takes 1 x 3 x 512 x 512, and is asked to take 1 x 3 x 32 x 32")
    assert build(trt, network, Spec("float16", (1, 1, 1), ((512, 512),) * 3)).engine


def test_more_pictures_than_the_library_counts_to_are_refused(trt: Any, shipped: Bundle) -> None:
    with pytest.raises(EngineError, match="takes no pictures of"):
        build(trt, shipped.networks["float16"], Spec("float16", (1, 1, 3 * 10**9), SIZES))


@pytest.mark.parametrize("share", [0, 0.01, 0.5])
def test_a_file_that_is_no_network_is_refused(trt: Any, shipped: Bundle, share: float) -> None:
    network = shipped.networks["float16"]
    refused(trt, network[: int(share * len(network))], "float16 network (cannot be read|turns nothing into nothing)")


def quantised(zero_point: type[np.integer[Any]], scale: float) -> bytes:
    """A convolution between quantised activations, as QDQ."""
    weights = {
        "s": np.float32(scale),
        "z": zero_point(0),
        "w": np.full((12, 3, 1, 1), 3, np.int8),
        "ws": np.float32(0.1),
        "wz": np.int8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"]),
        helper.make_node("Sigmoid", ["y"], ["annotation"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])
    annotation = helper.make_tensor_value_info("annotation", TensorProto.FLOAT, ["n", 12, "h", "w"])
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "quantised", [image], [annotation], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def test_int8_is_signed_or_refused(trt: Any, shipped: Bundle) -> None:
    assert build(trt, quantised(np.int8, 0.05), Spec("int8", (1, 1, 4), SIZES)).engine
    refused(trt, quantised(np.uint8, 0.05), "int8 network is not signed QDQ: .*UINT8", "int8")
    refused(trt, shipped.network, "int8 network quantises nothing", "int8")


class Watched:
    """The library with a builder whose configurations are kept, and a name of choice."""

    def __init__(self, trt: Any, name: str) -> None:
        self.configs: list[Any] = []
        configs = self.configs

        class Builder(trt.Builder):  # type: ignore[misc, name-defined]
            def create_builder_config(self) -> Any:
                configs.append(super().create_builder_config())
                return configs[-1]

        self.module = types.SimpleNamespace(**{**vars(trt), "Builder": Builder, "__name__": name})


def test_tf32_is_off_so_that_the_high_pass_sees_more_than_ten_bits(trt: Any, shipped: Bundle) -> None:
    watched = Watched(trt, "tensorrt_rtx")
    build(watched.module, shipped.networks["float16"], Spec("float16", (1, 1, 4), SIZES))
    (config,) = watched.configs
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 2 << 30  # a Jetson has no more to spare


def test_a_library_that_gives_up_is_one_line(trt: Any, shipped: Bundle) -> None:
    class Builder(trt.Builder):  # type: ignore[misc, name-defined]
        def build_serialized_network(self, *_: Any) -> None:
            return None

    giving_up = types.SimpleNamespace(**{**vars(trt), "Builder": Builder, "__name__": "tensorrt_rtx"})
    refused(giving_up, shipped.networks["float16"], "TensorRT-RTX cannot build the float16 network: ")


@pytest.mark.parametrize("known", [b"", b"damaged"])
def test_tensorrt_starts_from_known_timings_and_gives_them_back(trt: Any, shipped: Bundle, known: bytes) -> None:
    watched = Watched(trt, "tensorrt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TensorRT-RTX plays along, and times nothing
        made = build(watched.module, shipped.networks["float16"], Spec("float16", (1, 1, 4), SIZES), known)
        (config,) = watched.configs
        assert made.timings == bytes(config.get_timing_cache().serialize())


class Timings:
    """A configuration of TensorRT that takes no timings of another GPU, and none that are damaged."""

    def __init__(self) -> None:
        self.taken: bytes | None = None

    def create_timing_cache(self, serialized: bytes) -> bytes | None:
        return None if serialized == b"damaged" else serialized

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if cache == b"another GPU's" and not ignore_mismatch:
            return False
        self.taken = cache
        return True


@pytest.mark.parametrize(
    ("known", "taken"), [(b"mine", b"mine"), (b"", b""), (b"damaged", b""), (b"another GPU's", b"")]
)
def test_timings_that_do_not_serve_are_done_without(known: bytes, taken: bytes) -> None:
    config = Timings()
    engines._set_timings(config, known)
    assert config.taken == taken


def test_another_user_of_the_library_is_no_reason_for_a_failure(trt: Any) -> None:
    others = trt.Builder(trt.Logger(trt.Logger.ERROR))
    journal = engines.library_log(trt)
    ours = trt.Builder(journal)
    assert "logger" in journal.reason()  # which is what the library says of it
    journal.log(trt.ILogger.Severity.ERROR, "out of memory")
    assert journal.reason() == "out of memory"
    del ours, others


def test_no_warning_comes_from_tensorrt_rtx(trt: Any, shipped: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(trt, shipped.networks["float16"], Spec("float16", (1, 1, 4), SIZES))


# What is asked for


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [((4, 1, 8), SIZES), ((0, 1, 1), SIZES), ((1, 1, 1), ((64, 64), (32, 64), (64, 64))), ((1, 2, 1), SIZES)],
)
def test_smallest_best_and_largest_are_in_order(batch: tuple[int, int, int], sizes: Any) -> None:
    with pytest.raises(EngineError, match="is not smallest, best, largest"):
        Spec("float16", batch, sizes)


def test_the_default_takes_what_a_scan_asks_for(shipped: Bundle) -> None:
    spec = Spec.default(shipped, "float16")
    assert spec.sizes == ((32, 32), (768, 1024), (1024, 1024)) and spec.batch == (1, 1, 4)
    assert Spec.default(replace(shipped, max_side=1000), "float16").sizes == spec.sizes
    paper = Spec.default(replace(shipped, multiple=512), "float16")
    assert paper.sizes == ((512, 512), (1024, 1024), (1024, 1024))


@pytest.mark.parametrize(
    ("multiple", "sizes", "checked"),
    [
        (32, ((32, 32), (768, 1024), (1024, 1024)), (256, 320)),
        (32, ((512, 768),) * 3, (512, 768)),  # tiles of one size
        (32, ((32, 32), (96, 128), (128, 512)), (128, 320)),
        (96, ((96, 96), (768, 1056), (1056, 1056)), (288, 384)),
    ],
)
def test_an_engine_is_checked_at_its_largest_batch_and_a_size_that_it_takes(
    multiple: int, sizes: Any, checked: tuple[int, int]
) -> None:
    assert engines.checked_shape(Spec("float16", (1, 2, 4), sizes), multiple) == (4, checked)


@pytest.mark.parametrize(("rtx", "remedy"), [(False, r"magrt\[gpu-cu12\].*Jetson"), (True, r"magrt\[rtx\]")])
def test_a_missing_library_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, rtx: bool, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx" if rtx else "tensorrt", None)
    with pytest.raises(EngineError, match=f"is not installed: pip install '{remedy}"):
        load_library(rtx)


@pytest.mark.parametrize(
    ("module_text", "said"),
    [
        ("import tensorrt_parts_that_are_missing", "is incomplete (No module named 'tensorrt_parts_that_are_missing')"),
        ("raise ImportError('libnvinfer.so.10: no such file')", "does not load (libnvinfer.so.10: no such file)"),
        ("raise OSError('libcudart.so.12: no such file\\nand more')", "does not load (libcudart.so.12: no such file)"),
        ("raise RuntimeError('the driver is too old')", "does not load (the driver is too old)"),
    ],
)
def test_a_broken_library_is_one_line_that_says_what_is_wrong_and_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module_text: str, said: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(module_text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=re.escape(f"TensorRT {said}: pip install 'magrt[gpu-cu12]'")) as caught:
        load_library(rtx=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "12.0.1"])
def test_other_versions_than_those_that_we_know_are_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module(version))
    with pytest.raises(EngineError, match=f"TensorRT {version} is here; magrt takes 10.3 to 11.x"):
        load_library(rtx=False)


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1", "11.4.0.106"])
def test_versions_that_we_know_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module(version))
    assert load_library(rtx=False).__version__ == version


# From the cache to the gate


@dataclass(frozen=True)
class Device:
    name: str = "Orin"
    capability: tuple[int, int] = (8, 7)


def module(version: str = "10.3.0", name: str = "tensorrt") -> types.ModuleType:
    found = types.ModuleType(name)
    found.__version__ = version  # type: ignore[attr-defined]
    return found


SPEC = Spec("float32", (1, 2, 4), SIZES)


class Machine:
    """A GPU whose engines are read by ONNX Runtime, and changed on the way; it counts what it is asked to do."""

    def __init__(self, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.builds, self.checks = 0, 0
        self.change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda maps: maps
        self._reference = OnnxRuntimeBackend(bundle).probabilities
        monkeypatch.setattr(engines, "build", self._build)

    def _build(self, trt: Any, network: bytes, spec: Spec, timings: bytes = b"") -> Built:
        self.builds += 1
        return Built(b"engine %d" % self.builds, timings + b"+")

    @contextmanager
    def run(self, engine: bytes) -> Iterator[Annotate]:
        self.checks += 1
        yield lambda images: self.change(self._reference(images))


@pytest.fixture
def machine(red_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(red_bundle, monkeypatch)


def test_an_engine_is_built_and_checked_once(
    red_bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "time", types.SimpleNamespace(perf_counter=iter([1.0, 3.5]).__next__))
    for _ in range(2):
        engine = engine_for(module(), red_bundle, SPEC, Device(), machine.run, EngineCache(tmp_path))
        assert engine == b"engine 1"
    assert (machine.builds, machine.checks) == (1, 1)
    (sidecar,) = tmp_path.glob("*.json")
    notes = json.loads(sidecar.read_text())
    assert notes["agreements"]["Orin"]["iou"] == 1.0 and notes["facts"]["gpu"] == "Orin"
    assert notes["seconds"] == 2.5


def test_another_library_gpu_shape_or_network_needs_another_engine(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    cache = EngineCache(tmp_path)
    half, in_half = red_bundle.network + b"half", Spec("float16", (1, 2, 4), SIZES)

    def with_networks(float32: bytes, float16: bytes) -> Bundle:
        return replace(red_bundle, networks={"float32": float32, "float16": float16})

    asked: list[tuple[Any, Bundle, Spec, Device]] = [
        (module(), red_bundle, SPEC, Device()),
        (module("10.3.1"), red_bundle, SPEC, Device()),
        (module(name="tensorrt_rtx"), red_bundle, SPEC, Device()),
        (module(), red_bundle, SPEC, Device("Orin Nano")),
        (module(), red_bundle, SPEC, Device(capability=(8, 9))),
        (module(), red_bundle, Spec("float32", (1, 1, 4), SIZES), Device()),
        (module(), red_bundle, Spec("float32", (1, 2, 4), (*SIZES[:2], (128, 256))), Device()),
        (module(), with_networks(red_bundle.network, half), in_half, Device()),
        (module(), with_networks(red_bundle.network, half + b"\0"), in_half, Device()),
        (module(), with_networks(red_bundle.network + b"\0", half), in_half, Device()),
        (module(), replace(red_bundle, mask_threshold=0.25), SPEC, Device()),
        (module(), replace(red_bundle, normalisation=Normalisation(1.0, 0.0)), SPEC, Device()),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "gate", lambda *_: Agreement(0, 0, 1))
        for trt, bundle, spec, gpu in asked * 2:
            engine_for(trt, bundle, spec, gpu, machine.run, cache)
    assert machine.builds == len(asked)


def test_an_engine_for_any_gpu_is_built_once_and_checked_on_each(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    trt = module(name="tensorrt_rtx")
    for gpu in (Device("RTX 3060", (8, 6)), Device("RTX 4090", (8, 9))):
        engine_for(trt, red_bundle, SPEC, gpu, machine.run, EngineCache(tmp_path))
    assert (machine.builds, machine.checks) == (1, 2)
    engine_for(trt, red_bundle, SPEC, Device("A100", (8, 0)), machine.run, EngineCache(tmp_path))
    with pytest.raises(EngineError, match=r"need compute capability 8\.0; RTX 2080 has 7\.5"):
        engine_for(trt, red_bundle, SPEC, Device("RTX 2080", (7, 5)), machine.run, EngineCache(tmp_path))


def halve(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return maps / 2


def poison(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(maps, np.nan)


def brighten(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """No more than an INT8 engine may, and more than a float32 one may."""
    return np.minimum(maps + np.float32(0.015), 1)


@pytest.mark.parametrize(
    ("change", "said"), [(halve, r"probability 0\.5"), (poison, "NaN"), (brighten, r"probability 0\.015")]
)
def test_a_bad_engine_is_refused_and_not_built_again(
    red_bundle: Bundle, machine: Machine, tmp_path: Path, change: Any, said: str
) -> None:
    machine.change = change
    cache = EngineCache(tmp_path)
    with pytest.raises(ParityError, match=said):
        engine_for(module(), red_bundle, SPEC, Device(), machine.run, cache)
    with pytest.raises(EngineError, match=rf"{said}.*magrt build tries again"):
        engine_for(module(), red_bundle, SPEC, Device(), machine.run, cache)
    assert (machine.builds, machine.checks) == (1, 1) and not list(tmp_path.glob("*.engine"))


def test_an_engine_that_is_refused_on_one_gpu_serves_the_others(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    trt, cache = module(name="tensorrt_rtx"), EngineCache(tmp_path)
    good, bad, worse, other = (Device(name, (8, 6)) for name in ("RTX 3060", "RTX 4090", "RTX 4080", "RTX 5090"))

    def ask(gpu: Device) -> bytes:
        return engine_for(trt, red_bundle, SPEC, gpu, machine.run, cache)

    ask(good)
    machine.change = halve
    for gpu in (bad, worse):
        with pytest.raises(ParityError):
            ask(gpu)
    machine.change = lambda maps: maps
    with pytest.raises(EngineError, match="magrt build tries again"):
        ask(bad)
    assert ask(good) == ask(other) == ask(good) == b"engine 1"
    for gpu in (bad, worse):
        with pytest.raises(EngineError, match="magrt build tries again"):
            ask(gpu)
    assert (machine.builds, machine.checks) == (1, 4)  # what is known of a GPU is not looked for again


def test_a_cache_that_cannot_be_written_does_not_keep_it_from_being_used(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "below")
    assert engine_for(module(), red_bundle, SPEC, Device(), machine.run, cache) == b"engine 1"
    machine.change = halve
    with pytest.raises(ParityError, match="disagrees with the float32 reference"):
        engine_for(module(), red_bundle, SPEC, Device(), machine.run, cache)


def test_a_new_engine_that_does_not_load_is_not_built_over_and_over(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    def run(engine: bytes) -> AbstractContextManager[Annotate]:
        raise UnloadableError("TensorRT does not load this engine")

    with pytest.raises(EngineError, match="does not load this engine") as caught:
        engine_for(module(), red_bundle, SPEC, Device(), run, EngineCache(tmp_path))
    assert not isinstance(caught.value, UnloadableError)  # which would ask for one more
    assert machine.builds == 1 and not list(tmp_path.glob("*.engine"))


def test_a_kept_engine_that_does_not_load_is_replaced_when_asked_and_a_new_one_is_not(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    def run(engine: bytes) -> AbstractContextManager[Annotate]:
        if engine in unloadable:
            raise UnloadableError("TensorRT-RTX does not load this engine")
        return machine.run(engine)

    def ask(name: str, *, anew: bool = False) -> bytes:
        trt, gpu = module(name="tensorrt_rtx"), Device(name, (8, 6))
        return engine_for(trt, red_bundle, SPEC, gpu, run, EngineCache(tmp_path), anew=anew)

    unloadable: set[bytes] = set()
    assert ask("RTX 3060") == b"engine 1"
    unloadable = {b"engine 1"}
    with pytest.raises(UnloadableError):
        ask("RTX 4090")
    assert ask("RTX 4090", anew=True) == ask("RTX 4090") == b"engine 2"
    unloadable = {b"engine 2", b"engine 3"}
    with pytest.raises(EngineError, match="does not load this engine") as caught:
        ask("RTX 5090", anew=True)
    assert not isinstance(caught.value, UnloadableError)  # which would ask for one more
    assert machine.builds == 3


def test_timings_are_kept_from_build_to_build(red_bundle: Bundle, machine: Machine, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for precision in ((1, 1, 4), (1, 2, 4)):
        engine_for(module(), red_bundle, Spec("float32", precision, SIZES), Device("A B"), machine.run, cache)
    assert (tmp_path / "tensorrt-10.3.0-A-B.timings").read_bytes() == b"++"


def test_more_classes_than_the_kernels_take_are_refused_before_anything_is_built(
    red_bundle: Bundle, machine: Machine, tmp_path: Path
) -> None:
    many = replace(red_bundle, classes=tuple(f"class {number}" for number in range(31)))
    with pytest.raises(EngineError, match="the kernels take up to 30 classes; the bundle has 31"):
        engine_for(module(), many, SPEC, Device(), machine.run, EngineCache(tmp_path))
    assert machine.builds == 0
    assert engines.describe(module(), replace(many, classes=many.classes[:30]), SPEC, Device())


def test_an_engine_of_tensorrt_is_for_a_gpu_that_is_there(red_bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="and there is none here; --rtx needs none"):
        engines.describe(module(), red_bundle, SPEC, None)


def test_a_bundle_without_the_network_says_so(red_bundle: Bundle, machine: Machine, tmp_path: Path) -> None:
    spec = Spec("float16", (1, 1, 1), SIZES)
    with pytest.raises(BundleError, match=r"has no float16 network \(it has float32\)"):
        engine_for(module(), red_bundle, spec, Device(), machine.run, EngineCache(tmp_path))
