// The driver API: memory, copies, fills.
//
// What a copy does when is NVIDIA's "API synchronization behavior": a copy from pageable memory takes the bytes at the
// call, a copy to pageable memory is done at the return, and a copy from or to page-locked memory touches it when the
// stream gets there. Freeing waits for nothing here, so that work that is still queued finds its memory gone.
#include <cstring>

#include "device.h"
#include "machine.h"

using namespace cuda_host;

// Allocation ----------------------------------------------------------------------------------------------------------

API cuMemGetInfo(size_t *free, size_t *total) {
    CONTEXT_CALL;
    *free = memory.free_bytes();
    *total = Memory::total;
    return CUDA_SUCCESS;
}

API cuMemAlloc(CUdeviceptr *pointer, size_t bytes) {
    CONTEXT_CALL;
    REQUIRE(pointer);
    if (!bytes) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemAlloc of 0 bytes");
    Region *region = memory.allocate(bytes, Kind::device, call.context->id);
    if (!region) return CUDA_ERROR_OUT_OF_MEMORY;
    *pointer = region->base;
    return CUDA_SUCCESS;
}

API cuMemAllocPitch(CUdeviceptr *pointer, size_t *pitch, size_t width, size_t height, unsigned element) {
    REQUIRE(pitch);
    if (element != 4 && element != 8 && element != 16)
        return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemAllocPitch for elements of %u bytes", element);
    size_t row = (width + device::pitch_alignment - 1) / device::pitch_alignment * device::pitch_alignment;
    CUresult error = cuMemAlloc(pointer, row * height);
    if (!error) *pitch = row;
    return error;
}

/// The live region of one of the kinds that begins at the address; null otherwise, reported unless it is outdated.
static Region *owned(const char *call, uintptr_t address, Kind kind, Kind other_kind) {
    Region *region = memory.at(address);
    if (region && !region->freed && (region->kind == kind || region->kind == other_kind)) return region;
    if (region || !memory.forgotten(address)) report("%s: %s", call, memory.describe(address, 0).c_str());
    return nullptr;
}

API cuMemFree(CUdeviceptr pointer) {
    CLEANUP_CALL;
    Region *region = owned(__func__, pointer, Kind::device, Kind::device);
    if (!region) return CUDA_ERROR_INVALID_VALUE;
    memory.release(*region);
    return CUDA_SUCCESS;
}

API cuMemGetAddressRange(CUdeviceptr *base, size_t *size, CUdeviceptr pointer) {
    CONTEXT_CALL;
    Region *region = memory.find(pointer);
    if (!region || region->freed || !region->holds(pointer, 1)) return CUDA_ERROR_NOT_FOUND;
    if (base) *base = region->base;
    if (size) *size = region->size;
    return CUDA_SUCCESS;
}

API cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    CONTEXT_CALL;
    REQUIRE(pointer);
    if (!bytes) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemHostAlloc of 0 bytes");
    Kind kind = flags & CU_MEMHOSTALLOC_DEVICEMAP ? Kind::mapped : Kind::pinned;
    Region *region = memory.allocate(bytes, kind, call.context->id, 4096);
    if (!region) return CUDA_ERROR_OUT_OF_MEMORY;
    *pointer = reinterpret_cast<void *>(region->base);
    return CUDA_SUCCESS;
}

