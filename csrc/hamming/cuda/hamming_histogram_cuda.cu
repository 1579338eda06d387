// All Hamming distances, and histograms of them, on CUDA: see hamming.h for the contract.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/count.h"
#include "hamming/hamming.h"

namespace fasthash {
namespace {

template <class Width>
__global__ void __launch_bounds__(kScanThreads)
    hamming_distances_kernel(ScanOf<Width> scan, int32_t* __restrict__ out) {  // [Q, N]
    uint32_t* staged = dynamic_shared_memory<uint32_t>();
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int tile = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));

    stage_queries<Width>(scan, q0, tile, staged);
    __syncthreads();
    const int64_t begin = (blockIdx.x / scan.tiles() * kScanWarps + warp_index()) * scan.unit_rows;
    const int64_t end = min(begin + scan.unit_rows, scan.N);
    scan_rows<Width>(
        scan, begin, end, q0, staged, tile, [](int i) { return i; },
        [&](int q, int64_t n, bool live, int distance) {
            if (live) out[(q0 + q) * scan.N + n] = distance;
        });
}

// counts[q, d, c] += codes of class c at distance d; of weighted codes at first + d, for d < bins. Integers, so that
// the order of the atomics does not show.
template <class Width>
__global__ void __launch_bounds__(kScanThreads)
    hamming_class_count_kernel(ScanOf<Width> scan, int64_t bins,
                               const int64_t* __restrict__ labels,     // [N]
                               int64_t C, Count* __restrict__ counts,  // [Q, bins, C]
                               int64_t first) {
    uint32_t* staged = dynamic_shared_memory<uint32_t>();
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int tile = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    stage_queries<Width>(scan, q0, tile, staged);
    __syncthreads();
    const int64_t begin = (blockIdx.x / scan.tiles() * kScanWarps + warp_index()) * scan.unit_rows;
    const int64_t end = min(begin + scan.unit_rows, scan.N);
    scan_rows<Width>(
        scan, begin, end, q0, staged, tile, [](int i) { return i; },
        [&](int q, int64_t n, bool live, int distance) {
            int64_t d = distance;
            if constexpr (Width::kWeighted) {
                d -= first;
                live = live && d >= 0 && d < bins;
            }
            if (live) atomicAdd(&counts[((q0 + q) * bins + d) * C + labels[n]], Count(1));
        });
}

// One warp for each (q, d): the number of codes, and the sum of weight x count over the classes that occur, in a fixed
// order.
__global__ void __launch_bounds__(kScanThreads)
    hamming_class_sum_kernel(const Count* __restrict__ class_counts,    // [Q, bins, C]
                             const double* __restrict__ class_weights,  // [Q, C]
                             int64_t Q, int64_t bins, int64_t C,
                             int64_t* __restrict__ counts,  // [Q, bins]
                             double* __restrict__ sums) {
    const int64_t row = grid_warp();
    if (row >= Q * bins) return;
    const double* weights = class_weights + row / bins * C;
    Count count = 0;
    double sum = 0;
    for (int64_t c = lane_index(); c < C; c += kWarpSize) {
        const Count own = class_counts[row * C + c];
        count += own;
        if (own != 0) sum += weights[c] * static_cast<double>(own);  // an infinite weight of an absent class stays out
    }
    count = warp_sum(count);
    sum = warp_sum(sum);
    if (lane_index() == 0) {
        counts[row] = static_cast<int64_t>(count);
        sums[row] = sum;
    }
}

constexpr int32_t kPlainTile = 32;       // queries of a tile where nothing is counted in shared memory
constexpr int64_t kPlainUnitRows = 256;  // rows of a warp there

// How the counts of each class and distance are cut: `batch` queries and `bins` distances at a time.
struct ClassPlan {
    int64_t batch, bins;

    ClassPlan(const fh_hamming_problem& p, int64_t C) {
        const int64_t most = kBatchBytes / (std::max<int64_t>(C, 1) * int64_t{sizeof(Count)});
        // All distances, or, for one query at a time, as many as fit: never fewer than undivided codes of this width
        // have.
        bins = std::min(all_bins(p), std::max(most, 8 * p.W + 1));
        batch = std::min(p.Q, std::max<int64_t>(1, most / bins));
    }
    int64_t bytes(int64_t C) const { return batch * bins * C * int64_t{sizeof(Count)}; }
};

