// How codes with weighted bits lie in a panel: byte planes.
//
// A plane holds one byte of every code, side by side, so that a vector of bytes is as many codes. A differing bit of
// the byte counts where the plane's mask has it; where groups of several weights meet in a byte, it has several planes.
// Planes of equal weight lie in runs: their counts are added as bytes, and a run's sum is multiplied once.
//
// The panel is [ceil(n / kPlaneBlock)][planes][kPlaneBlock] bytes; what lies beyond code n is 0. A query is [planes]
// words of 4 equal bytes.
//
// Cost for each code and query: a xor, a byte's bit count and an addition for each plane, and about half a vector
// operation more for each run: about the undivided scan's, whatever the number of groups, while they end at bytes.
//
// This header is shared by files compiled for different processors: declarations only, no inline functions.
#pragma once

#include <cstdint>

namespace fasthash {

constexpr int64_t kPlaneBlock = 128;  // codes
// A byte count is at most 8, so that a run's sum fits a signed byte; and the weighted sum of two runs fits 15 bits.
constexpr int64_t kRunPlanes = 15;
constexpr int64_t kRunSum = 16383;

struct PlaneSource {
    int64_t byte;   // of the code
    int64_t plane;  // where it goes
    uint8_t mask;
};

struct PlaneRun {
    int32_t planes, weight;
};

struct PlaneLayout {
    int64_t W;                   // bytes of a code
    int64_t planes;              // of a panel
    const PlaneSource* sources;  // [planes], ascending by byte
    const PlaneRun* runs;        // [runs]: the planes in their order
    int64_t runs_count;          // a multiple of kRunsAtOnce; the last may be empty
    bool wide;                   // distances take more than 16 bits
};

constexpr int64_t kRunsAtOnce = 4;  // their weighted sums fit 16 bits

}  // namespace fasthash
