"""Memory belongs to the device or to the host, has a size and an end."""

import ctypes

import numpy as np
import pytest


@pytest.fixture
def drv(module):
    import pycuda.driver

    module("wrong")
    return pycuda.driver


INVALID = "invalid argument"


def refused(cuda, drv, call, words, error=INVALID):
    with cuda.expect(words), pytest.raises(drv.Error, match=error):
        call()
    drv.mem_alloc(1)  # a call that was refused breaks nothing


def test_round_trip(drv):
    array = np.random.default_rng(0).integers(0, 256, (33, 77), np.uint8)
    assert (drv.from_device_like(drv.to_device(array), array) == array).all()


def test_allocations_are_aligned_as_promised_and_no_more(drv):
    pointers = [int(drv.mem_alloc(size)) for size in (1, 100, 5000)]
    assert all(pointer % 256 == 0 for pointer in pointers)
    assert any(pointer % 512 for pointer in pointers)


def test_a_pitch(drv):
    memory, pitch = drv.mem_alloc_pitch(100, 7, 4)
    assert pitch >= 100 and pitch % 32 == 0
    assert drv.mem_get_address_range(int(memory))[1] == 7 * pitch


@pytest.mark.parametrize("extra", [1, 1 << 20])
def test_copies_stay_within_an_allocation(cuda, drv, extra):
    memory = drv.mem_alloc(100)
    array = np.zeros(100 + extra, np.uint8)
    refused(cuda, drv, lambda: drv.memcpy_htod(memory, array), "destination")
    refused(cuda, drv, lambda: drv.memcpy_dtoh(array, memory), "source")
    refused(cuda, drv, lambda: drv.memcpy_htod_async(memory, array, drv.Stream()), "destination")
    refused(cuda, drv, lambda: drv.memcpy_dtod(memory, drv.mem_alloc(100 + extra), 100 + extra), "destination")
    refused(cuda, drv, lambda: drv.memset_d8(memory, 0, 100 + extra), "destination")
    refused(cuda, drv, lambda: drv.memcpy_htod(int(memory) + 1, array[:100]), "destination")


def test_a_host_pointer_is_no_destination(cuda, drv):
    array = np.zeros(100, np.uint8)
    pointer = array.ctypes.data
    refused(cuda, drv, lambda: drv.memcpy_htod(pointer, array), "host memory")
    refused(cuda, drv, lambda: drv.memcpy_dtoh(array, pointer), "host memory")
    refused(cuda, drv, lambda: drv.memset_d8(pointer, 0, 100), "host memory")


def test_page_locked_memory_is_host_memory(cuda, drv):
    array = drv.pagelocked_zeros(100, np.uint8)
    refused(cuda, drv, lambda: drv.memcpy_htod(array.ctypes.data, array), "the wrong kind")


def test_a_device_pointer_is_no_source_on_the_host(cuda, drv):
    memory = drv.mem_alloc(100)
    fake = np.ctypeslib.as_array((ctypes.c_uint8 * 100).from_address(int(memory)))
    refused(cuda, drv, lambda: drv.memcpy_htod(drv.mem_alloc(100), fake), "the wrong kind")


@pytest.mark.parametrize("cuda", [0, 1], indirect=True)
def test_freed_memory(cuda, drv):
    memory = drv.mem_alloc(100)
    pointer = int(memory)
    memory.free()
    array = np.zeros(100, np.uint8)
    refused(cuda, drv, lambda: drv.memcpy_htod(pointer, array), "freed")
    refused(cuda, drv, lambda: drv.memcpy_dtoh(array, pointer), "freed")


def test_memory_is_freed_once_and_whole(cuda, drv):
    driver = ctypes.CDLL("libcuda.so.1")
    memory = drv.mem_alloc(100)
    pointer = ctypes.c_uint64(int(memory))
    with cuda.expect("byte 1 of 100"):
        assert driver.cuMemFree_v2(ctypes.c_uint64(pointer.value + 1)) == 1
    memory.free()
    with cuda.expect("freed"):
        assert driver.cuMemFree_v2(pointer) == 1


@pytest.mark.parametrize("cuda", [0, 3], indirect=True)
def test_memory_freed_under_queued_work(cuda, drv):
    memory, stream = drv.mem_alloc(100), drv.Stream()
    drv.memcpy_htod_async(memory, drv.pagelocked_zeros(100, np.uint8), stream)
    memory.free()
    with cuda.expect("freed"), pytest.raises(drv.Error, match="illegal memory access"):
        stream.synchronize()


