// The CUDA functions of fasthash._core. They enqueue on the stream (an integer, torch's current_stream().cuda_stream)
// and return; workspaces are tensors that the caller allocates.
#include "bindings.h"
#include "hamming/hamming.h"
#include "neighbors/nearest.h"
#include "pairs/pairs.h"
#include "pairwise/pairwise_l1.h"
#include "sampling/beta.h"

namespace fasthash {

using Hamming = HammingProblem;
using Asymmetric = AsymmetricProblem;
using Nearest = fh_nearest_problem;
using Pairwise = fh_pairwise_problem;

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

    m.def("asymmetric_topk_cuda_workspace",
          [](const Asymmetric& p, int64_t K) { return fh_asymmetric_topk_cuda_workspace(&p, K); });
    m.def("asymmetric_topk_cuda", [](const Asymmetric& p, int64_t K, Address distances, Address ids, Address workspace,
                                     int64_t bytes, Address stream) {
        check(fh_asymmetric_topk_cuda(&p, K, at<float>(distances), at<int64_t>(ids), at<void>(workspace), bytes,
                                      at<void>(stream)));
    });

    m.def("nearest_cuda_workspace", [](const Nearest& p, int64_t C) { return fh_nearest_cuda_workspace(&p, C); });
    m.def("nearest_cuda",
          [](const Nearest& p, Address distances, Address indices, Address workspace, int64_t bytes, Address stream) {
              check(fh_nearest_cuda(&p, at<void>(distances), at<int64_t>(indices), at<void>(workspace), bytes,
                                    at<void>(stream)));
          });
    m.def("nearest_backward_cuda",
          [](const Nearest& p, Address weights, Address distances, Address indices, int64_t C, Address grad_x,
             Address grad_y, Address workspace, int64_t bytes, Address stream) {
              check(fh_nearest_backward_cuda(&p, at<void>(weights), at<void>(distances), at<int64_t>(indices), C,
                                             at<void>(grad_x), at<void>(grad_y), at<void>(workspace), bytes,
                                             at<void>(stream)));
          });
    m.def("kl_loss_cuda_workspace", [](const Nearest& p) { return fh_kl_loss_cuda_workspace(&p); });
    m.def("kl_loss_cuda", [](const Nearest& p, double eps, Address loss, Address nu, Address nu_index, Address rho,
                             Address rho_index, Address workspace, int64_t bytes, Address stream) {
        check(fh_kl_loss_cuda(&p, eps, at<void>(loss), at<void>(nu), at<int64_t>(nu_index), at<void>(rho),
                              at<int64_t>(rho_index), at<void>(workspace), bytes, at<void>(stream)));
    });
    m.def("kl_loss_backward_cuda",
          [](const Nearest& p, double eps, Address grad_loss, Address nu, Address nu_index, Address rho,
             Address rho_index, Address grad_z, Address grad_target, Address workspace, int64_t bytes, Address stream) {
              check(fh_kl_loss_backward_cuda(&p, eps, at<void>(grad_loss), at<void>(nu), at<int64_t>(nu_index),
                                             at<void>(rho), at<int64_t>(rho_index), at<void>(grad_z),
                                             at<void>(grad_target), at<void>(workspace), bytes, at<void>(stream)));
          });

    m.def("hamming_pairs_cuda",
          [](Address a, Address b, int64_t Na, int64_t Nb, int64_t W, int64_t stride_b, int32_t radius, int64_t room,
             Address keys, Address distances, Address counts, Address stream) {
              const fh_pairs_problem p{at<uint8_t>(a), at<uint8_t>(b), Na, Nb,      W,       W,
                                       stride_b,       radius,         0,  nullptr, nullptr, 0};
              check(fh_hamming_pairs_cuda(&p, room, at<int64_t>(keys), at<int32_t>(distances), at<int64_t>(counts),
                                          at<void>(stream)));
          });
    m.def("duplicate_groups_cuda_workspace", &fh_duplicate_groups_cuda_workspace);
    m.def("duplicate_groups_cuda", [](Address codes, int64_t N, int64_t W, int32_t radius, Address representatives,
                                      Address workspace, int64_t bytes, Address stream) {
        const fh_pairs_problem p{at<uint8_t>(codes), nullptr, N, 0, W, W, W, radius, 0, nullptr, nullptr, 0};
        check(fh_duplicate_groups_cuda(&p, at<int64_t>(representatives), at<void>(workspace), bytes, at<void>(stream)));
    });

    m.def("pairwise_l1_cuda", [](const Pairwise& p, Address distances, Address stream) {
        check(fh_pairwise_l1_cuda(&p, at<void>(distances), at<void>(stream)));
    });
    m.def("pairwise_l1_backward_cuda", [](const Pairwise& p, Address grad, Address grad_z, Address stream) {
        check(fh_pairwise_l1_backward_cuda(&p, at<void>(grad), at<void>(grad_z), at<void>(stream)));
    });
    m.def("beta_sample_cuda", [](Address seed, int64_t count, Address out, Address stream) {
        check(fh_beta_sample_cuda(at<int64_t>(seed), count, at<float>(out), at<void>(stream)));
    });
}

}  // namespace fasthash
