// Two scans that need no sort: the first counts the codes at each distance below a limit, for each chunk of the
// database; running sums of these counts then give every code its place in (distance, position) order, and the second
// scan writes it there. The places do not depend on which thread does what.
#pragma once

#include <cstdint>
#include <vector>

#include "hamming/cpu/hamming_tiles.h"

namespace fasthash {

class TwoPass {
  public:
    // Queries [first_query, first_query + Q), codes nearer than `limit` (1..largest + 1).
    TwoPass(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t limit, int32_t threads);

    // How many queries at a time keep the counts of all chunks within bounds.
    static int64_t queries_at_once(const HammingPlan& plan, int32_t limit);

    fh_status count(fh_cancel* cancel);
    // The codes nearer than the limit of query first_query + q.
    int64_t found(int64_t q) const;
    // Writes the nearest `room` of each query's codes to distances / ids + begin(q). begin: (q) -> place, room: (q) ->
    // count.
    template <class Begin, class Room>
    fh_status fill(const Begin& begin, const Room& room, int32_t* distances, int64_t* ids, fh_cancel* cancel);

  private:
    int64_t* counts(int64_t chunk, int64_t q) { return &counts_[(chunk * grid_.Q + q) * limit_]; }
    const int64_t* counts(int64_t chunk, int64_t q) const { return &counts_[(chunk * grid_.Q + q) * limit_]; }
    // Counts become places; the limit of a query falls to what its room needs.
    template <class Room>
    void counts_to_places(const Room& room);
    template <class Visit>  // Visit: (chunk, q, tile, hits, count)
    fh_status scan(const Visit& visit, fh_cancel* cancel);

    const HammingPlan& plan_;
    HammingGrid grid_;
    int32_t limit_;
    std::vector<int32_t> limits_;  // [all queries], each the limit
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
            take_hits(plan_, scratch, tile, task.query_begin, task.query_end, limits_.data(),
                      [&](int64_t query, const uint64_t* hits, int64_t count) {
                          visit(task.chunk, query - grid_.first_query, tile, hits, count);
                      });
    });
}

template <class Room>
void TwoPass::counts_to_places(const Room& room) {
    for (int64_t q = 0; q < grid_.Q; ++q) {
        int32_t& limit = limits_[grid_.first_query + q];
        int64_t place = 0;
        for (int32_t distance = 0; distance < limit; ++distance) {
            for (int64_t chunk = 0; chunk < grid_.chunks; ++chunk) {
                int64_t& count = counts(chunk, q)[distance];
                place += count;
                count = place - count;
            }
            if (place >= room(q)) limit = distance + 1;
        }
    }
}

template <class Begin, class Room>
fh_status TwoPass::fill(const Begin& begin, const Room& room, int32_t* distances, int64_t* ids, fh_cancel* cancel) {
    counts_to_places(room);
    return scan(
        [&](int64_t chunk, int64_t q, const HammingTile& tile, const uint64_t* hits, int64_t count) {
            int64_t* places = counts(chunk, q);
            int32_t* to_distances = distances + begin(q);
            int64_t* to_ids = ids + begin(q);
            const int64_t end = room(q);
            for (int64_t i = 0; i < count; ++i) {
                const int64_t place = places[hits[i] >> 32]++;
                if (place >= end) continue;
                to_distances[place] = static_cast<int32_t>(hits[i] >> 32);
                to_ids[place] = tile.position_of_hit(hits[i]);
            }
        },
        cancel);
}

}  // namespace fasthash
