// Near fingerprints in plain C++.
#include "mih/isa/near.h"

namespace fasthash {
namespace {

// By adding neighbouring fields in place: the base instruction set of x86-64 has no popcount.
inline int32_t bits_set(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return static_cast<int32_t>(x * 0x0101010101010101u >> 56);
}

template <class T>
int64_t near(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
             uint32_t* hits) {
    return near_one_by_one<T>(fingerprints, 0, count, static_cast<T>(query), limit, first, hits, bits_set);
}

}  // namespace

const NearTable kNearScalar = {near<uint32_t>, near<uint64_t>};

}  // namespace fasthash
