// Distance tiles for AVX2 and FMA: 4 rows x 2 vectors of accumulators in 16 registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "neighbors/isa/tile_kernels.h"

namespace fasthash {
namespace {

struct VecF32 {
    using T = float;
    using Reg = __m256;
    static constexpr int kLanes = 8, kRows = 4;
    static Reg load(const T* p) { return _mm256_loadu_ps(p); }
    static void store(T* p, Reg a) { _mm256_storeu_ps(p, a); }
    static Reg set1(T x) { return _mm256_set1_ps(x); }
    static Reg zero() { return _mm256_setzero_ps(); }
    static Reg add(Reg a, Reg b) { return _mm256_add_ps(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm256_sub_ps(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return _mm256_fmadd_ps(a, b, c); }
    static Reg abs(Reg a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    static Reg sign(Reg a) {
        const Reg one = set1(1.0f);
        return sub(_mm256_and_ps(_mm256_cmp_ps(a, zero(), _CMP_GT_OQ), one),
                   _mm256_and_ps(_mm256_cmp_ps(a, zero(), _CMP_LT_OQ), one));
    }
    static uint32_t le_bits(Reg a, Reg b) {
        return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_LE_OQ)));
    }
};

struct VecF64 {
    using T = double;
    using Reg = __m256d;
    static constexpr int kLanes = 4, kRows = 4;
    static Reg load(const T* p) { return _mm256_loadu_pd(p); }
    static void store(T* p, Reg a) { _mm256_storeu_pd(p, a); }
    static Reg set1(T x) { return _mm256_set1_pd(x); }
    static Reg zero() { return _mm256_setzero_pd(); }
    static Reg add(Reg a, Reg b) { return _mm256_add_pd(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm256_sub_pd(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return _mm256_fmadd_pd(a, b, c); }
    static Reg abs(Reg a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
    static Reg sign(Reg a) {
        const Reg one = set1(1.0);
        return sub(_mm256_and_pd(_mm256_cmp_pd(a, zero(), _CMP_GT_OQ), one),
                   _mm256_and_pd(_mm256_cmp_pd(a, zero(), _CMP_LT_OQ), one));
    }
    static uint32_t le_bits(Reg a, Reg b) {
        return static_cast<uint32_t>(_mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_LE_OQ)));
    }
};

}  // namespace

const TileTable kTileAvx2 = {tile_kernels<VecF32>(), tile_kernels<VecF64>()};

}  // namespace fasthash
#endif
