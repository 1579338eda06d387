// One query of the asymmetric search on CUDA: its exact distances, and a bound below them that products of bytes give.
//
// The query adds zero_d or one_d to the sum S of asymmetric_topk.h, by bit d of the code. With t_d = B (one_d - zero_d)
// and the bytes e_d = floor(t_d / step), step = max |t_d| / 127: B S >= base + step U, where base = B times the sum of
// zero_d, and U is the sum of e_d over the bits of the code that are set. What doubles and floats round away is bounded
// by parts of `magnitude`, which no intermediate result passes, as in cpu/nibble_bound.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

constexpr double kDoubleSlack = 0x1p-34, kFloatSlack = 0x1p-19;  // parts of the magnitude that rounding may take away
constexpr double kTiny = 1e-30;           // of a float in units of the magnitude: subnormal numbers may be lost
constexpr double kMostSquare = 1e28;      // times the square of a half it is still a float
constexpr int32_t kNoLimit = 1 << 30;     // more than any |U|, at most 128 times 65,536
constexpr uint32_t kNoKey = 0xffffffffu;  // above the key of every distance

// Distance = (offset + factor (S s)) + square (s s): A, B and E of asymmetric_topk.h.
struct BoundedQuery {
    double offset, factor, square;
    double scale;  // s where codes have none
    double base, step, magnitude;
    double unit;  // a power of two: floats are what they stand for times this
    float scaled_base, scaled_step, scaled_square;
    bool clamped;  // a distance is at least 0
};

// Floats as integers in the same order.
__device__ __forceinline__ uint32_t key_of(float x) {
    const uint32_t bits = __float_as_uint(x);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float float_of(uint32_t key) {
    return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

// Half floats, finite and >= 0. Subnormal ones are a whole number of 2^-24; others have 10 bits of fraction, and an
// exponent that is 112 less.
__device__ __forceinline__ float scale_of(uint32_t half) {
    return half < 0x400 ? static_cast<float>(half) * 0x1p-24f : __uint_as_float((half << 13) + (112u << 23));
}

// Each operation is rounded by itself, as on the CPU: nothing is contracted to a fused multiply-add.
__device__ __forceinline__ float exact_distance(const BoundedQuery& q, double sum, double scale) {
    const double linear = __dadd_rn(q.offset, __dmul_rn(q.factor, __dmul_rn(sum, scale)));
    const double distance = __dadd_rn(linear, __dmul_rn(q.square, __dmul_rn(scale, scale)));
    return __double2float_rn(q.clamped && distance < 0 ? 0 : distance) + 0.0f;  // -0 is 0
}

// The float after that of a key, as a double; infinity where there is none.
__device__ __forceinline__ double beyond_key(uint32_t key) {
    constexpr uint32_t kInfinityKey = 0xff800000u;
    return key >= kInfinityKey ? static_cast<double>(INFINITY) : static_cast<double>(float_of(key + 1));
}

// Where codes have no scales: a code with U >= this is farther than any distance of this key.
__device__ __forceinline__ int32_t sum_limit(const BoundedQuery& q, uint32_t key) {
    const double beyond = beyond_key(key);
    if (!(beyond < static_cast<double>(INFINITY))) return kNoLimit;
    const double constant = q.offset + q.square * q.scale * q.scale;
    const double slack = kDoubleSlack * (q.magnitude + (fabs(beyond) + constant) / q.scale);
    const double sum = ((beyond - constant) / q.scale - q.base + slack) / q.step + 2;
    return static_cast<int32_t>(fmin(fmax(sum, -static_cast<double>(kNoLimit)), static_cast<double>(kNoLimit)));
}

// Where they have scales: a code with s (base + step U + square s) > this, all in floats.
__device__ __forceinline__ float scaled_limit(const BoundedQuery& q, uint32_t key) {
    const double beyond = beyond_key(key);
    if (!(beyond < static_cast<double>(INFINITY))) return INFINITY;
    const double slack = kDoubleSlack * (fabs(beyond) + q.offset) * q.unit + kTiny;
    return __double2float_ru((beyond - q.offset) * q.unit + slack);
}

}  // namespace fasthash
