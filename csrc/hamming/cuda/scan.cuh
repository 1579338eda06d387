// One pass of a tile of queries over a range of packed codes: what every Hamming kernel is built on.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/cuda_check.h"
#include "core/cuda/warp.cuh"
#include "hamming/hamming.h"

namespace fasthash {

constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / kWarpSize;

// The database is cut into units of unit_rows consecutive rows (a multiple of 128); one warp owns a unit and goes
// through it in ascending order. Queries are cut into tiles.
struct Scan {
    const uint8_t* queries;   // [Q, W]
    const uint8_t* database;  // [N, W], rows `stride` bytes apart
    const uint64_t* mask;     // [ceil(N / 64)] or null
    const int32_t* only;      // [Q]: queries with 0 are left out; or null
    int64_t Q, N, W, stride;
    int64_t unit_rows, units;
    int32_t tile;     // queries of a tile
    int32_t granule;  // 16, 4 or 1: every row and query starts at a multiple of it, and W is one

    __host__ __device__ int64_t tiles() const { return (Q + tile - 1) / tile; }
    // Blocks next to each other take different queries over the same rows, so that L2 serves the rows to all but one.
    __host__ __device__ int64_t blocks() const { return (units + kScanWarps - 1) / kScanWarps * tiles(); }

    __device__ bool wants(int64_t q) const { return only == nullptr || only[q] != 0; }
    __device__ bool wants_any(int64_t q0, int count) const {
        for (int q = 0; q < count; ++q)
            if (wants(q0 + q)) return true;
        return false;
    }
};

// How a code lies in registers: kWords 32-bit words. Exact: W = 4 kWords and rows are aligned for Code's vector loads.
// Otherwise rows are loaded by words or bytes and padded with zeros. kWords = 0: codes too wide for registers, which
// are read through L1 for each query.
template <int kWordCount, bool kAligned>
struct CodeWidth {
    static constexpr int kWords = kWordCount;
    static constexpr bool kExact = kAligned;
    // Rows that a lane holds at once: enough bytes in flight to hide the latency of memory.
    static constexpr int kRows = kWords == 0 ? 1 : kWords <= 2 ? 4 : kWords <= 8 ? 2 : 1;
};

constexpr int code_alignment(int words) { return words % 4 == 0 ? 16 : words % 2 == 0 ? 8 : 4; }

template <int kWords>
struct alignas(code_alignment(kWords)) Code {
    uint32_t word[kWords];
};

// Word `w` of a code of W bytes, zero past its end; bytes lie in the order that a 4-byte load of the machine gives.
__device__ __forceinline__ uint32_t load_word(const uint8_t* code, int64_t w, int64_t W, int granule) {
    if (4 * w >= W) return 0;
    if (granule >= 4) return *reinterpret_cast<const uint32_t*>(code + 4 * w);
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b)
        if (4 * w + b < W) word |= static_cast<uint32_t>(code[4 * w + b]) << (8 * b);
    return word;
}

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

// Three words added column by column: bit i of `ones` and `twos` is the number of their bits i that are 1. Two LOP3.
struct ColumnSum {
    uint32_t ones, twos;
};
__device__ __forceinline__ ColumnSum add_columns(uint32_t a, uint32_t b, uint32_t c) {
    return {a ^ b ^ c, (a & b) | (c & (a | b))};
}

// An SM counts the bits of 16 words a clock and does 64 other operations on integers, so up to a point words are
// cheaper added than counted (carry-save adders): of 8 words 5 are left to count, of 4 words 3.
template <int kWords>
__device__ __forceinline__ int code_distance(const Code<kWords>& a, const Code<kWords>& b) {
    constexpr int kEights = kWords / 8 * 8, kFours = kWords / 4 * 4;
    uint32_t x[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) x[w] = a.word[w] ^ b.word[w];
    int ones = 0, twos = 0;
#pragma unroll
    for (int w = 0; w < kEights; w += 8) {
        const ColumnSum low = add_columns(x[w], x[w + 1], x[w + 2]), high = add_columns(x[w + 3], x[w + 4], x[w + 5]);
        const ColumnSum both = add_columns(low.ones, high.ones, x[w + 6]);
        ones += __popc(both.ones) + __popc(x[w + 7]);
        twos += __popc(low.twos) + __popc(high.twos) + __popc(both.twos);
    }
#pragma unroll
    for (int w = kEights; w < kFours; w += 4) {
        const ColumnSum sum = add_columns(x[w], x[w + 1], x[w + 2]);
        ones += __popc(sum.ones) + __popc(x[w + 3]);
        twos += __popc(sum.twos);
    }
#pragma unroll
    for (int w = kFours; w < kWords; ++w) ones += __popc(x[w]);
    return ones + 2 * twos;
}

