"""The annotator through OpenVINO on the CPU: the faster backend, and the one that INT8 is worth it on."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import Bundle
from mag_rt.errors import BackendError, BundleError, MagrtError, PictureError

UNSIGNED_REACH = 1.5
"""How far unsigned integers go against the signed ones of a bundle; with 255/127 their steps would be the same."""
_TELEMETRY = "openvino_telemetry"


class OpenVINOBackend:
    """Runs one of a bundle's networks, `float32` or `int8`, on the CPU.

    `calls`: threads that may call it at the same time; each call then computes on its share of the cores. That is
    faster than all cores on one picture, which wait for each other at every layer.

    Raises BackendError when OpenVINO is not installed or was used before this process was forked (called, too),
    BundleError when the bundle lacks the network or OpenVINO refuses it. Weights that are no numbers are looked for at
    the start, for in grey levels NaN cannot be told from 0.
    """

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str = "float32", calls: int = 1) -> None:
        openvino = _openvino()
        self.version, self.precision = openvino.__version__.partition("-")[0], precision
        self._tensor = openvino.Tensor
        self._bundle, self._calls = bundle, calls
        self._channels = 2 + len(bundle.classes)
        self._start()

    def _start(self) -> None:
        # Kernels of that many layers are kept; pictures come in many shapes, and those of all would pile up: 500 take
        # 90 MB more and save no time.
        options = {"NUM_STREAMS": self._calls, "CPU_RUNTIME_CACHE_CAPACITY": 50}
        multiple = self._bundle.multiple
        try:
            self._compiled = compiled(self._bundle.network_in(self.precision), options, grey=True)
            self._requests = threading.local()
            # Once here, before several threads call: where the first two calls came at the same time, the library's
            # bindings waited for each other forever (its NumPy is set up by the first, which wants the GIL for it).
            picture = np.zeros((1, 3, multiple, multiple), np.float32)
            self._bundle.check_annotation(self._request.infer({"image": picture})["annotation"].shape)
        except MagrtError:
            raise
        except (RuntimeError, KeyError) as error:  # KeyError: other names than ours
            raise BundleError(f"openvino refuses the {self.precision} network: {_reason(error)}") from None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        _core()  # which refuses a process forked from the one that opened this
        number, _, height, width = images.shape
        annotation = np.empty((number, self._channels, height, width), np.uint8)
        try:
            request = self._request
            # Written where it is wanted. The tensor does not keep the array alive: it is set anew for each call.
            request.set_output_tensor(self._tensor(annotation, shared_memory=True))
            request.infer({"image": images}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            self._start()  # or what comes next may fail of what this has left in the library
            shape = " x ".join(map(str, images.shape))
            raise PictureError("not-run", f"openvino does not run a batch of {shape}: {_reason(error)}") from None
        return annotation

    @property
    def _request(self) -> Any:
        """This thread's own."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        return self._requests.own

    def close(self) -> None:
        self._compiled = None
        self._requests = threading.local()


def compiled(network: bytes, options: dict[str, Any], grey: bool = False) -> Any:
    """OpenVINO's CompiledModel of an ONNX network, float32 or INT8, for the CPU, with options of the library.

    `grey`: its output, a probability, is to come as the nearest of 256 grey levels.
    Raises BackendError when OpenVINO is not installed or was used before this process was forked, RuntimeError when it
    refuses the network or, with `grey`, a weight is no number.
    """
    openvino, core = _openvino(), _core()
    model = core.read_model(network)
    _unsign(openvino, model)
    if grey:
        _must_be_numbers(model)
        _end_in_grey(openvino, model)
    # Or else OpenVINO takes bfloat16 where the CPU has it, whose step near 1 is half a grey level.
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})


def _reason(error: Exception) -> str:
    """The last line of what OpenVINO says, before which it tells where in its source it was."""
    return str(error).strip().splitlines()[-1]


def _core() -> Any:
    """OpenVINO itself.

    Raises BackendError in a process forked from one that has used it: its threads are not there, and it would wait for
    them forever.
    """
    core, process = _started()
    if process != os.getpid():
        raise BackendError(
            "openvino was used before this process was forked, which it does not survive: "
            "start processes by spawn or forkserver"
        )
    return core


@cache
def _started() -> tuple[Any, int]:
    """OpenVINO's Core, once for as long as the process lives, and the number of the process that it was started in.

    With AVX-512 each Core (2026.4 at least) gives the thread that uses it first another stack for signal handlers, and
    frees it in the end. Where two end in the order in which they began, the stack that was freed is the one in use, and
    the next signal, be it Ctrl-C, is the end of the process.
    """
    return _openvino().Core(), os.getpid()


