#include "pairs/cpu/join_plan.h"

#include <algorithm>
#include <cmath>

#include "mih/cpu/bits_set.h"
#include "mih/cpu/substring.h"

namespace fasthash {
namespace {

// Nanoseconds on one core with AVX-512. The plans differ by factors where the choice matters, so other processors and
// instruction sets choose nearly alike.
constexpr double kSort = 40;         // a code, by a key
constexpr double kRow = 30;          // one row against one panel
constexpr double kPairWord = 0.12;   // a 64-bit word of a pair
constexpr double kBucket = 30;       // a near bucket, looked up
constexpr double kCopiedWord = 1.5;  // a word of a code of a near bucket, laid out
constexpr double kTriangle = 24;     // codes that a row of a bucket meets in vain
constexpr double kFewPairs = 4e7;    // less than some milliseconds: not worth an estimate
constexpr int64_t kSample = 1024;    // codes of each side
constexpr int64_t kMostSubstrings = 64;

std::vector<uint32_t> sampled_keys(const CodeRows& codes, const JoinPass& pass) {
    const int64_t count = std::min(kSample, codes.N());
    std::vector<uint32_t> keys(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        const uint8_t* row = codes.row(i * codes.N() / count);
        keys[i] = 0;
        if (!pass.by_ones())
            keys[i] = static_cast<uint32_t>(read_bits(row, pass.start, pass.length));
        else
            for (int64_t byte = 0; byte < codes.bytes(); byte += 4) {
                uint32_t word;
                std::memcpy(&word, row + byte, 4);
                keys[i] += static_cast<uint32_t>(bits_set(word));
            }
    }
    return keys;
}

// The part of all pairs that a pass compares: what a sample shows, and no less than keys that are spread evenly.
double compared_part(const CodeRows& a, const CodeRows& b, const JoinPass& pass) {
    const std::vector<uint32_t> x = sampled_keys(a, pass), y = &a == &b ? x : sampled_keys(b, pass);
    int64_t near = 0, pairs = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        const size_t first = &a == &b ? i + 1 : 0;
        for (size_t j = first; j < y.size(); ++j) {
            const int32_t apart = pass.by_ones() ? std::abs(static_cast<int32_t>(x[i]) - static_cast<int32_t>(y[j]))
                                                 : bits_set(x[i] ^ y[j]);
            near += apart <= pass.radius;
        }
        pairs += static_cast<int64_t>(y.size() - std::min(first, y.size()));
    }
    const double seen = pairs == 0 ? 0 : static_cast<double>(near) / static_cast<double>(pairs);
    if (pass.by_ones()) return seen;
    return std::max(seen, static_cast<double>(near_keys(pass.length, pass.radius)) /
                              static_cast<double>(int64_t{1} << pass.length));
}

double cost(const CodeRows& a, const CodeRows& b, const std::vector<JoinPass>& passes, int64_t code_words) {
    const double rows = static_cast<double>(a.N()), others = static_cast<double>(b.N());
    const double words = static_cast<double>(code_words), half = &a == &b ? 0.5 : 1;
    double sum = 0;
    for (const JoinPass& pass : passes) {
        const double pairs = rows * others * half * compared_part(a, b, pass);
        sum += (rows + (&a == &b ? 0 : others)) * (kSort + words) + rows * (kRow + kTriangle * kPairWord * words) +
               pairs * kPairWord * words;
        if (pass.by_ones()) continue;
        const double keys = static_cast<double>(near_keys(pass.length, pass.radius));
        const double filled = std::min(rows, static_cast<double>(int64_t{1} << pass.length));
        sum +=
            half * keys *
            (filled * kBucket + filled / static_cast<double>(int64_t{1} << pass.length) * others * kCopiedWord * words);
    }
    return sum;
}

// A bucket for each code, about.
int32_t longest_substring(int64_t N) {
    int32_t longest = 1;
    while (longest < kLongestSubstring && int64_t{1} << longest < N) ++longest;
    return longest;
}

// Keeps the near keys of a pass few. A part of a substring differs in no more bits than the whole.
void shorten(JoinPass& pass) {
    while (near_keys(pass.length, pass.radius) >= kTooManyKeys) --pass.length;
}

// Each group is cut into substrings of one length, about, at least m in all. Radii then grow from -1, no pass, until
// sum w_t (r_t + 1) > radius: the next is that which adds the least part of all pairs for each unit of its weight.
std::vector<JoinPass> weighted_passes(int64_t m, int64_t N, const BitGroups& groups, int32_t radius) {
    const auto substrings = [&](int32_t length) {
        int64_t count = 0;
        for (const int32_t bits : groups.bits) count += bits / length;
        return count;
    };
    int32_t length = *std::max_element(groups.bits.begin(), groups.bits.end());
    while (length > 1 && substrings(length) < m) --length;
    const int32_t longest = longest_substring(N);
    std::vector<JoinPass> all;
    std::vector<int32_t> weights;
    int32_t start = 0;
    for (size_t g = 0; g < groups.bits.size(); start += groups.bits[g++]) {
        const int32_t bits = groups.bits[g], count = std::max(bits / length, 1);
        for (int32_t t = 0; t < count; ++t) {
            const int32_t first = static_cast<int32_t>(int64_t{t} * bits / count);
            const int32_t last = static_cast<int32_t>(int64_t{t + 1} * bits / count);
            all.push_back({start + first, std::min(last - first, longest), -1});
            weights.push_back(groups.weights[g]);
        }
    }
    for (int64_t reached = 0; reached <= radius;) {
        size_t best = all.size();
        double least = 0;
        for (size_t t = 0; t < all.size(); ++t) {
            const int32_t next = all[t].radius + 1;
            if (next > all[t].length) continue;
            const int64_t keys = near_keys(all[t].length, next) - (next == 0 ? 0 : near_keys(all[t].length, next - 1));
            const double price = std::ldexp(static_cast<double>(keys), -all[t].length) / weights[t];
            if (best < all.size() && price >= least) continue;
            best = t;
            least = price;
        }
        if (best == all.size()) break;  // each pass compares all pairs
        ++all[best].radius;
        reached += weights[best];
    }
    std::vector<JoinPass> passes;
    for (JoinPass& pass : all) {
        if (pass.radius < 0) continue;
        shorten(pass);
        passes.push_back(pass);
    }
    return passes;
}

// Whether all passes are of substrings of radius `most` or less.
bool are_near(const std::vector<JoinPass>& passes, int64_t most) {
    return std::all_of(passes.begin(), passes.end(), [&](const JoinPass& pass) { return pass.radius <= most; });
}

}  // namespace

