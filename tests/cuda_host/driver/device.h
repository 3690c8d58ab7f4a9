// The GPU that is played: a Jetson Orin's numbers, with more memory than it needs.
#pragma once

namespace cuda_host::device {

constexpr int driver_version = 12060;
constexpr int ptx_version = 85;
constexpr int capability = 87;
constexpr int threads_per_block = 1024;
constexpr int block_z = 64;
constexpr unsigned grid_x = 2147483647, grid_yz = 65535;
constexpr int shared_per_block = 48 << 10;
constexpr int shared_opt_in = 163 << 10;
constexpr int shared_per_multiprocessor = 164 << 10;
constexpr int multiprocessors = 16;
constexpr int threads_per_multiprocessor = 1536;
constexpr int blocks_per_multiprocessor = 16;
constexpr int registers = 65536;
constexpr int registers_per_thread = 32;  // that a kernel is taken to need
constexpr int pitch_alignment = 512;

}  // namespace cuda_host::device
