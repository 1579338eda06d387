// Bits set in a word, for files that are compiled for every processor.
#pragma once

#include <cstdint>

namespace fasthash {

inline int32_t bits_set(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return static_cast<int32_t>(x * 0x0101010101010101u >> 56);
}

}  // namespace fasthash
