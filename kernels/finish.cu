// Annotation maps to what the host needs: 8-bit masks at each picture's own size, and counts instead of maps.
#include "layout.cuh"
#include "pack.cuh"
#include "reduce.cuh"
#include "resample.cuh"

namespace mag {

constexpr int ROWS_OF_BLOCK = 32;  // of a map, in finish_statistics
constexpr int COLUMNS_OF_THREAD = 4, ROWS_OF_THREAD = 8;  // of a mask, in finish_masks

// Counts grey levels. A thread adds a run of equal levels at once: most of a map is 0, and one atomic for each of its
// values would queue up on one word.
struct Levels {
    unsigned* histogram;
    int level;
    unsigned run;

    __device__ __forceinline__ void add(int next) {
        if (next != level) {
            flush();
            level = next;
            run = 0;
        }
        ++run;
    }

    __device__ __forceinline__ void flush() const {
        if (run != 0) atomicAdd(&histogram[level], run);
    }
};

// Counts over the placed part of one channel (blockIdx.y) of one picture (blockIdx.z), ROWS_OF_BLOCK rows of it.
template <typename T>
__device__ __forceinline__ void count_channel(const T* maps, const Placement* placements, Statistics* statistics,
                                              int width, int height) {
    __shared__ unsigned histogram[256];
    const int channel = blockIdx.y, channels = gridDim.y, thread = threadIdx.y * WARP + threadIdx.x;
    Statistics& result = statistics[blockIdx.z];
    const Placement placement = placements[blockIdx.z];
    const T* plane = maps + (static_cast<size_t>(blockIdx.z) * channels + channel) * width * height;

    histogram[thread] = 0;
    __syncthreads();
    unsigned nan = 0, infinite = 0, likely = 0;
    Levels levels = {histogram, 0, 0};
    const int end = min((blockIdx.x + 1) * ROWS_OF_BLOCK, static_cast<unsigned>(placement.placed_height));
    for (int y = blockIdx.x * ROWS_OF_BLOCK + threadIdx.y; y < end; y += blockDim.y) {
        visit_by_warp(plane + static_cast<size_t>(y) * width, placement.placed_width, threadIdx.x, [&](T stored) {
            const float value = to_float(stored);
            nan += is_nan(value);
            infinite += is_infinite(value);
            likely += value >= 0.5f;
            if (channel == 0) levels.add(grey(probability(value)));
        });
    }
    levels.flush();
    nan = warp_sum(nan), infinite = warp_sum(infinite), likely = warp_sum(likely);
    if (threadIdx.x == 0) {
        if (nan != 0) atomicAdd(&result.nan, nan);
        if (infinite != 0) atomicAdd(&result.infinite, infinite);
        if (likely != 0) atomicAdd(&result.likely[channel], likely);
    }
    __syncthreads();
    if (channel == 0 && histogram[thread] != 0) atomicAdd(&result.histogram[thread], histogram[thread]);
}

// A count and the bounding box of what was counted.
struct Found {
    unsigned count;
    int left, top, right, bottom;

