// Pairwise Manhattan distances on CUDA: see pairwise_l1.h for the contract.
#include "core/cuda/cuda_check.h"
#include "core/cuda/distance_tile.cuh"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/triangle.cuh"
#include "pairwise/pairwise_l1.h"

namespace fasthash {
namespace {

// One block computes one pair of 64-row tiles and writes it and its mirror image, so each pair of rows is computed
// once.
template <class T>
__global__ void __launch_bounds__(kTileThreads) pairwise_l1_kernel(const T* __restrict__ z,  // [B, D]
                                                                   int64_t B, int64_t D,
                                                                   T* __restrict__ out) {  // [B, B]
    auto& stage = shared_memory<TileStage<T>>();
    int64_t tile_i, tile_j;
    triangular_pair(blockIdx.x, &tile_i, &tile_j);
    const int64_t i0 = tile_i * kTileRows, j0 = tile_j * kTileRows;
    TileDistances<T> distances;
    distance_tile<1>(z + i0 * D, B - i0, z + j0 * D, B - j0, D, stage, distances);
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
            const int64_t i = i0 + distances.a_row(u), j = j0 + distances.b_row(v);
            if (i >= B || j >= B) continue;
            const T distance = i == j ? T(0) : distances.value[u][v];
            out[i * B + j] = distance;
            if (tile_i != tile_j) out[j * B + i] = distance;
        }
    }
}

constexpr int kGradRows = 32;     // rows b of a block
constexpr int kGradColumns = 32;  // columns d of a block: one for each lane
constexpr int kGradChunk = 32;    // rows c staged at a time
constexpr int kGradThreads = 256;

template <class T>
struct alignas(16) GradStage {
    T weight[kGradChunk][kGradRows + 4];  // g[b, c] + g[c, b], transposed
    T z[kGradChunk][kGradColumns];
};

// One block owns 32 rows b and 32 columns d of the gradient; a thread owns one column and 4 rows and adds over all c in
// ascending order. g is read twice for every 32 columns, in both directions coalesced.
template <class T>
__global__ void __launch_bounds__(kGradThreads) pairwise_l1_backward_kernel(const T* __restrict__ z,     // [B, D]
                                                                            const T* __restrict__ grad,  // [B, B]
                                                                            int64_t B, int64_t D,
                                                                            T* __restrict__ grad_z) {  // [B, D]
    auto& stage = shared_memory<GradStage<T>>();
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int64_t column_tiles = (D + kGradColumns - 1) / kGradColumns;

    const int64_t b0 = blockIdx.x / column_tiles * kGradRows, d = blockIdx.x % column_tiles * kGradColumns + lane;
    T own[4], sum[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) {
        const int64_t b = b0 + warp * 4 + u;
        own[u] = b < B && d < D ? z[b * D + d] : T(0);
        sum[u] = 0;
    }
    for (int64_t c0 = 0; c0 < B; c0 += kGradChunk) {
        __syncthreads();  // the last chunk is done
#pragma unroll
        for (int i = 0; i < kGradChunk; i += 8) {
            const int64_t c = c0 + warp + i, b = b0 + lane;
            stage.weight[warp + i][lane] = c < B && b < B ? grad[c * B + b] : T(0);
            stage.z[warp + i][lane] = c < B && d < D ? z[c * D + d] : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < kGradRows; i += 8) {
            const int64_t b = b0 + warp + i, c = c0 + lane;
            if (b >= B || c >= B) continue;
            T& weight = stage.weight[lane][warp + i];
            weight = b == c ? T(0) : weight + grad[b * B + c];
        }
        __syncthreads();
#pragma unroll 8
        for (int c = 0; c < kGradChunk; ++c) {
            const T other = stage.z[c][lane];
#pragma unroll
            for (int u = 0; u < 4; ++u) {
                const T difference = own[u] - other;
                const T sign = static_cast<T>((difference > 0) - (difference < 0));
                sum[u] = multiply_add(stage.weight[c][warp * 4 + u], sign, sum[u]);
            }
        }
    }
#pragma unroll
    for (int u = 0; u < 4; ++u) {
        const int64_t b = b0 + warp * 4 + u;
        if (b < B && d < D) grad_z[b * D + d] = sum[u];
    }
}

template <class T>
fh_status pairwise_l1(const fh_pairwise_problem& p, T* distances, void* stream) {
    const int64_t tiles = ceil_div(p.B, kTileRows), tile_pairs = tiles * (tiles + 1) / 2;
    return launch({"pairwise_l1_kernel", tile_pairs, kTileThreads, 0, stream}, pairwise_l1_kernel<T>,
                  static_cast<const T*>(p.z), p.B, p.D, distances);
}

template <class T>
fh_status pairwise_l1_backward(const fh_pairwise_problem& p, const T* grad, T* grad_z, void* stream) {
    const int64_t tiles = ceil_div(p.B, kGradRows) * ceil_div(p.D, kGradColumns);
    return launch({"pairwise_l1_backward_kernel", tiles, kGradThreads, 0, stream}, pairwise_l1_backward_kernel<T>,
                  static_cast<const T*>(p.z), grad, p.B, p.D, grad_z);
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

fh_status fh_pairwise_l1_cuda(const fh_pairwise_problem* problem, void* distances, void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return pairwise_l1(*problem, static_cast<T*>(distances), stream);
    });
}

fh_status fh_pairwise_l1_backward_cuda(const fh_pairwise_problem* problem, const void* grad, void* grad_z,
                                       void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return pairwise_l1_backward(*problem, static_cast<const T*>(grad), static_cast<T*>(grad_z), stream);
    });
}
}
