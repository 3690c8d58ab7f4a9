// The attributes that NVIDIA's headers expect of their compiler, for g++.
#pragma once
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __host__
#define __device__
#define __launch_bounds__(...)
#define __grid_constant__
#define __device_builtin__
#define __cudart_builtin__
#define __specialization_static
