// Top-k in one pass: see one_pass.h.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/one_pass.h"
#include "hamming/cuda/product_tile.cuh"

namespace fasthash {
namespace {

// A candidate: its distance above its position, so that keys stand in the order (distance, position).
using Key = unsigned long long;

// The candidates of one batch of queries.
struct Candidates {
    int64_t K, room;
    int32_t bins;           // the largest distance + 1: one that no code has
    int32_t position_bits;  // of a key, the lowest
    Key* keys;              // [Q, room], in any order
    Count* taken;           // [Q]: candidates; more than `room` where some found none
    Key* threshold;         // [Q]: codes with smaller keys become candidates
    int32_t* overflowed;    // [Q]

    __host__ __device__ Key key(int32_t distance, int64_t position) const {
        return static_cast<Key>(distance) << position_bits | static_cast<Key>(position);
    }
    __device__ int32_t distance_of(Key key) const { return static_cast<int32_t>(key >> position_bits); }
    __device__ int64_t position_of(Key key) const {
        return static_cast<int64_t>(key & ((Key(1) << position_bits) - 1));
    }
    // Rows from this one on become candidates of query q where they are nearer than the result.
    __device__ int32_t limit(int64_t q, int64_t row) const {
        return distance_of(threshold[q]) + (row < position_of(threshold[q]) ? 1 : 0);
    }
};

// One block for each query: its first candidates are the K nearest of the sample.
__global__ void __launch_bounds__(kScanThreads)
    hamming_start_kernel(Candidates c, const int32_t* __restrict__ distances,  // [Q, K]
                         const int64_t* __restrict__ ids) {
    const int64_t q = blockIdx.x;
    for (int64_t i = threadIdx.x; i < c.K; i += kScanThreads) {
        const int32_t distance = distances[q * c.K + i];
        const bool found = distance < c.bins;
        const Key key = found ? c.key(distance, ids[q * c.K + i]) : c.key(c.bins, 0);
        if (found) c.keys[q * c.room + i] = key;
        const bool next_found = found && i + 1 < c.K && distances[q * c.K + i + 1] < c.bins;
        if (found && !next_found) c.taken[q] = static_cast<Count>(i + 1);
        if (i == 0 && !found) c.taken[q] = 0;
        if (i + 1 == c.K) c.threshold[q] = found ? key + 1 : key;
    }
    if (threadIdx.x == 0) c.overflowed[q] = 0;
}

// Not inlined: its addresses would be kept, and moved on, with every query of the loop that seldom calls it.
__device__ __noinline__ void add_candidate(const Candidates& c, int64_t q, int64_t position, int distance) {
    const Key key = c.key(distance, position);
    if (key >= c.threshold[q]) return;
    // Where nearly all codes are candidates: past the room they only read, as the query is lost already.
    if (*const_cast<volatile Count*>(&c.taken[q]) > static_cast<Count>(c.room)) return;
    const Count place = atomicAdd(&c.taken[q], Count(1));
    if (place < static_cast<Count>(c.room)) c.keys[q * c.room + static_cast<int64_t>(place)] = key;
}

// A stretch of the database: a warp owns `unit_cells` cells of the level.
struct Stretch {
    VisitOrder order;
    int32_t level;
    int64_t cells, unit_cells;
};

// A stretch against a tile of queries.
template <class Tile>
__global__ void __launch_bounds__(kScanThreads, Tile::kBlocks)
    hamming_collect_kernel(typename Tile::ScanType scan, Stretch stretch, const __grid_constant__ Candidates c) {
    const int64_t q0 = blockIdx.x % scan.tiles() * scan.tile;
    const int count = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    const int64_t block_cell = blockIdx.x / scan.tiles() * kScanWarps * stretch.unit_cells;
    const int64_t block_row = stretch.order.begin_of(block_cell, stretch.level) * kGroupRows;
    const Tile tile(scan, q0, count, dynamic_shared_memory<uint32_t>(),
                    [&](int q) { return c.limit(q0 + q, block_row); });
    __syncthreads();
    const int64_t cell = block_cell + warp_index() * stretch.unit_cells;
    stretch.order.for_each_range(
        stretch.level, cell, min(cell + stretch.unit_cells, stretch.cells), [&](int64_t begin, int64_t end) {
            tile.visit_nearer(scan, begin, min(end, scan.N),
                              [&](int q, int64_t n, int distance) { add_candidate(c, q0 + q, n, distance); });
        });
}

constexpr int kDigitBits = 11;  // distances and some bits of positions at once: mostly one digit is enough
constexpr int kDigits = 1 << kDigitBits;

struct DigitCounts {
    unsigned count[kDigits];
    unsigned warp_sum[kScanWarps];
    unsigned digit, below;  // what is sought, and the keys with smaller digits
    unsigned kept;
};

// One block for each query that has K candidates: threshold = a key above the K-th smallest, with at most
// max(1, K / 8) keys between or at it; keys from there on are dropped. Digit by digit from the highest, of the keys
// that agree with the K-th so far. Where candidates found no room the threshold is 0, which no key is below.
__global__ void __launch_bounds__(kScanThreads) hamming_tighten_kernel(Candidates c, int key_bits, unsigned enough) {
    auto& shared = shared_memory<DigitCounts>();
    const int64_t q = blockIdx.x;
    const Count taken = c.taken[q];
    const int t = static_cast<int>(threadIdx.x);
    if (taken > static_cast<Count>(c.room)) {
        if (t == 0) {
            c.overflowed[q] = 1;
            c.threshold[q] = 0;
        }
        return;
    }
    const int64_t count = static_cast<int64_t>(taken);
    if (count < c.K) return;
    Key* keys = c.keys + q * c.room;
    Key prefix = 0;  // the K-th key's bits from `bits` on
    unsigned rank = static_cast<unsigned>(c.K), members = ~0u;
    int bits = key_bits;
    while (bits > 0 && members > enough) {
        const int next = max(bits - kDigitBits, 0), width = bits - next;
        for (int i = t; i < kDigits; i += kScanThreads) shared.count[i] = 0;
        __syncthreads();
#pragma unroll 4
        for (int64_t i = t; i < count; i += kScanThreads) {
            const Key key = keys[i];
            if (key >> bits == prefix)
                atomicAdd(&shared.count[static_cast<unsigned>(key >> next) & ((1u << width) - 1)], 1u);
        }
        __syncthreads();
        constexpr int kOwn = kDigits / kScanThreads;
        unsigned own = 0;
        for (int i = 0; i < kOwn; ++i) own += shared.count[t * kOwn + i];
        const unsigned inclusive = warp_inclusive_sum(own);
        if (lane_index() == kWarpSize - 1) shared.warp_sum[warp_index()] = inclusive;
        __syncthreads();
        unsigned below = inclusive - own;
        for (int w = 0; w < warp_index(); ++w) below += shared.warp_sum[w];
        if (below < rank && rank <= below + own) {
            int i = t * kOwn;
            while (below + shared.count[i] < rank) below += shared.count[i++];
            shared.digit = static_cast<unsigned>(i);
            shared.below = below;
        }
        __syncthreads();
        prefix = prefix << width | shared.digit;
        members = shared.count[shared.digit];
        rank -= shared.below;
        bits = next;
        __syncthreads();  // all have read it
    }
    const Key threshold = min((prefix + 1) << bits, c.threshold[q]);
    if (t == 0) shared.kept = 0;
    constexpr int kHeld = 4;
    for (int64_t i0 = 0; i0 < count; i0 += kHeld * kScanThreads) {
        Key key[kHeld];
#pragma unroll
        for (int h = 0; h < kHeld; ++h) {
            const int64_t i = i0 + h * kScanThreads + t;
            key[h] = i < count ? keys[i] : ~Key(0);
        }
        __syncthreads();  // these are read: kept ones go to places that all have read
#pragma unroll
        for (int h = 0; h < kHeld; ++h)
            if (key[h] < threshold) keys[atomicAdd(&shared.kept, 1u)] = key[h];
    }
    __syncthreads();
    if (t == 0) {
        c.taken[q] = shared.kept;
        c.threshold[q] = threshold;
    }
}

struct KeyTile {
    Key key[kScanThreads];
};

// Writes the answer: a key's place is the number of smaller ones, counted by comparing all with all. `parts` blocks
// share a query; a thread owns a key at a time. Cost: candidates^2 comparisons.
__global__ void __launch_bounds__(kScanThreads)
    hamming_place_kernel(Candidates c, int64_t parts, int32_t* __restrict__ distances,  // [Q, K]
                         int64_t* __restrict__ ids) {
    auto& tile = shared_memory<KeyTile>();
    const int64_t q = blockIdx.x / parts, part = blockIdx.x % parts;
    if (c.overflowed[q] != 0) return;
    const int64_t count = static_cast<int64_t>(c.taken[q]);
    const Key* keys = c.keys + q * c.room;
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
            distances[q * c.K + place] = c.distance_of(own);
            ids[q * c.K + place] = c.position_of(own);
        }
    }
    for (int64_t place = count + part * kScanThreads + threadIdx.x; place < c.K; place += parts * kScanThreads) {
        distances[q * c.K + place] = c.bins;
        ids[q * c.K + place] = -1;
    }
}

