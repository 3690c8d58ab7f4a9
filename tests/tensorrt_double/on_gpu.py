"""The double on a GPU: an engine's network is run there by PyTorch, on the stream that it is enqueued on.

For a machine that has a GPU and no TensorRT. `library()` gives what stands for the module; engines are those that
`tensorrt_double.serialise` makes. It is as strict as the double on the host, the driver and the memory are real, and
what PyTorch computes in float16 the GPU has rounded. How fast TensorRT is it does not tell.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional

from mag_rt.driver import CudaError
from tests import tensorrt_double as double

CHANNELS_LAST = torch.channels_last


class Network:
    """An ONNX network as calls of PyTorch: of the operators that annotators and the networks of the tests have.

    Raises KeyError for an operator that is not among them.
    """

    def __init__(self, model: bytes, device: str) -> None:
        graph = onnx.load_model_from_string(model).graph
        self._arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self._weights = {name: _placed(array, device) for name, array in self._arrays.items()}
        self._steps = [(OPERATORS[node.op_type], node, _attributes(node)) for node in graph.node]
        self._outputs = [output.name for output in graph.output]

    @torch.inference_mode()
    def __call__(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs for the inputs, each by name; on a GPU they are queued on the current stream."""
        values = self._weights | images
        for operator, node, attributes in self._steps:
            given = [values[name] if name else None for name in node.input]
            known = [self._arrays.get(name) for name in node.input]
            (name,) = node.output
            values[name] = operator(given, known, attributes)
        return {name: values[name] for name in self._outputs}


Given = list[Any]
"""Tensors; None where an input is left out."""
Known = list[NDArray[Any] | None]
"""Those of them that are constants, on the host."""
Attributes = dict[str, Any]


def _dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _placed(array: NDArray[Any], device: str) -> Tensor:
    tensor = torch.from_numpy(array.copy()).to(device)
    return tensor.contiguous(memory_format=CHANNELS_LAST) if tensor.ndim == 4 else tensor


def _attributes(node: NodeProto) -> Attributes:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _conv(given: Given, _: Known, attributes: Attributes) -> Tensor:
    image, weight, bias = [*given, None][:3]
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right) or attributes.get("group", 1) != 1:
        raise NotImplementedError(f"Conv with {attributes}")
    image = image.contiguous(memory_format=CHANNELS_LAST)
    # As in an engine of ours: the ten bits of TF32 are too few for the high-pass.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return functional.conv2d(image, weight, bias, attributes.get("strides", (1, 1)), (top, left))


def _pad(given: Given, known: Known, attributes: Attributes) -> Tensor:
    pads = known[1]
    assert pads is not None
    begin, end = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    mode = attributes.get("mode", b"constant").decode()
    axes = len(begin) if mode == "constant" else 2  # mirrored are the sides alone
    if np.any(begin[:-axes]) or np.any(end[:-axes]):
        raise NotImplementedError(f"Pad of {pads}")
    # PyTorch wants the last axis first.
    sides = [int(side) for pair in zip(begin[::-1][:axes], end[::-1][:axes], strict=True) for side in pair]
    return functional.pad(given[0], sides, mode)


def _resize(given: Given, known: Known, attributes: Attributes) -> Tensor:
    scales = known[2]
    if scales is None or attributes["mode"] != b"nearest" or list(scales[:2]) != [1, 1]:
        raise NotImplementedError(f"Resize with {attributes}")
    return functional.interpolate(given[0], scale_factor=[float(scale) for scale in scales[2:]], mode="nearest")


def _shuffle(given: Given, _: Known, attributes: Attributes) -> Tensor:
    if attributes.get("mode", b"DCR") != b"CRD":
        raise NotImplementedError(f"DepthToSpace with {attributes}")
    return functional.pixel_shuffle(given[0], attributes["blocksize"])


def _slice(given: Given, known: Known, _: Attributes) -> Tensor:
    starts, ends, axes, *steps = [list(map(int, each)) for each in known[1:] if each is not None]
    if steps == [[-1] * len(axes)] and set(starts) == {-1}:
        return given[0].flip(axes)
    if steps or len(axes) != 1:
        raise NotImplementedError(f"Slice from {starts} to {ends} by {steps}")
    (start,), (end,), (axis,) = starts, ends, axes
    return given[0].narrow(axis, min(start, given[0].shape[axis]), max(0, min(end, given[0].shape[axis]) - start))


def _mean(given: Given, known: Known, attributes: Attributes) -> Tensor:
    axes = known[1]
    assert axes is not None
    return given[0].mean([int(axis) for axis in axes], keepdim=bool(attributes.get("keepdims", 1)))


def _cast(given: Given, _: Known, attributes: Attributes) -> Tensor:
    return given[0].to(_dtype(helper.tensor_dtype_to_np_dtype(attributes["to"])))


def _of_tensors(function: Callable[..., Tensor]) -> Callable[[Given, Known, Attributes], Tensor]:
    return lambda given, known, attributes: function(*given)


OPERATORS: dict[str, Callable[[Given, Known, Attributes], Tensor]] = {
    "Add": _of_tensors(torch.add),
    "Cast": _cast,
    "Concat": lambda given, known, attributes: torch.cat(given, attributes["axis"]),
    "Conv": _conv,
    "DepthToSpace": _shuffle,
    "Div": _of_tensors(torch.div),
    "Identity": _of_tensors(torch.clone),
    "Mul": _of_tensors(torch.mul),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _of_tensors(torch.relu),
    "Resize": _resize,
    "Sigmoid": _of_tensors(torch.sigmoid),
    "Slice": _slice,
    "Sqrt": _of_tensors(torch.sqrt),
}


class _Memory:
    """An array of the device as PyTorch takes it, where it lies."""

    def __init__(self, address: int, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self.__cuda_array_interface__ = {
            "shape": tuple(shape),
            "typestr": dtype.str,
            "data": (address, False),
            "version": 2,
        }


class ICudaEngine(double.ICudaEngine):
    def __init__(self, logger: double.ILogger, network: bytes, profiles: list[dict[str, Any]]) -> None:
        super().__init__(logger, network, profiles)
        self.network = Network(network, "cuda")
        torch.cuda.synchronize()  # the weights are there for every stream

    def of_zeros(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        dtypes = {name: _dtype(double.TYPES[self.inputs[name].type][1]) for name in shapes}
        return self.network({name: torch.zeros(s, dtype=dtypes[name], device="cuda") for name, s in shapes.items()})


class IExecutionContext(double.IExecutionContext):
    engine: ICudaEngine

    def _enqueue(self, run: double.Run, stream_handle: int) -> None:
        tensors = {
            name: torch.as_tensor(_Memory(*place), device="cuda")
            for name, place in zip(self.engine.tensors, run.places(), strict=True)
        }
        with torch.cuda.stream(torch.cuda.ExternalStream(stream_handle)):
            for name in self.engine.outputs:
                tensors[name].fill_(torch.nan)  # for whoever reads too early
            images = {name: tensors[name] for name in self.engine.inputs}
            for name, values in self.engine.network(images).items():
                tensors[name].copy_(values)


class Runtime(double.Runtime):
    engine = ICudaEngine


ICudaEngine.context = IExecutionContext


def library() -> Any:
    """What stands for the module. Raises CudaError where PyTorch has no GPU."""
    if not torch.cuda.is_available():
        raise CudaError(f"PyTorch {torch.__version__} has no GPU here")
    module = double.library()
    for each in (Runtime, ICudaEngine, IExecutionContext):
        setattr(module, each.__name__, each)
    return module
