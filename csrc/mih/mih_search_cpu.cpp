// k-nearest and range search by tables: queries over threads, and the scan for those that tables do not help.
#include <atomic>
#include <cstdio>
#include <new>

#include "core/thread_pool.h"
#include "hamming/hamming_tiles.h"
#include "mih/mih_cost.h"
#include "mih/mih_query.h"

namespace fasthash {
namespace {

const NearTable& near_table() {
    switch (fh_isa_chosen()) {
#if defined(__x86_64__)
        case FH_ISA_AVX512:
            return kNearAvx512;
        case FH_ISA_AVX2:
            return kNearAvx2;
#endif
#if defined(__aarch64__)
        case FH_ISA_NEON:
            return kNearNeon;
#endif
        default:
            return kNearScalar;
    }
}

// Queries of a call that are scanned.
struct Scanned {
    std::vector<int64_t> queries;
    std::vector<uint8_t> codes;  // [queries, W]
    fh_hamming_problem problem;

    Scanned(const fh_hamming_problem& p, const int64_t* visited) : problem(p) {
        for (int64_t q = 0; q < p.Q; ++q)
            if (visited[q] < 0) {
                queries.push_back(q);
                codes.insert(codes.end(), p.queries + q * p.W, p.queries + (q + 1) * p.W);
            }
        problem.queries = codes.data();
        problem.Q = static_cast<int64_t>(queries.size());
    }
};

// Searches every query, then take(q, hits); visited[q] = -1 for those given up, which are not taken.
template <class Reach, class Take>
fh_status each_query(const MihPlan& plan, double share, const Reach& reach, const Take& take, int64_t* visited,
                     int32_t threads, fh_cancel* cancel) {
    const fh_hamming_problem& p = *plan.problem;
    if (p.Q == 0) return FH_OK;
    threads = std::max(threads, 1);
    const bool side_by_side = p.Q >= threads;  // else one after another, each on all threads
    const double limit_ns =
        share * scan_ns(p.N, p.W, p.Q, threads) * (side_by_side ? threads : 1) / static_cast<double>(p.Q);
    std::vector<MihScratch> workers;
    for (int32_t worker = 0; worker < threads; ++worker) workers.emplace_back(plan);
    std::atomic<int32_t> failure{-1};
    const auto one = [&](int64_t q, int worker) {
        if (failure.load(std::memory_order_relaxed) >= 0) return;
        try {
            MihQuery query(plan, p.queries + q * p.W, workers, worker);
            const MihOutcome outcome = query.search(reach(q), limit_ns, side_by_side ? 1 : threads, cancel);
            if (outcome == MihOutcome::kFound) take(q, query.hits());
            visited[q] = outcome == MihOutcome::kFound ? query.entries() : -1;
            if (outcome == MihOutcome::kDamaged) failure = FH_INVALID;
        } catch (const std::bad_alloc&) {
            failure = FH_NO_MEMORY;
        }
    };
    if (const fh_status status = parallel_for(p.Q, side_by_side ? threads : 1, cancel, one)) return status;
    if (failure == FH_NO_MEMORY) throw std::bad_alloc();
    if (failure >= 0) return fail(FH_INVALID, "mih: a table is damaged, or not one of this database");
    return FH_OK;
}

MihPlan plan_of(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K) {
    const NearTable& near = near_table();
    return {problem, tables, tables->fingerprint_bytes == 4 ? near.near4 : near.near8, K};
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_mih_topk_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K,
                                     const int32_t* bounds, double share, int32_t* distances, int64_t* ids,
                                     int64_t* visited, int32_t threads, fh_cancel* cancel) {
    return without_exceptions([&]() -> fh_status {
        if (const fh_status status = check_tables(problem, tables, true)) return status;
        if (K < 1) return fail(FH_INVALID, "fh_mih_topk_cpu: K must be >= 1");
        const MihPlan plan = plan_of(problem, tables, K);
        const int32_t none = static_cast<int32_t>(8 * problem->W) + 1;
        const auto take = [&](int64_t q, const std::vector<uint64_t>& hits) {
            const int64_t found = std::min<int64_t>(K, static_cast<int64_t>(hits.size()));
            for (int64_t i = 0; i < found; ++i) {
                distances[q * K + i] = hit_distance(hits[i]);
                ids[q * K + i] = hit_position(hits[i]);
            }
            std::fill(distances + q * K + found, distances + (q + 1) * K, none);
            std::fill(ids + q * K + found, ids + (q + 1) * K, -1);
        };
        const auto reach = [&](int64_t q) { return bounds == nullptr ? none : bounds[q]; };
        if (const fh_status status = each_query(plan, share, reach, take, visited, threads, cancel)) return status;

        Scanned rest(*problem, visited);
        if (rest.queries.empty()) return FH_OK;
        if (rest.problem.Q == problem->Q) return fh_hamming_topk_cpu(problem, K, distances, ids, threads, cancel);
        std::vector<int32_t> near(static_cast<size_t>(rest.problem.Q * K));
        std::vector<int64_t> positions(near.size());
        if (const fh_status status =
                fh_hamming_topk_cpu(&rest.problem, K, near.data(), positions.data(), threads, cancel))
            return status;
        for (size_t i = 0; i < rest.queries.size(); ++i) {
            const int64_t from = static_cast<int64_t>(i) * K, to = rest.queries[i] * K;
            std::copy(near.begin() + from, near.begin() + from + K, distances + to);
            std::copy(positions.begin() + from, positions.begin() + from + K, ids + to);
        }
        return FH_OK;
    });
}

extern "C" fh_status fh_mih_range_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t radius,
                                      double share, int64_t capacity, int64_t* offsets, int32_t* distances,
                                      int64_t* ids, int64_t* visited, int32_t threads, fh_cancel* cancel) {
    return without_exceptions([&]() -> fh_status {
        if (const fh_status status = check_tables(problem, tables, true)) return status;
        if (radius < 0) return fail(FH_INVALID, "fh_mih_range_cpu: radius must be >= 0");
        const MihPlan plan = plan_of(problem, tables, INT64_MAX);
        std::vector<std::vector<uint64_t>> hits(static_cast<size_t>(problem->Q));
        const auto take = [&](int64_t q, const std::vector<uint64_t>& found) { hits[q] = found; };
        const auto reach = [&](int64_t) { return radius; };
        if (const fh_status status = each_query(plan, share, reach, take, visited, threads, cancel)) return status;

        const Scanned rest(*problem, visited);
        std::vector<int64_t> from(rest.queries.size() + 1);  // where each scanned query's results begin
        if (!rest.queries.empty()) {
            if (const fh_status status =
                    fh_hamming_range_count_cpu(&rest.problem, radius, from.data() + 1, threads, cancel))
                return status;
        }
        offsets[0] = 0;
        size_t scanned = 0;
        for (int64_t q = 0; q < problem->Q; ++q)
            offsets[q + 1] = offsets[q] + (visited[q] < 0 ? from[++scanned] : static_cast<int64_t>(hits[q].size()));
        if (offsets[problem->Q] > capacity) return FH_OK;
        for (int64_t q = 0; q < problem->Q; ++q)
            for (size_t i = 0; i < hits[q].size(); ++i) {
                distances[offsets[q] + static_cast<int64_t>(i)] = hit_distance(hits[q][i]);
                ids[offsets[q] + static_cast<int64_t>(i)] = hit_position(hits[q][i]);
            }
        if (rest.queries.empty()) return FH_OK;
        for (size_t i = 1; i < from.size(); ++i) from[i] += from[i - 1];
        if (rest.problem.Q == problem->Q)
            return fh_hamming_range_fill_cpu(problem, radius, offsets, distances, ids, threads, cancel);
        std::vector<int32_t> near(static_cast<size_t>(from.back()));
        std::vector<int64_t> positions(near.size());
        if (const fh_status status = fh_hamming_range_fill_cpu(&rest.problem, radius, from.data(), near.data(),
                                                               positions.data(), threads, cancel))
            return status;
        for (size_t i = 0; i < rest.queries.size(); ++i) {
            const int64_t to = offsets[rest.queries[i]];
            std::copy(near.begin() + from[i], near.begin() + from[i + 1], distances + to);
            std::copy(positions.begin() + from[i], positions.begin() + from[i + 1], ids + to);
        }
        return FH_OK;
    });
}
