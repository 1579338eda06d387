// Numbering the pairs of a symmetric problem, so that each is computed once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

// The pair i <= j that is number `index` in the order (0,0), (0,1), (1,1), (0,2), (1,2), (2,2), ...
__device__ __forceinline__ void triangular_pair(int64_t index, int64_t* i, int64_t* j) {
    int64_t column = static_cast<int64_t>((sqrt(8.0 * static_cast<double>(index) + 1.0) - 1.0) * 0.5);
    while (column * (column + 1) / 2 > index) --column;  // the square root is off by one at most
    while ((column + 1) * (column + 2) / 2 <= index) ++column;
    *i = index - column * (column + 1) / 2;
    *j = column;
}

}  // namespace fasthash
