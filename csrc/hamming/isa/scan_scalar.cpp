// The Hamming scan in plain C++: the reference for every other instruction set, and what old processors run.
#include "hamming/isa/scan.h"

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
    static constexpr bool kWeighted = false, kShared = false;
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

struct ScalarShared : ScalarLanes<uint32_t> {
    static constexpr bool kWeighted = true, kShared = true;
    static constexpr int kCheck = 16;
    static constexpr int64_t kFlush = kSharedWords;
    static Vec count(Vec acc, Vec x) { return acc + static_cast<Vec>(bits_of_bytes(x)); }
    static Vec finish(Vec acc, Vec weights) {
        Vec sum = 0;
        for (int shift = 0; shift < 32; shift += 8) sum += (acc >> shift & 255) * (weights >> shift & 255);
        return sum;
    }
};

struct ScalarWeighted : ScalarLanes<uint32_t> {
    static constexpr bool kWeighted = true;
    static constexpr int kCheck = 16;
    static Vec weigh(Vec acc, Vec x, Vec weights) {
        return acc + ScalarShared::finish(static_cast<Vec>(bits_of_bytes(x)), weights);
    }
};

}  // namespace

const ScanTable kScanScalar =
    make_table<ScalarLanes<uint32_t>, ScalarLanes<uint64_t>, ScalarWeighted, ScalarShared>(pack_any, pack_weighted);

}  // namespace fasthash
