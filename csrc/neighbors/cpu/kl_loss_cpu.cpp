// The KL loss as one forward and one backward call: two searches, a mean of logarithms, and gradients through the two
// chosen neighbours of each row.
#include <cmath>

#include "core/exceptions.h"
#include "neighbors/cpu/nearest_search.h"
#include "neighbors/cpu/tiles.h"

namespace fasthash {
namespace {

template <class T>
bool all_finite(const T* values, int64_t count) {
    bool bad = false;  // no early exit: this loop becomes vector code
    for (int64_t i = 0; i < count; ++i) bad |= !(std::abs(values[i]) <= std::numeric_limits<T>::max());
    return !bad;
}

// The K-th nearest alone: distance [L, N] and index [L, N].
template <class T>
fh_status kth_nearest(const fh_nearest_problem& p, T* distance, int64_t* index, int32_t threads, fh_cancel* cancel) {
    if (p.K == 1) return nearest_search(p, distance, index, threads, cancel);
    const int64_t rows = p.L * p.N;
    auto distances = scratch<T>(rows * p.K);
    auto indices = scratch<int64_t>(rows * p.K);
    const fh_status status = nearest_search(p, distances.get(), indices.get(), threads, cancel);
    if (status != FH_OK) return status;
    for (int64_t row = 0; row < rows; ++row) {
        distance[row] = distances[row * p.K + p.K - 1];
        index[row] = indices[row * p.K + p.K - 1];
    }
    return FH_OK;
}

fh_nearest_problem among_others(fh_nearest_problem p) {
    p.y = nullptr;
    p.M = p.N;
    return p;
}

template <class T>
fh_status kl_loss(const fh_nearest_problem& p, double eps, T* loss, T* nu, int64_t* nu_index, T* rho,
                  int64_t* rho_index, int32_t threads, fh_cancel* cancel) {
    fh_status status = kth_nearest(p, nu, nu_index, threads, cancel);
    if (status == FH_OK) status = kth_nearest(among_others(p), rho, rho_index, threads, cancel);
    if (status != FH_OK) return status;
    const T* z = static_cast<const T*>(p.x);
    const T* target = static_cast<const T*>(p.y);
    return parallel_for(p.L, threads_worth(p.L * (p.N + p.M) * p.D, threads), cancel, [&](int64_t l, int) {
        double sum = 0;
        for (int64_t i = l * p.N; i < (l + 1) * p.N; ++i) sum += std::log(nu[i] + eps) - std::log(rho[i] + eps);
        const bool clean = all_finite(z + l * p.N * p.D, p.N * p.D) && all_finite(target + l * p.y_stride, p.M * p.D);
        loss[l] = clean ? static_cast<T>(sum / static_cast<double>(p.N)) : std::numeric_limits<T>::quiet_NaN();
    });
}

// Rows of values [count, D] that hold a NaN or an infinity: their gradient is NaN.
template <class T>
fh_status mark_bad_rows(const T* values, int64_t count, int64_t D, T* grad, int32_t threads, fh_cancel* cancel) {
    constexpr int64_t kRows = 256;
    threads = threads_worth(count * D, threads);
    return parallel_for((count + kRows - 1) / kRows, threads, cancel, [&](int64_t task, int) {
        for (int64_t row = task * kRows; row < std::min(count, (task + 1) * kRows); ++row)
            if (!all_finite(values + row * D, D)) std::fill_n(grad + row * D, D, std::numeric_limits<T>::quiet_NaN());
    });
}

template <class T>
fh_status kl_loss_backward(const fh_nearest_problem& p, double eps, const T* grad_loss, const T* nu,
                           const int64_t* nu_index, const T* rho, const int64_t* rho_index, T* grad_z, T* grad_target,
                           int32_t threads, fh_cancel* cancel) {
    const int64_t rows = p.L * p.N;
    const auto nu_weights = scratch<T>(rows), rho_weights = scratch<T>(rows);
    for (int64_t row = 0; row < rows; ++row) {
        const double scale = static_cast<double>(grad_loss[row / p.N]) / static_cast<double>(p.N);
        nu_weights[row] = bounded_quotient<T>(scale, nu[row] + eps);
        rho_weights[row] = bounded_quotient<T>(-scale, rho[row] + eps);
    }
    const T* z = static_cast<const T*>(p.x);
    const T* target = static_cast<const T*>(p.y);
    const ChosenNeighbors<T> targets{nu_weights.get(), nu, nu_index, 1, target, p.M, p.y_stride};
    const ChosenNeighbors<T> others{rho_weights.get(), rho, rho_index, 1, z, p.N, p.N * p.D};
    std::fill_n(grad_z, rows * p.D, T{0});
    fh_status status = add_neighbor_gradient(p, others, grad_z, threads, cancel);
    if (status == FH_OK) status = add_own_gradient(p, others, grad_z, threads, cancel);
    if (status == FH_OK) status = add_own_gradient(p, targets, grad_z, threads, cancel);
    if (status == FH_OK) status = mark_bad_rows(z, rows, p.D, grad_z, threads, cancel);
    if (status != FH_OK || grad_target == nullptr) return status;
    std::fill_n(grad_target, p.L * p.M * p.D, T{0});
    status = add_neighbor_gradient(p, targets, grad_target, threads, cancel);
    for (int64_t l = 0; status == FH_OK && l < p.L; ++l)
        status = mark_bad_rows(target + l * p.y_stride, p.M, p.D, grad_target + l * p.M * p.D, threads, cancel);
    return status;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_kl_loss_cpu(const fh_nearest_problem* problem, double eps, void* loss, void* nu,
                                    int64_t* nu_index, void* rho, int64_t* rho_index, int32_t threads,
                                    fh_cancel* cancel) {
    return without_exceptions("kl_loss", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return kl_loss(*problem, eps, static_cast<T*>(loss), static_cast<T*>(nu), nu_index, static_cast<T*>(rho),
                           rho_index, threads, cancel);
        });
    });
}

extern "C" fh_status fh_kl_loss_backward_cpu(const fh_nearest_problem* problem, double eps, const void* grad_loss,
                                             const void* nu, const int64_t* nu_index, const void* rho,
                                             const int64_t* rho_index, void* grad_z, void* grad_target, int32_t threads,
                                             fh_cancel* cancel) {
    return without_exceptions("kl_loss_backward", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return kl_loss_backward(*problem, eps, static_cast<const T*>(grad_loss), static_cast<const T*>(nu),
                                    nu_index, static_cast<const T*>(rho), rho_index, static_cast<T*>(grad_z),
                                    static_cast<T*>(grad_target), threads, cancel);
        });
    });
}
