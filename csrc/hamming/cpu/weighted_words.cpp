#include "hamming/cpu/weighted_words.h"

#include <algorithm>

namespace fasthash {
namespace {

constexpr int64_t kWordBytes = 4;

// Bits of one byte that count `weight` each.
struct Part {
    uint8_t mask;
    uint8_t weight;
};
using Parts = std::vector<Part>;  // at most 8: of one byte

void add_bits(Parts& parts, int mask, int weight) {
    for (Part& part : parts) {
        if (part.weight != weight) continue;
        part.mask = static_cast<uint8_t>(part.mask | mask);
        return;
    }
    parts.push_back({static_cast<uint8_t>(mask), static_cast<uint8_t>(weight)});
}

// The same with weights that are powers of two, where that makes fewer parts.
void split_weights(Parts& parts) {
    Parts digits;
    for (const Part& part : parts)
        for (int digit = 1; digit <= part.weight; digit *= 2)
            if (part.weight & digit) add_bits(digits, part.mask, digit);
    if (digits.size() < parts.size()) parts.swap(digits);
}

// Walks over the bytes of a code, whose parts it gives in turn.
class ByteParts {
  public:
    explicit ByteParts(const fh_hamming_problem& problem) : problem_(problem) {}

    void next(Parts& parts) {
        parts.clear();
        for (int first = 0; first < 8 && group_ < problem_.G;) {
            const int bits = static_cast<int>(std::min<int64_t>(8 - first, problem_.group_bits[group_] - used_));
            // Bit 0 of a code is the highest of its first byte.
            add_bits(parts, (0xff >> first) & (0xff << (8 - first - bits)), problem_.group_weights[group_]);
            first += bits;
            used_ += bits;
            if (used_ < problem_.group_bits[group_]) continue;
            ++group_;
            used_ = 0;
        }
        split_weights(parts);
    }

  private:
    const fh_hamming_problem& problem_;
    int32_t group_ = 0, used_ = 0;  // the next bit: of which group, and how many of it have been met
};

// Makes the part byte `place` of the word.
void put(WeightedWord& word, int64_t place, const Part& part) {
    word.mask |= uint32_t{part.mask} << (8 * place);
    word.weights |= uint32_t{part.weight} << (8 * place);
}

constexpr int64_t kSlottedBytes = 8;
struct PlacedPart {
    uint8_t byte;
    Part part;
};

// Words that all have the same weights, each weight in one or several of the four places; as few as can be, none where
// there are more than four weights.
std::vector<WeightedWord> slotted_words(const std::vector<PlacedPart>& all) {
    std::vector<std::vector<PlacedPart>> by_weight;
    for (const PlacedPart& placed : all) {
        const auto same = [&](const std::vector<PlacedPart>& parts) {
            return parts[0].part.weight == placed.part.weight;
        };
        const auto found = std::find_if(by_weight.begin(), by_weight.end(), same);
        if (found != by_weight.end())
            found->push_back(placed);
        else
            by_weight.push_back({placed});
    }
    if (by_weight.size() > kWordBytes) return {};
    // A further place goes to the weight that needs most words.
    std::vector<size_t> places(by_weight.size(), 1);
    const auto needed = [&](size_t i) { return (by_weight[i].size() + places[i] - 1) / places[i]; };
    const auto neediest = [&] {
        size_t most = 0;
        for (size_t i = 1; i < places.size(); ++i)
            if (needed(i) > needed(most)) most = i;
        return most;
    };
    for (size_t left = kWordBytes - by_weight.size(); left > 0; --left) ++places[neediest()];

    std::vector<WeightedWord> words(needed(neediest()), {0, {}, 0, 0});
    size_t place = 0;
    for (size_t i = 0; i < by_weight.size(); place += places[i++]) {
        for (WeightedWord& word : words)
            for (size_t p = place; p < place + places[i]; ++p)
                put(word, static_cast<int64_t>(p), {0, by_weight[i][0].part.weight});
        for (size_t n = 0; n < by_weight[i].size(); ++n) {
            const size_t p = place + n % places[i];
            words[n / places[i]].bytes[p] = by_weight[i][n].byte;
            words[n / places[i]].mask |= uint32_t{by_weight[i][n].part.mask} << (8 * p);
        }
    }
    return words;
}

}  // namespace

std::vector<WeightedWord> weighted_words(const fh_hamming_problem& problem) {
    std::vector<WeightedWord> words;
    std::vector<PlacedPart> all;  // of codes of up to 8 bytes
    ByteParts bytes(problem);
    Parts parts;
    for (int64_t offset = 0; offset < problem.W; offset += kWordBytes) {
        const size_t first = words.size();
        for (int64_t byte = 0; byte < std::min(kWordBytes, problem.W - offset); ++byte) {
            bytes.next(parts);
            for (size_t i = 0; i < parts.size(); ++i) {  // part i of each byte in word i of these four bytes
                if (first + i == words.size()) words.push_back({offset, {0, 1, 2, 3}, 0, 0});
                put(words[first + i], byte, parts[i]);
                if (problem.W <= kSlottedBytes) all.push_back({static_cast<uint8_t>(offset + byte), parts[i]});
            }
        }
    }
    if (words.size() == 1 || all.empty()) return words;
    std::vector<WeightedWord> slotted = slotted_words(all);
    return slotted.empty() || slotted.size() > words.size() ? words : slotted;
}

}  // namespace fasthash