@pytest.mark.parametrize("cuda", [0, 3], indirect=True)
def test_page_locked_memory_freed_under_queued_work(cuda, drv):
    memory, stream, staging = drv.mem_alloc(100), drv.Stream(), drv.pagelocked_zeros(100, np.uint8)
    drv.memcpy_htod_async(memory, staging, stream)
    staging.base.free()
    with cuda.expect("freed"), pytest.raises(drv.Error, match="illegal memory access"):
        stream.synchronize()


@pytest.mark.parametrize("cuda", [0, 3], indirect=True)
def test_a_buffer_freed_under_a_queued_kernel(cuda, module, drv):
    kernel = module("wrong").get_function("blocks_race")
    memory, stream = drv.mem_alloc(100), drv.Stream()
    kernel(memory, block=(1, 1, 1), stream=stream)
    memory.free()
    with cuda.expect("freed"), pytest.raises(drv.Error, match="illegal memory access"):
        stream.synchronize()


def test_a_buffer_freed_under_work_that_nobody_waits_for(cuda, drv):
    memory = drv.mem_alloc(100)
    drv.memcpy_htod_async(memory, drv.pagelocked_zeros(100, np.uint8), drv.Stream())
    memory.free()
    with cuda.expect("freed"):
        cuda.finish()


@pytest.mark.parametrize("cuda", [0, 1, 2], indirect=True)
def test_copies_of_rows(drv, cuda):
    picture = np.random.default_rng(0).integers(0, 256, (5, 30), np.uint8)
    memory, pitch = drv.mem_alloc_pitch(30, 5, 4)
    copy = drv.Memcpy2D()
    copy.set_src_host(picture)
    copy.set_dst_device(memory)
    copy.src_pitch, copy.dst_pitch, copy.width_in_bytes, copy.height = 30, pitch, 30, 5
    copy(drv.Stream())
    back = np.zeros((5, 20), np.uint8)
    copy = drv.Memcpy2D()
    copy.set_src_device(memory)
    copy.set_dst_host(back)
    copy.src_x_in_bytes, copy.src_pitch = 10, pitch
    copy.dst_pitch, copy.width_in_bytes, copy.height = 20, 20, 5
    drv.Context.synchronize()
    copy(aligned=False)
    np.testing.assert_array_equal(back, picture[:, 10:])


@pytest.mark.parametrize(
    ("pitch", "width", "height", "words"),
    [(32, 30, 6, "destination"), (40, 30, 5, "destination"), (20, 30, 5, "do not fit into pitches"), (32, 32, 5, "")],
)
def test_rows_that_end_outside(cuda, drv, pitch, width, height, words):
    memory = drv.mem_alloc(5 * 32)
    copy = drv.Memcpy2D()
    copy.set_src_host(np.zeros((height, 64), np.uint8))
    copy.set_dst_device(memory)
    copy.src_pitch, copy.dst_pitch, copy.width_in_bytes, copy.height = 64, pitch, width, height
    if words:
        refused(cuda, drv, lambda: copy(aligned=True), words)
    else:
        copy(aligned=True)


def test_registered_memory_is_page_locked(drv):
    driver = ctypes.CDLL("libcuda.so.1")  # pycuda's own register_host_memory crashes
    array = np.ones(1000, np.uint8)
    pointer = ctypes.c_void_p(array.ctypes.data)
    assert driver.cuMemHostRegister_v2(pointer, ctypes.c_size_t(1000), 0) == 0
    assert driver.cuMemHostRegister_v2(pointer, ctypes.c_size_t(1000), 0) == 712
    memory, stream = drv.mem_alloc(1000), drv.Stream()
    drv.memcpy_htod_async(memory, array, stream)
    array[:] = 2  # too early: the copy has still to read it
    stream.synchronize()
    assert (drv.from_device(memory, 1000, np.uint8) == 2).all()
    assert driver.cuMemHostUnregister(pointer) == 0
    assert driver.cuMemHostUnregister(pointer) == 713


def test_the_device_is_full(drv):
    with pytest.raises(drv.MemoryError):
        drv.mem_alloc(16 << 30)
    free, total = drv.mem_get_info()
    memory = drv.mem_alloc(1 << 20)
    assert drv.mem_get_info() == (free - (1 << 20), total)
    memory.free()
    assert drv.mem_get_info() == (free, total)


def test_what_is_not_played_says_so(cuda, drv):
    with cuda.expect("cuArrayCreate"), pytest.raises(drv.Error, match="not supported"):
        drv.matrix_to_array(np.zeros((4, 4), np.float32), "C")
