// Nearest neighbours on CUDA: see nearest.h for the contract, core/cuda/distance_tile.cuh for the distances.
#include <type_traits>

#include "core/cuda/cuda_check.h"
#include "core/cuda/distance_tile.cuh"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "neighbors/cuda/backward.cuh"
#include "neighbors/cuda/search.cuh"
#include "neighbors/nearest.h"

namespace fasthash {

namespace {

constexpr int64_t kBlocksWanted = 528;    // blocks of a launch: 4 for each multiprocessor of an H100
constexpr int64_t kLeastSplitRows = 128;  // two tiles: a shorter run costs more in merging than it gains
constexpr int64_t kMostSplits = 64;
constexpr int kMergeThreads = 256;
constexpr int kMergeWarps = kMergeThreads / kWarpSize;
constexpr int kMostNeighbors = 64;  // two list entries for each lane

// Offers this lane's candidate to a sorted list of K keys that the warp shares. Lanes are taken in ascending order, and
// an equal key goes behind those that are there: with candidates offered in ascending order of their index, ties go to
// the lowest. Most candidates fail one comparison with the K-th key; one that enters costs about 30 instructions.
template <class Key, class Index>
__device__ __forceinline__ void offer(Key key, Index index, int K, Key* __restrict__ keys,
                                      Index* __restrict__ indices) {
    const int lane = lane_index();
    Key worst = keys[K - 1];
    unsigned waiting = __ballot_sync(kAllLanes, key < worst);
    while (waiting != 0) {
        const int source = __ffs(static_cast<int>(waiting)) - 1;
        waiting &= waiting - 1;
        const Key offered = __shfl_sync(kAllLanes, key, source);
        const Index offered_index = __shfl_sync(kAllLanes, index, source);
        if (offered >= worst) continue;
        const Key low = lane < K ? keys[lane] : free_place<Key>();
        const Key high = lane + kWarpSize < K ? keys[lane + kWarpSize] : free_place<Key>();
        const int place =
            __popc(__ballot_sync(kAllLanes, low <= offered)) + __popc(__ballot_sync(kAllLanes, high <= offered));
        const Index low_index = lane < K ? indices[lane] : Index(0);
        const Index high_index = lane + kWarpSize < K ? indices[lane + kWarpSize] : Index(0);
        __syncwarp();  // everybody has read
        if (lane >= place && lane + 1 < K) {
            keys[lane + 1] = low;
            indices[lane + 1] = low_index;
        }
        if (lane + kWarpSize >= place && lane + kWarpSize + 1 < K) {
            keys[lane + kWarpSize + 1] = high;
            indices[lane + kWarpSize + 1] = high_index;
        }
        if (lane == 0) {
            keys[place] = offered;
            indices[place] = offered_index;
        }
        __syncwarp();
        worst = keys[K - 1];
    }
}

// What a block holds: the staged columns, then the tile's keys in the same place, then the lists of its 64 rows.
template <class T>
struct SearchStage {
    using Key = typename KeyOf<T>::Type;
    union {
        TileStage<T> columns;
        Key keys[kTileRows][kTileRows + 1];
    };
    static size_t bytes(int64_t K) {
        return sizeof(SearchStage) + static_cast<size_t>(kTileRows * K) * (sizeof(Key) + sizeof(int32_t));
    }
};

// One block: 64 rows of x against one run of candidates, 64 at a time. A warp keeps the lists of 8 rows in shared
// memory.
// Cost: 2 D operations a pair, and about 3 instructions a pair for the selection.
template <int P, class T>
__device__ __forceinline__ void search_run(const Search<T>& search, int64_t task) {
    using Key = typename KeyOf<T>::Type;
    auto& stage = *dynamic_shared_memory<SearchStage<T>>();
    const int K = static_cast<int>(search.K);
    Key* list_keys = reinterpret_cast<Key*>(&stage + 1);                            // [64, K]
    int32_t* list_indices = reinterpret_cast<int32_t*>(list_keys + kTileRows * K);  // [64, K], from the run's first row

    const int64_t row_tiles = search.row_tiles();
    const int64_t i0 = task % row_tiles * kTileRows;
    const int64_t split = task / row_tiles % search.splits, l = task / row_tiles / search.splits;
    const int64_t begin = split * search.split_rows, end = min(begin + search.split_rows, search.M);
    const T* x = search.x + (l * search.N + i0) * search.D;
    const T* y = search.y + l * search.y_stride;

    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * K; i += kTileThreads) {
        list_keys[i] = free_place<Key>();
        list_indices[i] = 0;
    }
    bool finite = true;
    for (int64_t j0 = begin; j0 < end; j0 += kTileRows) {
        TileDistances<T> distances;
        const bool tile_finite =
            distance_tile<P>(x, search.N - i0, y + j0 * search.D, end - j0, search.D, stage.columns, distances);
        finite = finite && tile_finite;
        __syncthreads();  // the staged columns are done with
#pragma unroll
        for (int u = 0; u < 4; ++u) {
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                const int row = distances.a_row(u), column = distances.b_row(v);
                const bool counts = j0 + column < end && !(search.self && i0 + row == j0 + column);
                stage.keys[row][column] = counts ? to_key(distances.value[u][v]) : free_place<Key>();
            }
        }
        __syncthreads();
        const int rows = static_cast<int>(min(static_cast<int64_t>(kTileRows), search.N - i0));
        for (int row = warp_index(); row < rows; row += kTileThreads / kWarpSize) {
            const int32_t index = static_cast<int32_t>(j0 - begin) + lane_index();
            Key* keys = list_keys + row * K;
            int32_t* indices = list_indices + row * K;
            offer(stage.keys[row][lane_index()], index, K, keys, indices);
            offer(stage.keys[row][lane_index() + kWarpSize], index + kWarpSize, K, keys, indices);
        }
    }
    const bool bad = __syncthreads_or(!finite);  // also: all lists are complete
    if (search.bad != nullptr && bad && threadIdx.x == 0) atomicOr(search.bad + l, 1);

