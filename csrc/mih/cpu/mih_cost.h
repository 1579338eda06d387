// What a search costs, in nanoseconds: what decides between tables and the scan. Only choices hang on it, never
// results.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fasthash {

// Tables, one thread. Fitted to range searches of random queries, each once, over 1e8 and 4e7 random codes of 64 bits
// with tables of 21 and 22 bits (AMD EPYC, 4 kB pages, other work on the machine): at radius 11, 4,000 buckets took 395
// microseconds with 48 entries each and 280 with 19. Nearly all of it is waiting for memory and address translation.
// Codes of 128 bits (3e7, radius 17 to 29: 0.2 to 4.5 ms) agree within a third, with 20 to 30 ns a code that is
// verified; twice that is reckoned, for mapped files, whose pages have to be faulted in.
constexpr double kBucketNs = 50;    // finding a bucket and its first cache line
constexpr double kEntryNs = 1;      // an entry of 4 bytes more: 16 ns a cache line
constexpr double kVerifyNs = 60;    // fetching a position and a code
constexpr double kQueryNs = 10000;  // starting, ordering the results
constexpr double kCallNs = 80000;   // what a call that gives up costs beside its buckets, most of it in Python

// The scan of N codes of W bytes for Q queries on all threads together. Rather too fast than too slow, so that a search
// gives tables up too early rather than too late: the same machine read 37 GB/s with one thread and 43 with four, and
// compared 250e9 bytes of code a second and thread. With weights of bits the codes are rearranged first (one
// query: 4 to 14e9 bytes a second and thread), and compared 0.7 times as fast.
inline double scan_ns(int64_t N, int64_t W, int64_t Q, int32_t threads, bool weighted) {
    const double bytes = static_cast<double>(N) * static_cast<double>(W);
    const double memory = bytes / std::min(25.0 + 10.0 * threads, 400.0);
    const double arithmetic = bytes * static_cast<double>(Q) / ((weighted ? 175.0 : 250.0) * threads);
    const double rearranging = weighted ? bytes / (20.0 * threads) : 0;
    return std::max(memory, arithmetic + rearranging);
}

}  // namespace fasthash
