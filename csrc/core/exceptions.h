// Where C++ exceptions end: no function of the flat interface throws.
#pragma once

#include <cstdio>
#include <exception>

#include "core/api.h"

namespace fasthash {

// Runs body(), which may throw for want of memory, and turns that into a status that names the op.
template <class Body>
fh_status without_exceptions(const char* op, const Body& body) {
    try {
        return body();
    } catch (const std::exception&) {
        char message[128];
        std::snprintf(message, sizeof(message), "%s: out of host memory", op);
        return fail(FH_NO_MEMORY, message);
    }
}

}  // namespace fasthash
