// Histograms of distances, and all distances, on the CPU.
#include <algorithm>

#include "core/exceptions.h"
#include "hamming/cpu/hamming_tiles.h"

namespace fasthash {
namespace {

constexpr int64_t kSpan = 512;  // codes whose distances are computed at once: 2 KiB of distances
constexpr int kLanes = 4;       // counts side by side: neighbours at one distance do not wait for each other
constexpr int64_t kCountBytes = 256 << 10;  // a worker's counts stay in the level-2 cache
constexpr int64_t kTaskPairs = 1 << 22;     // pairs between two looks at the cancel flag, where sums are wanted

// Calls visit(first, n) for spans of the tile's codes, ascending, with their distances to the query in `distances`.
template <class Visit>
void visit_distances(const HammingPlan& plan, const HammingTile& tile, int64_t query, int32_t* distances,
                     const Visit& visit) {
    for (int64_t begin = 0; begin < tile.n; begin += kSpan) {
        const int64_t end = std::min(begin + kSpan, tile.n);
        plan.distances(query, tile.panel, begin, end, distances);
        visit(begin, end - begin);
    }
}

// Counts of one worker for a block of queries: [queries, largest + 1, kLanes].
struct Counts {
    Counts(const HammingPlan& plan, int64_t queries)
        : scratch(plan), bins((int64_t{plan.largest} + 1) * kLanes), counts(static_cast<size_t>(queries * bins)) {}

    void add(const HammingPlan& plan, const HammingTile& tile, int64_t query, int64_t place) {
        uint32_t* mine = &counts[place * bins];
        visit_distances(plan, tile, query, distances, [&](int64_t, int64_t n) {
            int64_t i = 0;
            for (; i + kLanes <= n; i += kLanes)
                for (int lane = 0; lane < kLanes; ++lane) ++mine[distances[i + lane] * kLanes + lane];
            for (; i < n; ++i) ++mine[distances[i] * kLanes];
        });
    }

    // Adds the counts at `place` to total [largest + 1] and empties them. Other workers may be adding there too.
    void flush(int64_t place, int64_t* total) {
        uint32_t* mine = &counts[place * bins];
        for (int64_t bin = 0; bin < bins; bin += kLanes) {
            int64_t sum = 0;
            for (int lane = 0; lane < kLanes; ++lane) sum += mine[bin + lane];
            if (sum != 0) __atomic_fetch_add(&total[bin / kLanes], sum, __ATOMIC_RELAXED);
        }
        std::fill(mine, mine + bins, 0);
    }

