// Distance tiles written out, and their gradient as weighted sums of signs.
#include "core/exceptions.h"
#include "neighbors/cpu/tiles.h"
#include "pairwise/pairwise_l1.h"

namespace fasthash {
namespace {

template <class T>
fh_status pairwise_l1(const fh_pairwise_problem& p, T* distances, int32_t threads, fh_cancel* cancel) {
    const T* z = static_cast<const T*>(p.z);
    const int64_t B = p.B, D = p.D;
    const TileKernels<T>* kernels = tile_kernels_chosen<T>();
    if (kernels == nullptr) return FH_INVALID;
    threads = threads_worth(B * B * D, threads);
    const int64_t height = kernels->rows, width = kernels->panel;
    const Panels<T> panels(z, 1, B, D, width, threads);
    return parallel_for((B + height - 1) / height, threads, cancel, [&](int64_t task, int) {
        alignas(64) T out[kMaxTileRows * kMaxPanel];
        const T* rows[kMaxTileRows];
        const int64_t first = task * height;
        tile_rows(z, first, B, D, height, rows);
        for (int64_t column = 0; column < B; column += width) {
            kernels->l1(rows, panels.panel(0, column / width), D, out);
            for (int64_t r = 0; r < std::min(height, B - first); ++r)
                std::copy_n(out + r * width, std::min(width, B - column), distances + (first + r) * B + column);
        }
        for (int64_t row = first; row < std::min(B, first + height); ++row) distances[row * B + row] = 0;
    });
}

template <class T>
fh_status pairwise_l1_backward(const fh_pairwise_problem& p, const T* grad, T* grad_z, int32_t threads,
                               fh_cancel* cancel) {
    const T* z = static_cast<const T*>(p.z);
    const int64_t B = p.B, D = p.D;
    const TileKernels<T>* kernels = tile_kernels_chosen<T>();
    if (kernels == nullptr) return FH_INVALID;
    threads = threads_worth(B * B * D, threads);
    const int64_t workers = std::max(threads, 1);
    auto weights = scratch<T>(workers * B);
    return parallel_for(B, threads, cancel, [&](int64_t b, int worker) {
        T* w = weights.get() + worker * B;
        for (int64_t c = 0; c < B; ++c) w[c] = grad[b * B + c] + grad[c * B + b];
        w[b] = 0;
        kernels->sign_sum(z + b * D, z, w, B, D, grad_z + b * D);
    });
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_pairwise_l1_cpu(const fh_pairwise_problem* problem, void* distances, int32_t threads,
                                        fh_cancel* cancel) {
    return without_exceptions("pairwise_l1", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return pairwise_l1(*problem, static_cast<T*>(distances), threads, cancel);
        });
    });
}

extern "C" fh_status fh_pairwise_l1_backward_cpu(const fh_pairwise_problem* problem, const void* grad, void* grad_z,
                                                 int32_t threads, fh_cancel* cancel) {
    return without_exceptions("pairwise_l1_backward", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return pairwise_l1_backward(*problem, static_cast<const T*>(grad), static_cast<T*>(grad_z), threads,
                                        cancel);
        });
    });
}
