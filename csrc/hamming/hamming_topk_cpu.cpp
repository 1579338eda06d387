// The K nearest codes on the CPU.
//
// Distances are small integers, so the K-th nearest so far is found by counting: each worker keeps, for each query, how
// many of its candidates lie at each distance, and the limit below which a code must lie to enter. Workers meet the
// chunks of the database in ascending order, so a later code at the limit never displaces an earlier one, and "nearer
// than the limit" is all that the scan has to test. Limits are shared between workers: a code further than another
// worker's K-th nearest cannot be among the K nearest of all. A large K takes two passes instead (hamming_two_pass.h).
#include <algorithm>
#include <atomic>

#include "hamming/hamming_two_pass.h"

namespace fasthash {
namespace {

constexpr int64_t kMostCandidates = 8192;      // a larger K takes two passes
constexpr int64_t kSortBelow = 64;             // so few candidates are sorted by comparing
constexpr int64_t kCandidateBytes = 40 << 20;  // of all workers in one pass

// A candidate as one integer, ordered as (distance, position).
struct Keys {
    int position_bits;
    explicit Keys(int64_t N) : position_bits(64 - __builtin_clzll(static_cast<uint64_t>(N) | 1)) {}
    uint64_t make(uint64_t distance, int64_t position) const {
        return distance << position_bits | static_cast<uint64_t>(position);
    }
    int32_t distance(uint64_t key) const { return static_cast<int32_t>(key >> position_bits); }
    int64_t position(uint64_t key) const { return static_cast<int64_t>(key & ((uint64_t{1} << position_bits) - 1)); }
};

// The candidates of one query that one worker has met, and beside them the limit. Between two batches fewer
// than K of them lie below the limit, and, once the limit has moved, at least K codes of the database are known to lie
// at it or below.
struct Candidates {
    int64_t below;  // candidates nearer than the limit
    int64_t size;
    uint64_t* keys;    // [capacity], ascending by position
    uint32_t* counts;  // [bits + 1]

    void lower_limit(int32_t& limit, int32_t to) {
        while (limit > to) below -= counts[--limit];
    }
    // Hits below the limit; position: (hit) -> position. The keys have room for them.
    template <class Position>
    void add(const Keys& format, int32_t& limit, const uint64_t* hits, int64_t count, int64_t K,
             const Position& position) {
        for (int64_t i = 0; i < count; ++i) {
            const uint64_t distance = hits[i] >> 32;
            keys[size + i] = format.make(distance, position(hits[i]));
            ++counts[distance];
        }
        size += count;
        below += count;
        while (below >= K) below -= counts[--limit];
    }
    // Drops what the limit rules out: at the limit the first K - below stay.
    void compact(const Keys& format, int32_t limit, int64_t K) {
        const uint64_t at_limit = format.make(limit, 0), beyond = format.make(static_cast<uint64_t>(limit) + 1, 0);
        int64_t kept = 0, room = K - below;
        for (int64_t i = 0; i < size; ++i) {  // without branches: which keys go is unpredictable
            const uint64_t key = keys[i];
            const bool nearer = key < at_limit, tie = !nearer & (key < beyond);
            keys[kept] = key;
            kept += nearer | (tie & (room > 0));
            room -= tie;
        }
        size = kept;
    }
};

class TopK {
  public:
    TopK(const HammingPlan& plan, int64_t K, int64_t first_query, int64_t Q, int32_t threads)
        : plan_(plan),
          K_(K),
          format_(plan.problem->N),
          grid_(make_grid(plan, first_query, Q, threads)),
          capacity_(capacity(plan, K)),
          keys_(new uint64_t[grid_.threads * Q * capacity_]),
          counts_(static_cast<size_t>(grid_.threads * Q * (plan.bits + 1))),
          candidates_(static_cast<size_t>(grid_.threads * Q)),
          limits_(static_cast<size_t>(grid_.threads * Q), plan.bits + 1),
          shared_limits_(new std::atomic<int32_t>[Q]) {
        for (int64_t i = 0; i < grid_.threads * Q; ++i)
            candidates_[i] = {0, 0, &keys_[i * capacity_], &counts_[i * (plan.bits + 1)]};
        for (int64_t q = 0; q < Q; ++q) shared_limits_[q].store(plan.bits + 1, std::memory_order_relaxed);
        for (int32_t worker = 0; worker < grid_.threads; ++worker) scratch_.emplace_back(plan);
        const int64_t most = grid_.threads * capacity_;
        for (int32_t worker = 0; worker < grid_.threads; ++worker)
            merges_.push_back({std::vector<uint64_t>(most), std::vector<uint64_t>(most > kSortBelow ? most : 0),
                               std::vector<int64_t>(plan.bits + 3)});
    }