__device__ __forceinline__ int wide_distance(const uint8_t* a, const uint8_t* b, int64_t W, int granule) {
    int distance = 0;
    if (granule == 16) {
        for (int64_t i = 0; i < W; i += 16) {
            const uint4 x = *reinterpret_cast<const uint4*>(a + i), y = *reinterpret_cast<const uint4*>(b + i);
            distance += __popc(x.x ^ y.x) + __popc(x.y ^ y.y) + __popc(x.z ^ y.z) + __popc(x.w ^ y.w);
        }
    } else {
        for (int64_t w = 0; 4 * w < W; ++w)
            distance += __popc(load_word(a, w, W, granule) ^ load_word(b, w, W, granule));
    }
    return distance;
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

constexpr int kNever = 1 << 24;  // more than any distance

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
            add[r] = live[r] ? 0 : kNever;
            if constexpr (Width::kWords > 0)
                if (live[r]) code[r] = load_code<Width>(scan, row + kWarpSize * r * scan.stride);
        }
    }

    // From query q of the tile that starts at q0.
    __device__ __forceinline__ void distances(const Scan& scan, int64_t q0, const uint32_t* staged, int q,
                                              int (&distance)[kRows]) const {
        if constexpr (Width::kWords > 0) {
            const auto query = reinterpret_cast<const Code<Width::kWords>*>(staged)[q];
#pragma unroll
            for (int r = 0; r < kRows; ++r) distance[r] = code_distance(code[r], query) + add[r];
        } else {
            distance[0] = add[0];
            if (add[0] == 0) distance[0] = wide_distance(row, scan.queries + (q0 + q) * scan.W, scan.W, scan.granule);
        }
    }
};

// A tile of queries in shared memory, each with a limit; rows are compared with them by counting bits.
template <class Width>
struct CountedTile {
    uint32_t* queries;  // [count, kWords]
    int32_t* limits;    // [count]
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
    // popcounts where words are added first), their sum and a comparison.
    template <class Visit>
    __device__ __forceinline__ void visit_nearer(const Scan& scan, int64_t begin, int64_t end,
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
// (the distance is void). Cost: W bytes a row once for the tile, kWords popcounts a pair.
template <class Width, class Which, class Visit>
__device__ __forceinline__ void scan_rows(const Scan& scan, int64_t begin, int64_t end, int64_t q0,
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
#pragma unroll
                for (int r = 0; r < kRows; ++r) visit(q, n0 + kWarpSize * r, live[r], code_distance(code[r], query));
            }
        } else {
            const uint8_t* row = scan.database + n0 * scan.stride;
            for (int i = 0; i < count; ++i) {
                const int q = which(i);
                const int distance =
                    live[0] ? wide_distance(row, scan.queries + (q0 + q) * scan.W, scan.W, scan.granule) : 0;
                visit(q, n0, live[0], distance);
            }
        }
    }
}

// Calls run(CodeWidth) for the problem's codes and gives back what it gives.
template <class Run>
fh_status with_width(const Scan& scan, const Run& run) {
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

inline Scan make_scan(const fh_hamming_problem& p, int32_t tile, int64_t unit_rows) {
    Scan scan = {p.queries, p.database, p.mask, nullptr, p.Q, p.N, p.W, p.stride, unit_rows, ceil_div(p.N, unit_rows),
                 tile,      1};
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
inline Scan part_of(Scan scan, int64_t first, int64_t count) {
    scan.queries += first * scan.W;
    if (scan.only != nullptr) scan.only += first;
    scan.Q = count;
    return scan;
}

}  // namespace fasthash
