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

struct Avx512Nibbles {
    using Vec = __m512i;
    static constexpr int kLanes = 4;
    struct Sums {
        Vec even, odd;  // codes 16 g + 2 i (+ 1) at 8 g + i
    };
    static Vec load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static Vec zero() { return _mm512_setzero_si512(); }
    static Vec high4(Vec a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
    static Vec low4(Vec a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
    static Vec look_up(Vec table, Vec nibbles) { return _mm512_shuffle_epi8(table, nibbles); }
    static Vec add8(Vec a, Vec b) { return _mm512_add_epi8(a, b); }
    static Vec add16(Vec a, Vec b) { return _mm512_add_epi16(a, b); }
    static Vec high8(Vec a) { return _mm512_srli_epi16(a, 8); }
    static Vec without_high(Vec all, Vec high) { return _mm512_sub_epi16(all, _mm512_slli_epi16(high, 8)); }
    // The four lanes of each register added; the sums of register g become lane g.
    static Vec lanes_added(const Vec* v) {
        const auto pair = [](Vec a, Vec b) {
            return add16(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
        };
        const Vec a = pair(v[0], v[1]), b = pair(v[2], v[3]);
        return add16(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
    }
    static Sums sums(const Vec* even, const Vec* odd) { return {lanes_added(even), lanes_added(odd)}; }
    static bool any_below(const Sums& s, uint32_t limit) {
        const Vec l = _mm512_set1_epi16(static_cast<short>(limit));
        return _mm512_cmplt_epu16_mask(_mm512_min_epu16(s.even, s.odd), l) != 0;
    }
    static uint64_t below(const Sums& s, uint32_t limit) {
        const Vec l = _mm512_set1_epi16(static_cast<short>(limit));
        return _pdep_u64(_mm512_cmplt_epu16_mask(s.even, l), 0x5555555555555555u) |
               _pdep_u64(_mm512_cmplt_epu16_mask(s.odd, l), 0xaaaaaaaaaaaaaaaau);
    }
    static void store(const Sums& s, uint16_t* out) {
        const Vec first = _mm512_unpacklo_epi16(s.even, s.odd), last = _mm512_unpackhi_epi16(s.even, s.odd);
        const Vec a = _mm512_shuffle_i64x2(first, last, 0x44), b = _mm512_shuffle_i64x2(first, last, 0xee);
        _mm512_storeu_si512(out, _mm512_shuffle_i64x2(a, a, 0xd8));
        _mm512_storeu_si512(out + 32, _mm512_shuffle_i64x2(b, b, 0xd8));
    }
};

// Which byte of 16 goes to each place of a lane: lane l has the bytes l, 4 + l, 8 + l and 12 + l of four codes side by
// side, which are 16 or 32 bytes apart. And of 16 codes of 8 bytes: lane l has byte l of all of them.
#define FH_FOUR(byte, apart) byte, byte + apart, byte + 2 * apart, byte + 3 * apart
#define FH_LANE(l, apart) FH_FOUR(l, apart), FH_FOUR(l + 4, apart), FH_FOUR(l + 8, apart), FH_FOUR(l + 12, apart)
#define FH_SIXTEEN(l) FH_FOUR(l, 8), FH_FOUR(l + 32, 8), FH_FOUR(l + 64, 8), FH_FOUR(l + 96, 8)
alignas(64) constexpr uint8_t kApart16[64] = {FH_LANE(0, 16), FH_LANE(1, 16), FH_LANE(2, 16), FH_LANE(3, 16)};
alignas(64) constexpr uint8_t kApart32[64] = {FH_LANE(0, 32), FH_LANE(1, 32), FH_LANE(2, 32), FH_LANE(3, 32)};
alignas(64) constexpr uint8_t kApart8[64] = {FH_SIXTEEN(0), FH_SIXTEEN(1), FH_SIXTEEN(2), FH_SIXTEEN(3)};
#undef FH_SIXTEEN
#undef FH_LANE
#undef FH_FOUR

// Four such registers, of 16 codes, to one position of all codes a lane: byte 4 j + l is lane l of register j.
inline void gather_codes(const __m512i* v, __m512i* out) {
    const __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    const __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

// The bytes of unit j.
template <bool kOfBytes>
inline void store_unit(__m512i bytes, uint8_t* group, int j) {
    uint8_t* unit = group + j * kUnitBytes<kOfBytes>;
    _mm512_storeu_si512(unit, kOfBytes ? bytes : Avx512Nibbles::high4(bytes));
    if constexpr (!kOfBytes) _mm512_storeu_si512(unit + 64, Avx512Nibbles::low4(bytes));
}

struct Avx512Packer {
    static constexpr int64_t kPiece = 64;
    static bool has(int64_t W) { return W == 8 || W == 16 || W == 32; }

    template <bool kOfBytes>
    static void dense(const uint8_t* codes, int64_t W, uint8_t* group) {
        __m512i v[4], out[4];
        const auto line = [&](int64_t i) { return _mm512_loadu_si512(codes + 64 * i); };
        if (W == 8) {
            const __m512i first = _mm512_load_si512(kApart8), last = _mm512_add_epi8(first, _mm512_set1_epi8(4));
            store_unit<kOfBytes>(_mm512_permutex2var_epi8(line(0), first, line(1)), group, 0);
            store_unit<kOfBytes>(_mm512_permutex2var_epi8(line(0), last, line(1)), group, 1);
        } else if (W == 16) {
            for (int i = 0; i < 4; ++i) v[i] = line(i);
            store_units<kOfBytes>(v, group, 4);
        } else {
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const __m512i from =
                    _mm512_add_epi8(_mm512_load_si512(kApart32), _mm512_set1_epi8(static_cast<char>(16 * half)));
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) v[i] = _mm512_permutex2var_epi8(line(2 * i), from, line(2 * i + 1));
                gather_codes(v, out);
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) store_unit<kOfBytes>(out[j], group, 4 * half + j);
            }
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
    // Registers of four codes' 16 bytes each.
    template <bool kOfBytes>
    static void store_units(__m512i* v, uint8_t* group, int units) {
        __m512i out[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) v[i] = _mm512_permutexvar_epi8(_mm512_load_si512(kApart16), v[i]);
        gather_codes(v, out);
        store_unit<kOfBytes>(out[0], group, 0);
        store_unit<kOfBytes>(out[1], group, 1);
        if (units == 2) return;
        store_unit<kOfBytes>(out[2], group, 2);
        store_unit<kOfBytes>(out[3], group, 3);
    }
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
