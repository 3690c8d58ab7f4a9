// Left through a pointer, so that only AddressSanitizer sees where an array ends.

extern "C" __global__ void of_nothing(int *y, int i) { y[i] = i; }

extern "C" __global__ void of_global(int *y, int n) { y[n] = 1; }

__device__ __attribute__((noinline)) void set(int *values, int i) { values[i] = i; }

extern "C" __global__ void of_local(int *y, int n) {
    int values[8] = {};
    set(values, n);
    y[0] = values[0];
}

extern "C" __global__ void of_shared(int *y, int n) {
    __shared__ int values[8];
    set(values, n);
    __syncthreads();
    y[0] = values[0];
}

extern "C" __global__ void of_dynamic(int *y, int n) {
    extern __shared__ int values[];
    set(values, n);
    y[0] = 1;
}

extern "C" __global__ void of_host(int *y, int) { y[0] = 1; }
