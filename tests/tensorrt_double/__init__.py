"""A double of the TensorRT runtime: engines are run by ONNX Runtime, on the CUDA host, in their stream's order.

`library()` gives what stands for the module `tensorrt` (or `tensorrt_rtx`); `serialise` makes the bytes of an engine of
a network and its profiles. It is strict where TensorRT forgives or fails at random: shapes must lie within the profile,
types be those of the bindings, addresses aligned and on the device, now and when the work is done; a context must be
current; a profile is set before shapes are and on the stream that runs; nothing is destroyed while it is in use. What
is broken without an answer to the caller is kept in `broken_rules`, for a fixture to look at.
"""

import ctypes
import enum
import itertools
import json
from collections.abc import Callable, Sequence
from math import prod
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

MAGIC = b"an engine of the double\n"


class DataType(enum.Enum):
    """Those of TensorRT that a network's input or output may have."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


TYPES = {
    "tensor(float)": (DataType.FLOAT, np.dtype(np.float32)),
    "tensor(float16)": (DataType.HALF, np.dtype(np.float16)),
    "tensor(int8)": (DataType.INT8, np.dtype(np.int8)),
    "tensor(int32)": (DataType.INT32, np.dtype(np.int32)),
    "tensor(bool)": (DataType.BOOL, np.dtype(np.bool_)),
    "tensor(uint8)": (DataType.UINT8, np.dtype(np.uint8)),
}

broken_rules: list[str] = []
_work: dict[int, Callable[[], None]] = {}
_tickets = itertools.count(1)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _do(ticket: int) -> None:
    try:
        _work.pop(ticket)()
    except Exception as error:
        broken_rules.append(f"{type(error).__name__}: {error}")


def _queue(stream: int, work: Callable[[], None]) -> int:
    """The ticket of work that is done when the stream gets there: it is in `_work` until then."""
    ticket = next(_tickets)
    _work[ticket] = work
    error = _cuda().cuLaunchHostFunc(ctypes.c_void_p(stream), _do, ctypes.c_void_p(ticket))
    if error:
        del _work[ticket]
        raise RuntimeError(f"CUDA error {error}")
    return ticket


def under_way() -> bool:
    """Whether anything that was queued has not been done."""
    return bool(_work)


def _cuda() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _context_is_current() -> bool:
    context = ctypes.c_void_p()
    return not _cuda().cuCtxGetCurrent(ctypes.byref(context)) and bool(context.value)


def _on_device(address: int, nbytes: int) -> bool:
    """Whether these bytes lie within one live allocation of the device."""
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    if _cuda().cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address)):
        return False
    return base.value <= address and address + nbytes <= base.value + size.value


def _memory(address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array at an address of the device, which is memory of this process."""
    nbytes = prod(shape) * dtype.itemsize
    if not _on_device(address, nbytes):
        raise MemoryError(f"{nbytes} bytes at 0x{address:x} are not, or no longer, the device's")
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), dtype).reshape(shape)


class Dims:
    """A shape as the bindings give it: to be iterated over, and no tuple."""

    def __init__(self, sides: Sequence[int]) -> None:
        self._sides = tuple(sides)

    def __iter__(self) -> Any:
        return iter(self._sides)

    def __len__(self) -> int:
        return len(self._sides)

    def __getitem__(self, index: int) -> int:
        return self._sides[index]

    __hash__ = None  # type: ignore[assignment]


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.made = True  # the bindings fail for a subclass that does not call this

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    """Prints what is at least as severe."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Severity, msg: str) -> None:
        if severity <= self.min_severity:
            print(f"[TRT] {msg}")


class Runtime:
    version: ClassVar[str] = ""
    engine: "ClassVar[type[ICudaEngine]]"

    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger) or not getattr(logger, "made", False):
            raise TypeError("Runtime(): incompatible constructor arguments")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        if not _context_is_current():
            broken_rules.append("an engine is deserialised where no context is current")
        if not bytes(serialized_engine).startswith(MAGIC):
            self._logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization assertion")
            return None
        header, _, network = bytes(serialized_engine).removeprefix(MAGIC).partition(b"\n")
        facts = json.loads(header)
        if facts["version"] != self.version:
            mine, its = self.version, facts["version"]
            self._logger.log(Severity.ERROR, f"The engine is of version {its}, this library of {mine}")
            return None
        return self.engine(self._logger, network, facts["profiles"])


class ICudaEngine:
    context: "ClassVar[type[IExecutionContext]]"

    def __init__(self, logger: ILogger, network: bytes, profiles: list[dict[str, Any]]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
        self.logger, self.profiles = logger, profiles
        self._results: dict[Any, dict[str, tuple[int, ...]]] = {}
        self.inputs = {tensor.name: tensor for tensor in self.session.get_inputs()}
        self.outputs = {tensor.name: tensor for tensor in self.session.get_outputs()}
        self.tensors = self.inputs | self.outputs

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name not in self.tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return TYPES[self.tensors[name].type][0]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims([side if isinstance(side, int) else -1 for side in self.tensors[name].shape])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self.profiles[profile_index][name]]

    def results(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shape of each output when the inputs have these."""
        key = tuple(sorted(shapes.items()))
        if key not in self._results:
            self._results[key] = {name: tuple(values.shape) for name, values in self.of_zeros(shapes).items()}
        return self._results[key]

    def of_zeros(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        """What the network makes of inputs of these shapes that hold nothing."""
        zeros = {name: np.zeros(shape, TYPES[self.tensors[name].type][1]) for name, shape in shapes.items()}
        return dict(zip(self.outputs, self.session.run(list(self.outputs), zeros), strict=True))

    def create_execution_context(self) -> "IExecutionContext | None":
        memory = ctypes.c_uint64()
        if _cuda().cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(4096)):
            self.logger.log(Severity.ERROR, "createExecutionContext: Error Code 2: OutOfMemory")
            return None
        return self.context(self, memory.value)


