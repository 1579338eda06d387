// The filter of one panel, written once over the registers that each instruction-set file defines.
//
// An ISA file defines Nibbles and instantiates make_nibble_table of it. A type L has
//   kMost, kMostSum, Sum   the largest byte of a query's tables, the largest sum of a code, and a type that holds it
//   Sums            the sums of the 64 codes of a block, in an order of its own
//   block_sums<kOfBytes>(tables, block, bytes)   those sums
//   any_below(sums, limit)   whether one is below
//   below(sums, limit)       a bit for each code that is, the first the lowest
//   store(sums, out)         Sum [64] in the order of the codes
// and a packer P, for pack_groups, which agrees with it on what a panel is. LaneSums makes block_sums of
//   Vec             a register of kLanes x 16 bytes, kLanes 1, 2 or 4
//   load, zero, add8, add16 (both wrap around), high8 (each 16 bits shifted down by 8)
//   high4, low4     of each byte
//   look_up(table, nibbles)   each 16 bytes of the table are that of the 16 nibbles at the same place
//   sums(odd, even)           of four groups' registers, whose 16 bits are sums of the codes 2 i + 1 and 2 i
//
// A panel of LaneSums holds codes in groups of 16. A group is cut into units of 4 bytes of the code, 128 bytes of the
// panel: the high nibbles of the unit's four bytes, each of the 16 codes side by side, then the low nibbles:
// [ceil(n / 16)][W' / 4][high, low][4][16], one nibble a byte; or [ceil(n / 16)][W' / 4][4][16] bytes.
//
// Everything is in an anonymous namespace: each ISA file gets its own copy, and the linker can merge none of them.
// Lanes are ours for the reasons that hamming/isa/scan.h gives.
#pragma once

#include <cstdint>

#include "asymmetric/isa/nibble_table.h"

