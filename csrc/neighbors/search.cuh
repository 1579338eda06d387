// The nearest-neighbour search on CUDA, as nearest_cuda.cu and kl_loss_cuda.cu call it.
#pragma once

#include <cstdint>

#include "core/distance_tile.cuh"
#include "core/workspace.h"
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

// The K nearest rows of y (self: of x, without itself) for each row of x. Targets are cut into `splits` runs of
// split_rows; one block takes 64 rows of x and one run. Where splits > 1, each run's K best go to run_keys and
// run_indices, and a second kernel merges them.
template <class T>
struct Search {
    const T* x;  // [L, N, D]
    const T* y;  // [L or 1, M, D]
    int64_t L, N, M, D, K, y_stride;
    bool self;
    int64_t splits, split_rows;
    int64_t first;                      // columns first .. K - 1 are wanted
    T* distances;                       // [L, N, K - first]
    int64_t* indices;                   // [L, N, K - first]
    int32_t* bad;                       // [tasks], or null: whether a block met a NaN or an infinity in x or y
    typename KeyOf<T>::Type* run_keys;  // [L, N, splits, K]
    int64_t* run_indices;               // [L, N, splits, K]

    __host__ __device__ int64_t row_tiles() const { return (N + kTileRows - 1) / kTileRows; }
    __host__ __device__ int64_t tasks() const { return L * splits * row_tiles(); }  // [L, splits, row_tiles]
};

// The search that `problem` describes, without outputs; `searches` of them share the device.
template <class T>
Search<T> plan_search(const fh_nearest_problem& problem, int64_t searches);
template <class T>
void cut_workspace(Search<T>& search, WorkspaceCutter& cutter);

// Runs one or two searches over the same x in one launch (and one more where runs must be merged). second may be null.
template <class T>
fh_status run_searches(const Search<T>& first, const Search<T>* second, int32_t p, void* stream);

}  // namespace fasthash
