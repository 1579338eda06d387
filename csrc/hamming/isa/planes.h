// The scan of byte planes (plane_layout.h), written once over the byte lanes of each instruction set.
//
// An ISA file defines a type B of byte lanes:
//   Vec             a register of kLanes bytes, one code each
//   Sums, WideSums  kLanes distances of 16 and of 32 bits, in an order that only store() knows
//   kCheck          codes tested by one branch: a multiple of kLanes that divides kPlaneBlock
//   load, broadcast (of a word of 4 bytes), bit_xor
//   count(x)        the bits of each byte;  add(a, b) bytewise
//   zero(sums), weigh(sums, a, b, weight_a, weight_b)   sums += a x weight_a + b x weight_b
//   widen(wide, sums)                                    wide += sums
//   min(a, b), any_below(sums, limit)                    for both; limit: a distance
//   store(sums, out)                                     kLanes distances as int32, in the order of the codes
//   transpose(words, planes)   64 words of 8 bytes to 8 planes of 64 bytes, kPlaneBlock apart
#pragma once

#include "hamming/isa/plane_layout.h"
#include "hamming/isa/scan.h"

namespace fasthash {
namespace {

template <class B, bool kWide>
struct SumsOf {
    using Type = typename B::Sums;
};
template <class B>
struct SumsOf<B, true> {
    using Type = typename B::WideSums;
};

// Bit counts of one run for the kCheck codes at `plane`; plane and query move past it.
template <class B>
inline __attribute__((always_inline)) void count_run(const PlaneRun& run, const uint8_t*& plane, const uint32_t*& query,
                                                     typename B::Vec* counts) {
    constexpr int kVecs = B::kCheck / B::kLanes;
    const auto differing = [&](int v, typename B::Vec q) {
        return B::count(B::bit_xor(B::load(plane + v * B::kLanes), q));
    };
    if (run.planes == 0) {
        for (int v = 0; v < kVecs; ++v) counts[v] = B::broadcast(0);
        return;
    }
    typename B::Vec q = B::broadcast(*query);
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) counts[v] = differing(v, q);
    for (int32_t i = 1; i < run.planes; ++i) {
        plane += kPlaneBlock;
        q = B::broadcast(*++query);
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) counts[v] = B::add(counts[v], differing(v, q));
    }
    plane += kPlaneBlock;
    ++query;
}

// Distances of the kCheck codes at `plane`, in the first plane of their block.
template <class B, bool kWide>
inline __attribute__((always_inline)) void plane_sums(const PlaneLayout& layout, const uint8_t* plane,
                                                      const uint32_t* query,
                                                      typename SumsOf<B, kWide>::Type* distances) {
    constexpr int kVecs = B::kCheck / B::kLanes;
    typename B::Vec a[kVecs], b[kVecs];
    const auto two_runs = [&](const PlaneRun* runs, typename B::Sums* sums) {
        count_run<B>(runs[0], plane, query, a);
        count_run<B>(runs[1], plane, query, b);
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) B::weigh(sums[v], a[v], b[v], runs[0].weight, runs[1].weight);
    };
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) B::zero(distances[v]);
    for (const PlaneRun* runs = layout.runs; runs < layout.runs + layout.runs_count; runs += kRunsAtOnce) {
        if constexpr (kWide) {
            typename B::Sums sums[kVecs];
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) B::zero(sums[v]);
            two_runs(runs, sums);
            two_runs(runs + 2, sums);
#pragma GCC unroll 16
            for (int v = 0; v < kVecs; ++v) B::widen(distances[v], sums[v]);
        } else {
            two_runs(runs, distances);
            if (runs[2].planes > 0) two_runs(runs + 2, distances);
        }
    }
}

inline const uint8_t* planes_of(const PlaneLayout& layout, const void* panel, int64_t code) {
    return static_cast<const uint8_t*>(panel) + code / kPlaneBlock * kPlaneBlock * layout.planes + code % kPlaneBlock;
}

