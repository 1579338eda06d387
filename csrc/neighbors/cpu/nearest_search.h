// What the loss needs of the search and of its gradient, on the CPU. Contracts: nearest.h.
#pragma once

#include <cmath>
#include <limits>

#include "neighbors/nearest.h"

namespace fasthash {

// a / b as a T, and where a is finite at most the largest T / 2^32: points that nearly coincide have gradients whose
// sums are finite. What is not finite in `a` (a loss scale that overflowed) stays visible.
template <class T>
T bounded_quotient(double a, double b) {
    constexpr double kMax = static_cast<double>(std::numeric_limits<T>::max()) / 4294967296.0;
    const double quotient = a / b;
    if (std::abs(quotient) <= kMax || !std::isfinite(a)) return static_cast<T>(quotient);
    return static_cast<T>(std::copysign(kMax, quotient));
}

template <class T>
fh_status nearest_search(const fh_nearest_problem& problem, T* distances, int64_t* indices, int32_t threads,
                         fh_cancel* cancel);

// One set of chosen neighbours in a gradient: weights, distances and indices are [L, N, C]. The neighbours are rows of
// y [L or 1, M, D] (y_stride elements apart); grad_y null: their gradients are not wanted.
template <class T>
struct ChosenNeighbors {
    const T* weights;
    const T* distances;
    const int64_t* indices;
    int64_t C;
    const T* y;
    int64_t M, y_stride;
};

// grad_x [L, N, D] += sum_c w d|x - y_c| / dx. Where a distance is not finite, the row of grad_x becomes NaN.
template <class T>
fh_status add_own_gradient(const fh_nearest_problem& problem, const ChosenNeighbors<T>& chosen, T* grad_x,
                           int32_t threads, fh_cancel* cancel);

// grad_y [L, M, D] -= the same terms, each at its neighbour, in ascending order of (n, c). Terms whose distance is not
// finite are left out.
template <class T>
fh_status add_neighbor_gradient(const fh_nearest_problem& problem, const ChosenNeighbors<T>& chosen, T* grad_y,
                                int32_t threads, fh_cancel* cancel);

}  // namespace fasthash