constexpr int32_t kCollectTile = 64;  // queries of a tile
constexpr int32_t kProductTile =      // the same for products: so much faster, they would wait for L2
#ifdef FASTHASH_SMALL_SIZES
    16;
#else
    256;
#endif
constexpr int64_t kMostUnitBytes = 32 << 10;  // rows of a warp: enough that starting a block costs little
constexpr int64_t kLeastCollectGroups = 2;
constexpr int64_t kCollectUnits = 32768;  // units x tiles that fill the largest GPUs several times

// Bits that hold the numbers 0 .. most.
int bits_of(int64_t most) {
    int bits = 0;
    while (most >> bits != 0) ++bits;
    return bits;
}

Stretch stretch_of(const PlannedScan& scan, const VisitOrder& order, int level) {
    Stretch stretch = {order, level, order.cells(scan.N, level), 0};
    const int64_t most = std::max(kLeastCollectGroups, kMostUnitBytes / (scan.W * kGroupRows));
    stretch.unit_cells = std::clamp(ceil_div(stretch.cells * scan.tiles(), kCollectUnits), kLeastCollectGroups, most);
    return stretch;
}

Candidates cut_candidates(const OnePassPlan& plan, WorkspaceCutter& cutter) {
    Candidates c = {};
    c.K = plan.K;
    c.room = plan.shape.room;
    c.bins = static_cast<int32_t>(plan.scan.largest + 1);
    c.position_bits = bits_of(plan.scan.N);
    c.keys = cutter.take<Key>(plan.batch * c.room);
    c.taken = cutter.take<Count>(plan.batch);
    c.threshold = cutter.take<Key>(plan.batch);
    return c;
}

