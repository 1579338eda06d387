// Keys of 128 x 128 pairs of rows in shared memory: exact Manhattan distances, or lower bounds of Euclidean ones.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/distance_tile.cuh"
#include "core/cuda/tensor_core.cuh"
#include "core/cuda/warp.cuh"
#include "neighbors/cuda/search.cuh"

namespace fasthash {

constexpr int kWideRows = 128;
constexpr int kWideThreads = 256;
constexpr int kWideChunk = 16;                // columns staged at a time
constexpr int kKeyStride = kWideRows + 4;     // rows of keys stay 16-byte aligned
constexpr int kPieceStride = kWideChunk + 4;  // fragments of 8 rows x 4 columns fall into 32 banks

// Two chunks of both operands: one is worked on while the next is stored. Then the keys take their place.
union WideStage {
    struct {
        float a[2][kWideChunk][kKeyStride], b[2][kWideChunk][kKeyStride];  // transposed
    } columns;
    struct {
        float a[2][kWideRows][kPieceStride], b[2][kWideRows][kPieceStride];
    } rows;
    uint32_t keys[kWideRows][kKeyStride];
};

__device__ __forceinline__ bool all_finite(const float4& v) {
    return is_finite(v.x) && is_finite(v.y) && is_finite(v.z) && is_finite(v.w);
}

// What a thread loads of an operand of up to 128 rows: of each chunk, columns 4 (t % 4) .. + 3 of rows t / 4 and
// 64 + t / 4, or of the last row where there are fewer. kVectors: D and the rows' addresses are multiples of 4 floats.
template <bool kVectors>
struct WideOperand {
    const float* from[2];
    int left;  // columns from the thread's first on
    float4 piece[2];

    static __device__ __forceinline__ int row(int h) { return static_cast<int>(threadIdx.x) / 4 + kWideRows / 2 * h; }
    static __device__ __forceinline__ int column() { return static_cast<int>(threadIdx.x) % 4 * 4; }
    __device__ __forceinline__ WideOperand(const float* rows, int64_t count, int D) : left(D - column()) {
#pragma unroll
        for (int h = 0; h < 2; ++h) from[h] = rows + min(static_cast<int64_t>(row(h)), count - 1) * D + column();
    }
    // The piece of the chunk at column d0; 0 after the last column.
    __device__ __forceinline__ void load(int d0) {
#pragma unroll
        for (int h = 0; h < 2; ++h) piece[h] = load_four(from[h] + d0, left - d0);
    }
    static __device__ __forceinline__ float4 load_four(const float* from, int left) {
        float4 out = make_float4(0, 0, 0, 0);
        if (kVectors) {
            if (left > 0) out = *reinterpret_cast<const float4*>(from);
        } else {
            if (left > 0) out.x = from[0];
            if (left > 1) out.y = from[1];
            if (left > 2) out.z = from[2];
            if (left > 3) out.w = from[3];
        }
        return out;
    }
    __device__ __forceinline__ bool finite() const { return all_finite(piece[0]) && all_finite(piece[1]); }
    __device__ __forceinline__ void store_transposed(float (&to)[kWideChunk][kKeyStride]) const {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            to[column()][row(h)] = piece[h].x;
            to[column() + 1][row(h)] = piece[h].y;
            to[column() + 2][row(h)] = piece[h].z;
            to[column() + 3][row(h)] = piece[h].w;
        }
    }
    // TF32 forms, less the centre.
    __device__ __forceinline__ void store_rounded(float (&to)[kWideRows][kPieceStride], const float4& center) const {
#pragma unroll
        for (int h = 0; h < 2; ++h)
            *reinterpret_cast<float4*>(&to[row(h)][column()]) =
                make_float4(round_to_tf32(piece[h].x - center.x), round_to_tf32(piece[h].y - center.y),
                            round_to_tf32(piece[h].z - center.z), round_to_tf32(piece[h].w - center.w));
    }
};

// Manhattan distances.

// Where this thread's 8 x 8 pairs are: rows 4 (t / 16) .. + 3 and the same in the other half; columns likewise, by
// t % 16.
__device__ __forceinline__ int manhattan_row(int u) {
    return static_cast<int>(threadIdx.x) / 16 * 4 + u % 4 + kWideRows / 2 * (u / 4);
}
__device__ __forceinline__ int manhattan_column(int v) {
    return static_cast<int>(threadIdx.x) % 16 * 4 + v % 4 + kWideRows / 2 * (v / 4);
}

// Writes to_key(sum |a - b|) of all pairs to stage.keys; each distance is one sum in ascending order of the column, so
// swapping a and b gives the same bits. Where `check`, returns whether what this thread loaded was finite. Ends in a
// barrier. Cost: 2 operations and 1/16 of a shared-memory read for each pair of elements.
template <bool kVectors>
__device__ __forceinline__ bool manhattan_keys(WideOperand<kVectors> a, WideOperand<kVectors> b, int D, bool check,
                                               WideStage& stage) {
    float sum[8][8];
#pragma unroll
    for (int u = 0; u < 8; ++u)
#pragma unroll
        for (int v = 0; v < 8; ++v) sum[u][v] = 0;

    a.load(0);
    b.load(0);
    bool finite = true;
    int buffer = 0;
    for (int d0 = 0; d0 < D; d0 += kWideChunk, buffer ^= 1) {
        auto& columns = stage.columns;
        a.store_transposed(columns.a[buffer]);
        b.store_transposed(columns.b[buffer]);
        if (check) finite = finite && a.finite() && b.finite();
        __syncthreads();  // this chunk is stored; nobody works on the one before the last, which the next overwrites
        a.load(d0 + kWideChunk);
        b.load(d0 + kWideChunk);
#pragma unroll 4
        for (int c = 0; c < kWideChunk; ++c) {
            float row[8], column[8];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float4 r = *reinterpret_cast<const float4*>(&columns.a[buffer][c][manhattan_row(4 * half)]);
                const float4 k = *reinterpret_cast<const float4*>(&columns.b[buffer][c][manhattan_column(4 * half)]);
                row[4 * half] = r.x, row[4 * half + 1] = r.y, row[4 * half + 2] = r.z, row[4 * half + 3] = r.w;
                column[4 * half] = k.x, column[4 * half + 1] = k.y;
                column[4 * half + 2] = k.z, column[4 * half + 3] = k.w;
            }
#pragma unroll
            for (int u = 0; u < 8; ++u)
#pragma unroll
                for (int v = 0; v < 8; ++v) sum[u][v] += absolute(row[u] - column[v]);
        }
    }
    __syncthreads();  // the staged columns are done with
