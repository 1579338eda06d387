// Stands for the CUDA toolkit's header where kernels are compiled for the CPU (see ../emulation.h). It holds what the
// project's kernels use and no more: an unknown name is a compile error, to be added here with its CUDA meaning.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "../emulation.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Kernels declare shared memory through core/cuda/shared_memory.cuh, which the emulation can watch.
#define __shared__ static_assert(false, "use fasthash::shared_memory")

constexpr int warpSize = 32;

// Vector types have their CUDA alignment: the undefined-behaviour sanitizer reports a misaligned access.
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Barriers and warp collectives. The line of the call tells one site from another.
#define __syncthreads() ((void)::emulation::barrier(__LINE__, 0))
#define __syncthreads_count(predicate) (::emulation::barrier(__LINE__, (predicate) != 0))
#define __syncthreads_or(predicate) (::emulation::barrier(__LINE__, (predicate) != 0) != 0)
#define __syncwarp(...) (::emulation_shim::At{__LINE__}.sync_warp(__VA_ARGS__))
#define __ballot_sync(mask, predicate) \
    (static_cast<unsigned>(            \
        ::emulation::collective(::emulation::Collective::kBallot, __LINE__, mask, (predicate) != 0, 0)))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, predicate) == static_cast<unsigned>(mask))
#define __match_any_sync(mask, value)                                                                  \
    (static_cast<unsigned>(::emulation::collective(::emulation::Collective::kMatchAny, __LINE__, mask, \
                                                   ::emulation_shim::bits(value), 0)))
#define __shfl_sync(...) (::emulation_shim::At{__LINE__}.shuffle(__VA_ARGS__))
#define __shfl_xor_sync(...) (::emulation_shim::At{__LINE__}.shuffle_xor(__VA_ARGS__))
#define __shfl_down_sync(...) (::emulation_shim::At{__LINE__}.shuffle_down(__VA_ARGS__))
#define __shfl_up_sync(...) (::emulation_shim::At{__LINE__}.shuffle_up(__VA_ARGS__))

namespace emulation_shim {

template <class T>
uint64_t bits(T value) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "a warp collective moves at most 8 bytes");
    uint64_t out = 0;
    memcpy(&out, &value, sizeof(T));
    return out;
}

inline int lane() {
    return static_cast<int>((threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32);
}

// Warp collectives of one call site. `width` splits the warp in groups of lanes, as in CUDA.
struct At {
    int line;

    void sync_warp(unsigned mask = 0xffffffffu) const {
        emulation::collective(emulation::Collective::kSyncWarp, line, mask, 0, 0);
    }
    template <class T>
    T from(unsigned mask, T value, int source) const {
        const uint64_t got = emulation::collective(emulation::Collective::kShuffle, line, mask, bits(value), source);
        T out;
        memcpy(&out, &got, sizeof(T));
        return out;
    }
    template <class T>
    T shuffle(unsigned mask, T value, int source, int width = 32) const {
        return from(mask, value, (lane() & ~(width - 1)) + (source & (width - 1)));
    }
    template <class T>
    T shuffle_xor(unsigned mask, T value, int lanes, int width = 32) const {
        const int target = lane() ^ lanes;
        return from(mask, value, target < (lane() & ~(width - 1)) + width ? target : lane());
    }
    template <class T>
    T shuffle_down(unsigned mask, T value, int lanes, int width = 32) const {
        return from(mask, value, (lane() & (width - 1)) + lanes < width ? lane() + lanes : lane());
    }
    template <class T>
    T shuffle_up(unsigned mask, T value, int lanes, int width = 32) const {
        return from(mask, value, (lane() & (width - 1)) >= lanes ? lane() - lanes : lane());
    }
};

template <class T, class F>
T atomic(T* address, F update) {
    emulation::maybe_yield();
    const T old = *address;
    *address = update(old);
    return old;
}

}  // namespace emulation_shim

// Atomics.
#define FH_EMULATED_ATOMIC(name, expression)                                            \
    template <class T>                                                                  \
    T name(T* address, std::common_type_t<T> value) {                                   \
        return emulation_shim::atomic(address, [=](T old) -> T { return expression; }); \
    }
FH_EMULATED_ATOMIC(atomicAdd, old + value)
FH_EMULATED_ATOMIC(atomicMin, old < value ? old : value)
FH_EMULATED_ATOMIC(atomicMax, old > value ? old : value)
FH_EMULATED_ATOMIC(atomicOr, old | value)
FH_EMULATED_ATOMIC(atomicAnd, old& value)
FH_EMULATED_ATOMIC(atomicExch, (static_cast<void>(old), value))
#undef FH_EMULATED_ATOMIC
template <class T>
T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return emulation_shim::atomic(address, [=](T old) { return old == expected ? value : old; });
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Integer and bit functions.
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(emulation_shim::bits(x)); }
inline float __uint_as_float(unsigned x) {
    float out;
    memcpy(&out, &x, sizeof(out));
    return out;
}
inline long long __double_as_longlong(double x) { return static_cast<long long>(emulation_shim::bits(x)); }
inline double __longlong_as_double(long long x) {
    double out;
    memcpy(&out, &x, sizeof(out));
    return out;
}
// Doubles, each operation rounded by itself (the emulation is compiled without contraction), and rounded to floats.
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }
inline float __double2float_rd(double x) {
    const float nearest = static_cast<float>(x);
    return static_cast<double>(nearest) > x ? nextafterf(nearest, -INFINITY) : nearest;
}
inline float __double2float_ru(double x) { return -__double2float_rd(-x); }
template <class T>
T __ldg(const T* address) {
    return *address;
}
template <class T>
constexpr T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
    return a < b ? b : a;
}

// The runtime: one device whose memory is the host's, and streams that are done at once.
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorUnsupportedPtxVersion = 222,
    cudaErrorLaunchFailure = 719
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef struct CUstream_st* cudaStream_t;
struct cudaLaunchAttribute {};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned numAttrs;
};

cudaError_t emulation_check_launch(const cudaLaunchConfig_t& config, const void* kernel);
cudaError_t emulation_allow_shared(const void* kernel, int bytes);

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const cudaError_t error = emulation_check_launch(*config, reinterpret_cast<const void*>(kernel));
    if (error != cudaSuccess) return error;
    struct Call {
        void (*kernel)(Parameters...);
        std::tuple<Parameters...> arguments;
    } call{kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...)};
    const auto body = [](void* c) { std::apply(static_cast<Call*>(c)->kernel, static_cast<Call*>(c)->arguments); };
    const uint3 grid{config->gridDim.x, config->gridDim.y, config->gridDim.z};
    const uint3 block{config->blockDim.x, config->blockDim.y, config->blockDim.z};
    return emulation::run_grid(grid, block, config->dynamicSmemBytes, body, &call) ? cudaSuccess
                                                                                   : cudaErrorLaunchFailure;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
    return emulation_allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}

inline cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t) {
    memset(address, value, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaErrorLaunchFailure:
            return emulation::last_failure();
        case cudaErrorInsufficientDriver:
            return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorInvalidDeviceFunction:
            return "invalid device function";
        case cudaErrorUnsupportedPtxVersion:
            return "the provided PTX was compiled with an unsupported toolchain.";
        case cudaErrorNoKernelImageForDevice:
            return "no kernel image is available for execution on the device";
        default:
            return "invalid argument";
    }
}