namespace fasthash {
namespace {

constexpr int64_t kGroupCodes = 16, kGroups = kNibbleBlock / kGroupCodes;
constexpr int kFlush = 4;  // bytes that are added up before they become 16 bits
constexpr int kFlushMost = 63;
constexpr int32_t kFlushSum = 65534;
static_assert(kFlush * kFlushMost <= 255, "four must fit a byte");

template <bool kOfBytes>
constexpr int64_t kUnitBytes = kOfBytes ? 64 : 128;  // of 16 codes
inline int64_t padded_bytes(int64_t W) { return (W + 7) / 8 * 8; }
inline int64_t whole_blocks(int64_t n) { return (n + kNibbleBlock - 1) / kNibbleBlock * kNibbleBlock; }

// A group of 16 rows to a panel, in plain C++.
template <bool kOfBytes>
inline void pack_group(const uint8_t* const* rows, int64_t W, uint8_t* group) {
    for (int64_t byte = 0; byte < padded_bytes(W); ++byte) {
        uint8_t* to = group + byte / 4 * kUnitBytes<kOfBytes> + byte % 4 * 16;
        for (int64_t c = 0; c < kGroupCodes; ++c) {
            const uint8_t bits = byte < W ? rows[c][byte] : 0;
            to[c] = kOfBytes ? bits : bits >> 4;
            if constexpr (!kOfBytes) to[c + 64] = bits & 15;
        }
    }
}

// Rows in groups of 16 to P::rows<kOfBytes>(rows, W, group), or, where they lie side by side and P::has(W), to
// P::dense<kOfBytes>(codes, W, group). P::kPiece: so many
// bytes of a row are read at once. Behind the last row it is taken again: what becomes of it is ignored.
template <class P, bool kOfBytes>
void pack_groups(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W,
                 uint8_t* panel) {
    constexpr int64_t kAhead = 2048;  // bytes: the processor would stop to fetch while a panel is scanned
    const bool near = positions == nullptr && stride < W + 64, dense = near && stride == W && P::has(W);
    const int64_t group_bytes = padded_bytes(W) / 4 * kUnitBytes<kOfBytes>;
    for (int64_t i = 0; i < whole_blocks(n); i += kGroupCodes, panel += group_bytes) {
        if (near)
            for (int64_t byte = 0; byte < kGroupCodes * stride; byte += 64)
                __builtin_prefetch(database + i * stride + kAhead + byte);
        if (dense && i + kGroupCodes <= n) {
            P::template dense<kOfBytes>(database + i * W, W, panel);
            continue;
        }
        const uint8_t* rows[kGroupCodes];
        for (int64_t c = 0; c < kGroupCodes; ++c) {
            const int64_t row = i + c < n ? i + c : n - 1;
            rows[c] = database + (positions != nullptr ? int64_t{positions[row]} : row) * stride;
        }
        P::template rows<kOfBytes>(rows, W, panel);
    }
}

// What is left of rows from a byte on, in plain C++.
template <bool kOfBytes>
inline void pack_rest(const uint8_t* const* rows, int64_t byte, int64_t W, uint8_t* group) {
    if (byte == W) return;
    const uint8_t* rest[kGroupCodes];
    for (int64_t c = 0; c < kGroupCodes; ++c) rest[c] = rows[c] + byte;
    pack_group<kOfBytes>(rest, W - byte, group);
}

// Packers that have no way of their own for codes side by side.
struct RowPacker {
    static bool has(int64_t) { return false; }
    template <bool kOfBytes>
    static void dense(const uint8_t*, int64_t, uint8_t*) {}
};

struct PlainPacker : RowPacker {
    static constexpr int64_t kPiece = 1;
    template <bool kOfBytes>
    static void rows(const uint8_t* const* rows, int64_t W, uint8_t* group) {
        pack_group<kOfBytes>(rows, W, group);
    }
};

// 16 bytes of 16 codes, a register each, to one byte of all codes a register, in each 16 bytes of wider registers: four
// rounds of interleaving the first half of the registers with the second. Z: zip_low(a, b), zip_high(a, b).
template <class Z, class Vec>
inline void transpose_bytes(Vec* v) {
    Vec w[16];
#pragma GCC unroll 2
    for (int round = 0; round < 2; ++round) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            w[2 * i] = Z::zip_low(v[i], v[i + 8]);
            w[2 * i + 1] = Z::zip_high(v[i], v[i + 8]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) {
            v[2 * i] = Z::zip_low(w[i], w[i + 8]);
            v[2 * i + 1] = Z::zip_high(w[i], w[i + 8]);
        }
    }
}

// Register i of the nibbles of a unit.
template <class L, bool kOfBytes>
inline __attribute__((always_inline)) typename L::Vec load_nibbles(const uint8_t* unit, int i) {
    constexpr int kBytes = L::kLanes * 16, kHalf = 4 / L::kLanes;
    if constexpr (kOfBytes) {
        const typename L::Vec bytes = L::load(unit + i % kHalf * kBytes);
        return i < kHalf ? L::high4(bytes) : L::low4(bytes);
    } else {
        return L::load(unit + i * kBytes);
    }
}

inline __attribute__((always_inline)) void fetch_ahead(const uint8_t* unit, int64_t ahead) {
    __builtin_prefetch(
        reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(unit) + static_cast<uintptr_t>(ahead)));
}

