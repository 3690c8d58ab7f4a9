"""Which backend runs which of a bundle's networks on the CPU, and why."""

from importlib.util import find_spec
from typing import NamedTuple

from mag_rt.backends import Backend
from mag_rt.backends.onnxruntime import OnnxRuntimeBackend
from mag_rt.backends.openvino import OpenVINOBackend
from mag_rt.bundle import Bundle
from mag_rt.errors import BackendError

BACKENDS: dict[str, type[OpenVINOBackend] | type[OnnxRuntimeBackend]] = {
    "openvino": OpenVINOBackend,
    "onnxruntime": OnnxRuntimeBackend,
}
PRECISIONS = ("float32", "int8")


class Choice(NamedTuple):
    """A backend that is ready, and in words why it is this one."""

    backend: Backend
    reason: str


def choose(bundle: Bundle, backend: str = "auto", precision: str = "auto", calls: int = 1) -> Choice:
    """Open the CPU backend `backend` (auto, openvino or onnxruntime) in a `precision` (auto, float32 or int8).

    `auto` takes what docs/benchmarks.md measured to be fastest: OpenVINO where it is installed, in INT8 if the bundle
    has it; else ONNX Runtime, in float32, since INT8 gains nothing there. `calls`: threads that call it at the same
    time.

    Raises BackendError (not installed; no such backend or precision) or BundleError (no such network, or refused).
    """
    for what, given, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if given != "auto" and given not in known:
            raise BackendError(f"no {what} {given} on the CPU: it is auto, {' or '.join(known)}")
    if backend != "auto":
        return _opened(bundle, backend, f"{backend} was asked for", precision, calls)
    if find_spec("openvino") is None:
        return _opened(bundle, "onnxruntime", "openvino, which is faster, is not installed", precision, calls)
    try:
        return _opened(bundle, "openvino", "openvino is installed", precision, calls)
    except BackendError as error:  # installed, but not in working order
        return _opened(bundle, "onnxruntime", str(error), precision, calls)


def _opened(bundle: Bundle, backend: str, reason: str, precision: str, calls: int) -> Choice:
    if precision != "auto":
        why = f"{precision} was asked for"
    elif backend == "onnxruntime":
        precision, why = "float32", "float32 is the faster one there"
    elif "int8" in bundle.networks:
        precision, why = "int8", "int8 is the faster one there"
    else:
        precision, why = "float32", "the bundle has no int8 network"
    return Choice(BACKENDS[backend](bundle, precision, calls), f"{reason}; {why}")
