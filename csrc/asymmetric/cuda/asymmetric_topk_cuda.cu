// The K nearest codes by asymmetric distance on CUDA: see asymmetric_topk.h for the contract.
//
// A filter first: products of signed bytes on the tensor cores give every code an integer, and with it a certain bound
// below its distance (byte_bound.cuh). Codes that it does not rule out are looked at in double, and become candidates
// of a query where they are nearer than its K-th so far (search.cuh).
//
// Rows go in granules of 64, and the database is visited in stretches of which each has seven times as many granules as
// all before it, taken evenly from all of the database. So a query's K-th distance after a stretch is about that of an
// even sample, in whatever order the codes are stored, and the next stretch adds some 7 K candidates. A query whose
// candidates find no room is searched again by one block, row by row, in pieces that always find room; the kernel for
// that is always enqueued and leaves at once where there is no such query.
#include "asymmetric/asymmetric_topk.h"
#include "asymmetric/cuda/prepare.cuh"
#include "asymmetric/cuda/search.cuh"
#include "asymmetric/cuda/select.cuh"
#include "asymmetric/cuda/stretch.cuh"
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/tensor_core.cuh"
#include "core/cuda/warp.cuh"
#include "core/cuda/workspace.h"
#include "hamming/cuda/code.cuh"
#include "hamming/groups.h"

