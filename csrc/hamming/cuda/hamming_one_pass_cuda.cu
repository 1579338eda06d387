// Top-k in one pass: see one_pass.h.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/bit_products.cuh"
#include "hamming/cuda/one_pass.h"

namespace fasthash {
namespace {

// A candidate: its distance above its position, so that keys stand in the order (distance, position).
using Key = unsigned long long;
constexpr int kPositionBits = 47;
__host__ __device__ __forceinline__ Key make_key(int32_t distance, int64_t position) {
    return static_cast<Key>(distance) << kPositionBits | static_cast<Key>(position);
}
__device__ __forceinline__ int32_t distance_of(Key key) { return static_cast<int32_t>(key >> kPositionBits); }
__device__ __forceinline__ int64_t position_of(Key key) {
    return static_cast<int64_t>(key & ((Key(1) << kPositionBits) - 1));
}

// The candidates of one batch of queries.
struct Candidates {
    int64_t K, room;
    int32_t bins;         // the largest distance + 1: one that no code has
    Key* keys;            // [Q, room]
    Key* kept;            // [Q, room]: those within the last threshold
    Count* taken;         // [Q]: candidates; more than `room` where some found none
    Count* kept_count;    // [Q]
    unsigned* counts;     // [Q, bins]: of the candidates
    int32_t* nearer;      // [Q]: codes nearer than this become candidates
    int32_t* overflowed;  // [Q]
};

// One block for each query: its first candidates are the K nearest of the first stretch.
__global__ void __launch_bounds__(kScanThreads)
    hamming_start_kernel(Candidates c, const int32_t* __restrict__ distances,  // [Q, K]
                         const int64_t* __restrict__ ids) {
    const int64_t q = blockIdx.x;
    for (int64_t d = threadIdx.x; d < c.bins; d += kScanThreads) c.counts[q * c.bins + d] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < c.K; i += kScanThreads) {
        const int32_t distance = distances[q * c.K + i];
        const bool found = distance < c.bins;
        if (found) {
            c.keys[q * c.room + i] = make_key(distance, ids[q * c.K + i]);
            atomicAdd(&c.counts[q * c.bins + distance], 1u);
        }
        const bool next_found = found && i + 1 < c.K && distances[q * c.K + i + 1] < c.bins;
        if (found && !next_found) c.taken[q] = static_cast<Count>(i + 1);
        if (i == 0 && !found) c.taken[q] = 0;
        if (i + 1 == c.K) c.nearer[q] = distance;
    }
    if (threadIdx.x == 0) {
        c.kept_count[q] = 0;
        c.overflowed[q] = 0;
    }
}

// Not inlined: its addresses would be kept, and moved on, with every query of the loop that seldom calls it.
__device__ __noinline__ void add_candidate(const Candidates& c, int64_t q, int64_t position, int distance) {
    // Codes from far to near are all candidates: past the room they only read, as the query is lost already.
    if (*const_cast<volatile Count*>(&c.taken[q]) > static_cast<Count>(c.room)) return;
    const Count place = atomicAdd(&c.taken[q], Count(1));
    if (place >= static_cast<Count>(c.room)) return;
    c.keys[q * c.room + static_cast<int64_t>(place)] = make_key(distance, position);
    atomicAdd(&c.counts[q * c.bins + distance], 1u);
}

// A stretch of rows, from position `first` on, against a tile of queries; a warp owns a unit of it.
template <class Tile>
__global__ void __launch_bounds__(kScanThreads)
    hamming_collect_kernel(typename Tile::ScanType scan, int64_t first, const __grid_constant__ Candidates c) {
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int count = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    const Tile tile(scan, q0, count, dynamic_shared_memory<uint32_t>(), [&](int q) { return c.nearer[q0 + q]; });
    __syncthreads();
    const int64_t begin = (blockIdx.x / scan.tiles() * kScanWarps + warp_index()) * scan.unit_rows;
    const int64_t end = min(begin + scan.unit_rows, scan.N);
    tile.visit_nearer(scan, begin, end,
                      [&](int q, int64_t n, int distance) { add_candidate(c, q0 + q, first + n, distance); });
}

// One warp for each query: nearer = the distance of the K-th candidate; 0, which no code is nearer than, where
// candidates found no room.
__global__ void __launch_bounds__(kScanThreads) hamming_tighten_kernel(Candidates c, int64_t Q) {
    const int64_t q = grid_warp();
    if (q >= Q) return;
    if (c.taken[q] > static_cast<Count>(c.room)) {
        if (lane_index() == 0) {
            c.overflowed[q] = 1;
            c.nearer[q] = 0;
        }
        return;
    }
    int64_t before = 0;
    for (int32_t d0 = 0; d0 < c.bins; d0 += kWarpSize) {
        const int32_t d = d0 + lane_index();
        const int64_t own = d < c.bins ? c.counts[q * c.bins + d] : 0;
        const int64_t reached = before + warp_inclusive_sum(own);
        const unsigned enough = __ballot_sync(kAllLanes, reached >= c.K);
        if (enough != 0) {
            if (lane_index() == 0) c.nearer[q] = d0 + __ffs(static_cast<int>(enough)) - 1;
            return;
        }
        before = __shfl_sync(kAllLanes, reached, kWarpSize - 1);
    }
}

// Copies the candidates within the last threshold, in any order. `parts` blocks share a query.
__global__ void __launch_bounds__(kScanThreads) hamming_keep_kernel(Candidates c, int64_t parts) {
    const int64_t q = blockIdx.x / parts;
    if (c.overflowed[q] != 0) return;
    const int64_t count = static_cast<int64_t>(c.taken[q]);
    const Key end = make_key(c.nearer[q] + 1, 0);
    for (int64_t i = blockIdx.x % parts * kScanThreads + threadIdx.x; i < count; i += parts * kScanThreads) {
        const Key key = c.keys[q * c.room + i];
        if (key < end) c.kept[q * c.room + static_cast<int64_t>(atomicAdd(&c.kept_count[q], Count(1)))] = key;
    }
}

struct KeyTile {
    Key key[kScanThreads];
};

// Writes the answer: a key's place is the number of smaller ones, counted by comparing all with all. `parts` blocks
// share a query; a thread owns a key at a time. Cost: kept^2 comparisons.
__global__ void __launch_bounds__(kScanThreads)
    hamming_place_kernel(Candidates c, int64_t parts, int32_t* __restrict__ distances,  // [Q, K]
                         int64_t* __restrict__ ids) {
    auto& tile = shared_memory<KeyTile>();
    const int64_t q = blockIdx.x / parts, part = blockIdx.x % parts;
    if (c.overflowed[q] != 0) return;
    const int64_t count = static_cast<int64_t>(c.kept_count[q]);
    const Key* keys = c.kept + q * c.room;
    for (int64_t i0 = part * kScanThreads; i0 < count; i0 += parts * kScanThreads) {
        const int64_t i = i0 + threadIdx.x;
        const Key own = i < count ? keys[i] : 0;
        int64_t place = 0;
        for (int64_t j0 = 0; j0 < count; j0 += kScanThreads) {
            __syncthreads();  // the last tile is done
            const int64_t j = j0 + threadIdx.x;
            tile.key[threadIdx.x] = j < count ? keys[j] : ~Key(0);
            __syncthreads();
            int smaller = 0;
#pragma unroll 8
            for (int t = 0; t < kScanThreads; ++t) smaller += tile.key[t] < own;
            place += smaller;
        }
        if (i < count && place < c.K) {
            distances[q * c.K + place] = distance_of(own);
            ids[q * c.K + place] = position_of(own);
        }
    }
    for (int64_t place = count + part * kScanThreads + threadIdx.x; place < c.K; place += parts * kScanThreads) {
        distances[q * c.K + place] = c.bins;
        ids[q * c.K + place] = -1;
    }
}

constexpr int32_t kCollectTile = 64;  // queries of a tile
constexpr int32_t kProductTile =      // the same for products: so much faster, they would wait for L2
#ifdef FASTHASH_EMULATE_CUDA
    16;
#else
    256;
#endif
constexpr int64_t kMostUnitBytes = 32 << 10;  // rows of a warp: enough that starting a block costs little
constexpr int64_t kLeastCollectRows = 256;
constexpr int64_t kCollectUnits = 32768;  // units x tiles that fill the largest GPUs several times
constexpr int64_t kMostOnePass = 16384;   // K: placing costs its square

// Calls run(first row, end) for every stretch but the first.
template <class Run>
fh_status for_each_stretch(const OnePassPlan& plan, const Run& run) {
    for (int64_t begin = plan.first_rows, end; begin < plan.scan.N; begin = end) {
        end = begin < plan.scan.N / plan.growth ? begin * plan.growth : plan.scan.N;
        FH_RETURN_IF_ERROR(run(begin, end));
    }
    return FH_OK;
}

// The rows [begin, end) of a scan, begin a multiple of 128.
PlannedScan stretch_of(PlannedScan scan, int64_t begin, int64_t end) {
    scan.database += begin * scan.stride;
    if (scan.mask != nullptr) scan.mask += begin / 64;
    scan.N = end - begin;
    const int64_t most = std::max(kLeastCollectRows, kMostUnitBytes / scan.W / 128 * 128);
    const int64_t even = ceil_div(ceil_div(scan.N * scan.tiles(), kCollectUnits), 128) * 128;
    scan.unit_rows = std::min(std::max(even, kLeastCollectRows), most);
    scan.units = ceil_div(scan.N, scan.unit_rows);
    return scan;
}

Candidates cut_candidates(const OnePassPlan& plan, WorkspaceCutter& cutter) {
    Candidates c = {};
    c.K = plan.K;
    c.room = plan.room;
    c.bins = static_cast<int32_t>(plan.scan.largest + 1);
    c.keys = cutter.take<Key>(plan.batch * plan.room);
    c.kept = cutter.take<Key>(plan.batch * plan.room);
    c.taken = cutter.take<Count>(plan.batch);
    c.kept_count = cutter.take<Count>(plan.batch);
    c.counts = cutter.take<unsigned>(plan.batch * c.bins);
    c.nearer = cutter.take<int32_t>(plan.batch);
    return c;
}

fh_status collect(const PlannedScan& scan, int64_t first, const Candidates& candidates, void* stream) {
    return with_tile(scan, [&](auto type) {
        using Tile = typename decltype(type)::Type;
        return launch({"hamming_collect_kernel", scan.blocks(), kScanThreads, Tile::bytes(scan), stream},
                      hamming_collect_kernel<Tile>, scan, first, candidates);
    });
}

}  // namespace

