// What a single value means: conversions between storage types, probabilities, grey levels, and eq. 1 for one value.
#pragma once

#include <cuda_fp16.h>

namespace mag {

using Byte = unsigned char;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) { return value; }
template <>
__device__ __forceinline__ __half from_float<__half>(float value) { return __float2half_rn(value); }

__device__ __forceinline__ bool is_nan(float value) { return value != value; }
__device__ __forceinline__ bool is_infinite(float value) { return fabsf(value) > 3.402823466e38f; }

// A map's value as a probability: clamped to [0, 1]; NaN becomes 0, since fmaxf prefers the number.
__device__ __forceinline__ float probability(float value) { return fminf(fmaxf(value, 0.0f), 1.0f); }

// A probability as 8 bits, rounded: mag_rt.pictures.as_grey.
__device__ __forceinline__ Byte grey(float probability) { return static_cast<Byte>(probability * 255.0f + 0.5f); }

// Rounded to 8 bits, ties to even as OpenCV does; the value must lie in [0, 255].
__device__ __forceinline__ Byte rounded(float value) { return static_cast<Byte>(rintf(value)); }

// Eq. 1 for one value. alpha counts as clamped to [0, 1]. Where it is 0 or NaN the image stays as it is, where it is 1
// there is only colour: bit for bit, and whatever the other side holds, be it infinite.
__device__ __forceinline__ float blend(float alpha, float colour, float image) {
    if (!(alpha > 0.0f)) return image;
    if (alpha >= 1.0f) return colour;
    return alpha * colour + (1.0f - alpha) * image;
}

}  // namespace mag
