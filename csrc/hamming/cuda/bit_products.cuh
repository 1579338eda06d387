// Distances of 8 queries from some rows by products of bits on the tensor cores, which product_tile.cuh uses.
//
// The distance of q and x is the number of bits that [q, ~q] and [~x, x] have in common. Started from minus the query's
// limit, the product is negative where x is nearer: one sign for each pair, and 3 signs are gathered by one operation.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/tensor_core.cuh"
#include "hamming/cuda/product_rows.cuh"
#include "hamming/cuda/scan.cuh"

namespace fasthash {

// Queries are staged as the lanes of a product take them: word t of [q, ~q] for 64 bits, else words t kSteps + s of q,
// whose inverse is made on the way. Row 8 j + g of the tile, lane 4 g + t: place (j kSteps + s) 32 + lane.
template <int kWords>
struct BitProducts {
    static constexpr bool kPair = kWords == 2;
    static constexpr int kSteps = kPair ? 1 : kWords / 4;       // products of 256 bits, or one of 128
    static constexpr int kTiles = kSteps < 8 ? 8 / kSteps : 1;  // of 16 rows, that a warp holds at once
    static constexpr int kRows = 16 * kTiles;
    static constexpr int kStagedWords = kPair ? 4 : kWords;  // of a query
    static constexpr int kBlocks = kPair ? 3 : 1;            // of a multiprocessor, at least: more loads under way

    static constexpr int kScale = 1;  // of sums

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

    // What the product of a query starts from: the sum is the distance less the limit, times kScale.
    static __device__ __forceinline__ int start(const Scan&, int64_t, int limit) { return -limit; }

    // Rows n0 .. n0 + kRows - 1, those before `end`. The others have all bits set, in x and in ~x: as far as can be.
    __device__ __forceinline__ BitProducts(const Scan& scan, int64_t n0, int64_t end) : live(0xffffffffu) {
        const int g = lane_index() / 4;
        if (scan.mask == nullptr && n0 + kRows <= end) {
            load<true>(scan, n0 + g);
        } else {
            live = live_of_every_eighth<2 * kTiles>(scan, n0, end, g);
            load<false>(scan, n0 + g);
        }
    }

    // This lane's words of the rows n, n + 8, ...: of those that are live, or of all.
    template <bool kAll>
    __device__ __forceinline__ void load(const Scan& scan, int64_t n) {
        const int t = lane_index() % 4;
        const uint8_t* row = scan.database + n * scan.stride + (kPair ? t % 2 : t * kSteps) * 4;
        const int64_t eight_rows = 8 * scan.stride;
        const uint32_t flip = t < 2 ? 0xffffffffu : 0u;
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i, row += eight_rows) {
            const bool there = kAll || (live >> i & 1) != 0;
            uint32_t (&registers)[kSteps][kPair ? 2 : 4] = a[i / 2];
            if constexpr (kPair) {
                uint32_t word = ~flip;
                if (there) word = *reinterpret_cast<const uint32_t*>(row);
                registers[0][i % 2] = word ^ flip;
            } else {
                Code<kSteps> part = {};
                if (there) part = *reinterpret_cast<const Code<kSteps>*>(row);
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
    __device__ __forceinline__ int multiply(const uint32_t* staged, const int* starts, int j,
                                            int (&d)[kTiles][4]) const {
        const int lane = lane_index();
        const int2 minus = *reinterpret_cast<const int2*>(starts + j * kProductQueries + lane % 4 * 2);
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

}  // namespace fasthash
