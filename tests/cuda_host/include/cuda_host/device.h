// CUDA C++ for g++: what nvcc and NVRTC know by themselves. Included before the first line of a kernel source.
#pragma once
#include "crt/host_defines.h"  // first: macros of a system header would leave line marks within declarations

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "cuda_host/abi.h"
#include "cuda_fp16.h"  // half arithmetic is NVIDIA's own
#include "vector_functions.h"

// After cuda_fp16.h, which would take them for a device compiler: kernels choose the path that their PTX chose.
#define __CUDA_ARCH__ 750
#define __constant__
#define warpSize 32
#define threadIdx cuda_host_threadIdx
#define blockIdx cuda_host_blockIdx
#define blockDim cuda_host_blockDim
#define gridDim cuda_host_gridDim
#define CUDA_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// Barriers and fences -------------------------------------------------------------------------------------------------

inline void __syncthreads(CUDA_HOST_SITE) { cuda_host_barrier(cuda_host::Barrier::plain, 0, file, line); }
inline int __syncthreads_count(int predicate, CUDA_HOST_SITE) {
    return cuda_host_barrier(cuda_host::Barrier::count, predicate, file, line);
}
inline int __syncthreads_and(int predicate, CUDA_HOST_SITE) {
    return cuda_host_barrier(cuda_host::Barrier::all, predicate, file, line);
}
inline int __syncthreads_or(int predicate, CUDA_HOST_SITE) {
    return cuda_host_barrier(cuda_host::Barrier::any, predicate, file, line);
}
inline void __threadfence() { cuda_host_fence(); }
inline void __threadfence_system() { cuda_host_fence(); }
inline void __threadfence_block() {}  // orders nothing between blocks, and the race rules ask for a barrier within one
inline void __trap(CUDA_HOST_SITE) { cuda_host_trap("__trap()", file, line); }

// Warps ---------------------------------------------------------------------------------------------------------------

namespace cuda_host {

inline unsigned lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % warpSize; }

template <class T>
uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T>
T from_bits(uint64_t bits) {
    T value;
    std::memcpy(static_cast<void *>(&value), &bits, sizeof value);
    return value;
}

/// Every lane's `value`; undefined (all ones: NaN, -1) from a lane that gave none, as on a GPU.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, const char *what, const char *file, int line) {
    Exchange seen;
    cuda_host_exchange(mask, to_bits(value), &seen, what, file, line);
    return from_bits<T>(seen.given >> source & 1 ? seen.value[source] : ~uint64_t{0});
}

/// `fold(sum, value)` over the lanes of `mask`.
template <class T, class Fold>
T reduce(unsigned mask, T value, Fold fold, const char *what, const char *file, int line) {
    Exchange seen;
    cuda_host_exchange(mask, to_bits(value), &seen, what, file, line);
    T sum = value;
    for (unsigned other = 0; other < warpSize; ++other)
        if (other != lane() && seen.given >> other & 1) sum = fold(sum, from_bits<T>(seen.value[other]));
    return sum;
}

}  // namespace cuda_host

