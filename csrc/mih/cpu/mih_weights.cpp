// Weights of bits for a search through tables: bounds by the lowest weights, and distances by words and masks.
#include "mih/cpu/mih_weights.h"

#include <algorithm>

#include "hamming/groups.h"
#include "mih/cpu/bits_set.h"

namespace fasthash {
namespace {

// The sums of the 0, 1, 2 ... lowest weights.
std::vector<int32_t> lowest_sums(std::vector<int32_t> weights) {
    std::sort(weights.begin(), weights.end());
    std::vector<int32_t> sums{0};
    for (const int32_t weight : weights) sums.push_back(sums.back() + weight);
    return sums;
}

// The place of bit `bit` of packed bytes in the little-endian word that it lies in.
uint64_t bit_mask(int32_t bit) { return uint64_t{1} << (bit % 64 / 8 * 8 + 7 - bit % 8); }

}  // namespace

MihWeights::MihWeights(const fh_hamming_problem& problem, const fh_mih_tables& tables)
    : fingerprint_bytes_(tables.fingerprint_bytes) {
    std::vector<int32_t> weights;  // of each bit
    for (int32_t g = 0; g < problem.G; ++g)
        weights.insert(weights.end(), static_cast<size_t>(problem.group_bits[g]), problem.group_weights[g]);
    if (problem.G == 0) weights.assign(static_cast<size_t>(tables.bits), 1);
    for (const int32_t weight : weights) largest_ += weight;

    const auto add = [](std::vector<Piece>& pieces, int32_t place, int32_t weight) {
        const int64_t byte = place / 64 * 8;
        if (pieces.empty() || pieces.back().byte != byte || pieces.back().weight != weight)
            pieces.push_back({byte, 0, weight});
        pieces.back().mask |= bit_mask(place);
    };
    for (int32_t t = 0; t < tables.m; ++t) {
        const int32_t start = tables.tables[t].start, end = start + tables.tables[t].length;
        std::vector<int32_t> sums = lowest_sums({weights.begin() + start, weights.begin() + end});
        sums.resize(kLongestSubstring + 2, sums.back() + 1);  // no code differs in more bits than there are
        least_.insert(least_.end(), sums.begin(), sums.end());
        if (problem.G == 0) continue;
        const int32_t wanted = std::min(8 * fingerprint_bytes_, tables.bits - (end - start));
        Fingerprint fingerprint;
        std::vector<int32_t> own;
        for (int32_t place = 0; place < wanted; ++place) {
            own.push_back(weights[static_cast<size_t>((end + place) % tables.bits)]);
            add(fingerprint.pieces, place, own.back());
        }
        fingerprint.least = lowest_sums(own);
        fingerprints_.push_back(fingerprint);
    }
    for (int32_t bit = 0; problem.G > 0 && bit < tables.bits; ++bit)
        add(pieces_, bit, weights[static_cast<size_t>(bit)]);
}

int32_t MihWeights::near_limit(int32_t table, int32_t room) const {
    if (!weighted()) return room;
    const std::vector<int32_t>& least = fingerprints_[static_cast<size_t>(table)].least;
    return static_cast<int32_t>(std::upper_bound(least.begin(), least.end(), room) - least.begin()) - 1;
}

int64_t MihWeights::keep_near(int32_t table, const uint8_t* fingerprints, uint64_t query, int32_t room,
                              uint32_t* survivors, int64_t count) const {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint64_t difference = 0;
        std::memcpy(&difference, fingerprints + static_cast<int64_t>(survivors[i]) * fingerprint_bytes_,
                    static_cast<size_t>(fingerprint_bytes_));
        survivors[kept] = survivors[i];
        kept += fingerprint_distance(table, difference ^ query) <= room;
    }
    return kept;
}

int32_t MihWeights::fingerprint_distance(int32_t table, uint64_t difference) const {
    if (!weighted()) return bits_set(difference);
    int32_t distance = 0;
    for (const Piece& piece : fingerprints_[static_cast<size_t>(table)].pieces)
        distance += piece.weight * bits_set(difference & piece.mask);
    return distance;
}

int32_t MihWeights::distance(const uint8_t* difference) const {
    int32_t sum = 0;
    for (const Piece& piece : pieces_) {
        uint64_t word;
        std::memcpy(&word, difference + piece.byte, 8);
        sum += piece.weight * bits_set(word & piece.mask);
    }
    return sum;
}

fh_status check_weights(const fh_hamming_problem& problem, int32_t bits) {
    int32_t largest;
    if (const fh_status status = largest_distance(problem, largest)) return status;
    int64_t sum = 0;
    for (int32_t g = 0; g < problem.G; ++g) sum += problem.group_bits[g];
    if (problem.G > 0 && sum != bits) return fail(FH_INVALID, "mih: the groups must have the bits of a code in all");
    return FH_OK;
}

}  // namespace fasthash
