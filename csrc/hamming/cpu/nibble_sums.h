// Sums over the bits of a code, four bits at a time: the order of summation that asymmetric.h says.
#pragma once

#include <cstdint>

namespace fasthash {

// table[nibble, value]: the sum of a nibble whose bits are `value`, the first bit highest, where bit d adds zeros[d] or
// ones[d]; bits from D on add nothing. [2 W, 16]
inline void fill_nibbles(const double* zeros, const double* ones, int64_t D, int64_t W, double* table) {
    for (int64_t nibble = 0; nibble < 2 * W; ++nibble, table += 16) {
        for (int value = 0; value < 16; ++value) {
            double sum = 0;
            for (int64_t bit = 0; bit < 4 && nibble * 4 + bit < D; ++bit)
                sum += ((value >> (3 - bit) & 1) != 0 ? ones : zeros)[nibble * 4 + bit];
            table[value] = sum;
        }
    }
}

// The sums of codes, W bytes each: side by side, since one addition takes several cycles.
template <int kCodes>
inline void sum_nibbles(const double* table, const uint8_t* const* codes, int64_t W, double* sums) {
    double added[kCodes] = {};
    for (int64_t byte = 0; byte < W; ++byte, table += 32)
        for (int c = 0; c < kCodes; ++c) {
            const uint8_t bits = codes[c][byte];
            added[c] += table[bits >> 4];
            added[c] += table[16 + (bits & 15)];
        }
    for (int c = 0; c < kCodes; ++c) sums[c] = added[c];
}

}  // namespace fasthash
