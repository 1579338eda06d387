// One pass of a tile of queries over a range of packed codes: what every Hamming kernel is built on.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/cuda/cuda_check.h"
#include "core/cuda/warp.cuh"
#include "hamming/cuda/code.cuh"
#include "hamming/cuda/one_pass_plan.h"
#include "hamming/cuda/weights.cuh"
#include "hamming/hamming.h"

namespace fasthash {

constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / kWarpSize;

// The database is cut into units of unit_rows consecutive rows (a multiple of 128); one warp owns a unit and goes
// through it in ascending order. Or a unit is the first group of a cell of the order (one_pass_plan.h), at the top
// level, and all other rows are left out. Queries are cut into tiles.
struct Scan {
    const uint8_t* queries;   // [Q, W]
    const uint8_t* database;  // [N, W], rows `stride` bytes apart
    const uint64_t* mask;     // [ceil(N / 64)] or null
    const int32_t* only;      // [Q]: queries with 0 are left out; or null
    int64_t Q, N, W, stride;
    int64_t unit_rows, units;
    int32_t tile;     // queries of a tile
    int32_t granule;  // 16, 4 or 1: every row and query starts at a multiple of it, and W is one
    VisitOrder order;

    __host__ __device__ int64_t tiles() const { return (Q + tile - 1) / tile; }
    // Blocks next to each other take different queries over the same rows, so that L2 serves the rows to all but one.
    __host__ __device__ int64_t blocks() const { return (units + kScanWarps - 1) / kScanWarps * tiles(); }

    __device__ int64_t first_row(int64_t unit) const {
        return order.levels == 0 ? unit * unit_rows : order.group_of(unit, order.levels) * kGroupRows;
    }
    __device__ bool wants(int64_t q) const { return only == nullptr || only[q] != 0; }
    __device__ bool wants_any(int64_t q0, int count) const {
        for (int q = 0; q < count; ++q)
            if (wants(q0 + q)) return true;
        return false;
    }
};

// A scan as the host plans it: undivided where groups.G is 0.
struct PlannedScan : Scan {
    BitGroups groups;
    int64_t largest;  // distance that two codes can have
};

// A scan of codes whose bits have weights, as its kernels take it.
template <int kWords>
struct WeightedScan : Scan {
    Weights<kWords> weights;

    WeightedScan(const PlannedScan& scan) : Scan(scan), weights(scan.groups) {}
};

// The width of weighted codes.
template <class Plain>
struct WeightedWidth : Plain {
    static constexpr bool kWeighted = true;
};

// What kernels for this width take.
template <class Width>
using ScanOf = std::conditional_t<Width::kWeighted, WeightedScan<Width::kWords>, Scan>;

template <class Width>
__device__ __forceinline__ Code<Width::kWords> load_code(const Scan& scan, const uint8_t* row) {
    if constexpr (Width::kExact) {
        return *reinterpret_cast<const Code<Width::kWords>*>(row);
    } else {
        Code<Width::kWords> code;
#pragma unroll
        for (int w = 0; w < Width::kWords; ++w) code.word[w] = load_word(row, w, scan.W, scan.granule);
        return code;
    }
}

// Brings `count` queries from q0 on into shared memory, zero padded. Nothing to do for wide codes. The caller
// synchronises.
template <class Width>
__device__ __forceinline__ void stage_queries(const Scan& scan, int64_t q0, int count, uint32_t* staged) {
    if constexpr (Width::kWords > 0) {
        for (int i = static_cast<int>(threadIdx.x); i < count * Width::kWords; i += kScanThreads) {
            const uint8_t* query = scan.queries + (q0 + i / Width::kWords) * scan.W;
            staged[i] = load_word(query, i % Width::kWords, scan.W, scan.granule);
        }
    }
}

// live[r]: whether row n + 32 r is there (before `end`) and eligible. All words of the mask are asked for before the
// first is used: one wait for memory, not one for each row.
template <int kRows>
__device__ __forceinline__ void find_live(const Scan& scan, int64_t n, int64_t end, bool (&live)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) live[r] = n + kWarpSize * r < end;
    if (scan.mask == nullptr) return;
    const uint32_t* halves = reinterpret_cast<const uint32_t*>(scan.mask);
    uint32_t half[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) half[r] = live[r] ? halves[n / 32 + r] : 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) live[r] = (half[r] >> (n % 32) & 1) != 0;
}

// The distance of a row too wide for registers from query q.
template <class Width>
__device__ __forceinline__ int wide_row_distance(const ScanOf<Width>& scan, const uint8_t* row, int64_t q) {
    const uint8_t* query = scan.queries + q * scan.W;
    if constexpr (Width::kWeighted)
        return wide_weighted_distance(scan.weights, row, query, scan.W, scan.granule);
    else
        return wide_distance(row, query, scan.W, scan.granule);
}

