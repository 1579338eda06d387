// Top-k in one pass (one_pass.h): which rows it visits when, how many candidates it has room for, and when it pays.
// Nothing but arithmetic on sizes, so that tests on the CPU follow it at any size.
//
// Rows are visited a group of consecutive ones at a time, in stretches. The groups of every stretch lie evenly over the
// whole database, so that thresholds hold for codes in any order, stored class by class or sorted. Groups are cells of
// level 0, and 2^shift(l) cells of level l make one of level l + 1. Each cell has one group that is visited first of
// all its groups, which is also that of one of its parts. The first stretch, a sample, visits that of each cell of the
// top level; the next those of all cells one level below that are not visited yet; the last all groups that are left.
// A cell picks the part by a hash: at even distances, rows that repeat every so often would be visited all or none.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

namespace fasthash {

// Rows of a group (a multiple of 32), rows of the sample at least, places for candidates beyond those expected, memory
// for the candidates of a batch of queries, and the bytes of pairs from which on one pass pays (below). Little in the
// emulation, so that small problems have several stretches, and queries whose candidates find no room.
#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kGroupRows = 32, kLeastFirstRows = 128, kSpareKeys = 512, kKeyBytes = 128 << 10, kShortBytes = 0;
#else
constexpr int64_t kGroupRows = 128, kLeastFirstRows = 16384, kSpareKeys = 4096, kKeyBytes = 128 << 20,
                  kShortBytes = 64 << 20;
#endif
constexpr int64_t kMostOnePass = 16384;  // K: placing costs its square

struct VisitOrder {
    int32_t levels;  // 0: rows are visited as they lie
    int32_t growth_shift, top_shift;

    __host__ __device__ int shift(int level) const { return level == levels - 1 ? top_shift : growth_shift; }

    // Of the 2^shift(level) parts of a cell of level + 1: the one whose group is the cell's.
    __host__ __device__ int64_t first_part(int64_t cell, int level) const {
        uint64_t hash = (static_cast<uint64_t>(cell) + 1) * 0x9e3779b97f4a7c15u;
        hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
        return cell << shift(level) | static_cast<int64_t>(hash >> (64 - shift(level)));
    }

    // The group that is visited first in a cell. It may lie behind the last row.
    __host__ __device__ int64_t group_of(int64_t cell, int level) const {
        while (level > 0) cell = first_part(cell, --level);
        return cell;
    }

    // The first group of a cell by position.
    __host__ __device__ int64_t begin_of(int64_t cell, int level) const {
        if (level == 0) return cell;
        return level < levels ? cell << level * growth_shift : cell << ((level - 1) * growth_shift + top_shift);
    }

    // Cells of a level, of which the last may be shorter than the others.
    __host__ __device__ int64_t cells(int64_t N, int level) const {
        const int64_t size = begin_of(1, level) * kGroupRows;
        return (N + size - 1) / size;
    }

    // Calls run(first row, end) for the rows that the stretch of this level visits in the cells [first, last): those of
    // the cells' groups that no earlier stretch has visited. Ascending; the end may lie behind the last row.
    template <class Run>
    __host__ __device__ __forceinline__ void for_each_range(int level, int64_t first, int64_t last,
                                                            const Run& run) const {
        for (int64_t cell = first; cell < last;) {
            const int64_t parent = cell >> shift(level), visited = first_part(parent, level);
            if (cell == visited) {
                ++cell;
                continue;
            }
            int64_t stop = cell + 1;
            if (level == 0) {  // groups side by side
                const int64_t end_of_parent = (parent + 1) << shift(level),
                              most = cell < visited ? visited : end_of_parent;
                stop = last < most ? last : most;
            }
            const int64_t begin = group_of(cell, level) * kGroupRows;
            run(begin, begin + (stop - cell) * kGroupRows);
            cell = stop;
        }
    }
};

struct OnePassShape {
    VisitOrder order;
    int64_t room;  // candidates of a query

    int64_t first_rows(int64_t N) const { return order.cells(N, order.levels) * kGroupRows; }
};

// Candidates that are left where a threshold has been found among many: K, and some that lie close behind.
inline int64_t least_extra_keys(int64_t K) { return std::max<int64_t>(1, K / 8); }

// The sample has 4 K rows at least. A stretch visits 8, 4 or 2 times as many as all before it (the first one after the
// sample up to that): more for small K, where a stretch costs most beside its candidates. Of codes in no particular
// order about (growth - 1) K become candidates. Of near codes that lie side by side no more than the groups of two
// cells do.
inline OnePassShape shape_one_pass(int64_t N, int64_t K) {
    const int32_t shift = K <= 128 ? 3 : K <= 2048 ? 2 : 1;
    const int64_t first_groups = (std::max(kLeastFirstRows, 4 * K) + kGroupRows - 1) / kGroupRows;
    OnePassShape shape = {{0, shift, 0}, 0};
    int64_t ratio = (N + kGroupRows - 1) / kGroupRows / first_groups;
    if (ratio < 2) return shape;
    shape.order.levels = 1;
    for (; ratio >= int64_t{2} << shift; ratio >>= shift) ++shape.order.levels;
    while (shape.order.top_shift < shift && ratio >= 2) {
        ++shape.order.top_shift;
        ratio >>= 1;
    }
    const int64_t growth = int64_t{1} << shift;
    shape.room = K + least_extra_keys(K) + 2 * (growth - 1) * K + kSpareKeys;
    return shape;
}

// Whether one pass is faster than two. Two take 4 launches instead of 12 or more, which decides while counting all
// pairs takes no longer than some launches: up to 64 MiB of codes for one query, as much less as there are more.
inline bool one_pass_pays(int64_t Q, int64_t N, int64_t W, int64_t K) {
    if (K > kMostOnePass || N >= int64_t{1} << 46 || N < 4 * std::max(kLeastFirstRows, 4 * K)) return false;
    const double bytes = static_cast<double>(Q) * static_cast<double>(N) * static_cast<double>(std::max<int64_t>(W, 8));
    return bytes >= static_cast<double>(kShortBytes);
}

}  // namespace fasthash
