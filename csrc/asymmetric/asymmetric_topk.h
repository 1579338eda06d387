// The exact K nearest codes of real-valued queries.
//
// queries [Q, D] float or double, finite, at most 3.4e38 in size; 1 <= D <= 8 W, W <= 8192. database: N codes of W
// bytes, rows `stride` bytes apart (stride >= W); bit d of a code is bit 7 - d % 8 of byte d / 8; bits from D on do not
// count. `mask` as in hamming.h. `scales` [N] are IEEE half floats, finite and >= 0, one number s for each code, or
// null: then s is 1, for cosine 1 / sqrt(D).
//
// With b the bits of a code, x = 2 b - 1, sums over d:
//     l1       sum w_d |q_d - b_d|; w_d is 1 or the weight of the group of bit d (hamming.h); takes no scales
//     dot      -s <q, x>
//     cosine   1 - s <q, x> / |q|; 1 where the squares of q add up to 0
//     l2       |q|^2 - 2 s <q, x> + s^2 D, the squared distance from q to s x; 0 where rounding makes it less
// Groups are for l1 alone.
//
// All is computed in double and rounded to float once, at the end. S, the sum of w_d |q_d - b_d| or of -q_d x_d, is
// added as asymmetric.h says: four bits make a nibble. The squares of q are added in ascending order. A distance is
// (A + B (S s)) + E (s s): A = 0, B = 1, E = 0 for l1 and dot; 1, 1 / |q|, 0 for cosine; |q|^2, 2, D for l2.
//
// Results are ordered by (distance, position), on every instruction set and thread count. Places beyond the eligible
// codes hold distance infinity and id -1.
//
// Cost: each code first meets a filter. The filter computes a lower bound of the distance from integer sums, one byte
// for each nibble of the code (cpu/nibble_bound.h). The few codes that pass are computed in double. Sometimes the
// filter cannot separate codes, for example if all are equal or if the sizes of the queries differ much. Then all codes
// pass, and the search takes about ten times as long. Memory beyond outputs: 48 MiB, or what one query needs, 33 K +
// 300 W bytes.
#pragma once

#include <cstdint>

#include "core/api.h"
#include "core/dtype.h"

extern "C" {

enum fh_asymmetric_metric : int32_t { FH_L1 = 0, FH_DOT = 1, FH_COSINE = 2, FH_L2 = 3 };

struct fh_asymmetric_topk_problem {
    const void* queries;  // [Q, D]
    fh_dtype dtype;
    const uint8_t* database;  // [N, W], rows `stride` bytes apart
    const uint64_t* mask;     // [ceil(N / 64)] or null
    const uint16_t* scales;   // [N] or null
    int64_t Q, D, N, W, stride;
    fh_asymmetric_metric metric;
    const int32_t* group_bits;     // [G]
    const int32_t* group_weights;  // [G], 1..255
    int32_t G;                     // 0: every bit has weight 1; at most 64
};

// distances [Q, K] float, ids [Q, K] int64 (positions in the database); K >= 1.
fh_status fh_asymmetric_topk_cpu(const fh_asymmetric_topk_problem* problem, int64_t K, float* distances, int64_t* ids,
                                 int32_t threads, fh_cancel* cancel);

// The same on CUDA, to the bit: device pointers but for the groups, and a stream and a workspace as in hamming.h. The
// filter is a product of bytes on the tensor cores (cuda/asymmetric_topk_cuda.cu). Workspace: 64 MiB, or what one query
// needs: 144 K + 264 W bytes and 48 KiB, and no more than 12 N + 264 W. K above 65,536 is slow: one block sorts.
int64_t fh_asymmetric_topk_cuda_workspace(const fh_asymmetric_topk_problem* problem, int64_t K);
fh_status fh_asymmetric_topk_cuda(const fh_asymmetric_topk_problem* problem, int64_t K, float* distances, int64_t* ids,
                                  void* workspace, int64_t workspace_bytes, void* stream);
}
