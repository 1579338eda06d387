// The counting pass of the CUDA Hamming search: how many codes of each unit of rows lie at each distance of each query.
#pragma once

#include "core/cuda/workspace.h"
#include "hamming/cuda/scan.cuh"
#include "hamming/hamming.h"

namespace fasthash {

using Count = unsigned long long;  // the 64-bit type of atomicAdd

// What the counts of a batch of queries may take (for range search as much as the database, between these two), and the
// rows of a unit at least. Little in the emulation, so that small problems have several batches and many units.
#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kBatchBytes = 256 << 10, kRangeBytes = 256 << 10, kLeastUnitRows = 128;
#else
constexpr int64_t kBatchBytes = 64 << 20, kRangeBytes = 1 << 30, kLeastUnitRows = 256;
#endif

// How queries are tiled and batched, and rows cut into units.
struct CountPlan {
    PlannedScan scan;  // all queries
    int64_t bins;      // distances 0 .. bins - 1 are counted
    int64_t batch;     // queries at a time
    bool shared;       // a block's counts fit shared memory
};

// The arrays of a pass over one batch.
struct CountArrays {
    Count* counts;      // [units, batch, bins]
    Count* totals;      // [batch, bins]
    int32_t* closest;   // [units, batch]: the smallest distance of a unit, or bins
    int32_t* farthest;  // [batch]: for the caller
};

// With an order, only its first stretch is counted.
CountPlan plan_counting(const fh_hamming_problem& problem, int64_t bins, const VisitOrder& order = {});
CountArrays cut_workspace(const CountPlan& plan, WorkspaceCutter& cutter);
int64_t counting_bytes(const CountPlan& plan);

// Fills counts, closest and totals (= the sums over units) for the queries that `scan`, a part of the plan's, wants;
// with keep, counts[unit, q, d] becomes the sum over the units before this one.
fh_status count_distances(const CountPlan& plan, const PlannedScan& scan, const CountArrays& arrays, bool keep,
                          Count* totals, void* stream);

inline int64_t all_bins(const fh_hamming_problem& problem) { return largest_distance(problem) + 1; }

// Runs step(scan of a batch, its first query) over all queries.
template <class Step>
fh_status for_each_batch(const CountPlan& plan, const Step& step) {
    for (int64_t first = 0; first < plan.scan.Q; first += plan.batch)
        FH_RETURN_IF_ERROR(step(part_of(plan.scan, first, std::min(plan.batch, plan.scan.Q - first)), first));
    return FH_OK;
}

}  // namespace fasthash
