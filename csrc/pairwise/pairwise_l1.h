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
#include "core/dtype.h"

extern "C" {

struct fh_pairwise_problem {
    const void* z;  // [B, D]
    int64_t B, D;
    fh_dtype dtype;  // of z, the distances and the gradients
};

fh_status fh_pairwise_l1_cpu(const fh_pairwise_problem* problem, void* distances, int32_t threads, fh_cancel* cancel);
fh_status fh_pairwise_l1_backward_cpu(const fh_pairwise_problem* problem, const void* grad, void* grad_z,
                                      int32_t threads, fh_cancel* cancel);

fh_status fh_pairwise_l1_cuda(const fh_pairwise_problem* problem, void* distances, void* stream);
fh_status fh_pairwise_l1_backward_cuda(const fh_pairwise_problem* problem, const void* grad, void* grad_z,
                                       void* stream);
}