#pragma unroll
    for (int u = 0; u < 8; ++u) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float* of = &sum[u][4 * half];
            *reinterpret_cast<uint4*>(&stage.keys[manhattan_row(u)][manhattan_column(4 * half)]) =
                make_uint4(to_key(of[0]), to_key(of[1]), to_key(of[2]), to_key(of[3]));
        }
    }
    __syncthreads();
    return finite;
}

// Euclidean distances.

// What the computed squared distance of two forms may exceed the true one by, as a part of |a|^2 + |b|^2: 9 terms for
// each mma of 8 columns, those of zeros behind the last column too, each off by kTensorCoreUnit of the sum of
// |a b| <= (|a|^2 + |b|^2) / 2, which 2 a b doubles. That is 9/8 a column: the rest is for errors of errors (good for
// 2^18 columns) and for some roundings.
__host__ __device__ constexpr float squared_error(int64_t D) {
    return (1.25f * static_cast<float>((D + kWideChunk - 1) / kWideChunk * kWideChunk) + 8.0f) * kTensorCoreUnit;
}
static_assert(squared_error(1) >= (9 * kWideChunk / 8 + 2) * kTensorCoreUnit, "one column takes part in a whole chunk");

// Writes to stage.keys, for all pairs, the bits of a float that is at most the squared distance of the TF32 forms; 0
// where that is not known. Ends in a barrier. Cost: an mma for 1,024 pairs of elements, and 24 shared-memory reads a
// warp for 16 mma.
template <bool kVectors>
__device__ __forceinline__ void euclidean_keys(WideOperand<kVectors> a, const RowForm* __restrict__ a_forms,
                                               int a_count, WideOperand<kVectors> b,
                                               const RowForm* __restrict__ b_forms, int b_count,
                                               const float* __restrict__ center, int D, WideStage& stage) {
    constexpr int kDown = 4, kAcross = 4;  // a warp's fragments: 64 rows, 32 columns
    const int g = lane_index() / 4, t = lane_index() % 4;
    const int first_row = warp_index() / 4 * 64 + g, first_column = warp_index() % 4 * 32;
    center += a.column();
    float products[kDown][kAcross][4];
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
        for (int j = 0; j < kAcross; ++j)
#pragma unroll
            for (int q = 0; q < 4; ++q) products[i][j][q] = 0;

    float4 middle = a.load_four(center, a.left);
    a.load(0);
    b.load(0);
    int buffer = 0;
    for (int d0 = 0; d0 < D; d0 += kWideChunk, buffer ^= 1) {
        auto& rows = stage.rows;
        a.store_rounded(rows.a[buffer], middle);
        b.store_rounded(rows.b[buffer], middle);
        __syncthreads();  // this chunk is stored; nobody works on the one before the last, which the next overwrites
        middle = a.load_four(center + d0 + kWideChunk, a.left - d0 - kWideChunk);
        a.load(d0 + kWideChunk);
        b.load(d0 + kWideChunk);
#pragma unroll
        for (int k = 0; k < kWideChunk; k += 8) {
            float down[kDown][4], across[kAcross][2];
#pragma unroll
            for (int i = 0; i < kDown; ++i)
#pragma unroll
                for (int q = 0; q < 4; ++q)
                    down[i][q] = rows.a[buffer][first_row + 16 * i + q % 2 * 8][k + t + q / 2 * 4];
#pragma unroll
            for (int j = 0; j < kAcross; ++j)
#pragma unroll
                for (int q = 0; q < 2; ++q) across[j][q] = rows.b[buffer][first_column + 8 * j + g][k + t + 4 * q];
#pragma unroll
            for (int i = 0; i < kDown; ++i)
#pragma unroll
                for (int j = 0; j < kAcross; ++j) multiply_add_16x8x8(products[i][j], down[i], across[j]);
        }
    }
    __syncthreads();  // the staged rows are done with
    const float kept = 1.0f - squared_error(D);
#pragma unroll
    for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first_row + 16 * i + 8 * half;
            const float row_norm = row < a_count ? a_forms[row].squared_norm * kept : 0.0f;
#pragma unroll
            for (int j = 0; j < kAcross; ++j) {
                const int column = first_column + 8 * j + 2 * t;
                uint32_t keys[2];
#pragma unroll
                for (int q = 0; q < 2; ++q) {
                    const float norm = column + q < b_count ? b_forms[column + q].squared_norm * kept : 0.0f;
                    const float squared = row_norm + norm - 2.0f * products[i][j][2 * half + q];
                    keys[q] = squared > 0 && is_finite(squared) ? __float_as_uint(squared) : 0u;
                }
                *reinterpret_cast<uint2*>(&stage.keys[row][column]) = make_uint2(keys[0], keys[1]);
            }
        }
    }
    __syncthreads();
}

}  // namespace fasthash