    // Candidates kept before those out of reach are dropped; beyond K, so that this is rare.
    static int64_t capacity(const HammingPlan& plan, int64_t K) {
        const int64_t most = std::min(K, plan.problem->N);
        return 2 * most + kHitsRoom;
    }
    static int64_t query_bytes(const HammingPlan& plan, int64_t K) {
        return capacity(plan, K) * 8 + int64_t{plan.bits + 1} * 4 + static_cast<int64_t>(sizeof(Candidates));
    }

    fh_status scan(fh_cancel* cancel) {
        return parallel_for(grid_.tasks(), grid_.threads, cancel, [&](int64_t task_number, int worker) {
            const HammingTask task = task_of(plan_, grid_, task_number);
            const int64_t first = grid_.first_query;
            for (int64_t q = task.query_begin - first; q < task.query_end - first; ++q) follow_shared_limit(worker, q);
            HammingTiles tiles(plan_, scratch_[worker], task.begin, task.end, task.query_end - task.query_begin);
            for (HammingTile tile; tiles.next(tile);)
                take_hits(plan_, scratch_[worker], tile, task.query_begin, task.query_end, &limit(worker, -first),
                          [&](int64_t query, const uint64_t* hits, int64_t count) {
                              take(worker, query - first, tile, hits, count);
                          });
        });
    }

    fh_status write(int32_t* distances, int64_t* ids, fh_cancel* cancel) {
        constexpr int64_t kQueries = 16;
        const int32_t threads = grid_.Q * K_ < 20000 ? 1 : grid_.threads;
        return parallel_for((grid_.Q + kQueries - 1) / kQueries, threads, cancel, [&](int64_t task, int worker) {
            for (int64_t q = task * kQueries; q < std::min((task + 1) * kQueries, grid_.Q); ++q)
                write_query(q, merges_[worker], distances + (grid_.first_query + q) * K_,
                            ids + (grid_.first_query + q) * K_);
        });
    }

  private:
    // One worker's buffers for putting a query's candidates in order.
    struct Merge {
        std::vector<uint64_t> keys, sorted;  // [threads * capacity]
        std::vector<int64_t> places;         // [bits + 3]
    };

    Candidates& candidates(int64_t worker, int64_t q) { return candidates_[worker * grid_.Q + q]; }
    int32_t& limit(int64_t worker, int64_t q) { return limits_.data()[worker * grid_.Q + q]; }

    // What lies further than the nearest limit of all workers is out; what lies at it may still come first by position.
    void follow_shared_limit(int worker, int64_t q) {
        candidates(worker, q).lower_limit(limit(worker, q), shared_limits_[q].load(std::memory_order_relaxed) + 1);
    }

    void take(int worker, int64_t q, const HammingTile& tile, const uint64_t* hits, int64_t count) {
        Candidates& mine = candidates(worker, q);
        int32_t& my_limit = limit(worker, q);
        const int32_t before = my_limit;
        if (mine.size + count > capacity_) mine.compact(format_, my_limit, K_);
        if (tile.positions == nullptr) {
            mine.add(format_, my_limit, hits, count, K_,
                     [&](uint64_t hit) { return tile.first + static_cast<uint32_t>(hit); });
        } else {
            mine.add(format_, my_limit, hits, count, K_, [&](uint64_t hit) { return tile.position_of_hit(hit); });
        }
        if (my_limit == before) return;
        int32_t seen = shared_limits_[q].load(std::memory_order_relaxed);
        while (my_limit < seen && !shared_limits_[q].compare_exchange_weak(seen, my_limit, std::memory_order_relaxed)) {
        }
        follow_shared_limit(worker, q);
    }

