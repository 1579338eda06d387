// The scan of one panel, written once over the lanes that each instruction-set file defines.
//
// An ISA file defines Lanes32, Lanes64, Weighted and Shared and instantiates make_table of them. A Lanes type L has
//   Word, Vec       the lane's word; a register of kLanes of them (also used for counts, one count a lane)
//   kCheck          codes tested by one branch: a multiple of 8 and a divisor of kScanBlock
//   kScalarOf8      of 8 words, how many to count in general registers, beside the vector units; if any, then also
//                   set(words)   a Vec of kLanes words
//   kFlush          words that count() may add up before finish()
//   load, broadcast, zero, bit_xor, add (lane-wise counts)
//   count(acc, x)   acc plus the bit counts of x, in a form that only finish() understands
//   finish(acc)     the count of each lane
//   min(a, b), limit(d), any_below(counts, limit)
//   pin(v)          an empty instruction: GCC would reorder sums of many words into trees, for which registers run out
//   below(counts, limit)   a bit for each lane that is below, the first lane's the lowest
//   count_bits(word), mask_word(64 booleans)
//   store(counts, out)     kLanes counts as int32
// Weighted is Lanes32 for weighted bits (scan_table.h): kWeighted is true, kCheck a multiple of kWeightedGroup, and
//   weigh(acc, x, weights)   acc plus the bit counts of each byte of x times its weight, for count
// Shared is the same for words that all have the same weights: count() adds up the bit counts of bytes, and
//   finish(acc, weights)     the weighted sum of each lane's bytes
//
// Lanes are ours, because std::simd is not in C++17, and a library like Highway would be a dependency of the build for
// some twenty functions of one line.
//
// Everything is in an anonymous namespace: each ISA file gets its own copy, and the linker can merge none of them.
#pragma once

#include <cstdint>

#include "hamming/isa/pack.h"

namespace fasthash {
namespace {

constexpr int64_t kCacheLine = 64;

// Differing bits of one code's words, kGroup apart, and the query's.
template <class L, int kWords>
inline uint64_t count_words(const typename L::Word* code, const typename L::Word* query) {
    uint64_t sum = 0;
#pragma GCC unroll 16
    for (int word = 0; word < kWords; ++word)
        sum += static_cast<uint64_t>(L::count_bits(code[word * kGroup] ^ load_bytes<typename L::Word>(query + word)));
    __asm__("" : "+r"(sum));  // GCC would make vectors of these sums
    return sum;
}

// A query's words in every lane, and the weights of their bytes where bits are weighted (kWords > 0; else unused).
template <class L, int kWords>
struct QueryWords {
    typename L::Vec words[kWords > 0 ? kWords : 1], weights[L::kWeighted && kWords > 0 ? kWords : 1];

