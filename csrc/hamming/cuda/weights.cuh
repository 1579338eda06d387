// Weighted Hamming distances: what the groups of bits of a problem become for the kernels, and the distances of codes.
//
// The host cuts the groups at the ends of words and hands masks and weights to the kernel by value (constant memory,
// which a warp reads at one address): a distance is the sum over terms of weight x count of the differing bits in the
// mask. Cost for each pair and term: LOP3, POPC and IMAD. A word has as many terms as it has distinct weights, or, if
// that is fewer, as those have binary digits: 1 for a group of whole words, never more than 8. The ceiling is that of
// POPC, 16 terms a clock and multiprocessor: 64 bits in 8 groups of 8 cost what 256 undivided bits cost without
// carry-save adders. Products on the tensor cores (bit_products.cuh) are for undivided codes alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "core/api.h"
#include "hamming/cuda/code.cuh"
#include "hamming/groups.h"
#include "hamming/hamming.h"

namespace fasthash {

// The groups of a problem, in host memory.
struct BitGroups {
    const int32_t* bits;     // [G]
    const int32_t* weights;  // [G]
    int32_t G;               // 0: undivided
};

// FH_INVALID for groups that Python should have refused.
inline fh_status check_groups(const fh_hamming_problem& p) {
    int32_t largest = 0;
    return largest_distance(p, largest);
}

// The greatest distance for sizes of workspaces: 0 for groups that the search will refuse.
inline int64_t largest_distance(const fh_hamming_problem& p) {
    int32_t largest = 0;
    return largest_distance(p, largest) == FH_OK ? largest : 0;
}

struct BitTerm {
    uint32_t mask;  // of a word
    int32_t weight;
};

// The first `bits` bits of a word in numpy.packbits order: bytes ascending, in a byte the highest bit first.
inline uint32_t first_bits(int64_t bits) {
    if (bits <= 0) return 0;
    if (bits >= 32) return 0xffffffffu;
    const int whole = static_cast<int>(bits / 8 * 8), rest = static_cast<int>(bits % 8);
    return ((1u << whole) - 1) | (0xff00u >> rest & 0xffu) << whole;
}

// The bits [begin, end) of a code that lie in word w.
inline uint32_t bits_of_word(int64_t begin, int64_t end, int64_t w) {
    return first_bits(end - 32 * w) & ~first_bits(begin - 32 * w);
}

// One term for each binary digit of the weights instead of one for each weight, if those are fewer.
inline std::vector<BitTerm> fewest_terms(const std::vector<BitTerm>& by_weight) {
    std::vector<BitTerm> by_digit;
    for (int32_t digit = 1; digit <= 128; digit *= 2) {
        uint32_t mask = 0;
        for (const BitTerm& term : by_weight)
            if ((term.weight & digit) != 0) mask |= term.mask;
        if (mask != 0) by_digit.push_back({mask, digit});
    }
    return by_digit.size() < by_weight.size() ? by_digit : by_weight;
}

// The weights of codes in registers. Bits of no group, which pad the last byte, are in no mask.
template <int kWords>
struct Weights {
    BitTerm term[kWords + kMostGroups - 1];  // an end of a group, but for the last one's, cuts one word at most
    uint8_t first[kWords + 1];               // word w: terms first[w] .. first[w + 1] - 1

    explicit Weights(const BitGroups& groups) : term{}, first{} {
        int64_t begin = 0;  // of group g
        int32_t g = 0;
        for (int w = 0; w < kWords; ++w) {
            std::vector<BitTerm> by_weight;
            while (g < groups.G) {
                const int64_t end = begin + groups.bits[g];
                add(by_weight, {bits_of_word(begin, end, w), groups.weights[g]});
                if (end > 32 * (w + 1)) break;
                begin = end;
                ++g;
            }
            first[w + 1] = first[w];
            for (const BitTerm& one : fewest_terms(by_weight)) term[first[w + 1]++] = one;
        }
    }

  private:
    static void add(std::vector<BitTerm>& terms, const BitTerm& more) {
        if (more.mask == 0) return;
        for (BitTerm& term : terms) {
            if (term.weight != more.weight) continue;
            term.mask |= more.mask;
            return;
        }
        terms.push_back(more);
    }
};

// The weights of codes too wide for registers: of each group the words begin .. last, and its bits in these two.
template <>
struct Weights<0> {
    struct Group {
        int32_t begin, last;
        uint32_t begin_mask, last_mask;
        int32_t weight;
    };
    Group group[kMostGroups];
    int32_t G;

    explicit Weights(const BitGroups& groups) : group{}, G(groups.G) {
        int64_t begin = 0;
        for (int32_t g = 0; g < G; begin += groups.bits[g++]) {
            const int64_t end = begin + groups.bits[g], first = begin / 32, last = (end - 1) / 32;
            group[g] = {static_cast<int32_t>(first), static_cast<int32_t>(last), bits_of_word(begin, end, first),
                        bits_of_word(begin, end, last), groups.weights[g]};
        }
    }
};

// Adds the distances of kRows codes from one query.
template <int kWords, int kRows>
__device__ __forceinline__ void add_weighted_distances(const Weights<kWords>& weights,
                                                       const Code<kWords> (&code)[kRows], const Code<kWords>& query,
                                                       int (&distance)[kRows]) {
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
#pragma unroll 1
        for (int t = weights.first[w]; t < weights.first[w + 1]; ++t) {
            const BitTerm term = weights.term[t];
#pragma unroll
            for (int r = 0; r < kRows; ++r)
                distance[r] += term.weight * __popc((code[r].word[w] ^ query.word[w]) & term.mask);
        }
    }
}

// Words in which one group ends and the next begins are read for both.
__device__ __forceinline__ int wide_weighted_distance(const Weights<0>& weights, const uint8_t* a, const uint8_t* b,
                                                      int64_t W, int granule) {
    int distance = 0;
    for (int g = 0; g < weights.G; ++g) {
        const Weights<0>::Group& group = weights.group[g];
        int differing = 0;
        for (int w = group.begin; w <= group.last; ++w) {
            uint32_t bits = load_word(a, w, W, granule) ^ load_word(b, w, W, granule);
            if (w == group.begin) bits &= group.begin_mask;
            if (w == group.last) bits &= group.last_mask;
            differing += __popc(bits);
        }
        distance += group.weight * differing;
    }
    return distance;
}

}  // namespace fasthash
