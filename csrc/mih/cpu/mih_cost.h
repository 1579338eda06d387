// What a search costs, in nanoseconds: what decides between tables and the scan. Only choices hang on it, never
// results. All functions are pure.
//
// The constants were fitted on one machine (below). fh_mih_prices (mih.h) says how much longer things take on another.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "mih/mih.h"

namespace fasthash {

// Tables, one thread. Fitted to range searches of random queries, each once, over 1e8 and 4e7 random codes of 64 bits
// with tables of 21 and 22 bits (AMD EPYC, 4 kB pages, other work on the machine): at radius 11, 4,000 buckets took 395
// microseconds with 48 entries each and 280 with 19. Nearly all of it is waiting for memory and address translation.
// Codes of 128 bits (3e7, radius 17 to 29: 0.2 to 4.5 ms) agree within a third, with 20 to 30 ns a code that is
// verified. The constant is twice that, because pages of mapped files must first be faulted in.
constexpr double kBucketNs = 50;   // finding a bucket and its first cache line
constexpr double kEntryNs = 1;     // an entry of 4 bytes more: 16 ns a cache line
constexpr double kVerifyNs = 60;   // fetching a position and a code
constexpr double kQueryNs = 2000;  // starting, ordering the results

// The scan of N codes of W bytes for Q queries on all threads together. The same machine read 37 GB/s with one thread
// and 43 with four, and compared 250e9 bytes of code a second and thread. With weights of bits the codes are rearranged
// first (one query: 4 to 14e9 bytes a second and thread), and compared 0.7 times as fast.
struct ScanPrice {
    int64_t N, W;
    int32_t threads;
    bool weighted;
    fh_mih_prices prices;

    double ns(int64_t Q) const {
        if (Q == 0) return 0;
        const double bytes = static_cast<double>(N) * static_cast<double>(W);
        const double memory = bytes / std::min(25.0 + 10.0 * threads, 400.0);
        const double arithmetic = bytes * static_cast<double>(Q) / ((weighted ? 175.0 : 250.0) * threads);
        const double rearranging = weighted ? bytes / (20.0 * threads) : 0;
        return std::max(memory * prices.read, (arithmetic + rearranging) * prices.compare);
    }
};

// The part of random fingerprints of `bits` bits that differ from a query's in at most 0, 1, 2 ... of them.
inline std::array<double, 65> near_parts(int32_t bits) {
    std::array<double, 65> parts{};
    double sum = 0;
    for (int32_t ones = 0; ones <= 64; ++ones) {
        if (ones <= bits)
            sum += std::exp(std::lgamma(bits + 1.0) - std::lgamma(ones + 1.0) - std::lgamma(bits - ones + 1.0) -
                            bits * std::log(2.0));
        parts[static_cast<size_t>(ones)] = std::min(sum, 1.0);
    }
    return parts;
}

// How far to go through the tables: `ns` is what one expects to pay; a search that has found all codes within `radius`
// and is not at its end is given up for the scan.
struct MihStop {
    int32_t radius;
    double ns;
};

// The radius to stop at that costs least on average, for a search of which one does not know where it ends.
// ns [n]: what it takes to have found all codes within found [n], both ascending. ends: where such searches ended, one
// as likely as the other; an end beyond the last `found` is out of reach. A search that is stopped takes scan_ns more.
inline MihStop best_stop(const std::vector<int32_t>& found, const std::vector<double>& ns, std::vector<int32_t> ends,
                         double scan_ns) {
    std::sort(ends.begin(), ends.end());
    MihStop best{-1, scan_ns};
    double ended = 0;  // what the searches take that end within, together
    size_t step = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
        while (step < found.size() && found[step] < ends[i]) ++step;
        if (step == found.size()) break;
        ended += ns[step];
        if (i + 1 < ends.size() && ends[i + 1] <= found[step]) continue;
        const double stopped = static_cast<double>(ends.size() - i - 1) * (ns[step] + scan_ns);
        const double mean = (ended + stopped) / static_cast<double>(ends.size());
        if (mean < best.ns || best.radius < 0) best = {found[step], mean};
    }
    return best;
}

// The price by tables from which on a query of a call is better scanned; infinity: scan none. table_ns: price of each
// query on one thread; table_threads queries run at once. The first scanned query reads the codes from memory, and more
// queries add little. So often all queries are scanned, or none. Queries with the same price are treated the same.
inline double scanned_from(std::vector<double> table_ns, int32_t table_threads, const ScanPrice& scan) {
    std::sort(table_ns.begin(), table_ns.end(), std::greater<double>());
    double least = INFINITY, from = INFINITY, rest = 0;
    for (size_t scanned = table_ns.size();; --scanned) {  // the dearest ones
        const double price = scan.ns(static_cast<int64_t>(scanned)) + rest / table_threads;
        const bool splits = scanned == 0 || scanned == table_ns.size() || table_ns[scanned] < table_ns[scanned - 1];
        if (splits && price <= least) least = price, from = scanned == 0 ? INFINITY : table_ns[scanned - 1];
        if (scanned == 0 || std::isinf(table_ns[scanned - 1])) return from;
        rest += table_ns[scanned - 1];
    }
}

}  // namespace fasthash
