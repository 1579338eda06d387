// The Hamming scan for NEON: vcnt counts the bits of bytes, byte counts are added over the words of a code and widened
// to the lane once.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "hamming/isa/planes.h"

namespace fasthash {
namespace {

struct NeonLanes {
    using Vec = uint8x16_t;
    static constexpr int64_t kFlush = 31;  // words: a byte's count grows by at most 8 for each, and holds 255

    static Vec zero() { return vdupq_n_u8(0); }
    static void pin(Vec& d) { __asm__("" : "+w"(d)); }
    static Vec bit_xor(Vec a, Vec b) { return veorq_u8(a, b); }
    static Vec count(Vec acc, Vec x) { return vaddq_u8(acc, vcntq_u8(x)); }
    static uint32x4_t words(Vec a) { return vreinterpretq_u32_u8(a); }
    // The upper halves of 64-bit lanes are 0 on both sides: 32-bit operations do for both.
    static Vec min(Vec a, Vec b) { return vreinterpretq_u8_u32(vminq_u32(words(a), words(b))); }
    static bool any_below(Vec d, Vec limit) { return vmaxvq_u32(vcltq_u32(words(d), words(limit))) != 0; }
    static int64_t count_bits(uint64_t x) { return __builtin_popcountll(x); }
    static uint64_t mask_word(const uint8_t* booleans) { return word_of_booleans(booleans); }
};

struct NeonLanes64 : NeonLanes {
    using Word = uint64_t;
    static constexpr int kLanes = 2, kCheck = 16, kScalarOf8 = 0;
    static Vec load(const Word* p) { return vld1q_u8(reinterpret_cast<const uint8_t*>(p)); }
    static Vec broadcast(Word word) { return vreinterpretq_u8_u64(vdupq_n_u64(word)); }
    static Vec add(Vec a, Vec b) {
        return vreinterpretq_u8_u64(vaddq_u64(vreinterpretq_u64_u8(a), vreinterpretq_u64_u8(b)));
    }
    static Vec finish(Vec acc) { return vreinterpretq_u8_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(acc)))); }
    static Vec limit(uint32_t d) { return broadcast(d); }
    static uint64_t below(Vec d, Vec limit) {
        const uint64x2_t found = vcltq_u64(vreinterpretq_u64_u8(d), vreinterpretq_u64_u8(limit));
        return vaddvq_u64(vandq_u64(found, uint64x2_t{1, 2}));
    }
    static void store(Vec d, int32_t* out) {
        vst1_u32(reinterpret_cast<uint32_t*>(out), vmovn_u64(vreinterpretq_u64_u8(d)));
    }
};

struct NeonLanes32 : NeonLanes {
    using Word = uint32_t;
    static constexpr int kLanes = 4, kCheck = 32, kScalarOf8 = 0;
    static Vec load(const Word* p) { return vld1q_u8(reinterpret_cast<const uint8_t*>(p)); }
    static Vec broadcast(Word word) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); }
    static Vec add(Vec a, Vec b) { return vreinterpretq_u8_u32(vaddq_u32(words(a), words(b))); }
    static Vec finish(Vec acc) { return vreinterpretq_u8_u32(vpaddlq_u16(vpaddlq_u8(acc))); }
    static Vec limit(uint32_t d) { return broadcast(d); }
    static uint64_t below(Vec d, Vec limit) {
        return vaddvq_u32(vandq_u32(vcltq_u32(words(d), words(limit)), uint32x4_t{1, 2, 4, 8}));
    }
    static void store(Vec d, int32_t* out) { vst1q_u32(reinterpret_cast<uint32_t*>(out), words(d)); }
};

struct NeonBytes {
    using Vec = uint8x16_t;
    struct Sums {
        uint16x8_t low, high;
    };
    struct WideSums {
        uint32x4_t d[4];
    };
    static constexpr int kLanes = 16, kCheck = 64;
    static Vec load(const uint8_t* p) { return vld1q_u8(p); }
    static Vec broadcast(uint32_t word) { return vreinterpretq_u8_u32(vdupq_n_u32(word)); }
    static Vec bit_xor(Vec a, Vec b) { return veorq_u8(a, b); }
    static Vec add(Vec a, Vec b) { return vaddq_u8(a, b); }
    static Vec count(Vec x) { return vcntq_u8(x); }
    static void zero(Sums& sums) { sums.low = sums.high = vdupq_n_u16(0); }
    static void zero(WideSums& sums) { sums.d[0] = sums.d[1] = sums.d[2] = sums.d[3] = vdupq_n_u32(0); }
    static void weigh(Sums& sums, Vec a, Vec b, uint32_t weights) {
        const uint8x8_t first = vdup_n_u8(weights & 255), second = vdup_n_u8(weights >> 8 & 255);
        sums.low = vmlal_u8(vmlal_u8(sums.low, vget_low_u8(a), first), vget_low_u8(b), second);
        sums.high = vmlal_u8(vmlal_u8(sums.high, vget_high_u8(a), first), vget_high_u8(b), second);
    }
    static void widen(WideSums& wide, const Sums& sums) {
        wide.d[0] = vaddw_u16(wide.d[0], vget_low_u16(sums.low));
        wide.d[1] = vaddw_u16(wide.d[1], vget_high_u16(sums.low));
        wide.d[2] = vaddw_u16(wide.d[2], vget_low_u16(sums.high));
        wide.d[3] = vaddw_u16(wide.d[3], vget_high_u16(sums.high));
    }
    static Sums min(const Sums& a, const Sums& b) { return {vminq_u16(a.low, b.low), vminq_u16(a.high, b.high)}; }
    static WideSums min(const WideSums& a, const WideSums& b) {
        return {{vminq_u32(a.d[0], b.d[0]), vminq_u32(a.d[1], b.d[1]), vminq_u32(a.d[2], b.d[2]),
                 vminq_u32(a.d[3], b.d[3])}};
    }
    static bool any_below(const Sums& sums, int32_t limit) {
        return vminvq_u16(vminq_u16(sums.low, sums.high)) < limit;
    }
    static bool any_below(const WideSums& sums, int32_t limit) {
        const uint32x4_t nearest = vminq_u32(vminq_u32(sums.d[0], sums.d[1]), vminq_u32(sums.d[2], sums.d[3]));
        return vminvq_u32(nearest) < static_cast<uint32_t>(limit);
    }
    static void store(const Sums& sums, int32_t* out) {
        WideSums wide;
        zero(wide);
        widen(wide, sums);
        store(wide, out);
    }
    static void store(const WideSums& sums, int32_t* out) {
        for (int i = 0; i < 4; ++i) vst1q_u32(reinterpret_cast<uint32_t*>(out) + 4 * i, sums.d[i]);
    }
    static void transpose(const uint64_t* words, uint8_t* planes) { transpose_any(words, planes); }
};

}  // namespace

const ScanTable kScanNeon = make_table<NeonLanes32, NeonLanes64>(pack_any, make_plane_table<NeonBytes>());

}  // namespace fasthash

#endif
