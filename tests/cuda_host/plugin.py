"""pytest fixtures of the CUDA host; a conftest takes them with `from tests.cuda_host.plugin import cuda`."""

import gc
import os
import sys
from collections.abc import Iterator

import pytest

from tests.cuda_host.host import Host, load


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> Iterator[Host]:
    """The CUDA host as after a fresh start. The test fails if it has broken a rule that it did not `expect` to break.

    The seed is the fixture's parameter (`@pytest.mark.parametrize("cuda", [0, 1, 2], indirect=True)`), plus
    $CUDA_HOST_SEED.
    """
    host = load()
    host.reset(getattr(request, "param", 0) + int(os.environ.get("CUDA_HOST_SEED", "0")))
    yield host
    host.finish()
    gc.collect()
    if "pycuda.driver" in sys.modules:
        _leave_contexts()
    try:
        host.check()
    finally:
        host.reset(0)  # what dies later finds nothing left to let go of


def _leave_contexts() -> None:
    """pycuda aborts the process at its end when a context is left on its stack."""
    import pycuda.driver

    while pycuda.driver.Context.get_current():
        pycuda.driver.Context.pop()
