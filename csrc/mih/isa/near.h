// Which fingerprints are near one: the inner loop of multi-index hashing.
#pragma once

#include <cstdint>

namespace fasthash {

constexpr int64_t kNearSlack = 16;  // places after the hits that may be written

// Writes first + i for each fingerprint i < count that differs from `query` in at most `limit` bits, ascending; gives
// how many. fingerprints: count integers of 4 or 8 bytes, unaligned. hits: room for count + kNearSlack.
using Near = int64_t (*)(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
                         uint32_t* hits);

struct NearTable {
    Near near4, near8;
};

#define FH_ISA(name, Name, processor, ...) FH_ON_##processor(extern const NearTable kNear##Name;)
#include "core/isa.def"

namespace {  // each ISA file gets its own copy, and the linker can merge none of them

template <class T>
inline T load_integer(const uint8_t* p) {
    T value;
    __builtin_memcpy(&value, p, sizeof(T));
    return value;
}

// One at a time, over a bit count of the ISA file; without a branch on what is found.
template <class T, class Count>
inline int64_t near_one_by_one(const uint8_t* fingerprints, int64_t begin, int64_t count, T query, int32_t limit,
                               uint32_t first, uint32_t* hits, Count bits_set) {
    int64_t found = 0;
    for (int64_t i = begin; i < count; ++i) {
        hits[found] = first + static_cast<uint32_t>(i);
        found += bits_set(load_integer<T>(fingerprints + i * static_cast<int64_t>(sizeof(T))) ^ query) <= limit;
    }
    return found;
}

}  // namespace
}  // namespace fasthash
