// Pairs within a radius: found once as pairs of different codes, written as pairs of rows.
#include <atomic>
#include <memory>
#include <new>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "hamming/groups.h"
#include "pairs/cpu/pairs_join.h"

namespace fasthash {
namespace {

constexpr int64_t kSlice = 1 << 14;  // pairs or rows of a task

// The pairs of rows i < j of one code whose i is `row` or higher.
int64_t equal_pairs_from(const DifferentCodes& codes, int64_t u, int64_t row) {
    const int64_t n = codes.from(u, row);
    return n * (n - 1) / 2;
}

// How many pairs of rows a pair of codes stands for, with the first row in [first, last).
int64_t rows_of_pair(const fh_pairs& join, const CodePair& pair) {
    if (!join.self) return (join.a.from(pair.a, join.first) - join.a.from(pair.a, join.last)) * join.b.size(pair.b);
    const auto from = [&](int64_t row) { return join.a.from(pair.a, row) * join.a.from(pair.b, row); };
    return from(join.first) - from(join.last);
}

// Counts pairs of rows; keeps the pairs of codes while the count is at most `most`.
class Collected final : public PairSink {
  public:
    Collected(fh_pairs& join, int64_t most, int64_t total, int32_t threads) : join_(join), most_(most), total_(total) {
        join.pairs.clear();
        join.pairs.resize(static_cast<size_t>(threads));
    }
    void take(int worker, const CodePair* pairs, int64_t n) override {
        std::vector<CodePair>& kept = join_.pairs[worker];
        int64_t here = 0;
        bool full = total_.load(std::memory_order_relaxed) > most_;
        for (int64_t i = 0; i < n; ++i) {
            const int64_t rows = rows_of_pair(join_, pairs[i]);
            here += rows;
            if (rows == 0 || full) continue;
            try {
                kept.push_back(pairs[i]);
            } catch (const std::bad_alloc&) {
                no_memory_.store(true, std::memory_order_relaxed);
                full = true;
            }
        }
        total_.fetch_add(here, std::memory_order_relaxed);
        if (full) std::vector<CodePair>().swap(kept);
    }
    int64_t total() const { return total_.load(); }
    bool no_memory() const { return no_memory_.load(); }

