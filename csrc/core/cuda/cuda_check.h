// Launching kernels; what goes wrong becomes an fh_status whose message names the kernel.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "core/api.h"

#define FH_RETURN_IF_ERROR(expression)                                                \
    do {                                                                              \
        if (const fh_status status_ = (expression); status_ != FH_OK) return status_; \
    } while (false)

namespace fasthash {

// What a user can do about an error.
inline const char* advice(cudaError_t error) {
    switch (error) {
        case cudaErrorInsufficientDriver:
            return "; the driver is missing or too old: install a newer one, or build fasthash with an older toolkit";
        case cudaErrorUnsupportedPtxVersion:
            return "; the driver is older than the CUDA toolkit of this build and cannot compile the kernels for this "
                   "GPU: install a newer driver, or build fasthash again on this machine";
        case cudaErrorInvalidDeviceFunction:
        case cudaErrorNoKernelImageForDevice:
            return "; fasthash was built for other GPUs (`fasthash info` names them): build it again on this machine";
        default:
            return "";
    }
}

// FH_OK, or FH_CUDA_ERROR with "<what>: <CUDA's words>" as message. Leaves no error behind for the caller's next call.
inline fh_status cuda_status(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return FH_OK;
    (void)cudaGetLastError();
    char message[512];
    std::snprintf(message, sizeof(message), "%s: %s%s", what, cudaGetErrorString(error), advice(error));
    return fail(FH_CUDA_ERROR, message);
}

// Grids and blocks are one-dimensional: 2^31 - 1 blocks, more than any problem that fits a GPU's memory asks for.
struct LaunchShape {
    const char* kernel_name;
    int64_t blocks;
    int threads;
    size_t dynamic_shared_bytes;
    void* stream;  // cudaStream_t
};

// Launches kernel(arguments...); a shape without blocks launches nothing. Does not synchronise: an error inside the
// kernel surfaces in a later CUDA call, as with any launch.
template <class... Parameters, class... Arguments>
fh_status launch(const LaunchShape& shape, void (*kernel)(Parameters...), Arguments... arguments) {
    constexpr int64_t kMaxBlocks = 0x7fffffff;
    constexpr size_t kSharedWithoutAsking = 48 << 10;
    if (shape.blocks <= 0) return FH_OK;
    if (shape.blocks > kMaxBlocks) return cuda_status(cudaErrorInvalidConfiguration, shape.kernel_name);
    if (shape.dynamic_shared_bytes > kSharedWithoutAsking)
        FH_RETURN_IF_ERROR(cuda_status(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                            static_cast<int>(shape.dynamic_shared_bytes)),
                                       shape.kernel_name));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
    config.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config.dynamicSmemBytes = shape.dynamic_shared_bytes;
    config.stream = static_cast<cudaStream_t>(shape.stream);
    return cuda_status(cudaLaunchKernelEx(&config, kernel, arguments...), shape.kernel_name);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace fasthash
