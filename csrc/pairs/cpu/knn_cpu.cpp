// The nearest others of every code, from the pairs within a radius. Each code keeps its K nearest different codes by
// (distance, lowest row): among codes at one distance the K lowest rows are rows of those K codes that begin lowest.
#include <atomic>
#include <memory>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "pairs/cpu/pairs_join.h"

namespace fasthash {
namespace {

constexpr int64_t kSlice = 1 << 12;  // codes of a task
constexpr uint64_t kEmpty = UINT64_MAX;

class NearestCodes final : public PairSink {
  public:
    NearestCodes(int64_t U, int64_t K)
        : K_(K), near_(new uint64_t[static_cast<size_t>(U * K)]), locks_(new std::atomic_flag[static_cast<size_t>(U)]) {
        std::fill_n(near_.get(), U * K, kEmpty);
        for (int64_t u = 0; u < U; ++u) locks_[u].clear();
    }
    void take(int, const CodePair* pairs, int64_t n) override {
        for (int64_t i = 0; i < n; ++i) {
            const uint64_t distance = static_cast<uint64_t>(pairs[i].distance) << 32;
            offer(pairs[i].a, distance | pairs[i].b);
            offer(pairs[i].b, distance | pairs[i].a);
        }
    }
    // [K] of code u, ascending: distance << 32 | code, kEmpty where there are fewer.
    const uint64_t* of(int64_t u) const { return &near_[u * K_]; }

  private:
    void offer(int64_t u, uint64_t entry) {
        uint64_t* const near = &near_[u * K_];
        if (entry >= __atomic_load_n(&near[K_ - 1], __ATOMIC_RELAXED)) return;
        while (locks_[u].test_and_set(std::memory_order_acquire)) {
        }
        if (entry < near[K_ - 1]) {
            int64_t place = K_ - 1;
            for (; place > 0 && near[place - 1] > entry; --place)
                __atomic_store_n(&near[place], near[place - 1], __ATOMIC_RELAXED);
            __atomic_store_n(&near[place], entry, __ATOMIC_RELAXED);
        }
        locks_[u].clear(std::memory_order_release);
    }

    const int64_t K_;
    std::unique_ptr<uint64_t[]> near_;
    std::unique_ptr<std::atomic_flag[]> locks_;
};

// The K nearest rows of other codes than u, ascending by (distance, row); fewer where fewer are known. rows [K * K].
int64_t nearest_rows(const DifferentCodes& codes, const uint64_t* near, int64_t K, uint64_t* rows) {
    int64_t count = 0, begin = 0;  // rows from `begin` on are of one distance, not yet in order
    for (int64_t i = 0; i < K && near[i] != kEmpty; ++i) {
        const uint64_t distance = near[i] >> 32 << 32;
        const int64_t code = static_cast<int64_t>(near[i] & 0xffffffff);
        if (count > begin && rows[begin] >> 32 << 32 != distance) {
            if (count >= K) break;
            std::sort(rows + begin, rows + count);
            begin = count;
        }
        for (int64_t m = 0; m < std::min(codes.size(code), K); ++m)
            rows[count++] = distance | static_cast<uint64_t>(codes.member(code, m));
    }
    std::sort(rows + begin, rows + count);
    return std::min(count, K);
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_pairs_knn_cpu(fh_pairs* join, int64_t K, int32_t* distances, int64_t* ids, int32_t threads,
                                      fh_cancel* cancel) {
    return without_exceptions("knn_graph", [&]() -> fh_status {
        if (!join->self || K < 1 || K > 64)
            return fail(FH_INVALID, "knn_graph: must have K 1 to 64, and one set of codes");
        const DifferentCodes& codes = join->a;
        const int64_t U = codes.codes.N();
        NearestCodes nearest(U, K);
        join->taken = join->plan;
        if (const fh_status status =
                join_codes(codes.codes, codes.codes, join->groups, join->radius, join->taken, nearest, threads, cancel))
            return status;
        std::vector<std::vector<uint64_t>> scratch(static_cast<size_t>(std::max(threads, 1)),
                                                   std::vector<uint64_t>(static_cast<size_t>(K * K)));
        return parallel_for((U + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int worker) {
            uint64_t* const rows = scratch[worker].data();
            for (int64_t u = slice * kSlice; u < std::min(U, (slice + 1) * kSlice); ++u) {
                const int64_t size = codes.size(u), others = nearest_rows(codes, nearest.of(u), K, rows);
                for (int64_t m = 0; m < size; ++m) {
                    const int64_t row = codes.member(u, m);
                    int64_t found = 0;
                    if (size - 1 + others < K) {
                        ids[row * K] = -1;
                        continue;
                    }
                    for (int64_t equal = 0; equal < size && found < K; ++equal) {
                        if (equal == m) continue;
                        distances[row * K + found] = 0;
                        ids[row * K + found++] = codes.member(u, equal);
                    }
                    for (int64_t i = 0; found < K; ++i) {
                        distances[row * K + found] = static_cast<int32_t>(rows[i] >> 32);
                        ids[row * K + found++] = static_cast<int64_t>(rows[i] & 0xffffffff);
                    }
                }
            }
        });
    });
}