  private:
    fh_pairs& join_;
    const int64_t most_;
    std::atomic<int64_t> total_;
    std::atomic<bool> no_memory_{false};
};

// Calls visit(i, j, distance) for the rows of a pair of codes, with i in [first, last).
template <class Visit>
void each_row_pair(const fh_pairs& join, const CodePair& pair, const Visit& visit) {
    // The rows of code x of one side in [first, last), with those of code y of the other side: in one set, higher ones.
    const auto each = [&](const DifferentCodes& side, int64_t x, const DifferentCodes& other, int64_t y) {
        for (int64_t m = side.place(x, join.first); m < side.size(x) && side.member(x, m) < join.last; ++m) {
            const int64_t i = side.member(x, m);
            for (int64_t n = join.self ? other.place(y, i) : 0; n < other.size(y); ++n)
                visit(i, other.member(y, n), pair.distance);
        }
    };
    each(join.a, pair.a, join.other(), pair.b);
    if (join.self) each(join.a, pair.b, join.a, pair.a);
}

// Calls visit(i, j, distance) for every pair of rows, on all threads.
template <class Visit>
fh_status each_kept(const fh_pairs& join, int32_t threads, fh_cancel* cancel, const Visit& visit) {
    for (const std::vector<CodePair>& pairs : join.pairs) {
        const int64_t n = static_cast<int64_t>(pairs.size());
        const fh_status status = parallel_for((n + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int) {
            for (int64_t i = slice * kSlice; i < std::min(n, (slice + 1) * kSlice); ++i)
                each_row_pair(join, pairs[i], visit);
        });
        if (status != FH_OK) return status;
    }
    if (!join.self || join.a.starts.empty()) return FH_OK;
    const int64_t codes = join.a.codes.N();
    return parallel_for((codes + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int) {
        for (int64_t u = slice * kSlice; u < std::min(codes, (slice + 1) * kSlice); ++u)
            for (int64_t x = 0; x < join.a.size(u); ++x) {
                const int64_t i = join.a.member(u, x);
                if (i < join.first || i >= join.last) continue;
                for (int64_t y = x + 1; y < join.a.size(u); ++y) visit(i, join.a.member(u, y), 0);
            }
    });
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_pairs_open_cpu(const fh_pairs_problem* problem, fh_pairs** join, int32_t threads,
                                       fh_cancel* cancel) {
    return without_exceptions("hamming_pairs", [&]() -> fh_status {
        const fh_pairs_problem& p = *problem;
        if (p.Na < 0 || p.Nb < 0 || p.W < 1 || p.W > (int64_t{1} << 27) || p.radius < 0 || p.stride_a < p.W ||
            p.G < 0 || p.G > kMostGroups || (p.b != nullptr && p.stride_b < p.W))
            return fail(
                FH_INVALID,
                "hamming_pairs: must have Na, Nb >= 0, W 1 to 2^27, radius >= 0, stride >= W, few enough groups");
        if (p.Na > 0xfffffffe || p.Nb > 0xfffffffe)
            return fail(FH_INVALID, "hamming_pairs: each set must have fewer than 2^32 - 1 codes");
        auto made = std::make_unique<fh_pairs>();
        made->self = p.b == nullptr;
        made->groups = {p.W, {p.group_bits, p.group_bits + p.G}, {p.group_weights, p.group_weights + p.G}};
        made->radius = p.radius;
        made->plan = p.plan;
        if (const fh_status status = different_codes(p.a, p.Na, p.W, p.stride_a, made->a, threads, cancel))
            return status;
        if (!made->self)
            if (const fh_status status = different_codes(p.b, p.Nb, p.W, p.stride_b, made->b, threads, cancel))
                return status;
        *join = made.release();
        return FH_OK;
    });
}

extern "C" void fh_pairs_close(fh_pairs* join) { delete join; }

extern "C" int32_t fh_pairs_plan(const fh_pairs* join) { return join->taken; }

extern "C" fh_status fh_pairs_find_cpu(fh_pairs* join, int64_t first, int64_t last, int64_t most, int64_t* total,
                                       int32_t threads, fh_cancel* cancel) {
    return without_exceptions("hamming_pairs", [&]() -> fh_status {
        join->first = first;
        join->last = last;
        join->kept = false;
        int64_t equal = 0;
        if (join->self && !join->a.starts.empty())
            for (int64_t u = 0; u < join->a.codes.N(); ++u)
                if (join->a.size(u) > 1)
                    equal += equal_pairs_from(join->a, u, first) - equal_pairs_from(join->a, u, last);
        Collected sink(*join, most, equal, std::max(threads, 1));
        join->taken = join->plan;
        if (const fh_status status = join_codes(join->a.codes, join->other().codes, join->groups, join->radius,
                                                join->taken, sink, threads, cancel))
            return status;
        *total = join->total = sink.total();
        join->kept = join->total <= most;
        if (!join->kept) join->pairs.clear();
        if (join->kept && sink.no_memory()) return fail(FH_NO_MEMORY, "hamming_pairs: out of host memory");
        return FH_OK;
    });
}

extern "C" fh_status fh_pairs_write_cpu(fh_pairs* join, int64_t* ids_a, int64_t* ids_b, int32_t* distances,
                                        int32_t threads, fh_cancel* cancel) {
    return without_exceptions("hamming_pairs", [&]() -> fh_status {
        if (!join->kept) return fail(FH_INVALID, "hamming_pairs: no pairs were kept");
        const int64_t first = join->first, rows = join->last - first;
        std::vector<int64_t> offsets(static_cast<size_t>(rows + 1));
        fh_status status = each_kept(*join, threads, cancel, [&](int64_t i, int64_t, int32_t) {
            __atomic_fetch_add(&offsets[i - first + 1], 1, __ATOMIC_RELAXED);
        });
        if (status != FH_OK) return status;
        for (int64_t i = 0; i < rows; ++i) offsets[i + 1] += offsets[i];
        const std::unique_ptr<uint64_t[]> entries(new uint64_t[static_cast<size_t>(join->total)]);  // j, distance
        status = each_kept(*join, threads, cancel, [&](int64_t i, int64_t j, int32_t distance) {
            const int64_t place = __atomic_fetch_add(&offsets[i - first], 1, __ATOMIC_RELAXED);
            entries[place] = static_cast<uint64_t>(j) << 32 | static_cast<uint32_t>(distance);
        });
        if (status != FH_OK) return status;
        // offsets[i] is now where row i ends.
        return parallel_for((rows + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int) {
            for (int64_t i = slice * kSlice; i < std::min(rows, (slice + 1) * kSlice); ++i) {
                const int64_t begin = i == 0 ? 0 : offsets[i - 1], end = offsets[i];
                std::sort(entries.get() + begin, entries.get() + end);
                for (int64_t place = begin; place < end; ++place) {
                    ids_a[place] = first + i;
                    ids_b[place] = static_cast<int64_t>(entries[place] >> 32);
                    distances[place] = static_cast<int32_t>(entries[place] & 0xffffffff);
                }
            }
        });
    });
}
