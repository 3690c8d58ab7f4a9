// Eq. 1, out = alpha * colour + (1 - alpha) * image: the retoucher's compositing, heat overlays, overlapping tiles.
#include "layout.cuh"
#include "pack.cuh"
#include "reduce.cuh"

namespace mag {

// One picture: colour, image and out 3 x plane, alpha 1 x plane. Each thread takes N neighbouring pixels at a time.
// It has read all that it needs of them before it writes them, so out may be colour or image itself.
template <int N, typename T>
__device__ __forceinline__ void blend_planes(const T* colour, const T* alpha, const T* image, T* out, int plane) {
    for (int pack = blockIdx.x * blockDim.x + threadIdx.x; pack < plane / N; pack += gridDim.x * blockDim.x) {
        const Pack<T, N> attention = load<N>(alpha + pack * N);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const size_t at = static_cast<size_t>(c) * plane + pack * N;
            const Pack<T, N> over = load<N>(colour + at), under = load<N>(image + at);
            Pack<T, N> blended;
#pragma unroll
            for (int k = 0; k < N; ++k)
                blended.at[k] =
                    from_float<T>(blend(to_float(attention.at[k]), to_float(over.at[k]), to_float(under.at[k])));
            store<N>(out + at, blended);
        }
    }
}

// Whether packs of N fit: the planes of a picture follow each other, so their size must be a multiple of N as well.
template <int N, typename T>
__device__ __forceinline__ bool packs_fit(const T* colour, const T* alpha, const T* image, const T* out, int plane) {
    return plane % N == 0 && is_aligned<N>(colour) && is_aligned<N>(alpha) && is_aligned<N>(image) &&
           is_aligned<N>(out);
}

template <typename T>
__device__ __forceinline__ void blend_picture(const T* colour, const T* alpha, const T* image, T* out, int plane) {
    const size_t picture = static_cast<size_t>(blockIdx.y) * plane;
    colour += 3 * picture, alpha += picture, image += 3 * picture, out += 3 * picture;
    if (packs_fit<WIDEST<T>>(colour, alpha, image, out, plane))
        blend_planes<WIDEST<T>>(colour, alpha, image, out, plane);
    else if (packs_fit<2>(colour, alpha, image, out, plane))
        blend_planes<2>(colour, alpha, image, out, plane);
    else
        blend_planes<1>(colour, alpha, image, out, plane);
}

// Where an overlapping tile lies in the large map.
struct Corner {
    int left, top;
};

// The weight of a tile's pixel: rises from its edges over `ramp` pixels to 1, never 0. Where two tiles overlap by
// ramp - 1 pixels their weights sum to 1, and blending them is eq. 1 with the weight as attention.
__device__ __forceinline__ float tile_weight(int x, int y, int width, int height, int ramp) {
    const int across = min(min(x + 1, width - x), ramp), down = min(min(y + 1, height - y), ramp);
    return static_cast<float>(across * down) / static_cast<float>(ramp * ramp);
}

// Which of up to 256 tiles, beginning at `first`, lie over this block's part of the large map: one bit for each of
// them. All threads of the block must call it, and all have left `over` alone since.
__device__ __forceinline__ void look_for_tiles(const Corner* corners, int first, int count, int tile_width,
                                               int tile_height, unsigned (&over)[256 / WARP]) {
    const int n = first + threadIdx.y * WARP + threadIdx.x;
    const int left = blockIdx.x * blockDim.x, top = blockIdx.y * blockDim.y;
    bool is_over = false;
    if (n < count) {
        const Corner corner = corners[n];
        is_over = corner.left < left + static_cast<int>(blockDim.x) && corner.left + tile_width > left &&
                  corner.top < top + static_cast<int>(blockDim.y) && corner.top + tile_height > top;
    }
    const unsigned found = __ballot_sync(ALL_LANES, is_over);
    if (threadIdx.x == 0) over[threadIdx.y] = found;
    __syncthreads();
}