inline void __syncwarp(unsigned mask = ~0u, CUDA_HOST_SITE) {
    cuda_host::Exchange seen;
    cuda_host_exchange(mask, 0, &seen, "__syncwarp", file, line);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, CUDA_HOST_SITE) {
    unsigned group = cuda_host::lane() & ~(width - 1);
    return cuda_host::shuffle(mask, value, group + (source & (width - 1)), "__shfl_sync", file, line);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDA_HOST_SITE) {
    unsigned own = cuda_host::lane(), group = own & ~(width - 1);
    return cuda_host::shuffle(mask, value, own < group + delta ? own : own - delta, "__shfl_up_sync", file, line);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, CUDA_HOST_SITE) {
    unsigned own = cuda_host::lane(), end = (own & ~(width - 1)) + width;
    return cuda_host::shuffle(mask, value, own + delta < end ? own + delta : own, "__shfl_down_sync", file, line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = warpSize, CUDA_HOST_SITE) {
    unsigned own = cuda_host::lane(), end = (own & ~(width - 1)) + width;
    return cuda_host::shuffle(mask, value, (own ^ lanes) < end ? own ^ lanes : own, "__shfl_xor_sync", file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_HOST_SITE) {
    unsigned own = predicate ? 1u << cuda_host::lane() : 0;
    return cuda_host::reduce(mask, own, [](unsigned a, unsigned b) { return a | b; }, "__ballot_sync", file, line);
}
inline int __any_sync(unsigned mask, int predicate, CUDA_HOST_SITE) {
    return cuda_host::reduce(mask, predicate != 0, [](int a, int b) { return a | b; }, "__any_sync", file, line);
}
inline int __all_sync(unsigned mask, int predicate, CUDA_HOST_SITE) {
    return cuda_host::reduce(mask, predicate != 0, [](int a, int b) { return a & b; }, "__all_sync", file, line);
}

// Memory --------------------------------------------------------------------------------------------------------------

template <class T>
T __ldg(const T *address) {
    return *address;
}

namespace cuda_host {

/// The driver hears of the atomic access; the load and the store themselves are left out of the instrumentation.
template <class T, class Update>
__attribute__((no_sanitize("thread"), noinline)) T atomic(T *address, Update update) {
    cuda_host_access(reinterpret_cast<uintptr_t>(address), sizeof(T), Access::atomic, __builtin_return_address(0));
    T old = *address;
    *address = update(old);
    return old;
}

template <class T>
T wrapping_sum(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
        using Unsigned = std::make_unsigned_t<T>;
        return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
    } else {
        return a + b;
    }
}

}  // namespace cuda_host

#define CUDA_HOST_ATOMIC(T, name, result) \
    inline T name(T *address, T value) { \
        return cuda_host::atomic(address, [=](T old) -> T { return result; }); \
    }
#define CUDA_HOST_ATOMICS_OF_NUMBERS(T) \
    CUDA_HOST_ATOMIC(T, atomicAdd, cuda_host::wrapping_sum(old, value)) \
    CUDA_HOST_ATOMIC(T, atomicExch, ((void)old, value))
#define CUDA_HOST_ATOMICS_OF_INTEGERS(T) \
    CUDA_HOST_ATOMICS_OF_NUMBERS(T) \
    CUDA_HOST_ATOMIC(T, atomicMin, value < old ? value : old) \
    CUDA_HOST_ATOMIC(T, atomicMax, value > old ? value : old) \
    CUDA_HOST_ATOMIC(T, atomicAnd, old &value) \
    CUDA_HOST_ATOMIC(T, atomicOr, old | value) \
    CUDA_HOST_ATOMIC(T, atomicXor, old ^ value) \
    inline T atomicCAS(T *address, T expected, T value) { \
        return cuda_host::atomic(address, [=](T old) -> T { return old == expected ? value : old; }); \
    }

CUDA_HOST_ATOMICS_OF_INTEGERS(int)
CUDA_HOST_ATOMICS_OF_INTEGERS(unsigned)
CUDA_HOST_ATOMICS_OF_INTEGERS(unsigned long long)
CUDA_HOST_ATOMICS_OF_NUMBERS(float)
CUDA_HOST_ATOMIC(double, atomicAdd, old + value)
CUDA_HOST_ATOMIC(int, atomicSub, cuda_host::wrapping_sum(old, static_cast<int>(0u - static_cast<unsigned>(value))))
CUDA_HOST_ATOMIC(unsigned, atomicSub, old - value)
CUDA_HOST_ATOMIC(unsigned, atomicInc, old >= value ? 0 : old + 1)
CUDA_HOST_ATOMIC(unsigned, atomicDec, old == 0 || old > value ? value : old - 1)

// Arithmetic ----------------------------------------------------------------------------------------------------------

#define CUDA_HOST_MIN_MAX(T, A, B) \
    inline T min(A a, B b) { return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); } \
    inline T max(A a, B b) { return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); }
CUDA_HOST_MIN_MAX(int, int, int)
CUDA_HOST_MIN_MAX(unsigned, unsigned, unsigned)
CUDA_HOST_MIN_MAX(unsigned, int, unsigned)
CUDA_HOST_MIN_MAX(unsigned, unsigned, int)
CUDA_HOST_MIN_MAX(long, long, long)
CUDA_HOST_MIN_MAX(unsigned long, unsigned long, unsigned long)
CUDA_HOST_MIN_MAX(long long, long long, long long)
CUDA_HOST_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }

