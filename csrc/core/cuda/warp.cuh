// Reductions and scans over the 32 lanes of a warp. All lanes must take part.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarpSize = 32;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % kWarpSize; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarpSize; }
// Number of this thread, and of its warp, in the grid.
__device__ __forceinline__ int64_t grid_thread() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ int64_t grid_warp() { return grid_thread() / kWarpSize; }
__device__ __forceinline__ unsigned lanes_below(int lane) { return (1u << lane) - 1u; }

// Every lane gets the sum, added in one fixed tree.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int step = kWarpSize / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
    return value;
}

template <class T>
__device__ __forceinline__ T warp_min(T value) {
#pragma unroll
    for (int step = kWarpSize / 2; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(kAllLanes, value, step);
        value = other < value ? other : value;
    }
    return value;
}

// Lane i gets the sum over lanes 0..i.
template <class T>
__device__ __forceinline__ T warp_inclusive_sum(T value) {
#pragma unroll
    for (int step = 1; step < kWarpSize; step *= 2) {
        const T below = __shfl_up_sync(kAllLanes, value, step);
        if (lane_index() >= step) value += below;
    }
    return value;
}

}  // namespace fasthash
