// A tile of queries over a range of packed codes by products of bits on the tensor cores: what scan_nearer (scan.cuh)
// does, for widths of 64 bits and of multiples of 128, many times faster.
//
// The distance of q and x is the number of bits that [q, ~q] and [~x, x] have in common. Started from minus the query's
// limit, the product is negative where x is nearer: one sign for each pair, and 3 signs are gathered by one operation.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/tensor_core.cuh"
#include "hamming/scan.cuh"

namespace fasthash {

template <class Width>
constexpr bool has_bit_products() {
    return Width::kExact && (Width::kWords == 2 || Width::kWords % 4 == 0);
}

constexpr int kProductQueries = 8;  // columns of a product

// Queries are staged as the lanes of a product take them: word t of [q, ~q] for 64 bits, else words t kSteps + s of q,
// whose inverse is made on the way. Row 8 j + g of the tile, lane 4 g + t: place (j kSteps + s) 32 + lane.
template <int kWords>
struct BitProducts {
    static constexpr bool kPair = kWords == 2;
    static constexpr int kSteps = kPair ? 1 : kWords / 4;       // products of 256 bits, or one of 128
    static constexpr int kTiles = kSteps < 8 ? 8 / kSteps : 1;  // of 16 rows, that a warp holds at once
    static constexpr int kRows = 16 * kTiles;
    static constexpr int kStagedWords = kPair ? 4 : kWords;  // of a query

    uint32_t a[kTiles][kSteps][kPair ? 2 : 4];
    unsigned live;  // bit i: row 8 i + g is there and eligible

    static __device__ __forceinline__ void stage(const Scan& scan, int64_t q0, int count, uint32_t* staged) {
        const int groups = (count + kProductQueries - 1) / kProductQueries;
        for (int i = static_cast<int>(threadIdx.x); i < groups * kSteps * kWarpSize; i += kScanThreads) {
            const int lane = i % kWarpSize, s = i / kWarpSize % kSteps;
            const int q = i / kWarpSize / kSteps * kProductQueries + lane / 4, t = lane % 4;
            uint32_t word = 0;
            if (q < count) {
                const uint8_t* query = scan.queries + (q0 + q) * scan.W;
                word = load_word(query, kPair ? t % 2 : t * kSteps + s, scan.W, scan.granule);
                if (kPair && t >= 2) word = ~word;
            }
            staged[i] = word;
        }
    }

    // Rows n0 .. n0 + kRows - 1, those before `end`. The others have all bits set, in x and in ~x: as far as can be.
    __device__ __forceinline__ BitProducts(const Scan& scan, int64_t n0, int64_t end) : live(0) {
        const int g = lane_index() / 4, t = lane_index() % 4;
        const uint32_t* halves = reinterpret_cast<const uint32_t*>(scan.mask);
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const int64_t n = n0 + 8 * i + g;
            if (n < end && (halves == nullptr || (halves[n / 32] >> (n % 32) & 1) != 0)) live |= 1u << i;
        }
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const bool there = (live >> i & 1) != 0;
            const uint8_t* row = scan.database + (n0 + 8 * i + g) * scan.stride;
            uint32_t (&registers)[kSteps][kPair ? 2 : 4] = a[i / 2];
            if constexpr (kPair) {
                uint32_t word = 0xffffffffu;
                if (there) word = reinterpret_cast<const uint32_t*>(row)[t % 2] ^ (t < 2 ? 0xffffffffu : 0u);
                registers[0][i % 2] = word;
            } else {
                Code<kSteps> part = {};
                if (there) part = reinterpret_cast<const Code<kSteps>*>(row)[t];
#pragma unroll
                for (int s = 0; s < kSteps; ++s) {
                    registers[s][i % 2] = ~part.word[s];
                    registers[s][2 + i % 2] = there ? part.word[s] : 0xffffffffu;
                }
            }
        }
    }

    // Against the queries 8 j .. 8 j + 7 of the tile: d[i][2 h + c] is the distance of row 16 i + 8 h + g from query
    // 8 j + 2 t + c, less that query's limit. Returns their bitwise or.
    __device__ __forceinline__ int multiply(const uint32_t* staged, const int* minus_limits, int j,
                                            int (&d)[kTiles][4]) const {
        const int lane = lane_index();
        const int2 minus = *reinterpret_cast<const int2*>(minus_limits + j * kProductQueries + lane % 4 * 2);
        const int start[4] = {minus.x, minus.y, minus.x, minus.y};
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
            const uint32_t word = staged[(j * kSteps + s) * kWarpSize + lane];
#pragma unroll
            for (int i = 0; i < kTiles; ++i) {
                if constexpr (kPair) {
                    count_common_128(d[i], a[i][s], word, start);
                } else {
                    const uint32_t b[2] = {word, ~word};
                    if (s == 0)
                        count_common_256(d[i], a[i][s], b, start);
                    else
                        count_common_256(d[i], a[i][s], b, d[i]);
                }
            }
        }
        int signs = 0;
#pragma unroll
        for (int i = 0; i < kTiles; ++i) signs |= d[i][0] | d[i][1] | d[i][2] | d[i][3];
        return signs;
    }
};

// The rows [begin, end) by one warp, against `tile` queries: visit(q, n, distance) for each pair whose distance is
// below the query's limit, in its lane alone and in any order. minus_limits [tile, up to a multiple of 8]: 0 for no
// query. Cost: for each pair of 64 bits an eighth of a product of 16 x 8 x 128 bits for 16 pairs, and 4/3 operations
// for 4.
template <int kWords, class Visit>
__device__ __forceinline__ void multiply_nearer(const Scan& scan, int64_t begin, int64_t end, const uint32_t* staged,
                                                const int* minus_limits, int tile, const Visit& visit) {
    using Products = BitProducts<kWords>;
    for (int64_t n0 = begin; n0 < end; n0 += Products::kRows) {
        const Products rows(scan, n0, end);
        if (scan.mask != nullptr && !__any_sync(kAllLanes, rows.live != 0)) continue;
        for (int j = 0; j * kProductQueries < tile; ++j) {
            int d[Products::kTiles][4];
            // All lanes or none: products need the whole warp.
            if (!__any_sync(kAllLanes, rows.multiply(staged, minus_limits, j, d) < 0)) continue;
#pragma unroll
            for (int i = 0; i < Products::kTiles; ++i) {
#pragma unroll
                for (int r = 0; r < 4; ++r) {
                    const int q = j * kProductQueries + lane_index() % 4 * 2 + r % 2;
                    if (d[i][r] < 0 && (rows.live >> (2 * i + r / 2) & 1) != 0)
                        visit(q, n0 + 16 * i + 8 * (r / 2) + lane_index() / 4, d[i][r] - minus_limits[q]);
                }
            }
            __syncwarp();
        }
    }
}

}  // namespace fasthash