// More than any distance, also when that of a code in registers, of up to 1,024 bits, is added.
template <class Width>
constexpr int kNever = Width::kWeighted ? 0x7fffffff - 255 * 1024 : 1 << 24;

// The rows n0, n0 + 32, ... of one lane, kRows of them, in registers (but for codes too wide for those). Rows from
// `end` on, and those masked out, have kNever added to their distances.
template <class Width>
struct RowGroup {
    static constexpr int kRows = Width::kRows;
    Code<Width::kWords == 0 ? 1 : Width::kWords> code[kRows];
    const uint8_t* row;  // the first one's
    int add[kRows];

    __device__ __forceinline__ RowGroup(const Scan& scan, int64_t n0, int64_t end)
        : code{}, row(scan.database + n0 * scan.stride) {
        bool live[kRows];
        find_live(scan, n0, end, live);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
            add[r] = live[r] ? 0 : kNever<Width>;
            if constexpr (Width::kWords > 0)
                if (live[r]) code[r] = load_code<Width>(scan, row + kWarpSize * r * scan.stride);
        }
    }

    // From query q of the tile that starts at q0.
    __device__ __forceinline__ void distances(const ScanOf<Width>& scan, int64_t q0, const uint32_t* staged, int q,
                                              int (&distance)[kRows]) const {
        if constexpr (Width::kWords == 0) {
            distance[0] = add[0];
            if (add[0] == 0) distance[0] = wide_row_distance<Width>(scan, row, q0 + q);
        } else {
            const auto query = reinterpret_cast<const Code<Width::kWords>*>(staged)[q];
            if constexpr (Width::kWeighted) {
#pragma unroll
                for (int r = 0; r < kRows; ++r) distance[r] = add[r];
                add_weighted_distances(scan.weights, code, query, distance);
            } else {
#pragma unroll
                for (int r = 0; r < kRows; ++r) distance[r] = code_distance(code[r], query) + add[r];
            }
        }
    }
};

// A tile of queries in shared memory, each with a limit; rows are compared with them by counting bits.
template <class Width>
struct CountedTile {
    using ScanType = ScanOf<Width>;
    static constexpr int kBlocks = 1;  // of a multiprocessor, at least
    uint32_t* queries;                 // [count, kWords]
    int32_t* limits;                   // [count]
    int64_t q0;
    int count;

    static size_t bytes(const Scan& scan) { return static_cast<size_t>(scan.tile) * (Width::kWords + 1) * 4; }

    // The block brings the queries q0 .. q0 + count - 1 and limit(0), ..., limit(count - 1) to `shared`, bytes(scan) of
    // it. The caller synchronises.
    template <class Limit>
    __device__ __forceinline__ CountedTile(const Scan& scan, int64_t q0_, int count_, uint32_t* shared,
                                           const Limit& limit)
        : queries(shared), limits(reinterpret_cast<int32_t*>(shared + count_ * Width::kWords)), q0(q0_), count(count_) {
        stage_queries<Width>(scan, q0, count, queries);
        for (int q = static_cast<int>(threadIdx.x); q < count; q += kScanThreads) limits[q] = limit(q);
    }

    // The rows [begin, end) by one warp: visit(q, n, distance) for each pair nearer than q's limit, in its lane alone
    // and in any order. Cost: W bytes a row once for the tile; for each pair kWords exclusive ors and popcounts (fewer
    // popcounts where words are added first; of weighted codes those of weights.cuh), their sum and a comparison.
    template <class Visit>
    __device__ __forceinline__ void visit_nearer(const ScanType& scan, int64_t begin, int64_t end,
                                                 const Visit& visit) const {
        constexpr int kRows = Width::kRows;
        for (int64_t n0 = begin + lane_index(); n0 < end; n0 += kWarpSize * kRows) {
            const RowGroup<Width> rows(scan, n0, end);
            for (int q = 0; q < count; ++q) {
                int distance[kRows];
                rows.distances(scan, q0, queries, q, distance);
                int nearest = distance[0];
#pragma unroll
                for (int r = 1; r < kRows; ++r) nearest = min(nearest, distance[r]);
                if (nearest >= limits[q]) continue;
#pragma unroll
                for (int r = 0; r < kRows; ++r)
                    if (distance[r] < limits[q]) visit(q, n0 + kWarpSize * r, distance[r]);
            }
        }
    }
};

