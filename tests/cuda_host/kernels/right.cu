// Programs that are right: they pass under every seed.
#include <cuda_fp16.h>

extern "C" __global__ void scale(const float *__restrict__ x, float *__restrict__ y, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = by * x[i];
}

// A barrier in a device function, and static shared memory in it.
template <int THREADS>
__device__ float block_maximum(float value) {
    __shared__ float values[THREADS];
    values[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] = fmaxf(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    return values[0];
}

extern "C" __global__ void __launch_bounds__(128) maximum(const float *x, float *y, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    float most = block_maximum<128>(i < n ? x[i] : -INFINITY);
    if (threadIdx.x == 0) y[blockIdx.x] = most;
}

extern "C" __global__ void reverse(int *x) {
    extern __shared__ __align__(16) int values[];
    values[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = values[blockDim.x - 1 - threadIdx.x];
}

__device__ __forceinline__ unsigned warp_sum(unsigned value) {
    for (int away = 16; away > 0; away /= 2) value += __shfl_down_sync(0xffffffffu, value, away);
    return value;
}

extern "C" __global__ void sum(const unsigned *x, unsigned *total, int n) {
    __shared__ unsigned of_block;
    if (threadIdx.x == 0) of_block = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned of_warp = warp_sum(i < n ? x[i] : 0);
    if (threadIdx.x % warpSize == 0) atomicAdd(&of_block, of_warp);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(total, of_block);
}

// The block that finishes last adds up what the others have left (CUDA's threadFenceReduction sample).
extern "C" __global__ void sum_in_one(const unsigned *x, unsigned *parts, unsigned *ticket, unsigned *total, int n) {
    __shared__ bool last;
    unsigned part = warp_sum(blockIdx.x * 32 + threadIdx.x < n ? x[blockIdx.x * 32 + threadIdx.x] : 0);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = part;
        __threadfence();
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    unsigned value = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += 32) value += parts[i];
    value = warp_sum(value);
    if (threadIdx.x == 0) *total = value;
}

struct alignas(16) Four {
    float values[4];
};

extern "C" __global__ void copy_fours(const float *x, float *y) {
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    *reinterpret_cast<Four *>(y + i) = *reinterpret_cast<const Four *>(x + i);
}

struct Line {
    float slope, offset;
    int n;
};

extern "C" __global__ void line(const __half *x, __half *y, Line line) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < line.n) y[i] = __hfma(__float2half_rn(line.slope), x[i], __float2half_rn(line.offset));
}

__constant__ float weights[4] = {1, 2, 3, 4};

extern "C" __global__ void weighted(float *y) { y[threadIdx.x] = weights[threadIdx.x % 4]; }

// What a warp's functions give, one row of 32 each.
extern "C" __global__ void warp_functions(int *out) {
    int lane = threadIdx.x, row = 0;
    out[32 * row++ + lane] = __shfl_sync(~0u, lane, 5);
    out[32 * row++ + lane] = __shfl_sync(~0u, lane, 1, 8);
    out[32 * row++ + lane] = __shfl_up_sync(~0u, lane, 3);
    out[32 * row++ + lane] = __shfl_down_sync(~0u, lane, 3, 16);
    out[32 * row++ + lane] = __shfl_xor_sync(~0u, lane, 6);
    out[32 * row++ + lane] = __ballot_sync(~0u, lane % 3 == 0);
    out[32 * row++ + lane] = __any_sync(~0u, lane == 31);
    out[32 * row++ + lane] = __all_sync(~0u, lane < 31);
    out[32 * row++ + lane] = __syncthreads_count(lane < 7);
    out[32 * row++ + lane] = __syncthreads_and(lane < 32) + 2 * __syncthreads_or(lane > 40);
}
