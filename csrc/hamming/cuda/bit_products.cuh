// A tile of queries over a range of packed codes by products of bits on the tensor cores: what CountedTile (scan.cuh)
// does, for undivided codes of 64 bits and of multiples of 128, with far fewer instructions.
//
// The distance of q and x is the number of bits that [q, ~q] and [~x, x] have in common. Started from minus the query's
// limit, the product is negative where x is nearer: one sign for each pair, and 3 signs are gathered by one operation.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/tensor_core.cuh"
#include "hamming/cuda/scan.cuh"

namespace fasthash {

template <class Width>
constexpr bool has_bit_products() {
    return Width::kExact && !Width::kWeighted && (Width::kWords == 2 || Width::kWords % 4 == 0);
}

constexpr int kProductQueries = 8;  // columns of a product
// Fewer queries are counted as fast as memory. By the instructions of a warp for 128 codes of 64 bits (sm_90a):
// counting takes 70, and 31 a query, of which 8 are POPC (8 clocks of a scheduler each); products take 100 (without a
// mask), and 60 for each 8 queries.
#ifdef FASTHASH_EMULATE_CUDA
constexpr int64_t kLeastProductQueries = 3;
#else
constexpr int64_t kLeastProductQueries = 4;
#endif

// Whether products pay for this scan.
inline bool multiplies(const PlannedScan& scan) {
    const auto has_products = [](auto width) { return has_bit_products<decltype(width)>() ? FH_OK : FH_INVALID; };
    return scan.Q >= kLeastProductQueries && with_width(scan, has_products) == FH_OK;
}

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
        const int g = lane_index() / 4;
        if (scan.mask == nullptr && n0 + kRows <= end) {
            live = 0xffffffffu;
            load<true>(scan, n0 + g);
            return;
        }
        const uint32_t* halves = reinterpret_cast<const uint32_t*>(scan.mask);
#pragma unroll
        for (int i = 0; i < 2 * kTiles; ++i) {
            const int64_t n = n0 + 8 * i + g;
            if (n < end && (halves == nullptr || (halves[n / 32] >> (n % 32) & 1) != 0)) live |= 1u << i;
        }
        load<false>(scan, n0 + g);
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

template <class Width>
size_t product_bytes(const Scan& scan) {
    const int64_t columns = ceil_div(scan.tile, kProductQueries) * kProductQueries;
    return static_cast<size_t>(columns) * (BitProducts<Width::kWords>::kStagedWords + 1) * 4;
}

#if FASTHASH_BIT_PRODUCTS
// As CountedTile, by products.
template <class Width>
struct MultipliedTile {
    using ScanType = Scan;
    using Products = BitProducts<Width::kWords>;
    uint32_t* queries;  // as BitProducts takes them
    int* minus_limits;  // [count, up to a multiple of 8]: 0 where there is no query
    int count;

    static size_t bytes(const Scan& scan) { return product_bytes<Width>(scan); }

    template <class Limit>
    __device__ __forceinline__ MultipliedTile(const Scan& scan, int64_t q0, int count_, uint32_t* shared,
                                              const Limit& limit)
        : queries(shared), count(count_) {
        const int columns = (count + kProductQueries - 1) / kProductQueries * kProductQueries;
        minus_limits = reinterpret_cast<int*>(shared + columns * Products::kStagedWords);
        Products::stage(scan, q0, count, queries);
        for (int q = static_cast<int>(threadIdx.x); q < columns; q += kScanThreads)
            minus_limits[q] = q < count ? -limit(q) : 0;
    }

    // Cost: for each 128 pairs of 64 bits one product of 16 x 8 x 128 bits, and a third of an operation a pair.
    template <class Visit>
    __device__ __forceinline__ void visit_nearer(const Scan& scan, int64_t begin, int64_t end,
                                                 const Visit& visit) const {
        for (int64_t n0 = begin; n0 < end; n0 += Products::kRows) {
            const Products rows(scan, n0, end);
            if (scan.mask != nullptr && !__any_sync(kAllLanes, rows.live != 0)) continue;
            for (int j = 0; j * kProductQueries < count; ++j) {
                int d[Products::kTiles][4];
                // All lanes or none: products need the whole warp.
                if (!__any_sync(kAllLanes, rows.multiply(queries, minus_limits, j, d) < 0)) continue;
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
};
#else
// Where products are slow, and in the host's pass of the compiler: a CountedTile in as much memory.
template <class Width>
struct MultipliedTile : CountedTile<Width> {
    using CountedTile<Width>::CountedTile;
    static size_t bytes(const Scan& scan) { return product_bytes<Width>(scan); }
};
#endif

// Calls run(the type of the tiles that suit the scan).
template <class Tile>
struct TileType {
    using Type = Tile;
};
template <class Run>
fh_status with_tile(const PlannedScan& scan, const Run& run) {
    const bool products = multiplies(scan);
    return with_width(scan, [&](auto width) {
        using Width = decltype(width);
        if constexpr (has_bit_products<Width>())
            if (products) return run(TileType<MultipliedTile<Width>>());
        return run(TileType<CountedTile<Width>>());
    });
}

}  // namespace fasthash
