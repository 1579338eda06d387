// All pairs of packed codes within a radius, and the groups that they make: an exact join, each pair once.
//
// Codes are as in hamming.h: [N, W] bytes, rows `stride` bytes apart, N < 2^32. A join is of one set of codes with
// itself (b is null: pairs i < j) or of two sets (all i, j). Equal codes become one code first, so that a million
// copies cost no more than one; their pairs are only made when they are written.
//
// Which codes are compared: both sides are sorted by a key, and buckets of near keys are joined by the scan of
// hamming.h.
//   ones         the key is the number of ones. In a pair it differs by at most `radius`, so a symmetric scan
//                compares only codes in that band.
//   substrings   m passes, each with a substring of the code as key. The radii r_t of the passes are such that
//                sum (r_t + 1) = radius + 1: a pair within `radius` is within r_t in some substring t (as in mih.h).
//                It is taken only at the first such t. The codes of the pair show which t that is, so the join keeps
//                no list of pairs that it has seen.
// If bits are weighted, the number of ones differs by at most radius / (least weight). No substring spans two groups,
// and sum w_t (r_t + 1) > radius, where w_t is the weight of the bits of substring t. So a few substrings of heavy bits
// are enough. The scan gives weighted distances. The plan is the one whose estimated cost is least. Results are the
// same for every plan, instruction set and number of threads. Memory beyond outputs: 2 padded copies of the codes, 16
// bytes a code, and 12 bytes for each pair of different codes that is kept; at most 64 MiB of buckets.
//
// On CUDA all pairs are compared, each once, and equal codes are not made one: the functions at the end.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

struct fh_pairs_problem {
    const uint8_t* a;  // [Na, W], rows stride_a bytes apart
    const uint8_t* b;  // [Nb, W] or null: a with itself
    int64_t Na, Nb, W, stride_a, stride_b;
    int32_t radius;  // inclusive, >= 0
    int32_t plan;    // 0: the cheapest; -1: ones; m >= 1: m substrings (fewer where the radius or the bits need fewer)
    // Weighted bits, as in hamming.h; G = 0: every bit counts 1. Bits behind the groups must be 0. Not on CUDA.
    const int32_t* group_bits;     // [G]
    const int32_t* group_weights;  // [G]
    int32_t G;
};

struct fh_pairs;  // a join: its codes, and the pairs that were found last

// Copies the codes and finds the equal ones. The addresses in `problem` may go then. *join is for fh_pairs_close.
fh_status fh_pairs_open_cpu(const fh_pairs_problem* problem, fh_pairs** join, int32_t threads, fh_cancel* cancel);
void fh_pairs_close(fh_pairs* join);

// Counts the pairs whose first row i is in [first, last), all of them; where there are at most `most`, also keeps them
// for fh_pairs_write. total [1].
fh_status fh_pairs_find_cpu(fh_pairs* join, int64_t first, int64_t last, int64_t most, int64_t* total, int32_t threads,
                            fh_cancel* cancel);

// The pairs that were kept, ordered by (i, j). ids_a, ids_b, distances [total]. Memory: 8 bytes a pair and row.
fh_status fh_pairs_write_cpu(fh_pairs* join, int64_t* ids_a, int64_t* ids_b, int32_t* distances, int32_t threads,
                             fh_cancel* cancel);

// Groups of rows that a chain of pairs connects, without a list of pairs: unites the rows of every pair in a forest.
// Row i of a is parents[first_a + i], row j of b is parents[first_b + j]. Begin with parents[x] = x; the joins of
// blocks of a larger set may be united one after the other. Parents are never above their children.
fh_status fh_pairs_unite_cpu(fh_pairs* join, int64_t first_a, int64_t first_b, int64_t* parents, int32_t threads,
                             fh_cancel* cancel);
// Makes the parent of every row, parents [N], the lowest row of its tree.
void fh_pairs_roots_cpu(int64_t* parents, int64_t N);

// Stars of a join of one set with itself. representatives [Na]: rows are taken in ascending order; one within the
// radius of earlier representatives joins the lowest of them, any other becomes one. `most`: pairs of different codes
// that may be kept at once; where there are more, rows are taken in smaller blocks.
fh_status fh_pairs_stars_cpu(fh_pairs* join, int64_t most, int64_t* representatives, int32_t threads,
                             fh_cancel* cancel);

// Of a join of two sets: lowest [Nb], the lowest row of a within the radius of each row of b; -1 where there is none.
fh_status fh_pairs_lowest_cpu(fh_pairs* join, int64_t* lowest, int32_t threads, fh_cancel* cancel);

// The K nearest others of every row, ordered by (distance, row), of a join of one set with itself, 1 <= K <= 64.
// distances [Na, K] int32, ids [Na, K] int64. A row with fewer than K others within the radius has ids[row, 0] = -1,
// and the rest of its places are not written. Each pair is compared once. Memory: 8 K bytes a code.
fh_status fh_pairs_knn_cpu(fh_pairs* join, int64_t K, int32_t* distances, int64_t* ids, int32_t threads,
                           fh_cancel* cancel);

// The plan that the last search took: -1 or the number of substrings; 0 where there was none.
int32_t fh_pairs_plan(const fh_pairs* join);

// On CUDA: device pointers, a stream, and a workspace as in hamming.h; stride_a = W, N < 2^31, the plan is ignored.
//
// Counts the pairs, all of them, in counts[0], and keeps up to `room` of them in any order: keys [room], i 2^32 + j,
// and distances [room]. counts [2]; counts[1] is at least the number that were kept. Cost: Na (Na + 1) / 2 or Na Nb
// comparisons, of 64 bits and of multiples of 128 by products of bits, as in the search.
fh_status fh_hamming_pairs_cuda(const fh_pairs_problem* problem, int64_t room, int64_t* keys, int32_t* distances,
                                int64_t* counts, void* stream);

// As fh_pairs_groups_cpu with star 0.
int64_t fh_duplicate_groups_cuda_workspace(int64_t N);
fh_status fh_duplicate_groups_cuda(const fh_pairs_problem* problem, int64_t* representatives, void* workspace,
                                   int64_t workspace_bytes, void* stream);
}