namespace cuda_host {

/// Saturates, and NaN is 0, as cvt does.
template <class To>
To convert(double value) {
    using Limits = std::numeric_limits<To>;
    if (value != value) return 0;
    if (value >= std::ldexp(1.0, Limits::digits)) return Limits::max();
    if (value <= static_cast<double>(Limits::min())) return Limits::min();
    return static_cast<To>(value);
}

}  // namespace cuda_host

#define CUDA_HOST_CONVERSIONS(suffix, rounded) \
    inline int __float2int_##suffix(float x) { return cuda_host::convert<int>(rounded(x)); } \
    inline unsigned __float2uint_##suffix(float x) { return cuda_host::convert<unsigned>(rounded(x)); } \
    inline long long __float2ll_##suffix(float x) { return cuda_host::convert<long long>(rounded(x)); }
CUDA_HOST_CONVERSIONS(rn, std::nearbyint)
CUDA_HOST_CONVERSIONS(rd, std::floor)
CUDA_HOST_CONVERSIONS(ru, std::ceil)
CUDA_HOST_CONVERSIONS(rz, std::trunc)
inline int __half2int_rn(__half x) { return __float2int_rn(__half2float(x)); }
inline int __half2int_rd(__half x) { return __float2int_rd(__half2float(x)); }
inline int __half2int_ru(__half x) { return __float2int_ru(__half2float(x)); }

inline float __saturatef(float x) { return x > 0 ? std::fmin(x, 1.0f) : 0.0f; }  // NaN gives 0
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline int __float_as_int(float x) { return cuda_host::from_bits<int>(cuda_host::to_bits(x)); }
inline unsigned __float_as_uint(float x) { return cuda_host::from_bits<unsigned>(cuda_host::to_bits(x)); }
inline float __int_as_float(int x) { return cuda_host::from_bits<float>(cuda_host::to_bits(x)); }
inline float __uint_as_float(unsigned x) { return cuda_host::from_bits<float>(cuda_host::to_bits(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __mul24(int a, int b) { return static_cast<int>(static_cast<unsigned>(a << 8 >> 8) * (b << 8 >> 8)); }

// The half operations that cuda_fp16.h has for devices only. The sum is exact in 64 bits of mantissa; rounding it to
// odd first makes the second rounding, to half, the only one that counts.
inline __half __hfma(__half a, __half b, __half c) {
    static_assert(__LDBL_MANT_DIG__ >= 64);
    long double exact = static_cast<long double>(__half2float(a)) * __half2float(b) + __half2float(c);
    double odd = static_cast<double>(exact);
    if (odd != exact && std::isfinite(odd) && !(cuda_host::to_bits(odd) & 1))
        odd = std::nextafter(odd, exact > odd ? HUGE_VAL : -HUGE_VAL);
    return __double2half(odd);
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
    return __halves2half2(__hfma(__low2half(a), __low2half(b), __low2half(c)),
                          __hfma(__high2half(a), __high2half(b), __high2half(c)));
}

// How the driver finds and calls a kernel -----------------------------------------------------------------------------

namespace cuda_host {

template <auto kernel>
struct Entry;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Entry<kernel> {
    // One more element, so that a kernel without parameters has arrays too.
    static constexpr size_t sizes[] = {sizeof(Arguments)..., 0};
    static constexpr size_t alignments[] = {alignof(Arguments)..., 0};
    static constexpr bool pointers[] = {std::is_pointer_v<Arguments>..., false};

    // What it reads is the driver's, not the device's.
    template <size_t... I>
    __attribute__((no_sanitize("thread"))) static void call(void *const *arguments, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<Arguments> *>(arguments[I])...);
    }
    static void run(void *const *arguments) { call(arguments, std::index_sequence_for<Arguments...>{}); }

    static constexpr Kernel describe(const char *name) {
        return {name, sizeof...(Arguments), sizes, alignments, pointers, run};
    }
};

template <class T>
T *dynamic_shared() {
    return reinterpret_cast<T *>(cuda_host_dynamic_shared);
}

}  // namespace cuda_host
