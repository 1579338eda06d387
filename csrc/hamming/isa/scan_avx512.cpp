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
    using Vec = __m512i;
    static constexpr int64_t kFlush = INT64_MAX;
    static Vec zero() { return _mm512_setzero_si512(); }
    static Vec bit_xor(Vec a, Vec b) { return _mm512_xor_si512(a, b); }
    static Vec finish(Vec acc) { return acc; }
    // The upper halves of 64-bit lanes are 0 on both sides: 32-bit operations, which are cheaper, do for both.
    static Vec min(Vec a, Vec b) { return _mm512_min_epu32(a, b); }
    static bool any_below(Vec d, Vec limit) { return _mm512_cmplt_epu32_mask(d, limit) != 0; }
    static int64_t count_bits(uint64_t x) { return _mm_popcnt_u64(x); }
    // 8 hits at most: the chosen lanes, pressed together in a register (stores that compress are slow on some processors).
    static int emit_lanes(Vec d, __mmask8 found, uint32_t first, uint64_t* hits) {
        const Vec lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
        const Vec code = _mm512_add_epi64(_mm512_set1_epi64(first), lane);
        const Vec hit = _mm512_or_si512(_mm512_slli_epi64(d, 32), code);
        _mm512_storeu_si512(hits, _mm512_maskz_compress_epi64(found, hit));
        return _mm_popcnt_u32(found);
    }
};

struct Avx512Lanes64 : Avx512Lanes {
    using Word = uint64_t;
    static constexpr int kLanes = 8, kCheck = 32;
    static Vec load(const Word* p) { return _mm512_loadu_si512(p); }
    static Vec broadcast(Word word) { return _mm512_set1_epi64(static_cast<long long>(word)); }
    static Vec add(Vec a, Vec b) { return _mm512_add_epi64(a, b); }
    static Vec count(Vec acc, Vec x) { return add(acc, _mm512_popcnt_epi64(x)); }
    static Vec limit(uint32_t d) { return _mm512_set1_epi64(d); }
    static int emit(Vec d, Vec limit, uint64_t valid, uint32_t first, uint64_t* hits) {
        return emit_lanes(d, _mm512_mask_cmplt_epu64_mask(static_cast<__mmask8>(valid), d, limit), first, hits);
    }
    static void store(Vec d, int32_t* out) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi64_epi32(d));
    }
};

struct Avx512Lanes32 : Avx512Lanes {
    using Word = uint32_t;
    static constexpr int kLanes = 16, kCheck = 64;
    static Vec load(const Word* p) { return _mm512_loadu_si512(p); }
    static Vec broadcast(Word word) { return _mm512_set1_epi32(static_cast<int>(word)); }
    static Vec add(Vec a, Vec b) { return _mm512_add_epi32(a, b); }
    static Vec count(Vec acc, Vec x) { return add(acc, _mm512_popcnt_epi32(x)); }
    static Vec limit(uint32_t d) { return _mm512_set1_epi32(static_cast<int>(d)); }
    static int emit(Vec d, Vec limit, uint64_t valid, uint32_t first, uint64_t* hits) {
        const uint32_t found = _mm512_mask_cmplt_epu32_mask(static_cast<__mmask16>(valid), d, limit);
        const Vec low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(d));
        const Vec high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(d, 1));
        const int count = emit_lanes(low, static_cast<__mmask8>(found), first, hits);
        return count + emit_lanes(high, static_cast<__mmask8>(found >> 8), first + 8, hits + count);
    }
    static void store(Vec d, int32_t* out) { _mm512_storeu_si512(out, d); }
};

}  // namespace

const ScanTable kScanAvx512 = make_table<Avx512Lanes32, Avx512Lanes64>(pack_any);

}  // namespace fasthash

#endif