// The rows [begin, end) by one warp, against the tile's queries which(0), ..., which(count - 1): visit(which(i), n,
// live, distance) in all 32 lanes, lane by lane ascending n, and step by step; not live: no such row, or masked out
// (the distance is void). Cost: W bytes a row once for the tile, kWords popcounts a pair (or those of weights.cuh).
template <class Width, class Which, class Visit>
__device__ __forceinline__ void scan_rows(const ScanOf<Width>& scan, int64_t begin, int64_t end, int64_t q0,
                                          const uint32_t* staged, int count, const Which& which, const Visit& visit) {
    constexpr int kRows = Width::kRows;
    for (int64_t n0 = begin + lane_index(); n0 - lane_index() < end; n0 += kWarpSize * kRows) {
        bool live[kRows];
        find_live(scan, n0, end, live);
        if constexpr (Width::kWords > 0) {
            Code<Width::kWords> code[kRows] = {};
#pragma unroll
            for (int r = 0; r < kRows; ++r)
                if (live[r]) code[r] = load_code<Width>(scan, scan.database + (n0 + kWarpSize * r) * scan.stride);
            for (int i = 0; i < count; ++i) {
                const int q = which(i);
                const auto query = reinterpret_cast<const Code<Width::kWords>*>(staged)[q];
                int weighted[kRows] = {};
                if constexpr (Width::kWeighted) add_weighted_distances(scan.weights, code, query, weighted);
#pragma unroll
                for (int r = 0; r < kRows; ++r)
                    visit(q, n0 + kWarpSize * r, live[r],
                          Width::kWeighted ? weighted[r] : code_distance(code[r], query));
            }
        } else {
            const uint8_t* row = scan.database + n0 * scan.stride;
            for (int i = 0; i < count; ++i) {
                const int q = which(i);
                const int distance = live[0] ? wide_row_distance<Width>(scan, row, q0 + q) : 0;
                visit(q, n0, live[0], distance);
            }
        }
    }
}

// Calls run(the width) for the problem's codes and gives back what it gives.
template <class Run>
fh_status with_width(const PlannedScan& scan, const Run& plain_or_weighted) {
    const auto run = [&](auto plain) {
        return scan.groups.G == 0 ? plain_or_weighted(plain) : plain_or_weighted(WeightedWidth<decltype(plain)>());
    };
    const auto at_multiples_of = [&](int64_t bytes) {
        return reinterpret_cast<uintptr_t>(scan.database) % bytes == 0 && scan.stride % bytes == 0;
    };
    if (scan.W == 4 && at_multiples_of(4)) return run(CodeWidth<1, true>());
    if (scan.W == 8 && at_multiples_of(8)) return run(CodeWidth<2, true>());
    if (at_multiples_of(16)) {
        switch (scan.W) {
            case 16:
                return run(CodeWidth<4, true>());
            case 32:
                return run(CodeWidth<8, true>());
            case 48:
                return run(CodeWidth<12, true>());
            case 64:
                return run(CodeWidth<16, true>());
            case 96:
                return run(CodeWidth<24, true>());
            case 128:
                return run(CodeWidth<32, true>());
            default:
                break;
        }
    }
    if (scan.W <= 8) return run(CodeWidth<2, false>());
    if (scan.W <= 32) return run(CodeWidth<8, false>());
    return run(CodeWidth<0, false>());
}

inline PlannedScan make_scan(const fh_hamming_problem& p, int32_t tile, int64_t unit_rows) {
    PlannedScan scan = {{p.queries,
                         p.database,
                         p.mask,
                         nullptr,
                         p.Q,
                         p.N,
                         p.W,
                         p.stride,
                         unit_rows,
                         ceil_div(p.N, unit_rows),
                         tile,
                         1,
                         {}},
                        {p.group_bits, p.group_weights, p.G},
                        largest_distance(p)};
    for (const int32_t granule : {16, 4}) {
        const auto fits = [&](int64_t x) { return x % granule == 0; };
        if (fits(p.W) && fits(p.stride) && fits(reinterpret_cast<intptr_t>(p.database)) &&
            fits(reinterpret_cast<intptr_t>(p.queries))) {
            scan.granule = granule;
            break;
        }
    }
    return scan;
}

// What stage_queries needs.
inline size_t query_bytes(const Scan& scan, int words) {
    return static_cast<size_t>(scan.tile) * words * sizeof(uint32_t);
}

// The queries [first, first + count) of a scan.
inline PlannedScan part_of(PlannedScan scan, int64_t first, int64_t count) {
    scan.queries += first * scan.W;
    if (scan.only != nullptr) scan.only += first;
    scan.Q = count;
    return scan;
}

}  // namespace fasthash
