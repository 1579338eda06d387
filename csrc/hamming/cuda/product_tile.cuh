// A tile of queries over a range of packed codes by products on the tensor cores: what CountedTile (scan.cuh) does, for
// undivided codes of 64 bits and of multiples of 128, with far fewer instructions. Products of bits where the GPU has
// them, sm_80 to sm_90; products of bytes from sm_100 on, for up to 256 bits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "core/cuda/tensor_core.cuh"
#include "hamming/cuda/bit_products.cuh"
#include "hamming/cuda/byte_products.cuh"
#include "hamming/cuda/scan.cuh"

namespace fasthash {

template <class Width>
constexpr bool has_bit_products() {
    return Width::kExact && !Width::kWeighted && (Width::kWords == 2 || Width::kWords % 4 == 0);
}

// Fewer queries are counted as fast as memory. By the instructions of a warp for 128 codes of 64 bits (sm_90a):
// counting takes 70, and 31 a query, of which 8 are POPC (8 clocks of a scheduler each); products take 100 (without a
// mask), and 60 for each 8 queries.
#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kLeastProductQueries = 3;
#else
constexpr int64_t kLeastProductQueries = 4;
#endif

// Whether products pay for this scan.
inline bool multiplies(const PlannedScan& scan) {
    const auto has_products = [](auto width) { return has_bit_products<decltype(width)>() ? FH_OK : FH_INVALID; };
    return scan.Q >= kLeastProductQueries && with_width(scan, has_products) == FH_OK;
}

template <class Width>
size_t product_bytes(const Scan& scan) {
    const int64_t columns = ceil_div(scan.tile, kProductQueries) * kProductQueries;
    return static_cast<size_t>(columns) * (BitProducts<Width::kWords>::kStagedWords + 2) * 4;
}

// As CountedTile, by products.
template <class Width, class Products>
struct ProductTile {
    using ScanType = Scan;
    static constexpr int kBlocks = Products::kBlocks;
    uint32_t* queries;  // as Products takes them
    int* starts;        // [count, up to a multiple of 8]: what products start from; 0 where there is no query
    int* limits;        // [the same]
    int count;

    static size_t bytes(const Scan& scan) { return product_bytes<Width>(scan); }

    template <class Limit>
    __device__ __forceinline__ ProductTile(const Scan& scan, int64_t q0, int count_, uint32_t* shared,
                                           const Limit& limit)
        : queries(shared), count(count_) {
        const int columns = (count + kProductQueries - 1) / kProductQueries * kProductQueries;
        starts = reinterpret_cast<int*>(shared + columns * BitProducts<Width::kWords>::kStagedWords);
        limits = starts + columns;
        Products::stage(scan, q0, count, queries);
        for (int q = static_cast<int>(threadIdx.x); q < columns; q += kScanThreads) {
            limits[q] = q < count ? limit(q) : 0;
            starts[q] = q < count ? Products::start(scan, q0 + q, limits[q]) : 0;
        }
    }

    // Cost: for each 128 pairs of 64 bits one product of 16 x 8 x 128 bits (or two of 16 x 8 x 32 bytes), and a third
    // of an operation a pair.
    template <class Visit>
    __device__ __forceinline__ void visit_nearer(const Scan& scan, int64_t begin, int64_t end,
                                                 const Visit& visit) const {
        for (int64_t n0 = begin; n0 < end; n0 += Products::kRows) {
            const Products rows(scan, n0, end);
            if (scan.mask != nullptr && !__any_sync(kAllLanes, rows.live != 0)) continue;
            for (int j = 0; j * kProductQueries < count; ++j) {
                int d[Products::kTiles][4];
                // All lanes or none: products need the whole warp.
                if (!__any_sync(kAllLanes, rows.multiply(queries, starts, j, d) < 0)) continue;
#pragma unroll
                for (int i = 0; i < Products::kTiles; ++i) {
#pragma unroll
                    for (int r = 0; r < 4; ++r) {
                        const int q = j * kProductQueries + lane_index() % 4 * 2 + r % 2;
                        if (d[i][r] < 0 && (rows.live >> (2 * i + r / 2) & 1) != 0)
                            visit(q, n0 + 16 * i + 8 * (r / 2) + lane_index() / 4,
                                  d[i][r] / Products::kScale + limits[q]);
                    }
                }
                __syncwarp();
            }
        }
    }
};

#if defined(__CUDA_ARCH__) || defined(FASTHASH_EMULATE_CUDA)
template <class Width>
using ByteTile =
    std::conditional_t<Width::kWords <= 8, ProductTile<Width, ByteProducts<Width::kWords>>, CountedTile<Width>>;
template <class Width>
using BaseOfMultiplied =
    std::conditional_t<FASTHASH_BYTE_PRODUCTS != 0, ByteTile<Width>, ProductTile<Width, BitProducts<Width::kWords>>>;
#else
template <class Width>
using BaseOfMultiplied = CountedTile<Width>;  // the host, which launches kernels for any GPU, only measures
#endif

// The tile of each GPU, in as much memory on all.
template <class Width>
struct MultipliedTile : BaseOfMultiplied<Width> {
    using BaseOfMultiplied<Width>::BaseOfMultiplied;
    static size_t bytes(const Scan& scan) { return product_bytes<Width>(scan); }
};

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