int64_t near_keys(int32_t length, int32_t radius) {
    int64_t keys = 1, of_distance = 1;
    for (int32_t d = 1; d <= std::min(radius, length); ++d) {
        of_distance = of_distance * (length - d + 1) / d;
        keys += of_distance;
        if (keys >= kTooManyKeys) return kTooManyKeys;
    }
    return keys;
}

std::vector<JoinPass> passes_of_plan(int32_t plan, int64_t N, const BitGroups& groups, int32_t radius) {
    if (!groups.bits.empty()) {
        if (plan < 0) return {{0, 0, radius / *std::min_element(groups.weights.begin(), groups.weights.end())}};
        return weighted_passes(plan, N, groups, radius);
    }
    const int64_t bits = 8 * groups.W;
    if (plan < 0) return {{0, 0, radius}};
    const int32_t longest = longest_substring(N);
    const int64_t m = std::min({int64_t{plan}, int64_t{radius} + 1, bits});
    std::vector<JoinPass> passes;
    for (int64_t t = 0; t < m; ++t) {  // radius + 1 = sum (r_t + 1), the parts as even as can be
        const int64_t start = t * bits / m, end = (t + 1) * bits / m;
        const int64_t share = (radius + 1) * (t + 1) / m - (radius + 1) * t / m;
        JoinPass pass{static_cast<int32_t>(start), static_cast<int32_t>(std::min<int64_t>(end - start, longest)),
                      static_cast<int32_t>(share - 1)};
        shorten(pass);
        passes.push_back(pass);
    }
    return passes;
}

std::vector<JoinPass> cheapest_passes(const CodeRows& a, const CodeRows& b, const BitGroups& groups, int32_t radius,
                                      int64_t words) {
    const int64_t N = std::max(a.N(), b.N()), most = std::min(kMostSubstrings, 8 * groups.W);
    std::vector<JoinPass> best = passes_of_plan(-1, N, groups, radius);
    if (static_cast<double>(a.N()) * static_cast<double>(b.N()) < kFewPairs) return best;
    double least = cost(a, b, best, words);
    for (int64_t each = 1; each <= 3; ++each) {  // substrings of radius 0, 1 or 2
        int64_t m = groups.bits.empty() ? (int64_t{radius} + each) / each : 1;
        std::vector<JoinPass> passes;
        for (; m <= most; ++m) {  // where bits are weighted: the first number of substrings that is enough
            passes = passes_of_plan(static_cast<int32_t>(m), N, groups, radius);
            if (groups.bits.empty() || are_near(passes, each - 1)) break;
        }
        if (m > most) continue;
        const double price = cost(a, b, passes, words);
        if (price >= least) continue;
        least = price;
        best = passes;
    }
    return best;
}

}  // namespace fasthash
