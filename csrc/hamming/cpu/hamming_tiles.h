// What every CPU Hamming function shares: the kernels of the chosen instruction set, queries cut into words, the split
// of (queries x database) into tasks, and the walk over one task's codes, panel by panel.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/cpu_features.h"
#include "core/thread_pool.h"
#include "hamming/cpu/weighted_words.h"
#include "hamming/hamming.h"
#include "hamming/isa/scan_table.h"

namespace fasthash {

// A problem with the choices made once for each call.
struct HammingPlan {
    const fh_hamming_problem* problem;
    const ScanTable* table;
    PanelWidth width;
    int64_t words;                       // a code, in panel words
    int64_t word_bytes;                  // 4 or 8
    int32_t largest;                     // the greatest distance
    bool is_panel;                       // the database itself is a panel
    const uint8_t* queries;              // [Q, words * word_bytes], zero padded
    std::vector<uint8_t> padded;         // backs `queries` where they are not the problem's
    std::vector<WeightedWord> weighted;  // [words] where bits are weighted, else empty
    bool shared = false;                 // as in ScanRequest

    const void* query(int64_t q) const { return queries + q * words * word_bytes; }

    void pack(const uint8_t* database, const uint32_t* positions, int64_t n, void* panel) const {
        const fh_hamming_problem& p = *problem;
        if (weighted.empty()) return table->pack(database, p.stride, positions, n, p.W, panel);
        table->pack_weighted(weighted.data(), words, database, p.stride, positions, n, p.W, panel);
    }
    // One code of W bytes as a query, where bits are weighted. out [words * 4].
    void pack_weighted_query(const uint8_t* code, uint8_t* out) const;
    bool scan(ScanRequest* request) const {
        return weighted.empty() ? table->scan[width](request) : table->scan_weighted(request);
    }
    // Distances of codes [begin, end) of a panel to query q; begin is a multiple of kScanBlock; out [end - begin].
    void distances(int64_t q, const void* panel, int64_t begin, int64_t end, int32_t* out) const {
        if (weighted.empty()) return table->distances[width](query(q), panel, words, begin, end, out);
        table->distances_weighted(weighted.data(), query(q), panel, words, begin, end, out);
    }
};

// The scan of the chosen instruction set; null, with a message left, where there is none.
const ScanTable* chosen_scan();

// Fills `plan`; FH_INVALID for sizes that Python should have refused. May throw std::bad_alloc.
fh_status make_plan(const fh_hamming_problem* problem, HammingPlan& plan);

// The tasks of a pass over queries [first_query, first_query + Q): chunk-major, so that each worker meets the chunks in
// ascending order and the codes of a chunk stay in the cache for its query blocks.
struct HammingGrid {
    int64_t first_query, Q;
    int64_t chunk_codes, chunks;  // a chunk is a multiple of 64 codes, the last may be shorter
    int64_t block_queries, query_blocks;
    int32_t threads;  // fewer than asked for when there is little to do

    int64_t tasks() const { return chunks * query_blocks; }
};

struct HammingTask {
    int64_t chunk, begin, end;  // codes
    int64_t query_begin, query_end;
};

// At most `most_queries` queries in a task.
HammingGrid make_grid(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t threads,
                      int64_t most_queries = 64);
HammingTask task_of(const HammingPlan& plan, const HammingGrid& grid, int64_t task);

// A run of codes as a panel. Code c of the panel is code `first + (positions ? positions[c] : c)` of the database.
struct HammingTile {
    const void* panel;
    const uint64_t* mask;       // null: all codes of the panel are eligible
    const uint32_t* positions;  // [n] or null
    int64_t first, n;
    const uint8_t* next;  // where the next tile will be read, next_bytes long; 0 where that is not known
    int64_t next_bytes;

    int64_t position(int64_t c) const { return first + (positions != nullptr ? int64_t{positions[c]} : c); }
    int64_t position_of_hit(uint64_t hit) const { return position(static_cast<uint32_t>(hit)); }
};

// One worker's buffers.
struct HammingScratch {
    explicit HammingScratch(const HammingPlan& plan);

    int64_t panel_codes;  // a tile's limit: it stays in the level-1 cache while the queries pass over it
    std::unique_ptr<uint8_t[]> panel_memory;
    uint8_t* panel;                         // 64-byte aligned, whole 64-code blocks
    std::unique_ptr<uint32_t[]> positions;  // [panel_codes]; null where there is no mask
    std::unique_ptr<uint64_t[]> mask;       // [panel_codes / 64]; the same
    std::unique_ptr<uint64_t[]> hits;       // [kHitsRoom]
};

// The eligible codes of [begin, end), tile by tile, ascending. `queries`: how many will pass over each tile; it decides
// whether picking the eligible codes out of the database pays.
class HammingTiles {
  public:
    HammingTiles(const HammingPlan& plan, HammingScratch& scratch, int64_t begin, int64_t end, int64_t queries);
    bool next(HammingTile& tile);

  private:
    int64_t in_place_codes(int64_t n) const;
    int64_t bytes_to_line() const;
    const uint64_t* mask_of(int64_t n);
    void next_whole(HammingTile& tile, int64_t n, const uint64_t* mask);
    bool next_picked(HammingTile& tile);

    const HammingPlan& plan_;
    HammingScratch& scratch_;
    int64_t tile_codes_, chunk_, cursor_, end_, queries_;
};

// Calls take(query, hits, count) with the codes of the tile that are nearer than limits[query], in batches: hits as in
// ScanRequest, ascending by code for each query. take() may lower the limit of its query.
template <class Take>
void take_hits(const HammingPlan& plan, const HammingScratch& scratch, const HammingTile& tile, int64_t query_begin,
               int64_t query_end, const int32_t* limits, const Take& take) {
    // Fewer than four queries pass too quickly to hide a fetch, and then the processor's own prefetcher keeps up
    // better.
    const int64_t queries = query_end - query_begin, fetched = queries < 4 ? 0 : tile.next_bytes / queries / 64 * 64;
    ScanRequest request{plan.queries,
                        limits,
                        tile.panel,
                        tile.mask,
                        plan.words,
                        plan.largest,
                        tile.n,
                        scratch.hits.get(),
                        tile.next,
                        fetched,
                        query_begin,
                        query_end,
                        0,
                        0,
                        0,
                        plan.weighted.data(),
                        plan.shared};
    while (plan.scan(&request)) take(request.hit_query, request.hits, request.hit_count);
}

}  // namespace fasthash
