// Range search on the CPU: one scan counts, two scans write (see hamming_two_pass.h).
#include <algorithm>

#include "hamming/cpu/hamming_two_pass.h"

namespace fasthash {
namespace {

constexpr int64_t kCountBytes = 16 << 20;  // counts of all chunks of a pass
constexpr int64_t kChunksWanted = 64;

// The scan's limit for an inclusive radius.
int32_t limit_of(const HammingPlan& plan, int32_t radius) { return std::min(radius, plan.bits) + 1; }

}  // namespace

int64_t TwoPass::queries_at_once(const HammingPlan& plan, int32_t limit) {
    const int64_t bytes = int64_t{limit} * 8 * kChunksWanted;
    return std::clamp<int64_t>(kCountBytes / bytes, 1, std::max<int64_t>(plan.problem->Q, 1));
}

TwoPass::TwoPass(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t limit, int32_t threads)
    : plan_(plan), grid_(make_grid(plan, first_query, Q, threads)), limit_(limit), limits_(plan.problem->Q, limit) {
    // Fewer, longer chunks where the counts would pass their bound.
    const int64_t most = std::max<int64_t>(1, kCountBytes / (8 * Q * limit));
    if (grid_.chunks > most) {
        grid_.chunk_codes = ((plan.problem->N + most - 1) / most + 63) / 64 * 64;
        grid_.chunks = (plan.problem->N + grid_.chunk_codes - 1) / grid_.chunk_codes;
    }
    counts_.assign(static_cast<size_t>(grid_.chunks * Q * limit), 0);
    for (int32_t worker = 0; worker < grid_.threads; ++worker) scratch_.emplace_back(plan);
}

fh_status TwoPass::count(fh_cancel* cancel) {
    return scan(
        [&](int64_t chunk, int64_t q, const HammingTile&, const uint64_t* hits, int64_t count) {
            int64_t* mine = counts(chunk, q);
            for (int64_t i = 0; i < count; ++i) ++mine[hits[i] >> 32];
        },
        cancel);
}

int64_t TwoPass::found(int64_t q) const {
    int64_t total = 0;
    for (int64_t chunk = 0; chunk < grid_.chunks; ++chunk)
        for (int32_t distance = 0; distance < limit_; ++distance) total += counts(chunk, q)[distance];
    return total;
}

}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_hamming_range_count_cpu(const fh_hamming_problem* problem, int32_t radius, int64_t* counts,
                                                int32_t threads, fh_cancel* cancel) {
    return without_exceptions([&]() -> fh_status {
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
    return without_exceptions([&]() -> fh_status {
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
