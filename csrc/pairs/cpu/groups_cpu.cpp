// Groups of codes within a radius, of different codes; equal rows are in one group from the start.
#include <atomic>
#include <memory>
#include <new>

#include "core/exceptions.h"
#include "pairs/cpu/pairs_join.h"

namespace fasthash {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr int64_t kLeastBlock = 256;  // codes

// Connected components by union-find (R. Anderson & H. Woll, "Wait-free parallel algorithms for the union-find
// problem", 1991). A root is the lowest of its set, whatever the order in which pairs come.
class Components final : public PairSink {
  public:
    explicit Components(int64_t N) : parents_(new std::atomic<uint32_t>[static_cast<size_t>(N)]) {
        for (int64_t n = 0; n < N; ++n) parents_[n].store(static_cast<uint32_t>(n), std::memory_order_relaxed);
    }
    void take(int, const CodePair* pairs, int64_t n) override {
        for (int64_t i = 0; i < n; ++i) unite(pairs[i].a, pairs[i].b);
    }
    uint32_t root(uint32_t x) {
        for (;;) {
            uint32_t parent = parents_[x].load(std::memory_order_relaxed);
            const uint32_t next = parents_[parent].load(std::memory_order_relaxed);
            if (parent == next) return parent;
            parents_[x].compare_exchange_weak(parent, next, std::memory_order_relaxed);  // halves the path
            x = next;
        }
    }

  private:
    void unite(uint32_t x, uint32_t y) {
        for (;;) {
            x = root(x);
            y = root(y);
            if (x == y) return;
            if (x > y) std::swap(x, y);
            uint32_t itself = y;
            if (parents_[y].compare_exchange_strong(itself, x, std::memory_order_relaxed)) return;
        }
    }

    std::unique_ptr<std::atomic<uint32_t>[]> parents_;
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
    // The kept pairs ordered by (a, b).
    std::vector<CodePair> sorted() {
        std::vector<CodePair> all;
        for (std::vector<CodePair>& some : pairs_) {
            all.insert(all.end(), some.begin(), some.end());
            std::vector<CodePair>().swap(some);
        }
        std::sort(all.begin(), all.end(),
                  [](const CodePair& x, const CodePair& y) { return x.a != y.a ? x.a < y.a : x.b < y.b; });
        return all;
    }

  private:
    const int64_t most_;
    std::atomic<int64_t> count_{0};
    std::vector<std::vector<CodePair>> pairs_;
};

// Gives each code the lowest representative that it meets. a: places among the representatives, ascending.
class Lowest final : public PairSink {
  public:
    Lowest(const std::vector<uint32_t>& representatives, int64_t block)
        : representatives_(representatives), found_(new std::atomic<uint32_t>[static_cast<size_t>(block)]) {
        for (int64_t n = 0; n < block; ++n) found_[n].store(kNone, std::memory_order_relaxed);
    }
    void take(int, const CodePair* pairs, int64_t n) override {
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t code = representatives_[pairs[i].a];
            std::atomic<uint32_t>& place = found_[pairs[i].b];
            uint32_t seen = place.load(std::memory_order_relaxed);
            while (code < seen && !place.compare_exchange_weak(seen, code, std::memory_order_relaxed)) {
            }
        }
    }
    uint32_t operator[](int64_t n) const { return found_[n].load(std::memory_order_relaxed); }

  private:
    const std::vector<uint32_t>& representatives_;
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
            Lowest lowest(representatives, end - begin);
            const CodeRows a = picked(codes, representatives), b = picked(codes, block);
            if (const fh_status status = join_codes(a, b, join.W, join.radius, plan, lowest, threads, cancel))
                return status;
            size_t left = 0;
            for (int64_t n = begin; n < end; ++n) {
                groups[n] = lowest[n - begin];
                if (groups[n] == kNone) block[left++] = static_cast<uint32_t>(n);
            }
            block.resize(left);
        }
        const CodeRows rows = picked(codes, block);
        Bounded sink(most, std::max(threads, 1));
        join.taken = join.plan;
        if (const fh_status status = join_codes(rows, rows, join.W, join.radius, join.taken, sink, threads, cancel))
            return status;
        if (!sink.complete() && end - begin > kLeastBlock) {
            size = std::max(kLeastBlock, (end - begin) / 4);
            continue;
        }
        if (!sink.complete()) return fail(FH_NO_MEMORY, "duplicate_groups: out of host memory");
        const std::vector<CodePair> pairs = sink.sorted();
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

extern "C" fh_status fh_pairs_groups_cpu(fh_pairs* join, int32_t star, int64_t most, int64_t* representatives,
                                         int32_t threads, fh_cancel* cancel) {
    return without_exceptions("duplicate_groups", [&]() -> fh_status {
        if (!join->self) return fail(FH_INVALID, "duplicate_groups: groups are of one set of codes");
        const DifferentCodes& different = join->a;
        const int64_t U = different.codes.N();
        std::vector<uint32_t> groups(static_cast<size_t>(U));
        if (star != 0) {
            // A block of the least size has fewer pairs than this.
            most = std::max(most, kLeastBlock * kLeastBlock);
            if (const fh_status status = star_groups(*join, most, groups.data(), threads, cancel)) return status;
        } else {
            Components components(U);
            join->taken = join->plan;
            if (const fh_status status = join_codes(different.codes, different.codes, join->W, join->radius,
                                                    join->taken, components, threads, cancel))
                return status;
            for (int64_t u = 0; u < U; ++u) groups[u] = components.root(static_cast<uint32_t>(u));
        }
        for (int64_t u = 0; u < U; ++u)
            for (int64_t i = 0; i < different.size(u); ++i)
                representatives[different.member(u, i)] = different.member(groups[u], 0);
        return FH_OK;
    });
}
