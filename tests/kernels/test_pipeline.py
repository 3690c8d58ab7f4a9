"""Kernels and copies on several streams give the right result in whatever order the GPU takes what it may choose."""

from collections.abc import Callable

import numpy as np
import pytest

from mag_rt.cuda import Gpu
from tests.cuda_host.host import Host
from tests.kernels.fixtures import KERNELS, _built
from tests.kernels.pipeline import NORMALISATION, prepare_all

SHAPE = (3, 20, 24, 3)


def check(open_gpu: Callable[..., Gpu]) -> None:
    batches = list(np.random.default_rng(0).integers(0, 256, (5, *SHAPE), np.uint8))
    with open_gpu(1 << 20) as gpu:
        results = list(prepare_all(gpu, batches, SHAPE))
    assert len(results) == len(batches)
    for batch, result in zip(batches, results, strict=True):
        rgb = batch[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        expected = rgb * np.float32(NORMALISATION.scale) + np.float32(NORMALISATION.offset)
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("cuda", range(6), indirect=True)
def test_batches_under_way_do_not_disturb_each_other(cuda: Host) -> None:
    cuda.register(KERNELS / "magrt.ptx", _built())
    check(Gpu)


def test_several_streams_on_a_device(open_gpu: Callable[..., Gpu]) -> None:
    check(open_gpu)


def test_closing_waits_for_the_work_under_way(open_gpu: Callable[..., Gpu]) -> None:
    """Else what is queued would find its memory gone."""
    with open_gpu(1 << 20) as gpu:
        staging = gpu.pinned((1000,), np.uint8)
        target = gpu.arena.take((1000,), np.uint8)
        gpu.upload(staging, target, gpu.stream())