fh_status collect(PlannedScan scan, const Stretch& stretch, const Candidates& candidates, void* stream) {
    scan.units = ceil_div(stretch.cells, stretch.unit_cells);
    return with_tile(scan, [&](auto type) {
        using Tile = typename decltype(type)::Type;
        return launch({"hamming_collect_kernel", scan.blocks(), kScanThreads, Tile::bytes(scan), stream},
                      hamming_collect_kernel<Tile>, scan, stretch, candidates);
    });
}

}  // namespace

bool OnePassPlan::pays() const {
    constexpr int64_t kMostLargest = 131070;  // 17 bits of a key, beside up to 46 of the position
    return scan.largest <= kMostLargest && one_pass_pays(scan.Q, scan.N, scan.W, K);
}

OnePassPlan plan_one_pass(const fh_hamming_problem& p, int64_t K) {
    OnePassPlan plan = {};
    plan.scan = make_scan(p, 1, kGroupRows);
    const int32_t most = multiplies(plan.scan) ? kProductTile : kCollectTile;
    const int32_t tile = static_cast<int32_t>(std::min<int64_t>(most, std::max<int64_t>(p.Q, 1)));
    plan.scan.tile = tile;
    plan.K = K;
    plan.shape = shape_one_pass(p.N, K);
    plan.batch = std::max<int64_t>(1, kKeyBytes / (std::max<int64_t>(plan.shape.room, 1) * int64_t{sizeof(Key)}));
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
    const VisitOrder& order = plan.shape.order;
    const int64_t extra = least_extra_keys(plan.K), parts = ceil_div(plan.K + extra, 4 * kScanThreads);
    const int key_bits = bits_of(plan.scan.largest) + candidates.position_bits;
    for (int64_t q0 = 0; q0 < plan.scan.Q; q0 += plan.batch) {
        const PlannedScan scan = part_of(plan.scan, q0, std::min(plan.batch, plan.scan.Q - q0));
        int32_t* batch_distances = distances + q0 * plan.K;
        int64_t* batch_ids = ids + q0 * plan.K;
        candidates.overflowed = overflowed + q0;
        FH_RETURN_IF_ERROR(launch({"hamming_start_kernel", scan.Q, kScanThreads, 0, stream}, hamming_start_kernel,
                                  candidates, batch_distances, batch_ids));
        for (int level = order.levels - 1; level >= 0; --level) {
            FH_RETURN_IF_ERROR(collect(scan, stretch_of(scan, order, level), candidates, stream));
            FH_RETURN_IF_ERROR(launch({"hamming_tighten_kernel", scan.Q, kScanThreads, 0, stream},
                                      hamming_tighten_kernel, candidates, key_bits, static_cast<unsigned>(extra)));
        }
        FH_RETURN_IF_ERROR(launch({"hamming_place_kernel", scan.Q * parts, kScanThreads, 0, stream},
                                  hamming_place_kernel, candidates, parts, batch_distances, batch_ids));
    }
    return FH_OK;
}

}  // namespace fasthash
