// Equal codes as one: the different codes of a set, and the rows that have each of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/api.h"
#include "pairs/cpu/code_rows.h"

namespace fasthash {

// Codes are numbered by their lowest rows.
struct DifferentCodes {
    CodeRows codes;                 // [U]
    int64_t rows = 0;               // N
    std::vector<uint32_t> members;  // [N]: the rows of code 0, of code 1, ..., each ascending; empty where U = N
    std::vector<uint32_t> starts;   // [U + 1] into members; empty where U = N

    int64_t size(int64_t u) const { return starts.empty() ? 1 : int64_t{starts[u + 1]} - starts[u]; }
    int64_t member(int64_t u, int64_t i) const { return starts.empty() ? u : members[starts[u] + i]; }
    // The first of them that is `row` or higher; size(u) where there is none.
    int64_t place(int64_t u, int64_t row) const { return size(u) - from(u, row); }
    // How many rows of code u are `row` or higher.
    int64_t from(int64_t u, int64_t row) const {
        if (starts.empty()) return u >= row;
        const auto begin = members.begin() + starts[u], end = members.begin() + starts[u + 1];
        return end - std::lower_bound(begin, end, row);
    }
};

// May throw std::bad_alloc.
fh_status different_codes(const uint8_t* codes, int64_t N, int64_t W, int64_t stride, DifferentCodes& out,
                          int32_t threads, fh_cancel* cancel);

}  // namespace fasthash
