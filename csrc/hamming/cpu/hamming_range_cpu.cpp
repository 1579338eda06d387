// Range search on the CPU: one scan counts, two scans write (see hamming_two_pass.h).
#include <algorithm>

#include "core/exceptions.h"
#include "hamming/cpu/hamming_two_pass.h"

namespace fasthash {
namespace {

// The scan's limit for an inclusive radius.
int32_t limit_of(const HammingPlan& plan, int32_t radius) { return std::min(radius, plan.largest) + 1; }

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_range_count_cpu(const fh_hamming_problem* problem, int32_t radius, int64_t* counts,
                                                int32_t threads, fh_cancel* cancel) {
    return without_exceptions("hamming_range_count", [&]() -> fh_status {
        HammingPlan plan;
        if (const fh_status status = make_plan(problem, plan)) return status;
        const int32_t limit = limit_of(plan, radius);
        const HammingGrid grid = make_grid(plan, 0, problem->Q, threads);
        std::vector<HammingScratch> scratch;
        for (int32_t worker = 0; worker < grid.threads; ++worker) scratch.emplace_back(plan);
        const std::vector<int32_t> limits(problem->Q, limit);
        std::fill(counts, counts + problem->Q, 0);
        return parallel_for(grid.tasks(), grid.threads, cancel, [&](int64_t task_number, int worker) {
            const HammingTask task = task_of(plan, grid, task_number);
            HammingTiles tiles(plan, scratch[worker], task.begin, task.end, task.query_end - task.query_begin);
            for (HammingTile tile; tiles.next(tile);)
                take_hits(plan, scratch[worker], tile, task.query_begin, task.query_end, limits.data(),
                          [&](int64_t q, const uint64_t*, int64_t count) {
                              __atomic_fetch_add(&counts[q], count, __ATOMIC_RELAXED);
                          });
        });
    });
}

extern "C" fh_status fh_hamming_range_fill_cpu(const fh_hamming_problem* problem, int32_t radius,
                                               const int64_t* offsets, int32_t* distances, int64_t* ids,
                                               int32_t threads, fh_cancel* cancel) {
    return without_exceptions("hamming_range_fill", [&]() -> fh_status {
        HammingPlan plan;
        if (const fh_status status = make_plan(problem, plan)) return status;
        const int32_t limit = limit_of(plan, radius);
        const int64_t step = TwoPass::queries_at_once(plan, limit);
        for (int64_t first = 0; first < problem->Q; first += step) {
            TwoPass pass(plan, first, std::min(step, problem->Q - first), limit, threads);
            if (const fh_status status = pass.count(cancel)) return status;
            const auto begin = [&](int64_t q) { return offsets[first + q]; };
            const auto room = [&](int64_t q) { return offsets[first + q + 1] - offsets[first + q]; };
            if (const fh_status status = pass.fill(begin, room, distances, ids, cancel)) return status;
        }
        return FH_OK;
    });
}