bool OnePassPlan::pays() const {
    return K <= kMostOnePass && first_rows <= scan.N / 4 && scan.N < int64_t{1} << kPositionBits &&
           scan.largest + 2 <= int64_t{1} << (64 - kPositionBits);
}

OnePassPlan plan_one_pass(const fh_hamming_problem& p, int64_t K) {
    OnePassPlan plan = {};
    plan.scan = make_scan(p, 1, kLeastCollectRows);
    const int32_t most = multiplies(plan.scan) ? kProductTile : kCollectTile;
    const int32_t tile = static_cast<int32_t>(std::min<int64_t>(most, std::max<int64_t>(p.Q, 1)));
    plan.scan.tile = tile;
    plan.K = K;
    plan.first_rows = std::max(kLeastFirstRows, ceil_div(4 * K, 128) * 128);
    plan.growth = K <= 128 ? 8 : K <= 2048 ? 4 : 2;
    plan.room = K + kSpareKeys;
    (void)for_each_stretch(plan, [&](int64_t, int64_t) {
        plan.room += (plan.growth - 1) * K;
        return FH_OK;
    });
    int64_t query_bytes = plan.room * 2 * int64_t{sizeof(Key)};
    if (p.G != 0) query_bytes += (plan.scan.largest + 1) * int64_t{sizeof(unsigned)};  // undivided: little beside keys
    plan.batch = std::max<int64_t>(1, kKeyBytes / query_bytes);
    if (plan.batch > tile) plan.batch = plan.batch / tile * tile;
    plan.batch = std::min(plan.batch, std::max<int64_t>(p.Q, 1));
    return plan;
}

