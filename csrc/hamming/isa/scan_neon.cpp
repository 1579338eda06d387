// The Hamming scan for NEON: vcnt counts the bits of bytes, byte counts are added over the words of a code and widened
// to the lane once.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "hamming/isa/scan.h"

namespace fasthash {
namespace {

struct NeonLanes {
    static constexpr bool kWeighted = false, kShared = false;
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

// Bits of bytes times their weights, added in pairs to 16 bits; pairs are added once.
struct NeonWeighted : NeonLanes32 {
    static constexpr bool kWeighted = true;
    static constexpr int64_t kFlush = 16;  // words: a pair grows by at most 2 x 8 x 255 for each, and holds 65,535
    static Vec weigh(Vec acc, Vec x, Vec weights) {
        const uint16x8_t sums = vreinterpretq_u16_u8(weigh_counts(vcntq_u8(x), weights));
        return vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(acc), sums));
    }
    static Vec weigh_counts(Vec bits, Vec weights) {
        const uint16x8_t low = vmull_u8(vget_low_u8(bits), vget_low_u8(weights)), high = vmull_high_u8(bits, weights);
        return vreinterpretq_u8_u16(vpaddq_u16(low, high));
    }
    static Vec finish(Vec acc) { return vreinterpretq_u8_u32(vpaddlq_u16(vreinterpretq_u16_u8(acc))); }
};

struct NeonShared : NeonLanes32 {
    static constexpr bool kWeighted = true, kShared = true;
    static constexpr int64_t kFlush = kSharedWords;
    static Vec finish(Vec acc, Vec weights) { return NeonWeighted::finish(NeonWeighted::weigh_counts(acc, weights)); }
};

}  // namespace

const ScanTable kScanNeon = make_table<NeonLanes32, NeonLanes64, NeonWeighted, NeonShared>(pack_any, pack_weighted);

}  // namespace fasthash

#endif