def _openvino() -> Any:
    with _no_telemetry():
        try:
            import openvino  # here, so that importing mag_rt stays light and works without it
        except ImportError as error:
            if error.name != "openvino":
                raise BackendError(f"openvino cannot be loaded: {error}") from None
            raise BackendError("openvino is not installed: pip install 'magrt[openvino]'") from None
    return openvino


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Import OpenVINO in it: it does not find the package that reports its use, and does without for good.

    OpenVINO sends a first message when it is imported, unless a file in the user's home says no.
    """
    missing = object()
    before = sys.modules.get(_TELEMETRY, missing)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # an import of it now raises ImportError
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]


def _must_be_numbers(network: Any) -> None:
    constants = (node for node in network.get_ordered_ops() if node.get_type_name() == "Constant")
    if not all(np.isfinite(node.data).all() for node in constants):
        raise RuntimeError("it holds weights that are no numbers")


def _end_in_grey(openvino: Any, network: Any) -> None:
    operators, constant = openvino.opset13, openvino.opset13.constant
    (result,) = network.get_results()
    end = result.input_value(0)
    names = end.get_names()
    # Before pixels are only moved: as bytes they are a quarter to move, and of a large picture 24 MB less.
    reader = end.get_node() if end.get_node().get_type_name() == "DepthToSpace" else result
    probability = reader.input_value(0)
    # A convolution takes this in; multiplied, rounded and converted one by one it costs 7% of the network's time.
    zero, one, most = (constant(np.float32(value)) for value in (0, 1, 255))
    grey = operators.convert(operators.fake_quantize(probability, zero, one, zero, most, 256), "u8")
    reader.input(0).replace_source_output(grey.output(0))
    network.validate_nodes_and_infer_types()
    probability.set_names(set())
    result.input_value(0).set_names(names)


def _unsign(openvino: Any, network: Any) -> None:
    """Quantise what is never negative to 0 ... 255 instead of -128 ... 127, `UNSIGNED_REACH` times as far.

    A bundle's INT8 is signed, as TensorRT wants it, which wastes the sign on what comes from a ReLU; here half as much
    again fits before it is clipped, in steps of three quarters. It is also needed: OpenVINO (2026.4 at least) computes
    wrong results where signed numbers are concatenated. And what was quantised before it was concatenated is not
    quantised again.
    """
    constant = openvino.opset13.constant
    for node in network.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize" or not _never_negative(node.input_value(0).get_node()):
            continue
        source = node.input_value(0)
        low, high = np.float32(0), node.input_value(2).get_node().data * np.float32(UNSIGNED_REACH)
        if not _is_quantised(source.get_node(), high):
            low, high = constant(low), constant(high)
            source = openvino.opset13.fake_quantize(source, low, high, low, high, 256).output(0)
        for reader in [each for end in _dequantised(node) for each in end.output(0).get_target_inputs()]:
            reader.replace_source_output(source)
    network.validate_nodes_and_infer_types()


def _never_negative(node: Any) -> bool:
    sources = [value.get_node() for value in node.input_values()]
    match node.get_type_name():
        case "Relu" | "Sigmoid":
            return True
        case "Multiply" | "Add" | "Concat":
            return all(map(_never_negative, sources))
        case "Interpolate" | "FakeQuantize":
            return _never_negative(sources[0])
    return False


def _is_quantised(node: Any, high: NDArray[np.float32]) -> bool:
    """Whether everything in it was quantised up to `high` already."""
    sources = [value.get_node() for value in node.input_values()]
    match node.get_type_name():
        case "FakeQuantize":
            return bool((sources[2].data == high).all())
        case "Concat":
            return all(_is_quantised(each, high) for each in sources)
        case "Interpolate":  # nearest: with other ways there would be values between the steps
            return node.get_attributes()["mode"] == "nearest" and _is_quantised(sources[0], high)
    return False


def _dequantised(quantise: Any) -> list[Any]:
    """The nodes that give the numbers back which a FakeQuantize of ONNX's QuantizeLinear made integers of.

    Where the integers are moved or the like before, they stay signed.
    """
    found, waiting = [], [quantise]
    while waiting:
        for reader in waiting.pop().output(0).get_target_inputs():
            match reader.get_node().get_type_name():
                case "Multiply":
                    found.append(reader.get_node())
                case "Convert" | "Subtract":
                    waiting.append(reader.get_node())
    return found