    HammingScratch scratch;
    int64_t bins;
    std::vector<uint32_t> counts;
    int32_t distances[kSpan];
};

fh_status count_distances(const HammingPlan& plan, int64_t* counts, int32_t threads, fh_cancel* cancel) {
    const int64_t query_bytes = (int64_t{plan.largest} + 1) * kLanes * 4;
    const int64_t most = std::max<int64_t>(1, kCountBytes / query_bytes);
    const HammingGrid grid = make_grid(plan, 0, plan.problem->Q, threads, most);
    std::vector<Counts> workers;
    for (int32_t worker = 0; worker < grid.threads; ++worker) workers.emplace_back(plan, grid.block_queries);
    return parallel_for(grid.tasks(), grid.threads, cancel, [&](int64_t task_number, int worker) {
        const HammingTask task = task_of(plan, grid, task_number);
        Counts& mine = workers[worker];
        HammingTiles tiles(plan, mine.scratch, task.begin, task.end, task.query_end - task.query_begin);
        for (HammingTile tile; tiles.next(tile);)
            for (int64_t q = task.query_begin; q < task.query_end; ++q) mine.add(plan, tile, q, q - task.query_begin);
        for (int64_t q = task.query_begin; q < task.query_end; ++q)
            mine.flush(q - task.query_begin, counts + q * (int64_t{plan.largest} + 1));
    });
}

// What one worker needs to add up weights.
struct Sums {
    explicit Sums(const HammingPlan& plan) : scratch(plan), labels(static_cast<size_t>(scratch.panel_codes)) {}
    HammingScratch scratch;
    std::vector<int32_t> labels;  // of the tile's codes
    int32_t distances[kSpan];
};

// Sums depend on the order of addition, so each query belongs to one worker, which meets the codes in ascending order.
fh_status sum_weights(const HammingPlan& plan, const int64_t* labels, const double* class_weights, int64_t C,
                      int64_t* counts, double* sums, int32_t threads, fh_cancel* cancel) {
    const fh_hamming_problem& p = *plan.problem;
    const HammingGrid grid = make_grid(plan, 0, p.Q, threads, 64);
    const int64_t bins = int64_t{plan.largest} + 1;
    const int64_t block = std::clamp<int64_t>(p.Q / (int64_t{4} * grid.threads), 1, 32);
    const int64_t blocks = (p.Q + block - 1) / block;
    const int64_t chunk = std::max<int64_t>(64, kTaskPairs / block / plan.words / 64 * 64);
    std::vector<Sums> workers;
    for (int32_t worker = 0; worker < grid.threads; ++worker) workers.emplace_back(plan);

    fh_status status = FH_OK;
    for (int64_t begin = 0; begin < p.N && status == FH_OK; begin += chunk) {
        status = parallel_for(blocks, grid.threads, cancel, [&](int64_t task, int worker) {
            Sums& mine = workers[worker];
            const int64_t query_begin = task * block, query_end = std::min(query_begin + block, p.Q);
            HammingTiles tiles(plan, mine.scratch, begin, std::min(begin + chunk, p.N), query_end - query_begin);
            for (HammingTile tile; tiles.next(tile);) {
                for (int64_t c = 0; c < tile.n; ++c) mine.labels[c] = static_cast<int32_t>(labels[tile.first + c]);
                for (int64_t q = query_begin; q < query_end; ++q) {
                    const double* weights = class_weights + q * C;
                    int64_t* count = counts + q * bins;
                    double* sum = sums + q * bins;
                    visit_distances(plan, tile, q, mine.distances, [&](int64_t first, int64_t n) {
                        for (int64_t i = 0; i < n; ++i) {
                            const int32_t distance = mine.distances[i];
                            ++count[distance];
                            sum[distance] += weights[mine.labels[first + i]];
                        }
                    });
                }
            }
        });
    }
    return status;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_histogram_cpu(const fh_hamming_problem* problem, const int64_t* labels,
                                              const double* class_weights, int64_t C, int64_t* counts, double* sums,
                                              int32_t threads, fh_cancel* cancel) {
    return without_exceptions("hamming_histogram", [&]() -> fh_status {
        if (problem->mask != nullptr) return fail(FH_INVALID, "fh_hamming_histogram_cpu: the mask must be null");
        HammingPlan plan;
        if (const fh_status status = make_plan(problem, plan)) return status;
        const int64_t size = problem->Q * (int64_t{plan.largest} + 1);
        std::fill(counts, counts + size, 0);
        if (sums == nullptr) return count_distances(plan, counts, threads, cancel);
        std::fill(sums, sums + size, 0.0);
        return sum_weights(plan, labels, class_weights, C, counts, sums, threads, cancel);
    });
}

extern "C" fh_status fh_hamming_distances_cpu(const fh_hamming_problem* problem, int32_t* distances, int32_t threads,
                                              fh_cancel* cancel) {
    return without_exceptions("hamming_distances", [&]() -> fh_status {
        fh_hamming_problem everything = *problem;
        everything.mask = nullptr;
        HammingPlan plan;
        if (const fh_status status = make_plan(&everything, plan)) return status;
        const HammingGrid grid = make_grid(plan, 0, problem->Q, threads, 64);
        std::vector<HammingScratch> scratch;
        for (int32_t worker = 0; worker < grid.threads; ++worker) scratch.emplace_back(plan);
        return parallel_for(grid.tasks(), grid.threads, cancel, [&](int64_t task_number, int worker) {
            const HammingTask task = task_of(plan, grid, task_number);
            HammingTiles tiles(plan, scratch[worker], task.begin, task.end, task.query_end - task.query_begin);
            for (HammingTile tile; tiles.next(tile);)
                for (int64_t q = task.query_begin; q < task.query_end; ++q)
                    plan.distances(q, tile.panel, 0, tile.n, distances + q * problem->N + tile.first);
        });
    });
}
