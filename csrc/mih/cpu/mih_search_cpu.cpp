// k-nearest and range search by tables: queries over threads.
#include <algorithm>
#include <atomic>
#include <memory>
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

constexpr double kLate = 3;       // a query is late where it takes so many times as long as foreseen
constexpr int64_t kTogether = 8;  // queries of a task, where there are many

// How a call goes about its queries.
class Call {
  public:
    Call(const MihPlan& plan, const fh_mih_terms& terms, int32_t threads, fh_cancel* cancel)
        : plan_(plan),
          p_(*plan.problem),
          terms_(terms),
          threads_(std::max(threads, 1)),
          side_by_side_(p_.Q >= threads_),
          scan_{p_.N, p_.W, threads_, p_.G > 0, terms.prices},
          cancel_(cancel) {
        for (int32_t worker = 0; worker < threads_; ++worker) workers_.emplace_back(plan);
    }

    // Searches every query, then take(q, worker, hits); no hits and visited[q] = -1 for those given up.
    template <class Reach, class Take>
    fh_status run(const Reach& reach, const Take& take, int64_t* visited, fh_mih_spent* spent) {
        *spent = {0, 0};
        if (p_.Q == 0) return FH_OK;
        std::vector<fh_mih_spent> each(static_cast<size_t>(threads_), fh_mih_spent{0, 0});
        const std::vector<uint64_t> nothing;
        const auto search = [&](int64_t q, int32_t worker, MihQuery& query, const MihStop& stop) {
            const MihOutcome outcome = query.search(reach(q), stop.radius, kLate * stop.ns + allowance(stop.ns > 0),
                                                    side_by_side_ ? 1 : threads_, cancel_);
            if (outcome == MihOutcome::kDamaged) failure_ = FH_INVALID;
            const bool found = outcome == MihOutcome::kFound;
            take(q, worker, found ? query.hits() : nothing);
            visited[q] = found ? query.entries() : -1;
            if (!found) return give_up(query.own_ns());
            each[worker].model += query.model_ns();
            each[worker].clock += query.elapsed_ns();
        };
        // Queries that are cheap by tables, whatever becomes of the others, are searched at once.
        const double cheap = (scan_.ns(p_.Q) - scan_.ns(p_.Q - 1)) * at_once() / 4;
        const bool foreseen = terms_.budget < 1 && (plan_.K == INT64_MAX || terms_.E > 0);
        std::vector<MihStop> stops(static_cast<size_t>(foreseen ? p_.Q : 0));
        fh_status status = each_query([&](int64_t q, int32_t worker) {
            visited[q] = -1;
            if (terms_.budget <= 0) return take(q, worker, nothing);
            MihQuery query(plan_, p_.queries + q * p_.W, workers_, worker);
            const MihStop stop = foreseen ? foresee(query, reach(q)) : MihStop{INT32_MAX, 0};
            if (foreseen) stops[q] = stop;
            if (!foreseen || stop.ns < cheap)
                search(q, worker, query, stop);
            else
                take(q, worker, nothing);
        });
        if (status == FH_OK && foreseen) {
            std::vector<double> prices;
            for (const MihStop& stop : stops)
                if (stop.ns >= cheap) prices.push_back(stop.ns);
            const double from = scanned_from(std::move(prices), at_once(), scan_);
            if (from > cheap)
                status = each_query([&](int64_t q, int32_t worker) {
                    if (stops[q].ns < cheap || stops[q].ns >= from) return;
                    MihQuery query(plan_, p_.queries + q * p_.W, workers_, worker);
                    search(q, worker, query, stops[q]);
                });
        }
        for (const fh_mih_spent& own : each) spent->model += own.model, spent->clock += own.clock;
        return status;
    }

  private:
    int32_t at_once() const { return side_by_side_ ? threads_ : 1; }  // else one after another, each on all threads

    // What a query that may be given up in vain has for it. All of them together have `budget` times their scan; one of
    // which nothing is foreseen may not take most of that from the others.
    double allowance(bool foreseen) const {
        const double all = terms_.budget * scan_.ns(p_.Q) * at_once();
        const double most = foreseen ? all : std::max(all / 8, terms_.budget * scan_.ns(1) * at_once());
        return std::clamp(all - vain_ns_.load(), 0.0, most);
    }

    void give_up(double ns) {
        double before = vain_ns_.load();
        while (!vain_ns_.compare_exchange_weak(before, before + ns)) {
        }
    }

    // Where a query should stop, and what it should take.
    MihStop foresee(MihQuery& query, int32_t reach) const {
        if (plan_.K == INT64_MAX) return {INT32_MAX, query.range_ns(reach)};
        const double share = scan_.ns(p_.Q) * at_once() / static_cast<double>(p_.Q);
        const std::vector<int32_t> ends(terms_.ends, terms_.ends + terms_.E);
        const int32_t last = std::min(*std::max_element(ends.begin(), ends.end()), reach);
        const MihCourse course = query.course(last, scan_.ns(1) * at_once());
        const MihStop stop = best_stop(course.found, course.ns, ends, share);
        return {stop.radius, stop.radius < 0 ? INFINITY : stop.ns};
    }

