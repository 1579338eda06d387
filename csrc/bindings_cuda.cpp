// The CUDA functions of fasthash._core. They enqueue on the stream (an integer, torch's current_stream().cuda_stream)
// and return; workspaces are tensors that the caller allocates.
#include "bindings.h"
#include "hamming/hamming.h"
#include "neighbors/nearest.h"
#include "pairwise/pairwise_l1.h"
#include "sampling/beta.h"

namespace fasthash {

using Hamming = fh_hamming_problem;
using Nearest = fh_nearest_problem;

void bind_cuda(pybind11::module_& m) {
    m.def("hamming_topk_cuda_workspace",
          [](const Hamming& p, int64_t K) { return fh_hamming_topk_cuda_workspace(&p, K); });
    m.def("hamming_topk_cuda", [](const Hamming& p, int64_t K, Address distances, Address ids, Address workspace,
                                  int64_t bytes, Address stream) {
        check(fh_hamming_topk_cuda(&p, K, at<int32_t>(distances), at<int64_t>(ids), at<void>(workspace), bytes,
                                   at<void>(stream)));
    });
    m.def("hamming_range_cuda_workspace",
          [](const Hamming& p, int32_t radius) { return fh_hamming_range_cuda_workspace(&p, radius); });
    m.def("hamming_range_count_cuda",
          [](const Hamming& p, int32_t radius, Address counts, Address workspace, int64_t bytes, Address stream) {
              check(fh_hamming_range_count_cuda(&p, radius, at<int64_t>(counts), at<void>(workspace), bytes,
                                                at<void>(stream)));
          });
    m.def("hamming_range_fill_cuda", [](const Hamming& p, int32_t radius, Address offsets, Address distances,
                                        Address ids, Address workspace, int64_t bytes, Address stream) {
        check(fh_hamming_range_fill_cuda(&p, radius, at<int64_t>(offsets), at<int32_t>(distances), at<int64_t>(ids),
                                         at<void>(workspace), bytes, at<void>(stream)));
    });
    m.def("hamming_mask_cuda", [](Address allowed, int64_t N, Address mask, Address stream) {
        check(fh_hamming_mask_cuda(at<uint8_t>(allowed), N, at<uint64_t>(mask), at<void>(stream)));
    });
    m.def("hamming_distances_cuda", [](const Hamming& p, Address distances, Address stream) {
        check(fh_hamming_distances_cuda(&p, at<int32_t>(distances), at<void>(stream)));
    });
    m.def("hamming_histogram_cuda_workspace",
          [](const Hamming& p, int64_t C) { return fh_hamming_histogram_cuda_workspace(&p, C); });
    m.def("hamming_histogram_cuda", [](const Hamming& p, Address labels, Address weights, int64_t C, Address counts,
                                       Address sums, Address workspace, int64_t bytes, Address stream) {
        check(fh_hamming_histogram_cuda(&p, at<int64_t>(labels), at<double>(weights), C, at<int64_t>(counts),
                                        at<double>(sums), at<void>(workspace), bytes, at<void>(stream)));
    });

    m.def("nearest_cuda_workspace",
          [](bool f64, const Nearest& p, int64_t C) { return fh_nearest_cuda_workspace(&p, C, f64 ? 8 : 4); });
    m.def("nearest_cuda", [](bool f64, const Nearest& p, Address distances, Address indices, Address workspace,
                             int64_t bytes, Address stream) {
        check(f64 ? fh_nearest_cuda_f64(&p, at<double>(distances), at<int64_t>(indices), at<void>(workspace), bytes,
                                        at<void>(stream))
                  : fh_nearest_cuda_f32(&p, at<float>(distances), at<int64_t>(indices), at<void>(workspace), bytes,
                                        at<void>(stream)));
    });
    m.def("nearest_backward_cuda",
          [](bool f64, const Nearest& p, Address weights, Address distances, Address indices, int64_t C, Address grad_x,
             Address grad_y, Address workspace, int64_t bytes, Address stream) {
              check(f64 ? fh_nearest_backward_cuda_f64(&p, at<double>(weights), at<double>(distances),
                                                       at<int64_t>(indices), C, at<double>(grad_x), at<double>(grad_y),
                                                       at<void>(workspace), bytes, at<void>(stream))
                        : fh_nearest_backward_cuda_f32(&p, at<float>(weights), at<float>(distances),
                                                       at<int64_t>(indices), C, at<float>(grad_x), at<float>(grad_y),
                                                       at<void>(workspace), bytes, at<void>(stream)));
          });
    m.def("kl_loss_cuda_workspace",
          [](bool f64, const Nearest& p) { return fh_kl_loss_cuda_workspace(&p, f64 ? 8 : 4); });
    m.def("kl_loss_cuda", [](bool f64, const Nearest& p, double eps, Address loss, Address nu, Address nu_index,
                             Address rho, Address rho_index, Address workspace, int64_t bytes, Address stream) {
        check(f64 ? fh_kl_loss_cuda_f64(&p, eps, at<double>(loss), at<double>(nu), at<int64_t>(nu_index),
                                        at<double>(rho), at<int64_t>(rho_index), at<void>(workspace), bytes,
                                        at<void>(stream))
                  : fh_kl_loss_cuda_f32(&p, eps, at<float>(loss), at<float>(nu), at<int64_t>(nu_index), at<float>(rho),
                                        at<int64_t>(rho_index), at<void>(workspace), bytes, at<void>(stream)));
    });
    m.def("kl_loss_backward_cuda", [](bool f64, const Nearest& p, double eps, Address grad_loss, Address nu,
                                      Address nu_index, Address rho, Address rho_index, Address grad_z,
                                      Address grad_target, Address workspace, int64_t bytes, Address stream) {
        check(f64 ? fh_kl_loss_backward_cuda_f64(&p, eps, at<double>(grad_loss), at<double>(nu), at<int64_t>(nu_index),
                                                 at<double>(rho), at<int64_t>(rho_index), at<double>(grad_z),
                                                 at<double>(grad_target), at<void>(workspace), bytes, at<void>(stream))
                  : fh_kl_loss_backward_cuda_f32(&p, eps, at<float>(grad_loss), at<float>(nu), at<int64_t>(nu_index),
                                                 at<float>(rho), at<int64_t>(rho_index), at<float>(grad_z),
                                                 at<float>(grad_target), at<void>(workspace), bytes, at<void>(stream)));
    });

    m.def("pairwise_l1_cuda", [](bool f64, Address z, int64_t B, int64_t D, Address distances, Address stream) {
        check(f64 ? fh_pairwise_l1_cuda_f64(at<double>(z), B, D, at<double>(distances), at<void>(stream))
                  : fh_pairwise_l1_cuda_f32(at<float>(z), B, D, at<float>(distances), at<void>(stream)));
    });
    m.def("pairwise_l1_backward_cuda",
          [](bool f64, Address z, Address grad, int64_t B, int64_t D, Address grad_z, Address stream) {
              check(f64 ? fh_pairwise_l1_backward_cuda_f64(at<double>(z), at<double>(grad), B, D, at<double>(grad_z),
                                                           at<void>(stream))
                        : fh_pairwise_l1_backward_cuda_f32(at<float>(z), at<float>(grad), B, D, at<float>(grad_z),
                                                           at<void>(stream)));
          });
    m.def("beta_sample_cuda", [](Address seed, int64_t count, Address out, Address stream) {
        check(fh_beta_sample_cuda(at<int64_t>(seed), count, at<float>(out), at<void>(stream)));
    });
}

}  // namespace fasthash
