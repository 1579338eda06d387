// Top-k of few codes among many in one pass over the database, with thresholds that tighten on the way.
//
// The database is visited in stretches, each spread evenly over all of it (one_pass_plan.h). The first, a sample, is
// searched by counting (count.h). In every later one, a query's threshold is the K-th smallest key (distance, position)
// so far, or a little more; codes below it become candidates. After the stretch the candidates give the next threshold,
// and those above it are dropped. In the end the candidates are put in order. Whether a code becomes a candidate
// depends on nothing but the codes, so the answer does not depend on the order of threads.
//
// Where the candidates of a query outnumber its room its flag says so, and its places are not written: the caller
// counts. That takes codes that are near in the very rows that the sample leaves out.
#pragma once

#include "hamming/cuda/count.h"
#include "hamming/cuda/one_pass_plan.h"

namespace fasthash {

struct OnePassPlan {
    PlannedScan scan;  // all queries and rows
    int64_t K;
    OnePassShape shape;
    int64_t batch;  // queries at a time

    bool pays() const;  // against counting all rows
};

OnePassPlan plan_one_pass(const fh_hamming_problem& problem, int64_t K);
int64_t one_pass_bytes(const OnePassPlan& plan);

// Makes the K nearest of the sample, distances [Q, K] and ids [Q, K], those of all rows; but where overflowed[q], [Q],
// is set to 1. Workspace: one_pass_bytes.
fh_status one_pass_topk(const OnePassPlan& plan, int32_t* distances, int64_t* ids, int32_t* overflowed, void* workspace,
                        void* stream);

}  // namespace fasthash