// The sums of the 64 codes of a block, by look-ups in lanes of 16 bytes.
template <class L, bool kOfBytes>
inline __attribute__((always_inline)) typename L::Sums lane_sums(const uint8_t* tables, const uint8_t* block,
                                                                 int64_t bytes, int64_t ahead) {
    using Vec = typename L::Vec;
    constexpr int kBytes = L::kLanes * 16, kOfUnit = 8 / L::kLanes;  // registers
    constexpr int kUnits = kOfUnit < kFlush ? kFlush / kOfUnit : 1, kFlushes = kUnits * kOfUnit / kFlush;
    const int64_t units = bytes / 4;
    // A sum of bytes is that of an even code in its lower half, and of an odd one in its upper half: whole, and shifted
    // down. The odd codes' share of `even` is taken out at the end.
    Vec even[kGroups], odd[kGroups];
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) even[g] = odd[g] = L::zero();
    for (int64_t unit = 0; unit < units; unit += kUnits, tables += kUnits * 128) {
#pragma GCC unroll 2
        for (int flush = 0; flush < kFlushes; ++flush) {
            Vec table[kFlush];
#pragma GCC unroll 4
            for (int i = 0; i < kFlush; ++i) table[i] = L::load(tables + (flush * kFlush + i) * kBytes);
#pragma GCC unroll 4
            for (int g = 0; g < kGroups; ++g) {
                const uint8_t* own = block + (g * units + unit) * kUnitBytes<kOfBytes>;
                if (kOfBytes && flush == 0) fetch_ahead(own, ahead);
                Vec sum;
#pragma GCC unroll 4
                for (int i = 0; i < kFlush; ++i) {
                    const int at = flush * kFlush + i;
                    const Vec nibbles =
                        load_nibbles<L, kOfBytes>(own + at / kOfUnit * kUnitBytes<kOfBytes>, at % kOfUnit);
                    const Vec found = L::look_up(table[i], nibbles);
                    sum = i == 0 ? found : L::add8(sum, found);
                }
                even[g] = L::add16(even[g], sum);
                odd[g] = L::add16(odd[g], L::high8(sum));
            }
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g) even[g] = L::without_high(even[g], odd[g]);
    return L::sums(even, odd);
}

template <class L>
struct LaneSums {
    static constexpr int32_t kMost = kFlushMost, kMostSum = kFlushSum;
    using Sum = uint16_t;
    template <bool kOfBytes>
    static inline __attribute__((always_inline)) auto block_sums(const uint8_t* tables, const uint8_t* block,
                                                                 int64_t bytes, int64_t ahead) {
        return lane_sums<L, kOfBytes>(tables, block, bytes, ahead);
    }
};

// For each block of a panel, from the block of r.code on: above the largest integer sum with which a code of any of the
// block's scales can pass; `every`: all pass. All blocks at once, since divisions take long one after the other.
inline void block_limits(const NibbleScan& r, int32_t every, uint32_t* limits) {
    const int64_t blocks = (r.n + kNibbleBlock - 1) / kNibbleBlock;
    const bool negative = r.most < 0;
    const float size = r.base < 0 ? -r.base : r.base;
    for (int64_t b = r.code / kNibbleBlock; b < blocks; ++b) {
        const float low = r.lows[b], high = r.highs[b], divisor = negative ? high : low;
        const float product = r.most / (divisor > 0 ? divisor : 1.0f), square = r.square * low;
        const float all = (product < 0 ? -product : product) + size + square;
        const float sum = ((product - r.base - square) + 0x1p-20f * all) / r.step + 2;
        // A code of scale 0 is at 0. Not a number, where a limit is beyond all floats: all pass.
        const bool none = negative && high == 0, any = (!negative && low == 0) || !(sum < static_cast<float>(every));
        const float within = any ? 0.0f : sum > 0 ? sum : 0.0f;
        limits[b] = static_cast<uint32_t>(none ? 0 : any ? every : static_cast<int32_t>(within));
    }
}

// Halves that are subnormal are a whole number of 2^-24; others have 10 bits of fraction, and an exponent that is 112
// less. No float on the way is subnormal: processors may take those for 0.
inline float scale_of(uint32_t half) {
    const float subnormal = static_cast<float>(static_cast<int32_t>(half)) * 0x1p-24f;
    uint32_t bits;
    __builtin_memcpy(&bits, &subnormal, sizeof(bits));
    const uint32_t is_normal = half < 0x400 ? 0 : ~uint32_t{0};  // without a branch: compilers make vectors of this
    bits = (bits & ~is_normal) | (((half << 13) + (uint32_t{112} << 23)) & is_normal);
    float scale;
    __builtin_memcpy(&scale, &bits, sizeof(scale));
    return scale;
}

