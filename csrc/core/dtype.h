// Element types of real-valued arrays.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

enum fh_dtype : int32_t {
    FH_FLOAT32 = 0,
    FH_FLOAT64 = 1,
};
}

namespace fasthash {

// body(T()) for the element type that `dtype` names; FH_INVALID for a number that names none.
template <class Body>
fh_status with_dtype(fh_dtype dtype, const Body& body) {
    switch (dtype) {
        case FH_FLOAT32:
            return body(float());
        case FH_FLOAT64:
            return body(double());
    }
    return fail(FH_INVALID, "the element type must be float32 or float64");
}

}  // namespace fasthash
