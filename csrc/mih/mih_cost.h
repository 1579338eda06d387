// What a search costs, in nanoseconds: what decides between tables and the scan. Only choices hang on it, never
// results.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fasthash {

// Tables, one thread. To be measured.
constexpr double kBucketNs = 25;   // finding a bucket and its first cache line
constexpr double kEntryNs = 0.35;  // comparing a fingerprint, for each 4 bytes
constexpr double kVerifyNs = 30;   // fetching a code and its position, comparing it in full
constexpr double kQueryNs = 2000;  // starting, ordering the results

// The scan of N codes of W bytes for Q queries on all threads together.
inline double scan_ns(int64_t N, int64_t W, int64_t Q, int32_t threads) {
    const double bytes = static_cast<double>(N) * static_cast<double>(W);
    const double memory = bytes / std::min(12.0 * threads, 60.0);
    const double arithmetic = bytes * static_cast<double>(Q) / 80.0 / threads;
    return 10000 + std::max(memory, arithmetic);
}

}  // namespace fasthash
