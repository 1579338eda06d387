// The plan of top-k in one pass (hamming/cuda/one_pass_plan.h), for the tests.
#include "hamming/cuda/one_pass_plan.h"

using namespace fasthash;

extern "C" {

// {stretches after the sample, rows of the sample, candidates of a query, whether one pass pays}
void fh_one_pass_shape(int64_t Q, int64_t N, int64_t W, int64_t K, int64_t* out) {
    const OnePassShape shape = shape_one_pass(N, K);
    out[0] = shape.order.levels;
    out[1] = shape.order.levels > 0 ? shape.first_rows(N) : N;
    out[2] = shape.room;
    out[3] = one_pass_pays(Q, N, W, K);
}

// stretch[n]: the stretch in which each group of rows is visited, 0 for the sample; -1 where none does. Gives the
// number of groups that were visited twice.
int64_t fh_one_pass_stretches(int64_t N, int64_t K, int32_t* stretch) {
    const VisitOrder order = shape_one_pass(N, K).order;
    const int64_t groups = order.cells(N, 0);
    std::fill(stretch, stretch + groups, -1);
    int64_t twice = 0;
    const auto visit = [&](int64_t group, int32_t number) {
        if (group >= groups) return;
        twice += stretch[group] >= 0;
        stretch[group] = number;
    };
    for (int64_t cell = 0; cell < order.cells(N, order.levels); ++cell) visit(order.group_of(cell, order.levels), 0);
    for (int level = order.levels - 1; level >= 0; --level) {
        constexpr int64_t kUnit = 3;  // any number of cells
        const int64_t cells = order.cells(N, level);
        for (int64_t cell = 0; cell < cells; cell += kUnit)
            order.for_each_range(level, cell, std::min(cell + kUnit, cells), [&](int64_t begin, int64_t end) {
                for (int64_t row = begin; row < end; row += kGroupRows) visit(row / kGroupRows, order.levels - level);
            });
    }
    return twice;
}
}
