// A mask's words from booleans, on CUDA: see hamming.h for the contract.
#include "core/cuda/cuda_check.h"
#include "core/cuda/warp.cuh"
#include "hamming/hamming.h"

namespace fasthash {
namespace {

constexpr int kMaskThreads = 256;

// Bit i of the result: whether byte i of `word` is not 0.
__device__ __forceinline__ uint32_t which_bytes(uint32_t word) {
    const uint32_t tops = (((word & 0x7f7f7f7fu) + 0x7f7f7f7fu) | word) & 0x80808080u;
    return ((tops >> 7) * 0x01020408u >> 24) & 0xfu;  // the four bits side by side in the highest byte
}

// A thread makes 16 bits from 16 booleans. kAligned: `allowed` is a multiple of 16.
template <bool kAligned>
__global__ void __launch_bounds__(kMaskThreads) hamming_mask_kernel(const uint8_t* __restrict__ allowed,  // [N]
                                                                    int64_t N,
                                                                    uint16_t* __restrict__ mask,  // [pieces]
                                                                    int64_t pieces) {
    const int64_t piece = grid_thread();
    if (piece >= pieces) return;
    uint32_t bits = 0;
    if (kAligned && 16 * piece + 16 <= N) {
        const uint4 four = *reinterpret_cast<const uint4*>(allowed + 16 * piece);
        bits = which_bytes(four.x) | which_bytes(four.y) << 4 | which_bytes(four.z) << 8 | which_bytes(four.w) << 12;
    } else {
        for (int i = 0; i < 16; ++i)
            if (16 * piece + i < N && allowed[16 * piece + i] != 0) bits |= 1u << i;
    }
    mask[piece] = static_cast<uint16_t>(bits);
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_mask_cuda(const uint8_t* allowed, int64_t N, uint64_t* mask, void* stream) {
    const int64_t pieces = ceil_div(N, 64) * 4;
    const LaunchShape shape = {"hamming_mask_kernel", ceil_div(pieces, kMaskThreads), kMaskThreads, 0, stream};
    uint16_t* out = reinterpret_cast<uint16_t*>(mask);
    return reinterpret_cast<uintptr_t>(allowed) % 16 == 0
               ? launch(shape, hamming_mask_kernel<true>, allowed, N, out, pieces)
               : launch(shape, hamming_mask_kernel<false>, allowed, N, out, pieces);
}
