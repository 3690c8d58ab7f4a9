// The driver API: modules, functions, launches.
#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <link.h>
#include <sstream>

#include "device.h"
#include "machine.h"

using namespace cuda_host;

// The compiler's logs, empty: a caller reads as much of its buffers as it is told was written, and pycuda makes the error
// log a part of its message.
static void write_logs(unsigned count, const CUjit_option *options, void **values) {
    for (unsigned i = 0; i < count; ++i) switch (options[i]) {
            case CU_JIT_INFO_LOG_BUFFER:
            case CU_JIT_ERROR_LOG_BUFFER:
                *static_cast<char *>(values[i]) = '\0';
                break;
            case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
            case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
                values[i] = nullptr;
                break;
            default:
                break;
        }
}

API cuModuleLoadDataEx(
    CUmodule *module, const void *image, unsigned count, CUjit_option *options, void **values) {
    CONTEXT_CALL;
    REQUIRE(module);
    REQUIRE(image);
    write_logs(count, options, values);
    auto loaded = std::make_shared<Module>(Module{call.context->id});
    CUresult error = load(static_cast<const char *>(image), *loaded);
    if (!error) *module = machine.modules.add(loaded);
    return error;
}

API cuModuleLoadData(CUmodule *module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}

API cuModuleLoad(CUmodule *module, const char *path) {
    std::ifstream file(path);
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    std::stringstream text;
    text << file.rdbuf();
    return cuModuleLoadData(module, text.str().c_str());
}

#define MODULE(handle) \
    std::shared_ptr<Module> *found = machine.modules.find(handle, "module"); \
    if (!found) return CUDA_ERROR_INVALID_HANDLE; \
    std::shared_ptr<Module> module = *found
#define FUNCTION(handle) \
    Function *function = machine.functions.find(handle, "function"); \
    if (!function) return CUDA_ERROR_INVALID_HANDLE

API cuModuleUnload(CUmodule handle) {
    CLEANUP_CALL;
    MODULE(handle);
    module->unloaded = true;  // of which kernels that are still queued will hear
    machine.functions.remove_if([&](const Function &function) { return function.module == module; });
    machine.modules.remove(handle);
    return CUDA_SUCCESS;
}

API cuModuleGetFunction(CUfunction *function, CUmodule handle, const char *name) {
    CONTEXT_CALL;
    MODULE(handle);
    const Kernel *kernel = find_kernel(*module, name);
    if (!kernel) return CUDA_ERROR_NOT_FOUND;
    *function = machine.functions.add(Function{module, kernel, &module->ptx.entries[name], device::shared_per_block});
    return CUDA_SUCCESS;
}

API cuModuleGetGlobal(CUdeviceptr *pointer, size_t *bytes, CUmodule handle, const char *name) {
    CONTEXT_CALL;
    MODULE(handle);
    void *address = dlsym(module->library.get(), name);
    Dl_info where;
    ElfW(Sym) *symbol = nullptr;
    if (!address || !dladdr1(address, &where, reinterpret_cast<void **>(&symbol), RTLD_DL_SYMENT) || !symbol)
        return CUDA_ERROR_NOT_FOUND;
    uintptr_t base = reinterpret_cast<uintptr_t>(address);
    if (!memory.at(base) || memory.at(base)->freed) memory.adopt(base, symbol->st_size, Kind::global, call.context->id);
    if (pointer) *pointer = base;
    if (bytes) *bytes = symbol->st_size;
    return CUDA_SUCCESS;
}

// Functions -----------------------------------------------------------------------------------------------------------

API cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction handle) {
    CONTEXT_CALL;
    FUNCTION(handle);
    unsigned most = function->entry->max_threads;
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = most ? most : device::threads_per_block; break;
        case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = function->entry->static_shared; break;
        case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = device::registers_per_thread; break;
        case CU_FUNC_ATTRIBUTE_PTX_VERSION: *value = function->module->ptx.target; break;
        case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = device::capability; break;
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
            *value = function->max_dynamic_shared - function->entry->static_shared;
            break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

API cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    CONTEXT_CALL;
    FUNCTION(handle);
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    size_t wanted = value + function->entry->static_shared;
    if (value < 0 || wanted > device::shared_opt_in)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %d bytes of shared memory", function->kernel->name, value);
    function->max_dynamic_shared = wanted;
    return CUDA_SUCCESS;
}

API cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache) {
    CONTEXT_CALL;
    FUNCTION(handle);
    return CUDA_SUCCESS;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction handle, int threads, size_t shared) {
    CONTEXT_CALL;
    FUNCTION(handle);
    if (threads < 1) return CUDA_ERROR_INVALID_VALUE;
    int warps = (threads + 31) / 32;
    size_t bytes = std::max<size_t>(1, shared + function->entry->static_shared);
    *blocks = std::min({device::blocks_per_multiprocessor, device::threads_per_multiprocessor / (32 * warps),
                        device::registers / (device::registers_per_thread * 32 * warps),
                        static_cast<int>(device::shared_per_multiprocessor / bytes)});
    return CUDA_SUCCESS;
}

// Launches ------------------------------------------------------------------------------------------------------------

static bool within(unsigned x, unsigned y, unsigned z, unsigned most_x, unsigned most_y, unsigned most_z) {
    return x >= 1 && y >= 1 && z >= 1 && x <= most_x && y <= most_y && z <= most_z;
}

