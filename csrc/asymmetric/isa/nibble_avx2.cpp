// The filter of the asymmetric search for AVX2: 32 nibbles a look-up (vpshufb), two of each of 16 codes.
#if defined(__x86_64__)

#include <immintrin.h>

#include "asymmetric/isa/nibble.h"

namespace fasthash {
namespace {

struct Avx2Nibbles : LaneSums<Avx2Nibbles> {
    using Vec = __m256i;
    static constexpr int kLanes = 2;
    struct Sums {
        Vec even[2], odd[2];  // codes 16 g + 2 i (+ 1): lane g % 2 of register g / 2
    };
    static Vec load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static Vec zero() { return _mm256_setzero_si256(); }
    static Vec high4(Vec a) { return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15)); }
    static Vec low4(Vec a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
    static Vec look_up(Vec table, Vec nibbles) { return _mm256_shuffle_epi8(table, nibbles); }
    static Vec add8(Vec a, Vec b) { return _mm256_add_epi8(a, b); }
    static Vec add16(Vec a, Vec b) { return _mm256_add_epi16(a, b); }
    static Vec high8(Vec a) { return _mm256_srli_epi16(a, 8); }
    static Vec without_high(Vec all, Vec high) { return _mm256_sub_epi16(all, _mm256_slli_epi16(high, 8)); }
    static Vec lanes_added(Vec a, Vec b) {
        return add16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    }
    static Sums sums(const Vec* even, const Vec* odd) {
        return {{lanes_added(even[0], even[1]), lanes_added(even[2], even[3])},
                {lanes_added(odd[0], odd[1]), lanes_added(odd[2], odd[3])}};
    }
    // 16 bits that are not 0 where the sum is below.
    static Vec less(Vec sums, uint32_t limit) {
        return _mm256_subs_epu16(_mm256_set1_epi16(static_cast<short>(limit)), sums);
    }
    static bool any_below(const Sums& s, uint32_t limit) {
        const Vec least =
            _mm256_min_epu16(_mm256_min_epu16(s.even[0], s.even[1]), _mm256_min_epu16(s.odd[0], s.odd[1]));
        const Vec found = less(least, limit);
        return _mm256_testz_si256(found, found) == 0;
    }
    static uint64_t below(const Sums& s, uint32_t limit) {
        uint64_t found = 0;
        for (int i = 0; i < 2; ++i) {
            // In each lane the even and the odd codes side by side make the 16 codes of a group.
            const Vec even = less(s.even[i], limit), odd = less(s.odd[i], limit);
            const Vec first = _mm256_cmpeq_epi16(_mm256_unpacklo_epi16(even, odd), zero());
            const Vec last = _mm256_cmpeq_epi16(_mm256_unpackhi_epi16(even, odd), zero());
            const uint32_t above = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(first, last)));
            found |= static_cast<uint64_t>(~above) << (32 * i);
        }
        return found;
    }
    static void store(const Sums& s, uint16_t* out) {
        for (int i = 0; i < 2; ++i) {
            const Vec first = _mm256_unpacklo_epi16(s.even[i], s.odd[i]);
            const Vec last = _mm256_unpackhi_epi16(s.even[i], s.odd[i]);
            const auto to = [&](int at) { return reinterpret_cast<__m256i*>(out + 32 * i + at); };
            _mm256_storeu_si256(to(0), _mm256_permute2x128_si256(first, last, 0x20));
            _mm256_storeu_si256(to(16), _mm256_permute2x128_si256(first, last, 0x31));
        }
    }
};

struct Avx2Zips {
    static __m256i zip_low(__m256i a, __m256i b) { return _mm256_unpacklo_epi8(a, b); }
    static __m256i zip_high(__m256i a, __m256i b) { return _mm256_unpackhi_epi8(a, b); }
    static __m128i zip_low(__m128i a, __m128i b) { return _mm_unpacklo_epi8(a, b); }
    static __m128i zip_high(__m128i a, __m128i b) { return _mm_unpackhi_epi8(a, b); }
};

struct Avx2Packer : RowPacker {
    static constexpr int64_t kPiece = 32;
    template <bool kOfBytes>
    static void rows(const uint8_t* const* rows, int64_t W, uint8_t* group) {
        constexpr int64_t kUnit = kUnitBytes<kOfBytes>;
        int64_t byte = 0;
        for (; byte + 32 <= W; byte += 32, group += 8 * kUnit) {
            __m256i v[16];
#pragma GCC unroll 16
            for (int c = 0; c < 16; ++c) v[c] = Avx2Nibbles::load(rows[c] + byte);
            transpose_bytes<Avx2Zips>(v);
#pragma GCC unroll 16
            for (int p = 0; p < 16; ++p) {  // bytes p and 16 + p
                store<kOfBytes>(_mm256_castsi256_si128(v[p]), group, p);
                store<kOfBytes>(_mm256_extracti128_si256(v[p], 1), group + 4 * kUnit, p);
            }
        }
        for (int bytes; (bytes = W - byte >= 16 ? 16 : W - byte >= 8 ? 8 : 0) > 0; group += bytes / 4 * kUnit) {
            __m128i v[16];
#pragma GCC unroll 16
            for (int c = 0; c < 16; ++c) {
                const __m128i* from = reinterpret_cast<const __m128i*>(rows[c] + byte);
                v[c] = bytes == 16 ? _mm_loadu_si128(from) : _mm_loadl_epi64(from);
            }
            transpose_bytes<Avx2Zips>(v);
            for (int p = 0; p < bytes; ++p) store<kOfBytes>(v[p], group, p);
            byte += bytes;
        }
        pack_rest<kOfBytes>(rows, byte, W, group);
    }

  private:
    // Byte p of 16 codes.
    template <bool kOfBytes>
    static void store(__m128i bytes, uint8_t* group, int p) {
        const auto to = [&](int at) {
            return reinterpret_cast<__m128i*>(group + p / 4 * kUnitBytes<kOfBytes> + p % 4 * 16 + at);
        };
        const __m128i low = _mm_set1_epi8(15);
        _mm_storeu_si128(to(0), kOfBytes ? bytes : _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
        if constexpr (!kOfBytes) _mm_storeu_si128(to(64), _mm_and_si128(bytes, low));
    }
};

}  // namespace

const NibbleTable kNibbleAvx2 = make_nibble_table<Avx2Nibbles, Avx2Packer>();

}  // namespace fasthash

#endif
