"""Wrong kernels: each is refused, with the error that CUDA has for it and a line that says where and why."""

import numpy as np
import pytest

SEEDS = pytest.mark.parametrize("cuda", [0, 1, 2], indirect=True)
INTS = np.arange(64, dtype=np.int32)


def fails(cuda, kernel, *arguments, words, error, **launch):
    """The launch fails under the rule that has these words, and so does all that comes after it."""
    import pycuda.driver as drv

    with cuda.expect(words):
        with pytest.raises(drv.Error, match=error):
            kernel(*arguments, **{"block": (64, 1, 1)} | launch)
            drv.Context.synchronize()
        with pytest.raises(drv.Error, match=error):
            drv.mem_alloc(4)


@pytest.fixture
def ints(module):
    """64 integers on the device. After `module`, whose context it needs."""
    import pycuda.driver as drv

    return drv.to_device(INTS)


@pytest.fixture
def wrong(module):
    loaded = module("wrong")
    return loaded.get_function


FAILED = "unspecified launch failure"
ILLEGAL = "illegal memory access"


@SEEDS
@pytest.mark.parametrize(
    "name",
    ["barrier_missing_in_a_loop", "warp_in_step"],
)
def test_a_missing_barrier_is_a_race(cuda, wrong, ints, name):
    fails(cuda, wrong(name), ints, words="race", error=FAILED, block=(64 if "loop" in name else 32, 1, 1))


@SEEDS
def test_a_missing_barrier_between_write_and_read(cuda, wrong, ints):
    import pycuda.driver as drv

    y = drv.mem_alloc(256)
    fails(cuda, wrong("barrier_missing"), ints, y, words="wrong.cu:", error=FAILED)


@SEEDS
def test_counting_needs_atomics(cuda, wrong, ints):
    import pycuda.driver as drv

    zeros = drv.to_device(np.zeros(64, np.int32))
    fails(cuda, wrong("count_without_atomics"), zeros, ints, words="race", error=FAILED, block=(2, 1, 1))


@SEEDS
def test_blocks_are_not_ordered(cuda, wrong, ints):
    fails(cuda, wrong("blocks_race"), ints, words="of global memory", error=FAILED, block=(1, 1, 1), grid=(2, 1))


@SEEDS
def test_an_atomic_alone_orders_nothing(cuda, wrong, ints):
    import pycuda.driver as drv

    ticket, total = drv.to_device(np.zeros(1, np.uint32)), drv.to_device(np.zeros(1, np.int32))
    fails(cuda, wrong("fence_missing"), ints, ticket, total, words="race", error=FAILED, block=(1, 1, 1), grid=(9, 1))


@SEEDS
@pytest.mark.parametrize("name", ["barrier_in_a_branch", "shuffle_at_a_barrier"])
def test_a_barrier_is_for_all_threads(cuda, wrong, ints, name):
    fails(cuda, wrong(name), ints, words="divergent barrier", error=FAILED, block=(32, 1, 1))


@SEEDS
def test_a_barrier_waits_for_those_that_returned(cuda, wrong, ints):
    fails(cuda, wrong("barrier_after_return"), ints, np.int32(63), words="has ended", error=FAILED)


@SEEDS
@pytest.mark.parametrize(
    ("name", "words"), [("lanes_disagree", "lanes of a warp disagree"), ("lane_not_in_mask", "leaves the calling lane")]
)
def test_a_warp_acts_together(cuda, wrong, ints, name, words):
    fails(cuda, wrong(name), ints, words=words, error=FAILED, block=(32, 1, 1))


def test_one_byte_behind_an_allocation(cuda, wrong):
    import pycuda.driver as drv

    fails(
        cuda,
        wrong("writes_behind"),
        drv.mem_alloc(63),
        np.int32(63),
        words="0 bytes behind the end of 63",
        error=ILLEGAL,
    )


def test_one_byte_read_behind_an_allocation(cuda, wrong):
    import pycuda.driver as drv

    x, y = drv.mem_alloc(64), drv.mem_alloc(64)
    fails(cuda, wrong("reads_behind"), x, y, np.int32(64), words="wrong.cu", error=ILLEGAL)


def test_dynamic_shared_memory_has_an_end(cuda, wrong, ints):
    fails(cuda, wrong("shared_behind"), ints, words="byte 256 of 256", error=ILLEGAL, shared=256)


def test_an_array_has_an_end(cuda, wrong, ints):
    fails(cuda, wrong("index_outside"), ints, words="index outside of an array", error=FAILED, block=(32, 1, 1))