// Adds the tiles to the large map. Each thread gathers for one pixel of one channel, in the order of the tiles: no
// two threads write the same place, and the result does not depend on how blocks are scheduled.
template <typename T>
__device__ __forceinline__ void accumulate_tiles(const T* tiles, const Corner* corners, int count, int tile_width,
                                                 int tile_height, int ramp, float* total, float* weight, int width,
                                                 int height) {
    __shared__ unsigned over[256 / WARP];
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    const int channel = blockIdx.z, channels = gridDim.z;
    const size_t tile_plane = static_cast<size_t>(tile_width) * tile_height;
    float sum = 0.0f, weights = 0.0f;
    for (int first = 0; first < count; first += 256) {
        if (first != 0) __syncthreads();
        look_for_tiles(corners, first, count, tile_width, tile_height, over);
        for (int word = 0; word < 256 / WARP; ++word) {
            for (unsigned left = over[word]; left != 0; left &= left - 1) {
                const int n = first + word * WARP + __ffs(left) - 1;
                const int inside_x = x - corners[n].left, inside_y = y - corners[n].top;
                if (inside_x < 0 || inside_y < 0 || inside_x >= tile_width || inside_y >= tile_height) continue;
                const T* plane = tiles + (static_cast<size_t>(n) * channels + channel) * tile_plane;
                const float share = tile_weight(inside_x, inside_y, tile_width, tile_height, ramp);
                sum += share * to_float(plane[static_cast<size_t>(inside_y) * tile_width + inside_x]);
                weights += share;
            }
        }
    }
    if (weights == 0.0f || x >= width || y >= height) return;
    const size_t at = static_cast<size_t>(y) * width + x;
    total[static_cast<size_t>(channel) * width * height + at] += sum;
    if (channel == 0) weight[at] += weights;
}

}  // namespace mag

extern "C" __global__ void __launch_bounds__(256)
attention_blend_f16(const __half* colour, const __half* alpha, const __half* image, __half* out, int plane) {
    mag::blend_picture(colour, alpha, image, out, plane);
}

extern "C" __global__ void __launch_bounds__(256)
attention_blend_f32(const float* colour, const float* alpha, const float* image, float* out, int plane) {
    mag::blend_picture(colour, alpha, image, out, plane);
}

// The heat colour of a mask over the photo. heat: 256 BGR colours. The attention is the mask's grey level times
// `unit` (strongest opacity / 255). Each thread takes four pixels of a row; out may be the photo itself.
extern "C" __global__ void __launch_bounds__(256)
heat_overlay(const unsigned char* photo, unsigned long long photo_pitch, const unsigned char* mask,
             unsigned long long mask_pitch, const unsigned char* heat, float unit, unsigned char* out,
             unsigned long long out_pitch, int width, int height) {
    using namespace mag;
    __shared__ unsigned colours[256];  // one word each: a look-up is one access, not three
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    colours[thread] = heat[3 * thread] | heat[3 * thread + 1] << 8 | heat[3 * thread + 2] << 16;
    __syncthreads();

    const int x = 4 * (blockIdx.x * blockDim.x + threadIdx.x), y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    photo += y * photo_pitch + 3 * x;
    mask += y * mask_pitch + x;
    out += y * out_pitch + 3 * x;
    const int count = min(4, width - x);
    const bool whole = count == 4 && is_aligned<4>(photo) && is_aligned<4>(mask) && is_aligned<4>(out);

    Byte bgr[12];
    Pack<Byte, 4> level = {};
    if (whole) {
        load_4_pixels(photo, bgr);
        level = load<4>(mask);
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k >= count) break;
            level.at[k] = mask[k];
            for (int c = 0; c < 3; ++c) bgr[3 * k + c] = photo[3 * k + c];
        }
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        const unsigned colour = colours[level.at[k]];
#pragma unroll
        for (int c = 0; c < 3; ++c)
            bgr[3 * k + c] = rounded(blend(unit * level.at[k], colour >> (8 * c) & 255u, bgr[3 * k + c]));
    }
    if (whole) {
        store_4_pixels(out, bgr);
    } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k >= count) break;
            for (int c = 0; c < 3; ++c) out[3 * k + c] = bgr[3 * k + c];
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
accumulate_tiles_f16(const __half* tiles, const mag::Corner* corners, int count, int tile_width, int tile_height,
                     int ramp, float* total, float* weight, int width, int height) {
    mag::accumulate_tiles(tiles, corners, count, tile_width, tile_height, ramp, total, weight, width, height);
}

extern "C" __global__ void __launch_bounds__(256)
accumulate_tiles_f32(const float* tiles, const mag::Corner* corners, int count, int tile_width, int tile_height,
                     int ramp, float* total, float* weight, int width, int height) {
    mag::accumulate_tiles(tiles, corners, count, tile_width, tile_height, ramp, total, weight, width, height);
}

// Turns the accumulated sums into means, in place; a pixel that no tile covers stays 0.
extern "C" __global__ void __launch_bounds__(256)
normalise_tiles(float* total, const float* weight, int channels, int plane) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= plane || weight[at] == 0.0f) return;
    for (int c = 0; c < channels; ++c) total[static_cast<size_t>(c) * plane + at] /= weight[at];
}
