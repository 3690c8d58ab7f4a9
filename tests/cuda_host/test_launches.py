"""Launches that no GPU would start, and modules that no driver would load."""

import ctypes

import numpy as np
import pytest


@pytest.fixture
def refused(cuda, module):
    """Calls a kernel of wrong.cu, which must be refused at once, and leaves the context usable."""
    import pycuda.driver as drv

    wrong = module("wrong")
    memory = drv.mem_alloc(1 << 16)

    def call(name, *arguments, words, error="invalid argument", **launch):
        with cuda.expect(words), pytest.raises(drv.Error, match=error):
            wrong.get_function(name)(*(memory, *arguments) if name != "nothing" else arguments, **launch)
        drv.mem_alloc(4)

    return call


@pytest.mark.parametrize("block", [(1025, 1, 1), (32, 33, 1), (1, 1, 65), (0, 1, 1)])
def test_block(refused, block):
    refused("blocks_race", words="block (", block=block)


@pytest.mark.parametrize("grid", [(0, 1), (1, 65536), (1, 1, 65536)])
def test_grid(refused, grid):
    refused("blocks_race", words="grid (", block=(1, 1, 1), grid=grid)


def test_launch_bounds(cuda, module):
    import pycuda.driver as drv

    from tests.cuda_host.conftest import KERNELS, stand_in

    module("wrong")
    kernels = cuda.build(KERNELS / "wrong.cu")
    text = stand_in(kernels).replace(
        "small_blocks(.param .align 8 .b8 p0[8])", "small_blocks(.param .u64 p0) .maxntid 64, 1, 1"
    )
    cuda.register(text, kernels)
    small = drv.module_from_buffer(text.encode()).get_function("small_blocks")
    assert small.max_threads_per_block == 64
    x = drv.mem_alloc(1024)
    small(x, block=(64, 1, 1))
    with cuda.expect("__launch_bounds__"), pytest.raises(drv.Error, match="too many resources"):
        small(x, block=(65, 1, 1))
    drv.Context.synchronize()


def test_shared_memory(refused):
    refused("shared_behind", words="shared memory", block=(1, 1, 1), shared=49153)


@pytest.mark.parametrize("arguments", [(), (np.int64(1),), (np.int32(1), np.int32(1))])
def test_arguments_of_another_size(refused, arguments):
    refused("writes_behind", *arguments, words="bytes of arguments, it takes 12", block=(1, 1, 1))


@pytest.mark.parametrize("format", ["P", "Pii", "iP"])
def test_prepared_arguments_of_another_size(cuda, module, format):
    import pycuda.driver as drv

    kernel = module("wrong").get_function("writes_behind").prepare(format)
    with cuda.expect("bytes of arguments"), pytest.raises(drv.Error):
        kernel.prepared_call((1, 1), (1, 1, 1), *[1] * len(format))


def test_a_prepared_call_runs(cuda, module):
    import pycuda.driver as drv

    x = drv.mem_alloc(64)
    kernel = module("wrong").get_function("writes_behind").prepare("Pi")
    kernel.prepared_async_call((1, 1), (64, 1, 1), drv.Stream(), x, 63)
    drv.Context.synchronize()
    assert drv.from_device(x, 64, np.uint8).tolist() == [1] * 64


def test_a_kernel_without_parameters(module):
    import pycuda.driver as drv

    module("wrong").get_function("nothing")(block=(32, 1, 1))
    drv.Context.synchronize()


def test_no_such_kernel(module):
    import pycuda.driver as drv

    with pytest.raises(drv.Error, match="not found"):
        module("wrong").get_function("no_such_kernel")


def test_a_stream_of_another_context(cuda, module):
    import pycuda.driver as drv

    nothing = module("wrong").get_function("nothing")
    other = drv.Device(0).make_context()
    stream = drv.Stream()
    other.pop()
    with cuda.expect("of another context"), pytest.raises(drv.Error, match="invalid resource handle"):
        nothing(block=(1, 1, 1), stream=stream)


PTX = ".version 8.5\n.target sm_75\n.visible .entry k(.param .u64 p) { ret; }\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "PTX JIT compilation failed"),
        ("not a module", "PTX JIT compilation failed"),
        (PTX.replace("8.5", "9.0"), "unsupported toolchain"),
        (PTX.replace("sm_75", "sm_90"), "no kernel image"),
        (PTX, "no kernel image"),
        ("\177ELF" + 100 * "x", "no kernel image"),
    ],
)
def test_modules_that_no_driver_would_load(module, text, error):
    import pycuda.driver as drv

    module("wrong")
    with pytest.raises(drv.Error, match=error):
        drv.module_from_buffer(text.encode())


def test_the_logs_of_a_refused_module_are_what_the_driver_wrote(module):
    """pycuda makes the error log a part of its message: left alone, it would be whatever lay in that memory."""
    module("wrong")
    log = ctypes.create_string_buffer(b"what lay there", 64)
    options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER and its size in bytes
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), 64)
    load = ctypes.CDLL("libcuda.so.1").cuModuleLoadDataEx
    assert load(ctypes.byref(ctypes.c_void_p()), b"not a module", 2, options, values) == 218  # CUDA_ERROR_INVALID_PTX
    assert log.value == b"" and not values[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("entry traps()", "entry sinks()"), "has an entry"),
        (("entry traps()", "entry traps(.param .u32 x)"), "the parameters of traps differ"),
    ],
)
def test_ptx_of_other_sources(cuda, module, change, words):
    import pycuda.driver as drv

    from tests.cuda_host.conftest import KERNELS, stand_in

    module("wrong")
    kernels = cuda.build(KERNELS / "wrong.cu")
    text = stand_in(kernels).replace(*change)
    cuda.register(text, kernels)
    with cuda.expect("PTX"), pytest.raises(drv.Error, match="image is invalid"):
        drv.module_from_buffer(text.encode())


def test_a_module_unloaded_under_a_queued_kernel(cuda, module):
    import pycuda.driver as drv

    from tests.cuda_host.conftest import KERNELS, stand_in

    module("wrong")
    text = stand_in(cuda.build(KERNELS / "wrong.cu"))
    drv.module_from_buffer(text.encode()).get_function("nothing")(block=(1, 1, 1), stream=drv.Stream())
    with cuda.expect("unloaded before it has run"), pytest.raises(drv.Error, match="unspecified launch failure"):
        drv.Context.synchronize()


def test_each_load_has_variables_of_its_own(module):
    import pycuda.driver as drv

    first, second = module("right"), module("right")
    drv.memcpy_htod(first.get_global("weights")[0], np.array([5, 6, 7, 8], np.float32))
    y = np.zeros(4, np.float32)
    second.get_function("weighted")(drv.Out(y), block=(4, 1, 1))
    assert y.tolist() == [1, 2, 3, 4]


def test_occupancy_and_attributes(module):
    import pycuda.driver as drv

    kernel = module("wrong").get_function("nothing")
    assert kernel.max_threads_per_block == 1024
    assert drv.Device(0).compute_capability() == (8, 7)
    assert drv.Device(0).max_threads_per_block == 1024
    assert drv.get_driver_version() == 12060
