// Products of small matrices on the tensor cores, one warp at a time: of floats in TF32, with 11 bits of significand,
// of bits, and of bytes. In all of them, with g = lane / 4 and t = lane % 4, a lane holds of c [16, 8] the places
// (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cuda/warp.cuh"

namespace fasthash {

// A float of TF32: x rounded to nearest. A NaN may become a number; callers keep track of rows that are not finite.
__device__ __forceinline__ float round_to_tf32(float x) {
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
}

// c [16, 8] += a [16, 8] b [8, 8]. A lane holds
//   a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   b, as [column, k]: (g, t), (g, t + 4)
// Products are exact; how sums are rounded is not documented. Measurements on V100, A100, H100 and B200 (Fasi et al.,
// "Numerical behavior of NVIDIA tensor cores", 2021; Khattak & Mikaitis, "Accurate models of NVIDIA tensor cores",
// 2025) found terms cut off at 24 or more bits of the largest. kTensorCoreUnit is what a caller may rely on: each of
// the 9 terms adds an error of at most kTensorCoreUnit times the sum of the magnitudes.
constexpr float kTensorCoreUnit = 0x1p-22f;

__device__ __forceinline__ void multiply_add_16x8x8(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
#ifdef FASTHASH_EMULATE_CUDA
    // As inexact as kTensorCoreUnit allows: every sum is cut off at 23 bits.
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int k = 0; k < 8; ++k) {
        const float low = __shfl_sync(kAllLanes, k < 4 ? a[0] : a[2], 4 * g + k % 4);
        const float high = __shfl_sync(kAllLanes, k < 4 ? a[1] : a[3], 4 * g + k % 4);
        // Lanes read other columns of b at the same k: each register goes round in a shuffle of its own.
        const float even = __shfl_sync(kAllLanes, k < 4 ? b[0] : b[1], 4 * (2 * t) + k % 4);
        const float odd = __shfl_sync(kAllLanes, k < 4 ? b[0] : b[1], 4 * (2 * t + 1) + k % 4);
        const float products[4] = {low * even, low * odd, high * even, high * odd};
        for (int i = 0; i < 4; ++i) c[i] = __uint_as_float(__float_as_uint(c[i] + products[i]) & ~1u);
    }
#else
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

// c [16, 8] += a [16, 32] b [32, 8] of signed bytes, four of them in a word, the lowest first. A lane holds the bytes k
// .. k + 3 of
//   a: (g, k = 4 t), (g + 8, 4 t), (g, 4 t + 16), (g + 8, 4 t + 16)
//   b, as [column, k]: (g, 4 t), (g, 4 t + 16)
__device__ __forceinline__ void multiply_add_16x8x32(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef FASTHASH_EMULATE_CUDA
    const int g = lane_index() / 4, t = lane_index() % 4;
    const auto both = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
    for (int word = 0; word < 4; ++word) {
        const uint64_t row[2] = {__shfl_sync(kAllLanes, both(a[0], a[2]), 4 * g + word),
                                 __shfl_sync(kAllLanes, both(a[1], a[3]), 4 * g + word)};
        const uint64_t even = __shfl_sync(kAllLanes, both(b[0], b[1]), 4 * (2 * t) + word);
        const uint64_t odd = __shfl_sync(kAllLanes, both(b[0], b[1]), 4 * (2 * t + 1) + word);
        for (int i = 0; i < 4; ++i)
            for (int byte = 0; byte < 64; byte += 8)
                c[i] +=
                    static_cast<int8_t>(row[i / 2] >> byte) * static_cast<int8_t>((i % 2 == 0 ? even : odd) >> byte);
    }
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Whether the tensor cores count bits natively. From sm_100 on these products are emulated by the compiler, slowly, and
// products of bytes take their place. The emulation has the former, and the latter where FASTHASH_BYTE_PRODUCTS is set.
#ifndef FASTHASH_BYTE_PRODUCTS
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define FASTHASH_BYTE_PRODUCTS 1
#else
#define FASTHASH_BYTE_PRODUCTS 0
#endif
#endif

#ifdef FASTHASH_EMULATE_CUDA
// d += the bits that 4 words of rows and columns have in common: a holds (g, t), (g + 8, t), b (g, t).
inline void add_common_bits(int (&d)[4], const uint32_t* a, uint32_t b) {
    const int g = lane_index() / 4, t = lane_index() % 4;
    for (int word = 0; word < 4; ++word) {
        const uint32_t row[2] = {__shfl_sync(kAllLanes, a[0], 4 * g + word),
                                 __shfl_sync(kAllLanes, a[1], 4 * g + word)};
        const uint32_t even = __shfl_sync(kAllLanes, b, 4 * (2 * t) + word);
        const uint32_t odd = __shfl_sync(kAllLanes, b, 4 * (2 * t + 1) + word);
        for (int i = 0; i < 4; ++i) d[i] += __popc(row[i / 2] & (i % 2 == 0 ? even : odd));
    }
}
#endif

// d [16, 8] = c + the number of bits that row i of a and column j of b have in common, 4 words each. A lane holds
//   a: words (g, t), (g + 8, t)        b, as [column, word]: (g, t)
__device__ __forceinline__ void count_common_128(int (&d)[4], const uint32_t (&a)[2], uint32_t b, const int (&c)[4]) {
#ifdef FASTHASH_EMULATE_CUDA
    for (int i = 0; i < 4; ++i) d[i] = c[i];
    add_common_bits(d, a, b);
#else
    asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%7, %8, %9, %10};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
#endif
}

// The same of 8 words. A lane holds
//   a: words (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)        b: (g, t), (g, t + 4)
__device__ __forceinline__ void count_common_256(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                 const int (&c)[4]) {
#ifdef FASTHASH_EMULATE_CUDA
    for (int i = 0; i < 4; ++i) d[i] = c[i];
    add_common_bits(d, a, b[0]);
    add_common_bits(d, a + 2, b[1]);
#else
    asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
#endif
}

// d [16, 8] = c + a [16, 32] b [32, 8] of bytes, those of b with signs. A word holds 4 bytes side by side in k. A lane
// holds
//   a: words (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)        b, as [column, word]: (g, t), (g, t + 4)
__device__ __forceinline__ void multiply_bytes_16x8x32(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                       const int (&c)[4]) {
#ifdef FASTHASH_EMULATE_CUDA
    const int g = lane_index() / 4, t = lane_index() % 4;
    int sum[4] = {c[0], c[1], c[2], c[3]};
    for (int word = 0; word < 8; ++word) {
        const int half = word / 4, lane = word % 4;
        const uint32_t row[2] = {__shfl_sync(kAllLanes, a[2 * half], 4 * g + lane),
                                 __shfl_sync(kAllLanes, a[2 * half + 1], 4 * g + lane)};
        const uint32_t even = __shfl_sync(kAllLanes, b[half], 4 * (2 * t) + lane);
        const uint32_t odd = __shfl_sync(kAllLanes, b[half], 4 * (2 * t + 1) + lane);
        for (int i = 0; i < 4; ++i)
            for (int byte = 0; byte < 4; ++byte)
                sum[i] += static_cast<uint8_t>(row[i / 2] >> 8 * byte) *
                          static_cast<int8_t>((i % 2 == 0 ? even : odd) >> 8 * byte);
    }
    for (int i = 0; i < 4; ++i) d[i] = sum[i];
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
#endif
}

}  // namespace fasthash
