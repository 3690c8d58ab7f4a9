"""Runs pytest with driver and kernels under AddressSanitizer: `python -m tests.cuda_host.sanitize tests/kernels ...`.

Device memory comes from malloc then, with red zones around it, and so do the arrays of the host: what the driver's own
checks cannot see shows here, such as a local array or a static shared one that is left through a pointer, or the host's
own arrays. The driver's checks of every access (bounds, races) are off meanwhile; those of alignment and of undefined
behaviour stay.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.cuda_host import build


def environment() -> dict[str, str]:
    """Variables under which a Python process is ready for the sanitized driver. Raises BuildError."""
    preloaded = [build.runtime_library(name) for name in ("libasan.so", "libstdc++.so")]
    return os.environ | {
        "LD_PRELOAD": " ".join(map(str, preloaded)),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaks by design
        "PYTHONMALLOC": "malloc",
        "CUDA_HOST_SANITIZE": "1",
    }


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """`python -m pytest` with these arguments, at the root of the checkout, under AddressSanitizer; output captured."""
    build.build_driver(sanitize=True)
    build.build_pycuda()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    root = Path(__file__).parents[2]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.run(command, env=environment(), cwd=root, check=False, **output)


if __name__ == "__main__":
    done = run(*sys.argv[1:])
    print(done.stdout)
    sys.exit(done.returncode)
