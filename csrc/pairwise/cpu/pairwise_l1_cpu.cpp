// Distance tiles written out, and their gradient as weighted sums of signs.
#include <new>

#include "neighbors/cpu/tiles.h"
#include "pairwise/pairwise_l1.h"

namespace fasthash {
namespace {

template <class T>
fh_status pairwise_l1(const T* z, int64_t B, int64_t D, T* distances, int32_t threads, fh_cancel* cancel) {
    const TileKernels<T>* kernels = tile_kernels_chosen<T>();
    if (kernels == nullptr) return FH_INVALID;
    threads = threads_worth(B * B * D, threads);
    try {
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
    } catch (const std::bad_alloc&) {
        return fail(FH_NO_MEMORY, "pairwise_l1: out of memory");
    }
}

template <class T>
fh_status pairwise_l1_backward(const T* z, const T* grad, int64_t B, int64_t D, T* grad_z, int32_t threads,
                               fh_cancel* cancel) {
    const TileKernels<T>* kernels = tile_kernels_chosen<T>();
    if (kernels == nullptr) return FH_INVALID;
    threads = threads_worth(B * B * D, threads);
    try {
        const int64_t workers = std::max(threads, 1);
        auto weights = scratch<T>(workers * B);
        return parallel_for(B, threads, cancel, [&](int64_t b, int worker) {
            T* w = weights.get() + worker * B;
            for (int64_t c = 0; c < B; ++c) w[c] = grad[b * B + c] + grad[c * B + b];
            w[b] = 0;
            kernels->sign_sum(z + b * D, z, w, B, D, grad_z + b * D);
        });
    } catch (const std::bad_alloc&) {
        return fail(FH_NO_MEMORY, "pairwise_l1 backward: out of memory");
    }
}

}  // namespace
}  // namespace fasthash

extern "C" fh_status fh_pairwise_l1_cpu_f32(const float* z, int64_t B, int64_t D, float* distances, int32_t threads,
                                            fh_cancel* cancel) {
    return fasthash::pairwise_l1(z, B, D, distances, threads, cancel);
}

extern "C" fh_status fh_pairwise_l1_cpu_f64(const double* z, int64_t B, int64_t D, double* distances, int32_t threads,
                                            fh_cancel* cancel) {
    return fasthash::pairwise_l1(z, B, D, distances, threads, cancel);
}

extern "C" fh_status fh_pairwise_l1_backward_cpu_f32(const float* z, const float* grad, int64_t B, int64_t D,
                                                     float* grad_z, int32_t threads, fh_cancel* cancel) {
    return fasthash::pairwise_l1_backward(z, grad, B, D, grad_z, threads, cancel);
}

extern "C" fh_status fh_pairwise_l1_backward_cpu_f64(const double* z, const double* grad, int64_t B, int64_t D,
                                                     double* grad_z, int32_t threads, fh_cancel* cancel) {
    return fasthash::pairwise_l1_backward(z, grad, B, D, grad_z, threads, cancel);
}