namespace fasthash {
namespace {

// Rows of the first stretch at most (its codes are all candidates), and room for candidates beyond those expected.
// Little in the emulation, so that small problems have several stretches, and queries that lose candidates.
#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kFirstRows = 512, kSpareRoom = 64, kBatchBytes = 256 << 10;
#else
constexpr int64_t kFirstRows = 4096, kSpareRoom = 4096, kBatchBytes = 60 << 20;
#endif
constexpr int kMostLevels = 22;            // 8^22 granules
constexpr int64_t kPadding = 32;           // queries: a batch's arrays have whole multiples of so many
constexpr size_t kSharedBytes = 48 << 10;  // for the bytes of the queries of a block
constexpr int64_t kMostTile = 128;
constexpr int64_t kUnits = 32768;                // warps x tiles that fill the largest GPUs several times
constexpr int64_t kMostUnitBytes = 64 << 10;     // rows of a warp
constexpr int64_t kSortedInSharedMemory = 2048;  // candidates

// Which rows of a granule are there and eligible, the first one's bit the lowest.
__device__ __forceinline__ uint64_t live_rows(const AsymmetricSearch& s, int64_t granule) {
    const int64_t left = s.N - granule * kGranuleRows;
    uint64_t live = left >= kGranuleRows ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    if (s.mask != nullptr) live &= s.mask[granule];
    return live;
}

// The filter over a stretch. A block has a tile of queries, whose bytes are in shared memory where they fit (kStaged);
// a warp takes `unit` granules, one after the other, and compares each with 8 kColumns queries at a time. A lane reads
// words of the rows g, g + 8, ... (g = lane / 4), kPiece at once, and makes bytes of 0 and 1 of their bits: for the
// product's places k = 4 t .. the bits t, t + 8, t + 16, t + 24 of a word, and t + 4 ... for 4 t + 16 ..
// Cost: W bytes a row once for the tile; for 64 rows and 32 bits, 32 operations to make bytes for 8 kColumns queries,
// and kColumns x 4 products of 16 x 8 x 32; for each pair a third of an operation, or 5 with scales.
template <int kPiece, int kColumns, bool kScaled>
__global__ void __launch_bounds__(kScanThreads, 2)
    asymmetric_scan_kernel(const __grid_constant__ AsymmetricSearch s, const __grid_constant__ Stretch stretch,
                           int64_t unit, int64_t tile, bool staged) {
    constexpr int kTiles = kColumns == 1 ? 4 : 2;  // of 16 rows, at once
    constexpr int kTurns = static_cast<int>(kGranuleRows) / (16 * kTiles);
    const int64_t tiles = (s.Q + tile - 1) / tile;
    const int64_t q0 = blockIdx.x % tiles * tile;
    const int groups = static_cast<int>((min(tile, s.Q - q0) + kColumnQueries - 1) / kColumnQueries);
    const int columns = (groups + kColumns - 1) / kColumns, padded = columns * kColumns;
    const int lane = lane_index(), g = lane / 4, t = lane % 4;

    float4* scaled = dynamic_shared_memory<float4>();  // [tile], or int32_t [tile] without scales
    int32_t* minus_limits = reinterpret_cast<int32_t*>(scaled);
    uint2* staged_bytes = reinterpret_cast<uint2*>(scaled + (kScaled ? tile : tile / 4));
    const uint2* bytes = s.bytes + q0 / kColumnQueries * s.steps * kWarpSize;  // [padded, steps, 32]
    for (int i = static_cast<int>(threadIdx.x); i < padded * kColumnQueries; i += kScanThreads) {
        if (kScaled)
            scaled[i] = s.scaled_limits[q0 + i];
        else
            minus_limits[i] = s.minus_limits[q0 + i];
    }
    if (staged) {
        for (int64_t i = threadIdx.x; i < padded * s.steps * kWarpSize; i += kScanThreads) staged_bytes[i] = bytes[i];
        bytes = staged_bytes;
    }
    __syncthreads();

    const int64_t begin = (blockIdx.x / tiles * kScanWarps + warp_index()) * unit;
    const int64_t end = min(begin + unit, stretch.count);
    for (Walk walk(stretch, begin); walk.number < end;) {
        const int64_t granule = walk.next(stretch);
        const uint64_t live = live_rows(s, granule);
        if (live == 0) continue;
        for (int turn = 0; turn < kTurns * columns; ++turn) {  // columns x the parts of the granule
            const int j0 = turn / kTurns * kColumns, first = turn % kTurns * 16 * kTiles + g;
            const uint64_t own = live >> first;  // bit 8 i: row first + 8 i
            const int64_t n = granule * kGranuleRows + first;
            const uint8_t* row = s.database + n * s.stride;
            int sums[kColumns][kTiles][4];
#pragma unroll
            for (int j = 0; j < kColumns; ++j) {
                int start[2] = {0, 0};
                if constexpr (!kScaled) {
                    const int2 minus = *reinterpret_cast<const int2*>(minus_limits + (j0 + j) * kColumnQueries + 2 * t);
                    start[0] = minus.x;
                    start[1] = minus.y;
                }
#pragma unroll
                for (int i = 0; i < kTiles; ++i)
#pragma unroll
                    for (int r = 0; r < 4; ++r) sums[j][i][r] = start[r % 2];
            }
            for (int64_t step = 0; step < s.steps; step += kPiece) {
                Code<kPiece> piece[2 * kTiles] = {};
#pragma unroll
                for (int i = 0; i < 2 * kTiles; ++i) {
                    const uint8_t* from = row + 8 * i * s.stride;
                    if ((own >> (8 * i) & 1) == 0) continue;
                    if constexpr (kPiece == 1)
                        piece[i].word[0] = load_word(from, step, s.W, s.granule);
                    else
                        piece[i] = *reinterpret_cast<const Code<kPiece>*>(from + 4 * step);
                }
#pragma unroll
                for (int p = 0; p < kPiece; ++p) {
                    uint2 column[kColumns];
#pragma unroll
                    for (int j = 0; j < kColumns; ++j)
                        column[j] = bytes[((j0 + j) * s.steps + step + p) * kWarpSize + lane];
#pragma unroll
                    for (int i = 0; i < kTiles; ++i) {
                        constexpr uint32_t kOnes = 0x01010101u;
                        const uint32_t low = piece[2 * i].word[p] >> t, high = piece[2 * i + 1].word[p] >> t;
                        const uint32_t a[4] = {low & kOnes, high & kOnes, low >> 4 & kOnes, high >> 4 & kOnes};
#pragma unroll
                        for (int j = 0; j < kColumns; ++j) {
                            const uint32_t b[2] = {column[j].x, column[j].y};
                            multiply_add_16x8x32(sums[j][i], a, b);
                        }
                    }
                }
            }
            if constexpr (kScaled) {
                float scale[2 * kTiles];
#pragma unroll
                for (int i = 0; i < 2 * kTiles; ++i)
                    scale[i] = (own >> (8 * i) & 1) != 0 ? scale_of(s.scales[n + 8 * i]) : 0.0f;
#pragma unroll
                for (int j = 0; j < kColumns; ++j) {
#pragma unroll
                    for (int r = 0; r < 2; ++r) {
                        const float4 limit = scaled[(j0 + j) * kColumnQueries + 2 * t + r];
#pragma unroll
                        for (int i = 0; i < 2 * kTiles; ++i) {  // -1 where the code passes
                            int& sum = sums[j][i / 2][i % 2 * 2 + r];
                            const float bound =
                                scale[i] * ((limit.x + limit.y * static_cast<float>(sum)) + limit.z * scale[i]);
                            sum = bound <= limit.w ? -1 : 0;
                        }
                    }
                }
            }
            int signs = 0;
#pragma unroll
            for (int j = 0; j < kColumns; ++j)
#pragma unroll
                for (int i = 0; i < kTiles; ++i) signs |= sums[j][i][0] | sums[j][i][1] | sums[j][i][2] | sums[j][i][3];
            if (!__any_sync(kAllLanes, signs < 0)) continue;  // all lanes or none: products need the whole warp
            uint64_t passed = 0;  // bit 16 j + 2 i + r: row g + 8 i, query 2 t + r of column j
#pragma unroll
            for (int j = 0; j < kColumns; ++j)
#pragma unroll
                for (int i = 0; i < 2 * kTiles; ++i)
#pragma unroll
                    for (int r = 0; r < 2; ++r)
                        passed |= static_cast<uint64_t>(sums[j][i / 2][i % 2 * 2 + r] < 0 && (own >> (8 * i) & 1) != 0)
                                  << (16 * j + 2 * i + r);
            for (; passed != 0; passed &= passed - 1) {
                const int bit = __ffsll(static_cast<long long>(passed)) - 1;
                consider(s, q0 + (j0 + bit / 16) * kColumnQueries + 2 * t + bit % 2, n + bit / 2 % 8 * 8);
            }
            __syncwarp();
        }
    }
}

struct Plan {
    int64_t sizes[kMostLevels];  // granules of each level
    int levels;
    int64_t room, batch;  // candidates of a query; queries at a time
    int32_t granule, position_bytes;
};

int64_t round_up(int64_t n, int64_t step) { return ceil_div(n, step) * step; }

AsymmetricSearch cut(const fh_asymmetric_topk_problem& p, int64_t K, const Plan& plan, int64_t queries,
                     WorkspaceCutter& cutter) {
    AsymmetricSearch s = {};
    s.database = p.database;
    s.mask = p.mask;
    s.scales = p.scales;
    s.N = p.N;
    s.W = p.W;
    s.stride = p.stride;
    s.steps = ceil_div(p.W, 4);
    s.Q = queries;
    s.K = K;
    s.room = plan.room;
    s.position_bytes = plan.position_bytes;
    s.granule = plan.granule;
    const int64_t padded = round_up(queries, kPadding);
    s.bounds = cutter.take<BoundedQuery>(queries);
    s.sums = cutter.take<double>(queries * 32 * p.W);
    s.bytes = cutter.take<uint2>(padded / kColumnQueries * s.steps * kWarpSize);
    s.minus_limits = cutter.take<int32_t>(padded);
    s.scaled_limits = cutter.take<float4>(padded);
    s.keys = cutter.take<uint32_t>(queries * plan.room);
    s.positions = cutter.take<int64_t>(queries * plan.room);
    s.taken = cutter.take<Count>(queries);
    s.last_keys = cutter.take<uint32_t>(queries);
    s.last_positions = cutter.take<int64_t>(queries);
    s.overflowed = cutter.take<int32_t>(queries);
    return s;
}

Plan plan_search(const fh_asymmetric_topk_problem& p, int64_t K) {
    Plan plan = {};
    const int64_t first = std::max(kFirstRows, kGrowth * K);
    plan.sizes[plan.levels++] = ceil_div(p.N, kGranuleRows);
    while (plan.sizes[plan.levels - 1] * kGranuleRows > first) {
        plan.sizes[plan.levels] = plan.sizes[plan.levels - 1] / kGrowth;
        ++plan.levels;
    }
    plan.room = std::max<int64_t>(1, std::min(std::max(first, 12 * K + kSpareRoom), p.N));
    const int64_t granules[] = {16, 8, 4};
    plan.granule = 1;
    for (const int64_t granule : granules) {
        if (p.W % granule == 0 && p.stride % granule == 0 && reinterpret_cast<uintptr_t>(p.database) % granule == 0) {
            plan.granule = static_cast<int32_t>(granule);
            break;
        }
    }
    for (int64_t last = std::max<int64_t>(p.N - 1, 0); last > 0; last >>= 8) ++plan.position_bytes;
    const int64_t query_bytes = 264 * p.W + 12 * plan.room + int64_t{sizeof(BoundedQuery)} + 64;
    plan.batch = std::max<int64_t>(1, kBatchBytes / query_bytes);
    if (plan.batch > kMostTile) plan.batch = plan.batch / kMostTile * kMostTile;
    plan.batch = std::min(plan.batch, std::max<int64_t>(p.Q, 1));
    return plan;
}

// Each level without the next, from the last one on.
template <class Run>
fh_status for_each_stretch(const Plan& plan, const Run& run) {
    for (int level = plan.levels - 1; level >= 0; --level) {
        const bool last = level == plan.levels - 1;
        const int64_t size = plan.sizes[level];
        FH_RETURN_IF_ERROR(run(Stretch{level, last, size, last ? size : size - size / kGrowth}));
    }
    return FH_OK;
}

template <int kPiece, int kColumns, bool kScaled>
fh_status scan(const AsymmetricSearch& s, const Stretch& stretch, void* stream) {
    const size_t query_bytes = static_cast<size_t>(s.steps) * kWarpSize * sizeof(uint2) / kColumnQueries;
    constexpr int64_t kLeast = kColumns * kColumnQueries;
    int64_t tile = kLeast;
    while (2 * tile <= kMostTile && tile < s.Q && static_cast<size_t>(2 * tile) * query_bytes <= kSharedBytes)
        tile *= 2;
    const bool staged = static_cast<size_t>(tile) * query_bytes <= kSharedBytes;
    const size_t limit_bytes = static_cast<size_t>(tile) * (kScaled ? sizeof(float4) : sizeof(int32_t));
    const int64_t tiles = ceil_div(s.Q, tile);
    const int64_t most = std::max<int64_t>(1, kMostUnitBytes / (kGranuleRows * s.W));
    const int64_t unit = std::min(most, std::max<int64_t>(1, ceil_div(stretch.count * tiles, kUnits)));
    const LaunchShape shape = {"asymmetric_scan_kernel", ceil_div(stretch.count, unit * kScanWarps) * tiles,
                               kScanThreads, limit_bytes + (staged ? static_cast<size_t>(tile) * query_bytes : 0),
                               stream};
    return launch(shape, asymmetric_scan_kernel<kPiece, kColumns, kScaled>, s, stretch, unit, tile, staged);
}

template <int kPiece>
fh_status scan_pieces(const AsymmetricSearch& s, const Stretch& stretch, void* stream) {
    const bool few = s.Q <= kColumnQueries;
    if (s.scales != nullptr)
        return few ? scan<kPiece, 1, true>(s, stretch, stream) : scan<kPiece, 4, true>(s, stretch, stream);
    return few ? scan<kPiece, 1, false>(s, stretch, stream) : scan<kPiece, 4, false>(s, stretch, stream);
}

fh_status scan_stretch(const AsymmetricSearch& s, const Stretch& stretch, void* stream) {
    if (s.granule == 16) return scan_pieces<4>(s, stretch, stream);
    if (s.granule == 8) return scan_pieces<2>(s, stretch, stream);
    return scan_pieces<1>(s, stretch, stream);
}

fh_status prepare(const AsymmetricSearch& s, const fh_asymmetric_topk_problem& p, int64_t first,
                  const BitWeights& weights, void* stream) {
    return with_dtype(p.dtype, [&](auto zero) {
        using Real = decltype(zero);
        const LaunchShape shape = {"asymmetric_prepare_kernel", round_up(s.Q, kPadding), kScanThreads, 0, stream};
        return launch(shape, asymmetric_prepare_kernel<Real>, s, static_cast<const Real*>(p.queries) + first * p.D, p.D,
                      p.metric, weights);
    });
}

fh_status check(const fh_asymmetric_topk_problem& p, int64_t K, BitWeights& weights) {
    if (p.Q < 0 || p.N < 0 || K < 1 || p.D < 1 || p.W < 1 || p.W > 8192 || p.D > 8 * p.W || (p.N > 1 && p.stride < p.W))
        return fail(FH_INVALID,
                    "fh_asymmetric_topk_cuda: must have Q, N >= 0, K >= 1, W 1 to 8192, D 1 to 8 W, stride >= W");
    if (p.metric < FH_L1 || p.metric > FH_L2)
        return fail(FH_INVALID, "fh_asymmetric_topk_cuda: the metric must be l1, dot, cosine or l2");
    if (p.metric != FH_L1 ? p.G > 0 : p.scales != nullptr)
        return fail(FH_INVALID, "fh_asymmetric_topk_cuda: groups need metric l1, scales need another metric");
    const fh_hamming_problem groups{nullptr, nullptr, nullptr, 0, 0, p.W, p.W, p.group_bits, p.group_weights, p.G};
    int32_t largest;
    FH_RETURN_IF_ERROR(largest_distance(groups, largest));
    weights.G = p.G;
    int32_t bits = 0;
    for (int32_t g = 0; g < p.G; ++g) {
        bits += p.group_bits[g];
        weights.ends[g] = bits;
        weights.weights[g] = p.group_weights[g];
    }
    if (p.G > 0 && bits != p.D) return fail(FH_INVALID, "fh_asymmetric_topk_cuda: the groups must have D bits in all");
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

int64_t fh_asymmetric_topk_cuda_workspace(const fh_asymmetric_topk_problem* problem, int64_t K) {
    const Plan plan = plan_search(*problem, K);
    WorkspaceCutter cutter;
    cut(*problem, K, plan, plan.batch, cutter);
    return cutter.bytes();
}

fh_status fh_asymmetric_topk_cuda(const fh_asymmetric_topk_problem* problem, int64_t K, float* distances, int64_t* ids,
                                  void* workspace, int64_t workspace_bytes, void* stream) {
    const fh_asymmetric_topk_problem& p = *problem;
    BitWeights weights = {};
    FH_RETURN_IF_ERROR(check(p, K, weights));
    FH_RETURN_IF_ERROR(
        require_workspace("fh_asymmetric_topk_cuda", fh_asymmetric_topk_cuda_workspace(problem, K), workspace_bytes));
    const Plan plan = plan_search(p, K);
    for (int64_t first = 0; first < p.Q; first += plan.batch) {
        WorkspaceCutter cutter(workspace);
        const AsymmetricSearch s = cut(p, K, plan, std::min(plan.batch, p.Q - first), cutter);
        FH_RETURN_IF_ERROR(prepare(s, p, first, weights, stream));
        const LaunchShape selecting = {"asymmetric_select_kernel", s.Q, kSelectThreads, 0, stream};
        FH_RETURN_IF_ERROR(for_each_stretch(plan, [&](const Stretch& stretch) {
            FH_RETURN_IF_ERROR(scan_stretch(s, stretch, stream));
            return launch(selecting, asymmetric_select_kernel, s);
        }));
        FH_RETURN_IF_ERROR(
            launch({"asymmetric_rescan_kernel", s.Q, kSelectThreads, 0, stream}, asymmetric_rescan_kernel, s));
        const bool staged = K <= kSortedInSharedMemory;
        const size_t shared_bytes = staged ? static_cast<size_t>(K) * (sizeof(int64_t) + sizeof(uint32_t)) : 0;
        FH_RETURN_IF_ERROR(launch({"asymmetric_write_kernel", s.Q, kSelectThreads, shared_bytes, stream},
                                  asymmetric_write_kernel, s, staged, distances + first * K, ids + first * K));
    }
    return FH_OK;
}
}
