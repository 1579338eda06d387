// Which keys a join sorts by, and what that would cost.
#pragma once

#include <cstdint>
#include <vector>

#include "pairs/cpu/code_rows.h"

namespace fasthash {

// One pass of a join. Codes whose keys are near are compared: numbers of ones that differ by at most `radius`
// (length 0), or values of the bits [start, start + length) that differ in at most `radius` bits.
struct JoinPass {
    int32_t start, length, radius;
    bool by_ones() const { return length == 0; }
};

// What the bits of a code count: group g is the next bits[g] bits, which count weights[g] each. No groups: 8 W bits
// that count 1.
struct BitGroups {
    int64_t W = 0;  // bytes of a code
    std::vector<int32_t> bits, weights;
};

// The passes of plan -1 or m >= 1 (pairs.h); N: the codes of the larger side.
std::vector<JoinPass> passes_of_plan(int32_t plan, int64_t N, const BitGroups& groups, int32_t radius);

// The passes with the least estimated cost. b may be a. words: of a code, as the scan compares them.
std::vector<JoinPass> cheapest_passes(const CodeRows& a, const CodeRows& b, const BitGroups& groups, int32_t radius,
                                      int64_t words);

// How many values of `length` bits differ from one in at most `radius`; kTooManyKeys where that is more.
constexpr int64_t kTooManyKeys = 1 << 12;
int64_t near_keys(int32_t length, int32_t radius);

}  // namespace fasthash
