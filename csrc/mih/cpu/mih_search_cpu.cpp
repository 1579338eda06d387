// k-nearest and range search by tables: queries over threads.
#include <atomic>
#include <cstdio>
#include <new>

#include "core/cpu_features.h"
#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "mih/cpu/mih_cost.h"
#include "mih/cpu/mih_query.h"

namespace fasthash {
namespace {

constexpr IsaTable<NearTable> kNearTables[] = {
#define FH_ISA(name, Name, processor, ...) FH_ON_##processor({FH_ISA_##name, &kNear##Name}, )
#include "core/isa.def"
};

constexpr int64_t kTrials = 8;  // queries of a call that fail before the rest is not tried, where hardly any succeeds

// Searches every query, then take(q, hits); no hits and visited[q] = -1 for those given up.
template <class Reach, class Take>
fh_status each_query(const MihPlan& plan, double budget, const Reach& reach, const Take& take, int64_t* visited,
                     int32_t threads, fh_cancel* cancel) {
    const fh_hamming_problem& p = *plan.problem;
    if (p.Q == 0) return FH_OK;
    threads = std::max(threads, 1);
    const bool side_by_side = p.Q >= threads;  // else one after another, each on all threads
    const double limit_ns = (budget * scan_ns(p.N, p.W, p.Q, threads, p.G > 0) - (budget < 1 ? kCallNs : 0)) *
                            (side_by_side ? threads : 1) / static_cast<double>(p.Q);
    std::vector<MihScratch> workers;
    for (int32_t worker = 0; worker < threads; ++worker) workers.emplace_back(plan);
    std::atomic<int32_t> failure{-1};
    std::atomic<int64_t> found{0}, given_up{0};
    const auto one = [&](int64_t q, int worker) {
        if (failure.load(std::memory_order_relaxed) >= 0) return;
        try {
            if (budget < 1 && given_up >= kTrials && found * kTrials < given_up) {
                take(q, std::vector<uint64_t>());
                visited[q] = -1;
                return;
            }
            MihQuery query(plan, p.queries + q * p.W, workers, worker);
            const MihOutcome outcome = query.search(reach(q), limit_ns, side_by_side ? 1 : threads, cancel);
            take(q, outcome == MihOutcome::kFound ? query.hits() : std::vector<uint64_t>());
            visited[q] = outcome == MihOutcome::kFound ? query.entries() : -1;
            ++(outcome == MihOutcome::kFound ? found : given_up);
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

fh_status make_plan(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K, MihPlan& plan) {
    if (const fh_status status = check_tables(problem, tables, true)) return status;
    if (const fh_status status = check_weights(*problem, tables->bits)) return status;
    const NearTable* near = chosen_table(kNearTables);
    if (near == nullptr) return FH_INVALID;
    plan = {problem, tables, tables->fingerprint_bytes == 4 ? near->near4 : near->near8, K, {*problem, *tables}};
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_mih_topk_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K,
                                     const int32_t* bounds, double budget, int32_t* distances, int64_t* ids,
                                     int64_t* visited, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_topk", [&]() -> fh_status {
        MihPlan plan;
        if (const fh_status status = make_plan(problem, tables, K, plan)) return status;
        if (K < 1) return fail(FH_INVALID, "fh_mih_topk_cpu: K must be >= 1");
        const int32_t none = problem->G > 0 ? plan.weights.largest() + 1 : static_cast<int32_t>(8 * problem->W) + 1;
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
        return each_query(plan, budget, reach, take, visited, threads, cancel);
    });
}

extern "C" fh_status fh_mih_range_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t radius,
                                      double budget, int64_t capacity, int64_t* offsets, int32_t* distances,
                                      int64_t* ids, int64_t* visited, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_range", [&]() -> fh_status {
        MihPlan plan;
        if (const fh_status status = make_plan(problem, tables, INT64_MAX, plan)) return status;
        if (radius < 0) return fail(FH_INVALID, "fh_mih_range_cpu: radius must be >= 0");
        std::vector<std::vector<uint64_t>> hits(static_cast<size_t>(problem->Q));
        const auto take = [&](int64_t q, const std::vector<uint64_t>& found) { hits[q] = found; };
        const auto reach = [&](int64_t) { return radius; };
        if (const fh_status status = each_query(plan, budget, reach, take, visited, threads, cancel)) return status;
        offsets[0] = 0;
        for (int64_t q = 0; q < problem->Q; ++q) offsets[q + 1] = offsets[q] + static_cast<int64_t>(hits[q].size());
        if (offsets[problem->Q] > capacity) return FH_OK;
        for (int64_t q = 0; q < problem->Q; ++q)
            for (const uint64_t hit : hits[q]) {
                *distances++ = hit_distance(hit);
                *ids++ = hit_position(hit);
            }
        return FH_OK;
    });
}
