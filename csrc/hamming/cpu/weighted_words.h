// Groups of weighted bits as the words of a panel (isa/scan_table.h).
#pragma once

#include <vector>

#include "hamming/hamming.h"
#include "hamming/isa/scan_table.h"

namespace fasthash {

// The words of the problem's codes, G >= 1: one for each four bytes of a code, and more where a byte has bits of
// several weights.
std::vector<WeightedWord> weighted_words(const fh_hamming_problem& problem);

}  // namespace fasthash
