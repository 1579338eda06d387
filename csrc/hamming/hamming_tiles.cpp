#include "hamming/hamming_tiles.h"

#include <algorithm>
#include <cstring>

namespace fasthash {
namespace {

constexpr int64_t kPanelBytes = 32 << 10;   // a level-1 cache has 32 to 64 KiB
constexpr int64_t kFewQueries = 4;          // parts of a panel that few queries take
constexpr int64_t kChunkBytes = 512 << 10;  // stays in the level-2 cache while a block of queries passes
constexpr int64_t kSmallChunkBytes = 64 << 10;
constexpr int64_t kThreadWork = 1 << 19;  // panel words against one query: less is not worth waking a thread for

const ScanTable* chosen_table() {
    switch (fh_isa_chosen()) {
        case FH_ISA_SCALAR:
            return &kScanScalar;
#if defined(__x86_64__)
        case FH_ISA_AVX2:
            return &kScanAvx2;
        case FH_ISA_AVX512:
            return &kScanAvx512;
#elif defined(__aarch64__)
        case FH_ISA_NEON:
            return &kScanNeon;
#endif
        default:
            return nullptr;  // fh_isa_chosen() has left the message
    }
}

PanelWidth panel_width(int64_t W, int64_t words) {
    if (W <= 4) return kPanel32;
    switch (words) {
        case 1:
            return kPanel64;
        case 2:
            return kPanel128;
        case 4:
            return kPanel256;
        case 8:
            return kPanel512;
        case 16:
            return kPanel1024;
        default:
            return kPanelAny;
    }
}

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t divide_up(int64_t n, int64_t step) { return (n + step - 1) / step; }

}  // namespace

fh_status make_plan(const fh_hamming_problem* problem, HammingPlan& plan) {
    const fh_hamming_problem& p = *problem;
    if (p.Q < 0 || p.N < 0 || p.W < 1 || p.W > (int64_t{1} << 27) || (p.N > 1 && p.stride < p.W))
        return fail(FH_INVALID, "Hamming search: Q and N must be >= 0, W between 1 and 2^27, stride >= W");
    plan.problem = problem;
    plan.table = chosen_table();
    if (plan.table == nullptr) return FH_INVALID;
    plan.word_bytes = p.W <= 4 ? 4 : 8;
    plan.words = divide_up(p.W, plan.word_bytes);
    plan.width = panel_width(p.W, plan.words);
    plan.bits = static_cast<int32_t>(8 * p.W);
    plan.is_panel = p.W == plan.word_bytes && p.stride == p.W;
    plan.queries = p.queries;
    const int64_t padded = plan.words * plan.word_bytes;
    if (padded != p.W) {
        plan.padded.assign(static_cast<size_t>(p.Q * padded), 0);
        for (int64_t q = 0; q < p.Q; ++q) std::memcpy(&plan.padded[q * padded], p.queries + q * p.W, p.W);
        plan.queries = plan.padded.data();
    }
    return FH_OK;
}

HammingGrid make_grid(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t threads, int64_t most_queries) {
    const int64_t N = plan.problem->N, code_bytes = plan.words * plan.word_bytes;
    const auto chunk_of = [&](int64_t bytes) { return std::max<int64_t>(64, bytes / code_bytes / 64 * 64); };
    HammingGrid grid{first_query, Q, chunk_of(kChunkBytes), 0, std::min(Q, most_queries), 0, 1};
    const double work = static_cast<double>(Q) * static_cast<double>(N) * static_cast<double>(plan.words);
    grid.threads = static_cast<int32_t>(std::clamp(work / kThreadWork, 1.0, static_cast<double>(std::max(threads, 1))));
    if (grid.threads > 1) {
        // Enough tasks for every thread to have several: first by fewer queries in each, then by fewer codes.
        const int64_t wanted = int64_t{4} * grid.threads;
        const auto tasks = [&] { return divide_up(N, grid.chunk_codes) * divide_up(Q, grid.block_queries); };
        while (tasks() < wanted && grid.block_queries > 16) grid.block_queries = divide_up(grid.block_queries, 2);
        const int64_t smallest = chunk_of(kSmallChunkBytes);
        while (tasks() < wanted && grid.chunk_codes > smallest)
            grid.chunk_codes = std::max(smallest, round_up(grid.chunk_codes / 2, 64));
        while (tasks() < wanted && grid.block_queries > 1) grid.block_queries = divide_up(grid.block_queries, 2);
    }
    grid.chunks = divide_up(N, grid.chunk_codes);
    grid.query_blocks = Q == 0 ? 0 : divide_up(Q, grid.block_queries);
    return grid;
}

HammingTask task_of(const HammingPlan& plan, const HammingGrid& grid, int64_t task) {
    const int64_t chunk = task / grid.query_blocks, block = task % grid.query_blocks;
    const int64_t begin = chunk * grid.chunk_codes, query = grid.first_query + block * grid.block_queries;
    return {chunk, begin, std::min(begin + grid.chunk_codes, plan.problem->N), query,
            std::min(query + grid.block_queries, grid.first_query + grid.Q)};
}

HammingScratch::HammingScratch(const HammingPlan& plan) {
    const int64_t code_bytes = plan.words * plan.word_bytes;
    panel_codes = std::max<int64_t>(64, kPanelBytes / code_bytes / 64 * 64);
    const int64_t used = std::min(panel_codes, round_up(plan.problem->N, 64));
    panel_memory.reset(new uint8_t[used * code_bytes + 64]);
    panel = panel_memory.get() + (64 - reinterpret_cast<uintptr_t>(panel_memory.get()) % 64) % 64;
    if (plan.problem->mask != nullptr) positions.reset(new uint32_t[panel_codes]);
    hits.reset(new uint64_t[kHitsRoom]);
}

HammingTiles::HammingTiles(const HammingPlan& plan, HammingScratch& scratch, int64_t begin, int64_t end,
                           int64_t queries)
    : plan_(plan),
      scratch_(scratch),
      tile_codes_(scratch.panel_codes),
      chunk_(begin),
      cursor_(begin),
      end_(end),
      queries_(queries) {
    // A tile that is laid out for few queries is small, so that reads from memory hardly pause while they pass.
    if (!plan.is_panel && queries < 4) tile_codes_ = std::max<int64_t>(64, tile_codes_ / kFewQueries / 64 * 64);
}

bool HammingTiles::next(HammingTile& tile) {
    const uint64_t* mask = plan_.problem->mask;
    while (cursor_ < end_) {
        const int64_t n = std::min(tile_codes_, end_ - cursor_);
        if (mask == nullptr) return next_unmasked(tile, n);
        if (cursor_ % 64 != 0) return next_picked(tile);
        const int64_t allowed = plan_.table->count_bits(mask + cursor_ / 64, divide_up(n, 64));
        if (allowed == 0) {
            cursor_ += n;
            continue;
        }
        if (allowed == n) return next_unmasked(tile, n);
        // In bytes scanned: laying out a code takes about as long as scanning it 5 times, picking it 500 bytes more.
        const int64_t scanned = queries_ * plan_.words * plan_.word_bytes,
                      laid_out = 5 * plan_.words * plan_.word_bytes;
        if (allowed * (500 + laid_out + scanned) < n * ((plan_.is_panel ? 0 : laid_out) + scanned))
            return next_picked(tile);
        const int64_t first = cursor_;
        next_unmasked(tile, n);
        tile.mask = mask + first / 64;
        return true;
    }
    return false;
}

// The next n codes; a database that is a panel is used in place as far as whole blocks of 64 codes reach.
bool HammingTiles::next_unmasked(HammingTile& tile, int64_t n) {
    const fh_hamming_problem& p = *plan_.problem;
    if (plan_.is_panel && n >= 64) n = n / 64 * 64;
    const uint8_t* codes = p.database + cursor_ * p.stride;
    const int64_t following = std::min(scratch_.panel_codes, p.N - cursor_ - n);
    tile = {codes, nullptr, nullptr, cursor_, n, codes + n * p.stride, following * p.stride};
    if (!plan_.is_panel || n < 64) {
        plan_.table->pack(codes, p.stride, nullptr, n, p.W, scratch_.panel);
        tile.panel = scratch_.panel;
    }
    cursor_ += n;
    return true;
}

// A panel of eligible codes only, from as many codes as it takes to fill it.
bool HammingTiles::next_picked(HammingTile& tile) {
    const fh_hamming_problem& p = *plan_.problem;
    const int64_t room = std::min(scratch_.panel_codes, round_up(p.N, 64));
    const int64_t from = cursor_;
    int64_t n = 0;
    while (cursor_ < end_ && n < room) {
        const int64_t base = cursor_ / 64 * 64;
        uint64_t bits = p.mask[base / 64] & (~uint64_t{0} << (cursor_ % 64));
        if (end_ - base < 64) bits &= (uint64_t{1} << (end_ - base)) - 1;
        cursor_ = std::min(base + 64, end_);
        for (; bits != 0; bits &= bits - 1) {
            if (n == room) {
                cursor_ = base + __builtin_ctzll(bits);
                break;
            }
            scratch_.positions[n++] = static_cast<uint32_t>(base + __builtin_ctzll(bits) - chunk_);
        }
    }
    // Where many codes are picked the next tile will read nearly all of as many bytes; where few are, fetching would
    // waste.
    const int64_t seen = cursor_ - from, following = 2 * n < seen ? 0 : std::min(seen, p.N - cursor_);
    tile = {scratch_.panel,      nullptr, scratch_.positions.get(), chunk_, n, p.database + cursor_ * p.stride,
            following * p.stride};
    plan_.table->pack(p.database + chunk_ * p.stride, p.stride, scratch_.positions.get(), n, p.W, scratch_.panel);
    return n > 0;
}

}  // namespace fasthash