    const bool last = search.splits == 1;
    const int first = last ? static_cast<int>(search.first) : 0, kept = K - first;
    for (int i = static_cast<int>(threadIdx.x); i < kTileRows * kept; i += kTileThreads) {
        const int64_t row = l * search.N + i0 + i / kept;
        if (i0 + i / kept >= search.N) break;
        const int entry = i / kept * K + first + i % kept;
        const int64_t index = begin + list_indices[entry];
        if (last) {
            search.distances[row * kept + i % kept] = from_key(list_keys[entry]);
            search.indices[row * kept + i % kept] = index;
        } else {
            search.run_keys[(row * search.splits + split) * K + i % kept] = list_keys[entry];
            search.run_indices[(row * search.splits + split) * K + i % kept] = index;
        }
    }
}

template <int P, class T>
__global__ void __launch_bounds__(kTileThreads) nearest_kernel(Search<T> first, Search<T> second) {
    const int64_t task = blockIdx.x;
    if (task < first.tasks())
        search_run<P>(first, task);
    else
        search_run<P>(second, task - first.tasks());
}

template <class T>
struct MergeStage {
    typename KeyOf<T>::Type keys[kMergeWarps][kMostNeighbors];
    int64_t indices[kMergeWarps][kMostNeighbors];
};

// One warp merges the runs of one row, in ascending order of the candidates.
template <class T>
__device__ __forceinline__ void merge_row(const Search<T>& search, int64_t row, MergeStage<T>& stage) {
    using Key = typename KeyOf<T>::Type;
    const int K = static_cast<int>(search.K), lane = lane_index();
    Key* keys = stage.keys[warp_index()];
    int64_t* indices = stage.indices[warp_index()];
    for (int64_t split = 0; split < search.splits; ++split) {
        const Key* run_keys = search.run_keys + (row * search.splits + split) * K;
        const int64_t* run_indices = search.run_indices + (row * search.splits + split) * K;
        for (int c = 0; c < K; c += kWarpSize) {
            const bool there = c + lane < K;
            const Key key = there ? run_keys[c + lane] : free_place<Key>();
            const int64_t index = there ? run_indices[c + lane] : 0;
            if (split > 0) {
                offer(key, index, K, keys, indices);
            } else if (there) {
                keys[c + lane] = key;
                indices[c + lane] = index;
            }
        }
        __syncwarp();
    }
    const int first = static_cast<int>(search.first), kept = K - first;
    for (int c = lane; c < kept; c += kWarpSize) {
        search.distances[row * kept + c] = from_key(keys[first + c]);
        search.indices[row * kept + c] = indices[first + c];
    }
}

template <class T>
__global__ void __launch_bounds__(kMergeThreads) nearest_merge_kernel(Search<T> first, Search<T> second, int64_t rows) {
    auto& stage = shared_memory<MergeStage<T>>();
    const int64_t first_rows = first.splits > 1 ? first.L * first.N : 0;
    const int64_t row = grid_warp();
    if (row >= rows) return;
    if (row < first_rows)
        merge_row(first, row, stage);
    else
        merge_row(second, row - first_rows, stage);
}

template <class T>
fh_status nearest(const fh_nearest_problem& problem, T* distances, int64_t* indices, void* workspace,
                  int64_t workspace_bytes, void* stream) {
    Search<T> search = plan_search<T>(problem, 1);
    WorkspaceCutter cutter(workspace);
    cut_workspace(search, cutter);
    FH_RETURN_IF_ERROR(require_workspace("fh_nearest_cuda", cutter.bytes(), workspace_bytes));
    search.distances = distances;
    search.indices = indices;
    return run_searches(&search, 1, stream);
}

