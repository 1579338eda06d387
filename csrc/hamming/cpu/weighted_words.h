// Groups of weighted bits as the words of a panel (isa/scan_table.h).
#pragma once

#include <vector>

#include "hamming/hamming.h"
#include "hamming/isa/scan_table.h"

namespace fasthash {

// The greatest distance: the sum of bits x weight; 8 W where bits are not weighted. FH_INVALID for groups that Python
// should have refused.
fh_status largest_distance(const fh_hamming_problem& problem, int32_t& largest);

// The words of the problem's codes, G >= 1: one for each four bytes of a code, and more where a byte has bits of
// several weights.
std::vector<WeightedWord> weighted_words(const fh_hamming_problem& problem);

}  // namespace fasthash
