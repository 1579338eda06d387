// The filter of the asymmetric search for AVX-512: 64 nibbles a look-up (vpshufb), four of each of 16 codes.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header starts undefined registers with themselves and is then warned about (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "asymmetric/isa/nibble.h"

namespace fasthash {
namespace {

// A register holds 4 bytes of 16 codes: a unit of a group. Four tables of 16 bytes make one of 64 for vpermb: a nibble
// of the unit's byte j looks up 16 j + nibble, and what is found for a code's four bytes is added up by vpdpbusd. So a
// panel is [ceil(n / 64)][4][W' / 4][high, low][16][4] such indices, or [ceil(n / 64)][4][W' / 4][16][4] bytes. The
// code 4 i + j of a group is at 4 j + i, which is how rows come out of four registers of 4 x 16 bytes each.
inline __m512i at_byte() { return _mm512_set1_epi32(0x30201000); }
// What is 1 in `mask` is of a, the rest of b.
inline __m512i blend(__m512i mask, __m512i a, __m512i b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }
inline __m512i high_index(__m512i bytes) { return blend(_mm512_set1_epi8(15), _mm512_srli_epi16(bytes, 4), at_byte()); }
inline __m512i low_index(__m512i bytes) { return blend(_mm512_set1_epi8(15), bytes, at_byte()); }

struct Avx512Nibbles {
    static constexpr int32_t kMost = 255, kMostSum = (1 << 24) - 1;
    using Sum = uint32_t;
    struct Sums {
        __m512i of[kGroups];  // 16 codes each, in the panel's order
    };

    // Of a unit of a group: two look-ups, and two sums.
    template <bool kOfBytes>
    static inline __attribute__((always_inline)) void add_unit(const uint8_t* unit, __m512i high_table,
                                                               __m512i low_table, __m512i& high, __m512i& low) {
        const __m512i first = _mm512_loadu_si512(unit), ones = _mm512_set1_epi8(1);
        const __m512i at_high = kOfBytes ? high_index(first) : first;
        const __m512i at_low = kOfBytes ? low_index(first) : _mm512_loadu_si512(unit + 64);
        high = _mm512_dpbusd_epi32(high, _mm512_permutexvar_epi8(at_high, high_table), ones);
        low = _mm512_dpbusd_epi32(low, _mm512_permutexvar_epi8(at_low, low_table), ones);
    }

    // Eight sums at a time, since one addition takes several cycles.
    template <bool kOfBytes>
    static inline __attribute__((always_inline)) Sums block_sums(const uint8_t* tables, const uint8_t* block,
                                                                 int64_t bytes, int64_t ahead) {
        const int64_t group = bytes / 4 * kUnitBytes<kOfBytes>;
        __m512i high[kGroups], low[kGroups];
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) high[g] = low[g] = _mm512_setzero_si512();
        for (const uint8_t* end = tables + 32 * bytes; tables < end; tables += 128, block += kUnitBytes<kOfBytes>) {
            const __m512i high_table = _mm512_loadu_si512(tables), low_table = _mm512_loadu_si512(tables + 64);
#pragma GCC unroll 4
            for (int g = 0; g < kGroups; ++g) {
                if (kOfBytes) fetch_ahead(block + g * group, ahead);
                add_unit<kOfBytes>(block + g * group, high_table, low_table, high[g], low[g]);
            }
        }
        Sums sums;
#pragma GCC unroll 4
        for (int g = 0; g < kGroups; ++g) sums.of[g] = _mm512_add_epi32(high[g], low[g]);
        return sums;
    }

    static bool any_below(const Sums& s, uint32_t limit) {
        const __m512i least = _mm512_min_epu32(_mm512_min_epu32(s.of[0], s.of[1]), _mm512_min_epu32(s.of[2], s.of[3]));
        return _mm512_cmplt_epu32_mask(least, _mm512_set1_epi32(static_cast<int>(limit))) != 0;
    }
    // Group g in the order of the codes: the places of a 4 x 4 matrix become those of its transpose.
    static __m512i in_order(const Sums& s, int g) {
        const __m512i from = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        return _mm512_permutexvar_epi32(from, s.of[g]);
    }
    static uint64_t below(const Sums& s, uint32_t limit) {
        uint64_t found = 0;
        for (int g = 0; g < kGroups; ++g) {
            const __mmask16 own = _mm512_cmplt_epu32_mask(in_order(s, g), _mm512_set1_epi32(static_cast<int>(limit)));
            found |= static_cast<uint64_t>(own) << (16 * g);
        }
        return found;
    }
    static void store(const Sums& s, uint32_t* out) {
        for (int g = 0; g < kGroups; ++g) _mm512_storeu_si512(out + 16 * g, in_order(s, g));
    }
};

template <bool kOfBytes>
inline void store_unit(__m512i bytes, uint8_t* unit) {
    _mm512_storeu_si512(unit, kOfBytes ? bytes : high_index(bytes));
    if constexpr (!kOfBytes) _mm512_storeu_si512(unit + 64, low_index(bytes));
}

// Four registers of four codes' 16 bytes each to units: one position of all codes a register.
template <bool kOfBytes>
inline void store_units(const __m512i* v, uint8_t* group, int units) {
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    const __m512i out[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
                            _mm512_unpackhi_epi64(b, d)};
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
        if (j < units) store_unit<kOfBytes>(out[j], group + j * kUnitBytes<kOfBytes>);
}

struct Avx512Packer {
    static constexpr int64_t kPiece = 64;
    static bool has(int64_t W) { return W == 8 || W == 16 || W == 32; }

