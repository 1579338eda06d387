// Asymmetric distances on the CPU: a table of 16 partial sums for each nibble, four bits, of the query.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "hamming/asymmetric.h"
#include "hamming/cpu/nibble_sums.h"
#include "hamming/groups.h"

namespace fasthash {
namespace {

constexpr int64_t kTaskCodes = 4096;
constexpr int kSide = 8;  // candidates side by side: one addition takes several cycles

// The weight of each bit, [D].
std::vector<double> weights_of(const fh_asymmetric_problem& p) {
    std::vector<double> weights;
    weights.reserve(static_cast<size_t>(p.D));
    for (int32_t g = 0; g < p.G; ++g)
        weights.insert(weights.end(), static_cast<size_t>(p.group_bits[g]), p.group_weights[g]);
    weights.resize(static_cast<size_t>(p.D), 1.0);
    return weights;
}

template <int kCodes>
void look_up(const double* table, const uint8_t* codes, int64_t W, float* out) {
    const uint8_t* rows[kCodes];
    double sums[kCodes];
    for (int c = 0; c < kCodes; ++c) rows[c] = codes + c * W;
    sum_nibbles<kCodes>(table, rows, W, sums);
    for (int c = 0; c < kCodes; ++c) out[c] = static_cast<float>(sums[c]);
}

// One worker's table of a query, and what it is made of.
struct QueryTable {
    explicit QueryTable(const fh_asymmetric_problem& p)
        : zeros(static_cast<size_t>(p.D)), ones(zeros.size()), table(static_cast<size_t>(32 * p.W)) {}
    const double* fill(const double* query, const std::vector<double>& weights, int64_t W) {
        for (size_t d = 0; d < zeros.size(); ++d) {
            zeros[d] = weights[d] * std::fabs(query[d]);
            ones[d] = weights[d] * std::fabs(query[d] - 1);
        }
        fill_nibbles(zeros.data(), ones.data(), static_cast<int64_t>(zeros.size()), W, table.data());
        return table.data();
    }
    std::vector<double> zeros, ones, table;  // [D], [D], [2 W, 16]
};

fh_status distances_of(const fh_asymmetric_problem& p, float* distances, int32_t threads, fh_cancel* cancel) {
    const int64_t parts = (p.C + kTaskCodes - 1) / kTaskCodes;
    const int32_t useful = threads_worth(p.Q * (p.C + 16) * 2 * p.W, threads);
    const std::vector<double> weights = weights_of(p);
    std::vector<QueryTable> tables(static_cast<size_t>(useful), QueryTable(p));
    return parallel_for(p.Q * parts, useful, cancel, [&](int64_t task, int worker) {
        const int64_t q = task / parts, begin = task % parts * kTaskCodes, end = std::min(begin + kTaskCodes, p.C);
        const double* table = tables[worker].fill(p.queries + q * p.D, weights, p.W);
        const uint8_t* codes = p.codes + q * p.C * p.W;
        float* out = distances + q * p.C;
        int64_t c = begin;
        for (; c + kSide <= end; c += kSide) look_up<kSide>(table, codes + c * p.W, p.W, out + c);
        for (; c < end; ++c) look_up<1>(table, codes + c * p.W, p.W, out + c);
    });
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_asymmetric_distances_cpu(const fh_asymmetric_problem* problem, float* distances,
                                                 int32_t threads, fh_cancel* cancel) {
    const fh_asymmetric_problem& p = *problem;
    if (p.Q < 0 || p.C < 0 || p.D < 1 || p.W < 1 || p.W > (int64_t{1} << 27) || p.D > 8 * p.W)
        return fail(FH_INVALID, "fh_asymmetric_distances_cpu: Q and C must be >= 0, D between 1 and 8 W");
    const fh_hamming_problem groups{nullptr, nullptr, nullptr, 0, 0, p.W, p.W, p.group_bits, p.group_weights, p.G};
    int32_t largest;
    if (const fh_status status = largest_distance(groups, largest)) return status;
    int64_t bits = 0;
    for (int32_t g = 0; g < p.G; ++g) bits += p.group_bits[g];
    if (p.G > 0 && bits != p.D)
        return fail(FH_INVALID, "fh_asymmetric_distances_cpu: the groups must have D bits in all");
    return without_exceptions("asymmetric_distances",
                              [&] { return distances_of(p, distances, std::max(threads, 1), cancel); });
}