API cuMemAllocHost(void **pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

API cuMemFreeHost(void *pointer) {
    CLEANUP_CALL;
    Region *region = owned(__func__, reinterpret_cast<uintptr_t>(pointer), Kind::pinned, Kind::mapped);
    if (!region || !region->owned) return CUDA_ERROR_INVALID_VALUE;
    memory.release(*region);
    return CUDA_SUCCESS;
}

API cuMemHostRegister(void *pointer, size_t bytes, unsigned flags) {
    CONTEXT_CALL;
    REQUIRE(pointer);
    if (!bytes) return refuse(CUDA_ERROR_INVALID_VALUE, "cuMemHostRegister of 0 bytes");
    Kind kind = flags & CU_MEMHOSTREGISTER_DEVICEMAP ? Kind::mapped : Kind::pinned;
    Region *region = memory.adopt(reinterpret_cast<uintptr_t>(pointer), bytes, kind, call.context->id);
    return region ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

API cuMemHostUnregister(void *pointer) {
    CLEANUP_CALL;
    Region *region = memory.at(reinterpret_cast<uintptr_t>(pointer));
    if (!region || region->freed || region->owned) return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    memory.release(*region);
    return CUDA_SUCCESS;
}

API cuMemHostGetDevicePointer(CUdeviceptr *device, void *host, unsigned) {
    CONTEXT_CALL;
    Region *region = memory.find(reinterpret_cast<uintptr_t>(host));
    if (!region || region->freed || region->kind != Kind::mapped ||
        !region->holds(reinterpret_cast<uintptr_t>(host), 1))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%p is no host memory that is mapped for the device", host);
    *device = reinterpret_cast<CUdeviceptr>(host);
    return CUDA_SUCCESS;
}

API cuMemHostGetFlags(unsigned *flags, void *host) {
    CONTEXT_CALL;
    Region *region = memory.find(reinterpret_cast<uintptr_t>(host));
    if (!region || region->freed || region->on_device()) return CUDA_ERROR_INVALID_VALUE;
    *flags = region->kind == Kind::mapped ? CU_MEMHOSTALLOC_DEVICEMAP : 0;
    return CUDA_SUCCESS;
}

API cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr pointer) {
    CALL;
    Region *region = memory.find(pointer);
    if (!region || region->freed || !region->holds(pointer, 1)) return CUDA_ERROR_INVALID_VALUE;
    if (attribute != CU_POINTER_ATTRIBUTE_MEMORY_TYPE) return CUDA_ERROR_NOT_SUPPORTED;
    *static_cast<unsigned *>(value) = region->on_device() ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
    return CUDA_SUCCESS;
}

/// From now on (or no longer) kernels may not touch these bytes of an allocation; false when they are not in one. Not
/// CUDA's: for tests of programs that divide an allocation themselves.
extern "C" __attribute__((visibility("default"))) bool cuda_host_forbid(uintptr_t address, size_t bytes,
                                                                        bool forbidden) {
    std::lock_guard<std::recursive_mutex> lock(machine.lock);
    Region *region = memory.find(address);
    if (!region || region->freed || !region->holds(address, bytes)) return false;
    for (size_t i = 0; i < bytes; ++i) *region->shadow(address + i) = {forbidden ? Cell::forbidden : 0, {0, 0}};
    return true;
}

// Copies --------------------------------------------------------------------------------------------------------------

enum class Place { device, host, either };

/// Rows of bytes at one end of a copy.
struct Rows {
    uintptr_t start;
    size_t pitch;
    Place place;
    bool pageable = false;

    char *row(size_t number) const { return reinterpret_cast<char *>(start + number * pitch); }
};

struct Copy {
    Rows to, from;
    size_t width, height;
};

static Rows on_device(CUdeviceptr pointer) { return {pointer, 0, Place::device}; }
static Rows on_host(const void *pointer) { return {reinterpret_cast<uintptr_t>(pointer), 0, Place::host}; }

/// Whether the device may touch the rows. Sets `pageable` for host memory that it cannot touch by itself.
static bool check(const char *call, const char *end, Rows &rows, size_t width, size_t height) {
    for (size_t i = 0; i < height; ++i) {
        uintptr_t address = rows.start + i * rows.pitch;
        Region *region = memory.find(address);
        bool known = region && address - region->base < region->size && (region->owned || !region->freed);
        if (!known) {
            if (rows.place != Place::device && address >= 4096 && !memory.given(address)) {
                rows.pageable = true;
                return true;
            }
            report("%s: %s is %s", call, end, memory.describe(address, width).c_str());
            return false;
        }
        bool wrong_place =
            rows.place == (region->on_device() ? Place::host : Place::device) && region->kind != Kind::mapped;
        if (region->freed || wrong_place || !region->holds(address, width)) {
            report("%s: %s is %s%s", call, end, memory.describe(address, width).c_str(),
                   wrong_place ? ", the wrong kind" : "");
            return false;
        }
    }
    return true;
}

static CUresult perform(const char *call, Copy &copy) {
    if (!copy.to.pageable && !check(call, "the destination, when the copy is made,", copy.to, copy.width, copy.height))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!copy.from.pageable && !check(call, "the source, when the copy is made,", copy.from, copy.width, copy.height))
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (size_t i = 0; i < copy.height; ++i) std::memmove(copy.to.row(i), copy.from.row(i), copy.width);
    return CUDA_SUCCESS;
}

static CUresult submit(const char *call, Context &context, Stream &stream, Copy copy, bool synchronous) {
    if (!copy.width || !copy.height) return CUDA_SUCCESS;
    if (!check(call, "the destination", copy.to, copy.width, copy.height) ||
        !check(call, "the source", copy.from, copy.width, copy.height))
        return CUDA_ERROR_INVALID_VALUE;
    std::shared_ptr<std::vector<char>> staged;
    if (copy.from.pageable) {
        staged = std::make_shared<std::vector<char>>(copy.width * copy.height);
        for (size_t i = 0; i < copy.height; ++i)
            std::memcpy(staged->data() + i * copy.width, copy.from.row(i), copy.width);
        copy.from = {reinterpret_cast<uintptr_t>(staged->data()), copy.width, Place::host, true};
    }
    auto work = machine.queue.submit(stream, [call, copy, staged]() mutable { return perform(call, copy); });
    bool with_host = copy.to.place == Place::host || copy.from.place == Place::host;
    if (copy.to.pageable || (synchronous && with_host)) machine.queue.finish(work);
    return context.error;
}