@pytest.mark.parametrize("name", ["misaligned", "misaligned_half2"])
def test_vectors_are_aligned(cuda, wrong, ints, name):
    import pycuda.driver as drv

    fails(
        cuda,
        wrong(name),
        ints,
        drv.mem_alloc(64),
        words="is not aligned to",
        error="misaligned address",
        block=(1, 1, 1),
    )


def test_a_host_pointer_is_no_device_pointer(cuda, wrong):
    array = np.zeros(64, np.int32)
    pointer = np.uintp(array.ctypes.data)
    fails(cuda, wrong("blocks_race"), pointer, words="points to no device memory", error=ILLEGAL)


def test_a_host_pointer_in_a_structure(cuda, wrong):
    array = np.zeros(64, np.float32)
    job = np.zeros(1, np.dtype([("y", "<u8"), ("n", "<i4"), ("", "<i4")]))
    job[0] = (array.ctypes.data, 64, 0)
    fails(cuda, wrong("pointer_in_a_structure"), job[0], words="host memory", error=ILLEGAL)


def test_freed_memory(cuda, wrong, ints):
    pointer = np.uintp(int(ints))
    ints.free()
    fails(cuda, wrong("blocks_race"), pointer, words="freed", error=ILLEGAL)


def test_a_null_pointer(cuda, wrong):
    fails(cuda, wrong("blocks_race"), np.uintp(0), words="a null pointer", error=ILLEGAL)


def test_a_cast_of_nan(cuda, wrong, ints):
    import pycuda.driver as drv

    x = drv.to_device(np.full(64, np.nan, np.float32))
    fails(cuda, wrong("casts_nan"), x, ints, words="cast of a float", error=FAILED)


@pytest.mark.parametrize(
    ("name", "by", "words"),
    [("divides", 0, "division by zero"), ("shifts", 32, "shift"), ("overflows", 1 << 30, "overflow")],
)
def test_arithmetic_that_is_not_defined(cuda, wrong, ints, name, by, words):
    fails(cuda, wrong(name), ints, np.int32(by), words=words, error=FAILED)


def test_a_trap(cuda, wrong):
    fails(cuda, wrong("traps"), words="__trap", error=FAILED)


@pytest.mark.parametrize(("cuda", "poison"), [(0, 0xFFFFFFFF), (1, 0x7E7E7E7E)], indirect=["cuda"])
def test_shared_memory_is_fresh_for_every_block(cuda, wrong, poison):
    import pycuda.driver as drv

    y = np.zeros(64, np.uint32)
    wrong("shared_unset")(drv.Out(y), block=(64, 1, 1), grid=(1, 1))
    assert (y == poison).all()


@pytest.mark.parametrize(("cuda", "poison"), [(0, 0xFF), (1, 0x7E)], indirect=["cuda"])
def test_device_memory_is_poisoned(cuda, module, poison):
    import pycuda.driver as drv

    read = np.zeros(100, np.uint8)
    module("wrong")
    drv.memcpy_dtoh(read, drv.mem_alloc(100))
    assert (read == poison).all()


def test_threads_and_blocks_come_in_an_order_that_the_seed_says(cuda, wrong):
    import pycuda.driver as drv

    turn, y = drv.to_device(np.zeros(1, np.int32)), np.zeros(256, np.int32)
    wrong("order")(turn, drv.Out(y), block=(64, 1, 1), grid=(4, 1))
    assert sorted(y) == list(range(256))
    assert (np.diff(y[:64]) != 1).any(), "threads came in their order"
    assert (np.diff(y.reshape(4, 64).min(1)) < 0).any(), "blocks came in their order"


def test_forbidden_bytes(cuda, wrong):
    import pycuda.driver as drv

    x = drv.mem_alloc(128)
    cuda.forbid(int(x) + 64, 1)
    wrong("writes_behind")(x, np.int32(63), block=(64, 1, 1))
    drv.memset_d8(x, 0, 128)  # copies and fills may
    cuda.allow(int(x) + 64, 1)
    wrong("writes_behind")(x, np.int32(64), block=(65, 1, 1))
    drv.Context.synchronize()
    cuda.forbid(int(x) + 64, 1)
    fails(cuda, wrong("writes_behind"), x, np.int32(64), words="forbidden bytes", error=ILLEGAL, block=(65, 1, 1))
    with pytest.raises(ValueError, match="do not lie in an allocation"):
        cuda.forbid(int(x) + 64, 65)