    __device__ __forceinline__ void add(int x, int y) {
        ++count;
        left = min(left, x), right = max(right, x);
        top = min(top, y), bottom = max(bottom, y);
    }
};

constexpr Found NOTHING = {0, FAR_AWAY, FAR_AWAY, -1, -1};

// Channel 0 of one picture (blockIdx.z) interpolated at the mask's size. A thread takes four neighbouring pixels in
// each of eight rows, which lie blockDim.y apart.
template <typename T>
__device__ __forceinline__ Found write_mask(const T* plane, int stride, const Placement& mask, int threshold) {
    Found found = NOTHING;
    const int x = COLUMNS_OF_THREAD * (blockIdx.x * blockDim.x + threadIdx.x);
    if (x >= mask.width) return found;
    const int count = min(COLUMNS_OF_THREAD, mask.width - x);
    // Once for all rows: they are four fifths of the divisions.
    int low[COLUMNS_OF_THREAD], high[COLUMNS_OF_THREAD];
    float share[COLUMNS_OF_THREAD];
#pragma unroll
    for (int i = 0; i < COLUMNS_OF_THREAD; ++i) {
        const Between columns(min(x + i, mask.width - 1), mask.width, mask.placed_width);
        low[i] = columns.low, high[i] = columns.high, share[i] = columns.share;
    }
    for (int k = 0; k < ROWS_OF_THREAD; ++k) {
        const int y = (ROWS_OF_THREAD * blockIdx.y + k) * blockDim.y + threadIdx.y;
        if (y >= mask.height) break;
        const Between rows(y, mask.height, mask.placed_height);
        const T* upper = plane + static_cast<size_t>(rows.low) * stride;
        const T* lower = plane + static_cast<size_t>(rows.high) * stride;
        Pack<Byte, COLUMNS_OF_THREAD> levels = {};
#pragma unroll
        for (int i = 0; i < COLUMNS_OF_THREAD; ++i) {
            if (i >= count) break;
            const auto along = [&](const T* row) {
                return probability(to_float(row[low[i]])) * (1.0f - share[i]) +
                       probability(to_float(row[high[i]])) * share[i];
            };
            levels.at[i] = grey(along(upper) * (1.0f - rows.share) + along(lower) * rows.share);
            if (levels.at[i] >= threshold) found.add(x + i, y);
        }
        Byte* out = mask.pixels + y * mask.pitch + x;
        if (count == COLUMNS_OF_THREAD && is_aligned<COLUMNS_OF_THREAD>(out)) {
            store<COLUMNS_OF_THREAD>(out, levels);
        } else {
#pragma unroll
            for (int i = 0; i < COLUMNS_OF_THREAD; ++i)
                if (i < count) out[i] = levels.at[i];
        }
    }
    return found;
}

// Adds what the threads of a block found to the picture's statistics: lanes to warps, warps to the block, blocks to
// global memory. All threads of the block must call it.
__device__ __forceinline__ void merge(const Found& found, Statistics& result) {
    __shared__ Found block;
    const bool first = threadIdx.x == 0 && threadIdx.y == 0;
    if (first) block = NOTHING;
    __syncthreads();
    const unsigned count = warp_sum(found.count);
    const int left = warp_min(found.left), top = warp_min(found.top);
    const int right = warp_max(found.right), bottom = warp_max(found.bottom);
    if (threadIdx.x == 0 && count != 0) {
        atomicAdd(&block.count, count);
        atomicMin(&block.left, left), atomicMin(&block.top, top);
        atomicMax(&block.right, right), atomicMax(&block.bottom, bottom);
    }
    __syncthreads();
    if (first && block.count != 0) {
        atomicAdd(&result.suspicious, block.count);
        atomicMin(&result.left, block.left), atomicMin(&result.top, block.top);
        atomicMax(&result.right, block.right), atomicMax(&result.bottom, block.bottom);
    }
}

template <typename T>
__device__ __forceinline__ void write_masks(const T* maps, const Placement* masks, int threshold,
                                            Statistics* statistics, int channels, int width, int height) {
    const T* plane = maps + static_cast<size_t>(blockIdx.z) * channels * width * height;
    merge(write_mask(plane, width, masks[blockIdx.z], threshold), statistics[blockIdx.z]);
}

}  // namespace mag

// Empties the records, one block for each picture: the other two kernels of `finish` add to them.
extern "C" __global__ void __launch_bounds__(256) finish_clear(mag::Statistics* statistics) {
    using namespace mag;
    Statistics& result = statistics[blockIdx.x];
    unsigned* words = reinterpret_cast<unsigned*>(&result);
    for (int i = threadIdx.x; i < static_cast<int>(sizeof(Statistics) / sizeof(unsigned)); i += blockDim.x) words[i] = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
        result.left = result.top = FAR_AWAY;
        result.right = result.bottom = -1;
    }
}

extern "C" __global__ void __launch_bounds__(256)
finish_statistics_f16(const __half* maps, const mag::Placement* placements, mag::Statistics* statistics, int width,
                      int height) {
    mag::count_channel(maps, placements, statistics, width, height);
}

extern "C" __global__ void __launch_bounds__(256)
finish_statistics_f32(const float* maps, const mag::Placement* placements, mag::Statistics* statistics, int width,
                      int height) {
    mag::count_channel(maps, placements, statistics, width, height);
}

extern "C" __global__ void __launch_bounds__(256)
finish_masks_f16(const __half* maps, const mag::Placement* masks, int threshold, mag::Statistics* statistics,
                 int channels, int width, int height) {
    mag::write_masks(maps, masks, threshold, statistics, channels, width, height);
}

extern "C" __global__ void __launch_bounds__(256)
finish_masks_f32(const float* maps, const mag::Placement* masks, int threshold, mag::Statistics* statistics,
                 int channels, int width, int height) {
    mag::write_masks(maps, masks, threshold, statistics, channels, width, height);
}
