// The K nearest codes on the CPU.
//
// Distances are small integers, so the K-th nearest so far is found by counting: each worker keeps, for each query, how
// many of its candidates lie at each distance, and the limit below which a code must lie to enter. Workers meet the
// chunks of the database in ascending order, so a later code at the limit never displaces an earlier one, and "nearer
// than the limit" is all that the scan has to test. Limits are shared between workers: a code further than another
// worker's K-th nearest cannot be among the K nearest of all. A large K takes two passes instead (hamming_two_pass.h).
//
// While the limits fall, some K log(N / K) codes enter that leave again. For K in the hundreds that costs as much as
// the scan, so a sample of the database first says where the limits will about end; a query for which it said too
// little is searched again without it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/exceptions.h"
#include "hamming/cpu/hamming_two_pass.h"

namespace fasthash {
namespace {

constexpr int64_t kMostCandidates = 8192;      // a larger K takes two passes
constexpr int64_t kSortBelow = 64;             // so few candidates are sorted by comparing, more by digits
constexpr int kDigitBits = 11;                 // 8 KiB of places
constexpr int64_t kCandidateBytes = 40 << 20;  // of all workers in one pass

constexpr int64_t kSampleFromK = 128, kSampleFromCodes = 32;  // K, and codes for each of the K, for a sample to pay
constexpr int64_t kSampleEvery = 64;                          // one code in so many, at least
constexpr int64_t kSampleLeast = 2048, kSampleBytes = 4 << 20;
constexpr int64_t kSampleRun = 8;  // codes read side by side

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
    uint32_t* counts;  // [largest + 1]

