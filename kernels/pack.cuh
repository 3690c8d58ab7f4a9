// Several neighbouring values in one memory transaction of up to 16 bytes. The caller has checked the alignment.
#pragma once

#include "element.cuh"

namespace mag {

constexpr int WARP = 32;

template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
    T at[N];
};

// As many values as one 16-byte transaction holds.
template <typename T>
constexpr int WIDEST = 16 / sizeof(T);

template <int N, typename T>
__device__ __forceinline__ bool is_aligned(const T* values) {
    return reinterpret_cast<size_t>(values) % sizeof(Pack<T, N>) == 0;
}

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load(const T* values) {
    return *reinterpret_cast<const Pack<T, N>*>(values);
}

template <int N, typename T>
__device__ __forceinline__ void store(T* values, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(values) = pack;
}

// One warp walks over values[0 .. count), each lane visiting its share: packs where the address is aligned, single
// values before and behind them. All lanes of the warp must call it.
template <typename T, typename Visit>
__device__ __forceinline__ void visit_by_warp(const T* values, int count, int lane, Visit&& visit) {
    constexpr int N = WIDEST<T>;
    const int misaligned = static_cast<int>(reinterpret_cast<size_t>(values) / sizeof(T) % N);
    const int head = min(count, misaligned == 0 ? 0 : N - misaligned);
    const int packs = (count - head) / N;
    if (lane < head) visit(values[lane]);
    for (int pack = lane; pack < packs; pack += WARP) {
        const Pack<T, N> loaded = load<N>(values + head + pack * N);
#pragma unroll
        for (int k = 0; k < N; ++k) visit(loaded.at[k]);
    }
    const int tail = head + packs * N + lane;
    if (tail < count) visit(values[tail]);
}

// Four BGR pixels are 12 bytes: three 4-byte words, so that rows need an alignment of 4 only.
__device__ __forceinline__ void load_4_pixels(const Byte* row, Byte (&bgr)[12]) {
    const unsigned* words = reinterpret_cast<const unsigned*>(row);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const unsigned word = words[i];
#pragma unroll
        for (int k = 0; k < 4; ++k) bgr[4 * i + k] = static_cast<Byte>(word >> (8 * k));
    }
}

__device__ __forceinline__ void store_4_pixels(Byte* row, const Byte (&bgr)[12]) {
    unsigned* words = reinterpret_cast<unsigned*>(row);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        unsigned word = 0;
#pragma unroll
        for (int k = 0; k < 4; ++k) word |= static_cast<unsigned>(bgr[4 * i + k]) << (8 * k);
        words[i] = word;
    }
}

}  // namespace mag