// Enough for the search, and for a backward call of C columns.
template <class T>
int64_t nearest_workspace(const fh_nearest_problem& problem, int64_t C) {
    WorkspaceCutter forward, back;
    Search<T> search = plan_search<T>(problem, 1);
    cut_workspace(search, forward);
    T wanted = 0;  // any address: the gradient of y is wanted
    Backward<T> backward = {};
    backward.L = problem.L;
    backward.N = problem.N;
    backward.choices = 1;
    backward.grad_y = &wanted;
    backward.chosen[0].C = C;
    cut_workspace(backward, back);
    return std::max(forward.bytes(), back.bytes());
}

}  // namespace

template <class T>
Search<T> plan_search(const fh_nearest_problem& problem, int64_t searches) {
    Search<T> search = {};
    search.x = static_cast<const T*>(problem.x);
    search.self = problem.y == nullptr;
    search.y = search.self ? search.x : static_cast<const T*>(problem.y);
    search.L = problem.L;
    search.N = problem.N;
    search.M = search.self ? problem.N : problem.M;
    search.D = problem.D;
    search.K = problem.K;
    search.p = problem.p;
    search.y_stride = search.self ? problem.N * problem.D : problem.y_stride;
    const int64_t row_blocks = std::max<int64_t>(1, search.L * search.row_tiles());
    int64_t splits =
        std::min({kBlocksWanted / searches / row_blocks, ceil_div(search.M, kLeastSplitRows), kMostSplits});
    splits = std::max({splits, ceil_div(search.M, int64_t{1} << 30), int64_t{1}});  // indices within a run are 32-bit
    search.split_rows = std::max<int64_t>(1, ceil_div(ceil_div(search.M, splits), kTileRows)) * kTileRows;
    search.splits = std::max<int64_t>(1, ceil_div(search.M, search.split_rows));
    if constexpr (std::is_same_v<T, float>) search.tiled = fits_tiles(search);
    return search;
}

template <class T>
void cut_workspace(Search<T>& search, WorkspaceCutter& cutter) {
    if constexpr (std::is_same_v<T, float>) {
        if (search.tiled) return cut_tiles(search, cutter);
    }
    if (search.splits == 1) return;
    const int64_t entries = search.L * search.N * search.splits * search.K;
    search.run_keys = cutter.take<typename KeyOf<T>::Type>(entries);
    search.run_indices = cutter.take<int64_t>(entries);
}

// Searches of one way; a search without rows stands for none.
template <class T>
fh_status run_runs(const Search<T>& first, const Search<T>& second, void* stream) {
    const int64_t tasks = first.tasks() + second.tasks();
    const LaunchShape shape = {"nearest_kernel", tasks, kTileThreads, SearchStage<T>::bytes(first.K), stream};
    FH_RETURN_IF_ERROR(first.p == 1 ? launch(shape, nearest_kernel<1, T>, first, second)
                                    : launch(shape, nearest_kernel<2, T>, first, second));
    int64_t rows = 0;
    for (const Search<T>& search : {first, second}) rows += search.splits > 1 ? search.L * search.N : 0;
    return launch({"nearest_merge_kernel", ceil_div(rows, kMergeWarps), kMergeThreads, 0, stream},
                  nearest_merge_kernel<T>, first, second, rows);
}

template <class T>
fh_status run_searches(const Search<T>* searches, int count, void* stream) {
    Search<T> runs[2] = {}, tiles[2] = {};
    int run_count = 0, tile_count = 0;
    for (int i = 0; i < count; ++i) (searches[i].tiled ? tiles[tile_count++] : runs[run_count++]) = searches[i];
    if constexpr (std::is_same_v<T, float>) FH_RETURN_IF_ERROR(run_tiles(tiles, tile_count, stream));
    return run_count == 0 ? FH_OK : run_runs(runs[0], runs[1], stream);
}

template Search<float> plan_search<float>(const fh_nearest_problem&, int64_t);
template Search<double> plan_search<double>(const fh_nearest_problem&, int64_t);
template void cut_workspace<float>(Search<float>&, WorkspaceCutter&);
template void cut_workspace<double>(Search<double>&, WorkspaceCutter&);
template fh_status run_searches<float>(const Search<float>*, int, void*);
template fh_status run_searches<double>(const Search<double>*, int, void*);

}  // namespace fasthash

using namespace fasthash;

extern "C" {

int64_t fh_nearest_cuda_workspace(const fh_nearest_problem* problem, int64_t C) {
    return problem->dtype == FH_FLOAT64 ? nearest_workspace<double>(*problem, C)
                                        : nearest_workspace<float>(*problem, C);
}

fh_status fh_nearest_cuda(const fh_nearest_problem* problem, void* distances, int64_t* indices, void* workspace,
                          int64_t workspace_bytes, void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return nearest(*problem, static_cast<T*>(distances), indices, workspace, workspace_bytes, stream);
    });
}
}
