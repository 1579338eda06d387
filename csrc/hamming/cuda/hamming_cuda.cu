// Top-k and range search on CUDA: see hamming.h for the contract, scan.cuh for the pass that all kernels share. Top-k
// of few among many takes one pass (one_pass.h); what follows is the rest.
//
// Both are a stable counting sort. A first pass counts, for each unit of rows and each query, the codes at each
// distance; prefix sums over the units and the distances turn the counts into the place of each unit's first code in
// the final order (distance, position); a second pass writes each code that belongs to the answer straight to its
// place. Units without such a code, most of them for small k, are skipped. Only integers are added, and a cell belongs
// to one warp, so nothing depends on the order in which threads run. Queries go in batches whose counts fit the
// workspace.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/count.h"
#include "hamming/cuda/one_pass.h"
#include "hamming/hamming.h"

namespace fasthash {
namespace {

// Where the codes of one batch of queries go.
struct Places {
    const Count* before;      // [Q, bins]: codes nearer than distance d
    const int32_t* farthest;  // [Q]: the largest distance of the answer
    const int64_t* offsets;   // first place of query q, or null: q limit
    int64_t limit;            // places of a query
    int32_t* distances;
    int64_t* ids;
};

struct WarpSums {
    Count sum[kScanWarps];
};

// One block for each query that is wanted: before[d] = sum of totals below d (in place), farthest = the distance of the
// K-th code, or the last bin; places that no code takes get distance `missing` and id -1. For range search K is huge
// and distances null.
__global__ void __launch_bounds__(kScanThreads)
    hamming_rank_kernel(Scan scan,
                        Count* __restrict__ totals,  // [Q, bins]
                        int64_t bins, int64_t K, int32_t* __restrict__ farthest, int32_t missing,
                        int32_t* __restrict__ distances,  // [Q, K]
                        int64_t* __restrict__ ids) {
    auto& warps = shared_memory<WarpSums>();
    const int64_t q = blockIdx.x;
    if (!scan.wants(q)) return;
    const Count limit = static_cast<Count>(K);
    Count* row = totals + q * bins;
    Count running = 0;
    for (int64_t d0 = 0; d0 < bins; d0 += kScanThreads) {
        const int64_t d = d0 + threadIdx.x;
        const Count own = d < bins ? row[d] : 0;
        const Count inclusive = warp_inclusive_sum(own);
        if (lane_index() == kWarpSize - 1) warps.sum[warp_index()] = inclusive;
        __syncthreads();
        Count before = running + inclusive - own;
        for (int w = 0; w < kScanWarps; ++w) {
            if (w < warp_index()) before += warps.sum[w];
            running += warps.sum[w];
        }
        if (d < bins) row[d] = before;
        if (before < limit && before + own >= limit) farthest[q] = static_cast<int32_t>(d);
        __syncthreads();
    }
    if (running < limit && threadIdx.x == 0) farthest[q] = static_cast<int32_t>(bins - 1);
    if (distances == nullptr) return;
    for (int64_t place = static_cast<int64_t>(running) + threadIdx.x; place < K; place += kScanThreads) {
        distances[q * K + place] = missing;
        ids[q * K + place] = -1;
    }
}

// The second pass. A warp takes its unit's queries that have an answer there; a code's place is the number of nearer
// codes, plus those at its distance in earlier units, earlier in this unit, and in lower lanes.
template <class Width>
__global__ void __launch_bounds__(kScanThreads) hamming_emit_kernel(ScanOf<Width> scan, int64_t bins,
                                                                    Count* __restrict__ counts,  // [units, Q, bins]
                                                                    const int32_t* __restrict__ closest,  // [units, Q]
                                                                    Places places) {
    uint32_t* staged = dynamic_shared_memory<uint32_t>();
    int32_t* radius =
        reinterpret_cast<int32_t*>(staged + scan.tile * Width::kWords) + warp_index() * 2 * scan.tile;  // [tile]
    int32_t* wanted = radius + scan.tile;                                                               // [tile]
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int tile = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    if (!scan.wants_any(q0, tile)) return;
    stage_queries<Width>(scan, q0, tile, staged);
    __syncthreads();
    const int64_t unit = blockIdx.x / scan.tiles() * kScanWarps + warp_index();
    if (unit >= scan.units) return;

    Count* cells = counts + (unit * scan.Q + q0) * bins;  // [tile, bins]: codes at this distance in earlier units
    const Count* before = places.before + q0 * bins;      // [tile, bins]
    const Count limit = static_cast<Count>(places.limit);
    int active = 0;
    for (int q = 0; q < tile; ++q) {
        if (!scan.wants(q0 + q)) continue;
        int r = places.farthest[q0 + q];
        if (before[q * bins + r] + cells[q * bins + r] >= limit)
            --r;  // earlier units fill the places at the last distance
        if (closest[unit * scan.Q + q0 + q] > r) continue;
        if (lane_index() == 0) {
            radius[q] = r;
            wanted[active] = q;
        }
        ++active;
    }
    __syncwarp();
    if (active == 0) return;

    const int64_t begin = scan.first_row(unit), end = min(begin + scan.unit_rows, scan.N);
    scan_rows<Width>(
        scan, begin, end, q0, staged, active, [&](int i) { return wanted[i]; },
        [&](int q, int64_t n, bool live, int distance) {
            const bool hit = live && distance <= radius[q];
            const unsigned hits = __ballot_sync(kAllLanes, hit);
            if (hits == 0) return;
            bool full = false;
            if (hit) {
                const unsigned peers = __match_any_sync(hits, distance);
                const int leader = __ffs(static_cast<int>(peers)) - 1;
                Count place = 0;
                if (lane_index() == leader)
                    place = atomicAdd(&cells[q * bins + distance], static_cast<Count>(__popc(peers)));
                place = __shfl_sync(peers, place, leader) + __popc(peers & lanes_below(lane_index())) +
                        before[q * bins + distance];
                if (place < limit) {
                    const int64_t start = places.offsets != nullptr ? places.offsets[q0 + q] : (q0 + q) * places.limit;
                    places.distances[start + static_cast<int64_t>(place)] = distance;
                    places.ids[start + static_cast<int64_t>(place)] = n;
                }
                full = place + 1 >= limit;
            }
            // The last place is taken: further codes at this distance, the largest of the answer, are too many.
            if (__any_sync(kAllLanes, full)) {
                __syncwarp();  // all have read it
                if (lane_index() == 0) radius[q] = places.farthest[q0 + q] - 1;
                __syncwarp();
            }
        });
}

// counts[q] = sum of totals[q, :].
__global__ void __launch_bounds__(kScanThreads)
    hamming_row_sum_kernel(const Count* __restrict__ totals,  // [Q, bins]
                           int64_t Q, int64_t bins, int64_t* __restrict__ counts) {
    const int64_t q = grid_warp();
    if (q >= Q) return;
    Count sum = 0;
    for (int64_t d = lane_index(); d < bins; d += kWarpSize) sum += totals[q * bins + d];
    sum = warp_sum(sum);
    if (lane_index() == 0) counts[q] = static_cast<int64_t>(sum);
}

fh_status emit(const CountPlan& plan, const PlannedScan& scan, const CountArrays& arrays, const Places& places,
               void* stream) {
    return with_width(scan, [&](auto width) {
        using Width = decltype(width);
        const size_t shared_bytes =
            query_bytes(scan, Width::kWords) + size_t{kScanWarps} * 2 * scan.tile * sizeof(int32_t);
        return launch({"hamming_emit_kernel", scan.blocks(), kScanThreads, shared_bytes, stream},
                      hamming_emit_kernel<Width>, scan, plan.bins, arrays.counts, arrays.closest, places);
    });
}

int64_t two_pass_bytes(const fh_hamming_problem& p, const VisitOrder& order = {}) {
    return counting_bytes(plan_counting(p, all_bins(p), order));
}

// The answers of all queries, or, where `only` is not null, of those that it marks, [Q]. With an order: among the rows
// of its first stretch.
fh_status two_pass_topk(const fh_hamming_problem& p, int64_t K, const VisitOrder& order, const int32_t* only,
                        int32_t* distances, int64_t* ids, void* workspace, void* stream) {
    CountPlan plan = plan_counting(p, all_bins(p), order);
    plan.scan.only = only;
    WorkspaceCutter cutter(workspace);
    const CountArrays arrays = cut_workspace(plan, cutter);
    return for_each_batch(plan, [&](const PlannedScan& scan, int64_t first) {
        int32_t* batch_distances = distances + first * K;
        int64_t* batch_ids = ids + first * K;
        FH_RETURN_IF_ERROR(count_distances(plan, scan, arrays, true, arrays.totals, stream));
        FH_RETURN_IF_ERROR(launch({"hamming_rank_kernel", scan.Q, kScanThreads, 0, stream}, hamming_rank_kernel, scan,
                                  arrays.totals, plan.bins, K, arrays.farthest, static_cast<int32_t>(plan.bins),
                                  batch_distances, batch_ids));
        const Places places = {arrays.totals, arrays.farthest, nullptr, K, batch_distances, batch_ids};
        return emit(plan, scan, arrays, places, stream);
    });
}

int64_t bins_within(const fh_hamming_problem& p, int32_t radius) {
    return std::min<int64_t>(radius, largest_distance(p)) + 1;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

int64_t fh_hamming_topk_cuda_workspace(const fh_hamming_problem* problem, int64_t K) {
    const OnePassPlan plan = plan_one_pass(*problem, K);
    if (!plan.pays()) return two_pass_bytes(*problem);
    WorkspaceCutter cutter;
    cutter.take<int32_t>(problem->Q);
    return cutter.bytes() +
           std::max({one_pass_bytes(plan), two_pass_bytes(*problem), two_pass_bytes(*problem, plan.shape.order)});
}

fh_status fh_hamming_topk_cuda(const fh_hamming_problem* problem, int64_t K, int32_t* distances, int64_t* ids,
                               void* workspace, int64_t workspace_bytes, void* stream) {
    FH_RETURN_IF_ERROR(check_groups(*problem));
    FH_RETURN_IF_ERROR(
        require_workspace("fh_hamming_topk_cuda", fh_hamming_topk_cuda_workspace(problem, K), workspace_bytes));
    const OnePassPlan plan = plan_one_pass(*problem, K);
    if (!plan.pays()) return two_pass_topk(*problem, K, {}, nullptr, distances, ids, workspace, stream);
    WorkspaceCutter cutter(workspace);
    int32_t* overflowed = cutter.take<int32_t>(problem->Q);
    void* rest = cutter.take<char>(0);  // the steps below use it one after the other
    FH_RETURN_IF_ERROR(two_pass_topk(*problem, K, plan.shape.order, nullptr, distances, ids, rest, stream));
    FH_RETURN_IF_ERROR(one_pass_topk(plan, distances, ids, overflowed, rest, stream));
    return two_pass_topk(*problem, K, {}, overflowed, distances, ids, rest, stream);
}

int64_t fh_hamming_range_cuda_workspace(const fh_hamming_problem* problem, int32_t radius) {
    return counting_bytes(plan_counting(*problem, bins_within(*problem, radius)));
}

fh_status fh_hamming_range_count_cuda(const fh_hamming_problem* problem, int32_t radius, int64_t* counts,
                                      void* workspace, int64_t workspace_bytes, void* stream) {
    FH_RETURN_IF_ERROR(check_groups(*problem));
    const CountPlan plan = plan_counting(*problem, bins_within(*problem, radius));
    FH_RETURN_IF_ERROR(require_workspace("fh_hamming_range_count_cuda", counting_bytes(plan), workspace_bytes));
    WorkspaceCutter cutter(workspace);
    const CountArrays arrays = cut_workspace(plan, cutter);
    return for_each_batch(plan, [&](const PlannedScan& scan, int64_t first) {
        FH_RETURN_IF_ERROR(count_distances(plan, scan, arrays, true, arrays.totals, stream));
        return launch({"hamming_row_sum_kernel", ceil_div(scan.Q, kScanWarps), kScanThreads, 0, stream},
                      hamming_row_sum_kernel, arrays.totals, scan.Q, plan.bins, counts + first);
    });
}

fh_status fh_hamming_range_fill_cuda(const fh_hamming_problem* problem, int32_t radius, const int64_t* offsets,
                                     int32_t* distances, int64_t* ids, void* workspace, int64_t workspace_bytes,
                                     void* stream) {
    FH_RETURN_IF_ERROR(check_groups(*problem));
    const CountPlan plan = plan_counting(*problem, bins_within(*problem, radius));
    FH_RETURN_IF_ERROR(require_workspace("fh_hamming_range_fill_cuda", counting_bytes(plan), workspace_bytes));
    WorkspaceCutter cutter(workspace);
    const CountArrays arrays = cut_workspace(plan, cutter);
    return for_each_batch(plan, [&](const PlannedScan& scan, int64_t first) {
        if (scan.Q < plan.scan.Q)  // fh_hamming_range_count_cuda has left the last batch's counts
            FH_RETURN_IF_ERROR(count_distances(plan, scan, arrays, true, arrays.totals, stream));
        FH_RETURN_IF_ERROR(launch({"hamming_rank_kernel", scan.Q, kScanThreads, 0, stream}, hamming_rank_kernel, scan,
                                  arrays.totals, plan.bins, INT64_MAX, arrays.farthest, 0, nullptr, nullptr));
        const Places places = {arrays.totals, arrays.farthest, offsets + first, INT64_MAX, distances, ids};
        return emit(plan, scan, arrays, places, stream);
    });
}
}