    inline __attribute__((always_inline)) void broadcast(const typename L::Word* query, const WeightedWord* weighted) {
#pragma GCC unroll 16
        for (int word = 0; word < kWords; ++word) {
            words[word] = L::broadcast(load_bytes<typename L::Word>(query + word));
            if constexpr (L::kWeighted) weights[word] = L::broadcast(weighted[word].weights);
        }
    }
};

// acc plus the count of x, of one word.
template <class L>
inline __attribute__((always_inline)) typename L::Vec count_word(typename L::Vec acc, typename L::Vec x,
                                                                 const typename L::Vec& weights) {
    if constexpr (L::kWeighted && !L::kShared)
        return L::weigh(acc, x, weights);
    else
        return L::count(acc, x);
}

template <class L>
inline __attribute__((always_inline)) typename L::Vec finish_words(typename L::Vec acc,
                                                                   const typename L::Vec& weights) {
    if constexpr (L::kShared)
        return L::finish(acc, weights);
    else
        return L::finish(acc);
}

// Distances of the kCheck codes that start at `block`.
template <class L, int kWords>
inline __attribute__((always_inline)) void block_distances(const typename L::Word* block, const typename L::Word* query,
                                                           const QueryWords<L, kWords>& queries,
                                                           const WeightedWord* weighted, int64_t words,
                                                           typename L::Vec* distances) {
    using Vec = typename L::Vec;
    constexpr int kVecs = L::kCheck / L::kLanes, kScalar = kWords == 8 ? L::kScalarOf8 : 0;
    constexpr int64_t kSide = L::kWeighted ? kWeightedGroup : kGroup;
    static_assert(L::kCheck % kSide == 0, "a block must begin with a group");
    const auto at = [&](int v, int64_t word) {
        const int64_t code = int64_t{v} * L::kLanes;
        return block + code / kSide * kSide * words + word * kSide + code % kSide;
    };
    static_assert(kWords <= L::kFlush, "finish() must come in between");
    if constexpr (kWords > 0) {
        Vec acc[kVecs];
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) acc[v] = L::zero();
#pragma GCC unroll 16
        for (int word = 0; word < kWords - kScalar; ++word) {
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) {
                acc[v] = count_word<L>(acc[v], L::bit_xor(L::load(at(v, word)), queries.words[word]),
                                       queries.weights[L::kWeighted ? word : 0]);
                L::pin(acc[v]);
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) {
            distances[v] = finish_words<L>(acc[v], queries.weights[0]);
            if constexpr (kScalar > 0) {
                typename L::Word sums[L::kLanes];
                for (int lane = 0; lane < L::kLanes; ++lane)
                    sums[lane] = count_words<L, kScalar>(at(v, kWords - kScalar) + lane, query + kWords - kScalar);
                distances[v] = L::add(distances[v], L::set(sums));
            }
        }
    } else {
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) distances[v] = L::zero();
        Vec weights = L::zero();
        for (int64_t word = 0; word < words;) {
            const int64_t flush = words - word < L::kFlush ? words : word + L::kFlush;
            Vec acc[kVecs];
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) acc[v] = L::zero();
            for (; word < flush; ++word) {
                const Vec q = L::broadcast(load_bytes<typename L::Word>(query + word));
                if constexpr (L::kWeighted) weights = L::broadcast(weighted[word].weights);
#pragma GCC unroll 16
                for (int v = 0; v < kVecs; ++v)
                    acc[v] = count_word<L>(acc[v], L::bit_xor(L::load(at(v, word)), q), weights);
            }
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) distances[v] = L::add(distances[v], finish_words<L>(acc[v], weights));
        }
    }
}

