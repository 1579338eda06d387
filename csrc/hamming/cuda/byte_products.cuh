// Distances of 8 queries from some rows by products of bytes on the tensor cores, for GPUs that have no products of
// bits (product_tile.cuh).
//
// The distance of q and x is the number of bits of q, plus x (1 - 2 q) over all bits. Bits become bytes without being
// moved: bit i of a half byte of x stands for 0 or 2^i, and that of 1 - 2 q for +-2^(5 - i), so that each product is 32
// times too large. Started from 32 (bits of q - limit), a sum is negative where x is nearer.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/tensor_core.cuh"
#include "hamming/cuda/product_rows.cuh"
#include "hamming/cuda/scan.cuh"

namespace fasthash {

// A lane takes words t kSteps + s of a row, as in BitProducts; of 64 bits one half of each byte of word t % 2, the
// lower for t < 2. Row 8 j + g of the tile, lane 4 g + t: place (j kSteps + s) 32 + lane.
template <int kWords>
struct ByteProducts {
    static constexpr bool kPair = kWords == 2;
    static constexpr int kSteps = kPair ? 1 : kWords / 4;             // words of a lane
    static constexpr int kHalves = kPair ? 1 : 2;                     // of each byte
    static constexpr int kProducts = kSteps * kHalves * 2;            // of 32 bytes
    static constexpr int kTiles = kProducts < 8 ? 8 / kProducts : 1;  // of 16 rows, that a warp holds at once
    static constexpr int kRows = 16 * kTiles;
    static constexpr int kBlocks = 1;
    static constexpr int kScale = 32;  // of sums

    uint32_t a[kTiles][kProducts][4];
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
                if (kPair && t >= 2) word >>= 4;
            }
            staged[i] = word;
        }
    }

    static __device__ __forceinline__ int start(const Scan& scan, int64_t q, int limit) {
        int bits = 0;
        for (int w = 0; w < kWords; ++w) bits += __popc(load_word(scan.queries + q * scan.W, w, scan.W, scan.granule));
        return kScale * (bits - limit);
    }

    // Rows n0 .. n0 + kRows - 1, those before `end` that are eligible. The others are taken for zeros.
    __device__ __forceinline__ ByteProducts(const Scan& scan, int64_t n0, int64_t end) {
        const int g = lane_index() / 4, t = lane_index() % 4;
        live = live_of_every_eighth<2 * kTiles>(scan, n0, end, g);
        const uint8_t* row = scan.database + (n0 + g) * scan.stride + (kPair ? t % 2 : t * kSteps) * 4;
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i, row += 8 * scan.stride) {
            Code<kSteps> part = {};
            if ((live >> i & 1) != 0) part = *reinterpret_cast<const Code<kSteps>*>(row);
#pragma unroll
            for (int s = 0; s < kSteps; ++s) {
#pragma unroll
                for (int h = 0; h < kHalves; ++h) {
                    const uint32_t half = part.word[s] >> (kPair ? (t >= 2 ? 4 : 0) : 4 * h);
#pragma unroll
                    for (int bit = 0; bit < 4; ++bit)
                        a[i / 2][(s * kHalves + h) * 2 + bit / 2][bit % 2 * 2 + i % 2] = half & 0x01010101u << bit;
                }
            }
        }
    }

    // Bytes of 1 - 2 q, times 2^(5 - bit), of the half bytes of a word. A byte's product and sum stay below 256.
    static __device__ __forceinline__ uint32_t signs_of(uint32_t half, int bit) {
        const uint32_t set = static_cast<uint32_t>(256 - (64 >> bit)) >> bit;
        return (half & 0x01010101u << bit) * set + (0x20202020u >> bit);
    }

    // Against the queries 8 j .. 8 j + 7 of the tile: d[i][2 h + c] is 32 times the distance of row 16 i + 8 h + g from
    // query 8 j + 2 t + c, less that query's limit. Returns their bitwise or.
    __device__ __forceinline__ int multiply(const uint32_t* staged, const int* starts, int j,
                                            int (&d)[kTiles][4]) const {
        const int lane = lane_index();
        const int2 start = *reinterpret_cast<const int2*>(starts + j * kProductQueries + lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
            d[i][0] = d[i][2] = start.x;
            d[i][1] = d[i][3] = start.y;
        }
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
            const uint32_t word = staged[(j * kSteps + s) * kWarpSize + lane];
#pragma unroll
            for (int p = 0; p < 2 * kHalves; ++p) {
                const uint32_t half = word >> (p / 2 * 4);
                const uint32_t b[2] = {signs_of(half, p % 2 * 2), signs_of(half, p % 2 * 2 + 1)};
#pragma unroll
                for (int i = 0; i < kTiles; ++i) multiply_bytes_16x8x32(d[i], a[i][s * 2 * kHalves + p], b, d[i]);
            }
        }
        int signs = 0;
#pragma unroll
        for (int i = 0; i < kTiles; ++i) signs |= d[i][0] | d[i][1] | d[i][2] | d[i][3];
        return signs;
    }
};

}  // namespace fasthash