    template <bool kOfBytes>
    static void dense(const uint8_t* codes, int64_t W, uint8_t* group) {
        __m512i v[4];
        const auto line = [&](int64_t i) { return _mm512_loadu_si512(codes + 64 * i); };
        if (W == 8) {  // the first four bytes of 16 codes, then the last four
            const __m512i first = _mm512_setr_epi32(0, 8, 16, 24, 2, 10, 18, 26, 4, 12, 20, 28, 6, 14, 22, 30);
            const __m512i last = _mm512_add_epi32(first, _mm512_set1_epi32(1));
            store_unit<kOfBytes>(_mm512_permutex2var_epi32(line(0), first, line(1)), group);
            store_unit<kOfBytes>(_mm512_permutex2var_epi32(line(0), last, line(1)), group + kUnitBytes<kOfBytes>);
        } else if (W == 16) {
            for (int i = 0; i < 4; ++i) v[i] = line(i);
            store_units<kOfBytes>(v, group, 4);
        } else {
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) v[i] = _mm512_shuffle_i64x2(line(2 * i), line(2 * i + 1), 0x88);
            store_units<kOfBytes>(v, group, 4);
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) v[i] = _mm512_shuffle_i64x2(line(2 * i), line(2 * i + 1), 0xdd);
            store_units<kOfBytes>(v, group + 4 * kUnitBytes<kOfBytes>, 4);
        }
    }

    template <bool kOfBytes>
    static void rows(const uint8_t* const* rows, int64_t W, uint8_t* group) {
        int64_t byte = 0;
        for (; byte + 64 <= W; byte += 64, group += 16 * kUnitBytes<kOfBytes>) {
            __m512i v[4][4];  // the i-th 16 bytes of four codes each
#pragma GCC unroll 4
            for (int c = 0; c < 4; ++c) {
                const auto row = [&](int i) { return _mm512_loadu_si512(rows[4 * c + i] + byte); };
                const __m512i a = row(0), b = row(1), d = row(2), e = row(3);
                const __m512i ab = _mm512_shuffle_i64x2(a, b, 0x44), de = _mm512_shuffle_i64x2(d, e, 0x44);
                const __m512i AB = _mm512_shuffle_i64x2(a, b, 0xee), DE = _mm512_shuffle_i64x2(d, e, 0xee);
                v[0][c] = _mm512_shuffle_i64x2(ab, de, 0x88);
                v[1][c] = _mm512_shuffle_i64x2(ab, de, 0xdd);
                v[2][c] = _mm512_shuffle_i64x2(AB, DE, 0x88);
                v[3][c] = _mm512_shuffle_i64x2(AB, DE, 0xdd);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) store_units<kOfBytes>(v[i], group + i * 4 * kUnitBytes<kOfBytes>, 4);
        }
        for (; byte + 16 <= W; byte += 16, group += 4 * kUnitBytes<kOfBytes>) {
            const auto row = [&](int c) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[c] + byte)); };
            store_sixteen<kOfBytes>(row, group, 4);
        }
        if (byte == W) return;
        const __mmask16 present = static_cast<__mmask16>((1 << (W - byte)) - 1);
        const auto row = [&](int c) { return _mm_maskz_loadu_epi8(present, rows[c] + byte); };
        store_sixteen<kOfBytes>(row, group, W - byte > 8 ? 4 : 2);
    }

  private:
    template <bool kOfBytes, class Row>
    static void store_sixteen(const Row& row, uint8_t* group, int units) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm512_castsi128_si512(row(4 * i));
            v[i] = _mm512_inserti64x2(v[i], row(4 * i + 1), 1);
            v[i] = _mm512_inserti64x2(v[i], row(4 * i + 2), 2);
            v[i] = _mm512_inserti64x2(v[i], row(4 * i + 3), 3);
        }
        store_units<kOfBytes>(v, group, units);
    }
};

}  // namespace

const NibbleTable kNibbleAvx512 = make_nibble_table<Avx512Nibbles, Avx512Packer>();

}  // namespace fasthash

#endif
