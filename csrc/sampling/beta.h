// Samples of Beta(0.1, 0.1), the default target of the KL loss, by inverse CDF on counter-based random numbers.
//
// out[i] depends on (seed, i) alone: word i % 4 of Philox4x32-10 (Salmon et al., SC 2011) with key = seed and counter
// i / 4, mapped through the inverse CDF. One seed gives the same samples on every device and thread count, to the last
// few units of float32. beta_inverse.h holds the arithmetic for all devices.
// `seed` points to one int64 on the device that the samples are for, so that a captured CUDA graph can draw new ones.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

fh_status fh_beta_sample_cpu(const int64_t* seed, int64_t count, float* out, int32_t threads, fh_cancel* cancel);
fh_status fh_beta_sample_cuda(const int64_t* seed, int64_t count, float* out, void* stream);
}
