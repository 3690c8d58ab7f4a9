"""Compiles magrt.cu to magrt.ptx with NVRTC 12.6: the one PTX for compute_75 that every later driver finishes itself.

NVRTC and the CUDA headers come from the wheels nvidia-cuda-nvrtc-cu12 and nvidia-cuda-runtime-cu12; neither a GPU nor
nvcc is needed. `make kernels` runs this.
"""

import ctypes
from importlib.util import find_spec
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).parents[1]
OPTIONS = [
    "--gpu-architecture=compute_75",
    "--std=c++17",
    # a * b + c stays two roundings, as it is on the host: what the tests there prove holds on a GPU bit for bit.
    "--fmad=false",
]


def ptx() -> str:
    """The PTX that the sources give. Raises RuntimeError with the compiler's log."""
    nvrtc = ctypes.CDLL(str(_wheel("cuda_nvrtc") / "lib" / "libnvrtc.so.12"))
    # Includes are looked up in the order given; the names of the folders do not get into the PTX.
    options = [*OPTIONS, f"--include-path={KERNELS}", f"--include-path={_wheel('cuda_runtime') / 'include'}"]
    program = ctypes.c_void_p()
    source = (KERNELS / "magrt.cu").read_bytes()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"magrt.cu", 0, None, None))
    try:
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), arguments):
            raise RuntimeError(_text(nvrtc, "ProgramLog", program))
        return _text(nvrtc, "PTX", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(nvrtc: Any, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text.value.decode()


def _check(nvrtc: Any, result: int) -> None:
    if result:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(result).decode()}")


def _wheel(package: str) -> Path:
    spec = find_spec(f"nvidia.{package}") if find_spec("nvidia") else None
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"nvidia.{package} is missing: pip install --constraint constraints.txt '.[dev]'")
    return Path(spec.submodule_search_locations[0])


if __name__ == "__main__":
    (KERNELS / "magrt.ptx").write_text(ptx())
