// What one multiprocessor does in a clock: the ceilings that the CUDA kernels are measured against, and whether a
// filter by other instructions would pay. Prints JSON. bench_rates_cuda.py compiles and runs it.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

constexpr int kThreads = 512;
constexpr int kBlocksPerMultiprocessor = 4;
constexpr int kChains = 8;  // independent chains of each thread
constexpr int kSteps = 4096;
constexpr int kRepeats = 5;

struct Clock {
    unsigned long long cycles, nanoseconds;
};

__device__ Clock now() {
    Clock clock;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clock.cycles));
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(clock.nanoseconds));
    return clock;
}

// One step of a chain; kPerStep is what it does for each thread.
struct ManhattanPair {  // two FADD
    static constexpr double kPerStep = 1;
    static constexpr const char* kName = "manhattan_element_pairs";
    static __device__ void step(uint32_t (&r)[4], uint32_t a, uint32_t b) {
        r[0] = __float_as_uint(fabsf(__uint_as_float(r[0]) - __uint_as_float(a)) + __uint_as_float(b));
    }
};
struct PopulationCount {
    static constexpr double kPerStep = 1;
    static constexpr const char* kName = "popc_words";
    static __device__ void step(uint32_t (&r)[4], uint32_t a, uint32_t) { r[0] += __popc(r[0] ^ a); }
};
struct AbsoluteDifferences {  // of four bytes, added up
    static constexpr double kPerStep = 4;
    static constexpr const char* kName = "vabsdiff4_element_pairs";
    static __device__ void step(uint32_t (&r)[4], uint32_t a, uint32_t b) {
        asm volatile("vabsdiff4.u32.u32.u32.add %0, %1, %2, %0;" : "+r"(r[0]) : "r"(a), "r"(b));
    }
};
struct ProductTf32 {
    static constexpr double kPerStep = 16.0 * 8 * 8 / 32;
    static constexpr const char* kName = "mma_tf32_products";
    static __device__ void step(uint32_t (&r)[4], uint32_t a, uint32_t b) {
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %4, %5}, {%4, %5}, {%0, %1, "
            "%2, %3};"
            : "+r"(r[0]), "+r"(r[1]), "+r"(r[2]), "+r"(r[3])
            : "r"(a), "r"(b));
    }
};
struct ProductBits {  // popcount(a and b)
    static constexpr double kPerStep = 16.0 * 8 * 256 / 32;
    static constexpr const char* kName = "mma_b1_bits";
    static __device__ void step(uint32_t (&r)[4], uint32_t a, uint32_t b) {
        asm volatile(
            "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %4, %5}, {%4, %5}, "
            "{%0, %1, %2, %3};"
            : "+r"(r[0]), "+r"(r[1]), "+r"(r[2]), "+r"(r[3])
            : "r"(a), "r"(b));
    }
};

template <class Operation>
__global__ void __launch_bounds__(kThreads) rate_kernel(uint32_t a, uint32_t b, uint32_t* out, Clock* clocks) {
    uint32_t chains[kChains][4];
    for (int i = 0; i < kChains; ++i)
        for (int j = 0; j < 4; ++j) chains[i][j] = threadIdx.x + i;
    const Clock begin = now();
#pragma unroll 1
    for (int step = 0; step < kSteps; step += 8) {
#pragma unroll
        for (int u = 0; u < 8; ++u)
#pragma unroll
            for (int i = 0; i < kChains; ++i) Operation::step(chains[i], a, b);
    }
    const Clock end = now();
    uint32_t sum = 0;
    for (int i = 0; i < kChains; ++i)
        for (int j = 0; j < 4; ++j) sum += chains[i][j];
    if (sum == 0x12345) *out = sum;
    if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = {end.cycles - begin.cycles, end.nanoseconds - begin.nanoseconds};
}

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
}

template <class Operation>
void measure(int multiprocessors, const char* separator) {
    uint32_t* out;
    Clock* clocks;
    check(cudaMalloc(&out, sizeof(*out)));
    check(cudaMallocHost(&clocks, sizeof(*clocks)));
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin));
    check(cudaEventCreate(&end));
    const int blocks = multiprocessors * kBlocksPerMultiprocessor;
    float best = 1e30f;
    double gigahertz = 0;
    for (int i = 0; i < kRepeats; ++i) {
        check(cudaEventRecord(begin));
        rate_kernel<Operation><<<blocks, kThreads>>>(0x01020304u, 0x3f800001u, out, clocks);
        check(cudaGetLastError());
        check(cudaEventRecord(end));
        check(cudaEventSynchronize(end));
        float milliseconds;
        check(cudaEventElapsedTime(&milliseconds, begin, end));
        best = std::min(best, milliseconds);
        gigahertz = static_cast<double>(clocks->cycles) / static_cast<double>(clocks->nanoseconds);
    }
    const double done = Operation::kPerStep * kChains * kSteps * kThreads * blocks, seconds = best * 1e-3;
    std::printf(" \"%s\": {\"per_second\": %.4g, \"gigahertz\": %.3f, \"per_clock_and_multiprocessor\": %.1f}%s\n",
                Operation::kName, done / seconds, gigahertz, done / seconds / gigahertz / 1e9 / multiprocessors,
                separator);
}

int main() {
    cudaDeviceProp device;
    check(cudaGetDeviceProperties(&device, 0));
    std::printf("{\n \"device\": \"%s\", \"multiprocessors\": %d,\n", device.name, device.multiProcessorCount);
    measure<ManhattanPair>(device.multiProcessorCount, ",");
    measure<PopulationCount>(device.multiProcessorCount, ",");
    measure<AbsoluteDifferences>(device.multiProcessorCount, ",");
    measure<ProductTf32>(device.multiProcessorCount, ",");
    measure<ProductBits>(device.multiProcessorCount, "");
    std::printf("}\n");
}
