// Products of small matrices on the tensor cores, one warp at a time, in TF32: floats with 11 bits of significand.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/warp.cuh"

namespace fasthash {

// A float of TF32: x rounded to nearest. A NaN may become a number; callers keep track of rows that are not finite.
__device__ __forceinline__ float round_to_tf32(float x) {
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
}

// c [16, 8] += a [16, 8] b [8, 8]. With g = lane / 4 and t = lane % 4, a lane holds
//   a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)
//   b, as [column, k]: (g, t), (g, t + 4)
//   c: (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
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

}  // namespace fasthash
