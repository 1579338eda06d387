// Bitmaps from booleans.
#include <algorithm>
#include <cstring>

#include "core/exceptions.h"
#include "hamming/cpu/hamming_tiles.h"

namespace fasthash {
namespace {

constexpr int64_t kTaskWords = 1024;  // 64 KiB of booleans

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_mask_cpu(const uint8_t* allowed, int64_t N, uint64_t* mask, int32_t threads) {
    if (N < 0) return fail(FH_INVALID, "fh_hamming_mask_cpu: N must be >= 0");
    const ScanTable* table = chosen_scan();
    if (table == nullptr) return FH_INVALID;
    const int64_t words = N / 64, tasks = (words + kTaskWords - 1) / kTaskWords;
    if (N % 64 != 0) {
        uint8_t last[64] = {};
        std::memcpy(last, allowed + 64 * words, static_cast<size_t>(N % 64));
        table->mask(last, 1, mask + words);
    }
    return without_exceptions("hamming_mask", [&] {
        return parallel_for(tasks, threads_worth(N, threads), nullptr, [&](int64_t task, int) {
            const int64_t begin = task * kTaskWords, n = std::min(kTaskWords, words - begin);
            table->mask(allowed + 64 * begin, n, mask + begin);
        });
    });
}
