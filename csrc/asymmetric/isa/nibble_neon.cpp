// The filter of the asymmetric search for NEON: 16 nibbles a look-up (tbl).
#if defined(__aarch64__)

#include <arm_neon.h>

#include "asymmetric/isa/nibble.h"

namespace fasthash {
namespace {

struct NeonNibbles : LaneSums<NeonNibbles> {
    using Vec = uint8x16_t;
    static constexpr int kLanes = 1;
    struct Sums {
        uint16x8_t even[kGroups], odd[kGroups];
    };
    static Vec load(const uint8_t* p) { return vld1q_u8(p); }
    static Vec zero() { return vdupq_n_u8(0); }
    static Vec high4(Vec a) { return vshrq_n_u8(a, 4); }
    static Vec low4(Vec a) { return vandq_u8(a, vdupq_n_u8(15)); }
    static Vec look_up(Vec table, Vec nibbles) { return vqtbl1q_u8(table, nibbles); }
    static Vec add8(Vec a, Vec b) { return vaddq_u8(a, b); }
    static uint16x8_t wide(Vec a) { return vreinterpretq_u16_u8(a); }
    static Vec bytes(uint16x8_t a) { return vreinterpretq_u8_u16(a); }
    static Vec add16(Vec a, Vec b) { return bytes(vaddq_u16(wide(a), wide(b))); }
    static Vec high8(Vec a) { return bytes(vshrq_n_u16(wide(a), 8)); }
    static Vec without_high(Vec all, Vec high) { return bytes(vsubq_u16(wide(all), vshlq_n_u16(wide(high), 8))); }
    static Sums sums(const Vec* even, const Vec* odd) {
        Sums s;
        for (int g = 0; g < kGroups; ++g) s.even[g] = wide(even[g]), s.odd[g] = wide(odd[g]);
        return s;
    }
    static bool any_below(const Sums& s, uint32_t limit) {
        uint16x8_t least = vminq_u16(s.even[0], s.odd[0]);
        for (int g = 1; g < kGroups; ++g) least = vminq_u16(least, vminq_u16(s.even[g], s.odd[g]));
        return vminvq_u16(least) < limit;
    }
    static uint64_t below(const Sums& s, uint32_t limit) {
        const uint16x8_t l = vdupq_n_u16(static_cast<uint16_t>(limit));
        const uint16x8_t places = {1, 4, 16, 64, 256, 1024, 4096, 16384};
        uint64_t found = 0;
        for (int g = 0; g < kGroups; ++g) {
            const uint32_t even = vaddvq_u16(vandq_u16(vcltq_u16(s.even[g], l), places));
            const uint32_t odd = vaddvq_u16(vandq_u16(vcltq_u16(s.odd[g], l), places));
            found |= static_cast<uint64_t>(even | odd << 1) << (16 * g);
        }
        return found;
    }
    static void store(const Sums& s, uint16_t* out) {
        for (int g = 0; g < kGroups; ++g) vst2q_u16(out + 16 * g, uint16x8x2_t{{s.even[g], s.odd[g]}});
    }
};

struct NeonZips {
    static uint8x16_t zip_low(uint8x16_t a, uint8x16_t b) { return vzip1q_u8(a, b); }
    static uint8x16_t zip_high(uint8x16_t a, uint8x16_t b) { return vzip2q_u8(a, b); }
};

struct NeonPacker : RowPacker {
    static constexpr int64_t kPiece = 16;
    template <bool kOfBytes>
    static void rows(const uint8_t* const* rows, int64_t W, uint8_t* group) {
        int64_t byte = 0;
        for (int bytes; (bytes = W - byte >= 16 ? 16 : W - byte >= 8 ? 8 : 0) > 0;) {
            uint8x16_t v[16];
            for (int c = 0; c < 16; ++c)
                v[c] = bytes == 16 ? vld1q_u8(rows[c] + byte) : vcombine_u8(vld1_u8(rows[c] + byte), vdup_n_u8(0));
            transpose_bytes<NeonZips>(v);
            for (int p = 0; p < bytes; ++p) {
                uint8_t* to = group + p / 4 * kUnitBytes<kOfBytes> + p % 4 * 16;
                vst1q_u8(to, kOfBytes ? v[p] : NeonNibbles::high4(v[p]));
                if constexpr (!kOfBytes) vst1q_u8(to + 64, NeonNibbles::low4(v[p]));
            }
            byte += bytes;
            group += bytes / 4 * kUnitBytes<kOfBytes>;
        }
        pack_rest<kOfBytes>(rows, byte, W, group);
    }
};

}  // namespace

const NibbleTable kNibbleNeon = make_nibble_table<NeonNibbles, NeonPacker>();

}  // namespace fasthash

#endif
