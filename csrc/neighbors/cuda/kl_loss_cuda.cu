// The KL loss on CUDA: see nearest.h for the contract. Two searches in one launch, and a sum in a fixed order.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"
#include "neighbors/cuda/backward.cuh"
#include "neighbors/cuda/search.cuh"
#include "neighbors/nearest.h"

namespace fasthash {
namespace {

constexpr int kLossThreads = 512;

struct LossSums {
    double sum[kLossThreads / kWarpSize];
};

// One block for each batch. bad[l] != 0: z or the target holds a NaN or an infinity.
template <class T>
__global__ void __launch_bounds__(kLossThreads) kl_loss_kernel(int64_t N, double eps,
                                                               const T* __restrict__ nu,  // [L, N]
                                                               const T* __restrict__ rho,
                                                               const int32_t* __restrict__ bad,  // [L]
                                                               T* __restrict__ loss) {           // [L]
    auto& warps = shared_memory<LossSums>();
    const int64_t l = blockIdx.x;
    double sum = 0;
    for (int64_t i = l * N + threadIdx.x; i < (l + 1) * N; i += kLossThreads)
        sum += log(static_cast<double>(nu[i]) + eps) - log(static_cast<double>(rho[i]) + eps);
    sum = warp_sum(sum);
    if (lane_index() == 0) warps.sum[warp_index()] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0;
        for (const double part : warps.sum) total += part;
        loss[l] = bad[l] != 0 ? static_cast<T>(NAN) : static_cast<T>(total / static_cast<double>(N));
    }
}

fh_nearest_problem among_others(fh_nearest_problem problem) {
    problem.y = nullptr;
    problem.M = problem.N;
    return problem;
}

// The searches of the loss, among targets and among the others, and their workspace.
template <class T>
struct LossPlan {
    Search<T> searches[2];
    int32_t* bad;  // [L]
};

template <class T>
LossPlan<T> plan_loss(const fh_nearest_problem& problem, WorkspaceCutter& cutter) {
    LossPlan<T> plan = {{plan_search<T>(problem, 2), plan_search<T>(among_others(problem), 2)}, nullptr};
    for (Search<T>& search : plan.searches) cut_workspace(search, cutter);
    plan.bad = cutter.take<int32_t>(problem.L);
    return plan;
}

template <class T>
fh_status kl_loss(const fh_nearest_problem& problem, double eps, T* loss, T* nu, int64_t* nu_index, T* rho,
                  int64_t* rho_index, void* workspace, int64_t workspace_bytes, void* stream) {
    WorkspaceCutter cutter(workspace);
    LossPlan<T> plan = plan_loss<T>(problem, cutter);
    FH_RETURN_IF_ERROR(require_workspace("fh_kl_loss_cuda", cutter.bytes(), workspace_bytes));
    FH_RETURN_IF_ERROR(cuda_status(cudaMemsetAsync(plan.bad, 0, static_cast<size_t>(problem.L) * sizeof(int32_t),
                                                   static_cast<cudaStream_t>(stream)),
                                   "kl_loss_kernel"));
    Search<T>&among_targets = plan.searches[0], &others = plan.searches[1];
    among_targets.first = others.first = problem.K - 1;
    among_targets.distances = nu;
    among_targets.indices = nu_index;
    among_targets.bad = plan.bad;  // every row of z and of the target takes part in this search
    others.distances = rho;
    others.indices = rho_index;
    FH_RETURN_IF_ERROR(run_searches(plan.searches, 2, stream));
    return launch({"kl_loss_kernel", problem.L, kLossThreads, 0, stream}, kl_loss_kernel<T>, problem.N, eps, nu, rho,
                  plan.bad, loss);
}

template <class T>
Backward<T> plan_backward(const fh_nearest_problem& problem, double eps, const T* grad_loss, T* grad_z,
                          T* grad_target) {
    Backward<T> backward = {};
    backward.x = static_cast<const T*>(problem.x);
    backward.L = problem.L;
    backward.N = problem.N;
    backward.D = problem.D;
    backward.choices = 2;
    backward.p = problem.p;
    backward.mark_bad_targets = true;
    backward.grad_x = grad_z;
    backward.grad_y = grad_target;
    for (Chosen<T>& chosen : backward.chosen) {
        chosen.C = 1;
        chosen.grad_loss = grad_loss;
        chosen.eps = eps;
    }
    Chosen<T>&targets = backward.chosen[0], &others = backward.chosen[1];
    targets.y = static_cast<const T*>(problem.y);
    targets.M = problem.M;
    targets.y_stride = problem.y_stride;
    targets.sign = 1;
    others.y = backward.x;
    others.M = problem.N;
    others.y_stride = problem.N * problem.D;
    others.self = true;
    others.sign = -1;
    return backward;
}

template <class T>
fh_status kl_loss_backward(const fh_nearest_problem& problem, double eps, const T* grad_loss, const T* nu,
                           const int64_t* nu_index, const T* rho, const int64_t* rho_index, T* grad_z, T* grad_target,
                           void* workspace, int64_t workspace_bytes, void* stream) {
    Backward<T> backward = plan_backward(problem, eps, grad_loss, grad_z, grad_target);
    backward.chosen[0].distances = nu;
    backward.chosen[0].indices = nu_index;
    backward.chosen[1].distances = rho;
    backward.chosen[1].indices = rho_index;
    WorkspaceCutter cutter(workspace);
    cut_workspace(backward, cutter);
    FH_RETURN_IF_ERROR(require_workspace("fh_kl_loss_backward_cuda", cutter.bytes(), workspace_bytes));
    return run_backward(backward, stream);
}

template <class T>
int64_t kl_loss_workspace(const fh_nearest_problem& problem) {
    WorkspaceCutter forward, back;
    plan_loss<T>(problem, forward);
    T wanted = 0;  // any address: the gradient of the target is wanted
    Backward<T> backward = plan_backward<T>(problem, 0, nullptr, nullptr, &wanted);
    cut_workspace(backward, back);
    return std::max(forward.bytes(), back.bytes());
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

int64_t fh_kl_loss_cuda_workspace(const fh_nearest_problem* problem) {
    return problem->dtype == FH_FLOAT64 ? kl_loss_workspace<double>(*problem) : kl_loss_workspace<float>(*problem);
}

fh_status fh_kl_loss_cuda(const fh_nearest_problem* problem, double eps, void* loss, void* nu, int64_t* nu_index,
                          void* rho, int64_t* rho_index, void* workspace, int64_t workspace_bytes, void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return kl_loss(*problem, eps, static_cast<T*>(loss), static_cast<T*>(nu), nu_index, static_cast<T*>(rho),
                       rho_index, workspace, workspace_bytes, stream);
    });
}

fh_status fh_kl_loss_backward_cuda(const fh_nearest_problem* problem, double eps, const void* grad_loss, const void* nu,
                                   const int64_t* nu_index, const void* rho, const int64_t* rho_index, void* grad_z,
                                   void* grad_target, void* workspace, int64_t workspace_bytes, void* stream) {
    return with_dtype(problem->dtype, [&](auto zero) {
        using T = decltype(zero);
        return kl_loss_backward(*problem, eps, static_cast<const T*>(grad_loss), static_cast<const T*>(nu), nu_index,
                                static_cast<const T*>(rho), rho_index, static_cast<T*>(grad_z),
                                static_cast<T*>(grad_target), workspace, workspace_bytes, stream);
    });
}
}
