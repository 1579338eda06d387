// Near fingerprints for AVX-512 with VPOPCNTDQ: a cache line a step; hits are rare, so their stores are behind a
// branch.
#if defined(__x86_64__)

#include <immintrin.h>

#include "mih/isa/near.h"

namespace fasthash {
namespace {

int64_t near4(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
              uint32_t* hits) {
    const __m512i wanted = _mm512_set1_epi32(static_cast<int>(query)), most = _mm512_set1_epi32(limit);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t found = 0;
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 valid = static_cast<__mmask16>(count - i >= 16 ? 0xffff : (1 << (count - i)) - 1);
        const __m512i values = _mm512_maskz_loadu_epi32(valid, fingerprints + i * 4);
        const __m512i distances = _mm512_popcnt_epi32(_mm512_xor_si512(values, wanted));
        const __mmask16 hit = _mm512_mask_cmple_epi32_mask(valid, distances, most);
        if (hit == 0) continue;
        const __m512i entries = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first + i)), lanes);
        _mm512_storeu_si512(hits + found, _mm512_maskz_compress_epi32(hit, entries));
        found += _mm_popcnt_u32(hit);
    }
    return found;
}

int64_t near8(const uint8_t* fingerprints, int64_t count, uint64_t query, int32_t limit, uint32_t first,
              uint32_t* hits) {
    const __m512i wanted = _mm512_set1_epi64(static_cast<long long>(query)), most = _mm512_set1_epi64(limit);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int64_t found = 0;
    for (int64_t i = 0; i < count; i += 8) {
        const __mmask8 valid = static_cast<__mmask8>(count - i >= 8 ? 0xff : (1 << (count - i)) - 1);
        const __m512i values = _mm512_maskz_loadu_epi64(valid, fingerprints + i * 8);
        const __m512i distances = _mm512_popcnt_epi64(_mm512_xor_si512(values, wanted));
        const __mmask8 hit = _mm512_mask_cmple_epi64_mask(valid, distances, most);
        if (hit == 0) continue;
        const __m256i entries = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(first + i)), lanes);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(hits + found), _mm256_maskz_compress_epi32(hit, entries));
        found += _mm_popcnt_u32(hit);
    }
    return found;
}

}  // namespace

const NearTable kNearAvx512 = {near4, near8};

}  // namespace fasthash

#endif