// Most blocks hold no hit. The minimum over a block's vectors is compared with the limit and leaves one flag, without a
// branch: hits are unpredictable where they are frequent. The flagged blocks of a span are then computed again.
template <class L, int kWords, bool kMasked>
bool scan_panel(ScanRequest* request) {
    using Vec = typename L::Vec;
    using Word = typename L::Word;
    constexpr int kVecs = L::kCheck / L::kLanes;
    // One flag for each block. Where the loop below starts it has to wait for the flags: narrow codes wait less often.
    constexpr int kFlagWords = kWords == 1 ? 2 : 1;
    constexpr int64_t kSpan = kFlagWords * 64 * L::kCheck;
    constexpr int64_t kFirstSpan = 4 * kScanBlock;  // while a query takes every code, and where hits are dense
    constexpr int64_t kTakeAt = 64;
    static_assert(kTakeAt + kFirstSpan + 16 <= kHitsRoom && kFirstSpan < kSpan, "a span's hits must fit");
    constexpr uint64_t kBlockBits = L::kCheck == 64 ? ~uint64_t{0} : (uint64_t{1} << (L::kCheck % 64)) - 1;
    const int64_t n = request->n, words = kWords > 0 ? kWords : request->words;
    const Word* panel = static_cast<const Word*>(request->panel);
    uint64_t* hits = request->hits;
    int64_t i = request->code;

    for (int64_t q = request->query; q < request->query_end; ++q, i = 0) {
        if (i == 0) {
            for (int64_t byte = 0; byte < request->next_bytes; byte += kCacheLine)
                __builtin_prefetch(request->next + byte, 0, 2);
            request->next += request->next_bytes;
        }
        const Word* query = reinterpret_cast<const Word*>(request->queries) + q * words;
        QueryWords<L, kWords> queries;
        queries.broadcast(query, request->weighted);
        const Vec limit = L::limit(static_cast<uint32_t>(request->limits[q]));
        const int64_t length = i > 0 || request->limits[q] > request->largest ? kFirstSpan : kSpan;
        while (i < n) {
            const int64_t span = i, end = n - i < length ? n : i + length;
            uint64_t flag_words[kFlagWords] = {};
#pragma GCC unroll 2
            for (uint64_t& flags : flag_words) {
                const int64_t stop = end - i < 64 * L::kCheck ? end : i + 64 * L::kCheck;
                for (uint64_t flag = 1; i < stop; i += L::kCheck, flag += flag) {
                    Vec distances[kVecs];
                    block_distances<L, kWords>(panel + i * words, query, queries, request->weighted, words, distances);
                    Vec nearest = distances[0];
#pragma GCC unroll 16
                    for (int v = 1; v < kVecs; ++v) nearest = L::min(nearest, distances[v]);
                    flags |= L::any_below(nearest, limit) ? flag : 0;
                }
            }
            int64_t first = span;
            for (uint64_t flags = flag_words[0], last = flag_words[kFlagWords - 1];; flags &= flags - 1) {
                if (flags == 0) {
                    if (kFlagWords == 1 || last == 0) break;
                    flags = last;
                    last = 0;
                    first += 64 * L::kCheck;
                }
                const int64_t block = first + __builtin_ctzll(flags) * L::kCheck;
                uint64_t valid = ~uint64_t{0};
                if constexpr (kMasked) {
                    valid = request->mask[block / 64] >> (block % 64);
                    if ((valid & kBlockBits) == 0) continue;
                }
                if (n - block < L::kCheck) valid &= (uint64_t{1} << (n - block)) - 1;
                Vec distances[kVecs];
                block_distances<L, kWords>(panel + block * words, query, queries, request->weighted, words, distances);
                Word lanes[L::kCheck];
                uint64_t found = 0;
#pragma GCC unroll 16
                for (int v = 0; v < kVecs; ++v) {
                    found |= L::below(distances[v], limit) << (v * L::kLanes);
                    __builtin_memcpy(lanes + v * L::kLanes, &distances[v], sizeof(Vec));
                }
                for (found &= valid; found != 0; found &= found - 1) {
                    const int lane = __builtin_ctzll(found);
                    *hits++ = uint64_t{lanes[lane]} << 32 | static_cast<uint64_t>(block + lane);
                }
                // The limit may fall by these hits; what is left of a long span is then scanned again.
                if (length > kFirstSpan && hits - request->hits >= kTakeAt) {
                    i = block + L::kCheck;
                    break;
                }
            }
            if (hits - request->hits >= kTakeAt) break;
        }
        if (hits != request->hits) {
            request->hit_query = q;
            request->query = i < n ? q : q + 1;
            request->code = i < n ? i : 0;
            request->hit_count = hits - request->hits;
            return true;
        }
    }
    return false;
}

template <class L, int kWords>
bool scan_any(ScanRequest* request) {
    return request->mask != nullptr ? scan_panel<L, kWords, true>(request) : scan_panel<L, kWords, false>(request);
}

