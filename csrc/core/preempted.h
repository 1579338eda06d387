// Time in which a thread was ready to run and other programs had the processor.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#endif

namespace fasthash {

// Nanoseconds that the calling thread has so waited since its last call, or since it began; 0 where the system does not
// tell. Costs some microseconds: for the moment when time seems to be up.
inline double newly_preempted_ns() {
#if defined(__linux__)
    char text[96];  // nanoseconds on a processor, nanoseconds of waiting for one, time slices
    const int file = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    const ssize_t length = read(file, text, sizeof(text) - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    char* second = nullptr;
    std::strtoull(text, &second, 10);
    const uint64_t waited = std::strtoull(second, nullptr, 10);
    thread_local uint64_t before = 0;
    const uint64_t newly = waited - before;
    before = waited;
    return static_cast<double>(newly);
#else
    return 0;
#endif
}

}  // namespace fasthash