/// CUDA_SUCCESS when a device could start it.
static CUresult check(const Function &function, uint3 grid, uint3 block, size_t shared, size_t argument_size) {
    const char *name = function.kernel->name;
    const Entry &entry = *function.entry;
    size_t threads = size_t{block.x} * block.y * block.z;
    if (!within(grid.x, grid.y, grid.z, device::grid_x, device::grid_yz, device::grid_yz))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: grid (%u, %u, %u)", name, grid.x, grid.y, grid.z);
    if (!within(block.x, block.y, block.z, device::threads_per_block, device::threads_per_block, device::block_z) ||
        threads > device::threads_per_block)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: block (%u, %u, %u)", name, block.x, block.y, block.z);
    if (entry.max_threads && threads > entry.max_threads)
        return refuse(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "%s: a block of %zu threads, its __launch_bounds__ say %u",
                      name, threads, entry.max_threads);
    if (shared + entry.static_shared > function.max_dynamic_shared)
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes of dynamic and %zu of static shared memory", name,
                      shared, entry.static_shared);
    if (argument_size != argument_bytes(*function.kernel))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes of arguments, it takes %zu", name, argument_size,
                      argument_bytes(*function.kernel));
    return CUDA_SUCCESS;
}

static CUresult submit(Context &context, Function &function, uint3 grid, uint3 block, size_t shared, CUstream handle,
                       const std::vector<char> &arguments) {
    Stream *stream = machine.stream(handle, context);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (function.module->context != context.id)
        return refuse(CUDA_ERROR_INVALID_HANDLE, "%s is of another context than the current one",
                      function.kernel->name);
    CUresult error = check(function, grid, block, shared, arguments.size());
    if (error) return error;
    Launch launch{function.kernel, grid, block, shared, arguments, {}, {}};
    machine.queue.submit(*stream, [launch, module = function.module]() mutable {
        if (module->unloaded)
            return refuse(CUDA_ERROR_LAUNCH_FAILED, "the module of %s is unloaded before it has run",
                          launch.kernel->name);
        measure(*module);
        launch.image = module->image;
        launch.statics = module->statics;
        return multiprocessor.run(launch);
    });
    return context.error;
}

/// The arguments as one block, from either of the two ways to give them. False when they are not given.
static bool gather(const Kernel &kernel, void **parameters, void **extra, std::vector<char> &arguments) {
    if (parameters) {
        for (unsigned i = 0; i < kernel.parameters; ++i) {
            arguments.resize((arguments.size() + kernel.alignments[i] - 1) / kernel.alignments[i] *
                             kernel.alignments[i]);
            auto value = static_cast<const char *>(parameters[i]);
            arguments.insert(arguments.end(), value, value + kernel.sizes[i]);
        }
        return true;
    }
    const char *start = nullptr;
    size_t size = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) start = static_cast<const char *>(extra[1]);
        if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *static_cast<size_t *>(extra[1]);
    }
    if (start) arguments.assign(start, start + size);
    return start || !kernel.parameters;
}

API cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **parameters,
                   void **extra) {
    CONTEXT_CALL;
    FUNCTION(handle);
    std::vector<char> arguments;
    if (!gather(*function->kernel, parameters, extra, arguments))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: no arguments", function->kernel->name);
    return submit(*call.context, *function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, stream,
                  arguments);
}

// As CUDA 3 launched; pycuda's prepared calls and calls with `time_kernel` still do.

API cuFuncSetBlockShape(CUfunction handle, int x, int y, int z) {
    CONTEXT_CALL;
    FUNCTION(handle);
    if (!within(x, y, z, device::threads_per_block, device::threads_per_block, device::block_z))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: block (%d, %d, %d)", function->kernel->name, x, y, z);
    function->block = {static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z)};
    return CUDA_SUCCESS;
}

API cuFuncSetSharedSize(CUfunction handle, unsigned bytes) {
    CONTEXT_CALL;
    FUNCTION(handle);
    function->shared = bytes;
    return CUDA_SUCCESS;
}

API cuParamSetSize(CUfunction handle, unsigned bytes) {
    CONTEXT_CALL;
    FUNCTION(handle);
    function->arguments.resize(bytes);
    return CUDA_SUCCESS;
}

API cuParamSetv(CUfunction handle, int offset, void *value, unsigned bytes) {
    CONTEXT_CALL;
    FUNCTION(handle);
    function->arguments.resize(std::max<size_t>(function->arguments.size(), offset + bytes));
    std::memcpy(function->arguments.data() + offset, value, bytes);
    return CUDA_SUCCESS;
}

API cuParamSeti(CUfunction function, int offset, unsigned value) {
    return cuParamSetv(function, offset, &value, sizeof value);
}
API cuParamSetf(CUfunction function, int offset, float value) {
    return cuParamSetv(function, offset, &value, sizeof value);
}

API cuLaunchGridAsync(CUfunction handle, int width, int height, CUstream stream) {
    CONTEXT_CALL;
    FUNCTION(handle);
    return submit(*call.context, *function, {static_cast<unsigned>(width), static_cast<unsigned>(height), 1},
                  function->block, function->shared, stream, function->arguments);
}

API cuLaunchGrid(CUfunction function, int width, int height) {
    return cuLaunchGridAsync(function, width, height, nullptr);
}
API cuLaunch(CUfunction function) { return cuLaunchGridAsync(function, 1, 1, nullptr); }
