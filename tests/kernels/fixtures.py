"""A Gpu for each test: on the CUDA host everywhere, and on a real device with `pytest -m gpu`."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mag_rt.cuda import Gpu
from mag_rt.driver import CudaError
from tests.cuda_host import host
from tests.cuda_host.plugin import cuda as cuda
from tests.kernels.board import Board

KERNELS = Path(__file__).parents[2] / "kernels"
ARENA = 32 << 20


@functools.cache
def _built() -> Path:
    return host.load().build(KERNELS / "magrt.cu")


@pytest.fixture(params=["host", pytest.param("device", marks=pytest.mark.gpu)])
def open_gpu(request: pytest.FixtureRequest) -> Callable[..., Gpu]:
    """What opens a Gpu; closing it is the test's part."""
    if request.param == "host":
        request.getfixturevalue("cuda").register(KERNELS / "magrt.ptx", _built())
        return Gpu
    if host.load.cache_info().currsize:
        pytest.skip("the CUDA host has the driver's place in this process; pytest -m gpu runs this on a GPU")
    try:
        Gpu(1 << 20).close()
    except CudaError as error:
        pytest.skip(str(error))
    return Gpu


@pytest.fixture
def gpu(open_gpu: Callable[..., Gpu]) -> Iterator[Gpu]:
    with open_gpu(ARENA) as gpu:
        yield gpu


@pytest.fixture
def board(gpu: Gpu) -> Board:
    return Board(gpu)
