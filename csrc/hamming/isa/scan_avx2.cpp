// The Hamming scan for AVX2. Bits are counted by table look-up of half bytes (vpshufb); byte counts are added over the
// words of a code and summed across the lane once (vpsadbw).
#if defined(__x86_64__)

#include <immintrin.h>

#include "hamming/isa/scan.h"

namespace fasthash {
namespace {

struct Avx2Lanes {
    static constexpr bool kWeighted = false, kShared = false;
    using Vec = __m256i;
    static constexpr int64_t kFlush = 31;  // words: a byte's count grows by at most 8 for each, and holds 255

    static Vec load_any(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static Vec zero() { return _mm256_setzero_si256(); }
    static void pin(Vec& d) { __asm__("" : "+x"(d)); }
    static Vec bit_xor(Vec a, Vec b) { return _mm256_xor_si256(a, b); }
    static Vec count(Vec acc, Vec x) {
        const Vec table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                           2, 3, 2, 3, 3, 4);
        const Vec low = _mm256_set1_epi8(0x0f);
        const Vec a = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
        const Vec b = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), low));
        return _mm256_add_epi8(acc, _mm256_add_epi8(a, b));
    }
    // Counts fit 31 bits and the upper halves of 64-bit lanes are 0 on both sides: 32-bit minimum and compare do for
    // both.
    static Vec min(Vec a, Vec b) { return _mm256_min_epu32(a, b); }
    static bool any_below(Vec d, Vec limit) {
        const Vec below = _mm256_cmpgt_epi32(limit, d);
        return _mm256_testz_si256(below, below) == 0;
    }
    static int64_t count_bits(uint64_t x) { return _mm_popcnt_u64(x); }
    static uint64_t mask_word(const uint8_t* booleans) {
        const auto zeros = [&](int64_t i) {
            return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(load_any(booleans + i), zero())));
        };
        return ~(zeros(0) | uint64_t{zeros(32)} << 32);
    }
};

struct Avx2Lanes64 : Avx2Lanes {
    using Word = uint64_t;
    static constexpr int kLanes = 4, kCheck = 16, kScalarOf8 = 3;
    static Vec load(const Word* p) { return load_any(p); }
    static Vec set(const Word* s) { return _mm256_set_epi64x(s[3], s[2], s[1], s[0]); }
    static Vec broadcast(Word word) { return _mm256_set1_epi64x(static_cast<long long>(word)); }
    static Vec add(Vec a, Vec b) { return _mm256_add_epi64(a, b); }
    static Vec finish(Vec acc) { return _mm256_sad_epu8(acc, zero()); }
    static Vec limit(uint32_t d) { return _mm256_set1_epi64x(d); }
    static uint64_t below(Vec d, Vec limit) {
        return static_cast<uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(limit, d))));
    }
    static void store(Vec d, int32_t* out) {
        const Vec even = _mm256_permutevar8x32_epi32(d, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(even));
    }
};

struct Avx2Lanes32 : Avx2Lanes {
    using Word = uint32_t;
    static constexpr int kLanes = 8, kCheck = 32, kScalarOf8 = 0;
    static Vec load(const Word* p) { return load_any(p); }
    static Vec broadcast(Word word) { return _mm256_set1_epi32(static_cast<int>(word)); }
    static Vec add(Vec a, Vec b) { return _mm256_add_epi32(a, b); }
    static Vec finish(Vec acc) {
        return _mm256_madd_epi16(_mm256_maddubs_epi16(acc, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
    }
    static Vec limit(uint32_t d) { return _mm256_set1_epi32(static_cast<int>(d)); }
    static uint64_t below(Vec d, Vec limit) {
        return static_cast<uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, d))));
    }
    static void store(Vec d, int32_t* out) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), d); }
};

// Bits of bytes times their weights, added in pairs to 16 bits; pairs are added once.
struct Avx2Weighted : Avx2Lanes32 {
    static constexpr bool kWeighted = true;
    static constexpr int64_t kFlush = 8;  // words: a pair grows by at most 2 x 8 x 255 for each, and holds 32,767
    static Vec weigh(Vec acc, Vec x, Vec weights) {
        return _mm256_add_epi16(acc, _mm256_maddubs_epi16(weights, count(zero(), x)));
    }
    static Vec finish(Vec acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
};

struct Avx2Shared : Avx2Lanes32 {
    static constexpr bool kWeighted = true, kShared = true;
    static constexpr int64_t kFlush = kSharedWords;  // a pair is then at most 2 x 64 x 255
    static Vec finish(Vec acc, Vec weights) { return Avx2Weighted::finish(_mm256_maddubs_epi16(weights, acc)); }
};

// As in scan_avx512.cpp, 8 codes at a time.
struct Avx2Picker {
    __m256i shuffle, mask;
    Avx2Picker(const WeightedWord& word, int64_t W)
        : shuffle(_mm256_broadcastsi128_si256(load_bytes<__m128i>(PickedBytes(word, W).from))),
          mask(_mm256_set1_epi32(static_cast<int>(word.mask))) {}
    void pick_eight(const uint8_t* codes, int64_t W, uint32_t* lanes) const {
        __m256i words = _mm256_shuffle_epi8(Avx2Lanes::load_any(codes), shuffle);
        if (W == 8) {
            const __m256i next = _mm256_shuffle_epi8(Avx2Lanes::load_any(codes + 32), shuffle);
            words = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(words, next), 0xd8);
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), _mm256_and_si256(words, mask));
    }
    void pick(const uint8_t* codes, int64_t W, uint32_t* lanes) const {
        pick_eight(codes, W, lanes);
        pick_eight(codes + 8 * W, W, lanes + 8);
    }
};

}  // namespace

const ScanTable kScanAvx2 =
    make_table<Avx2Lanes32, Avx2Lanes64, Avx2Weighted, Avx2Shared>(pack_any, pack_dense<Avx2Picker>);

}  // namespace fasthash

#endif
