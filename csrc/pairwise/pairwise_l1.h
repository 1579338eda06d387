// Manhattan distances between all rows of one batch: what the similarity losses compare with semantic distances.
//
// z [B, D]; distances [B, B], symmetric to the bit, zero diagonal (NaN rows stay NaN off the diagonal). Memory is
// O(B^2), never O(B^2 D). The backward takes the gradient g [B, B] of each entry and gives
//   grad_z[b] = sum_c (g[b, c] + g[c, b]) sign(z_b - z_c),      sign(0) = sign(NaN) = 0,
// summed in ascending order of c within fixed tiles: deterministic for one device and instruction set.
// CUDA functions take device pointers and a stream (cudaStream_t); they need no workspace and do not synchronise.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

fh_status fh_pairwise_l1_cpu_f32(const float* z, int64_t B, int64_t D, float* distances, int32_t threads,
                                 fh_cancel* cancel);
fh_status fh_pairwise_l1_cpu_f64(const double* z, int64_t B, int64_t D, double* distances, int32_t threads,
                                 fh_cancel* cancel);
fh_status fh_pairwise_l1_backward_cpu_f32(const float* z, const float* grad, int64_t B, int64_t D, float* grad_z,
                                          int32_t threads, fh_cancel* cancel);
fh_status fh_pairwise_l1_backward_cpu_f64(const double* z, const double* grad, int64_t B, int64_t D, double* grad_z,
                                          int32_t threads, fh_cancel* cancel);

fh_status fh_pairwise_l1_cuda_f32(const float* z, int64_t B, int64_t D, float* distances, void* stream);
fh_status fh_pairwise_l1_cuda_f64(const double* z, int64_t B, int64_t D, double* distances, void* stream);
fh_status fh_pairwise_l1_backward_cuda_f32(const float* z, const float* grad, int64_t B, int64_t D, float* grad_z,
                                           void* stream);
fh_status fh_pairwise_l1_backward_cuda_f64(const double* z, const double* grad, int64_t B, int64_t D, double* grad_z,
                                           void* stream);
}
