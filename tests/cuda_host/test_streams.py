"""What is queued happens late, in an order that only streams and events decide."""

import ctypes

import numpy as np
import pytest

N = 256
ALL_SEEDS = range(12)
LAZY = pytest.mark.parametrize("cuda", [0, 3, 6], indirect=True)  # nothing is done that nobody waits for


def wrong_for_some_seed(cuda, program, right):
    """A program that is wrong gives another result than `right` under some of a dozen seeds."""
    import pycuda.driver as drv

    def result(seed):
        drv.Context.pop()
        cuda.reset(seed)
        drv.Device(0).make_context()
        return program()

    return any((result(seed) != right).any() for seed in ALL_SEEDS)


@pytest.fixture
def scale(module):
    """y = by * x on a stream."""

    def launch(x, y, by, stream):
        kernel = module("right").get_function("scale")
        kernel(x, y, np.float32(by), np.int32(N), block=(64, 1, 1), grid=(N // 64, 1), stream=stream)

    return launch


def pinned(value):
    import pycuda.driver as drv

    array = drv.pagelocked_empty(N, np.float32)
    array[:] = value
    return array


def program(scale, *, wait, synchronize=True, reuse_early=False, record_early=False):
    """Upload on one stream, scale on another, download on a third; right when every step waits for the one before."""
    import pycuda.driver as drv

    upload, compute, download = drv.Stream(), drv.Stream(), drv.Stream()
    uploaded, computed = drv.Event(), drv.Event()
    source, target = pinned(1), pinned(0)
    x, y = drv.mem_alloc(4 * N), drv.mem_alloc(4 * N)
    if record_early:
        uploaded.record(upload)
    drv.memcpy_htod_async(x, source, upload)
    if not record_early:
        uploaded.record(upload)
    if reuse_early:
        source[:] = 7
    if wait:
        compute.wait_for_event(uploaded)
    scale(x, y, 3, compute)
    computed.record(compute)
    download.wait_for_event(computed)
    drv.memcpy_dtoh_async(target, y, download)
    if synchronize:
        download.synchronize()
    result = target.copy()
    drv.Context.synchronize()
    return result


@pytest.mark.parametrize("cuda", ALL_SEEDS, indirect=True)
def test_a_right_program_is_right_under_every_seed(scale):
    assert (program(scale, wait=True) == 3).all()


@pytest.mark.parametrize(
    "mistake",
    [
        {"wait": False},
        {"wait": True, "record_early": True},
        {"wait": True, "reuse_early": True},
        {"wait": True, "synchronize": False},
    ],
    ids=lambda mistake: ",".join(key for key in mistake if key != "wait") or "no wait",
)
def test_a_mistake_shows(cuda, scale, mistake):
    assert wrong_for_some_seed(cuda, lambda: program(scale, **mistake), 3)


@LAZY
def test_without_a_synchronisation_nothing_has_happened(cuda, scale):
    assert (program(scale, wait=True, synchronize=False) == 0).all()


@LAZY
def test_an_event_covers_what_was_queued_before_its_record_and_no_more(cuda, module):
    import pycuda.driver as drv

    module("wrong")
    stream, event = drv.Stream(), drv.Event()
    x, target = drv.mem_alloc(4 * N), pinned(0)
    drv.memset_d32_async(x, 1, N, stream)
    drv.memcpy_dtoh_async(target, x, stream)
    event.record(stream)
    drv.memset_d32_async(x, 2, N, stream)
    drv.memcpy_dtoh_async(target, x, stream)
    assert not event.query()
    event.synchronize()
    assert (target.view(np.uint32) == 1).all()
    stream.synchronize()
    assert (target.view(np.uint32) == 2).all()


def test_an_event_that_was_not_recorded_is_complete(cuda, module):
    import pycuda.driver as drv

    module("wrong")
    event, stream = drv.Event(), drv.Stream()
    assert event.query()
    event.synchronize()
    stream.wait_for_event(event)
    stream.synchronize()
    with cuda.expect("was not recorded"), pytest.raises(drv.Error, match="invalid resource handle"):
        event.time_since(drv.Event())


@LAZY
def test_a_wait_keeps_to_the_record_it_saw(cuda, module):
    import pycuda.driver as drv

    module("wrong")
    first, second, event = drv.Stream(), drv.Stream(), drv.Event()
    event.record(first)
    second.wait_for_event(event)
    x = drv.mem_alloc(4)
    drv.memset_d32_async(x, 1, 1, first)
    event.record(first)  # again: what waits already does not wait for this
    second.synchronize()
    assert not event.query()


@pytest.mark.parametrize("cuda", ALL_SEEDS, indirect=True)
def test_asking_again_and_again_comes_to_an_end(cuda, module):
    import pycuda.driver as drv

    module("wrong")
    stream, event = drv.Stream(), drv.Event()
    x = drv.mem_alloc(4)
    for _ in range(5):
        drv.memset_d32_async(x, 1, 1, stream)
    event.record(stream)
    for _ in range(20):
        if event.query():
            break
    assert event.query()
    assert stream.is_done()


@pytest.mark.parametrize("cuda", ALL_SEEDS, indirect=True)
def test_the_default_stream_waits_and_is_waited_for(cuda, scale):
    import pycuda.driver as drv

    first, second = drv.Stream(), drv.Stream()
    x, y, source, target = drv.mem_alloc(4 * N), drv.mem_alloc(4 * N), pinned(1), pinned(0)
    drv.memcpy_htod_async(x, source, first)
    scale(x, y, 3, None)
    drv.memcpy_dtoh_async(target, y, second)
    second.synchronize()
    assert (target == 3).all()


def test_a_stream_that_does_not_block_is_on_its_own(cuda, module):
    import pycuda.driver as drv

    def program():
        non_blocking = drv.Stream(1)  # CU_STREAM_NON_BLOCKING
        x, target = drv.mem_alloc(4 * N), pinned(0)
        drv.memset_d32_async(x, 1, N, non_blocking)
        drv.memcpy_dtod(x, x, 4)  # on the default stream, which does not wait
        drv.memset_d32(x, 2, N)
        drv.memcpy_dtoh_async(target, x, non_blocking)
        non_blocking.synchronize()
        result = target.view(np.uint32).copy()
        drv.Context.synchronize()
        return result

    module("wrong")
    assert wrong_for_some_seed(cuda, program, 2)


@LAZY
def test_pageable_memory_is_taken_at_the_call(cuda, module):
    import pycuda.driver as drv

    module("wrong")
    stream, x = drv.Stream(), drv.mem_alloc(4 * N)
    source = np.ones(N, np.float32)
    drv.memcpy_htod_async(x, source, stream)
    source[:] = 7
    target = np.zeros(N, np.float32)
    drv.memcpy_dtoh_async(target, x, stream)  # and is there at the return
    assert (target == 1).all()


def test_streams_and_events_can_be_let_go_before_their_work_is_done(cuda, scale):
    import pycuda.driver as drv

    x, y = drv.to_device(np.ones(N, np.float32)), drv.mem_alloc(4 * N)
    scale(x, y, 3, drv.Stream())
    drv.Event().record(drv.Stream())
    drv.Context.synchronize()
    assert (drv.from_device(y, N, np.float32) == 3).all()


def test_elapsed_time(cuda, scale):
    import pycuda.driver as drv

    stream, start, end = drv.Stream(), drv.Event(), drv.Event()
    x, y = drv.to_device(np.ones(N, np.float32)), drv.mem_alloc(4 * N)
    start.record(stream)
    scale(x, y, 3, stream)
    end.record(stream)
    end.synchronize()
    assert 0 < end.time_since(start) < 60_000


def test_the_same_seed_gives_the_same_run(cuda, scale):
    import pycuda.driver as drv

    def run(seed):
        drv.Context.pop()
        cuda.reset(seed)
        drv.Device(0).make_context()
        return program(scale, wait=False).tobytes()

    assert run(4) == run(4)


@LAZY
def test_a_host_function_runs_in_its_streams_order(cuda, module):
    import pycuda.driver as drv

    module("right")
    stream, pages, seen = drv.Stream(), pinned(0), []
    source = drv.mem_alloc(4 * N)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: seen.append((data, pages[0])))
    drv.memset_d32_async(source, 0x40400000, N, stream)  # 3.0
    drv.memcpy_dtoh_async(pages, source, stream)
    launched = ctypes.CDLL("libcuda.so.1").cuLaunchHostFunc(ctypes.c_void_p(stream.handle), function, 7)
    assert launched == 0 and not seen
    stream.synchronize()
    assert seen == [(7, 3.0)]
