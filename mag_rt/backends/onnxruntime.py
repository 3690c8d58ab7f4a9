"""The annotator through ONNX Runtime on the CPU: the backend that works everywhere."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import Bundle
from mag_rt.errors import BundleError, PictureError
from mag_rt.pictures import as_grey


class OnnxRuntimeBackend:
    """Runs one of a bundle's networks, `float32` or `int8`, on the CPU.

    `calls`: threads that may call it at the same time; each call then computes on its share of the cores.

    Raises BundleError when the bundle lacks the network or ONNX Runtime refuses it.
    """

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str = "float32", calls: int = 1) -> None:
        onnxruntime = load_onnxruntime()
        self.version = onnxruntime.__version__  # the distribution may be called onnxruntime-gpu or otherwise
        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings are about the graph, not about the user's pictures
        options.enable_mem_pattern = False  # pictures come in many shapes; a plan for each would pile up
        if calls > 1:
            options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // calls)
        network = bundle.network_in(precision)
        try:
            self._session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
            tried = self.probabilities(np.zeros((1, 3, bundle.multiple, bundle.multiple), np.float32))
        except Exception as error:  # onnxruntime's exceptions share no public base class
            reason = str(error).splitlines()[0]
            raise BundleError(f"onnxruntime refuses the {precision} network: {reason}") from None
        bundle.check_annotation(tried.shape)
        if not np.isfinite(tried).all():
            raise BundleError(f"the {precision} network gives what is no number")

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.uint8]:
        try:
            annotation = self.probabilities(images)
        except Exception as error:  # as above
            raise PictureError("not-run", f"onnxruntime: {str(error).splitlines()[0]}") from None
        if not np.isfinite(annotation.sum()):  # in a hundredth of the network's time
            raise PictureError("overflow", "the network's answer is NaN or infinite")
        return as_grey(annotation)

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The annotations in [0, 1] as the network gives them: what other networks are compared with."""
        return self._session.run(["annotation"], {"image": images})[0]

    def close(self) -> None:
        self._session = None


def load_onnxruntime() -> Any:
    """The module onnxruntime, which reports to nobody.

    From 1.29 on (on Windows always) it tells its makers on what machine and by which program it is used, unless it is
    told not to: by the variable before it is imported, by the call where it has been. Whatever uses it here imports it
    by this.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # here, so that importing mag_rt stays light

    onnxruntime.disable_telemetry_events()
    return onnxruntime
