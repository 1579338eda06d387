// What the asymmetric search on CUDA makes of a query before it reads the database.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "asymmetric/asymmetric_topk.h"
#include "asymmetric/cuda/search.cuh"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "hamming/groups.h"

namespace fasthash {

constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / kWarpSize;
constexpr int kColumnQueries = 8;  // queries of a product

// Groups of weighted bits, in the arguments of a kernel.
struct BitWeights {
    int32_t ends[kMostGroups];  // the bit after each group
    int32_t weights[kMostGroups];
    int32_t G;

    __device__ __forceinline__ double of(int64_t bit) const {
        int g = 0;
        while (g + 1 < G && bit >= ends[g]) ++g;
        return G == 0 ? 1.0 : static_cast<double>(weights[g]);
    }
};

struct PrepareShared {
    double factor, base, step;
    double widest[kScanWarps], zeros[kScanWarps], sizes[kScanWarps];
};

// What a bit of a query adds to the sum where it is 0, and where it is 1.
struct BitTerms {
    double zero, one;
};

template <class Real>
__device__ __forceinline__ BitTerms terms_of(const Real* query, int64_t d, fh_asymmetric_metric metric,
                                             const BitWeights& weights) {
    const double q = static_cast<double>(query[d]);
    if (metric != FH_L1) return {q, -q};
    const double weight = weights.of(d);
    return {__dmul_rn(weight, fabs(q)), __dmul_rn(weight, fabs(__dsub_rn(q, 1.0)))};
}

// One block for each query, and for each that pads the batch, whose bytes are 0: the bound, the table of sums and the
// bytes of the filter. Squares are added by one thread, in the order of the contract.
template <class Real>
__global__ void __launch_bounds__(kScanThreads)
    asymmetric_prepare_kernel(const __grid_constant__ AsymmetricSearch s, const Real* __restrict__ queries,  // [Q, D]
                              int64_t D, fh_asymmetric_metric metric, const __grid_constant__ BitWeights weights) {
    auto& shared = shared_memory<PrepareShared>();
    const int64_t q = blockIdx.x;
    const int thread = static_cast<int>(threadIdx.x);
    const Real* query = queries + q * D;
    uint32_t* words = reinterpret_cast<uint32_t*>(s.bytes + q / kColumnQueries * s.steps * kWarpSize);
    const int column = static_cast<int>(q % kColumnQueries);
    // Word (step, t, half) of this query; byte i of it is that of bit 32 step + 8 i + 7 - 4 half - t.
    const auto word = [&](int64_t i) -> uint32_t& {
        return words[(i / 8 * kWarpSize + column * 4 + i / 2 % 4) * 2 + i % 2];
    };
    if (q >= s.Q) {
        for (int64_t i = thread; i < s.steps * 8; i += kScanThreads) word(i) = 0;
        if (thread == 0) {
            if (s.scales == nullptr)
                s.minus_limits[q] = kNoLimit;
            else
                s.scaled_limits[q] = make_float4(0, 0, 0, -INFINITY);
        }
        return;
    }
    double squares = 0;
    if (thread == 0) {
        if (metric == FH_COSINE || metric == FH_L2) {
#pragma unroll 4
            for (int64_t d = 0; d < D; ++d) {
                const double x = static_cast<double>(query[d]);
                squares = __dadd_rn(squares, __dmul_rn(x, x));
            }
        }
        shared.factor = metric == FH_L2       ? 2
                        : metric != FH_COSINE ? 1
                        : squares > 0         ? __ddiv_rn(1.0, __dsqrt_rn(squares))
                                              : 0;
    }
    __syncthreads();
    const double factor = shared.factor;

    double widest = 0, zeros = 0, sizes = 0;
    for (int64_t d = thread; d < D; d += kScanThreads) {
        const BitTerms terms = terms_of(query, d, metric, weights);
        widest = fmax(widest, fabs(factor * (terms.one - terms.zero)));
        zeros += factor * terms.zero;
        sizes += fmax(fabs(factor * terms.zero), fabs(factor * terms.one));
    }
    widest = -warp_min(-widest);
    zeros = warp_sum(zeros);
    sizes = warp_sum(sizes);
    if (lane_index() == 0) {
        shared.widest[warp_index()] = widest;
        shared.zeros[warp_index()] = zeros;
        shared.sizes[warp_index()] = sizes;
    }
    __syncthreads();
    if (thread == 0) {
        for (int w = 1; w < kScanWarps; ++w) {
            widest = fmax(widest, shared.widest[w]);
            zeros += shared.zeros[w];
            sizes += shared.sizes[w];
        }
        constexpr double kLeastStep = 0x1p-1000;
        const double step = widest / 127;
        shared.step = step > kLeastStep ? step : 0;  // 0: too small to be divided by
        BoundedQuery bound = {};
        bound.offset = metric == FH_COSINE ? 1 : metric == FH_L2 ? squares : 0;
        bound.factor = factor;
        bound.square = metric == FH_L2 ? static_cast<double>(D) : 0;
        bound.scale = metric == FH_COSINE ? __ddiv_rn(1.0, __dsqrt_rn(static_cast<double>(D))) : 1;
        bound.base = zeros;
        bound.step = step > kLeastStep ? step : 1;
        bound.magnitude = 3 * sizes + bound.step * static_cast<double>(D);
        bound.unit = 1;
        while (bound.magnitude * bound.unit >= 2 && bound.unit > 0x1p-1000) bound.unit /= 2;
        while (bound.magnitude * bound.unit < 1 && bound.unit < 0x1p+1000) bound.unit *= 2;
        bound.scaled_base = __double2float_rd((bound.base - kFloatSlack * bound.magnitude) * bound.unit);
        bound.scaled_step = __double2float_rd(bound.step * bound.unit);
        bound.scaled_square = __double2float_rd(fmin(bound.square * bound.unit * (1 - kFloatSlack), kMostSquare));
        bound.clamped = metric == FH_L2;
        s.bounds[q] = bound;
        s.taken[q] = 0;
        s.last_keys[q] = kNoKey;
        s.last_positions[q] = INT64_MAX;
        s.overflowed[q] = 0;
        set_limit(s, q, kNoKey);
    }
    __syncthreads();
    const double step = shared.step;
    for (int64_t i = thread; i < s.steps * 8; i += kScanThreads) {
        uint32_t bytes = 0;
        for (int byte = 0; byte < 4; ++byte) {
            const int64_t d = i / 8 * 32 + 8 * byte + 7 - i % 2 * 4 - i / 2 % 4;
            if (d >= D) continue;
            const BitTerms terms = terms_of(query, d, metric, weights);
            const double difference = factor * (terms.one - terms.zero);
            const int e = step == 0 ? (difference < 0 ? -1 : 0)
                                    : static_cast<int>(fmin(fmax(floor(difference / step), -128.0), 127.0));
            bytes |= (static_cast<uint32_t>(e) & 255u) << (8 * byte);
        }
        word(i) = bytes;
    }
    double* table = s.sums + q * 32 * s.W;
    for (int64_t i = thread; i < 32 * s.W; i += kScanThreads) {
        double sum = 0;
        for (int bit = 0; bit < 4 && i / 16 * 4 + bit < D; ++bit) {
            const BitTerms terms = terms_of(query, i / 16 * 4 + bit, metric, weights);
            sum = __dadd_rn(sum, (i % 16 >> (3 - bit) & 1) != 0 ? terms.one : terms.zero);
        }
        table[i] = sum;
    }
}

}  // namespace fasthash
