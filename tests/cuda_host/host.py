"""The CUDA host in this process: the functional driver in the place of NVIDIA's, and what tests ask of it."""

import ctypes
import functools
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cuda_host import build


class Host:
    """The driver that pycuda and `ctypes.CDLL("libcuda.so.1")` find in this process; one per process, from `load`."""

    def __init__(self, driver: Path, sanitize: bool) -> None:
        self.sanitize = sanitize
        self._modules = tempfile.TemporaryDirectory(prefix="cuda-host-")
        os.environ["CUDA_HOST_MODULES"] = self._modules.name  # where the driver looks for builds
        self._driver = ctypes.CDLL(str(driver), ctypes.RTLD_GLOBAL)
        self._driver.cuda_host_reset.argtypes = [ctypes.c_uint64]
        self._driver.cuda_host_forbid.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_bool]
        self._driver.cuda_host_forbid.restype = ctypes.c_bool
        self._driver.cuda_host_violations.restype = ctypes.c_size_t
        self._driver.cuda_host_violations.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    def build(self, source: Path, include_dirs: Iterable[Path] = ()) -> Path:
        """`build_kernels`, with or without AddressSanitizer as this process has it."""
        return build.build_kernels(source, include_dirs, self.sanitize)

    def register(self, ptx: Path | str, kernels: Path) -> None:
        """From now on a module loaded from this PTX, a file or its text, runs these kernels (from `build`)."""
        text = ptx.read_bytes() if isinstance(ptx, Path) else ptx.encode()
        link = Path(self._modules.name) / f"{hashlib.sha256(text).hexdigest()}.so"
        link.unlink(missing_ok=True)
        link.symlink_to(kernels)

    def reset(self, seed: int) -> None:
        """Contexts, memory, queues: everything as in a new process, with this seed for all that CUDA leaves open."""
        self._driver.cuda_host_reset(seed)
        self.violations()

    def finish(self) -> None:
        """Do what is still queued, as if time had passed."""
        self._driver.cuda_host_finish()

    def forbid(self, pointer: int, nbytes: int) -> None:
        """Kernels may not touch these bytes, though they lie in an allocation: for the gaps of one that is divided."""
        self._mark(pointer, nbytes, True)

    def allow(self, pointer: int, nbytes: int) -> None:
        """Take `forbid` back."""
        self._mark(pointer, nbytes, False)

    def _mark(self, pointer: int, nbytes: int, forbidden: bool) -> None:
        if not self._driver.cuda_host_forbid(pointer, nbytes, forbidden):
            raise ValueError(f"{nbytes} bytes at {pointer:#x} do not lie in an allocation")

    def violations(self) -> list[str]:
        """The rules broken since the last call, a line each."""
        size = self._driver.cuda_host_violations(None, 0)
        buffer = ctypes.create_string_buffer(size)
        self._driver.cuda_host_violations(buffer, size)
        return buffer.raw.decode().splitlines()

    @contextmanager
    def expect(self, words: str) -> Iterator[None]:
        """A stretch that breaks rules: one of the lines must hold `words`."""
        self.check()
        yield
        lines = self.violations()
        assert any(words in line for line in lines), f"no rule about {words!r} was broken, but {lines}"

    def check(self) -> None:
        """Raises AssertionError when a rule was broken."""
        lines = self.violations()
        assert not lines, "rules were broken:\n" + "\n".join(lines)

    @property
    def primary_users(self) -> int:
        """How often the primary context is retained."""
        return self._driver.cuda_host_primary_users()


@functools.cache
def load() -> Host:
    """The driver, pycuda and the registry of modules, made ready in this process. Raises BuildError.

    Nothing of the process may have loaded another libcuda.so.1 before.
    """
    if "pycuda._driver" in sys.modules:
        raise build.BuildError("pycuda was imported before the CUDA host was loaded")
    sanitize = "CUDA_HOST_SANITIZE" in os.environ
    driver = build.build_driver(sanitize)
    pycuda = build.build_pycuda()
    host = Host(driver, sanitize)
    sys.path.append(str(pycuda))  # at the end: the environment's own packages come first
    return host