class IExecutionContext:
    runs: ClassVar[list["Run"]] = []

    def __init__(self, engine: ICudaEngine, memory: int) -> None:
        self.engine, self._memory = engine, memory
        self._profile: int | None = None
        self._stream: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._queued: list[int] = []

    def __del__(self) -> None:
        if any(ticket in _work for ticket in self._queued):
            broken_rules.append("an execution context is destroyed while it is in use")
        if not _context_is_current():
            broken_rules.append("an execution context is destroyed where no context is current")
        elif _cuda().cuMemFree_v2(ctypes.c_uint64(self._memory)):
            broken_rules.append("an execution context is destroyed after the memory that it lies in")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < len(self.engine.profiles):
            return self._refuse(f"setOptimizationProfileAsync: there is no profile {profile_index}")
        self._profile, self._stream, self._shapes = profile_index, stream_handle, {}
        self._queued.append(_queue(stream_handle, lambda: None))
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        if not isinstance(shape, tuple | list | Dims) or any(type(side) is not int for side in shape):
            raise TypeError("set_input_shape(): incompatible function arguments")
        if name not in self.engine.inputs:
            return self._refuse(f"setInputShape: {name} is no input")
        if self._profile is None:
            return self._refuse("setInputShape: no optimization profile is set")
        least, _, most = self.engine.profiles[self._profile][name]
        if len(shape) != len(least) or not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            return self._refuse(f"setInputShape: {tuple(shape)} is not within the profile's {least} and {most}")
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if type(memory) is not int:
            raise TypeError("set_tensor_address(): incompatible function arguments")
        if name not in self.engine.tensors or memory % 256:
            return self._refuse(f"setTensorAddress: {name} at 0x{memory:x}")
        self._addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._shapes:
            return Dims(self._shapes[name])
        if self.infer_shapes():
            return self.engine.get_tensor_shape(name)
        return Dims(self.engine.results(self._shapes)[name])

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self._shapes]

    def execute_async_v3(self, stream_handle: int) -> bool:
        if type(stream_handle) is not int:
            raise TypeError("execute_async_v3(): incompatible function arguments")
        if missing := self.infer_shapes() or [name for name in self.engine.tensors if name not in self._addresses]:
            return self._refuse(f"enqueueV3: neither shape nor address may be missing, of {', '.join(missing)}")
        if stream_handle == 0:
            return self._refuse("enqueueV3: the default stream")
        if stream_handle != self._stream:
            return self._refuse("enqueueV3: another stream than the one that the profile was set on")
        run = Run(self.engine, dict(self._shapes), dict(self._addresses))
        for address, shape, dtype in run.places():
            if not _on_device(address, prod(shape) * dtype.itemsize):
                return self._refuse(f"enqueueV3: 0x{address:x} has no room for {shape} of {dtype}")
        self.runs.append(run)
        self._enqueue(run, stream_handle)
        return True

    def _enqueue(self, run: "Run", stream_handle: int) -> None:
        # Twice, so that whoever reads too early or writes too early has its chance in between.
        self._queued = [ticket for ticket in self._queued if ticket in _work]
        self._queued += [_queue(stream_handle, run.begin), _queue(stream_handle, run.end)]

    def _refuse(self, why: str) -> bool:
        self.engine.logger.log(Severity.ERROR, f"IExecutionContext::{why}")
        return False


class Run:
    """A run that was enqueued, with what was set then. `ahead`: runs enqueued in all when it was done."""

    def __init__(self, engine: ICudaEngine, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        self.engine, self.shapes, self.addresses = engine, shapes, addresses
        self.ahead: int | None = None
        self.results = engine.results(shapes)

    def places(self) -> list[tuple[int, tuple[int, ...], np.dtype[Any]]]:
        """Address, shape and type of every tensor."""
        sides = self.shapes | self.results
        return [(self.addresses[name], sides[name], self.dtype(name)) for name in self.engine.tensors]

    def dtype(self, name: str) -> np.dtype[Any]:
        return TYPES[self.engine.tensors[name].type][1]

    def begin(self) -> None:
        for name, shape in self.results.items():
            _memory(self.addresses[name], shape, self.dtype(name)).view(np.uint8)[...] = 0xFF  # NaN

    def end(self) -> None:
        self.ahead = len(IExecutionContext.runs)
        images = {name: _memory(self.addresses[name], shape, self.dtype(name)) for name, shape in self.shapes.items()}
        names = list(self.results)
        with np.errstate(all="ignore"):
            maps = self.engine.session.run(names, {name: image.copy() for name, image in images.items()})
        for name, values in zip(names, maps, strict=True):
            _memory(self.addresses[name], self.results[name], self.dtype(name))[...] = values


Runtime.engine, ICudaEngine.context = ICudaEngine, IExecutionContext


def library(name: str = "tensorrt", version: str = "10.3.0") -> Any:
    """What stands for the module: its names, no run behind it, no rule broken."""
    broken_rules.clear()
    IExecutionContext.runs.clear()
    Runtime.version = version
    module = ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    for each in (DataType, TensorIOMode, ILogger, Logger, Runtime, ICudaEngine, IExecutionContext, Dims):
        setattr(module, each.__name__, each)
    return module


def serialise(network: bytes, *profiles: dict[str, list[tuple[int, ...]]], version: str = "10.3.0") -> bytes:
    """An engine of an ONNX network. A profile gives least, best and most shape of each input by name."""
    return MAGIC + json.dumps({"version": version, "profiles": profiles}).encode() + b"\n" + network
