// The Hamming scan for AVX-512 with VPOPCNTDQ: 8 codes of 64 bits (or 16 of 32) a register; for each, a xor with the
// broadcast query, a popcount and a minimum.
#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header starts undefined registers with themselves and is then warned about (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "hamming/isa/scan.h"

namespace fasthash {
namespace {

struct Avx512Lanes {
    static constexpr bool kWeighted = false, kShared = false;
    using Vec = __m512i;
    static constexpr int64_t kFlush = INT64_MAX;
    static Vec zero() { return _mm512_setzero_si512(); }
    static void pin(Vec& d) { __asm__("" : "+v"(d)); }
    static Vec bit_xor(Vec a, Vec b) { return _mm512_xor_si512(a, b); }
    static Vec finish(Vec acc) { return acc; }
    // The upper halves of 64-bit lanes are 0 on both sides: 32-bit operations, which are cheaper, do for both.
    static Vec min(Vec a, Vec b) { return _mm512_min_epu32(a, b); }
    static bool any_below(Vec d, Vec limit) { return _mm512_cmplt_epu32_mask(d, limit) != 0; }
    static int64_t count_bits(uint64_t x) { return _mm_popcnt_u64(x); }
    static uint64_t mask_word(const uint8_t* booleans) {
        const Vec v = _mm512_loadu_si512(booleans);
        return _mm512_test_epi8_mask(v, v);
    }
};

struct Avx512Lanes64 : Avx512Lanes {
    using Word = uint64_t;
    static constexpr int kLanes = 8, kCheck = 32, kScalarOf8 = 0;
    static Vec load(const Word* p) { return _mm512_loadu_si512(p); }
    static Vec broadcast(Word word) { return _mm512_set1_epi64(static_cast<long long>(word)); }
    static Vec add(Vec a, Vec b) { return _mm512_add_epi64(a, b); }
    static Vec count(Vec acc, Vec x) { return add(acc, _mm512_popcnt_epi64(x)); }
    static Vec limit(uint32_t d) { return _mm512_set1_epi64(d); }
    static uint64_t below(Vec d, Vec limit) { return _mm512_cmplt_epu64_mask(d, limit); }
    static void store(Vec d, int32_t* out) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi64_epi32(d));
    }
};

struct Avx512Lanes32 : Avx512Lanes {
    using Word = uint32_t;
    static constexpr int kLanes = 16, kCheck = 64, kScalarOf8 = 0;
    static Vec load(const Word* p) { return _mm512_loadu_si512(p); }
    static Vec broadcast(Word word) { return _mm512_set1_epi32(static_cast<int>(word)); }
    static Vec add(Vec a, Vec b) { return _mm512_add_epi32(a, b); }
    static Vec count(Vec acc, Vec x) { return add(acc, _mm512_popcnt_epi32(x)); }
    static Vec limit(uint32_t d) { return _mm512_set1_epi32(static_cast<int>(d)); }
    static uint64_t below(Vec d, Vec limit) { return _mm512_cmplt_epu32_mask(d, limit); }
    static void store(Vec d, int32_t* out) { _mm512_storeu_si512(out, d); }
};

// 8 x 8 words: out[j] lane i = in[i] lane j.
inline void transpose_words(const __m512i* in, __m512i* out) {
    __m512i pairs[8], quads[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm512_unpacklo_epi64(in[i], in[i + 1]);      // words 0 2 4 6 of rows i, i + 1
        pairs[i + 1] = _mm512_unpackhi_epi64(in[i], in[i + 1]);  // words 1 3 5 7
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        const int a = i / 2 * 4 + i % 2;
        quads[i] = _mm512_shuffle_i64x2(pairs[a], pairs[a + 2], 0x88);      // words (0 or 1) and + 4 of four rows
        quads[i + 4] = _mm512_shuffle_i64x2(pairs[a], pairs[a + 2], 0xdd);  // words (2 or 3) and + 4
    }
#pragma GCC unroll 2
    for (int odd = 0; odd < 2; ++odd) {
        out[odd] = _mm512_shuffle_i64x2(quads[odd], quads[odd + 2], 0x88);
        out[odd + 4] = _mm512_shuffle_i64x2(quads[odd], quads[odd + 2], 0xdd);
        out[odd + 2] = _mm512_shuffle_i64x2(quads[odd + 4], quads[odd + 6], 0x88);
        out[odd + 6] = _mm512_shuffle_i64x2(quads[odd + 4], quads[odd + 6], 0xdd);
    }
}

// Eight rows to one panel group, 8 words at a time; the last words of a row are loaded under a mask.
inline void pack_group(const uint8_t* const* rows, int64_t W, int64_t words, uint64_t* group) {
    for (int64_t word = 0; word < words; word += 8) {
        const int64_t bytes = W - word * 8 < 64 ? W - word * 8 : 64;
        const __mmask64 present = ~uint64_t{0} >> (64 - bytes);
        __m512i in[8], out[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) in[i] = _mm512_maskz_loadu_epi8(present, rows[i] + word * 8);
        transpose_words(in, out);
        uint64_t* to = group + word * kGroup;
        if (words - word >= 8) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; ++j) _mm512_storeu_si512(to + j * kGroup, out[j]);
        } else {
            for (int j = 0; j < words - word; ++j) _mm512_storeu_si512(to + j * kGroup, out[j]);
        }
    }
}

