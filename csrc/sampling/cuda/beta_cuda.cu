// Beta(0.1, 0.1) samples on CUDA: see beta.h for the contract.
#include "core/cuda/cuda_check.h"
#include "core/cuda/warp.cuh"
#include "sampling/beta.h"
#include "sampling/beta_inverse.h"

namespace fasthash {
namespace {

constexpr int kSamples = 4;  // a Philox block

// One thread turns one Philox block into four samples: about 130 integer and 120 float operations for 16 bytes.
__global__ void __launch_bounds__(256) beta_sample_kernel(const int64_t* __restrict__ seed, int64_t count,
                                                          float* __restrict__ out) {  // [count]
    const uint64_t key = static_cast<uint64_t>(*seed);
    const bool aligned = reinterpret_cast<uintptr_t>(out) % sizeof(float4) == 0;

    const int64_t block = grid_thread();
    if (block * kSamples >= count) return;
    const Philox4 random = philox4x32_10(key, static_cast<uint64_t>(block));
    const int64_t first = block * kSamples;
    float sample[kSamples];
#pragma unroll
    for (int i = 0; i < kSamples; ++i) sample[i] = beta_inverse(random.word[i]);
    if (aligned && first + kSamples <= count) {
        *reinterpret_cast<float4*>(out + first) = make_float4(sample[0], sample[1], sample[2], sample[3]);
    } else {
#pragma unroll
        for (int i = 0; i < kSamples; ++i)
            if (first + i < count) out[first + i] = sample[i];
    }
}

}  // namespace
}  // namespace fasthash

extern "C" fh_status fh_beta_sample_cuda(const int64_t* seed, int64_t count, float* out, void* stream) {
    constexpr int kThreads = 256;
    const int64_t blocks = fasthash::ceil_div(fasthash::ceil_div(count, fasthash::kSamples), kThreads);
    return fasthash::launch({"beta_sample_kernel", blocks, kThreads, 0, stream}, fasthash::beta_sample_kernel, seed,
                            count, out);
}
