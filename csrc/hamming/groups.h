// The checks of a problem's groups of weighted bits (hamming.h), one for every device.
#pragma once

#include <cstdint>

#include "core/api.h"
#include "hamming/hamming.h"

namespace fasthash {

constexpr int32_t kMostGroups = 64, kMostWeight = 255;

// The greatest distance: the sum of bits x weight; 8 W where bits are not weighted. FH_INVALID for groups that Python
// should have refused.
inline fh_status largest_distance(const fh_hamming_problem& p, int32_t& largest) {
    if (p.G < 0 || p.G > kMostGroups) return fail(FH_INVALID, "Hamming search: bit_weights must have 0 to 64 groups");
    int64_t bits = 0, sum = 0;
    for (int32_t g = 0; g < p.G; ++g) {
        const int64_t weight = p.group_weights[g];
        if (p.group_bits[g] < 1 || weight < 1 || weight > kMostWeight)
            return fail(FH_INVALID, "Hamming search: a group of bit_weights must have at least 1 bit, weight 1 to 255");
        bits += p.group_bits[g];
        sum += p.group_bits[g] * weight;
    }
    if (p.G == 0) bits = sum = 8 * p.W;
    if (bits < 8 * p.W - 7 || bits > 8 * p.W)
        return fail(FH_INVALID, "Hamming search: the groups of bit_weights must hold 8 W - 7 to 8 W bits");
    if (sum >= INT32_MAX) return fail(FH_INVALID, "Hamming search: the largest distance must be below 2^31 - 1");
    largest = static_cast<int32_t>(sum);
    return FH_OK;
}

}  // namespace fasthash