    template <class One>
    fh_status each_query(const One& one) {
        const int64_t Q = p_.Q, step = Q >= 8 * kTogether * threads_ ? kTogether : 1;
        const auto block = [&](int64_t task, int worker) {
            for (int64_t q = task * step; q < std::min(Q, (task + 1) * step); ++q) {
                if (failure_.load(std::memory_order_relaxed) >= 0) return;
                try {
                    one(q, worker);
                } catch (const std::bad_alloc&) {
                    failure_ = FH_NO_MEMORY;
                }
            }
        };
        if (const fh_status status = parallel_for((Q + step - 1) / step, at_once(), cancel_, block)) return status;
        if (failure_ == FH_NO_MEMORY) throw std::bad_alloc();
        if (failure_ >= 0) return fail(FH_INVALID, "mih: a table is damaged, or belongs to another database");
        return FH_OK;
    }

    const MihPlan& plan_;
    const fh_hamming_problem& p_;
    const fh_mih_terms& terms_;
    const int32_t threads_;
    const bool side_by_side_;
    const ScanPrice scan_;
    fh_cancel* cancel_;
    std::vector<MihScratch> workers_;
    std::atomic<int32_t> failure_{-1};
    std::atomic<double> vain_ns_{0};
};

fh_status make_plan(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K,
                    const fh_mih_terms& terms, MihPlan& plan) {
    if (const fh_status status = check_tables(problem, tables, true)) return status;
    if (const fh_status status = check_weights(*problem, tables->bits)) return status;
    const NearTable* near = chosen_table(kNearTables);
    if (near == nullptr) return FH_INVALID;
    const fh_mih_prices& prices = terms.prices;
    if (!(prices.tables > 0 && prices.read > 0 && prices.compare > 0) || terms.E < 0)
        return fail(FH_INVALID, "mih: prices must be above 0");
    const int32_t width = std::min(8 * tables->fingerprint_bytes, tables->bits - tables->tables[0].length);
    plan = {problem,
            tables,
            tables->fingerprint_bytes == 4 ? near->near4 : near->near8,
            K,
            {*problem, *tables},
            prices.tables,
            near_parts(width)};
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_mih_topk_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K,
                                     const int32_t* bounds, const fh_mih_terms* terms, int32_t* distances, int64_t* ids,
                                     int64_t* visited, fh_mih_spent* spent, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_topk", [&]() -> fh_status {
        MihPlan plan;
        if (const fh_status status = make_plan(problem, tables, K, *terms, plan)) return status;
        if (K < 1) return fail(FH_INVALID, "fh_mih_topk_cpu: K must be >= 1");
        const int32_t none = problem->G > 0 ? plan.weights.largest() + 1 : static_cast<int32_t>(8 * problem->W) + 1;
        const auto take = [&](int64_t q, int32_t, const std::vector<uint64_t>& hits) {
            const int64_t found = std::min<int64_t>(K, static_cast<int64_t>(hits.size()));
            for (int64_t i = 0; i < found; ++i) {
                distances[q * K + i] = hit_distance(hits[i]);
                ids[q * K + i] = hit_position(hits[i]);
            }
            std::fill(distances + q * K + found, distances + (q + 1) * K, none);
            std::fill(ids + q * K + found, ids + (q + 1) * K, -1);
        };
        const auto reach = [&](int64_t q) { return bounds == nullptr ? none : bounds[q]; };
        return Call(plan, *terms, threads, cancel).run(reach, take, visited, spent);
    });
}

struct fh_mih_hits {
    struct Place {
        int32_t worker;
        int64_t begin, count;
    };
    std::vector<std::vector<uint64_t>> keys;  // of each worker: hit_key
    std::vector<Place> places;                // of each query
};

extern "C" fh_status fh_mih_range_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t radius,
                                      const fh_mih_terms* terms, int64_t* offsets, int64_t* visited,
                                      fh_mih_spent* spent, fh_mih_hits** hits, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_range", [&]() -> fh_status {
        MihPlan plan;
        if (const fh_status status = make_plan(problem, tables, INT64_MAX, *terms, plan)) return status;
        if (radius < 0) return fail(FH_INVALID, "fh_mih_range_cpu: radius must be >= 0");
        auto found = std::make_unique<fh_mih_hits>();
        found->keys.resize(static_cast<size_t>(std::max(threads, 1)));
        found->places.resize(static_cast<size_t>(problem->Q));
        const auto take = [&](int64_t q, int32_t worker, const std::vector<uint64_t>& own) {
            std::vector<uint64_t>& keys = found->keys[worker];
            found->places[q] = {worker, static_cast<int64_t>(keys.size()), static_cast<int64_t>(own.size())};
            keys.insert(keys.end(), own.begin(), own.end());
        };
        const auto reach = [&](int64_t) { return radius; };
        if (const fh_status status = Call(plan, *terms, threads, cancel).run(reach, take, visited, spent))
            return status;
        offsets[0] = 0;
        for (int64_t q = 0; q < problem->Q; ++q) offsets[q + 1] = offsets[q] + found->places[q].count;
        *hits = found.release();
        return FH_OK;
    });
}

extern "C" void fh_mih_hits_write(const fh_mih_hits* hits, int32_t* distances, int64_t* ids) {
    for (const fh_mih_hits::Place& place : hits->places)
        for (int64_t i = 0; i < place.count; ++i) {
            const uint64_t key = hits->keys[static_cast<size_t>(place.worker)][static_cast<size_t>(place.begin + i)];
            *distances++ = hit_distance(key);
            *ids++ = hit_position(key);
        }
}

extern "C" void fh_mih_hits_free(fh_mih_hits* hits) { delete hits; }
