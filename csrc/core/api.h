// What every entry point shares: status codes, cancellation, the last error.
//
// The core is a flat extern "C" interface over raw pointers, so that other languages can bind it. It never prints,
// aborts, or throws across the interface: each function returns an fh_status, and fh_last_error() tells the rest.
#pragma once

#include <cstdint>

extern "C" {

enum fh_status : int32_t {
    FH_OK = 0,
    FH_CANCELLED = 1,   // fh_cancel asked the work to stop; outputs are undefined
    FH_NO_MEMORY = 2,   // host memory ran out
    FH_CUDA_ERROR = 3,  // fh_last_error() names the kernel and the CUDA error
    FH_INVALID = 4,     // a caller's mistake that Python should have refused; fh_last_error() names it
};

// How a caller stops long work. `requested` is read at tile boundaries. `poll`, when set, is called by the calling
// thread at most every 50 ms; a non-zero answer sets `requested`.
struct fh_cancel {
    volatile int32_t requested;
    int32_t (*poll)(void);
};

// The message of the last failure on this thread, "" if there was none. Valid until the next call on this thread.
const char* fh_last_error(void);
}

namespace fasthash {

// Records the message behind fh_last_error() and gives `status` back: `return fail(FH_INVALID, "...")`.
fh_status fail(fh_status status, const char* message);

}  // namespace fasthash
