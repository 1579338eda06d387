// The filter of the asymmetric search in plain C++: the reference for every other instruction set, and what old
// processors run.
#include "asymmetric/isa/nibble.h"

namespace fasthash {
namespace {

struct ScalarNibbles : LaneSums<ScalarNibbles> {
    static constexpr int kLanes = 1;
    struct Vec {
        uint8_t bytes[16];
    };
    struct Sums {
        uint16_t sums[kNibbleBlock];
    };
    static Vec load(const uint8_t* p) {
        Vec v;
        __builtin_memcpy(v.bytes, p, 16);
        return v;
    }
    static Vec zero() { return {}; }
    static Vec high4(const Vec& a) {
        Vec v;
        for (int i = 0; i < 16; ++i) v.bytes[i] = a.bytes[i] >> 4;
        return v;
    }
    static Vec low4(const Vec& a) {
        Vec v;
        for (int i = 0; i < 16; ++i) v.bytes[i] = a.bytes[i] & 15;
        return v;
    }
    static Vec look_up(const Vec& table, const Vec& nibbles) {
        Vec v;
        for (int i = 0; i < 16; ++i) v.bytes[i] = table.bytes[nibbles.bytes[i]];
        return v;
    }
    static Vec add8(const Vec& a, const Vec& b) {
        Vec v;
        for (int i = 0; i < 16; ++i) v.bytes[i] = static_cast<uint8_t>(a.bytes[i] + b.bytes[i]);
        return v;
    }
    // 16 bits in two bytes, the lower first on every machine.
    static uint32_t at(const Vec& v, int i) { return v.bytes[2 * i] | static_cast<uint32_t>(v.bytes[2 * i + 1]) << 8; }
    static void put(Vec& v, int i, uint32_t x) {
        v.bytes[2 * i] = static_cast<uint8_t>(x);
        v.bytes[2 * i + 1] = static_cast<uint8_t>(x >> 8);
    }
    static Vec add16(const Vec& a, const Vec& b) {
        Vec v;
        for (int i = 0; i < 8; ++i) put(v, i, at(a, i) + at(b, i));
        return v;
    }
    static Vec high8(const Vec& a) {
        Vec v;
        for (int i = 0; i < 8; ++i) put(v, i, at(a, i) >> 8);
        return v;
    }
    static Vec without_high(const Vec& all, const Vec& high) {
        Vec v;
        for (int i = 0; i < 8; ++i) put(v, i, at(all, i) - (at(high, i) << 8));
        return v;
    }
    static Sums sums(const Vec* even, const Vec* odd) {
        Sums s;
        for (int g = 0; g < kGroups; ++g)
            for (int i = 0; i < 8; ++i) {
                s.sums[16 * g + 2 * i] = static_cast<uint16_t>(at(even[g], i));
                s.sums[16 * g + 2 * i + 1] = static_cast<uint16_t>(at(odd[g], i));
            }
        return s;
    }
    static uint64_t below(const Sums& s, uint32_t limit) {
        uint64_t found = 0;
        for (int64_t c = 0; c < kNibbleBlock; ++c) found |= static_cast<uint64_t>(s.sums[c] < limit) << c;
        return found;
    }
    static bool any_below(const Sums& s, uint32_t limit) { return below(s, limit) != 0; }
    static void store(const Sums& s, uint16_t* out) { __builtin_memcpy(out, s.sums, sizeof(s.sums)); }
};

}  // namespace

const NibbleTable kNibbleScalar = make_nibble_table<ScalarNibbles, PlainPacker>();

}  // namespace fasthash
