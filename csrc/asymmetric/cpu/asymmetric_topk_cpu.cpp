// The K nearest codes by asymmetric distance on the CPU.
//
// The database is cut into chunks, and a chunk into tiles that stay in the level-1 cache as a panel of nibbles while a
// block of queries passes over them. A code that a query's integer bound does not rule out is looked at in double, and
// enters the query's list. As the list fills with nearer codes, its limit falls.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <limits>
#include <memory>
#include <vector>

#include "asymmetric/asymmetric_topk.h"
#include "asymmetric/cpu/nearest_list.h"
#include "asymmetric/cpu/nibble_bound.h"
#include "asymmetric/isa/nibble_table.h"
#include "core/cpu_features.h"
#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "hamming/cpu/nibble_sums.h"
#include "hamming/groups.h"

namespace fasthash {
namespace {

constexpr int64_t kPassBytes = 40 << 20;   // of all queries of a pass
constexpr int64_t kPanelBytes = 24 << 10;  // a level-1 cache has 32 to 64 KiB
// Few queries pass over a panel of bytes, and a smaller one, so that reads from memory hardly pause meanwhile.
constexpr int64_t kFewQueries = 4, kSmallPanelBytes = 16 << 10;
constexpr int64_t kChunkBytes = 256 << 10, kSmallChunkBytes = 32 << 10;
static_assert(kPanelBytes / 16 <= kPanelBlocks * kNibbleBlock, "the narrowest codes have the most blocks");
constexpr int64_t kBlockQueries = 64;  // that pass over a panel
constexpr int kSide = 8;               // codes that are looked at side by side

constexpr IsaTable<NibbleTable> kNibbleTables[] = {
#define FH_ISA(name, Name, processor, ...) FH_ON_##processor({FH_ISA_##name, &kNibble##Name}, )
#include "core/isa.def"
};

int64_t divide_up(int64_t n, int64_t step) { return (n + step - 1) / step; }
int64_t padded_bytes(int64_t W) { return divide_up(W, 8) * 8; }

// What the filter reads of a query while others lower it: the sum or the float of QueryBound::Limit.
struct Searched {
    Searched(const fh_asymmetric_topk_problem& p, const NibbleTable& table, int64_t query, const double* weights,
             double* zeros, double* ones, int64_t K)
        : bound(p, table, query, weights, zeros, ones), nearest(K), limit(bits(p, bound.limit(kInfinity))) {}

    static constexpr float kInfinity = std::numeric_limits<float>::infinity();
    static uint32_t bits(const fh_asymmetric_topk_problem& p, const QueryBound::Limit& limit) {
        uint32_t most;
        std::memcpy(&most, &limit.most, sizeof(most));
        return p.scales != nullptr ? most : limit.sum;
    }

    const QueryBound bound;
    NearestList nearest;
    std::atomic<uint32_t> limit;
};

// One worker's tile.
struct Tile {
    Tile(const fh_asymmetric_topk_problem& p, bool few)
        : of_bytes(few),
          room(std::max(kNibbleBlock, (few ? kSmallPanelBytes : kPanelBytes) / (2 * padded_bytes(p.W)) / kNibbleBlock *
                                          kNibbleBlock)),
          memory(new uint8_t[room * 2 * padded_bytes(p.W) + 64]),
          panel(memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64) % 64),
          positions(p.mask != nullptr ? new uint32_t[room] : nullptr),
          scales(p.scales != nullptr ? new uint16_t[room] : nullptr),
          ends(p.scales != nullptr ? new float[2 * kPanelBlocks] : nullptr) {}

    bool of_bytes;  // the panel: for few queries
    int64_t room;   // codes
    std::unique_ptr<uint8_t[]> memory;
    uint8_t* panel;
    std::unique_ptr<uint32_t[]> positions;  // of the codes, from `first` on; null: all of them
    std::unique_ptr<uint16_t[]> scales;     // of the codes
    std::unique_ptr<float[]> ends;          // [2, kPanelBlocks]: the least and the greatest of each block
    int64_t first = 0, n = 0;

    int64_t position(int64_t code) const { return first + (positions ? int64_t{positions[code]} : code); }
};

class Search {
  public:
    Search(const fh_asymmetric_topk_problem& problem, const NibbleTable& table, int64_t K, int32_t threads)
        : p_(problem), table_(table), K_(std::min(K, problem.N)), out_K_(K), threads_(threads) {
        weights_.reserve(static_cast<size_t>(p_.D));
        for (int32_t g = 0; g < p_.G; ++g)
            weights_.insert(weights_.end(), static_cast<size_t>(p_.group_bits[g]), p_.group_weights[g]);
        weights_.resize(static_cast<size_t>(p_.D), 1.0);
    }

