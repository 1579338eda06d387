// What the asymmetric search on CUDA does with candidates: keeps the K nearest of each query, and writes them in order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "asymmetric/cuda/search.cuh"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/warp.cuh"

namespace fasthash {

constexpr int kSelectThreads = 512;
constexpr int kSelectWarps = kSelectThreads / kWarpSize;

struct Selection {
    Count counts[256];
    unsigned kept[kSelectWarps];
    Count rank, left;  // of the K-th among the pairs that match so far, counted from 1; how many those are
    uint32_t key;      // what is known of it
    int64_t position;
};

// Keeps the K nearest candidates of a query, if it has at least K, and lowers its limit. The whole block of
// kSelectThreads calls it, after a barrier that follows the block's last write to the candidates.
//
// The K-th pair is found digit by digit, of 8 bits, the highest first: the key's four, then the position's. A digit
// costs one pass over the candidates. It ends as soon as one pair is left, with few ties after three or four digits.
__device__ inline void select_nearest(const AsymmetricSearch& s, int64_t q) {
    auto& shared = shared_memory<Selection>();
    uint32_t* keys = s.keys + q * s.room;
    int64_t* positions = s.positions + q * s.room;
    const int64_t count = static_cast<int64_t>(s.taken[q]);
    const int thread = static_cast<int>(threadIdx.x), lane = lane_index(), warp = warp_index();
    if (count < s.K) return;
    __syncthreads();  // the last selection of this block is read
    if (thread == 0) {
        shared.rank = static_cast<Count>(s.K);
        shared.left = static_cast<Count>(count);
        shared.key = 0;
        shared.position = 0;
    }
    __syncthreads();

    int known = 0;  // digits
    const auto matches = [&](uint32_t key, int64_t position) {
        const int in_key = min(known, 4);
        if (static_cast<uint64_t>(key) >> (32 - 8 * in_key) != static_cast<uint64_t>(shared.key) >> (32 - 8 * in_key))
            return false;
        const int unknown = s.position_bytes - (known - 4);
        return known <= 4 || position >> (8 * unknown) == shared.position >> (8 * unknown);
    };
    for (; shared.left > 1 && known < 4 + s.position_bytes; ++known) {
        for (int bin = thread; bin < 256; bin += kSelectThreads) shared.counts[bin] = 0;
        __syncthreads();
        const int shift = known < 4 ? 24 - 8 * known : 8 * (s.position_bytes - (known - 4) - 1);
        for (int64_t i0 = 0; i0 < count; i0 += kSelectThreads) {
            const int64_t i = i0 + thread;
            int digit = 256;  // none
            if (i < count && matches(keys[i], positions[i]))
                digit = static_cast<int>((known < 4 ? static_cast<int64_t>(keys[i]) : positions[i]) >> shift & 255);
            const unsigned peers = __match_any_sync(kAllLanes, digit);  // most distances have the same first digits
            if (digit < 256 && lane == __ffs(static_cast<int>(peers)) - 1)
                atomicAdd(&shared.counts[digit], static_cast<Count>(__popc(peers)));
        }
        __syncthreads();
        if (warp == 0) {  // the bin of the pair that is sought: 8 bins a lane
            Count own = 0;
            for (int bin = 8 * lane; bin < 8 * lane + 8; ++bin) own += shared.counts[bin];
            Count before = warp_inclusive_sum(own) - own;
            const Count rank = shared.rank;
            __syncwarp();
            if (before < rank && rank <= before + own) {
                int bin = 8 * lane;
                for (; before + shared.counts[bin] < rank; ++bin) before += shared.counts[bin];
                shared.rank = rank - before;
                shared.left = shared.counts[bin];
                if (known < 4)
                    shared.key |= static_cast<uint32_t>(bin) << shift;
                else
                    shared.position |= static_cast<int64_t>(bin) << shift;
            }
        }
        __syncthreads();
    }
    for (int64_t i = thread; i < count; i += kSelectThreads) {
        if (!matches(keys[i], positions[i])) continue;
        s.last_keys[q] = keys[i];  // one thread: pairs are distinct
        s.last_positions[q] = positions[i];
    }
    __syncthreads();

    // In place: a turn writes before the places that later turns read, and after a barrier that follows its own reads.
    const uint32_t last = s.last_keys[q];
    const int64_t last_position = s.last_positions[q];
    int64_t written = 0;
    for (int64_t i0 = 0; i0 < count; i0 += kSelectThreads) {
        const int64_t i = i0 + thread, own = min(i, count - 1);
        const uint32_t key = keys[own];
        const int64_t position = positions[own];
        const bool keep = i < count && (key < last || (key == last && position <= last_position));
        const unsigned kept = __ballot_sync(kAllLanes, keep);
        if (lane == 0) shared.kept[warp] = static_cast<unsigned>(__popc(kept));
        __syncthreads();
        int64_t place = written + __popc(kept & lanes_below(lane));
        for (int w = 0; w < kSelectWarps; ++w) {
            if (w < warp) place += shared.kept[w];
            written += shared.kept[w];
        }
        if (keep) {
            keys[place] = key;
            positions[place] = position;
        }
        __syncthreads();
    }
    if (thread == 0) {
        s.taken[q] = static_cast<Count>(s.K);
        set_limit(s, q, last);
    }
    __syncthreads();
}

// One block for each query, after a stretch: the K nearest candidates, or that some were lost.
static __global__ void __launch_bounds__(kSelectThreads)
    asymmetric_select_kernel(const __grid_constant__ AsymmetricSearch s) {
    const int64_t q = blockIdx.x;
    if (s.taken[q] > static_cast<Count>(s.room)) {
        if (threadIdx.x == 0) {
            s.overflowed[q] = 1;
            close_limit(s, q);
        }
        return;
    }
    select_nearest(s, q);
}

// One block for each query: searches one that has lost candidates again, all rows in double, in pieces that find room.
static __global__ void __launch_bounds__(kSelectThreads)
    asymmetric_rescan_kernel(const __grid_constant__ AsymmetricSearch s) {
    const int64_t q = blockIdx.x;
    if (s.overflowed[q] == 0) return;
    __syncthreads();
    if (threadIdx.x == 0) {
        s.taken[q] = 0;
        s.last_keys[q] = kNoKey;
        s.last_positions[q] = INT64_MAX;
    }
    __syncthreads();
    const int64_t piece = s.room - s.K;
    for (int64_t begin = 0; begin < s.N; begin += piece) {
        const int64_t end = min(begin + piece, s.N);
        for (int64_t n = begin + threadIdx.x; n < end; n += kSelectThreads)
            if (s.is_live(n)) consider(s, q, n);
        __syncthreads();
        select_nearest(s, q);
        __syncthreads();
    }
}

__device__ __forceinline__ bool stands_before(uint32_t key, int64_t position, uint32_t other, int64_t other_position) {
    return key < other || (key == other && position < other_position);
}

// Puts n pairs in order: a bitonic sort whose comparisons all put the smaller pair first, so that what lies behind the
// n-th, were it there, would be larger than all and stay.
__device__ inline void sort_pairs(uint32_t* keys, int64_t* positions, int64_t n) {
    int64_t half = 1;
    while (2 * half < n) half *= 2;
    const auto compare = [&](int64_t left, int64_t right) {
        if (right >= n || !stands_before(keys[right], positions[right], keys[left], positions[left])) return;
        const uint32_t key = keys[left];
        const int64_t position = positions[left];
        keys[left] = keys[right];
        positions[left] = positions[right];
        keys[right] = key;
        positions[right] = position;
    };
    for (int64_t size = 2; size <= 2 * half; size *= 2) {
        for (int64_t i = threadIdx.x; i < half; i += kSelectThreads) {
            const int64_t first = i / (size / 2) * size, offset = i % (size / 2);
            compare(first + offset, first + size - 1 - offset);
        }
        __syncthreads();
        for (int64_t step = size / 4; step > 0; step /= 2) {
            for (int64_t i = threadIdx.x; i < half; i += kSelectThreads) {
                const int64_t left = i / step * 2 * step + i % step;
                compare(left, left + step);
            }
            __syncthreads();
        }
    }
}

// One block for each query: writes its candidates in order. They are sorted in shared memory where that holds them.
static __global__ void __launch_bounds__(kSelectThreads)
    asymmetric_write_kernel(const __grid_constant__ AsymmetricSearch s, bool staged,
                            float* __restrict__ distances,  // [Q, K]
                            int64_t* __restrict__ ids) {
    const int64_t q = blockIdx.x, count = min(static_cast<int64_t>(s.taken[q]), s.K);
    uint32_t* keys = s.keys + q * s.room;
    int64_t* positions = s.positions + q * s.room;
    if (staged) {
        int64_t* own_positions = dynamic_shared_memory<int64_t>();
        uint32_t* own_keys = reinterpret_cast<uint32_t*>(own_positions + s.K);
        for (int64_t i = threadIdx.x; i < count; i += kSelectThreads) {
            own_positions[i] = positions[i];
            own_keys[i] = keys[i];
        }
        keys = own_keys;
        positions = own_positions;
    }
    __syncthreads();
    sort_pairs(keys, positions, count);
    for (int64_t i = threadIdx.x; i < s.K; i += kSelectThreads) {
        distances[q * s.K + i] = i < count ? float_of(keys[i]) : INFINITY;
        ids[q * s.K + i] = i < count ? positions[i] : -1;
    }
}

}  // namespace fasthash
