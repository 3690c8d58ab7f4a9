"""Small kernels for the CUDA host's own tests, and a stand-in for the PTX that nobody compiles for them."""

import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cuda_host import host
from tests.cuda_host.host import Host
from tests.cuda_host.plugin import cuda as cuda

KERNELS = Path(__file__).parent / "kernels"


class _Kernel(ctypes.Structure):
    """cuda_host::Kernel, as far as it is needed."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("parameters", ctypes.c_uint),
        ("sizes", ctypes.POINTER(ctypes.c_size_t)),
        ("alignments", ctypes.c_void_p),
        ("pointers", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
    )


def stand_in(kernels: Path) -> str:
    """PTX with the entry points of a build and nothing in them."""
    text = f"// {kernels}\n.version 8.5\n.target sm_75\n.address_size 64\n"
    library = ctypes.CDLL(str(kernels))
    for kernel in (_Kernel * 64).in_dll(library, "cuda_host_kernels"):
        if not kernel.name:
            break
        parameters = [f".param .align 8 .b8 p{i}[{kernel.sizes[i]}]" for i in range(kernel.parameters)]
        text += f".visible .entry {kernel.name.decode()}({', '.join(parameters)})\n{{\n ret;\n}}\n"
    return text


@functools.cache
def _built(name: str) -> tuple[Path, str]:
    kernels = host.load().build(KERNELS / f"{name}.cu")
    return kernels, stand_in(kernels)


@pytest.fixture
def module(cuda: Host) -> Iterator[Callable[[str], Any]]:
    """Loads kernels/<name>.cu into a new context, as a pycuda module."""
    import pycuda.driver

    def load(name: str) -> Any:
        kernels, text = _built(name)
        cuda.register(text, kernels)
        loaded.append(pycuda.driver.module_from_buffer(text.encode()))
        return loaded[-1]

    loaded: list[Any] = []  # kept for the test: a kernel that is queued needs its module
    pycuda.driver.init()
    pycuda.driver.Device(0).make_context()
    yield load
    cuda.finish()
    loaded.clear()
