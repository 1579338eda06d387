// What products of bits and of bytes share: how many queries, and which rows count.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "hamming/cuda/scan.cuh"

namespace fasthash {

constexpr int kProductQueries = 8;  // columns of a product

// Bit i, of kSlots: whether row n0 + 8 i + g is there (before `end`) and eligible. n0 is a multiple of 8 kSlots, or
// of 32. The mask's words are loaded once; of each, a product gathers the bits g, g + 8, g + 16 and g + 24.
template <int kSlots>
__device__ __forceinline__ unsigned live_of_every_eighth(const Scan& scan, int64_t n0, int64_t end, int g) {
    unsigned live = (1u << kSlots) - 1;
    if (scan.mask != nullptr) {
        constexpr int kHalves = (kSlots + 3) / 4;
        const uint32_t* halves = reinterpret_cast<const uint32_t*>(scan.mask) + n0 / 32;
        const int shift = static_cast<int>(kSlots < 4 ? n0 % 32 : 0) + g;
        uint32_t half[kHalves];
#pragma unroll
        for (int h = 0; h < kHalves; ++h) half[h] = n0 + 32 * h < end ? halves[h] : 0;
        unsigned eligible = 0;
#pragma unroll
        for (int h = 0; h < kHalves; ++h) eligible |= ((half[h] >> shift & 0x01010101u) * 0x10204080u >> 28) << (4 * h);
        live &= eligible;
    }
    if (n0 + 8 * kSlots > end) {
        const int64_t slots = (end - n0 - g + 7) / 8;
        if (slots < kSlots) live &= slots > 0 ? (1u << slots) - 1 : 0;
    }
    return live;
}

}  // namespace fasthash
