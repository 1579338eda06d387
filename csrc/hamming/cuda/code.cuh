// Packed codes in registers and in memory, and the number of bits in which two of them differ.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

// How a code lies in registers: kWords 32-bit words. Exact: W = 4 kWords and rows are aligned for Code's vector loads.
// Otherwise rows are loaded by words or bytes and padded with zeros. kWords = 0: codes too wide for registers, which
// are read through L1 for each query.
template <int kWordCount, bool kAligned>
struct CodeWidth {
    static constexpr int kWords = kWordCount;
    static constexpr bool kExact = kAligned;
    static constexpr bool kWeighted = false;
    // Rows that a lane holds at once: enough bytes in flight to hide the latency of memory.
    static constexpr int kRows = kWords == 0 ? 1 : kWords <= 2 ? 4 : kWords <= 8 ? 2 : 1;
};

constexpr int code_alignment(int words) { return words % 4 == 0 ? 16 : words % 2 == 0 ? 8 : 4; }

template <int kWords>
struct alignas(code_alignment(kWords)) Code {
    uint32_t word[kWords];
};

// Word `w` of a code of W bytes, zero past its end; bytes lie in the order that a 4-byte load of the machine gives.
__device__ __forceinline__ uint32_t load_word(const uint8_t* code, int64_t w, int64_t W, int granule) {
    if (4 * w >= W) return 0;
    if (granule >= 4) return *reinterpret_cast<const uint32_t*>(code + 4 * w);
    uint32_t word = 0;
#pragma unroll
    for (int b = 0; b < 4; ++b)
        if (4 * w + b < W) word |= static_cast<uint32_t>(code[4 * w + b]) << (8 * b);
    return word;
}

// Three words added column by column: bit i of `ones` and `twos` is the number of their bits i that are 1. Two LOP3.
struct ColumnSum {
    uint32_t ones, twos;
};
__device__ __forceinline__ ColumnSum add_columns(uint32_t a, uint32_t b, uint32_t c) {
    return {a ^ b ^ c, (a & b) | (c & (a | b))};
}

// An SM counts the bits of 16 words a clock and does 64 other operations on integers, so up to a point words are
// cheaper added than counted (carry-save adders): of 8 words 5 are left to count, of 4 words 3.
template <int kWords>
__device__ __forceinline__ int code_distance(const Code<kWords>& a, const Code<kWords>& b) {
    constexpr int kEights = kWords / 8 * 8, kFours = kWords / 4 * 4;
    uint32_t x[kWords];
#pragma unroll
    for (int w = 0; w < kWords; ++w) x[w] = a.word[w] ^ b.word[w];
    int ones = 0, twos = 0;
#pragma unroll
    for (int w = 0; w < kEights; w += 8) {
        const ColumnSum low = add_columns(x[w], x[w + 1], x[w + 2]), high = add_columns(x[w + 3], x[w + 4], x[w + 5]);
        const ColumnSum both = add_columns(low.ones, high.ones, x[w + 6]);
        ones += __popc(both.ones) + __popc(x[w + 7]);
        twos += __popc(low.twos) + __popc(high.twos) + __popc(both.twos);
    }
#pragma unroll
    for (int w = kEights; w < kFours; w += 4) {
        const ColumnSum sum = add_columns(x[w], x[w + 1], x[w + 2]);
        ones += __popc(sum.ones) + __popc(x[w + 3]);
        twos += __popc(sum.twos);
    }
#pragma unroll
    for (int w = kFours; w < kWords; ++w) ones += __popc(x[w]);
    return ones + 2 * twos;
}

__device__ __forceinline__ int wide_distance(const uint8_t* a, const uint8_t* b, int64_t W, int granule) {
    int distance = 0;
    if (granule == 16) {
        for (int64_t i = 0; i < W; i += 16) {
            const uint4 x = *reinterpret_cast<const uint4*>(a + i), y = *reinterpret_cast<const uint4*>(b + i);
            distance += __popc(x.x ^ y.x) + __popc(x.y ^ y.y) + __popc(x.z ^ y.z) + __popc(x.w ^ y.w);
        }
    } else {
        for (int64_t w = 0; 4 * w < W; ++w)
            distance += __popc(load_word(a, w, W, granule) ^ load_word(b, w, W, granule));
    }
    return distance;
}

}  // namespace fasthash