// A bit for each code of a block that the float bound does not rule out. Few blocks come here.
template <class Sum>
inline uint64_t scaled_passes(const NibbleScan& r, const Sum* sums, const uint16_t* scales) {
    int32_t passes[kNibbleBlock], any = 0;
    for (int64_t c = 0; c < kNibbleBlock; ++c) {
        const float s = scale_of(scales[c]);
        const float bound = s * ((r.base + r.step * static_cast<float>(static_cast<int32_t>(sums[c]))) + r.square * s);
        passes[c] = bound <= r.most ? 1 : 0;
        any |= passes[c];
    }
    if (any == 0) return 0;
    uint64_t found = 0;
    for (int64_t c = 0; c < kNibbleBlock; ++c) found |= static_cast<uint64_t>(passes[c]) << c;
    return found;
}

template <class L, bool kOfBytes, bool kScaled>
bool scan_nibbles(NibbleScan* request) {
    NibbleScan& r = *request;
    const int64_t block_bytes = r.bytes / 4 * kUnitBytes<kOfBytes> * kGroups;
    const uint8_t* block = r.panel + r.code / kNibbleBlock * block_bytes;
    uint32_t limits[kScaled ? kPanelBlocks : 1];
    if constexpr (kScaled) block_limits(r, L::kMostSum + 1, limits);
    for (r.hit_count = 0; r.code < r.n; r.code += kNibbleBlock, block += block_bytes) {
        if (r.hit_count > kNibbleHits - kNibbleBlock) return true;
        const typename L::Sums sums = L::template block_sums<kOfBytes>(r.tables, block, r.bytes, r.ahead);
        const uint32_t limit = kScaled ? limits[r.code / kNibbleBlock] : r.limit;
        if (!L::any_below(sums, limit)) continue;
        uint64_t found;
        if constexpr (kScaled) {
            typename L::Sum stored[kNibbleBlock];
            L::store(sums, stored);
            found = scaled_passes(r, stored, r.scales + r.code);
        } else {
            found = L::below(sums, limit);
        }
        if (r.n - r.code < kNibbleBlock) found &= (uint64_t{1} << (r.n - r.code)) - 1;
        for (; found != 0; found &= found - 1)
            r.hits[r.hit_count++] = static_cast<uint32_t>(r.code + __builtin_ctzll(found));
    }
    return false;
}

template <class L>
bool scan_any(NibbleScan* request) {
    const bool scaled = request->scales != nullptr;
    if (request->of_bytes) return scaled ? scan_nibbles<L, true, true>(request) : scan_nibbles<L, true, false>(request);
    return scaled ? scan_nibbles<L, false, true>(request) : scan_nibbles<L, false, false>(request);
}

// Copies, and the least and the greatest of each block as floats; halves that are >= 0 are in the order of their bits.
inline void gather_scales(const uint16_t* halves, const uint32_t* positions, int64_t n, uint16_t* scales, float* lows,
                          float* highs) {
    for (int64_t block = 0; block < n; block += kNibbleBlock) {
        uint16_t own[kNibbleBlock], low = UINT16_MAX, high = 0;
        if (positions == nullptr && block + kNibbleBlock <= n) {
            __builtin_memcpy(own, halves + block, sizeof(own));
            __builtin_prefetch(halves + block + n);  // of the next panel
            __builtin_prefetch(halves + block + n + kNibbleBlock / 2);
        } else {
            for (int64_t c = 0; c < kNibbleBlock; ++c) {
                const int64_t i = block + c < n ? block + c : n - 1;
                own[c] = halves[positions != nullptr ? int64_t{positions[i]} : i];
            }
        }
        for (int64_t c = 0; c < kNibbleBlock; ++c) low = own[c] < low ? own[c] : low;
        for (int64_t c = 0; c < kNibbleBlock; ++c) high = own[c] > high ? own[c] : high;
        __builtin_memcpy(scales + block, own, sizeof(own));
        *lows++ = scale_of(low);
        *highs++ = scale_of(high);
    }
}

template <class L, class P>
constexpr NibbleTable make_nibble_table() {
    return {L::kMost, L::kMostSum, {pack_groups<P, false>, pack_groups<P, true>}, scan_any<L>, gather_scales};
}

}  // namespace
}  // namespace fasthash
