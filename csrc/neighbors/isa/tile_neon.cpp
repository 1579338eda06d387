// Distance tiles for NEON (aarch64): 8 rows x 2 vectors of accumulators in 32 registers.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "neighbors/isa/tile_kernels.h"

namespace fasthash {
namespace {

struct VecF32 {
    using T = float;
    using Reg = float32x4_t;
    static constexpr int kLanes = 4, kRows = 8;
    static Reg load(const T* p) { return vld1q_f32(p); }
    static void store(T* p, Reg a) { vst1q_f32(p, a); }
    static Reg set1(T x) { return vdupq_n_f32(x); }
    static Reg zero() { return vdupq_n_f32(0.0f); }
    static Reg add(Reg a, Reg b) { return vaddq_f32(a, b); }
    static Reg sub(Reg a, Reg b) { return vsubq_f32(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return vfmaq_f32(c, a, b); }
    static Reg abs(Reg a) { return vabsq_f32(a); }
    static Reg sign(Reg a) {
        return sub(vbslq_f32(vcgtzq_f32(a), set1(1.0f), zero()), vbslq_f32(vcltzq_f32(a), set1(1.0f), zero()));
    }
    static uint32_t le_bits(Reg a, Reg b) {
        const uint32x4_t place = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(vcleq_f32(a, b), place));
    }
};

struct VecF64 {
    using T = double;
    using Reg = float64x2_t;
    static constexpr int kLanes = 2, kRows = 8;
    static Reg load(const T* p) { return vld1q_f64(p); }
    static void store(T* p, Reg a) { vst1q_f64(p, a); }
    static Reg set1(T x) { return vdupq_n_f64(x); }
    static Reg zero() { return vdupq_n_f64(0.0); }
    static Reg add(Reg a, Reg b) { return vaddq_f64(a, b); }
    static Reg sub(Reg a, Reg b) { return vsubq_f64(a, b); }
    static Reg mul_add(Reg a, Reg b, Reg c) { return vfmaq_f64(c, a, b); }
    static Reg abs(Reg a) { return vabsq_f64(a); }
    static Reg sign(Reg a) {
        return sub(vbslq_f64(vcgtzq_f64(a), set1(1.0), zero()), vbslq_f64(vcltzq_f64(a), set1(1.0), zero()));
    }
    static uint32_t le_bits(Reg a, Reg b) {
        const uint64x2_t place = {1, 2};
        return static_cast<uint32_t>(vaddvq_u64(vandq_u64(vcleq_f64(a, b), place)));
    }
};

}  // namespace

const TileTable kTileNeon = {tile_kernels<VecF32>(), tile_kernels<VecF64>()};

}  // namespace fasthash
#endif
