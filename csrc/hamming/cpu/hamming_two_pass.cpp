#include "hamming/cpu/hamming_two_pass.h"

#include <algorithm>

namespace fasthash {
namespace {

constexpr int64_t kCountBytes = 16 << 20;  // counts of all chunks of a pass
constexpr int64_t kChunksWanted = 64;

}  // namespace

int64_t TwoPass::queries_at_once(const HammingPlan& plan, int32_t limit) {
    const int64_t bytes = int64_t{limit} * 8 * kChunksWanted;
    return std::clamp<int64_t>(kCountBytes / bytes, 1, std::max<int64_t>(plan.problem->Q, 1));
}

TwoPass::TwoPass(const HammingPlan& plan, int64_t first_query, int64_t Q, int32_t limit, int32_t threads)
    : plan_(plan), grid_(make_grid(plan, first_query, Q, threads)), limit_(limit), limits_(plan.problem->Q, limit) {
    // Fewer, longer chunks where the counts would pass their bound.
    const int64_t most = std::max<int64_t>(1, kCountBytes / (8 * Q * limit));
    if (grid_.chunks > most) {
        grid_.chunk_codes = ((plan.problem->N + most - 1) / most + 63) / 64 * 64;
        grid_.chunks = (plan.problem->N + grid_.chunk_codes - 1) / grid_.chunk_codes;
    }
    counts_.assign(static_cast<size_t>(grid_.chunks * Q * limit), 0);
    for (int32_t worker = 0; worker < grid_.threads; ++worker) scratch_.emplace_back(plan);
}

fh_status TwoPass::count(fh_cancel* cancel) {
    return scan(
        [&](int64_t chunk, int64_t q, const HammingTile&, const uint64_t* hits, int64_t count) {
            int64_t* mine = counts(chunk, q);
            for (int64_t i = 0; i < count; ++i) ++mine[hits[i] >> 32];
        },
        cancel);
}

int64_t TwoPass::found(int64_t q) const {
    int64_t total = 0;
    for (int64_t chunk = 0; chunk < grid_.chunks; ++chunk)
        for (int32_t distance = 0; distance < limit_; ++distance) total += counts(chunk, q)[distance];
    return total;
}

}  // namespace fasthash
