"""The annotator through ONNX Runtime on the CPU: the backend that works everywhere."""

import numpy as np
from numpy.typing import NDArray

from mag_rt.bundle import Bundle
from mag_rt.errors import BundleError


class OnnxRuntimeBackend:
    """Runs a bundle's float32 network on all cores. Raises BundleError when ONNX Runtime refuses the network."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle) -> None:
        import onnxruntime  # here, so that importing mag_rt stays light

        self.version = onnxruntime.__version__  # the distribution may be called onnxruntime-gpu or otherwise
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: its warnings are about the graph, not about the user's pictures
        options.enable_mem_pattern = False  # pictures come in many shapes; a plan for each would pile up
        try:
            self._session = onnxruntime.InferenceSession(bundle.network, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base class
            reason = str(error).splitlines()[0]
            raise BundleError(f"onnxruntime refuses the network: {reason}") from None

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._session.run(["annotation"], {"image": images})[0]

    def close(self) -> None:
        self._session = None
