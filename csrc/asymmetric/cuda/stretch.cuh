// The order in which the asymmetric search on CUDA visits the database: granules of rows, in stretches that sample
// evenly.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace fasthash {

constexpr int64_t kGranuleRows = 64;
constexpr int64_t kGrowth = 8;

// The granules of a stretch. Level 0 is all of them. Of each 8 neighbours of a level one goes to the next level, by a
// hash, so that no period of the database matches the sample. A stretch is a level without the next.
struct Stretch {
    int level;
    bool last_level;  // all of the level
    int64_t size;     // granules of the level
    int64_t count;    // granules of the stretch

    // Which of 8 neighbours goes to the next level.
    static __device__ __forceinline__ int chosen(int64_t group, int level) {
        const uint64_t hash =
            (static_cast<uint64_t>(group) + static_cast<uint64_t>(level) * 0x2545f4914f6cdd1du) * 0x9e3779b97f4a7c15u;
        return static_cast<int>(hash >> 61);
    }
};

// A walk over the granules of a stretch, from number `begin` on. Their order does not matter to the result.
struct Walk {
    int64_t number, group, whole;  // the next granule; its group of 7; granules in whole groups
    int member;                    // of its group

    __device__ __forceinline__ Walk(const Stretch& stretch, int64_t begin)
        : number(begin),
          group(begin / (kGrowth - 1)),
          whole(stretch.size / kGrowth * (kGrowth - 1)),
          member(static_cast<int>(begin % (kGrowth - 1))) {}

    __device__ __forceinline__ int64_t next(const Stretch& stretch) {
        int64_t x = number;
        if (!stretch.last_level) {
            if (number < whole)
                x = kGrowth * group + member + (member >= Stretch::chosen(group, stretch.level) ? 1 : 0);
            else
                x += stretch.size / kGrowth;  // behind the last whole group, all of whose 8 lie before
        }
        ++number;
        if (++member == kGrowth - 1) {
            member = 0;
            ++group;
        }
#pragma unroll 1
        for (int below = stretch.level; below > 0; --below) x = kGrowth * x + Stretch::chosen(x, below - 1);
        return x;
    }
};

}  // namespace fasthash
