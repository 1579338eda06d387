// Codes sorted by the key of a pass.
#pragma once

#include <cstdint>
#include <vector>

#include "core/api.h"
#include "pairs/cpu/code_rows.h"
#include "pairs/cpu/join_plan.h"

namespace fasthash {

struct KeyedCodes {
    std::vector<uint32_t> offsets;  // [keys + 1]: bucket k holds the rows offsets[k] .. offsets[k + 1]
    std::vector<uint32_t> order;    // [N]: the code in each row; ascending in a bucket
    CodeRows rows;                  // [N]

    int64_t keys() const { return static_cast<int64_t>(offsets.size()) - 1; }
    int64_t size(int64_t key) const { return int64_t{offsets[key + 1]} - offsets[key]; }
};

// May throw std::bad_alloc.
fh_status sort_by_key(const CodeRows& codes, const JoinPass& pass, KeyedCodes& out, int32_t threads, fh_cancel* cancel);

}  // namespace fasthash
