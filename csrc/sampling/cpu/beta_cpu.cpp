#include <algorithm>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "sampling/beta.h"
#include "sampling/beta_inverse.h"

using namespace fasthash;

extern "C" fh_status fh_beta_sample_cpu(const int64_t* seed, int64_t count, float* out, int32_t threads,
                                        fh_cancel* cancel) {
    constexpr int64_t kBlock = 1 << 14;  // samples a task: about 0.1 ms
    const uint64_t key = static_cast<uint64_t>(*seed);
    threads = threads_worth(count * 32, threads);
    return without_exceptions("beta_sample", [&] {
        return parallel_for((count + kBlock - 1) / kBlock, threads, cancel, [&](int64_t task, int) {
            const int64_t end = std::min(count, (task + 1) * kBlock);
            for (int64_t i = task * kBlock; i < end; i += 4) {
                const Philox4 random = philox4x32_10(key, static_cast<uint64_t>(i / 4));
                for (int64_t j = i; j < std::min(end, i + 4); ++j) out[j] = beta_inverse(random.word[j - i]);
            }
        });
    });
}
