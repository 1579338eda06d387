// Distances between 64 rows of one matrix and 64 of another, computed from differences: the inner loop of the
// nearest-neighbour search and of the pairwise distances.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

constexpr int kTileRows = 64;
constexpr int kTileThreads = 256;
constexpr int kTileChunk = 16;  // columns staged at a time

// A chunk of both tiles, transposed. Rows of 68 elements keep 16-byte alignment and make the transposing stores free of
// bank conflicts for 4-byte elements.
template <class T>
struct alignas(16) TileStage {
    T a[kTileChunk][kTileRows + 4];
    T b[kTileChunk][kTileRows + 4];
};

__device__ __forceinline__ float absolute(float x) { return fabsf(x); }
__device__ __forceinline__ double absolute(double x) { return fabs(x); }
__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }
template <class T>
__device__ __forceinline__ bool is_finite(T x) {
    return absolute(x) < static_cast<T>(INFINITY);
}

// The 4 x 4 distances of this thread: rows 4 (thread / 16) + u of the a-tile, rows 4 (thread % 16) + v of the b-tile.
template <class T>
struct TileDistances {
    T value[4][4];
    static __device__ __forceinline__ int a_row(int u) { return static_cast<int>(threadIdx.x) / 16 * 4 + u; }
    static __device__ __forceinline__ int b_row(int v) { return static_cast<int>(threadIdx.x) % 16 * 4 + v; }
};

// a, b: the first rows of the tiles, D columns each; a_rows, b_rows: how many rows exist from there on (distances of
// others are meaningless). P = 1: sum |a - b|; P = 2: sqrt(sum (a - b)^2). Each distance is one sum in ascending order
// of the column, so swapping a and b gives the same bits. Returns whether every element that this thread loaded was
// finite. The caller synchronises before it uses the stage for something else. Cost: 2 operations and 1/8 of a
// shared-memory read for each pair of elements; tiles are read from L2 or L1.
template <int P, class T>
__device__ __forceinline__ bool distance_tile(const T* __restrict__ a, int64_t a_rows, const T* __restrict__ b,
                                              int64_t b_rows, int64_t D, TileStage<T>& stage,
                                              TileDistances<T>& distances) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    // A warp loads 8 columns (a 32-byte sector of float) of 4 rows.
    const int load_column = lane % 8 + warp % 2 * 8;
    const int load_row = lane / 8 + warp / 2 * 4;
    const int a_first = TileDistances<T>::a_row(0), b_first = TileDistances<T>::b_row(0);
    bool finite = true;
#pragma unroll
    for (int u = 0; u < 4; ++u)
#pragma unroll
        for (int v = 0; v < 4; ++v) distances.value[u][v] = 0;

    for (int64_t d0 = 0; d0 < D; d0 += kTileChunk) {
        __syncthreads();  // the last chunk, or the caller's use of the stage, is done
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = load_row + 16 * i;
            const int64_t d = d0 + load_column;
            const T from_a = row < a_rows && d < D ? a[row * D + d] : T(0);
            const T from_b = row < b_rows && d < D ? b[row * D + d] : T(0);
            finite = finite && is_finite(from_a) && is_finite(from_b);
            stage.a[load_column][row] = from_a;
            stage.b[load_column][row] = from_b;
        }
        __syncthreads();
#pragma unroll
        for (int c = 0; c < kTileChunk; ++c) {
            T from_a[4], from_b[4];
#pragma unroll
            for (int u = 0; u < 4; ++u) from_a[u] = stage.a[c][a_first + u];
#pragma unroll
            for (int v = 0; v < 4; ++v) from_b[v] = stage.b[c][b_first + v];
#pragma unroll
            for (int u = 0; u < 4; ++u) {
#pragma unroll
                for (int v = 0; v < 4; ++v) {
                    const T difference = from_a[u] - from_b[v];
                    T& sum = distances.value[u][v];
                    sum = P == 1 ? sum + absolute(difference) : multiply_add(difference, difference, sum);
                }
            }
        }
    }
    if (P == 2) {
#pragma unroll
        for (int u = 0; u < 4; ++u)
#pragma unroll
            for (int v = 0; v < 4; ++v) distances.value[u][v] = square_root(distances.value[u][v]);
    }
    return finite;
}

}  // namespace fasthash
