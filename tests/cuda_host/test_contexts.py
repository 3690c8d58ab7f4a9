"""Contexts: the primary one is shared and counted, and without one nothing works."""

import ctypes
import threading

import numpy as np
import pytest


@pytest.fixture
def drv(cuda):
    import pycuda.driver

    pycuda.driver.init()
    return pycuda.driver


def test_no_context(cuda, drv):
    with cuda.expect("no context is current"), pytest.raises(drv.Error, match="invalid device context"):
        drv.mem_alloc(1)


def test_the_primary_context_is_shared_and_counted(cuda, drv):
    driver = ctypes.CDLL("libcuda.so.1")
    other_user = ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(other_user), 0) == 0
    context = drv.Device(0).retain_primary_context()
    assert cuda.primary_users == 2
    context.push()
    memory = drv.to_device(np.arange(10))
    pointer = int(memory)
    memory.free()
    context.pop()
    context.detach()
    assert cuda.primary_users == 1
    flags, active = ctypes.c_uint(), ctypes.c_int()
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
    assert active.value == 1
    assert driver.cuDevicePrimaryCtxRelease_v2(0) == 0
    driver.cuDevicePrimaryCtxGetState(0, ctypes.byref(flags), ctypes.byref(active))
    assert active.value == 0
    with cuda.expect("nobody retains it"):
        assert driver.cuDevicePrimaryCtxRelease_v2(0) == 201
    assert pointer


def test_a_context_is_current_on_one_thread(cuda, drv):
    drv.Device(0).make_context()
    errors = []

    def allocate():
        try:
            drv.mem_alloc(1)
        except drv.Error as error:
            errors.append(str(error))

    thread = threading.Thread(target=allocate)
    with cuda.expect("no context is current"):
        thread.start()
        thread.join()
    assert "invalid device context" in errors[0]


def test_memory_ends_with_its_context(cuda, drv):
    driver = ctypes.CDLL("libcuda.so.1")
    handle, pointer = ctypes.c_void_p(), ctypes.c_uint64()
    driver.cuCtxCreate_v2(ctypes.byref(handle), 0, 0)
    driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(10))
    driver.cuCtxDestroy_v2(handle)
    drv.Device(0).make_context()
    with cuda.expect("freed"), pytest.raises(drv.Error, match="invalid argument"):
        drv.memcpy_htod(pointer.value, np.zeros(10, np.uint8))


def test_there_is_one_device(drv):
    assert drv.Device.count() == 1
    with pytest.raises(drv.Error, match="invalid device ordinal"):
        drv.Device(1)


def test_functions_are_found_by_name_too(drv):
    driver = ctypes.CDLL("libcuda.so.1")
    function, result = ctypes.c_void_p(), ctypes.c_int()
    arguments = (ctypes.byref(function), 12060, ctypes.c_uint64(0), ctypes.byref(result))
    assert driver.cuGetProcAddress_v2(b"cuMemAlloc", *arguments) == 0 and function.value
    assert driver.cuGetProcAddress_v2(b"cuNoSuchThing", *arguments) == 500 and not function.value
