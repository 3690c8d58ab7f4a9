// What g++'s -fsanitize=thread and -fsanitize=undefined call from the kernels, handed on to the driver.
//
// The sanitizers' own runtimes are not linked: the driver knows blocks, barriers and device memory, they do not. Each
// module has these functions for itself, hidden, so that nothing else in the process can take them for a sanitizer's.
#include "cuda_host/abi.h"

using cuda_host::Access;

#define CODE __builtin_return_address(0)
#define ACCESS(name, size, access) \
    void name(void *address) { cuda_host_access(reinterpret_cast<uintptr_t>(address), size, access, CODE); }
#define ACCESSES(size) \
    ACCESS(__tsan_read##size, size, Access::read) \
    ACCESS(__tsan_write##size, size, Access::write) \
    ACCESS(__tsan_unaligned_read##size, size, Access::read) \
    ACCESS(__tsan_unaligned_write##size, size, Access::write)

#define UNDEFINED(name, what) \
    void __ubsan_handle_##name(Location *at) { cuda_host_trap(what, at->file, at->line); }

/// How the data of every __ubsan_handle_* begins; the rest is not needed.
struct Location {
    const char *file;
    uint32_t line, column;
};

struct TypeMismatch {
    Location at;
    const void *type;
    unsigned char log_alignment, kind;
};

extern "C" {
void __tsan_init() {}
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void *address, size_t size) {
    cuda_host_access(reinterpret_cast<uintptr_t>(address), size, Access::read, CODE);
}
void __tsan_write_range(void *address, size_t size) {
    cuda_host_access(reinterpret_cast<uintptr_t>(address), size, Access::write, CODE);
}

void __ubsan_handle_type_mismatch_v1(TypeMismatch *data, void *address) {
    cuda_host_misaligned(reinterpret_cast<uintptr_t>(address), size_t{1} << data->log_alignment, data->at.file,
                         data->at.line);
}
UNDEFINED(out_of_bounds, "index outside of an array")
UNDEFINED(divrem_overflow, "division by zero")
UNDEFINED(shift_out_of_bounds, "shift by more bits than there are")
UNDEFINED(float_cast_overflow, "cast of a float that the integer cannot hold")
UNDEFINED(add_overflow, "signed integer overflow")
UNDEFINED(sub_overflow, "signed integer overflow")
UNDEFINED(mul_overflow, "signed integer overflow")
UNDEFINED(negate_overflow, "signed integer overflow")
}
