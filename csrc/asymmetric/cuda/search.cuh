// One batch of queries of the asymmetric search on CUDA: where everything lies, and the candidates of a query.
//
// Candidates are pairs (key of the distance, position). As soon as K are known, the K-th of them is the query's last:
// no pair after it is wanted. So what the search finds does not depend on the order in which codes are visited.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "asymmetric/cuda/byte_bound.cuh"
#include "core/cuda/warp.cuh"

namespace fasthash {

using Count = unsigned long long;  // the 64-bit type of atomicAdd

struct AsymmetricSearch {
    const uint8_t* database;  // [N, W], rows `stride` bytes apart
    const uint64_t* mask;     // [ceil(N / 64)] or null
    const uint16_t* scales;   // [N] or null
    int64_t N, W, stride;
    int64_t steps;           // words of 4 bytes of a code: ceil(W / 4)
    int64_t Q;               // queries of the batch
    int64_t K, room;         // candidates that are wanted, and that a query has room for
    int32_t position_bytes;  // of a position, at most
    int32_t granule;         // 16, 8, 4 or 1: every row starts at a multiple of it, and W is one

    BoundedQuery* bounds;     // [Q]
    double* sums;             // [Q, 2 W, 16]: S of asymmetric_topk.h, by nibble and its value
    uint2* bytes;             // [ceil(Q / 32) x 4, steps, 32]: e_d of 8 queries as the lanes of a product take them
    int32_t* minus_limits;    // [Q, up to a multiple of 32]: a code passes where U is less; without scales
    float4* scaled_limits;    // the same with scales: base, step, square, and what the bound may not pass
    uint32_t* keys;           // [Q, room] candidates
    int64_t* positions;       // [Q, room]
    Count* taken;             // [Q]: candidates; more than `room` where some found none
    uint32_t* last_keys;      // [Q]: of the K-th candidate so far; kNoKey: there are fewer
    int64_t* last_positions;  // [Q]
    int32_t* overflowed;      // [Q]: 1 where candidates were lost

    __device__ bool is_live(int64_t n) const { return mask == nullptr || (mask[n / 64] >> (n % 64) & 1) != 0; }
};

// Makes the filter let through what may be as near as a key. One thread.
__device__ __forceinline__ void set_limit(const AsymmetricSearch& s, int64_t q, uint32_t key) {
    const BoundedQuery& bound = s.bounds[q];
    if (s.scales == nullptr)
        s.minus_limits[q] = -sum_limit(bound, key);
    else
        s.scaled_limits[q] =
            make_float4(bound.scaled_base, bound.scaled_step, bound.scaled_square, scaled_limit(bound, key));
}

// Lets nothing through.
__device__ __forceinline__ void close_limit(const AsymmetricSearch& s, int64_t q) {
    if (s.scales == nullptr)
        s.minus_limits[q] = kNoLimit;
    else
        s.scaled_limits[q] = make_float4(0, 0, 0, -INFINITY);
}

// A code that the filter has let through: its exact distance, and a place among the candidates. Any lane by itself.
// Cost: 2 W look-ups in the table of sums and as many additions, one after the other.
__device__ __noinline__ void consider(const AsymmetricSearch& s, int64_t q, int64_t n) {
    // A query that is lost already only reads.
    if (*const_cast<volatile Count*>(&s.taken[q]) > static_cast<Count>(s.room)) return;
    const uint8_t* row = s.database + n * s.stride;
    const double* table = s.sums + q * 32 * s.W;
    double sum = 0;
    for (int64_t byte = 0; byte < s.W; ++byte, table += 32) {
        const int bits = row[byte];
        sum = __dadd_rn(sum, table[bits >> 4]);
        sum = __dadd_rn(sum, table[16 + (bits & 15)]);
    }
    const BoundedQuery& bound = s.bounds[q];
    const double scale = s.scales != nullptr ? static_cast<double>(scale_of(s.scales[n])) : bound.scale;
    const uint32_t key = key_of(exact_distance(bound, sum, scale));
    const uint32_t last = s.last_keys[q];
    if (key > last || (key == last && n >= s.last_positions[q])) return;
    const Count place = atomicAdd(&s.taken[q], Count(1));
    if (place >= static_cast<Count>(s.room)) return;
    s.keys[q * s.room + static_cast<int64_t>(place)] = key;
    s.positions[q * s.room + static_cast<int64_t>(place)] = n;
}

}  // namespace fasthash