fh_status class_histogram(const fh_hamming_problem& p, const int64_t* labels, const double* class_weights, int64_t C,
                          int64_t* counts, double* sums, void* workspace, void* stream) {
    const ClassPlan plan(p, C);
    const int64_t columns = all_bins(p);
    const PlannedScan all = make_scan(p, kPlainTile, kPlainUnitRows);
    Count* class_counts = static_cast<Count*>(workspace);
    const auto count_part = [&](const PlannedScan& scan, int64_t first_query, int64_t first_bin) {
        const int64_t bins = std::min(plan.bins, columns - first_bin), out = first_query * columns + first_bin;
        const size_t bytes = static_cast<size_t>(scan.Q * bins * C) * sizeof(Count);
        FH_RETURN_IF_ERROR(
            cuda_status(cudaMemsetAsync(class_counts, 0, bytes, static_cast<cudaStream_t>(stream)), "cudaMemsetAsync"));
        FH_RETURN_IF_ERROR(with_width(scan, [&](auto width) {
            using Width = decltype(width);
            return launch(
                {"hamming_class_count_kernel", scan.blocks(), kScanThreads, query_bytes(scan, Width::kWords), stream},
                hamming_class_count_kernel<Width>, scan, bins, labels, C, class_counts, first_bin);
        }));
        return launch({"hamming_class_sum_kernel", ceil_div(scan.Q * bins, kScanWarps), kScanThreads, 0, stream},
                      hamming_class_sum_kernel, class_counts, class_weights + first_query * C, scan.Q, bins, C,
                      counts + out, sums + out);
    };
    for (int64_t query = 0; query < p.Q; query += plan.batch) {
        const PlannedScan scan = part_of(all, query, std::min(plan.batch, p.Q - query));
        for (int64_t bin = 0; bin < columns; bin += plan.bins) FH_RETURN_IF_ERROR(count_part(scan, query, bin));
    }
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

fh_status fh_hamming_distances_cuda(const fh_hamming_problem* problem, int32_t* distances, void* stream) {
    FH_RETURN_IF_ERROR(check_groups(*problem));
    fh_hamming_problem all = *problem;
    all.mask = nullptr;
    if (all.Q == 0) return FH_OK;
    const PlannedScan scan = make_scan(all, kPlainTile, kPlainUnitRows);
    return with_width(scan, [&](auto width) {
        using Width = decltype(width);
        return launch(
            {"hamming_distances_kernel", scan.blocks(), kScanThreads, query_bytes(scan, Width::kWords), stream},
            hamming_distances_kernel<Width>, scan, distances);
    });
}

int64_t fh_hamming_histogram_cuda_workspace(const fh_hamming_problem* problem, int64_t C) {
    return std::max(counting_bytes(plan_counting(*problem, all_bins(*problem))), ClassPlan(*problem, C).bytes(C));
}

fh_status fh_hamming_histogram_cuda(const fh_hamming_problem* problem, const int64_t* labels,
                                    const double* class_weights, int64_t C, int64_t* counts, double* sums,
                                    void* workspace, int64_t workspace_bytes, void* stream) {
    FH_RETURN_IF_ERROR(check_groups(*problem));
    if (problem->mask != nullptr) return fail(FH_INVALID, "fh_hamming_histogram_cuda: the mask must be null");
    FH_RETURN_IF_ERROR(require_workspace("fh_hamming_histogram_cuda", fh_hamming_histogram_cuda_workspace(problem, C),
                                         workspace_bytes));
    if (sums != nullptr) return class_histogram(*problem, labels, class_weights, C, counts, sums, workspace, stream);
    const CountPlan plan = plan_counting(*problem, all_bins(*problem));
    WorkspaceCutter cutter(workspace);
    const CountArrays arrays = cut_workspace(plan, cutter);
    return for_each_batch(plan, [&](const PlannedScan& scan, int64_t first) {
        return count_distances(plan, scan, arrays, false, reinterpret_cast<Count*>(counts + first * plan.bins), stream);
    });
}
}
