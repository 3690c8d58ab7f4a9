// The driver API: initialisation, the device, contexts.
#include <cstdio>
#include <cstring>
#include <dlfcn.h>

#include "device.h"
#include "machine.h"

using namespace cuda_host;

API cuInit(unsigned flags) {
    std::lock_guard<std::recursive_mutex> lock(machine.lock);
    if (flags) return CUDA_ERROR_INVALID_VALUE;
    machine.initialised = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int *version) {
    REQUIRE(version);
    *version = device::driver_version;
    return CUDA_SUCCESS;
}

#define ERRORS(X) \
    X(SUCCESS, "no error") \
    X(ERROR_INVALID_VALUE, "invalid argument") \
    X(ERROR_OUT_OF_MEMORY, "out of memory") \
    X(ERROR_NOT_INITIALIZED, "initialization error") \
    X(ERROR_INVALID_DEVICE, "invalid device ordinal") \
    X(ERROR_INVALID_IMAGE, "device kernel image is invalid") \
    X(ERROR_INVALID_CONTEXT, "invalid device context") \
    X(ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device") \
    X(ERROR_INVALID_PTX, "a PTX JIT compilation failed") \
    X(ERROR_UNSUPPORTED_PTX_VERSION, "the provided PTX was compiled with an unsupported toolchain.") \
    X(ERROR_FILE_NOT_FOUND, "file not found") \
    X(ERROR_INVALID_HANDLE, "invalid resource handle") \
    X(ERROR_NOT_FOUND, "named symbol not found") \
    X(ERROR_NOT_READY, "device not ready") \
    X(ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered") \
    X(ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch") \
    X(ERROR_PRIMARY_CONTEXT_ACTIVE, "cannot set while device is active in this process") \
    X(ERROR_CONTEXT_IS_DESTROYED, "context is destroyed") \
    X(ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped") \
    X(ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region") \
    X(ERROR_MISALIGNED_ADDRESS, "misaligned address") \
    X(ERROR_LAUNCH_FAILED, "unspecified launch failure") \
    X(ERROR_NOT_SUPPORTED, "operation not supported")

API cuGetErrorName(CUresult error, const char **name) {
    REQUIRE(name);
    switch (error) {
#define NAME(code, description) \
    case CUDA_##code: *name = "CUDA_" #code; return CUDA_SUCCESS;
        ERRORS(NAME)
        default: *name = nullptr; return CUDA_ERROR_INVALID_VALUE;
    }
}

API cuGetErrorString(CUresult error, const char **description) {
    REQUIRE(description);
    switch (error) {
#define DESCRIPTION(code, words) \
    case CUDA_##code: *description = words; return CUDA_SUCCESS;
        ERRORS(DESCRIPTION)
        default: *description = nullptr; return CUDA_ERROR_INVALID_VALUE;
    }
}

// The device ----------------------------------------------------------------------------------------------------------

#define DEVICE_CALL(ordinal) \
    CALL; \
    if ((ordinal) != 0) return CUDA_ERROR_INVALID_DEVICE

API cuDeviceGetCount(int *count) {
    CALL;
    *count = 1;
    return CUDA_SUCCESS;
}

API cuDeviceGet(CUdevice *device, int ordinal) {
    DEVICE_CALL(ordinal);
    *device = 0;
    return CUDA_SUCCESS;
}

API cuDeviceGetName(char *name, int length, CUdevice device) {
    DEVICE_CALL(device);
    std::snprintf(name, length, "CUDA host (no GPU)");
    return CUDA_SUCCESS;
}

API cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    DEVICE_CALL(device);
    *bytes = Memory::total;
    return CUDA_SUCCESS;
}

API cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    DEVICE_CALL(device);
    std::memcpy(uuid->bytes, "CUDA host no GPU", sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

API cuDeviceGetPCIBusId(char *id, int length, CUdevice device) {
    DEVICE_CALL(device);
    std::snprintf(id, length, "0000:00:00.0");
    return CUDA_SUCCESS;
}

API cuDeviceComputeCapability(int *major, int *minor, CUdevice device) {
    DEVICE_CALL(device);
    *major = device::capability / 10;
    *minor = device::capability % 10;
    return CUDA_SUCCESS;
}

API cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    DEVICE_CALL(device);
    REQUIRE(value);
    switch (attribute) {
#define ATTRIBUTE(name, number) \
    case CU_DEVICE_ATTRIBUTE_##name: *value = number; return CUDA_SUCCESS;
        ATTRIBUTE(MAX_THREADS_PER_BLOCK, device::threads_per_block)
        ATTRIBUTE(MAX_BLOCK_DIM_X, device::threads_per_block)
        ATTRIBUTE(MAX_BLOCK_DIM_Y, device::threads_per_block)
        ATTRIBUTE(MAX_BLOCK_DIM_Z, device::block_z)
        ATTRIBUTE(MAX_GRID_DIM_X, device::grid_x)
        ATTRIBUTE(MAX_GRID_DIM_Y, device::grid_yz)
        ATTRIBUTE(MAX_GRID_DIM_Z, device::grid_yz)
        ATTRIBUTE(MAX_SHARED_MEMORY_PER_BLOCK, device::shared_per_block)
        ATTRIBUTE(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device::shared_opt_in)
        ATTRIBUTE(MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, device::shared_per_multiprocessor)
        ATTRIBUTE(TOTAL_CONSTANT_MEMORY, 64 << 10)
        ATTRIBUTE(WARP_SIZE, 32)
        ATTRIBUTE(MAX_PITCH, 2147483647)
        ATTRIBUTE(MAX_REGISTERS_PER_BLOCK, device::registers)
        ATTRIBUTE(MAX_REGISTERS_PER_MULTIPROCESSOR, device::registers)
        ATTRIBUTE(CLOCK_RATE, 1300000)
        ATTRIBUTE(MEMORY_CLOCK_RATE, 3200000)
        ATTRIBUTE(GLOBAL_MEMORY_BUS_WIDTH, 256)
        ATTRIBUTE(L2_CACHE_SIZE, 4 << 20)
        ATTRIBUTE(TEXTURE_ALIGNMENT, 512)
        ATTRIBUTE(TEXTURE_PITCH_ALIGNMENT, 32)
        ATTRIBUTE(GPU_OVERLAP, 1)
        ATTRIBUTE(ASYNC_ENGINE_COUNT, 2)
        ATTRIBUTE(CONCURRENT_KERNELS, 1)
        ATTRIBUTE(MULTIPROCESSOR_COUNT, device::multiprocessors)
        ATTRIBUTE(MAX_THREADS_PER_MULTIPROCESSOR, device::threads_per_multiprocessor)
        ATTRIBUTE(MAX_BLOCKS_PER_MULTIPROCESSOR, device::blocks_per_multiprocessor)
        ATTRIBUTE(INTEGRATED, 1)
        ATTRIBUTE(CAN_MAP_HOST_MEMORY, 1)
        ATTRIBUTE(UNIFIED_ADDRESSING, 1)
        ATTRIBUTE(COMPUTE_CAPABILITY_MAJOR, device::capability / 10)
        ATTRIBUTE(COMPUTE_CAPABILITY_MINOR, device::capability % 10)
        default: *value = 0; return attribute < CU_DEVICE_ATTRIBUTE_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
}

// The primary context -------------------------------------------------------------------------------------------------

API cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    DEVICE_CALL(device);
    REQUIRE(context);
    if (!machine.primary) machine.primary = machine.create(true, 0);
    ++machine.contexts.find(machine.primary, "context")->users;
    *context = machine.primary;
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxRelease(CUdevice device) {
    DEVICE_CALL(device);
    if (!machine.primary)
        return refuse(CUDA_ERROR_INVALID_CONTEXT, "the primary context is released, but nobody retains it");
    if (--machine.contexts.find(machine.primary, "context")->users == 0) machine.destroy(machine.primary);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxReset(CUdevice device) {
    DEVICE_CALL(device);
    if (machine.primary) machine.destroy(machine.primary);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned) {
    DEVICE_CALL(device);
    return CUDA_SUCCESS;
}

API cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    DEVICE_CALL(device);
    if (flags) *flags = 0;
    if (active) *active = machine.primary != nullptr;
    return CUDA_SUCCESS;
}

/// How many users retain the primary context. Not CUDA's: for tests.
extern "C" __attribute__((visibility("default"))) int cuda_host_primary_users() {
    std::lock_guard<std::recursive_mutex> lock(machine.lock);
    return machine.primary ? machine.contexts.find(machine.primary, "context")->users : 0;
}

// Contexts ------------------------------------------------------------------------------------------------------------

API cuCtxCreate(CUcontext *context, unsigned flags, CUdevice device) {
    DEVICE_CALL(device);
    REQUIRE(context);
    *context = machine.create(false, flags);
    machine.contexts.find(*context, "context")->users = 1;
    current.push_back(*context);
    return CUDA_SUCCESS;
}

static CUresult destroy(CUcontext handle) {
    Context *context = machine.contexts.find(handle, "context");
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    if (context->primary) return refuse(CUDA_ERROR_INVALID_CONTEXT, "the primary context is released, not destroyed");
    if (!current.empty() && current.back() == handle) current.pop_back();
    machine.destroy(handle);
    return CUDA_SUCCESS;
}

API cuCtxDestroy(CUcontext context) {
    CALL;
    return destroy(context);
}

API cuCtxAttach(CUcontext *context, unsigned) {
    CONTEXT_CALL;
    ++call.context->users;
    *context = current.back();
    return CUDA_SUCCESS;
}

API cuCtxDetach(CUcontext handle) {
    CALL;
    if (outdated(handle)) return CUDA_SUCCESS;
    Context *context = machine.contexts.find(handle, "context");
    if (!context) return CUDA_ERROR_INVALID_CONTEXT;
    return --context->users ? CUDA_SUCCESS : destroy(handle);
}

API cuCtxPushCurrent(CUcontext context) {
    CALL;
    // An owner from before a reset may enter its context to clean up: pycuda aborts the process where it cannot.
    if (!outdated(context) && !machine.contexts.find(context, "context")) return CUDA_ERROR_INVALID_CONTEXT;
    current.push_back(context);
    return CUDA_SUCCESS;
}

API cuCtxPopCurrent(CUcontext *context) {
    CALL;
    if (current.empty()) return refuse(CUDA_ERROR_INVALID_CONTEXT, "a context is popped, but none is current");
    if (context) *context = current.back();
    current.pop_back();
    return CUDA_SUCCESS;
}

API cuCtxSetCurrent(CUcontext context) {
    CALL;
    if (context && !machine.contexts.find(context, "context")) return CUDA_ERROR_INVALID_CONTEXT;
    if (!current.empty()) current.pop_back();
    if (context) current.push_back(context);
    return CUDA_SUCCESS;
}

API cuCtxGetCurrent(CUcontext *context) {
    CALL;
    *context = current.empty() ? nullptr : current.back();
    return CUDA_SUCCESS;
}

API cuCtxGetDevice(CUdevice *device) {
    CONTEXT_CALL;
    *device = 0;
    return CUDA_SUCCESS;
}

API cuCtxGetApiVersion(CUcontext, unsigned *version) {
    CALL;
    *version = device::driver_version;
    return CUDA_SUCCESS;
}

API cuCtxGetFlags(unsigned *flags) {
    CONTEXT_CALL;
    *flags = call.context->flags;
    return CUDA_SUCCESS;
}

API cuCtxSynchronize() {
    CONTEXT_CALL;
    machine.queue.finish_context(call.context->id);
    return call.context->error;
}

// The other way to a function: how the CUDA runtime and others find the driver's.
API cuGetProcAddress_v2(const char *symbol, void **function, int, cuuint64_t, CUdriverProcAddressQueryResult *result) {
    Dl_info self;
    dladdr(reinterpret_cast<void *>(&cuInit), &self);
    void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    *function = nullptr;
    for (const char *version : {"_v3", "_v2", ""})
        if (library && !*function) *function = dlsym(library, (std::string(symbol) + version).c_str());
    if (library) dlclose(library);
    if (result) *result = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
