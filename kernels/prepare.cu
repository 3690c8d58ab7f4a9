// A batch of 8-bit BGR pictures, each of its own size, to the network's input: shrunk, padded, normalised.
#include "layout.cuh"
#include "pack.cuh"
#include "resample.cuh"

namespace mag {

constexpr int COLUMNS = 4;  // of one thread

// How a network wants its pixels: grey level * scale + offset.
struct Normalisation {
    float scale, offset;

    template <typename T>
    __device__ __forceinline__ T apply(Byte level) const { return from_float<T>(level * scale + offset); }
};

// A picture that is not shrunk: each thread takes four neighbouring pixels of a row of the padded plane.
template <typename T>
__device__ __forceinline__ void place(const Placement& picture, Normalisation normalisation, T* plane, int width,
                                      int height) {
    const int x = COLUMNS * (blockIdx.x * blockDim.x + threadIdx.x), y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    const Byte* row = picture.pixels + reflect_101(y, picture.height) * picture.pitch;
    const int count = min(COLUMNS, width - x);
    Byte bgr[3 * COLUMNS] = {};
    if (x + COLUMNS <= picture.width && is_aligned<4>(row + 3 * x)) {
        load_4_pixels(row + 3 * x, bgr);
    } else {
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) {
            if (k >= count) break;
            const Byte* pixel = row + 3 * reflect_101(x + k, picture.width);
            for (int c = 0; c < 3; ++c) bgr[3 * k + c] = pixel[c];
        }
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        T* out = plane + (static_cast<size_t>(c) * height + y) * width + x;  // RGB: channel c is byte 2 - c
        Pack<T, COLUMNS> values;
#pragma unroll
        for (int k = 0; k < COLUMNS; ++k) values.at[k] = normalisation.apply<T>(bgr[3 * k + 2 - c]);
        if (count == COLUMNS && is_aligned<COLUMNS>(out)) {
            store<COLUMNS>(out, values);
        } else {
#pragma unroll
            for (int k = 0; k < COLUMNS; ++k)
                if (k < count) out[k] = values.at[k];
        }
    }
}

// A picture that is shrunk: each thread takes four pixels that lie blockDim.x apart, so that the lanes of a warp read
// neighbouring parts of the source.
template <typename T>
__device__ __forceinline__ void shrink(const Placement& picture, Normalisation normalisation, T* plane, int width,
                                       int height) {
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (y >= height) return;
    const Cover rows(reflect_101(y, picture.placed_height), picture.height, picture.placed_height);
    for (int k = 0; k < COLUMNS; ++k) {
        const int x = (COLUMNS * blockIdx.x + k) * blockDim.x + threadIdx.x;
        if (x >= width) return;
        const Cover columns(reflect_101(x, picture.placed_width), picture.width, picture.placed_width);
        Byte bgr[3];
        area_mean(picture.pixels, picture.pitch, columns, rows, bgr);
#pragma unroll
        for (int c = 0; c < 3; ++c)
            plane[(static_cast<size_t>(c) * height + y) * width + x] = normalisation.apply<T>(bgr[2 - c]);
    }
}

// One picture of the batch for each blockIdx.z.
template <typename T>
__device__ __forceinline__ void prepare(const Placement* pictures, Normalisation normalisation, T* out, int width,
                                        int height) {
    const Placement picture = pictures[blockIdx.z];
    T* plane = out + static_cast<size_t>(blockIdx.z) * 3 * width * height;
    if (picture.width == picture.placed_width && picture.height == picture.placed_height)
        place(picture, normalisation, plane, width, height);
    else
        shrink(picture, normalisation, plane, width, height);
}

}  // namespace mag

extern "C" __global__ void __launch_bounds__(256)
prepare_f16(const mag::Placement* pictures, float scale, float offset, __half* out, int width, int height) {
    mag::prepare(pictures, mag::Normalisation{scale, offset}, out, width, height);
}

extern "C" __global__ void __launch_bounds__(256)
prepare_f32(const mag::Placement* pictures, float scale, float offset, float* out, int width, int height) {
    mag::prepare(pictures, mag::Normalisation{scale, offset}, out, width, height);
}
