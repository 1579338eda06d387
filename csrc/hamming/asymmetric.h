// Distances of real-valued queries to packed codes.
//
// queries [Q, D] double, codes [Q, C, W] uint8 contiguous (each query's own candidates; bit d of a code is bit 7 - d %
// 8 of byte d / 8), 1 <= D <= 8 W; bits from D on do not count. distances[q, c] = sum over d of w_d |queries[q, d] -
// bit d|, [Q, C] float, rounded once from a double. w_d is 1, or where there are groups of bits (hamming.h), which hold
// D bits, the weight of the group that bit d is in.
//
// Order of summation, everywhere: four bits make a nibble whose terms are added in ascending order; the nibbles' sums
// are added in ascending order. Where queries are float32 numbers in [0, 1] that are 0 or at least 2^-17, and the
// weights of all bits add up to at most 4,096, nothing is rounded before the end, so that order does not show.
//
// Cost: 32 W additions for a query's table and 2 W look-ups for each candidate. No memory beyond 256 W bytes a thread.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

struct fh_asymmetric_problem {
    const double* queries;  // [Q, D]
    const uint8_t* codes;   // [Q, C, W]
    int64_t Q, C, D, W;
    const int32_t* group_bits;     // [G]
    const int32_t* group_weights;  // [G], 1..255
    int32_t G;                     // 0: every bit has weight 1; at most 64
};

fh_status fh_asymmetric_distances_cpu(const fh_asymmetric_problem* problem, float* distances, int32_t threads,
                                      fh_cancel* cancel);
}
