// Near fingerprints for processors with POPCNT: as fast as vectors without a vector popcount would be.
#if defined(__x86_64__)

#include <immintrin.h>

#include "mih/isa/near.h"

namespace fasthash {
namespace {

int64_t near4(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
              uint32_t* hits) {
    return near_one_by_one<uint32_t>(fingerprints, 0, count, static_cast<uint32_t>(query), limit, first, hits,
                                     [](uint32_t x) { return static_cast<int32_t>(_mm_popcnt_u32(x)); });
}

int64_t near8(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
              uint32_t* hits) {
    return near_one_by_one<uint64_t>(fingerprints, 0, count, query, limit, first, hits,
                                     [](uint64_t x) { return static_cast<int32_t>(_mm_popcnt_u64(x)); });
}

}  // namespace

const NearTable kNearAvx2 = {near4, near8};

}  // namespace fasthash

#endif