#define COPY(to, from, bytes, handle, synchronous) \
    CONTEXT_CALL; \
    Stream *stream = machine.stream(handle, *call.context); \
    if (!stream) return CUDA_ERROR_INVALID_HANDLE; \
    return submit(__func__, *call.context, *stream, {to, from, bytes, 1}, synchronous)

API cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
    COPY(on_device(to), on_host(from), bytes, nullptr, true);
}
API cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) { COPY(on_host(to), on_device(from), bytes, nullptr, true); }
API cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    COPY(on_device(to), on_device(from), bytes, nullptr, true);
}
API cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream handle) {
    COPY(on_device(to), on_host(from), bytes, handle, false);
}
API cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream handle) {
    COPY(on_host(to), on_device(from), bytes, handle, false);
}
API cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream handle) {
    COPY(on_device(to), on_device(from), bytes, handle, false);
}

/// One end of a 2D copy; false for an array, which is not played.
static bool rows_of(CUmemorytype type, const void *host, CUdeviceptr device, size_t x, size_t y, size_t pitch,
                    size_t width, Rows &rows) {
    if (type == CU_MEMORYTYPE_ARRAY) return false;
    if (!pitch) pitch = x + width;
    rows = type == CU_MEMORYTYPE_HOST ? on_host(host) : on_device(device);
    if (type == CU_MEMORYTYPE_UNIFIED) rows.place = Place::either;
    rows.start += y * pitch + x;
    rows.pitch = pitch;
    return pitch >= x + width;
}

static CUresult copy_2d(const char *name, const CUDA_MEMCPY2D *copy, CUstream handle, bool synchronous) {
    CONTEXT_CALL;
    REQUIRE(copy);
    Stream *stream = machine.stream(handle, *call.context);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    Copy rows{{}, {}, copy->WidthInBytes, copy->Height};
    if (!rows_of(copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstXInBytes, copy->dstY, copy->dstPitch,
                 copy->WidthInBytes, rows.to) ||
        !rows_of(copy->srcMemoryType, copy->srcHost, copy->srcDevice, copy->srcXInBytes, copy->srcY, copy->srcPitch,
                 copy->WidthInBytes, rows.from))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: rows of %zu bytes do not fit into pitches of %zu and %zu", name,
                      copy->WidthInBytes, copy->dstPitch, copy->srcPitch);
    return submit(name, *call.context, *stream, rows, synchronous);
}

API cuMemcpy2D(const CUDA_MEMCPY2D *copy) { return copy_2d(__func__, copy, nullptr, true); }
API cuMemcpy2DUnaligned(const CUDA_MEMCPY2D *copy) { return copy_2d(__func__, copy, nullptr, true); }
API cuMemcpy2DAsync(const CUDA_MEMCPY2D *copy, CUstream stream) { return copy_2d(__func__, copy, stream, false); }

// Fills ---------------------------------------------------------------------------------------------------------------

template <class T>
static CUresult fill(const char *name, CUdeviceptr pointer, size_t pitch, T value, size_t width, size_t height,
                     CUstream handle) {
    CONTEXT_CALL;
    Stream *stream = machine.stream(handle, *call.context);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!width || !height) return CUDA_SUCCESS;
    Rows rows{pointer, pitch, Place::device};
    if (pointer % sizeof(T) || pitch % sizeof(T))
        return refuse(CUDA_ERROR_INVALID_VALUE, "%s: 0x%zx or its pitch is not aligned to %zu bytes", name,
                      static_cast<size_t>(pointer), sizeof(T));
    if (!check(name, "the destination", rows, width * sizeof(T), height)) return CUDA_ERROR_INVALID_VALUE;
    machine.queue.submit(*stream, [=]() mutable {
        if (!check(name, "the destination, when it is filled,", rows, width * sizeof(T), height))
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        for (size_t y = 0; y < height; ++y)
            for (size_t x = 0; x < width; ++x) reinterpret_cast<T *>(rows.row(y))[x] = value;
        return CUDA_SUCCESS;
    });
    return call.context->error;
}

#define FILLS(bits, T) \
    API cuMemsetD##bits(CUdeviceptr pointer, T value, size_t count) { \
        return fill(__func__, pointer, 0, value, count, 1, nullptr); \
    } \
    API cuMemsetD##bits##Async(CUdeviceptr pointer, T value, size_t count, CUstream stream) { \
        return fill(__func__, pointer, 0, value, count, 1, stream); \
    } \
    API cuMemsetD2D##bits(CUdeviceptr pointer, size_t pitch, T value, size_t width, size_t height) { \
        return fill(__func__, pointer, pitch, value, width, height, nullptr); \
    } \
    API cuMemsetD2D##bits##Async(CUdeviceptr pointer, size_t pitch, T value, size_t width, size_t height, \
                                 CUstream stream) { \
        return fill(__func__, pointer, pitch, value, width, height, stream); \
    }
FILLS(8, unsigned char)
FILLS(16, unsigned short)
FILLS(32, unsigned int)
