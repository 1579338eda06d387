// Gradients through chosen neighbours: O((N + M) D). The neighbours' side gathers through a sorted inverse map (for
// each candidate, the terms that chose it, in order), so that sums have one order and no two threads write one row.
#include <cmath>

#include "core/exceptions.h"
#include "neighbors/cpu/nearest_search.h"
#include "neighbors/cpu/tiles.h"

namespace fasthash {
namespace {

constexpr int64_t kRowsPerTask = 64;

// out[d] += scale d|x - y|/dx[d]: the sign for p = 1; (x - y) / distance for p = 2.
template <class T>
void add_direction(const T* x, const T* y, T scale, T distance, int32_t p, int64_t D, T* out) {
    if (p == 1) {
        for (int64_t d = 0; d < D; ++d) out[d] += scale * static_cast<T>((x[d] > y[d]) - (x[d] < y[d]));
    } else {
        const T factor = bounded_quotient<T>(scale, distance);
        for (int64_t d = 0; d < D; ++d) out[d] += factor * (x[d] - y[d]);
    }
}

}  // namespace

template <class T>
fh_status add_own_gradient(const fh_nearest_problem& problem, const ChosenNeighbors<T>& chosen, T* grad_x,
                           int32_t threads, fh_cancel* cancel) {
    const int64_t rows = problem.L * problem.N, D = problem.D, C = chosen.C;
    const T* x = static_cast<const T*>(problem.x);
    threads = threads_worth(rows * C * D * 4, threads);
    return parallel_for((rows + kRowsPerTask - 1) / kRowsPerTask, threads, cancel, [&](int64_t task, int) {
        for (int64_t row = task * kRowsPerTask; row < std::min(rows, (task + 1) * kRowsPerTask); ++row) {
            const T* y = chosen.y + row / problem.N * chosen.y_stride;
            for (int64_t term = row * C; term < (row + 1) * C; ++term) {
                const T distance = chosen.distances[term];
                if (!std::isfinite(distance)) {
                    std::fill_n(grad_x + row * D, D, std::numeric_limits<T>::quiet_NaN());
                } else if (distance != 0) {
                    add_direction(x + row * D, y + chosen.indices[term] * D, chosen.weights[term], distance, problem.p,
                                  D, grad_x + row * D);
                }
            }
        }
    });
}

template <class T>
fh_status add_neighbor_gradient(const fh_nearest_problem& problem, const ChosenNeighbors<T>& chosen, T* grad_y,
                                int32_t threads, fh_cancel* cancel) {
    const int64_t L = problem.L, N = problem.N, D = problem.D, M = chosen.M, C = chosen.C;
    const T* x = static_cast<const T*>(problem.x);
    const auto starts = scratch<int64_t>(L * M + 1);  // [L, M]: where candidate m's terms begin
    const auto terms = scratch<int64_t>(L * N * C);   // terms sorted by (candidate, n, c)
    const auto counted = [&](int64_t term) {
        return std::isfinite(chosen.distances[term]) && chosen.distances[term] != 0;
    };
    std::fill_n(starts.get(), L * M + 1, int64_t{0});
    for (int64_t term = 0; term < L * N * C; ++term)
        if (counted(term)) ++starts[term / (N * C) * M + chosen.indices[term] + 1];
    for (int64_t m = 0; m < L * M; ++m) starts[m + 1] += starts[m];
    for (int64_t term = 0; term < L * N * C; ++term)
        if (counted(term)) terms[starts[term / (N * C) * M + chosen.indices[term]]++] = term;
    // starts[m] is now where candidate m's terms end.
    threads = threads_worth(L * N * C * D * 4, threads);
    return parallel_for((L * M + kRowsPerTask - 1) / kRowsPerTask, threads, cancel, [&](int64_t task, int) {
        for (int64_t m = task * kRowsPerTask; m < std::min(L * M, (task + 1) * kRowsPerTask); ++m) {
            const T* y = chosen.y + m / M * chosen.y_stride + m % M * D;
            for (int64_t i = m > 0 ? starts[m - 1] : 0; i < starts[m]; ++i) {
                const int64_t term = terms[i];
                add_direction(x + term / C * D, y, -chosen.weights[term], chosen.distances[term], problem.p, D,
                              grad_y + m * D);
            }
        }
    });
}

template fh_status add_own_gradient(const fh_nearest_problem&, const ChosenNeighbors<float>&, float*, int32_t,
                                    fh_cancel*);
template fh_status add_own_gradient(const fh_nearest_problem&, const ChosenNeighbors<double>&, double*, int32_t,
                                    fh_cancel*);
template fh_status add_neighbor_gradient(const fh_nearest_problem&, const ChosenNeighbors<float>&, float*, int32_t,
                                         fh_cancel*);
template fh_status add_neighbor_gradient(const fh_nearest_problem&, const ChosenNeighbors<double>&, double*, int32_t,
                                         fh_cancel*);

namespace {

template <class T>
fh_status nearest_backward(const fh_nearest_problem& p, const T* weights, const T* distances, const int64_t* indices,
                           int64_t C, T* grad_x, T* grad_y, int32_t threads, fh_cancel* cancel) {
    const bool self = p.y == nullptr;
    const T* points = static_cast<const T*>(self ? p.x : p.y);
    const int64_t M = self ? p.N : p.M;
    const ChosenNeighbors<T> chosen{weights, distances, indices, C, points, M, self ? p.N * p.D : p.y_stride};
    std::fill_n(grad_x, p.L * p.N * p.D, T{0});
    if (self) grad_y = grad_x;
    if (grad_y != nullptr) {
        if (!self) std::fill_n(grad_y, p.L * M * p.D, T{0});
        const fh_status status = add_neighbor_gradient(p, chosen, grad_y, threads, cancel);
        if (status != FH_OK) return status;
    }
    return add_own_gradient(p, chosen, grad_x, threads, cancel);
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_nearest_backward_cpu(const fh_nearest_problem* problem, const void* weights,
                                             const void* distances, const int64_t* indices, int64_t C, void* grad_x,
                                             void* grad_y, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("nearest_backward", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return nearest_backward(*problem, static_cast<const T*>(weights), static_cast<const T*>(distances), indices,
                                    C, static_cast<T*>(grad_x), static_cast<T*>(grad_y), threads, cancel);
        });
    });
}
