"""Right programs give right results, whatever the order of threads, blocks and streams."""

import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("cuda", range(6), indirect=True)


def test_scale(module):
    import pycuda.driver as drv

    x = np.arange(1000, dtype=np.float32)
    y = np.zeros_like(x)
    module("right").get_function("scale")(
        drv.In(x), drv.Out(y), np.float32(3), np.int32(1000), block=(128, 1, 1), grid=(8, 1)
    )
    np.testing.assert_array_equal(y, 3 * x)


def test_barriers_in_device_functions(module):
    import pycuda.driver as drv

    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    y = np.zeros(8, np.float32)
    module("right").get_function("maximum")(drv.In(x), drv.Out(y), np.int32(1000), block=(128, 1, 1), grid=(8, 1))
    np.testing.assert_array_equal(y, [x[i : i + 128].max() for i in range(0, 1000, 128)])


def test_dynamic_shared_memory(module):
    import pycuda.driver as drv

    x = np.arange(77, dtype=np.int32)
    module("right").get_function("reverse")(drv.InOut(x), block=(77, 1, 1), shared=77 * 4)
    np.testing.assert_array_equal(x, np.arange(77)[::-1])


def test_shuffles_and_atomics(module):
    import pycuda.driver as drv

    x = np.random.default_rng(0).integers(0, 100, 5000, np.uint32)
    total = np.zeros(1, np.uint32)
    module("right").get_function("sum")(drv.In(x), drv.InOut(total), np.int32(5000), block=(96, 1, 1), grid=(53, 1))
    assert total[0] == x.sum()


def test_the_last_block_may_read_what_the_others_fenced(module):
    import pycuda.driver as drv

    x = np.random.default_rng(0).integers(0, 100, 5000, np.uint32)
    parts, ticket, total = np.zeros(157, np.uint32), np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    module("right").get_function("sum_in_one")(
        drv.In(x), drv.Out(parts), drv.InOut(ticket), drv.Out(total), np.int32(5000), block=(32, 1, 1), grid=(157, 1)
    )
    assert total[0] == x.sum()


def test_vectors(module):
    import pycuda.driver as drv

    x = np.arange(1024, dtype=np.float32)
    y = np.zeros_like(x)
    module("right").get_function("copy_fours")(drv.In(x), drv.Out(y), block=(64, 1, 1), grid=(4, 1))
    np.testing.assert_array_equal(x, y)


def test_half_arithmetic_and_structures_by_value(module):
    import pycuda.driver as drv

    x = np.random.default_rng(0).standard_normal(4096).astype(np.float16)
    y = np.zeros_like(x)
    line = np.zeros(1, np.dtype([("slope", "<f4"), ("offset", "<f4"), ("n", "<i4")]))
    line[0] = (0.3, -1.7, 4096)
    module("right").get_function("line")(drv.In(x), drv.Out(y), line[0], block=(128, 1, 1), grid=(32, 1))
    # float64 holds the product exactly and the sum to far more bits than half has
    exact = np.float64(np.float16(0.3)) * x.astype(np.float64) + np.float64(np.float16(-1.7))
    np.testing.assert_array_equal(y, exact.astype(np.float16))


def test_constant_memory(module):
    import pycuda.driver as drv

    y = np.zeros(8, np.float32)
    right = module("right")
    right.get_function("weighted")(drv.Out(y), block=(8, 1, 1))
    np.testing.assert_array_equal(y, [1, 2, 3, 4] * 2)
    pointer, size = right.get_global("weights")
    assert size == 16
    drv.memcpy_htod(pointer, np.array([5, 6, 7, 8], np.float32))
    right.get_function("weighted")(drv.Out(y), block=(8, 1, 1))
    np.testing.assert_array_equal(y, [5, 6, 7, 8] * 2)


def test_warp_functions(module):
    import pycuda.driver as drv

    out = np.zeros((10, 32), np.int32)
    module("right").get_function("warp_functions")(drv.Out(out), block=(32, 1, 1))
    lane = np.arange(32)
    expected = [
        np.full(32, 5),
        lane // 8 * 8 + 1,
        np.where(lane < 3, lane, lane - 3),
        np.where(lane % 16 + 3 < 16, lane + 3, lane),
        lane ^ 6,
        np.full(32, np.array(sum(1 << i for i in range(0, 32, 3)), np.uint32).astype(np.int32)),
        np.ones(32),
        np.zeros(32),
        np.full(32, 7),
        np.ones(32),
    ]
    np.testing.assert_array_equal(out, expected)
