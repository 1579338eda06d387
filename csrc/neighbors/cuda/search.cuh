// The nearest-neighbour search on CUDA, as nearest_cuda.cu and kl_loss_cuda.cu call it. There are two ways:
// runs (nearest_cuda.cu: every type and K, lists in shared memory) and, for floats and few neighbours of many points,
// tiles (tiles_cuda.cu: wide tiles, each pair of a symmetric problem once, L2 by tensor cores).
#pragma once

#include <cstdint>

#include "core/cuda/distance_tile.cuh"
#include "core/cuda/workspace.h"
#include "neighbors/nearest.h"

namespace fasthash {

// Distances become unsigned integers of the same order, NaN after infinity and a free place after NaN, so that one
// comparison orders them.
template <class T>
struct KeyOf;
template <>
struct KeyOf<float> {
    using Type = uint32_t;
};
template <>
struct KeyOf<double> {
    using Type = unsigned long long;
};

__device__ __forceinline__ uint32_t to_key(float distance) {
    return distance == distance ? __float_as_uint(distance) : 0xfffffffeu;
}
__device__ __forceinline__ unsigned long long to_key(double distance) {
    return distance == distance ? static_cast<unsigned long long>(__double_as_longlong(distance))
                                : 0xfffffffffffffffeull;
}
__device__ __forceinline__ float from_key(uint32_t key) { return __uint_as_float(key); }  // both special keys are NaN
__device__ __forceinline__ double from_key(unsigned long long key) {
    return __longlong_as_double(static_cast<long long>(key));
}
template <class Key>
__device__ __forceinline__ constexpr Key free_place() {
    return ~Key(0);
}

// What the L2 filter of tiles_cuda.cu knows of a row: of its TF32 form (less the centre) the squared norm, and how far
// that form is from the row.
struct RowForm {
    float squared_norm;
    float radius;
};

// The K nearest rows of y (self: of x, without itself) for each row of x.
template <class T>
struct Search {
    const T* x;  // [L, N, D]
    const T* y;  // [L or 1, M, D]
    int64_t L, N, M, D, K, y_stride;
    int32_t p;
    bool self;
    int64_t first;     // columns first .. K - 1 are wanted
    T* distances;      // [L, N, K - first]
    int64_t* indices;  // [L, N, K - first]
    int32_t* bad;      // [L], zero, or null: becomes 1 where x or y holds a NaN or an infinity

    // Runs: candidates are cut into `splits` runs of split_rows; one block takes 64 rows of x and one run. Where
    // splits > 1, each run's K best go to run_keys and run_indices, and a second kernel merges them.
    int64_t splits, split_rows;
    typename KeyOf<T>::Type* run_keys;  // [L, N, splits, K]
    int64_t* run_indices;               // [L, N, splits, K]

    // Tiles: `found` holds key << 32 | index, ascending in each row.
    bool tiled;
    unsigned long long* found;  // [L, N, K]
    float* centers;             // p = 2: [y_batches(), D], and the forms of the rows of x and y
    RowForm* x_forms;           // [L, N]
    RowForm* y_forms;           // [y_batches(), M], x_forms where self

    __host__ __device__ int64_t row_tiles() const { return (N + kTileRows - 1) / kTileRows; }
    __host__ __device__ int64_t tasks() const { return L * splits * row_tiles(); }  // [L, splits, row_tiles]
    __host__ __device__ int64_t y_batches() const { return y_stride == 0 ? 1 : L; }
};

// The search that `problem` describes, without outputs; `searches` of them share the device.
template <class T>
Search<T> plan_search(const fh_nearest_problem& problem, int64_t searches);
template <class T>
void cut_workspace(Search<T>& search, WorkspaceCutter& cutter);

// Runs `count` searches, 1 or 2, over the same x, in one launch where they go the same way.
template <class T>
fh_status run_searches(const Search<T>* searches, int count, void* stream);

// Of tiles_cuda.cu:

bool fits_tiles(const Search<float>& search);
void cut_tiles(Search<float>& search, WorkspaceCutter& cutter);
fh_status run_tiles(const Search<float>* searches, int count, void* stream);

}  // namespace fasthash
