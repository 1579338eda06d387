// Near fingerprints for NEON.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "mih/isa/near.h"

namespace fasthash {
namespace {

inline int32_t bits_set(uint64_t x) { return vaddv_u8(vcnt_u8(vcreate_u8(x))); }

template <class T>
int64_t near(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
             uint32_t* hits) {
    return near_one_by_one<T>(fingerprints, 0, count, static_cast<T>(query), limit, first, hits, bits_set);
}

}  // namespace

const NearTable kNearNeon = {near<uint32_t>, near<uint64_t>};

}  // namespace fasthash

#endif
