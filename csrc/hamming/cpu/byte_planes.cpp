#include "hamming/cpu/byte_planes.h"

#include <algorithm>

namespace fasthash {
namespace {

constexpr int32_t kMostGroups = 64, kMostWeight = 255;

// Bits of one byte that count `weight` each.
struct Part {
    int64_t byte;
    uint8_t mask;
    int32_t weight;
};

// Adds bits to the part of that byte and weight, which is among the last ones if it is there.
void add_bits(std::vector<Part>& parts, const Part& part) {
    for (auto other = parts.rbegin(); other != parts.rend() && other->byte == part.byte; ++other) {
        if (other->weight != part.weight) continue;
        other->mask |= part.mask;
        return;
    }
    parts.push_back(part);
}

// Ascending by byte, one for each weight in it.
std::vector<Part> parts_by_weight(const fh_hamming_problem& p) {
    std::vector<Part> parts;
    int64_t begin = 0;
    for (int32_t g = 0; g < p.G; ++g) {
        const int64_t end = begin + p.group_bits[g];
        for (int64_t byte = begin / 8; byte * 8 < end; ++byte) {
            const int64_t first = std::max<int64_t>(begin - byte * 8, 0), last = std::min<int64_t>(end - byte * 8, 8);
            // Bit 0 of a code is the highest of its first byte.
            const int mask = (0xff >> first) & (0xff << (8 - last));
            add_bits(parts, {byte, static_cast<uint8_t>(mask), p.group_weights[g]});
        }
        begin = end;
    }
    return parts;
}

// The same with weights that are powers of two, at most 8 for each byte: fewer where many weights meet in a byte.
std::vector<Part> parts_by_digit(const std::vector<Part>& parts) {
    std::vector<Part> digits;
    for (const Part& part : parts)
        for (int32_t digit = 1; digit <= part.weight; digit *= 2)
            if (part.weight & digit) add_bits(digits, {part.byte, part.mask, digit});
    return digits;
}

}  // namespace

fh_status largest_distance(const fh_hamming_problem& p, int32_t& largest) {
    if (p.G < 0 || p.G > kMostGroups) return fail(FH_INVALID, "Hamming search: at most 64 groups of bits");
    int64_t bits = 0, sum = 0;
    for (int32_t g = 0; g < p.G; ++g) {
        const int64_t weight = p.group_weights[g];
        if (p.group_bits[g] < 1 || weight < 1 || weight > kMostWeight)
            return fail(FH_INVALID, "Hamming search: groups must have at least 1 bit, and weights 1 to 255");
        bits += p.group_bits[g];
        sum += p.group_bits[g] * weight;
    }
    if (p.G == 0) bits = sum = 8 * p.W;
    if (bits < 8 * p.W - 7 || bits > 8 * p.W)
        return fail(FH_INVALID, "Hamming search: the groups must hold 8 W - 7 to 8 W bits");
    if (sum >= INT32_MAX) return fail(FH_INVALID, "Hamming search: bits x weight must add up to less than 2^31 - 1");
    largest = static_cast<int32_t>(sum);
    return FH_OK;
}

void make_planes(const fh_hamming_problem& problem, int32_t largest, BytePlanes& planes) {
    std::vector<Part> parts = parts_by_weight(problem);
    std::vector<Part> digits = parts_by_digit(parts);
    if (digits.size() < parts.size()) parts.swap(digits);

    int64_t counts[kMostWeight + 1] = {}, place[kMostWeight + 1], plane = 0;
    for (const Part& part : parts) ++counts[part.weight];
    for (int32_t weight = 1; weight <= kMostWeight; ++weight) {
        place[weight] = plane;
        plane += counts[weight];
        const int64_t most = std::min(kRunPlanes, kRunSum / (8 * weight));
        for (int64_t left = counts[weight]; left > 0; left -= most)
            planes.runs.push_back({static_cast<int32_t>(std::min(left, most)), weight});
    }
    planes.runs.resize((planes.runs.size() + kRunsAtOnce - 1) / kRunsAtOnce * kRunsAtOnce, {0, 0});
    for (const Part& part : parts) planes.sources.push_back({part.byte, place[part.weight]++, part.mask});
    planes.layout = {
        problem.W,           plane, planes.sources.data(), planes.runs.data(), static_cast<int64_t>(planes.runs.size()),
        largest > UINT16_MAX};
}

}  // namespace fasthash
