#include "hamming/cpu/hamming_tiles.h"

#include <algorithm>
#include <cstring>

#include "hamming/groups.h"

namespace fasthash {
namespace {

constexpr int64_t kPanelBytes = 32 << 10;   // a level-1 cache has 32 to 64 KiB
constexpr int64_t kCopyFrom = 4;            // queries
constexpr int64_t kFewQueries = 4;          // parts of a panel that few queries take
constexpr int64_t kChunkBytes = 512 << 10;  // stays in the level-2 cache while a block of queries passes
constexpr int64_t kSmallChunkBytes = 64 << 10;
constexpr int64_t kThreadWork = 1 << 19;  // panel words against one query: less is not worth waking a thread for

constexpr IsaTable<ScanTable> kScanTables[] = {
#define FH_ISA(name, Name, processor, ...) FH_ON_##processor({FH_ISA_##name, &kScan##Name}, )
#include "core/isa.def"
};

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

// Words and queries where bits are weighted.
void plan_weighted(HammingPlan& plan) {
    const fh_hamming_problem& p = *plan.problem;
    plan.weighted = weighted_words(p);
    plan.word_bytes = 4;
    plan.words = static_cast<int64_t>(plan.weighted.size());
    plan.shared = plan.words <= kSharedWords;
    for (const WeightedWord& word : plan.weighted) plan.shared &= word.weights == plan.weighted[0].weights;
    plan.width = kPanelAny;
    plan.is_panel = plan.words == 1 && p.W == 4 && p.stride == 4 && plan.weighted[0].mask == UINT32_MAX;
    plan.padded.resize(static_cast<size_t>(p.Q * plan.words * 4));
    for (int64_t q = 0; q < p.Q; ++q) plan.pack_weighted_query(p.queries + q * p.W, &plan.padded[q * plan.words * 4]);
    plan.queries = plan.padded.data();
}

}  // namespace

void HammingPlan::pack_weighted_query(const uint8_t* code, uint8_t* out) const {
    for (const WeightedWord& word : weighted) {
        for (int b = 0; b < 4; ++b) {
            const int64_t byte = word.offset + word.bytes[b];
            *out++ = byte < problem->W ? code[byte] & static_cast<uint8_t>(word.mask >> (8 * b)) : 0;
        }
    }
}

const ScanTable* chosen_scan() { return chosen_table(kScanTables); }

fh_status make_plan(const fh_hamming_problem* problem, HammingPlan& plan) {
    const fh_hamming_problem& p = *problem;
    if (p.Q < 0 || p.N < 0 || p.W < 1 || p.W > (int64_t{1} << 27) || (p.N > 1 && p.stride < p.W))
        return fail(FH_INVALID, "Hamming search: Q and N must be >= 0, W between 1 and 2^27, stride >= W");
    plan.problem = problem;
    plan.table = chosen_scan();
    if (plan.table == nullptr) return FH_INVALID;
    if (const fh_status status = largest_distance(p, plan.largest)) return status;
    if (p.G > 0) {
        plan_weighted(plan);
        return FH_OK;
    }
    plan.word_bytes = p.W <= 4 ? 4 : 8;
    plan.words = divide_up(p.W, plan.word_bytes);
    plan.width = panel_width(p.W, plan.words);
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
    if (plan.problem->mask != nullptr) {
        positions.reset(new uint32_t[panel_codes]);
        mask.reset(new uint64_t[panel_codes / 64]);
    }
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
    while (cursor_ < end_) {
        const int64_t n = in_place_codes(std::min(tile_codes_, end_ - cursor_));
        if (plan_.problem->mask == nullptr) {
            next_whole(tile, n, nullptr);
            return true;
        }
        const uint64_t* mask = mask_of(n);
        const int64_t allowed = plan_.table->count_bits(mask, divide_up(n, 64));
        if (allowed == 0) {
            cursor_ += n;
            continue;
        }
        // In bytes scanned: laying out a code takes about as long as scanning it 5 times; picking it, a read at random,
        // so much more.
        const int64_t bytes = plan_.words * plan_.word_bytes, scanned = queries_ * bytes, laid_out = 5 * bytes;
        const int64_t picked = 300 + 48 * bytes;
        if (allowed < n && allowed * (picked + laid_out + scanned) < n * ((plan_.is_panel ? 0 : laid_out) + scanned))
            return next_picked(tile);
        next_whole(tile, n, allowed < n ? mask : nullptr);
        return true;
    }
    return false;
}

// How many of the next n codes to take at once. A database that is a panel is used in place as far as whole blocks of
// 64 codes reach; and since vectors that straddle cache lines cost a third more, a tile ends where a line does.
int64_t HammingTiles::in_place_codes(int64_t n) const {
    if (!plan_.is_panel) return n;
    const int64_t to_line = bytes_to_line();
    if (to_line % plan_.problem->W == 0 && to_line > 0) n = std::min(n, to_line / plan_.problem->W);
    return n < 64 ? n : n / 64 * 64;
}

int64_t HammingTiles::bytes_to_line() const {
    const fh_hamming_problem& p = *plan_.problem;
    return (64 - static_cast<int64_t>(reinterpret_cast<uintptr_t>(p.database + cursor_ * p.stride) % 64)) % 64;
}

// The bits of the next n codes from bit 0 on, 0 after them.
const uint64_t* HammingTiles::mask_of(int64_t n) {
    const uint64_t* from = plan_.problem->mask + cursor_ / 64;
    const int64_t shift = cursor_ % 64, words = divide_up(n, 64), present = divide_up(shift + n, 64);
    if (shift == 0 && n % 64 == 0) return from;
    for (int64_t i = 0; i < words; ++i) {
        const uint64_t low = from[i] >> shift, high = shift != 0 && i + 1 < present ? from[i + 1] << (64 - shift) : 0;
        scratch_.mask[i] = low | high;
    }
    if (n % 64 != 0) scratch_.mask[words - 1] &= (uint64_t{1} << (n % 64)) - 1;
    return scratch_.mask.get();
}

// The next n codes. Where a panel could not begin at a cache line, it is copied if enough queries will pass.
void HammingTiles::next_whole(HammingTile& tile, int64_t n, const uint64_t* mask) {
    const fh_hamming_problem& p = *plan_.problem;
    const uint8_t* codes = p.database + cursor_ * p.stride;
    const int64_t following = std::min(scratch_.panel_codes, p.N - cursor_ - n);
    tile = {codes, mask, nullptr, cursor_, n, codes + n * p.stride, following * p.stride};
    if (plan_.is_panel && n >= 64 && bytes_to_line() != 0 && queries_ >= kCopyFrom) {
        std::memcpy(scratch_.panel, codes, static_cast<size_t>(n * p.W));
        tile.panel = scratch_.panel;
    } else if (!plan_.is_panel || n < 64) {
        plan_.pack(codes, nullptr, n, scratch_.panel);
        tile.panel = scratch_.panel;
    }
    cursor_ += n;
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
            const int64_t position = base + __builtin_ctzll(bits);
            for (int64_t byte = 0; byte < p.W; byte += 64) __builtin_prefetch(p.database + position * p.stride + byte);
            scratch_.positions[n++] = static_cast<uint32_t>(position - chunk_);
        }
    }
    // Where many codes are picked the next tile will read nearly all of as many bytes; where few are, fetching would
    // waste.
    const int64_t seen = cursor_ - from, following = 2 * n < seen ? 0 : std::min(seen, p.N - cursor_);
    tile = {scratch_.panel,      nullptr, scratch_.positions.get(), chunk_, n, p.database + cursor_ * p.stride,
            following * p.stride};
    plan_.pack(p.database + chunk_ * p.stride, scratch_.positions.get(), n, scratch_.panel);
    return n > 0;
}

}  // namespace fasthash
