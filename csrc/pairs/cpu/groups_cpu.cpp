// Groups of codes within a radius, of different codes; equal rows are in one group from the start.
#include <atomic>
#include <memory>
#include <new>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "pairs/cpu/pairs_join.h"

namespace fasthash {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr int64_t kLeastBlock = 256;  // codes
constexpr int64_t kSlice = 1 << 12;   // codes of a task

// Connected components by union-find (R. Anderson & H. Woll, "Wait-free parallel algorithms for the union-find
// problem", 1991). A root is the lowest of its set, whatever the order in which pairs come.
class Components final : public PairSink {
  public:
    // Codes of `a` are rows from first_a on, those of `b` from first_b on.
    Components(const DifferentCodes& a, const DifferentCodes& b, int64_t first_a, int64_t first_b, int64_t* parents)
        : a_(a), b_(b), first_a_(first_a), first_b_(first_b), parents_(parents) {}
    void take(int, const CodePair* pairs, int64_t n) override {
        for (int64_t i = 0; i < n; ++i) unite(first_a_ + a_.member(pairs[i].a, 0), first_b_ + b_.member(pairs[i].b, 0));
    }
    void unite(int64_t x, int64_t y) {
        for (;;) {
            x = root(x);
            y = root(y);
            if (x == y) return;
            if (x > y) std::swap(x, y);
            int64_t itself = y;
            if (__atomic_compare_exchange_n(&parents_[y], &itself, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                return;
        }
    }

  private:
    int64_t root(int64_t x) {
        for (;;) {
            int64_t parent = __atomic_load_n(&parents_[x], __ATOMIC_RELAXED);
            const int64_t next = __atomic_load_n(&parents_[parent], __ATOMIC_RELAXED);
            if (parent == next) return parent;
            // Halves the path.
            __atomic_compare_exchange_n(&parents_[x], &parent, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
            x = next;
        }
    }

    const DifferentCodes &a_, &b_;
    const int64_t first_a_, first_b_;
    int64_t* const parents_;
};

// Keeps all pairs, or none where there are more than `most`.
class Bounded final : public PairSink {
  public:
    Bounded(int64_t most, int32_t threads) : most_(most), pairs_(static_cast<size_t>(threads)) {}
    void take(int worker, const CodePair* pairs, int64_t n) override {
        if (count_.fetch_add(n, std::memory_order_relaxed) + n > most_) return;
        try {
            pairs_[worker].insert(pairs_[worker].end(), pairs, pairs + n);
        } catch (const std::bad_alloc&) {
            count_.fetch_add(most_, std::memory_order_relaxed);
        }
    }
    bool complete() const { return count_.load() <= most_; }
    // The kept pairs ordered by (a, b), of codes 0 .. N - 1.
    fh_status sorted(int64_t N, std::vector<CodePair>& all, int32_t threads, fh_cancel* cancel) {
        std::vector<int64_t> ends(static_cast<size_t>(N + 1));
        for (const std::vector<CodePair>& some : pairs_)
            for (const CodePair& pair : some) ++ends[pair.a + 1];
        for (int64_t n = 0; n < N; ++n) ends[n + 1] += ends[n];
        all.resize(static_cast<size_t>(ends[N]));
        for (std::vector<CodePair>& some : pairs_) {
            for (const CodePair& pair : some) all[ends[pair.a]++] = pair;
            std::vector<CodePair>().swap(some);
        }
        // ends[n] is now where the pairs of code n end.
        return parallel_for((N + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int) {
            for (int64_t n = slice * kSlice; n < std::min(N, (slice + 1) * kSlice); ++n)
                std::sort(all.begin() + (n == 0 ? 0 : ends[n - 1]), all.begin() + ends[n],
                          [](const CodePair& x, const CodePair& y) { return x.b < y.b; });
        });
    }

  private:
    const int64_t most_;
    std::atomic<int64_t> count_{0};
    std::vector<std::vector<CodePair>> pairs_;
};

// The lowest code of one side that each code of the other meets; kNone where there is none.
class Lowest final : public PairSink {
  public:
    explicit Lowest(int64_t others) : found_(new std::atomic<uint32_t>[static_cast<size_t>(others)]) {
        for (int64_t n = 0; n < others; ++n) found_[n].store(kNone, std::memory_order_relaxed);
    }
    void take(int, const CodePair* pairs, int64_t n) override {
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t code = pairs[i].a;
            std::atomic<uint32_t>& place = found_[pairs[i].b];
            uint32_t seen = place.load(std::memory_order_relaxed);
            while (code < seen && !place.compare_exchange_weak(seen, code, std::memory_order_relaxed)) {
            }
        }
    }
    uint32_t operator[](int64_t n) const { return found_[n].load(std::memory_order_relaxed); }

  private:
    std::unique_ptr<std::atomic<uint32_t>[]> found_;
};

CodeRows picked(const CodeRows& codes, const std::vector<uint32_t>& rows) {
    CodeRows out(static_cast<int64_t>(rows.size()), codes.bytes());
    for (size_t i = 0; i < rows.size(); ++i)
        std::memcpy(out.row(static_cast<int64_t>(i)), codes.row(rows[i]), static_cast<size_t>(codes.bytes()));
    return out;
}

// groups [U]: the representative of each code. Codes are taken in blocks, the first of all codes: those that no earlier
// representative takes decide among themselves, by a list of their pairs. Where that list is too long, blocks shrink.
fh_status star_groups(fh_pairs& join, int64_t most, uint32_t* groups, int32_t threads, fh_cancel* cancel) {
    const CodeRows& codes = join.a.codes;
    std::vector<uint32_t> representatives;
    int64_t size = std::max<int64_t>(codes.N(), 1);
    for (int64_t begin = 0; begin < codes.N();) {
        const int64_t end = std::min(begin + size, codes.N());
        std::vector<uint32_t> block(static_cast<size_t>(end - begin));
        for (int64_t n = begin; n < end; ++n) block[n - begin] = static_cast<uint32_t>(n);
        int32_t plan = join.plan;
        if (!representatives.empty()) {
            Lowest lowest(end - begin);
            const CodeRows a = picked(codes, representatives), b = picked(codes, block);
            if (const fh_status status = join_codes(a, b, join.groups, join.radius, plan, lowest, threads, cancel))
                return status;
            size_t left = 0;
            for (int64_t n = begin; n < end; ++n) {
                const uint32_t place = lowest[n - begin];
                groups[n] = place == kNone ? kNone : representatives[place];
                if (place == kNone) block[left++] = static_cast<uint32_t>(n);
            }
            block.resize(left);
        }
        const CodeRows rows = picked(codes, block);
        Bounded sink(most, std::max(threads, 1));
        join.taken = join.plan;
        if (const fh_status status =
                join_codes(rows, rows, join.groups, join.radius, join.taken, sink, threads, cancel))
            return status;
        if (!sink.complete() && end - begin > kLeastBlock) {
            size = std::max(kLeastBlock, (end - begin) / 4);
            continue;
        }
        if (!sink.complete()) return fail(FH_NO_MEMORY, "duplicate_groups: out of host memory");
        std::vector<CodePair> pairs;
        if (const fh_status status = sink.sorted(rows.N(), pairs, threads, cancel)) return status;
        for (const uint32_t code : block) groups[code] = kNone;
        size_t next = 0;
        for (size_t i = 0; i < block.size(); ++i) {
            const bool representative = groups[block[i]] == kNone;
            if (representative) {
                groups[block[i]] = block[i];
                representatives.push_back(block[i]);
            }
            for (; next < pairs.size() && pairs[next].a == i; ++next)
                if (representative && groups[block[pairs[next].b]] == kNone) groups[block[pairs[next].b]] = block[i];
        }
        begin = end;
    }
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_pairs_unite_cpu(fh_pairs* join, int64_t first_a, int64_t first_b, int64_t* parents,
                                        int32_t threads, fh_cancel* cancel) {
    return without_exceptions("duplicate_groups", [&]() -> fh_status {
        const DifferentCodes &a = join->a, &b = join->other();
        Components components(a, b, first_a, join->self ? first_a : first_b, parents);
        if (join->self && !a.starts.empty())
            for (int64_t u = 0; u < a.codes.N(); ++u)
                for (int64_t i = 1; i < a.size(u); ++i)
                    components.unite(first_a + a.member(u, 0), first_a + a.member(u, i));
        join->taken = join->plan;
        return join_codes(a.codes, b.codes, join->groups, join->radius, join->taken, components, threads, cancel);
    });
}

extern "C" void fh_pairs_roots_cpu(int64_t* parents, int64_t N) {
    for (int64_t n = 0; n < N; ++n) parents[n] = parents[parents[n]];  // parents are lower, and done
}

extern "C" fh_status fh_pairs_stars_cpu(fh_pairs* join, int64_t most, int64_t* representatives, int32_t threads,
                                        fh_cancel* cancel) {
    return without_exceptions("duplicate_groups", [&]() -> fh_status {
        if (!join->self) return fail(FH_INVALID, "duplicate_groups: must have one set of codes, got two");
        const DifferentCodes& different = join->a;
        const int64_t U = different.codes.N();
        std::vector<uint32_t> groups(static_cast<size_t>(U));
        // A block of the least size has fewer pairs than this.
        most = std::max(most, kLeastBlock * kLeastBlock);
        if (const fh_status status = star_groups(*join, most, groups.data(), threads, cancel)) return status;
        for (int64_t u = 0; u < U; ++u)
            for (int64_t i = 0; i < different.size(u); ++i)
                representatives[different.member(u, i)] = different.member(groups[u], 0);
        return FH_OK;
    });
}

extern "C" fh_status fh_pairs_lowest_cpu(fh_pairs* join, int64_t* lowest, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("duplicate_groups", [&]() -> fh_status {
        if (join->self) return fail(FH_INVALID, "duplicate_groups: must have two sets of codes, got one");
        const DifferentCodes &a = join->a, &b = join->b;
        Lowest found(b.codes.N());
        join->taken = join->plan;
        if (const fh_status status =
                join_codes(a.codes, b.codes, join->groups, join->radius, join->taken, found, threads, cancel))
            return status;
        for (int64_t u = 0; u < b.codes.N(); ++u)
            for (int64_t i = 0; i < b.size(u); ++i)
                lowest[b.member(u, i)] = found[u] == kNone ? -1 : a.member(found[u], 0);
        return FH_OK;
    });
}
