// Sums and extremes over the lanes of a warp; the result is lane 0's. All 32 lanes must call them.
#pragma once

#include "pack.cuh"

namespace mag {

constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ unsigned warp_sum(unsigned value) {
#pragma unroll
    for (int away = WARP / 2; away > 0; away /= 2) value += __shfl_down_sync(ALL_LANES, value, away);
    return value;
}

__device__ __forceinline__ int warp_min(int value) {
#pragma unroll
    for (int away = WARP / 2; away > 0; away /= 2) value = min(value, __shfl_down_sync(ALL_LANES, value, away));
    return value;
}

__device__ __forceinline__ int warp_max(int value) {
#pragma unroll
    for (int away = WARP / 2; away > 0; away /= 2) value = max(value, __shfl_down_sync(ALL_LANES, value, away));
    return value;
}

}  // namespace mag
