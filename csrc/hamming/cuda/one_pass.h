// Top-k of few codes among many in one pass over the database, with thresholds that tighten on the way.
//
// The database is cut into stretches of which each reaches `growth` times as far as what comes before it. The first is
// searched by counting (count.h). In every later one, a query's k-th distance so far is its threshold: codes nearer
// than that, which are about (growth - 1) K in codes of no particular order, become candidates; codes at the threshold
// come too late, since ties go to the lowest position. After the stretch the candidates' distances give the next
// threshold. In the end the candidates within the last threshold are put in order. Whether a code becomes a candidate
// depends on nothing but the codes, so the answer does not depend on the order of threads.
//
// Where the candidates of a query outnumber its room (codes stored from far to near, say) its flag says so, and its
// places are not written: the caller counts.
#pragma once

#include "hamming/cuda/count.h"

namespace fasthash {

// Rows of the first stretch at least, and room for candidates beyond those expected. Little in the emulation, so that
// small problems have several stretches, and queries whose candidates find no room.
#ifdef FASTHASH_EMULATE_CUDA
constexpr int64_t kLeastFirstRows = 128, kSpareKeys = 32, kKeyBytes = 64 << 10;
#else
constexpr int64_t kLeastFirstRows = 16384, kSpareKeys = 1024, kKeyBytes = 128 << 20;
#endif

struct OnePassPlan {
    PlannedScan scan;  // all queries and rows
    int64_t K;
    int64_t first_rows;  // of the first stretch: K at least, a multiple of 128
    int64_t growth;
    int64_t room;   // candidates of a query, the K of the first stretch included
    int64_t batch;  // queries at a time

    bool pays() const;  // against counting all rows
};

OnePassPlan plan_one_pass(const fh_hamming_problem& problem, int64_t K);
int64_t one_pass_bytes(const OnePassPlan& plan);

// Makes the K nearest of the first stretch, distances [Q, K] and ids [Q, K], those of all rows; but where
// overflowed[q], [Q], is set to 1. Workspace: one_pass_bytes.
fh_status one_pass_topk(const OnePassPlan& plan, int32_t* distances, int64_t* ids, int32_t* overflowed, void* workspace,
                        void* stream);

}  // namespace fasthash
