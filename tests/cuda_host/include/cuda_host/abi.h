// Where kernels built by g++ and the driver meet: what a module tells of its kernels, what the driver does for them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "vector_types.h"

namespace cuda_host {

/// One `__global__` function. `run` calls it once, as one CUDA thread, with copies of the arguments.
struct Kernel {
    const char *name;
    unsigned parameters;
    const size_t *sizes;
    const size_t *alignments;
    const bool *pointers;
    void (*run)(void *const *arguments);
};

/// What the lanes of a warp gave to a collective, as each of them sees it afterwards.
struct Exchange {
    uint64_t value[32];
    uint32_t given;  // the lanes that took part
};

/// How a kernel touches memory.
enum class Access { read, write, atomic };

/// What a barrier gives back, next to waiting.
enum class Barrier { plain, count, all, any };

}  // namespace cuda_host

// The driver sets these for every thread; for the thread they are constants, so that g++ may keep them over calls and
// leaves them out of the instrumentation.
#ifdef CUDA_HOST_DRIVER
#define CUDA_HOST_CONSTANT
#else
#define CUDA_HOST_CONSTANT const
#endif

#pragma GCC visibility push(default)
extern "C" {
extern CUDA_HOST_CONSTANT uint3 cuda_host_threadIdx, cuda_host_blockIdx, cuda_host_blockDim, cuda_host_gridDim;
extern unsigned char *CUDA_HOST_CONSTANT cuda_host_dynamic_shared;

int cuda_host_barrier(cuda_host::Barrier kind, int predicate, const char *file, int line);
void cuda_host_exchange(uint32_t mask, uint64_t value, cuda_host::Exchange *seen, const char *what, const char *file,
                        int line);
void cuda_host_fence();
void cuda_host_access(uintptr_t address, size_t size, cuda_host::Access access, const void *code);
[[noreturn]] void cuda_host_trap(const char *what, const char *file, unsigned line);
[[noreturn]] void cuda_host_misaligned(uintptr_t address, size_t alignment, const char *file, unsigned line);
}
#pragma GCC visibility pop
