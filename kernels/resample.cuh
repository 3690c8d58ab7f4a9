// Where a resized picture takes its values from: OpenCV's INTER_AREA, INTER_LINEAR and BORDER_REFLECT_101.
//
// Coordinates are kept as fractions of integers. With sides up to 32767 every numerator fits 32 bits, so that no
// position is ever rounded, however large the picture.
#pragma once

#include "element.cuh"

namespace mag {

// The coordinate mirrored into [0, size): ... 2 1 | 0 1 2 ... size-1 | size-2 ..., as often as it takes. `at` >= 0.
__device__ __forceinline__ int reflect_101(int at, int size) {
    if (at < size) return at;
    if (size == 1) return 0;
    const int period = 2 * (size - 1);
    const int phase = at % period;
    return phase < size ? phase : period - phase;
}

// The source pixels begin .. end-1 that pixel `at` of a side shrunk from `size` to `placed` pixels covers. In units
// of 1/placed of a source pixel it covers [from, from + size).
struct Cover {
    int begin, end;
    int from, size, placed;

    __device__ __forceinline__ Cover(int at, int size, int placed)
        : begin(at * size / placed), end((at * size + size + placed - 1) / placed), from(at * size), size(size),
          placed(placed) {}

    // How much of source pixel `i` is covered, of `size` in all.
    __device__ __forceinline__ int weight(int i) const {
        return min(from + size, (i + 1) * placed) - max(from, i * placed);
    }
};

// The mean of a BGR picture over x and y, rounded to 8 bits as the CPU path's shrunk picture is.
__device__ __forceinline__ void area_mean(const Byte* pixels, size_t pitch, const Cover& x, const Cover& y,
                                          Byte (&bgr)[3]) {
    float sum[3] = {0.0f, 0.0f, 0.0f};
    for (int j = y.begin; j < y.end; ++j) {
        const Byte* row = pixels + j * pitch;
        int row_sum[3] = {0, 0, 0};  // at most 255 * size < 2^23: exact, here and as a float
        for (int i = x.begin; i < x.end; ++i) {
            const int weight = x.weight(i);
#pragma unroll
            for (int c = 0; c < 3; ++c) row_sum[c] += weight * row[3 * i + c];
        }
        const float weight = static_cast<float>(y.weight(j));
#pragma unroll
        for (int c = 0; c < 3; ++c) sum[c] += weight * static_cast<float>(row_sum[c]);
    }
    const float area = static_cast<float>(x.size) * static_cast<float>(y.size);
    // OpenCV rounds ties up where it halves a picture, else to even. A network that reads noise sees the difference.
    const bool halved = x.size == 2 * x.placed && y.size == 2 * y.placed;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const float mean = fminf(sum[c] / area, 255.0f);
        bgr[c] = halved ? static_cast<Byte>(mean + 0.5f) : rounded(mean);
    }
}

// The two neighbours, and the share of the second, from which pixel `at` of a side enlarged from `placed` to `size`
// pixels is interpolated; pixel centres lie at one half, and the outermost values continue outwards.
struct Between {
    int low, high;
    float share;

    __device__ __forceinline__ Between(int at, int size, int placed) {
        const int place = max(0, (2 * at + 1) * placed - size);  // in units of 1/(2 size) of a source pixel
        low = place / (2 * size);
        high = min(low + 1, placed - 1);
        share = low < high ? static_cast<float>(place % (2 * size)) / static_cast<float>(2 * size) : 0.0f;
    }
};

}  // namespace mag