// As scan_panel.
template <class B, bool kWide>
bool scan_planes(ScanRequest* request) {
    using Sums = typename SumsOf<B, kWide>::Type;
    constexpr int kVecs = B::kCheck / B::kLanes;
    constexpr int64_t kSpan = 64 * B::kCheck, kFirstSpan = 256, kTakeAt = 64;
    static_assert(kTakeAt + kFirstSpan + B::kCheck <= kHitsRoom, "a span's hits must fit");
    const PlaneLayout& layout = *request->layout;
    const int64_t n = request->n;
    uint64_t* hits = request->hits;
    int64_t i = request->code;

    for (int64_t q = request->query; q < request->query_end; ++q, i = 0) {
        if (i == 0) {
            for (int64_t byte = 0; byte < request->next_bytes; byte += kCacheLine)
                __builtin_prefetch(request->next + byte, 0, 2);
            request->next += request->next_bytes;
        }
        const uint32_t* query = reinterpret_cast<const uint32_t*>(request->queries) + q * layout.planes;
        const int32_t limit = request->limits[q];
        const int64_t length = i > 0 || limit > request->largest ? kFirstSpan : kSpan;
        while (i < n) {
            const int64_t span = i, end = n - i < length ? n : i + length;
            uint64_t flags = 0;
            for (uint64_t flag = 1; i < end; i += B::kCheck, flag += flag) {
                Sums distances[kVecs];
                plane_sums<B, kWide>(layout, planes_of(layout, request->panel, i), query, distances);
#pragma GCC unroll 16
                for (int v = 1; v < kVecs; ++v) distances[0] = B::min(distances[0], distances[v]);
                flags |= B::any_below(distances[0], limit) ? flag : 0;
            }
            for (; flags != 0; flags &= flags - 1) {
                const int64_t block = span + __builtin_ctzll(flags) * B::kCheck;
                Sums distances[kVecs];
                plane_sums<B, kWide>(layout, planes_of(layout, request->panel, block), query, distances);
                int32_t found[B::kCheck];
#pragma GCC unroll 16
                for (int v = 0; v < kVecs; ++v) B::store(distances[v], found + v * B::kLanes);
                const int64_t there = n - block < B::kCheck ? n - block : B::kCheck;
                for (int64_t c = 0; c < there;
                     ++c) {  // without branches: hits are unpredictable where they are frequent
                    bool hit = found[c] < limit;
                    if (request->mask != nullptr) hit &= request->mask[(block + c) / 64] >> ((block + c) % 64) & 1;
                    *hits = static_cast<uint64_t>(found[c]) << 32 | static_cast<uint64_t>(block + c);
                    hits += hit;
                }
                // The limit may fall by these hits; what is left of a long span is then scanned again.
                if (length > kFirstSpan && hits - request->hits >= kTakeAt) {
                    i = block + B::kCheck;
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

template <class B>
bool scan_any_planes(ScanRequest* request) {
    return request->layout->wide ? scan_planes<B, true>(request) : scan_planes<B, false>(request);
}

template <class B, bool kWide>
void store_distances(const PlaneLayout& layout, const uint32_t* query, const void* panel, int64_t begin, int64_t end,
                     int32_t* out) {
    constexpr int kVecs = B::kCheck / B::kLanes;
    for (int64_t i = begin; i < end; i += B::kCheck) {
        typename SumsOf<B, kWide>::Type distances[kVecs];
        plane_sums<B, kWide>(layout, planes_of(layout, panel, i), query, distances);
        int32_t last[B::kCheck];
        int32_t* to = end - i >= B::kCheck ? out + (i - begin) : last;
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) B::store(distances[v], to + v * B::kLanes);
        if (to == last)
            for (int64_t c = i; c < end; ++c) out[c - begin] = last[c - i];
    }
}

template <class B>
void plane_distances(const PlaneLayout* layout, const void* query, const void* panel, int64_t begin, int64_t end,
                     int32_t* out) {
    const uint32_t* words = static_cast<const uint32_t*>(query);
    if (layout->wide) return store_distances<B, true>(*layout, words, panel, begin, end, out);
    return store_distances<B, false>(*layout, words, panel, begin, end, out);
}

// 8 words of 8 bytes to 8 words of which word b holds byte b of each: a transposition in three steps, which swap
// squares of 1, 2 and 4 bytes.
inline void transpose_bytes(uint64_t* w) {
    constexpr uint64_t kMasks[] = {0x00ff00ff00ff00ffu, 0x0000ffff0000ffffu, 0x00000000ffffffffu};
#pragma GCC unroll 3
    for (int step = 0; step < 3; ++step) {
        const int apart = 1 << step, shift = 8 << step;
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            if (i & apart) continue;
            const uint64_t swap = (w[i] >> shift ^ w[i + apart]) & kMasks[step];
            w[i + apart] ^= swap;
            w[i] ^= swap << shift;
        }
    }
}

inline void transpose_any(const uint64_t* words, uint8_t* planes) {
    for (int64_t group = 0; group < 8; ++group) {
        uint64_t w[8];
        __builtin_memcpy(w, words + 8 * group, sizeof(w));
        transpose_bytes(w);
        for (int byte = 0; byte < 8; ++byte)
            __builtin_memcpy(planes + byte * kPlaneBlock + 8 * group, &w[byte], sizeof(uint64_t));
    }
}

template <class B>
void pack_planes(const PlaneLayout* layout, const uint8_t* database, int64_t stride, const uint32_t* positions,
                 int64_t n, void* panel) {
    const int64_t W = layout->W;
    uint8_t* block = static_cast<uint8_t*>(panel);
    for (int64_t first = 0; first < n; first += kPlaneBlock, block += kPlaneBlock * layout->planes) {
        const int64_t there = n - first < kPlaneBlock ? n - first : kPlaneBlock;
        const PlaneSource *source = layout->sources, *end = source + layout->planes;
        for (int64_t word = 0; word < W; word += 8) {
            uint64_t words[kPlaneBlock];
            uint8_t bytes[8 * kPlaneBlock];
            const int64_t present = W - word;
            for (int64_t c = 0; c < there; ++c) {
                const int64_t row = positions != nullptr ? int64_t{positions[first + c]} : first + c;
                const uint8_t* from = database + row * stride + word;
                words[c] = present >= 8 ? load_bytes<uint64_t>(from) : load_partial(from, present);
            }
            for (int64_t c = there; c < kPlaneBlock; ++c) words[c] = 0;
            for (int64_t half = 0; half < kPlaneBlock; half += 64) B::transpose(words + half, bytes + half);
            for (; source < end && source->byte < word + 8; ++source) {
                const uint8_t* from = bytes + (source->byte - word) * kPlaneBlock;
                uint8_t* to = block + source->plane * kPlaneBlock;
                const uint64_t mask = source->mask * 0x0101010101010101u;
                for (int64_t i = 0; i < kPlaneBlock; i += 8) {
                    const uint64_t masked = load_bytes<uint64_t>(from + i) & mask;
                    __builtin_memcpy(to + i, &masked, sizeof(masked));
                }
            }
        }
    }
}

template <class B>
constexpr PlaneTable make_plane_table() {
    return {pack_planes<B>, scan_any_planes<B>, plane_distances<B>};
}

// Byte lanes in plain C++, eight a word: the reference for every other instruction set.
struct ScalarBytes {
    using Vec = uint64_t;
    struct Sums {
        uint16_t d[8];
    };
    struct WideSums {
        uint32_t d[8];
    };
    static constexpr int kLanes = 8, kCheck = 8;
    static Vec load(const uint8_t* p) { return load_bytes<uint64_t>(p); }
    static Vec broadcast(uint32_t word) { return word | uint64_t{word} << 32; }
    static Vec bit_xor(Vec a, Vec b) { return a ^ b; }
    static Vec add(Vec a, Vec b) { return a + b; }
    static Vec count(Vec x) {
        x -= x >> 1 & 0x5555555555555555u;
        x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
        return (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    }
    template <class S>
    static void zero(S& sums) {
        sums = {};
    }
    static void weigh(Sums& sums, Vec a, Vec b, int32_t weight_a, int32_t weight_b) {
        for (int i = 0; i < 8; ++i)
            sums.d[i] = static_cast<uint16_t>(sums.d[i] + static_cast<int32_t>(a >> (8 * i) & 255) * weight_a +
                                              static_cast<int32_t>(b >> (8 * i) & 255) * weight_b);
    }
    static void widen(WideSums& wide, const Sums& sums) {
        for (int i = 0; i < 8; ++i) wide.d[i] += sums.d[i];
    }
    template <class S>
    static S min(S a, const S& b) {
        for (int i = 0; i < 8; ++i) a.d[i] = a.d[i] < b.d[i] ? a.d[i] : b.d[i];
        return a;
    }
    template <class S>
    static bool any_below(const S& sums, int32_t limit) {
        bool any = false;
        for (int i = 0; i < 8; ++i) any |= static_cast<int32_t>(sums.d[i]) < limit;
        return any;
    }
    template <class S>
    static void store(const S& sums, int32_t* out) {
        for (int i = 0; i < 8; ++i) out[i] = static_cast<int32_t>(sums.d[i]);
    }
    static void transpose(const uint64_t* words, uint8_t* planes) { transpose_any(words, planes); }
};

}  // namespace
}  // namespace fasthash
