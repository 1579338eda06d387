// What fh_pairs holds.
#pragma once

#include <cstdint>
#include <vector>

#include "pairs/cpu/equal_codes.h"
#include "pairs/cpu/join.h"
#include "pairs/pairs.h"

struct fh_pairs {
    fasthash::DifferentCodes a, b;  // b is empty where a is joined with itself
    bool self;
    fasthash::BitGroups groups;
    int32_t radius, plan;  // as the caller gave them
    int32_t taken = 0;     // the plan of the last search
    // The last search: its rows, and the pairs of different codes within them, those of each worker.
    int64_t first = 0, last = 0, total = 0;
    bool kept = false;
    std::vector<std::vector<fasthash::CodePair>> pairs;

    const fasthash::DifferentCodes& other() const { return self ? a : b; }
};
