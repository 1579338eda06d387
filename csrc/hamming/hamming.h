// Exact Hamming search over packed codes.
//
// Codes are W bytes each (W >= 1); the distance of two codes is the number of differing bits, 0..8 W. Where the bits
// are in weighted groups (G >= 1) it is the sum over groups of weight x differing bits. `largest` below is the greatest
// distance: 8 W, or the sum of bits x weight. Groups are contiguous, the first holds the first bits of a code: the
// highest bits of its first byte. The groups hold 8 W - 7 to 8 W bits; bits after them do not count.
// Queries are contiguous, [Q, W]. The database has N rows `stride` bytes apart (stride >= W; no alignment is assumed),
// so that a column slice of a larger array needs no copy. `mask` is null (all codes are eligible) or a bitmap of
// ceil(N / 64) words: code n is eligible when bit n % 64 of word n / 64 is set; bits from N on are 0.
//
// Results are ordered by (distance, position): among equal distances the lowest position comes first, on every device,
// instruction set and thread count. All functions are exact and bit-identical everywhere.
//
// CPU functions take host pointers and split the database, not the queries, over threads where that helps, so that one
// query uses every core. CUDA functions take device pointers, a stream (cudaStream_t) and a workspace of at least the
// number of bytes that the matching *_workspace function gives, 256-byte aligned; they do not synchronise.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

struct fh_hamming_problem {
    const uint8_t* queries;   // [Q, W]
    const uint8_t* database;  // [N, W], rows `stride` bytes apart
    const uint64_t* mask;     // [ceil(N / 64)] or null
    int64_t Q, N, W, stride;
    const int32_t* group_bits;     // [G], host memory on every device, read before the call returns
    const int32_t* group_weights;  // [G], the same: 1..255
    int32_t G;                     // 0: every bit counts 1; at most 64
};

// The K nearest codes of each query, K >= 1. Places beyond the eligible codes hold distance largest + 1 and id -1.
// distances [Q, K] int32, ids [Q, K] int64 (positions in the database).
// Memory beyond outputs: 64 MiB, or what one query needs: O(K + largest) for each thread.
fh_status fh_hamming_topk_cpu(const fh_hamming_problem* problem, int64_t K, int32_t* distances, int64_t* ids,
                              int32_t threads, fh_cancel* cancel);

// How many eligible codes lie within `radius` (inclusive, >= 0) of each query. counts [Q].
fh_status fh_hamming_range_count_cpu(const fh_hamming_problem* problem, int32_t radius, int64_t* counts,
                                     int32_t threads, fh_cancel* cancel);

// The codes within `radius` of each query, ordered by (distance, position): query q's at offsets[q] .. offsets[q + 1],
// where offsets [Q + 1] are the running sums of the counts above. distances [T] int32, ids [T] int64.
fh_status fh_hamming_range_fill_cpu(const fh_hamming_problem* problem, int32_t radius, const int64_t* offsets,
                                    int32_t* distances, int64_t* ids, int32_t threads, fh_cancel* cancel);

// All distances, [Q, N] int32. The mask is ignored.
fh_status fh_hamming_distances_cpu(const fh_hamming_problem* problem, int32_t* distances, int32_t threads,
                                   fh_cancel* cancel);

// For each query and distance d in 0..largest: counts[q, d] = number of codes at distance d, [Q, largest + 1] int64;
// and, where sums is not null, sums[q, d] = sum of class_weights[q, labels[n]] over those codes, [Q, largest + 1]
// double. The mask must be null. labels [N] in 0..C-1 (checked by the caller); class_weights [Q, C]. Sums are added in
// ascending order of position: bit-identical for every thread count.
fh_status fh_hamming_histogram_cpu(const fh_hamming_problem* problem, const int64_t* labels,
                                   const double* class_weights, int64_t C, int64_t* counts, double* sums,
                                   int32_t threads, fh_cancel* cancel);

// A mask's words from N booleans, one byte each: 0, or anything else for true.
fh_status fh_hamming_mask_cpu(const uint8_t* allowed, int64_t N, uint64_t* mask, int32_t threads);

// The same on CUDA. `workspace` and `workspace_bytes` as said above; sizes depend on the problem's sizes and groups
// alone. Top-k reads the database once where Q N W is large, K at most 16,384 and small against N, and largest at most
// 131,070 (cuda/one_pass_plan.h; three times where candidates find no room, cuda/one_pass.h), else twice. Sums are
// class_weights[q, c] x count added in one order of the classes: the same bits every time, the CPU's up to rounding.
int64_t fh_hamming_topk_cuda_workspace(const fh_hamming_problem* problem, int64_t K);
fh_status fh_hamming_topk_cuda(const fh_hamming_problem* problem, int64_t K, int32_t* distances, int64_t* ids,
                               void* workspace, int64_t workspace_bytes, void* stream);
// The fill needs the workspace as the count of the same problem left it, and may be called once.
int64_t fh_hamming_range_cuda_workspace(const fh_hamming_problem* problem, int32_t radius);
fh_status fh_hamming_range_count_cuda(const fh_hamming_problem* problem, int32_t radius, int64_t* counts,
                                      void* workspace, int64_t workspace_bytes, void* stream);
fh_status fh_hamming_range_fill_cuda(const fh_hamming_problem* problem, int32_t radius, const int64_t* offsets,
                                     int32_t* distances, int64_t* ids, void* workspace, int64_t workspace_bytes,
                                     void* stream);
fh_status fh_hamming_mask_cuda(const uint8_t* allowed, int64_t N, uint64_t* mask, void* stream);
fh_status fh_hamming_distances_cuda(const fh_hamming_problem* problem, int32_t* distances, void* stream);
int64_t fh_hamming_histogram_cuda_workspace(const fh_hamming_problem* problem, int64_t C);
fh_status fh_hamming_histogram_cuda(const fh_hamming_problem* problem, const int64_t* labels,
                                    const double* class_weights, int64_t C, int64_t* counts, double* sums,
                                    void* workspace, int64_t workspace_bytes, void* stream);
}
