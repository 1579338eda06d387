// Distance tiles for AVX-512: 8 rows x 2 vectors of accumulators in 32 registers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "neighbors/isa/tile_kernels.h"

namespace fasthash {
namespace {

struct VecF32 {
    using T = float;
    using Reg = __m512;
    static constexpr int kLanes = 16, kRows = 8;
    static Reg load(const T* p) { return _mm512_loadu_ps(p); }
    static void store(T* p, Reg a) { _mm512_storeu_ps(p, a); }
    static Reg set1(T x) { return _mm512_set1_ps(x); }
    static Reg zero() { return _mm512_setzero_ps(); }
    static Reg add(Reg a, Reg b) { return _mm512_add_ps(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm512_sub_ps(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return _mm512_fmadd_ps(a, b, c); }
    static Reg abs(Reg a) { return _mm512_abs_ps(a); }
    static Reg sign(Reg a) {
        const Reg one = set1(1.0f);
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, zero(), _CMP_LT_OQ),
                                    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, zero(), _CMP_GT_OQ), one), set1(-1.0f));
    }
    static uint32_t le_bits(Reg a, Reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
};

struct VecF64 {
    using T = double;
    using Reg = __m512d;
    static constexpr int kLanes = 8, kRows = 8;
    static Reg load(const T* p) { return _mm512_loadu_pd(p); }
    static void store(T* p, Reg a) { _mm512_storeu_pd(p, a); }
    static Reg set1(T x) { return _mm512_set1_pd(x); }
    static Reg zero() { return _mm512_setzero_pd(); }
    static Reg add(Reg a, Reg b) { return _mm512_add_pd(a, b); }
    static Reg sub(Reg a, Reg b) { return _mm512_sub_pd(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return _mm512_fmadd_pd(a, b, c); }
    static Reg abs(Reg a) { return _mm512_abs_pd(a); }
    static Reg sign(Reg a) {
        const Reg one = set1(1.0);
        return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, zero(), _CMP_LT_OQ),
                                    _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(a, zero(), _CMP_GT_OQ), one), set1(-1.0));
    }
    static uint32_t le_bits(Reg a, Reg b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
};

}  // namespace

const TileTable kTileAvx512 = {tile_kernels<VecF32>(), tile_kernels<VecF64>()};

}  // namespace fasthash
#endif
