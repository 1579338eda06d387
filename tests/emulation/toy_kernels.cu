// Small kernels with known faults, and sound twins of them: the emulation must tell them apart.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"

namespace fasthash {
namespace {

constexpr int kToyThreads = 128;

struct Tile {
    int value[kToyThreads];
};

// Sums each block's values by halving: out[block]. Without the barrier, a thread may add a value that is not ready.
template <bool kWithBarrier>
__global__ void toy_block_sum_kernel(const int* values, int64_t count, int* out) {
    auto& tile = shared_memory<Tile>();
    const int t = static_cast<int>(threadIdx.x);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + t;
    tile.value[t] = i < count ? values[i] : 0;
    __syncthreads();
    for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
        if (t < half) tile.value[t] += tile.value[t + half];
        if (kWithBarrier) __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = tile.value[0];
}

// Copies. kBehind = 1 makes the test for the last tile's edge one too generous.
template <int kBehind>
__global__ void toy_copy_kernel(const int* values, int64_t count, int* out) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count + kBehind) out[i] = values[i];
}

// Reverses each block's values through shared memory. kBehind = 1 reads one past the shared tile.
template <int kBehind>
__global__ void toy_reverse_kernel(const int* values, int64_t count, int* out) {
    auto& tile = shared_memory<Tile>();
    const int t = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
    const int64_t i = static_cast<int64_t>(blockIdx.x) * n + t;
    tile.value[t] = i < count ? values[i] : 0;
    __syncthreads();
    if (i < count) out[i] = tile.value[n - 1 - t + kBehind];
}

// Half of the threads go past the barrier and leave.
__global__ void toy_divergent_barrier_kernel(const int* values, int64_t, int* out) {
    if (threadIdx.x < blockDim.x / 2) __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

// Each half of the threads waits at a barrier of its own.
__global__ void toy_two_barriers_kernel(const int* values, int64_t, int* out) {
    if (threadIdx.x < blockDim.x / 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = values[threadIdx.x];
}

// A warp's sum by shuffles; with kAllLanes the mask names lanes that did not come.
template <bool kAllLanes>
__global__ void toy_half_warp_sum_kernel(const int* values, int64_t, int* out) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int sum = values[threadIdx.x];
    if (lane < 16) {
        for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes ? 0xffffffffu : 0xffffu, sum, step);
    }
    out[threadIdx.x] = sum;
}

// Lanes hand values on through shared memory; within a warp too this needs a barrier.
template <bool kWithBarrier>
__global__ void toy_warp_neighbour_kernel(const int* values, int64_t, int* out) {
    auto& tile = shared_memory<Tile>();
    const int t = static_cast<int>(threadIdx.x);
    tile.value[t] = values[t];
    if (kWithBarrier) __syncwarp();
    out[t] = tile.value[t ^ 1];
}

// 16-byte loads: the address must be a multiple of 16.
__global__ void toy_vector_copy_kernel(const int* values, int64_t count, int* out) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (4 * i + 3 >= count) return;
    const uint4 four = *reinterpret_cast<const uint4*>(values + 4 * i);
    out[4 * i] = static_cast<int>(four.x);
    out[4 * i + 1] = static_cast<int>(four.y);
    out[4 * i + 2] = static_cast<int>(four.z);
    out[4 * i + 3] = static_cast<int>(four.w);
}

// The order in which threads and blocks come by: what must never show in a result.
__global__ void toy_arrival_kernel(const int*, int64_t, int* out) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    auto& tile = shared_memory<Tile>();
    if (threadIdx.x == 0) tile.value[0] = 0;
    __syncthreads();
    out[i] = atomicAdd(&tile.value[0], 1);
}

// Every collective once: match, vote, shuffles in both directions, a counting barrier.
__global__ void toy_collectives_kernel(const int* values, int64_t, int* out) {
    const int t = static_cast<int>(threadIdx.x), v = values[t];
    const unsigned all = 0xffffffffu;
    const unsigned peers = __match_any_sync(all, v);
    const int up = __shfl_up_sync(all, v, 1), down = __shfl_down_sync(all, v, 1), first = __shfl_sync(all, v, 0);
    const int odd = __syncthreads_count(v % 2 != 0);
    const unsigned votes = __ballot_sync(all, v > 2);
    int* row = out + t * 6;
    row[0] = __popc(peers);
    row[1] = up;
    row[2] = down;
    row[3] = first;
    row[4] = odd;
    row[5] = __popc(votes);
}

}  // namespace
}  // namespace fasthash

#define FH_TOY(name, kernel)                                                                                 \
    extern "C" fh_status fh_toy_##name(const int* values, int64_t count, int32_t block, int* out) {          \
        const int64_t blocks = fasthash::ceil_div(count, block);                                             \
        return fasthash::launch({#kernel, blocks, block, 0, nullptr}, fasthash::kernel, values, count, out); \
    }
FH_TOY(block_sum, toy_block_sum_kernel<true>)
FH_TOY(block_sum_without_barrier, toy_block_sum_kernel<false>)
FH_TOY(copy, toy_copy_kernel<0>)
FH_TOY(copy_past_the_edge, toy_copy_kernel<1>)
FH_TOY(reverse, toy_reverse_kernel<0>)
FH_TOY(reverse_past_the_tile, toy_reverse_kernel<1>)
FH_TOY(divergent_barrier, toy_divergent_barrier_kernel)
FH_TOY(two_barriers, toy_two_barriers_kernel)
FH_TOY(half_warp_sum, toy_half_warp_sum_kernel<false>)
FH_TOY(half_warp_sum_of_all_lanes, toy_half_warp_sum_kernel<true>)
FH_TOY(warp_neighbour, toy_warp_neighbour_kernel<true>)
FH_TOY(warp_neighbour_without_barrier, toy_warp_neighbour_kernel<false>)
FH_TOY(vector_copy, toy_vector_copy_kernel)
FH_TOY(arrival, toy_arrival_kernel)
FH_TOY(collectives, toy_collectives_kernel)
