// The counting pass: see count.h.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/count.h"
#include "hamming/cuda/product_tile.cuh"

namespace fasthash {
namespace {

constexpr int64_t kSharedCounts = 66 << 10;  // shared memory for the counts of a block: 3 blocks on an SM of sm_90
constexpr int64_t kUnitsInAll = 16384;  // units x tiles of a pass: some warps for each scheduler of the largest GPUs
// Range search goes back to the units that hold results: of many units, whatever the number of queries, those are few.
// Up to so many, while a unit's counts cost little beside its rows (32 bytes of traffic a bin, some POPC a row).
constexpr int64_t kRangeUnits = 8192, kRangeRowsOfBin = 300;

// counts[unit, q, d] = eligible codes of the unit at distance d < bins; closest[unit, q] = the smallest such d, or
// bins. A warp counts its unit's distances for a tile of queries in shared memory, or, where kShared is false because
// bins are too many for that, in its own cells of `counts`. One atomic on shared memory a pair.
template <class Tile, bool kShared>
__global__ void __launch_bounds__(kScanThreads)
    hamming_count_kernel(typename Tile::ScanType scan, int64_t bins, int64_t tile_words,
                         Count* __restrict__ counts,       // [units, Q, bins]
                         int32_t* __restrict__ closest) {  // [units, Q]
    uint32_t* shared = dynamic_shared_memory<uint32_t>();
    uint32_t* tile_counts = shared + tile_words + warp_index() * scan.tile * bins;  // this warp's [tile, bins]
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int tile = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    if (!scan.wants_any(q0, tile)) return;
    const int bins_here = static_cast<int>(bins);
    const Tile queries(scan, q0, tile, shared, [&](int) { return bins_here; });
    __syncthreads();
    const int64_t unit = blockIdx.x / scan.tiles() * kScanWarps + warp_index();
    if (unit >= scan.units) return;

    Count* cells = counts + (unit * scan.Q + q0) * bins;  // [tile, bins]
    for (int64_t i = lane_index(); i < tile * bins; i += kWarpSize) {
        if (kShared)
            tile_counts[i] = 0;
        else
            cells[i] = 0;
    }
    __syncwarp();
    const int64_t begin = scan.first_row(unit), end = min(begin + scan.unit_rows, scan.N);
    queries.visit_nearer(scan, begin, end, [&](int q, int64_t, int distance) {
        if (kShared)
            atomicAdd(&tile_counts[q * bins_here + distance], 1u);  // at most 66 KiB of counts
        else
            atomicAdd(&cells[q * bins + distance], Count(1));
    });
    __syncwarp();
    for (int q = 0; q < tile; ++q) {
        int64_t smallest = bins;
        for (int64_t d = lane_index(); d < bins; d += kWarpSize) {
            const Count count = kShared ? tile_counts[q * bins + d] : cells[q * bins + d];
            if (kShared) cells[q * bins + d] = count;
            if (count != 0 && d < smallest) smallest = d;
        }
        smallest = warp_min(smallest);
        if (lane_index() == 0) closest[unit * scan.Q + q0 + q] = static_cast<int32_t>(smallest);
    }
}

constexpr int kLeastPrefixColumns = 8;  // columns of a block, at least: 64-byte pieces of each row
constexpr int kLeastPrefixThreads = 256;
constexpr int kMostPrefixThreads = 1024;

struct PrefixSums {
    Count sum[kMostPrefixThreads];  // [segments, block_columns]
};

// totals[c] = sum over units of counts[unit, c]; with keep, counts[unit, c] becomes the sum over the units before it;
// c = q bins + d, of the queries that the scan wants. A block takes block_columns columns; its threads cut the units
// into segments, which are summed side by side.
__global__ void __launch_bounds__(kMostPrefixThreads)
    hamming_prefix_kernel(Scan scan, int64_t bins,
                          Count* __restrict__ counts,  // [units, columns]
                          int block_columns, bool keep,
                          Count* __restrict__ totals) {  // [columns]
    auto& shared = shared_memory<PrefixSums>();
    const int64_t units = scan.units, columns = scan.Q * bins;
    const int segments = static_cast<int>(blockDim.x) / block_columns, t = static_cast<int>(threadIdx.x);
    const int64_t length = (units + segments - 1) / segments;
    const int64_t begin = min(t / block_columns * length, units), end = min(begin + length, units);

    const int64_t c = static_cast<int64_t>(blockIdx.x) * block_columns + t % block_columns;
    const bool wanted = c < columns && scan.wants(c / bins);
    Count sum = 0;
    if (wanted) {
#pragma unroll 8
        for (int64_t unit = begin; unit < end; ++unit) sum += counts[unit * columns + c];
    }
    shared.sum[t] = sum;
    __syncthreads();
    if (t < block_columns) {
        Count before = 0;
        for (int s = 0; s < segments; ++s) {
            const Count own = shared.sum[s * block_columns + t];
            shared.sum[s * block_columns + t] = before;
            before += own;
        }
        if (wanted) totals[c] = before;
    }
    __syncthreads();
    if (keep && wanted) {
        Count before = shared.sum[t];
#pragma unroll 8
        for (int64_t unit = begin; unit < end; ++unit) {
            const Count own = counts[unit * columns + c];
            counts[unit * columns + c] = before;
            before += own;
        }
    }
}

int64_t shared_counts_bytes(int64_t tile, int64_t bins) { return kScanWarps * tile * bins * int64_t{sizeof(uint32_t)}; }

}  // namespace

CountPlan plan_counting(const fh_hamming_problem& p, int64_t bins, const VisitOrder& order) {
    int32_t tile = 32;
    while (tile > 1 && shared_counts_bytes(tile, bins) > kSharedCounts) tile /= 2;
    const bool shared = shared_counts_bytes(tile, bins) <= kSharedCounts;
    if (!shared) tile = 2;
    while (tile > 1 && tile / 2 >= p.Q) tile /= 2;

    const bool range = bins < all_bins(p);  // a second batch would be counted twice
    const int64_t most_bytes = range ? std::min(std::max(p.N * p.W, kBatchBytes), kRangeBytes) : kBatchBytes;
    const int64_t tile_bytes = tile * bins * int64_t{sizeof(Count)};  // of the counts of a unit
    const int64_t tiles = ceil_div(std::max<int64_t>(p.Q, 1), tile);
    int64_t units = std::max<int64_t>(1, kUnitsInAll / tiles);
    if (range)
        units =
            std::max(units, std::min({kRangeUnits, p.N / (kRangeRowsOfBin * bins), most_bytes / (tiles * tile_bytes)}));
    units = std::max<int64_t>(1, std::min(units, most_bytes / tile_bytes));
    units = std::max(units, ceil_div(p.N, int64_t{1} << 31));  // a unit's counts are 32-bit
    const bool sample = order.levels > 0;
    const int64_t unit_rows = sample ? kGroupRows : std::max(kLeastUnitRows, ceil_div(ceil_div(p.N, units), 128) * 128);

    PlannedScan scan = make_scan(p, tile, unit_rows);
    scan.order = order;
    if (sample) scan.units = order.cells(p.N, order.levels);
    const int64_t batch = std::max<int64_t>(1, most_bytes / (std::max<int64_t>(scan.units, 1) * tile_bytes)) * tile;
    return {scan, bins, std::min(p.Q, batch), shared};
}

CountArrays cut_workspace(const CountPlan& plan, WorkspaceCutter& cutter) {
    CountArrays arrays;
    arrays.counts = cutter.take<Count>(plan.scan.units * plan.batch * plan.bins);
    arrays.totals = cutter.take<Count>(plan.batch * plan.bins);
    arrays.closest = cutter.take<int32_t>(plan.scan.units * plan.batch);
    arrays.farthest = cutter.take<int32_t>(plan.batch);
    return arrays;
}

int64_t counting_bytes(const CountPlan& plan) {
    WorkspaceCutter cutter;
    cut_workspace(plan, cutter);
    return cutter.bytes();
}

fh_status count_distances(const CountPlan& plan, const PlannedScan& scan, const CountArrays& arrays, bool keep,
                          Count* totals, void* stream) {
    const size_t counts_bytes = plan.shared ? static_cast<size_t>(shared_counts_bytes(scan.tile, plan.bins)) : 0;
    const auto count = [&](auto type) {
        using Tile = typename decltype(type)::Type;
        const size_t tile_bytes = Tile::bytes(scan);
        const LaunchShape shape = {"hamming_count_kernel", scan.blocks(), kScanThreads, tile_bytes + counts_bytes,
                                   stream};
        const auto kernel = plan.shared ? hamming_count_kernel<Tile, true> : hamming_count_kernel<Tile, false>;
        return launch(shape, kernel, scan, plan.bins, static_cast<int64_t>(tile_bytes / 4), arrays.counts,
                      arrays.closest);
    };
    if (plan.bins <= scan.largest) {  // only some pairs count
        FH_RETURN_IF_ERROR(with_tile(scan, count));
    } else {
        FH_RETURN_IF_ERROR(
            with_width(scan, [&](auto width) { return count(TileType<CountedTile<decltype(width)>>()); }));
    }
    const int64_t columns = scan.Q * plan.bins;
    // Many units: many short segments, so that a few columns still make enough threads.
    int threads = kLeastPrefixThreads, block_columns = kLeastPrefixThreads;
    while (block_columns > kLeastPrefixColumns && scan.units > 16 * (threads / block_columns)) block_columns /= 2;
    while (threads < kMostPrefixThreads && scan.units > 64 * (threads / block_columns)) threads *= 2;
    const LaunchShape shape = {"hamming_prefix_kernel", ceil_div(columns, block_columns), threads, 0, stream};
    return launch(shape, hamming_prefix_kernel, scan, plan.bins, arrays.counts, block_columns, keep, totals);
}

}  // namespace fasthash