int64_t one_pass_bytes(const OnePassPlan& plan) {
    WorkspaceCutter cutter;
    cut_candidates(plan, cutter);
    return cutter.bytes();
}

fh_status one_pass_topk(const OnePassPlan& plan, int32_t* distances, int64_t* ids, int32_t* overflowed, void* workspace,
                        void* stream) {
    WorkspaceCutter cutter(workspace);
    Candidates candidates = cut_candidates(plan, cutter);
    const int64_t parts = ceil_div(plan.room, 4 * kScanThreads);
    for (int64_t q0 = 0; q0 < plan.scan.Q; q0 += plan.batch) {
        const PlannedScan scan = part_of(plan.scan, q0, std::min(plan.batch, plan.scan.Q - q0));
        int32_t* batch_distances = distances + q0 * plan.K;
        int64_t* batch_ids = ids + q0 * plan.K;
        candidates.overflowed = overflowed + q0;
        FH_RETURN_IF_ERROR(launch({"hamming_start_kernel", scan.Q, kScanThreads, 0, stream}, hamming_start_kernel,
                                  candidates, batch_distances, batch_ids));
        FH_RETURN_IF_ERROR(for_each_stretch(plan, [&](int64_t begin, int64_t end) {
            FH_RETURN_IF_ERROR(collect(stretch_of(scan, begin, end), begin, candidates, stream));
            return launch({"hamming_tighten_kernel", ceil_div(scan.Q, kScanWarps), kScanThreads, 0, stream},
                          hamming_tighten_kernel, candidates, scan.Q);
        }));
        FH_RETURN_IF_ERROR(launch({"hamming_keep_kernel", scan.Q * parts, kScanThreads, 0, stream}, hamming_keep_kernel,
                                  candidates, parts));
        FH_RETURN_IF_ERROR(launch({"hamming_place_kernel", scan.Q * parts, kScanThreads, 0, stream},
                                  hamming_place_kernel, candidates, parts, batch_distances, batch_ids));
    }
    return FH_OK;
}

}  // namespace fasthash
