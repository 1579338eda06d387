// Philox4x32-10 and the inverse CDF of Beta(0.1, 0.1), in arithmetic that every device does alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__) || defined(FASTHASH_EMULATE_CUDA)
#define FH_HOST_DEVICE __host__ __device__
#else
#define FH_HOST_DEVICE
#endif

namespace fasthash {

struct Philox4 {
    uint32_t word[4];
};

// Block `counter` of the stream `seed` (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
FH_HOST_DEVICE inline Philox4 philox4x32_10(uint64_t seed, uint64_t counter) {
    Philox4 c = {{static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0}};
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c.word[0];
        const uint64_t b = static_cast<uint64_t>(0xCD9E8D57u) * c.word[2];
        c = {{static_cast<uint32_t>(b >> 32) ^ c.word[1] ^ key0, static_cast<uint32_t>(b),
              static_cast<uint32_t>(a >> 32) ^ c.word[3] ^ key1, static_cast<uint32_t>(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// The inverse CDF at a uniform 32-bit word. The lowest bit chooses the half; the rest gives u in (0, 1/2).
// Near 0, F(x) = x^a / (a B(a, a)) (1 + ...), so x = t g(t) with t = (a B(a, a) u)^(1 / a), a = 0.1; g is smooth, and
// the polynomial below is within 2e-8 of it (relative), its float32 evaluation within 3e-7. The upper half mirrors.
FH_HOST_DEVICE inline float beta_inverse(uint32_t word) {
    const float u = (static_cast<float>(word >> 1) + 0.5f) * 2.3283064365386963e-10f;  // 2^-32
    const float v = 1.9714639f * u;                                                    // a B(a, a) u
    const float v2 = v * v, v4 = v2 * v2, v8 = v4 * v4;
    const float t = v8 * v2;
    float g = 0.009367713704705238f;
    g = g * t - 0.0497385635972023f;
    g = g * t + 0.1288507580757141f;
    g = g * t - 0.2303406000137329f;
    g = g * t + 0.342215359210968f;
    g = g * t - 0.47164860367774963f;
    g = g * t + 0.6303683519363403f;
    g = g * t - 0.8181787729263306f;
    g = g * t + 1.0f;
    const float x = t * g;
    return (word & 1u) != 0 ? 1.0f - x : x;
}

}  // namespace fasthash
