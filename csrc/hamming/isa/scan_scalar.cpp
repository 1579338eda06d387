// The Hamming scan in plain C++: the reference for every other instruction set, and what old processors run.
#include "hamming/isa/planes.h"

namespace fasthash {
namespace {

// Bits set in each byte, by adding neighbouring fields in place: the base instruction set of x86-64 has no popcount.
inline uint64_t bits_of_bytes(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    return (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
}

inline uint64_t bits_set(uint64_t x) { return bits_of_bytes(x) * 0x0101010101010101u >> 56; }

template <class WordType>
struct ScalarLanes {
    using Word = WordType;
    using Vec = WordType;
    static constexpr int kLanes = 1, kCheck = 8, kScalarOf8 = 0;
    static constexpr int64_t kFlush = INT64_MAX;
    static Vec load(const Word* p) { return load_bytes<Word>(p); }
    static Vec broadcast(Word word) { return word; }
    static Vec zero() { return 0; }
    static void pin(Vec& d) { __asm__("" : "+r"(d)); }
    static Vec bit_xor(Vec a, Vec b) { return a ^ b; }
    static Vec add(Vec a, Vec b) { return a + b; }
    static Vec count(Vec acc, Vec x) { return acc + static_cast<Vec>(bits_set(x)); }
    static Vec finish(Vec acc) { return acc; }
    static Vec min(Vec a, Vec b) { return a < b ? a : b; }
    static Vec limit(uint32_t d) { return d; }
    static bool any_below(Vec d, Vec limit) { return d < limit; }
    static uint64_t below(Vec d, Vec limit) { return d < limit; }
    static void store(Vec d, int32_t* out) { *out = static_cast<int32_t>(d); }
    static int64_t count_bits(uint64_t x) { return static_cast<int64_t>(bits_set(x)); }
    static uint64_t mask_word(const uint8_t* booleans) { return word_of_booleans(booleans); }
};

// Eight bytes a word.
struct ScalarBytes {
    using Vec = uint64_t;
    struct Sums {
        uint16_t d[8];
    };
    struct WideSums {
        uint32_t d[8];
    };
    static constexpr int kLanes = 8, kCheck = 8;
    static Vec load(const uint8_t* p) { return load_bytes<uint64_t>(p); }
    static Vec broadcast(uint32_t word) { return word | uint64_t{word} << 32; }
    static Vec bit_xor(Vec a, Vec b) { return a ^ b; }
    static Vec add(Vec a, Vec b) { return a + b; }
    static Vec count(Vec x) { return bits_of_bytes(x); }
    template <class S>
    static void zero(S& sums) {
        sums = {};
    }
    static void weigh(Sums& sums, Vec a, Vec b, uint32_t weights) {
        for (int i = 0; i < 8; ++i)
            sums.d[i] = static_cast<uint16_t>(sums.d[i] + (a >> (8 * i) & 255) * (weights & 255) +
                                              (b >> (8 * i) & 255) * (weights >> 8 & 255));
    }
    static void widen(WideSums& wide, const Sums& sums) {
        for (int i = 0; i < 8; ++i) wide.d[i] += sums.d[i];
    }
    template <class S>
    static S min(S a, const S& b) {
        for (int i = 0; i < 8; ++i) a.d[i] = a.d[i] < b.d[i] ? a.d[i] : b.d[i];
        return a;
    }
    template <class S>
    static bool any_below(const S& sums, int32_t limit) {
        bool any = false;
        for (int i = 0; i < 8; ++i) any |= static_cast<int32_t>(sums.d[i]) < limit;
        return any;
    }
    template <class S>
    static void store(const S& sums, int32_t* out) {
        for (int i = 0; i < 8; ++i) out[i] = static_cast<int32_t>(sums.d[i]);
    }
    static void transpose(const uint64_t* words, uint8_t* planes) { transpose_any(words, planes); }
};

}  // namespace

const ScanTable kScanScalar =
    make_table<ScalarLanes<uint32_t>, ScalarLanes<uint64_t>>(pack_any, make_plane_table<ScalarBytes>());

}  // namespace fasthash
