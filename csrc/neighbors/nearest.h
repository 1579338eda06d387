// Exact nearest neighbours between real-valued points, and the losses made of them.
//
// The problem: L independent batches; points x [L, N, D]; candidates y [L, M, D], or null for "the others of x" (then
// M = N and a point is not its own neighbour). y_stride is the number of elements between batches of y: M D, or 0
// where all batches share one y. p = 1: Manhattan distance sum |x - y|; p = 2: Euclidean sqrt(sum (x - y)^2).
//
// Distances are computed from differences, in the precision of the points, never by |x|^2 + |y|^2 - 2 x y (which picks
// wrong neighbours on clustered codes). Neighbours are ordered by (computed distance, index): ties go to the lowest
// index. A NaN distance comes after every other. The result is deterministic for one device and instruction set,
// whatever the thread count; the distances of i to j and of j to i are the same bits.
//
// Arrays of points, distances, weights, losses and gradients have the element type `dtype` of the problem. CUDA
// functions take device pointers, a stream (cudaStream_t) and a workspace of the size that the _workspace function
// gives; they do not synchronise.
#pragma once

#include <cstdint>

#include "core/api.h"
#include "core/dtype.h"

extern "C" {

struct fh_nearest_problem {
    const void* x;          // [L, N, D]
    const void* y;          // [L or 1, M, D], or null: the others of x
    int64_t L, N, M, D, K;  // 1 <= K <= 64 and K <= M (K <= N - 1 where y is null)
    int64_t y_stride;
    int32_t p;  // 1 or 2
    fh_dtype dtype;
};

// distances [L, N, K] ascending, indices [L, N, K] int64.
fh_status fh_nearest_cpu(const fh_nearest_problem* problem, void* distances, int64_t* indices, int32_t threads,
                         fh_cancel* cancel);

// The gradient of sum_{l, n, c} w[l, n, c] distances[l, n, c], with the neighbours fixed, where c runs over C chosen
// columns: weights [L, N, C], distances [L, N, C] and indices [L, N, C] of these. grad_x [L, N, D]; grad_y [L, M, D],
// null if it is not wanted or y is null (then both ends add to grad_x). Overwrites both. Deterministic. Coincident
// points have gradient zero. Where a distance is NaN or infinite, the point's own gradient is NaN and its neighbour
// gets nothing from it: bad rows do not spread.
fh_status fh_nearest_backward_cpu(const fh_nearest_problem* problem, const void* weights, const void* distances,
                                  const int64_t* indices, int64_t C, void* grad_x, void* grad_y, int32_t threads,
                                  fh_cancel* cancel);

// The KL loss of each batch, and what its gradient needs. problem.x = z, problem.y = target (not null),
// K <= min(N - 1, M):
//   loss[l] = mean_n log(nu[l, n] + eps) - log(rho[l, n] + eps)
// nu [L, N]: distance to the K-th nearest target, nu_index its row; rho, rho_index: the same among the others of z.
// A NaN or infinite value anywhere in z or the target makes the batch's loss NaN.
fh_status fh_kl_loss_cpu(const fh_nearest_problem* problem, double eps, void* loss, void* nu, int64_t* nu_index,
                         void* rho, int64_t* rho_index, int32_t threads, fh_cancel* cancel);

// grad_loss [L] is the gradient of the loss. grad_z [L, N, D]; grad_target [L, M, D] or null. Rows of z or of the
// target that hold a NaN or an infinity get gradient NaN; other rows get nothing from them unless they are their
// neighbour.
fh_status fh_kl_loss_backward_cpu(const fh_nearest_problem* problem, double eps, const void* grad_loss, const void* nu,
                                  const int64_t* nu_index, const void* rho, const int64_t* rho_index, void* grad_z,
                                  void* grad_target, int32_t threads, fh_cancel* cancel);

// The same on CUDA. One workspace size serves a problem's forward and backward calls.
int64_t fh_nearest_cuda_workspace(const fh_nearest_problem* problem, int64_t C);
fh_status fh_nearest_cuda(const fh_nearest_problem* problem, void* distances, int64_t* indices, void* workspace,
                          int64_t workspace_bytes, void* stream);
fh_status fh_nearest_backward_cuda(const fh_nearest_problem* problem, const void* weights, const void* distances,
                                   const int64_t* indices, int64_t C, void* grad_x, void* grad_y, void* workspace,
                                   int64_t workspace_bytes, void* stream);
int64_t fh_kl_loss_cuda_workspace(const fh_nearest_problem* problem);
fh_status fh_kl_loss_cuda(const fh_nearest_problem* problem, double eps, void* loss, void* nu, int64_t* nu_index,
                          void* rho, int64_t* rho_index, void* workspace, int64_t workspace_bytes, void* stream);
fh_status fh_kl_loss_backward_cuda(const fh_nearest_problem* problem, double eps, const void* grad_loss, const void* nu,
                                   const int64_t* nu_index, const void* rho, const int64_t* rho_index, void* grad_z,
                                   void* grad_target, void* workspace, int64_t workspace_bytes, void* stream);
}
