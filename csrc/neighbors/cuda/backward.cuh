// Gradients through chosen neighbours on CUDA, as nearest_backward_cuda.cu and kl_loss_cuda.cu use them.
#pragma once

#include <cstdint>

#include "core/cuda/workspace.h"
#include "neighbors/nearest.h"

namespace fasthash {

// One choice of neighbours: C columns of each row of x, with the weight of each chosen distance. The weight is given,
// or, where `weights` is null, that of the KL loss: sign grad_loss[l] / (N (distance + eps)).
template <class T>
struct Chosen {
    const T* y;  // [L or 1, M, D]: where the neighbours are
    int64_t M, y_stride;
    bool self;  // they are rows of x, and their side of the gradient goes to grad_x
    int64_t C;
    const T* weights;    // [L, N, C] or null
    const T* grad_loss;  // [L]
    double eps, sign;
    const T* distances;      // [L, N, C]
    const int64_t* indices;  // [L, N, C]
    // Set by cut_workspace:
    T* coefficients;        // [L, N, C]: weight (p = 1) or weight / distance (p = 2); 0 at coincident points
    int64_t first_segment;  // candidate m of batch l has the segment first_segment + l M + m in the inverse map
    bool mapped;            // whether it is in the inverse map
};

// Up to two choices over one x, whose C must be equal.
template <class T>
struct Backward {
    const T* x;  // [L, N, D]
    int64_t L, N, D;
    Chosen<T> chosen[2];
    int32_t choices;
    int32_t p;
    bool mark_bad_targets;  // rows of y with a NaN or an infinity get gradient NaN
    T* grad_x;              // [L, N, D]
    T* grad_y;              // [L, M, D] of the choice that is not self, or null
    // The inverse map: sorted keys segment (N C) + term, ~0 for terms that reach no neighbour.
    unsigned long long* keys;
    int64_t key_count;
};

template <class T>
void cut_workspace(Backward<T>& backward, WorkspaceCutter& cutter);
template <class T>
fh_status run_backward(const Backward<T>& backward, void* stream);

}  // namespace fasthash
