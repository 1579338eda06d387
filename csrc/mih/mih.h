// Multi-index hashing: exact Hamming search that looks at few codes (Norouzi, Punjani & Fleet, "Fast exact search in
// Hamming space with multi-index hashing", 2014).
//
// A code is cut into m disjoint substrings, and for each there is a table from the value of the substring to the codes
// that have it. A code within distance r of a query is within distance r_t of it in some substring t, whenever the
// radii r_t >= -1 satisfy sum (r_t + 1) = r + 1: else it would differ in at least sum (r_t + 1) > r bits. So all codes
// within r are in the buckets around those of the query. To raise r by one, the search raises the radius of one
// substring by one: the substring whose next buckets hold the fewest codes. (So the search never uses a substring that
// is the same in all codes.) Substrings need not cover the code.
//
// A table holds for each code, in order of (substring, position), its position and a fingerprint: the 32 or 64 bits
// that follow the substring, going round at the end of the code. Bucket and fingerprint bound the distance from below;
// the few codes that pass are read from the database and compared in full, so every result is exact, and bit-identical
// to that of the scan (hamming.h), ties included: the search stops when all codes at the K-th distance have been seen.
// A code is counted only in the first bucket that leads to it. Its substrings show which bucket that is, so the search
// keeps no list of codes that it has seen.
//
// Where the radii r_t are known before the search (range search), a bucket leads to a code only if the bits after the
// substring are near too: cut the code, as a ring, into sections that begin where the substrings do, in which a code
// within r differs by x_t. The sum of x_t - (r_t + 1) is below 0, so from some t on, all sums of 1, 2, 3 ... sections
// are (Qin & Xiao, "Pigeonring: a principle for faster thresholded similarity search", 2018). So codes that differ from
// the query by sum (r_t + 1) or more, over the sections that substring and fingerprint lie in, are skipped here:
// another bucket leads to them if they are wanted. For wide codes this avoids nearly all comparisons in full.
//
// Where bits have weights (hamming.h), a code that differs in r_t + 1 bits of a substring is at least as far as the r_t
// + 1 lowest weights of that substring together. The sums of these over the substrings take the place of sum (r_t + 1),
// and a step makes r grow by the next lowest weight of its substring: the one that costs least for what it gains.
//
// Codes are as in hamming.h: [N, W] bytes, bit i of a code is bit 7 - i % 8 of byte i / 8; N < 2^32. `bits`, 8 W - 7 to
// 8 W, are those that count; the rest are equal in all codes and queries. CPU only.
#pragma once

#include <cstdint>

#include "core/api.h"
#include "hamming/hamming.h"

extern "C" {

// Buckets are values of the bits [start, start + length), the first the most significant; 1 <= length <= 24.
struct fh_mih_table {
    int32_t start, length;
    const uint32_t* offsets;  // [2^length + 1]: bucket b holds the entries offsets[b] .. offsets[b + 1]
    // [N, fingerprint_bytes]: min(8 fingerprint_bytes, bits - length) bits, packed as codes.
    const uint8_t* fingerprints;
    const uint32_t* positions;  // [N], ascending in each bucket
};

struct fh_mih_tables {
    const fh_mih_table* tables;  // [m], 1 <= m <= 64, disjoint
    int32_t m;
    int32_t bits;
    int32_t fingerprint_bytes;  // 4 or 8
};

// The offsets of a table, from the database of the problem. One pass over the codes. Memory: `threads` arrays like
// `offsets`, 8 at most.
fh_status fh_mih_offsets_cpu(const fh_hamming_problem* problem, int32_t start, int32_t length, uint32_t* offsets,
                             int32_t threads, fh_cancel* cancel);

// The entries of the buckets [first, last) of a table whose `offsets` are made: fingerprints
// [offsets[last] - offsets[first], fingerprint_bytes] and positions [the same]; either may be null. Two passes over the
// codes, whatever the number of buckets. Memory as above, for last - first buckets. The same for any thread count.
fh_status fh_mih_fill_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t table, int64_t first,
                          int64_t last, uint8_t* fingerprints, uint32_t* positions, int32_t threads, fh_cancel* cancel);

// How long things take, compared with the model in mih_cost.h: 1 each is the machine that it was fitted on.
struct fh_mih_prices {
    double tables;   // going through buckets
    double read;     // the scan for one query: reading the codes
    double compare;  // the scan for many queries: comparing them
};

// On what terms tables are used. A query that is given up has no results and is for the caller to scan.
struct fh_mih_terms {
    fh_mih_prices prices;
    // Queries that are given up in vain may take so many times as long as their scan, by the model or by the clock.
    // Where budget < 1, queries are also given up at once where the tables are reckoned to take longer than the scan.
    double budget;
    // Of a k-NN search: distances of the K-th nearest code of queries like these, each as likely as the other: how far
    // a search may have to go. None: not known.
    const int32_t* ends;  // [E]
    int64_t E;
};

// What the queries that were not given up took, in nanoseconds, all together.
struct fh_mih_spent {
    double model, clock;
};

// fh_hamming_topk_cpu by tables. bounds [Q] or null: codes further than bounds[q] are not wanted (missing places hold
// the distance of hamming.h and id -1). Groups of bits, where there are some, make up exactly `bits`. visited [Q]:
// entries looked at, -1 for a query that was given up. FH_INVALID where a table turns out not to be one of this
// database: no access is out of bounds, but wrong fingerprints can make it miss codes (the files have checksums).
// Threads share the queries, or the buckets of one query where queries are few and buckets many.
fh_status fh_mih_topk_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int64_t K,
                          const int32_t* bounds, const fh_mih_terms* terms, int32_t* distances, int64_t* ids,
                          int64_t* visited, fh_mih_spent* spent, int32_t threads, fh_cancel* cancel);

struct fh_mih_hits;  // what a range search has found: 8 bytes a result, 16 a query

// Range search by tables, otherwise alike. offsets [Q + 1] as of hamming.h. *hits is for fh_mih_hits_write and
// fh_mih_hits_free.
fh_status fh_mih_range_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t radius,
                           const fh_mih_terms* terms, int64_t* offsets, int64_t* visited, fh_mih_spent* spent,
                           fh_mih_hits** hits, int32_t threads, fh_cancel* cancel);

// Writes distances and ids [offsets[Q]], each query's ordered by (distance, id).
void fh_mih_hits_write(const fh_mih_hits* hits, int32_t* distances, int64_t* ids);
void fh_mih_hits_free(fh_mih_hits* hits);
}
