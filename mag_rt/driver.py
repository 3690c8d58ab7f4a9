"""The CUDA driver through pycuda: opening it, its primary context, our kernels, memory; errors that say what helps."""

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from mag_rt.errors import MagrtError

KERNELS = {
    "attention_blend_f16": "PPPPi",
    "attention_blend_f32": "PPPPi",
    "heat_overlay": "PQPQPfPQii",
    "accumulate_tiles_f16": "PPiiiiPPii",
    "accumulate_tiles_f32": "PPiiiiPPii",
    "normalise_tiles": "PPii",
    "prepare_f16": "PffPii",
    "prepare_f32": "PffPii",
    "finish_clear": "P",
    "finish_statistics_f16": "PPPii",
    "finish_statistics_f32": "PPPii",
    "finish_masks_f16": "PPiPiii",
    "finish_masks_f32": "PPiPiii",
}
"""The PTX's entry points with their parameters, in the letters of `struct`: pointer, unsigned 64, int, float."""
LEAST_CAPABILITY = (7, 5)
"""Compute capability of the PTX."""


class CudaError(MagrtError):
    """CUDA cannot be used here, or has failed; the message says why and, where something would, what helps."""


def open_driver() -> Any:
    """pycuda.driver, initialised. Raises CudaError without pycuda, driver or GPU."""
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        if error.name != "pycuda":
            raise CudaError(f"pycuda is incomplete: {error}") from None
        brought = "'magrt[gpu-cu12]', 'magrt[gpu-cu13]' and 'magrt[rtx]' bring it"
        raise CudaError(f"pycuda is not installed: pip install pycuda; {brought}") from None
    except ImportError as error:  # libcuda.so.1 is missing, or lacks what this build of pycuda calls
        raise CudaError(f"pycuda finds no NVIDIA driver that it works with: {error}") from None
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise CudaError(f"the NVIDIA driver finds no GPU to work with: {first_line(error)}") from None
    if count == 0:
        raise CudaError("the NVIDIA driver finds no GPU")
    return driver


def ptx() -> bytes:
    """The kernels: of the wheel, or of the checkout that this module is part of. Raises CudaError."""
    here = Path(__file__).parent
    for folder in (here / "_kernels", here.parent / "kernels"):
        with suppress(FileNotFoundError):
            return (folder / "magrt.ptx").read_bytes()
    raise CudaError("magrt.ptx is missing: install magrt again, or run `make kernels` in a checkout")


def load_kernels(driver: Any) -> dict[str, Any]:
    """The kernels, compiled by the driver for its GPU (it caches them), ready to be launched. Raises CudaError."""
    code = ptx()
    try:
        module = driver.module_from_buffer(code)
        return {name: module.get_function(name).prepare(parameters) for name, parameters in KERNELS.items()}
    except driver.Error as error:
        major, minor = divmod(driver.get_driver_version() // 10, 100)
        made_for = code.partition(b".version ")[2].split(maxsplit=1)[0].decode()
        drivers = f"the driver, of CUDA {major}.{minor}, does not load the kernels, of PTX {made_for}"
        raise CudaError(f"{drivers}; a newer driver will: {first_line(error)}") from None


def allocate(driver: Any, nbytes: int) -> Any:
    """Device memory, as pycuda's DeviceAllocation. Raises CudaError, which says how much is free."""
    try:
        return driver.mem_alloc(nbytes)
    except driver.Error as error:
        free, _ = driver.mem_get_info()
        mebibytes = f"{nbytes / 2**20:.0f} MiB of device memory, {free / 2**20:.0f} MiB are free"
        raise CudaError(f"cannot allocate {mebibytes}: {first_line(error)}") from None


def retain(driver: Any, device: Any) -> Any:
    """The primary context of a pycuda Device, for `release` to give back. Raises CudaError."""
    try:
        return device.retain_primary_context()
    except driver.Error as error:  # no memory for it, or a device that allows none
        raise CudaError(f"{device.name()} gives no context: {first_line(error)}") from None


def release(context: Any, ordinal: int) -> None:
    """Give the primary context back.

    pycuda's detach releases it in the thread that retained it only, and leaves it current there. In a thread of its
    own detach just marks the object as dead, and the driver is told directly.
    """
    detaching = threading.Thread(target=context.detach)
    detaching.start()
    detaching.join()
    libcuda, device = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1"), ctypes.c_int()
    libcuda.cuDeviceGet(ctypes.byref(device), ordinal)
    libcuda.cuDevicePrimaryCtxRelease_v2(device)


def first_line(error: Exception) -> str:
    """What an error of pycuda's says, less the compiler's log."""
    return str(error).partition("\n")[0]