    // The first K of all workers' candidates.
    void write_query(int64_t q, Merge& merge, int32_t* distances, int64_t* ids) {
        int32_t reach = plan_.bits + 1;
        for (int32_t worker = 0; worker < grid_.threads; ++worker) reach = std::min(reach, limit(worker, q));
        int64_t size = 0;
        int32_t sources = 0;
        for (int32_t worker = 0; worker < grid_.threads; ++worker) {
            const Candidates& theirs = candidates(worker, q);
            const int64_t before = size;
            for (int64_t i = 0; i < theirs.size; ++i) {
                merge.keys[size] = theirs.keys[i];
                size += format_.distance(theirs.keys[i]) <= reach;
            }
            sources += size > before;
        }
        const int64_t found = std::min(size, K_);
        const uint64_t* sorted = merge.keys.data();
        if (size <= kSortBelow)
            std::sort(merge.keys.begin(), merge.keys.begin() + size);
        else
            sorted = sort_by_counting(merge, size, reach, sources > 1);
        for (int64_t i = 0; i < found; ++i) {
            distances[i] = format_.distance(sorted[i]);
            ids[i] = format_.position(sorted[i]);
        }
        std::fill(distances + found, distances + K_, plan_.bits + 1);
        std::fill(ids + found, ids + K_, -1);
    }

    // One worker's keys ascend by position already; those of several are sorted at each distance that is wanted.
    const uint64_t* sort_by_counting(Merge& merge, int64_t size, int32_t reach, bool several) const {
        std::vector<int64_t>& places = merge.places;
        std::fill(places.begin(), places.end(), 0);
        for (int64_t i = 0; i < size; ++i) ++places[format_.distance(merge.keys[i]) + 1];
        for (int32_t distance = 0; distance <= reach; ++distance) places[distance + 1] += places[distance];
        for (int64_t i = 0; i < size; ++i) merge.sorted[places[format_.distance(merge.keys[i])]++] = merge.keys[i];
        for (int64_t begin = 0, distance = 0; several && begin < std::min(size, K_); begin = places[distance++])
            std::sort(merge.sorted.begin() + begin, merge.sorted.begin() + places[distance]);
        return merge.sorted.data();
    }

    const HammingPlan& plan_;
    const int64_t K_;
    const Keys format_;
    const HammingGrid grid_;
    const int64_t capacity_;
    std::unique_ptr<uint64_t[]> keys_;                       // [threads, Q, capacity]
    std::vector<uint32_t> counts_;                           // [threads, Q, bits + 1]
    std::vector<Candidates> candidates_;                     // [threads, Q]
    std::vector<int32_t> limits_;                            // [threads, Q]: see Candidates
    std::unique_ptr<std::atomic<int32_t>[]> shared_limits_;  // [Q]: no code further than this is wanted
    std::vector<HammingScratch> scratch_;                    // [threads]
    std::vector<Merge> merges_;                              // [threads]
};

// The distance of the K-th nearest code from the counts of all, then everything up to it.
fh_status topk_two_pass(const HammingPlan& plan, int64_t K, int32_t* distances, int64_t* ids, int32_t threads,
                        fh_cancel* cancel) {
    const int64_t Q = plan.problem->Q, step = TwoPass::queries_at_once(plan, plan.bits + 1);
    for (int64_t first = 0; first < Q; first += step) {
        TwoPass pass(plan, first, std::min(step, Q - first), plan.bits + 1, threads);
        if (const fh_status status = pass.count(cancel)) return status;
        for (int64_t q = first; q < std::min(first + step, Q); ++q) {
            const int64_t found = std::min(pass.found(q - first), K);
            std::fill(distances + q * K + found, distances + (q + 1) * K, plan.bits + 1);
            std::fill(ids + q * K + found, ids + (q + 1) * K, -1);
        }
        const auto begin = [&](int64_t q) { return (first + q) * K; };
        const auto room = [&](int64_t) { return K; };
        if (const fh_status status = pass.fill(begin, room, distances, ids, cancel)) return status;
    }
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_topk_cpu(const fh_hamming_problem* problem, int64_t K, int32_t* distances, int64_t* ids,
                                         int32_t threads, fh_cancel* cancel) {
    return without_exceptions([&]() -> fh_status {
        HammingPlan plan;
        if (const fh_status status = make_plan(problem, plan)) return status;
        if (K < 1) return fail(FH_INVALID, "fh_hamming_topk_cpu: K must be >= 1");
        if (std::min(K, problem->N) > kMostCandidates) return topk_two_pass(plan, K, distances, ids, threads, cancel);
        const int64_t step = std::max<int64_t>(1, kCandidateBytes / std::max(threads, 1) / TopK::query_bytes(plan, K));
        for (int64_t first = 0; first < problem->Q; first += step) {
            TopK pass(plan, K, first, std::min(step, problem->Q - first), threads);
            if (const fh_status status = pass.scan(cancel)) return status;
            if (const fh_status status = pass.write(distances, ids, cancel)) return status;
        }
        return FH_OK;
    });
}
