"""Launches a kernel of overrun.cu under AddressSanitizer, which ends the process: for test_sanitize.py."""

import ctypes
import sys

import numpy as np

from tests.cuda_host.conftest import KERNELS, stand_in
from tests.cuda_host.host import load


def main(name: str) -> None:
    host = load()
    host.reset(0)
    import pycuda.driver as drv

    kernels = host.build(KERNELS / "overrun.cu")
    host.register(stand_in(kernels), kernels)
    drv.init()
    context = drv.Device(0).make_context()
    kernel = drv.module_from_buffer(stand_in(kernels).encode()).get_function(name)
    y = drv.mem_alloc(32)
    kernel(y, np.int32(8 if name != "of_nothing" else 7), block=(1, 1, 1), shared=32)
    if name == "of_host":
        short = np.zeros(4, np.uint8)  # pycuda would look at its size, the driver cannot
        ctypes.CDLL("libcuda.so.1").cuMemcpyDtoH_v2(ctypes.c_void_p(short.ctypes.data), ctypes.c_uint64(int(y)), 32)
    drv.Context.synchronize()
    context.pop()


if __name__ == "__main__":
    main(sys.argv[1])
