#include "core/api.h"

#include <cstring>

namespace {
thread_local char last_error[512] = "";
}

extern "C" const char* fh_last_error(void) { return last_error; }

namespace fasthash {

fh_status fail(fh_status status, const char* message) {
    std::strncpy(last_error, message, sizeof(last_error) - 1);
    return status;
}

}  // namespace fasthash
