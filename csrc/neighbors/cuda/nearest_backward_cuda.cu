// Gradients through chosen neighbours on CUDA: see nearest.h for the contract.
//
// A neighbour's side gathers instead of scattering: the terms are sorted by the neighbour that they chose (keys are
// unique, so the order is one), and one warp adds a row's terms in that order. No atomics, O((N + M) D) work.
#include "core/cuda/cuda_check.h"
#include "core/cuda/distance_tile.cuh"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "neighbors/cuda/backward.cuh"

namespace fasthash {
namespace {

using Key = unsigned long long;

constexpr Key kNoKey = ~Key(0);
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kSortKeys = 4096;  // sorted in shared memory by one block
constexpr int kSortThreads = 512;
constexpr int kColumnsPerLane = 4;  // columns that a lane adds in one walk over a row's terms

// Terms.

// a / b as a T, and where a is finite at most the largest T / 2^32, as on the CPU (nearest_search.h).
template <class T>
__device__ __forceinline__ T bounded_quotient(double a, double b) {
    constexpr double kMax = (sizeof(T) == 4 ? 3.4028234663852886e38 : 1.7976931348623157e308) / 4294967296.0;
    const double quotient = a / b;
    if (fabs(quotient) <= kMax || !is_finite(a)) return static_cast<T>(quotient);
    return static_cast<T>(quotient > 0 ? kMax : -kMax);
}

// One thread for each term (choice, l, n, c): its coefficient, and its key in the inverse map.
template <class T>
__global__ void __launch_bounds__(kThreads) nearest_terms_kernel(Backward<T> backward, int64_t terms) {
    const int64_t i = grid_thread();
    if (i >= terms * backward.choices) return;
    const Chosen<T>& chosen = backward.chosen[i / terms];
    const int64_t term = i % terms, terms_of_batch = backward.N * chosen.C;
    const int64_t l = term / terms_of_batch;
    const T distance = chosen.distances[term];
    const bool counts = is_finite(distance) && distance != 0;
    T weight = 0;
    if (chosen.weights != nullptr) {
        weight = chosen.weights[term];
    } else if (counts) {
        const double scale = chosen.sign * static_cast<double>(chosen.grad_loss[l]) / static_cast<double>(backward.N);
        weight = bounded_quotient<T>(scale, static_cast<double>(distance) + chosen.eps);
    }
    chosen.coefficients[term] = !counts ? T(0) : backward.p == 1 ? weight : bounded_quotient<T>(weight, distance);
    if (chosen.mapped) {
        const int64_t segment = chosen.first_segment + l * chosen.M + chosen.indices[term];
        // Mapped choices have their keys in the order of the choices.
        const int64_t place = backward.key_count > terms ? i : term;
        backward.keys[place] = counts ? static_cast<Key>(segment * terms_of_batch + term % terms_of_batch) : kNoKey;
    }
}

// Sorting.

// A bitonic network in which every comparison puts the smaller key first, so that places behind `count` act as keys of
// infinity and need not exist. One merge of runs of half `size`: compare i with its mirror image in the block of
// `size`, then elements `size` / 4, `size` / 8, ... apart.
struct SortStage {
    Key keys[kSortKeys];
};

__device__ __forceinline__ void order_pair(Key* keys, int64_t low, int64_t high, int64_t count) {
    if (high >= count) return;
    const Key a = keys[low], b = keys[high];
    if (b < a) {
        keys[low] = b;
        keys[high] = a;
    }
}

// Pair number i of a merge step with the given span: mirrored about the middle of blocks of 2 span, or span apart.
__device__ __forceinline__ void order_step(Key* keys, int64_t i, int64_t span, bool mirrored, int64_t count) {
    const int64_t block = i / span * 2 * span, offset = i % span;
    order_pair(keys, block + offset, mirrored ? block + 2 * span - 1 - offset : block + span + offset, count);
}

// One block, 4,096 keys in shared memory. From runs of one key (whole) or from the merge step of span 2,048 on.
__global__ void __launch_bounds__(kSortThreads)
    nearest_sort_block_kernel(Key* __restrict__ keys, int64_t count, bool whole) {
    auto& stage = shared_memory<SortStage>();
    const int64_t first = static_cast<int64_t>(blockIdx.x) * kSortKeys;
    const int here = static_cast<int>(min(static_cast<int64_t>(kSortKeys), count - first));
    for (int i = static_cast<int>(threadIdx.x); i < here; i += kSortThreads) stage.keys[i] = keys[first + i];
    __syncthreads();
    for (int top = whole ? 1 : kSortKeys / 2; top < kSortKeys && (!whole || top < here); top *= 2) {
        for (int span = top; span > 0; span /= 2) {
            for (int i = static_cast<int>(threadIdx.x); i < kSortKeys / 2 && i / span * 2 * span < here;
                 i += kSortThreads)
                order_step(stage.keys, i, span, whole && span == top, here);
            __syncthreads();
        }
    }
    for (int i = static_cast<int>(threadIdx.x); i < here; i += kSortThreads) keys[first + i] = stage.keys[i];
}

// One merge step whose span is at least a block's keys, in global memory: 32 bytes read and written a pair.
__global__ void __launch_bounds__(kThreads)
    nearest_sort_step_kernel(Key* __restrict__ keys, int64_t count, int64_t pairs, int64_t span, bool mirrored) {
    if (grid_thread() < pairs) order_step(keys, grid_thread(), span, mirrored, count);
}

fh_status sort_keys(Key* keys, int64_t count, void* stream) {
    if (count == 0) return FH_OK;
    const LaunchShape blocks = {"nearest_sort_block_kernel", ceil_div(count, kSortKeys), kSortThreads, 0, stream};
    FH_RETURN_IF_ERROR(launch(blocks, nearest_sort_block_kernel, keys, count, true));
    for (int64_t top = kSortKeys; top < count; top *= 2) {
        const int64_t pairs = ceil_div(count, 2 * top) * top;
        const LaunchShape steps = {"nearest_sort_step_kernel", ceil_div(pairs, kThreads), kThreads, 0, stream};
        for (int64_t span = top; span >= kSortKeys; span /= 2)
            FH_RETURN_IF_ERROR(launch(steps, nearest_sort_step_kernel, keys, count, pairs, span, span == top));
        FH_RETURN_IF_ERROR(launch(blocks, nearest_sort_block_kernel, keys, count, false));
    }
    return FH_OK;
}

// Gathering.

template <int P, class T>
__device__ __forceinline__ T direction(T from, T to) {
    const T difference = from - to;
    if (P == 2) return difference;
    return difference > 0 ? T(1) : difference < 0 ? T(-1) : difference;
}

// The first place in the sorted keys with a key >= wanted.
__device__ __forceinline__ int64_t lower_bound(const Key* keys, int64_t count, Key wanted) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (keys[middle] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// What one lane holds of a row: the columns lane, lane + 32, ... from d0 on.
template <class T>
struct RowPart {
    T value[kColumnsPerLane];
    static __device__ __forceinline__ int64_t column(int64_t d0, int i) { return d0 + lane_index() + i * kWarpSize; }
    __device__ __forceinline__ void load(const T* row, int64_t d0, int64_t D) {
#pragma unroll
        for (int i = 0; i < kColumnsPerLane; ++i) value[i] = column(d0, i) < D ? row[column(d0, i)] : T(0);
    }
};

// sum += coefficient direction(own, row) for this lane's columns.
template <int P, class T>
__device__ __forceinline__ void add_term(T coefficient, const RowPart<T>& own, const T* row, int64_t d0, int64_t D,
                                         RowPart<T>& sum) {
    RowPart<T> other;
    other.load(row, d0, D);
#pragma unroll
    for (int i = 0; i < kColumnsPerLane; ++i)
        sum.value[i] = multiply_add(coefficient, direction<P>(own.value[i], other.value[i]), sum.value[i]);
}

// Adds what the terms that chose the candidate `own` (number m of batch l) send to it, in ascending order of the terms.
template <int P, class T>
__device__ __forceinline__ void add_incoming(const Backward<T>& backward, const Chosen<T>& chosen, int64_t l, int64_t m,
                                             const RowPart<T>& own, int64_t d0, RowPart<T>& sum) {
    const int64_t terms_of_batch = backward.N * chosen.C;
    const Key begin = static_cast<Key>((chosen.first_segment + l * chosen.M + m) * terms_of_batch);
    const Key end = begin + static_cast<Key>(terms_of_batch);
    for (int64_t i = lower_bound(backward.keys, backward.key_count, begin); i < backward.key_count; ++i) {
        const Key key = backward.keys[i];
        if (key >= end) break;
        const int64_t term = l * terms_of_batch + static_cast<int64_t>(key - begin);
        add_term<P>(chosen.coefficients[term], own, backward.x + term / chosen.C * backward.D, d0, backward.D, sum);
    }
}

// One warp for each row of grad_x, then of grad_y. Reads the row, its neighbours and the rows that chose it.
template <int P, class T>
__global__ void __launch_bounds__(kThreads) nearest_gather_kernel(Backward<T> backward, int64_t rows) {
    const int64_t own_rows = backward.L * backward.N, D = backward.D;
    const int64_t r = grid_warp();
    if (r >= rows) return;
    const bool is_candidate = r >= own_rows;
    const Chosen<T>& cross = backward.chosen[0];
    const int64_t per_batch = is_candidate ? cross.M : backward.N;
    const int64_t row = is_candidate ? r - own_rows : r, l = row / per_batch, m = row % per_batch;
    const T* point = is_candidate ? cross.y + l * cross.y_stride + m * D : backward.x + row * D;
    T* out = (is_candidate ? backward.grad_y : backward.grad_x) + row * D;

    bool bad = false;
    if (is_candidate && backward.mark_bad_targets) {
        for (int64_t d = lane_index(); d < D; d += kWarpSize) bad = bad || !is_finite(point[d]);
        bad = __any_sync(kAllLanes, bad);
    }
    for (int64_t d0 = 0; d0 < D; d0 += kColumnsPerLane * kWarpSize) {
        RowPart<T> own, sum = {};
        own.load(point, d0, D);
        for (int s = 0; s < backward.choices; ++s) {
            const Chosen<T>& chosen = backward.chosen[s];
            if (is_candidate) {
                if (!chosen.self) add_incoming<P>(backward, chosen, l, m, own, d0, sum);
                continue;
            }
            for (int64_t c = 0; c < chosen.C; ++c) {
                const int64_t term = row * chosen.C + c;
                const T coefficient = chosen.coefficients[term];
                if (!is_finite(chosen.distances[term]))
                    bad = true;
                else if (chosen.distances[term] != 0)
                    add_term<P>(coefficient, own, chosen.y + l * chosen.y_stride + chosen.indices[term] * D, d0, D,
                                sum);
            }
            if (chosen.self) add_incoming<P>(backward, chosen, l, m, own, d0, sum);
        }
#pragma unroll
        for (int i = 0; i < kColumnsPerLane; ++i)
            if (own.column(d0, i) < D) out[own.column(d0, i)] = bad ? static_cast<T>(NAN) : sum.value[i];
    }
}

template <class T>
fh_status nearest_backward(const fh_nearest_problem& problem, const T* weights, const T* distances,
                           const int64_t* indices, int64_t C, T* grad_x, T* grad_y, void* workspace,
                           int64_t workspace_bytes, void* stream) {
    const bool self = problem.y == nullptr;
    Backward<T> backward = {};
    backward.x = static_cast<const T*>(problem.x);
    backward.L = problem.L;
    backward.N = problem.N;
    backward.D = problem.D;
    backward.choices = 1;
    backward.p = problem.p;
    backward.grad_x = grad_x;
    backward.grad_y = self ? nullptr : grad_y;
    Chosen<T>& chosen = backward.chosen[0];
    chosen.y = self ? backward.x : static_cast<const T*>(problem.y);
    chosen.M = self ? problem.N : problem.M;
    chosen.y_stride = self ? problem.N * problem.D : problem.y_stride;
    chosen.self = self;
    chosen.C = C;
    chosen.weights = weights;
    chosen.distances = distances;
    chosen.indices = indices;
    WorkspaceCutter cutter(workspace);
    cut_workspace(backward, cutter);
    FH_RETURN_IF_ERROR(require_workspace("fh_nearest_backward_cuda", cutter.bytes(), workspace_bytes));
    return run_backward(backward, stream);
}

}  // namespace

template <class T>
void cut_workspace(Backward<T>& backward, WorkspaceCutter& cutter) {
    int64_t segments = 0;
    backward.key_count = 0;
    for (int s = 0; s < backward.choices; ++s) {
        Chosen<T>& chosen = backward.chosen[s];
        const int64_t terms = backward.L * backward.N * chosen.C;
        chosen.coefficients = cutter.take<T>(terms);
        chosen.mapped = chosen.self || backward.grad_y != nullptr;
        chosen.first_segment = segments;
        segments += backward.L * chosen.M;
        backward.key_count += chosen.mapped ? terms : 0;
    }
    backward.keys = cutter.take<Key>(backward.key_count);
}

template <class T>
fh_status run_backward(const Backward<T>& backward, void* stream) {
    const Chosen<T>& cross = backward.chosen[0];
    const int64_t terms = backward.L * backward.N * cross.C;
    const int64_t term_blocks = ceil_div(terms * backward.choices, kThreads);
    FH_RETURN_IF_ERROR(
        launch({"nearest_terms_kernel", term_blocks, kThreads, 0, stream}, nearest_terms_kernel<T>, backward, terms));
    FH_RETURN_IF_ERROR(sort_keys(backward.keys, backward.key_count, stream));
    const int64_t rows = backward.L * backward.N + (backward.grad_y != nullptr ? backward.L * cross.M : 0);
    const LaunchShape shape = {"nearest_gather_kernel", ceil_div(rows, kWarps), kThreads, 0, stream};
    return backward.p == 1 ? launch(shape, nearest_gather_kernel<1, T>, backward, rows)
                           : launch(shape, nearest_gather_kernel<2, T>, backward, rows);
}

template void cut_workspace<float>(Backward<float>&, WorkspaceCutter&);
template void cut_workspace<double>(Backward<double>&, WorkspaceCutter&);
template fh_status run_backward<float>(const Backward<float>&, void*);
template fh_status run_backward<double>(const Backward<double>&, void*);

}  // namespace fasthash

using namespace fasthash;

extern "C" {

fh_status fh_nearest_backward_cuda(const fh_nearest_problem* problem, const void* weights, const void* distances,
                                   const int64_t* indices, int64_t C, void* grad_x, void* grad_y, void* workspace,
                                   int64_t workspace_bytes, void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return nearest_backward(*problem, static_cast<const T*>(weights), static_cast<const T*>(distances), indices, C,
                                static_cast<T*>(grad_x), static_cast<T*>(grad_y), workspace, workspace_bytes, stream);
    });
}
}
