// The one way to shared memory, so that the host emulation of the kernels can watch it.
#pragma once

#include <cuda_runtime.h>

namespace fasthash {

// The block's variable of type T, uninitialised; the same one wherever the kernel asks for this T.
template <class T>
__device__ __forceinline__ T& shared_memory() {
#ifdef FASTHASH_EMULATE_CUDA
    static const char key = 0;
    return *static_cast<T*>(emulation::shared_variable(&key, sizeof(T)));
#else
    __shared__ T storage;
    return storage;
#endif
}

// The bytes that the launch asked for, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared_memory() {
#ifdef FASTHASH_EMULATE_CUDA
    return static_cast<T*>(emulation::dynamic_shared_memory());
#else
    extern __shared__ __align__(16) unsigned char storage[];
    return reinterpret_cast<T*>(storage);
#endif
}

}  // namespace fasthash
