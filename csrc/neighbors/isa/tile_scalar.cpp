// Distance tiles for any processor: one lane, which the compiler may widen to the baseline's vectors.
#include "neighbors/isa/tile_kernels.h"

namespace fasthash {
namespace {

template <class Element>
struct Vec {
    using T = Element;
    static constexpr int kLanes = 4, kRows = 4;
    struct Reg {
        T v[kLanes];
    };
    template <class F>
    static Reg each(F f) {
        Reg r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = f(i);
        return r;
    }
    static Reg load(const T* p) {
        return each([=](int i) { return p[i]; });
    }
    static void store(T* p, const Reg& a) {
        for (int i = 0; i < kLanes; ++i) p[i] = a.v[i];
    }
    static Reg set1(T x) {
        return each([=](int) { return x; });
    }
    static Reg zero() { return set1(0); }
    static Reg add(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.v[i] + b.v[i]; });
    }
    static Reg sub(const Reg& a, const Reg& b) {
        return each([&](int i) { return a.v[i] - b.v[i]; });
    }
    static Reg mul_add(const Reg& a, const Reg& b, const Reg& c) {
        return each([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
    }
    static Reg abs(const Reg& a) {
        return each([&](int i) { return a.v[i] < 0 ? -a.v[i] : a.v[i]; });
    }
    static Reg sign(const Reg& a) {
        return each([&](int i) { return static_cast<T>((a.v[i] > 0) - (a.v[i] < 0)); });
    }
    static uint32_t le_bits(const Reg& a, const Reg& b) {
        uint32_t bits = 0;
        for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.v[i] <= b.v[i]) << i;
        return bits;
    }
};

}  // namespace

const TileTable kTileScalar = {tile_kernels<Vec<float>>(), tile_kernels<Vec<double>>()};

}  // namespace fasthash