    fh_status run(float* distances, int64_t* ids, fh_cancel* cancel) {
        const int64_t each = QueryBound::bytes_of(p_) + NearestList::capacity(K_) * int64_t{sizeof(NearCode)};
        const int64_t at_once = std::max<int64_t>(1, kPassBytes / each);
        for (int64_t first = 0; first < p_.Q; first += at_once) {
            if (const fh_status status = pass(first, std::min(at_once, p_.Q - first), cancel)) return status;
            if (const fh_status status = write(first, distances, ids, cancel)) return status;
        }
        return FH_OK;
    }

  private:
    fh_status pass(int64_t first, int64_t Q, fh_cancel* cancel) {
        std::vector<double> zeros(static_cast<size_t>(p_.D)), ones(zeros.size());
        queries_.clear();
        for (int64_t q = first; q < first + Q; ++q)
            queries_.emplace_back(p_, table_, q, weights_.data(), zeros.data(), ones.data(), K_);

        const int64_t words = padded_bytes(p_.W) / 8;
        const int32_t threads = threads_worth(p_.N * (Q + 4) * words * 4, threads_);
        int64_t block = std::min(Q, kBlockQueries), chunk = whole_blocks(kChunkBytes / p_.W);
        const auto tasks = [&] { return divide_up(p_.N, chunk) * divide_up(Q, block); };
        if (threads > 1) {  // several tasks for each thread
            while (tasks() < 4 * threads && block > 16) block = divide_up(block, 2);
            const int64_t smallest = whole_blocks(kSmallChunkBytes / p_.W);
            while (tasks() < 4 * threads && chunk > smallest) chunk = std::max(smallest, whole_blocks(chunk / 2));
        }
        const int64_t blocks = divide_up(Q, block);
        std::vector<Tile> tiles;
        for (int32_t worker = 0; worker < threads; ++worker) tiles.emplace_back(p_, Q < kFewQueries);
        return parallel_for(tasks(), threads, cancel, [&](int64_t task, int worker) {
            const int64_t begin = task / blocks * chunk, end = std::min(begin + chunk, p_.N);
            const int64_t query = task % blocks * block;
            Tile& tile = tiles[worker];
            for (int64_t cursor = begin; fill(tile, cursor, end);)
                for (int64_t q = query; q < std::min(query + block, Q); ++q) scan(tile, queries_[q]);
        });
    }

    static int64_t whole_blocks(int64_t codes) { return std::max(kNibbleBlock, codes / kNibbleBlock * kNibbleBlock); }

    // The next eligible codes from `cursor` on as a panel; false where there are none before `end`.
    bool fill(Tile& tile, int64_t& cursor, int64_t end) const {
        tile.first = cursor;
        if (p_.mask == nullptr) {
            tile.n = std::min(tile.room, end - cursor);
            cursor += tile.n;
        } else {
            pick(tile, cursor, end);
        }
        if (tile.n == 0) return false;
        const uint32_t* positions = tile.positions.get();
        const uint8_t* database = p_.database + tile.first * p_.stride;
        table_.pack[tile.of_bytes](database, p_.stride, positions, tile.n, p_.W, tile.panel);
        if (p_.scales != nullptr) {
            table_.scales(p_.scales + tile.first, positions, tile.n, tile.scales.get(), tile.ends.get(),
                          tile.ends.get() + kPanelBlocks);
        }
        return true;
    }

    void pick(Tile& tile, int64_t& cursor, int64_t end) const {
        tile.n = 0;
        while (cursor < end && tile.n < tile.room) {
            const int64_t base = cursor / 64 * 64, stop = std::min(base + 64, end);
            uint64_t bits = p_.mask[base / 64] & (~uint64_t{0} << (cursor % 64));
            if (stop - base < 64) bits &= (uint64_t{1} << (stop - base)) - 1;
            cursor = stop;
            for (; bits != 0; bits &= bits - 1) {
                const int64_t position = base + __builtin_ctzll(bits);
                if (tile.n == tile.room) {
                    cursor = position;
                    break;
                }
                for (int64_t byte = 0; byte < p_.W; byte += 64)
                    __builtin_prefetch(p_.database + position * p_.stride + byte);
                tile.positions[tile.n++] = static_cast<uint32_t>(position - tile.first);
            }
        }
    }

    void scan(const Tile& tile, Searched& query) const {
        uint32_t hits[kNibbleHits];
        const QueryBound& bound = query.bound;
        const float* ends = tile.ends.get();
        NibbleScan request{};
        request.tables = bound.tables(), request.panel = tile.panel, request.of_bytes = tile.of_bytes;
        request.bytes = padded_bytes(p_.W), request.n = tile.n, request.hits = hits;
        // What comes next of rows that lie side by side, as the panel does.
        if (tile.of_bytes && tile.positions == nullptr)
            request.ahead = reinterpret_cast<intptr_t>(p_.database + (tile.first + tile.n) * p_.stride) -
                            reinterpret_cast<intptr_t>(tile.panel);
        if (ends != nullptr) {
            request.scales = tile.scales.get(), request.lows = ends, request.highs = ends + kPanelBlocks;
            request.base = bound.base(), request.step = bound.step(), request.square = bound.square();
        }
        for (bool more = true; more;) {
            request.limit = query.limit.load(std::memory_order_relaxed);
            std::memcpy(&request.most, &request.limit, sizeof(request.most));
            more = table_.scan(&request);
            if (request.hit_count > 0) take(tile, query, hits, request.hit_count);
        }
    }

