// Two scans that need no sort: the first counts the codes at each distance below a limit, for each chunk of the
// database; running sums of these counts then give every code its place in (distance, position) order, and the second
// scan writes it there. The places do not depend on which thread does what.
#pragma once

#include <cstdint>
#include <vector>

#include "hamming/hamming_tiles.h"

namespace fasthash {

class TwoPass {
  public:
    // Queries [first_query, first_query + Q), codes nearer than `limit` (1..bits + 1).
    TwoPass(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t limit, int32_t threads);

    // How many queries at a time keep the counts of all chunks within bounds.
    static int64_t queries_at_once(const HammingPlan& plan, int32_t limit);

    fh_status count(fh_cancel* cancel);
    // The codes nearer than the limit of query first_query + q.
    int64_t found(int64_t q) const;
    // Writes the nearest `room` of each query's codes to distances / ids + begin(q). begin: (q) -> place, room: (q) -> count.
    template <class Begin, class Room>
    fh_status fill(const Begin& begin, const Room& room, int32_t* distances, int64_t* ids, fh_cancel* cancel);

  private:
    int64_t* counts(int64_t chunk, int64_t q) { return &counts_[(chunk * grid_.Q + q) * limit_]; }
    const int64_t* counts(int64_t chunk, int64_t q) const { return &counts_[(chunk * grid_.Q + q) * limit_]; }
    void counts_to_places();
    template <class Visit>  // Visit: (chunk, q, distance, position)
    fh_status scan(const Visit& visit, fh_cancel* cancel);

    const HammingPlan& plan_;
    HammingGrid grid_;
    int32_t limit_;
    std::vector<int64_t> counts_;  // [chunks, Q, limit]: counts, then the next free place
    std::vector<HammingScratch> scratch_;
};

template <class Visit>
fh_status TwoPass::scan(const Visit& visit, fh_cancel* cancel) {
    return parallel_for(grid_.tasks(), grid_.threads, cancel, [&](int64_t task_number, int worker) {
        const HammingTask task = task_of(plan_, grid_, task_number);
        HammingScratch& scratch = scratch_[worker];
        HammingTiles tiles(plan_, scratch, task.begin, task.end, task.query_end - task.query_begin);
        for (HammingTile tile; tiles.next(tile);)
            for (int64_t query = task.query_begin; query < task.query_end; ++query) {
                const int64_t q = query - grid_.first_query;
                visit_hits(plan_, scratch, tile, query, [&] { return limit_; },
                           [&](int32_t distance, int64_t position) { visit(task.chunk, q, distance, position); });
            }
    });
}

template <class Begin, class Room>
fh_status TwoPass::fill(const Begin& begin, const Room& room, int32_t* distances, int64_t* ids, fh_cancel* cancel) {
    counts_to_places();
    return scan(
        [&](int64_t chunk, int64_t q, int32_t distance, int64_t position) {
            const int64_t place = counts(chunk, q)[distance]++;
            if (place >= room(q)) return;
            distances[begin(q) + place] = distance;
            ids[begin(q) + place] = position;
        },
        cancel);
}

}  // namespace fasthash
