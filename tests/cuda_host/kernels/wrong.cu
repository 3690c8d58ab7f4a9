// Programs that are wrong, each in one way, and each harmless to look at on a CPU.
#include <cuda_fp16.h>

extern "C" __global__ void barrier_missing(const int *x, int *y) {
    __shared__ int values[64];
    values[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = values[63 - threadIdx.x];
}

// The next round overwrites what another thread may still have to read.
extern "C" __global__ void barrier_missing_in_a_loop(int *x) {
    __shared__ int values[64];
    int value = x[threadIdx.x];
    for (int round = 0; round < 3; ++round) {
        values[threadIdx.x] = value;
        __syncthreads();
        value += values[(threadIdx.x + 1) % 64];
    }
    x[threadIdx.x] = value;
}

__device__ int total_of_warp(int value, int *scratch) {
    int lane = threadIdx.x % 32;
    scratch[lane] = value;
    for (int away = 16; away > 0; away /= 2)  // lanes do not march in step
        if (lane < away) scratch[lane] += scratch[lane + away];
    return scratch[0];
}

extern "C" __global__ void warp_in_step(int *x) {
    __shared__ int scratch[32];
    x[threadIdx.x] = total_of_warp(x[threadIdx.x], scratch);
}

extern "C" __global__ void count_without_atomics(const int *x, int *counts) { counts[x[threadIdx.x]] += 1; }

extern "C" __global__ void blocks_race(int *y) { y[0] = blockIdx.x; }

// As sum_in_one in right.cu, but the parts are not fenced.
extern "C" __global__ void fence_missing(int *parts, unsigned *ticket, int *total) {
    parts[blockIdx.x] = 1;
    if (atomicInc(ticket, gridDim.x - 1) != gridDim.x - 1) return;
    for (unsigned i = 0; i < gridDim.x; ++i) *total += parts[i];
}

extern "C" __global__ void barrier_after_return(int *x, int n) {
    if (threadIdx.x >= n) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}

extern "C" __global__ void barrier_in_a_branch(int *x) {
    if (threadIdx.x % 2) {
        __syncthreads();
        x[threadIdx.x] = 1;
    } else {
        x[threadIdx.x] = 0;
        __syncthreads();
    }
}

extern "C" __global__ void lanes_disagree(int *x) {
    if (threadIdx.x < 16)
        x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
    else
        x[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1, 1);
}

extern "C" __global__ void lane_not_in_mask(int *x) { x[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0); }

extern "C" __global__ void shuffle_at_a_barrier(int *x) {
    if (threadIdx.x == 0)
        __syncthreads();
    else
        x[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);
}

extern "C" __global__ void writes_behind(unsigned char *x, int n) {
    if (threadIdx.x <= n) x[threadIdx.x] = 1;
}

extern "C" __global__ void reads_behind(const unsigned char *x, unsigned char *y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];
}

extern "C" __global__ void shared_behind(int *x) {
    extern __shared__ int values[];
    values[threadIdx.x + 1] = x[threadIdx.x];
}

extern "C" __global__ void index_outside(int *x) {
    __shared__ int values[32];
    values[threadIdx.x + 1] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void misaligned(const float *x, float *y) {
    *reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(x + 1);
}

extern "C" __global__ void misaligned_half2(const __half *x, __half *y) {
    *reinterpret_cast<__half2 *>(y) = *reinterpret_cast<const __half2 *>(x + 1);
}

struct Job {
    float *y;
    int n;
};

extern "C" __global__ void pointer_in_a_structure(Job job) {
    if (threadIdx.x < job.n) job.y[threadIdx.x] = 1;
}

extern "C" __global__ void casts_nan(const float *x, int *y) { y[threadIdx.x] = (int)x[threadIdx.x]; }
extern "C" __global__ void divides(int *x, int by) { x[threadIdx.x] /= by; }
extern "C" __global__ void shifts(int *x, int by) { x[threadIdx.x] = 1u << by; }
extern "C" __global__ void overflows(int *x, int by) { x[threadIdx.x] *= by; }
extern "C" __global__ void traps() { __trap(); }

// Not wrong by themselves: what they give back shows what they found.

extern "C" __global__ void shared_unset(unsigned *y) {
    __shared__ unsigned values[64];
    if (threadIdx.x > 64) values[0] = 1;  // or g++ would see that nothing writes it
    y[threadIdx.x] = values[threadIdx.x];
}

extern "C" __global__ void order(int *turn, int *y) { y[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(turn, 1); }

extern "C" __global__ void __launch_bounds__(64) small_blocks(int *x) { x[threadIdx.x] = 1; }

extern "C" __global__ void nothing() {}