    // Weighted distances leave most counts at 0: far up they are passed eight at a time.
    static constexpr int32_t kSkip = 8, kFar = 512;
    void skip_empty(int32_t& limit, int32_t to) const {
        uint64_t eight[kSkip / 2];
        for (; limit > kFar && limit - to >= kSkip; limit -= kSkip) {
            std::memcpy(eight, counts + limit - kSkip, sizeof(eight));
            if ((eight[0] | eight[1] | eight[2] | eight[3]) != 0) return;
        }
    }
    void lower_limit(int32_t& limit, int32_t to) {
        while (limit > to) {
            skip_empty(limit, to);
            if (limit > to) below -= counts[--limit];
        }
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
        while (below >= K) {
            skip_empty(limit, 0);
            below -= counts[--limit];
        }
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
          counts_(static_cast<size_t>(grid_.threads * Q * (plan.largest + 1))),
          candidates_(static_cast<size_t>(grid_.threads * Q)),
          limits_(static_cast<size_t>(grid_.threads * Q), plan.largest + 1),
          shared_limits_(new std::atomic<int32_t>[Q]) {
        for (int64_t i = 0; i < grid_.threads * Q; ++i)
            candidates_[i] = {0, 0, &keys_[i * capacity_], &counts_[i * (plan.largest + 1)]};
        for (int64_t q = 0; q < Q; ++q) shared_limits_[q].store(plan.largest + 1, std::memory_order_relaxed);
        for (int32_t worker = 0; worker < grid_.threads; ++worker) scratch_.emplace_back(plan);
    }

    // Candidates kept before those out of reach are dropped; beyond K, so that this is rare.
    static int64_t capacity(const HammingPlan& plan, int64_t K) {
        const int64_t most = std::min(K, plan.problem->N);
        return 2 * most + kHitsRoom;
    }
    static int64_t query_bytes(const HammingPlan& plan, int64_t K) {
        return capacity(plan, K) * 8 + int64_t{plan.largest + 1} * 4 + static_cast<int64_t>(sizeof(Candidates));
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

    // Codes further than expected[q] will not be looked at: fewer than K results may be found then.
    void expect(const int32_t* expected) {
        for (int64_t q = 0; q < grid_.Q; ++q) {
            shared_limits_[q].store(expected[q], std::memory_order_relaxed);
            for (int32_t worker = 0; worker < grid_.threads; ++worker) follow_shared_limit(worker, q);
        }
    }

    fh_status write(int32_t* distances, int64_t* ids, fh_cancel* cancel) {
        constexpr int64_t kQueries = 16;
        const int32_t threads = grid_.Q * K_ < 20000 ? 1 : grid_.threads;
        int64_t most = 0;
        for (int64_t q = 0; q < grid_.Q; ++q) {
            int64_t size = 0;
            for (int32_t worker = 0; worker < grid_.threads; ++worker) size += candidates(worker, q).size;
            most = std::max(most, size);
        }
        std::vector<Merge> merges;
        for (int32_t worker = 0; worker < threads; ++worker) merges.emplace_back(plan_, most);
        return parallel_for((grid_.Q + kQueries - 1) / kQueries, threads, cancel, [&](int64_t task, int worker) {
            for (int64_t q = task * kQueries; q < std::min((task + 1) * kQueries, grid_.Q); ++q)
                write_query(q, merges[worker], distances + (grid_.first_query + q) * K_,
                            ids + (grid_.first_query + q) * K_);
        });
    }

  private:
    // One worker's buffers for putting a query's candidates in order, `most` at most.
    struct Merge {
        Merge(const HammingPlan& plan, int64_t most)
            : beyond(most), keys(new uint64_t[2 * most]), sorted(new uint64_t[2 * most]), places(plan.largest + 3) {}
        int64_t beyond;                            // a place after all of them
        std::unique_ptr<uint64_t[]> keys, sorted;  // [2, most]
        std::vector<int64_t> places;               // [largest + 3]
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
        const int64_t found = grid_.threads == 1 && candidates(0, q).size > kSortBelow
                                  ? write_by_counts(candidates(0, q), limit(0, q), merge, distances, ids)
                                  : write_merged(q, merge, distances, ids);
        std::fill(distances + found, distances + K_, plan_.largest + 1);
        std::fill(ids + found, ids + K_, -1);
    }

    // One worker's candidates ascend by position and are counted already: each goes straight to its place. Without
    // branches: which of them come first is unpredictable.
    int64_t write_by_counts(const Candidates& mine, int32_t limit, Merge& merge, int32_t* distances,
                            int64_t* ids) const {
        const int32_t reach = std::min(limit, plan_.largest);
        int64_t total = 0;
        for (int32_t distance = 0; distance <= reach; ++distance) {
            merge.places[distance] = total;
            total += mine.counts[distance];
        }
        merge.places[reach + 1] = merge.beyond;  // for all that lie further
        for (int64_t i = 0; i < mine.size; ++i) {
            const uint64_t key = mine.keys[i];
            merge.sorted[merge.places[std::min(format_.distance(key), reach + 1)]++] = key;
        }
        const int64_t found = std::min(total, K_);
        decode(merge.sorted.get(), found, distances, ids);
        return found;
    }

    void decode(const uint64_t* sorted, int64_t found, int32_t* distances, int64_t* ids) const {
        for (int64_t i = 0; i < found; ++i) {
            distances[i] = format_.distance(sorted[i]);
            ids[i] = format_.position(sorted[i]);
        }
    }

    int64_t write_merged(int64_t q, Merge& merge, int32_t* distances, int64_t* ids) {
        int32_t reach = plan_.largest + 1;
        for (int32_t worker = 0; worker < grid_.threads; ++worker) reach = std::min(reach, limit(worker, q));
        int64_t size = 0;
        for (int32_t worker = 0; worker < grid_.threads; ++worker) {
            const Candidates& theirs = candidates(worker, q);
            for (int64_t i = 0; i < theirs.size; ++i) {
                merge.keys[size] = theirs.keys[i];
                size += format_.distance(theirs.keys[i]) <= reach;
            }
        }
        const int64_t found = std::min(size, K_);
        if (size <= kSortBelow)
            std::sort(merge.keys.get(), merge.keys.get() + size);
        else
            sort_by_digits(merge, size, format_.make(static_cast<uint64_t>(reach) + 1, 0) - 1);
        decode(merge.keys.get(), found, distances, ids);
        return found;
    }

    // Sorts merge.keys by digits of up to kDigitBits, the lowest first; `greatest` has the bits that keys may have.
    static void sort_by_digits(Merge& merge, int64_t size, uint64_t greatest) {
        const int bits = 64 - __builtin_clzll(greatest | 1), passes = (bits + kDigitBits - 1) / kDigitBits;
        const int digit = (bits + passes - 1) / passes;
        const uint64_t last = (uint64_t{1} << digit) - 1;
        uint32_t places[1 << kDigitBits];
        for (int pass = 0; pass < passes; ++pass) {
            std::fill(places, places + last + 1, 0);
            for (int64_t i = 0; i < size; ++i) ++places[merge.keys[i] >> (pass * digit) & last];
            uint32_t place = 0;
            for (uint64_t value = 0; value <= last; ++value) {
                place += places[value];
                places[value] = place - places[value];
            }
            for (int64_t i = 0; i < size; ++i)
                merge.sorted[places[merge.keys[i] >> (pass * digit) & last]++] = merge.keys[i];
            merge.keys.swap(merge.sorted);
        }
    }

    const HammingPlan& plan_;
    const int64_t K_;
    const Keys format_;
    const HammingGrid grid_;
    const int64_t capacity_;
    std::unique_ptr<uint64_t[]> keys_;                       // [threads, Q, capacity]
    std::vector<uint32_t> counts_;                           // [threads, Q, largest + 1]
    std::vector<Candidates> candidates_;                     // [threads, Q]
    std::vector<int32_t> limits_;                            // [threads, Q]: see Candidates
    std::unique_ptr<std::atomic<int32_t>[]> shared_limits_;  // [Q]: no code further than this is wanted
    std::vector<HammingScratch> scratch_;                    // [threads]
};

fh_status topk_one_pass(const HammingPlan& plan, int64_t K, const int32_t* expected, int32_t* distances, int64_t* ids,
                        int32_t threads, fh_cancel* cancel) {
    const int64_t Q = plan.problem->Q;
    const int64_t step = std::max<int64_t>(1, kCandidateBytes / std::max(threads, 1) / TopK::query_bytes(plan, K));
    for (int64_t first = 0; first < Q; first += step) {
        TopK pass(plan, K, first, std::min(step, Q - first), threads);
        if (expected != nullptr) pass.expect(expected + first);
        if (const fh_status status = pass.scan(cancel)) return status;
        if (const fh_status status = pass.write(distances, ids, cancel)) return status;
    }
    return FH_OK;
}

// Of each query, the distance at which a sample of the database has so many codes that the whole surely has K; empty
// where a sample would not pay. Runs of codes are taken at even distances, each moved by a hash of its number, so that
// no period in the database is met.
fh_status expected_limits(const HammingPlan& plan, int64_t K, std::vector<int32_t>& expected, int32_t threads,
                          fh_cancel* cancel) {
    const fh_hamming_problem& p = *plan.problem;
    const int64_t least = kSampleLeast * kSampleEvery;
    if (K < kSampleFromK || p.N / kSampleFromCodes < K || p.N < least || p.Q == 0) return FH_OK;
    const int64_t codes = std::max(kSampleLeast, std::min(p.N / kSampleEvery, kSampleBytes / p.W));
    const int64_t runs = codes / kSampleRun, apart = p.N / runs;
    std::vector<uint8_t> sample(static_cast<size_t>(runs * kSampleRun * p.W));
    int64_t size = 0;
    for (int64_t run = 0; run < runs; ++run) {
        const uint64_t hash = (static_cast<uint64_t>(run) * 0x9e3779b97f4a7c15u) >> 32;
        const int64_t begin = run * apart + static_cast<int64_t>(hash % static_cast<uint64_t>(apart - kSampleRun + 1));
        for (int64_t n = begin; n < begin + kSampleRun; ++n) {
            if (p.mask != nullptr && (p.mask[n / 64] >> (n % 64) & 1) == 0) continue;
            std::memcpy(&sample[size++ * p.W], p.database + n * p.stride, static_cast<size_t>(p.W));
        }
    }
    // So many of the sample's codes are expected among the K nearest of all; two standard deviations on top.
    const double mean = static_cast<double>(K) * static_cast<double>(runs * kSampleRun) / static_cast<double>(p.N);
    const int64_t rank = static_cast<int64_t>(mean + 2 * std::sqrt(mean) + 2);
    if (size < runs * kSampleRun / 8 || size < rank) return FH_OK;

    fh_hamming_problem sampled = p;
    sampled.database = sample.data();
    sampled.mask = nullptr;
    sampled.N = size;
    sampled.stride = p.W;
    HammingPlan sampled_plan;
    if (const fh_status status = make_plan(&sampled, sampled_plan)) return status;
    std::vector<int32_t> distances(static_cast<size_t>(p.Q * rank));
    std::vector<int64_t> ids(distances.size());
    if (const fh_status status =
            topk_one_pass(sampled_plan, rank, nullptr, distances.data(), ids.data(), threads, cancel))
        return status;
    expected.resize(static_cast<size_t>(p.Q));
    for (int64_t q = 0; q < p.Q; ++q) expected[q] = distances[(q + 1) * rank - 1];
    return FH_OK;
}

// The search with limits from a sample, and again without them for the queries that found fewer than K.
fh_status topk_sampled(const HammingPlan& plan, int64_t K, int32_t* distances, int64_t* ids, int32_t threads,
                       fh_cancel* cancel) {
    const fh_hamming_problem& p = *plan.problem;
    std::vector<int32_t> expected;
    if (const fh_status status = expected_limits(plan, K, expected, threads, cancel)) return status;
    const int32_t* limits = expected.empty() ? nullptr : expected.data();
    if (const fh_status status = topk_one_pass(plan, K, limits, distances, ids, threads, cancel)) return status;
    std::vector<int64_t> again;
    for (int64_t q = 0; q < static_cast<int64_t>(expected.size()); ++q)
        if (ids[(q + 1) * K - 1] < 0) again.push_back(q);
    const int64_t Q = static_cast<int64_t>(again.size());
    if (Q == 0) return FH_OK;

    std::vector<uint8_t> queries(static_cast<size_t>(Q * p.W));
    for (int64_t i = 0; i < Q; ++i)
        std::memcpy(&queries[i * p.W], p.queries + again[i] * p.W, static_cast<size_t>(p.W));
    std::vector<int32_t> their_distances(static_cast<size_t>(Q * K));
    std::vector<int64_t> their_ids(their_distances.size());
    fh_hamming_problem rest = p;
    rest.queries = queries.data();
    rest.Q = Q;
    HammingPlan rest_plan;
    if (const fh_status status = make_plan(&rest, rest_plan)) return status;
    if (const fh_status status =
            topk_one_pass(rest_plan, K, nullptr, their_distances.data(), their_ids.data(), threads, cancel))
        return status;
    for (int64_t i = 0; i < Q; ++i) {
        std::copy_n(&their_distances[i * K], K, distances + again[i] * K);
        std::copy_n(&their_ids[i * K], K, ids + again[i] * K);
    }
    return FH_OK;
}

// The distance of the K-th nearest code from the counts of all, then everything up to it.
fh_status topk_two_pass(const HammingPlan& plan, int64_t K, int32_t* distances, int64_t* ids, int32_t threads,
                        fh_cancel* cancel) {
    const int64_t Q = plan.problem->Q, step = TwoPass::queries_at_once(plan, plan.largest + 1);
    for (int64_t first = 0; first < Q; first += step) {
        TwoPass pass(plan, first, std::min(step, Q - first), plan.largest + 1, threads);
        if (const fh_status status = pass.count(cancel)) return status;
        for (int64_t q = first; q < std::min(first + step, Q); ++q) {
            const int64_t found = std::min(pass.found(q - first), K);
            std::fill(distances + q * K + found, distances + (q + 1) * K, plan.largest + 1);
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
    return without_exceptions("hamming_topk", [&]() -> fh_status {
        HammingPlan plan;
        if (const fh_status status = make_plan(problem, plan)) return status;
        if (K < 1) return fail(FH_INVALID, "fh_hamming_topk_cpu: K must be >= 1");
        if (std::min(K, problem->N) > kMostCandidates) return topk_two_pass(plan, K, distances, ids, threads, cancel);
        return topk_sampled(plan, K, distances, ids, threads, cancel);
    });
}