inline __m512i four_rows(const uint8_t* const* rows) {
    const auto row = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i])); };
    __m512i v = _mm512_castsi128_si512(row(0));
    v = _mm512_inserti64x2(v, row(1), 1);
    v = _mm512_inserti64x2(v, row(2), 2);
    return _mm512_inserti64x2(v, row(3), 3);
}

inline void pack_group_128(const uint8_t* const* rows, uint64_t* group) {
    const __m512i a = four_rows(rows), b = four_rows(rows + 4);
    const __m512i even = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
    _mm512_storeu_si512(group, _mm512_permutex2var_epi64(a, even, b));
    _mm512_storeu_si512(group + kGroup, _mm512_permutex2var_epi64(a, odd, b));
}

inline void pack_group_256(const uint8_t* const* rows, uint64_t* group) {
    const __m512i first = _mm512_set_epi64(13, 9, 5, 1, 12, 8, 4, 0),
                  last = _mm512_set_epi64(15, 11, 7, 3, 14, 10, 6, 2);
    __m512i halves[4];  // words 0 1 of rows 0-3, words 2 3 of rows 0-3, the same of rows 4-7
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
        const auto two = [&](int r) {
            const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r]));
            const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r + 1]));
            return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        };
        const __m512i a = two(4 * i), b = two(4 * i + 2);
        halves[2 * i] = _mm512_permutex2var_epi64(a, first, b);
        halves[2 * i + 1] = _mm512_permutex2var_epi64(a, last, b);
    }
    _mm512_storeu_si512(group, _mm512_shuffle_i64x2(halves[0], halves[2], 0x44));
    _mm512_storeu_si512(group + kGroup, _mm512_shuffle_i64x2(halves[0], halves[2], 0xee));
    _mm512_storeu_si512(group + 2 * kGroup, _mm512_shuffle_i64x2(halves[1], halves[3], 0x44));
    _mm512_storeu_si512(group + 3 * kGroup, _mm512_shuffle_i64x2(halves[1], halves[3], 0xee));
}

// As pack_any, with rows turned to columns in registers where a row is wider than a word.
void pack_transposed(const uint8_t* database, int64_t stride, const uint32_t* positions, int64_t n, int64_t W,
                     void* panel) {
    constexpr int64_t kAhead = 8192;  // bytes: one query reads at the memory's pace only if much is under way
    const bool dense = positions == nullptr && stride < W + kCacheLine;
    const int64_t words = (W + 7) / 8, whole = W > 8 ? n / kScanBlock * kScanBlock : 0;
    uint64_t* group = static_cast<uint64_t*>(panel);
    for (int64_t i = 0; i < whole; i += kGroup, group += kGroup * words) {
        const uint8_t* rows[kGroup];
        if (dense)
            for (int64_t byte = 0; byte < kGroup * stride; byte += kCacheLine)
                __builtin_prefetch(database + i * stride + kAhead + byte);
        for (int64_t r = 0; r < kGroup; ++r)
            rows[r] = database + (positions != nullptr ? int64_t{positions[i + r]} : i + r) * stride;
        if (W == 16)
            pack_group_128(rows, group);
        else if (W == 32)
            pack_group_256(rows, group);
        else
            pack_group(rows, W, words, group);
    }
    if (whole == n) return;
    pack_any(positions != nullptr ? database : database + whole * stride, stride,
             positions != nullptr ? positions + whole : nullptr, n - whole, W, whole > 0 ? group : panel);
}

// Bits of bytes times their weights, four a lane (VNNI).
struct Avx512Weighted : Avx512Lanes32 {
    static constexpr bool kWeighted = true;
    static Vec weigh(Vec acc, Vec x, Vec weights) { return _mm512_dpbusd_epi32(acc, weights, _mm512_popcnt_epi8(x)); }
};

struct Avx512Shared : Avx512Lanes32 {
    static constexpr bool kWeighted = true, kShared = true;
    static constexpr int64_t kFlush = kSharedWords;
    static Vec count(Vec acc, Vec x) { return _mm512_add_epi8(acc, _mm512_popcnt_epi8(x)); }
    static Vec finish(Vec acc, Vec weights) { return _mm512_dpbusd_epi32(zero(), weights, acc); }
};

// Words of 16 codes that lie side by side, 4 or 8 bytes each. Codes of 8 bytes: a lane of two becomes their words and
// zeros; then the first halves of all lanes are put side by side.
struct Avx512Picker {
    __m512i shuffle, mask, halves = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
    Avx512Picker(const WeightedWord& word, int64_t W)
        : shuffle(_mm512_broadcast_i32x4(load_bytes<__m128i>(PickedBytes(word, W).from))),
          mask(_mm512_set1_epi32(static_cast<int>(word.mask))) {}
    void pick(const uint8_t* codes, int64_t W, uint32_t* lanes) const {
        __m512i words = _mm512_shuffle_epi8(_mm512_loadu_si512(codes), shuffle);
        if (W == 8)
            words =
                _mm512_permutex2var_epi64(words, halves, _mm512_shuffle_epi8(_mm512_loadu_si512(codes + 64), shuffle));
        _mm512_storeu_si512(lanes, _mm512_and_si512(words, mask));
    }
};

}  // namespace

const ScanTable kScanAvx512 =
    make_table<Avx512Lanes32, Avx512Lanes64, Avx512Weighted, Avx512Shared>(pack_transposed, pack_dense<Avx512Picker>);

}  // namespace fasthash

#endif