template <class L, int kWords>
void weighted_distances(const WeightedWord* weighted, const void* query_words, const void* panel_words, int64_t words,
                        int64_t begin, int64_t end, int32_t* out) {
    using Vec = typename L::Vec;
    using Word = typename L::Word;
    constexpr int kVecs = L::kCheck / L::kLanes;
    if (kWords > 0) words = kWords;
    const Word* query = static_cast<const Word*>(query_words);
    const Word* panel = static_cast<const Word*>(panel_words);
    QueryWords<L, kWords> queries;
    queries.broadcast(query, weighted);
    for (int64_t i = begin; i < end; i += L::kCheck) {
        Vec distances[kVecs];
        block_distances<L, kWords>(panel + i * words, query, queries, weighted, words, distances);
        if (end - i >= L::kCheck) {
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) L::store(distances[v], out + (i - begin) + v * L::kLanes);
        } else {
            int32_t last[L::kCheck];
            for (int v = 0; v < kVecs; ++v) L::store(distances[v], last + v * L::kLanes);
            for (int64_t c = i; c < end; ++c) out[c - begin] = last[c - i];
        }
    }
}

template <class L, int kWords>
void panel_distances(const void* query, const void* panel, int64_t words, int64_t begin, int64_t end, int32_t* out) {
    weighted_distances<L, kWords>(nullptr, query, panel, words, begin, end, out);
}

// The usual widths have a kernel each, of 128 and 256 bits also with one byte that has two weights; others share one.
template <class Weighted, class Shared>
bool scan_weighted(ScanRequest* request) {
    if (request->shared) {
        switch (request->words) {
            case 1:
                return scan_any<Shared, 1>(request);
            case 2:
                return scan_any<Shared, 2>(request);
            case 3:
                return scan_any<Shared, 3>(request);
            default:
                return scan_any<Shared, 0>(request);
        }
    }
    switch (request->words) {
        case 2:
            return scan_any<Weighted, 2>(request);
        case 4:
            return scan_any<Weighted, 4>(request);
        case 5:
            return scan_any<Weighted, 5>(request);
        case 8:
            return scan_any<Weighted, 8>(request);
        case 9:
            return scan_any<Weighted, Weighted::kFlush >= 9 ? 9 : 0>(request);
        default:
            return scan_any<Weighted, 0>(request);
    }
}

template <class L>
int64_t count_mask_bits(const uint64_t* words, int64_t n) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += L::count_bits(words[i]);
    return total;
}

// Eight booleans, the first in the lowest byte, as eight bits, the first the lowest: each byte becomes 0 or 1, and the
// product gathers bit 0 of byte i in bit 56 + i; no two terms meet in one place.
inline uint64_t eight_booleans(const uint8_t* booleans) {
    constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu, kOnes = 0x0101010101010101u;
    const uint64_t bytes = load_bytes<uint64_t>(booleans);
    const uint64_t ones = (((bytes & kLow) + kLow) | bytes) >> 7 & kOnes;
    return (ones * 0x0102040810204080u) >> 56;
}

inline uint64_t word_of_booleans(const uint8_t* booleans) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) word |= eight_booleans(booleans + 8 * i) << (8 * i);
    return word;
}

template <class L>
void mask_words(const uint8_t* booleans, int64_t n, uint64_t* words) {
    for (int64_t i = 0; i < n; ++i) words[i] = L::mask_word(booleans + 64 * i);
}

template <class L32, class L64, class Weighted, class Shared>
constexpr ScanTable make_table(decltype(ScanTable::pack) pack, decltype(ScanTable::pack_weighted) pack_weighted) {
    return {pack,
            {scan_any<L32, 1>, scan_any<L64, 1>, scan_any<L64, 2>, scan_any<L64, 4>, scan_any<L64, 8>,
             scan_any<L64, 16>, scan_any<L64, 0>},
            {panel_distances<L32, 1>, panel_distances<L64, 1>, panel_distances<L64, 2>, panel_distances<L64, 4>,
             panel_distances<L64, 8>, panel_distances<L64, 16>, panel_distances<L64, 0>},
            count_mask_bits<L64>,
            mask_words<L64>,
            pack_weighted,
            scan_weighted<Weighted, Shared>,
            weighted_distances<Weighted, 0>};
}

}  // namespace
}  // namespace fasthash