    // Looks at codes that passed.
    void take(const Tile& tile, Searched& query, const uint32_t* hits, int64_t count) const {
        NearCode codes[kNibbleHits];
        int64_t found = 0;
        const uint32_t most = query.nearest.most();
        for (int64_t begin = 0; begin < count; begin += kSide) {
            const int64_t side = std::min<int64_t>(kSide, count - begin);
            const uint8_t* rows[kSide];
            double sums[kSide];
            for (int64_t i = 0; i < kSide; ++i)
                rows[i] = p_.database + tile.position(hits[begin + std::min(i, side - 1)]) * p_.stride;
            if (side == 1)
                sum_nibbles<1>(query.bound.sums(), rows, p_.W, sums);
            else
                sum_nibbles<kSide>(query.bound.sums(), rows, p_.W, sums);
            for (int64_t i = 0; i < side; ++i) {
                const int64_t position = tile.position(hits[begin + i]);
                const float distance = p_.scales != nullptr
                                           ? query.bound.distance(sums[i], half_value(p_.scales[position]))
                                           : query.bound.distance(sums[i]);
                codes[found] = {float_key(distance), position};
                found += codes[found].key <= most;
            }
        }
        if (found == 0) return;
        query.nearest.add(codes, found, [&](uint32_t key) {
            query.limit.store(Searched::bits(p_, query.bound.limit(float_of_key(key))), std::memory_order_relaxed);
        });
    }

    fh_status write(int64_t first, float* distances, int64_t* ids, fh_cancel* cancel) {
        const int64_t Q = static_cast<int64_t>(queries_.size());
        return parallel_for(Q, threads_worth(Q * K_ * 64, threads_), cancel, [&](int64_t q, int) {
            const NearCode* codes;
            const int64_t found = queries_[q].nearest.sorted(codes);
            float* to = distances + (first + q) * out_K_;
            int64_t* id = ids + (first + q) * out_K_;
            for (int64_t i = 0; i < found; ++i) to[i] = float_of_key(codes[i].key), id[i] = codes[i].position;
            std::fill(to + found, to + out_K_, Searched::kInfinity);
            std::fill(id + found, id + out_K_, -1);
        });
    }

    const fh_asymmetric_topk_problem& p_;
    const NibbleTable& table_;
    const int64_t K_, out_K_;
    const int32_t threads_;
    std::vector<double> weights_;   // [D]
    std::deque<Searched> queries_;  // of the pass; they cannot be moved
};

fh_status checked(const fh_asymmetric_topk_problem& p, int64_t K) {
    if (p.Q < 0 || p.N < 0 || K < 1 || p.D < 1 || p.W < 1 || p.W > 8192 || p.D > 8 * p.W || (p.N > 1 && p.stride < p.W))
        return fail(FH_INVALID,
                    "fh_asymmetric_topk_cpu: must have Q, N >= 0, K >= 1, W 1 to 8192, D 1 to 8 W, stride >= W");
    if (p.metric < FH_L1 || p.metric > FH_L2)
        return fail(FH_INVALID, "fh_asymmetric_topk_cpu: the metric must be l1, dot, cosine or l2");
    if (p.metric != FH_L1 ? p.G > 0 : p.scales != nullptr)
        return fail(FH_INVALID, "fh_asymmetric_topk_cpu: groups need metric l1, scales need another metric");
    const fh_hamming_problem groups{nullptr, nullptr, nullptr, 0, 0, p.W, p.W, p.group_bits, p.group_weights, p.G};
    int32_t largest;
    if (const fh_status status = largest_distance(groups, largest)) return status;
    int64_t bits = 0;
    for (int32_t g = 0; g < p.G; ++g) bits += p.group_bits[g];
    if (p.G > 0 && bits != p.D) return fail(FH_INVALID, "fh_asymmetric_topk_cpu: the groups must have D bits in all");
    return FH_OK;
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_asymmetric_topk_cpu(const fh_asymmetric_topk_problem* problem, int64_t K, float* distances,
                                            int64_t* ids, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("asymmetric_topk", [&]() -> fh_status {
        if (const fh_status status = checked(*problem, K)) return status;
        const NibbleTable* table = chosen_table(kNibbleTables);
        if (table == nullptr) return FH_INVALID;
        return Search(*problem, *table, K, std::max(threads, 1)).run(distances, ids, cancel);
    });
}
