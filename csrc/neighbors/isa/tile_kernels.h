// The tile algorithms, written once over a vector type. Included by the ISA files alone.
//
// Vec supplies: T, kLanes, kRows (rows of a tile: the accumulators, 2 a row, must fit the registers), Reg; load, store
// (unaligned), set1, zero, add, sub, mul_add(a, b, c) = a b + c, abs, le_bits(a, b), and sign(a) = 1, 0 or -1 (0 for
// NaN). Every Vec lives in its file's anonymous namespace, which keeps these instantiations out of other files. Vec is
// ours, because std::simd is not in C++17, and a library like Highway would be a dependency of the build for a dozen
// functions of one line.
#pragma once

#include "neighbors/isa/tile.h"

namespace fasthash {

// Dimensions summed before they join the total: bounds the rounding error of a long sum.
constexpr int64_t kBlockD = 512;

enum class Norm { l1, l2 };

template <class Vec, Norm norm>
void tile_distances(const typename Vec::T* const* x, const typename Vec::T* panel_y, int64_t D, typename Vec::T* out) {
    using Reg = typename Vec::Reg;
    constexpr int kRows = Vec::kRows, kLanes = Vec::kLanes;
    for (int64_t begin = 0; begin < D || begin == 0; begin += kBlockD) {
        const int64_t end = begin + kBlockD < D ? begin + kBlockD : D;
        Reg sum[kRows][2];
        for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = Vec::zero();
        for (int64_t d = begin; d < end; ++d) {
            const Reg y0 = Vec::load(panel_y + d * 2 * kLanes), y1 = Vec::load(panel_y + d * 2 * kLanes + kLanes);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
                const Reg value = Vec::set1(x[r][d]);
                const Reg d0 = Vec::sub(value, y0), d1 = Vec::sub(value, y1);
                if (norm == Norm::l1) {
                    sum[r][0] = Vec::add(sum[r][0], Vec::abs(d0));
                    sum[r][1] = Vec::add(sum[r][1], Vec::abs(d1));
                } else {
                    sum[r][0] = Vec::mul_add(d0, d0, sum[r][0]);
                    sum[r][1] = Vec::mul_add(d1, d1, sum[r][1]);
                }
            }
        }
        for (int r = 0; r < kRows; ++r)
            for (int half = 0; half < 2; ++half) {
                typename Vec::T* place = out + (2 * r + half) * kLanes;
                Vec::store(place, begin == 0 ? sum[r][half] : Vec::add(Vec::load(place), sum[r][half]));
            }
    }
}

template <class Vec>
void tile_hits(const typename Vec::T* out, const typename Vec::T* row_limit, const typename Vec::T* column_limit,
               uint32_t* row_hits, uint32_t* column_hits) {
    constexpr int kRows = Vec::kRows, kLanes = Vec::kLanes;
    for (int r = 0; r < kRows; ++r) {
        const auto d0 = Vec::load(out + 2 * r * kLanes), d1 = Vec::load(out + (2 * r + 1) * kLanes);
        const auto limit = Vec::set1(row_limit[r]);
        row_hits[r] = Vec::le_bits(d0, limit) | Vec::le_bits(d1, limit) << kLanes;
        if (column_limit != nullptr)
            column_hits[r] = Vec::le_bits(d0, Vec::load(column_limit)) |
                             Vec::le_bits(d1, Vec::load(column_limit + kLanes)) << kLanes;
    }
}

template <class Vec>
void tile_sign_sum(const typename Vec::T* x, const typename Vec::T* y, const typename Vec::T* g, int64_t count,
                   int64_t D, typename Vec::T* out) {
    constexpr int kLanes = Vec::kLanes, kWide = 4;
    int64_t d = 0;
    for (; d + kWide * kLanes <= D; d += kWide * kLanes) {
        typename Vec::Reg value[kWide], sum[kWide];
        for (int v = 0; v < kWide; ++v) {
            value[v] = Vec::load(x + d + v * kLanes);
            sum[v] = Vec::zero();
        }
        for (int64_t c = 0; c < count; ++c) {
            const auto weight = Vec::set1(g[c]);
#pragma GCC unroll 4
            for (int v = 0; v < kWide; ++v) {
                const auto sign = Vec::sign(Vec::sub(value[v], Vec::load(y + c * D + d + v * kLanes)));
                sum[v] = Vec::mul_add(weight, sign, sum[v]);
            }
        }
        for (int v = 0; v < kWide; ++v) Vec::store(out + d + v * kLanes, sum[v]);
    }
    for (; d < D; ++d) {
        typename Vec::T sum = 0;
        for (int64_t c = 0; c < count; ++c) {
            const typename Vec::T difference = x[d] - y[c * D + d];
            sum += g[c] * static_cast<typename Vec::T>((difference > 0) - (difference < 0));
        }
        out[d] = sum;
    }
}

template <class Vec>
constexpr TileKernels<typename Vec::T> tile_kernels() {
    static_assert(2 * Vec::kLanes <= 32, "hits are 32-bit masks");
    return {
        Vec::kRows,     2 * Vec::kLanes,    tile_distances<Vec, Norm::l1>, tile_distances<Vec, Norm::l2>,
        tile_hits<Vec>, tile_sign_sum<Vec>,
    };
}

}  // namespace fasthash
