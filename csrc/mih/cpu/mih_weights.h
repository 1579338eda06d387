// What a differing bit counts (hamming.h: groups of bits), as a search through tables needs it.
#pragma once

#include <cstdint>
#include <vector>

#include "mih/cpu/substring.h"

namespace fasthash {

class MihWeights {
  public:
    MihWeights() = default;
    // The groups of the problem, which check_weights has let through; without groups every bit counts 1.
    MihWeights(const fh_hamming_problem& problem, const fh_mih_tables& tables);

    bool weighted() const { return !pieces_.empty(); }
    int32_t largest() const { return largest_; }  // no distance is above

    // The least that codes differ by in all where they differ in `ones` bits of a table's substring, 0 <= ones <=
    // length + 1: the sum of so many of its lowest weights.
    int32_t least(int32_t table, int32_t ones) const {
        return least_[static_cast<size_t>(table * (kLongestSubstring + 2) + ones)];
    }

    // The most bits of a table's fingerprint that can differ where all differing ones together count at most `room`.
    int32_t near_limit(int32_t table, int32_t room) const;

    // Weighted only. Of survivors (entries of a table), keeps those whose fingerprints differ from `query` by at most
    // `room`; gives how many.
    int64_t keep_near(int32_t table, const uint8_t* fingerprints, uint64_t query, int32_t room, uint32_t* survivors,
                      int64_t count) const;

    // The distance of two fingerprints of a table, from their difference.
    int32_t fingerprint_distance(int32_t table, uint64_t difference) const;

    // Weighted only: the distance of two codes, from their difference [W + 7], the last 7 bytes zeros.
    int32_t distance(const uint8_t* difference) const;

  private:
    struct Piece {  // bits of one group in one word of the code or of the fingerprint
        int64_t byte;
        uint64_t mask;  // of the word as it is loaded
        int32_t weight;
    };
    struct Fingerprint {
        std::vector<int32_t> least;  // [bits + 1]: as `least` above
        std::vector<Piece> pieces;
    };

    int32_t largest_ = 0;
    int32_t fingerprint_bytes_ = 0;
    std::vector<int32_t> least_;  // [m, kLongestSubstring + 2]
    std::vector<Fingerprint> fingerprints_;
    std::vector<Piece> pieces_;
};

// FH_INVALID, with a message, for groups that Python should have refused: those that hamming.h does not allow, or that
// do not make up exactly `bits` bits.
fh_status check_weights(const fh_hamming_problem& problem, int32_t bits);

}  // namespace fasthash
