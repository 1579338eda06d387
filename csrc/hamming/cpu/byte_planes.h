// Groups of weighted bits as byte planes (isa/plane_layout.h).
#pragma once

#include <vector>

#include "hamming/hamming.h"
#include "hamming/isa/plane_layout.h"

namespace fasthash {

// A layout and the memory behind it.
struct BytePlanes {
    std::vector<PlaneSource> sources;
    std::vector<PlaneRun> runs;
    PlaneLayout layout;
};

// The greatest distance: the sum of bits x weight; 8 W where bits are not weighted. FH_INVALID for groups that Python
// should have refused.
fh_status largest_distance(const fh_hamming_problem& problem, int32_t& largest);

// The layout of the problem's groups, G >= 1.
void make_planes(const fh_hamming_problem& problem, int32_t largest, BytePlanes& planes);

}  // namespace fasthash
