// The nearest-neighbour search by wide tiles: float32, few neighbours. One block computes one tile of pairs and offers
// its best to the lists of the tile's rows, which are in global memory; where x is searched in itself, each pair of
// tiles is computed once and offered to the rows of both.
//
// Manhattan distances are computed as they are. Of Euclidean ones the tensor cores give a lower bound, and only pairs
// that it lets through are computed, from differences. The bound: with x' the TF32 form of x less the centre,
//   |x - y| >= |x' - y'| - |x - x'| - |y - y'|,   |x' - y'|^2 = |x'|^2 + |y'|^2 - 2 x' y' up to squared_error(D).
//
// A list of K entries key << 32 | index takes a candidate by K atomic minima, each of which passes the greater of the
// two values on to the next entry: whatever the order of all calls, entry 0 ends as the least, entry 1 as the least of
// the rest, and so on. So the answer does not depend on the schedule, and ties go to the lowest index.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/triangle.cuh"
#include "neighbors/cuda/wide_tile.cuh"

namespace fasthash {
namespace {

using Entry = unsigned long long;

constexpr int64_t kMostTileNeighbors = 8;  // more are found faster by lists in shared memory
#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kLeastTiles = 2, kLeastTileRows = 1;
#else
constexpr int64_t kLeastTiles = 64;                // fewer leave most multiprocessors without work
constexpr int64_t kLeastTileRows = kTileRows + 1;  // of either side: fewer waste less in tiles of 64 x 64
#endif
constexpr int64_t kMostTileColumns = 1 << 18;  // what squared_error() is good for
constexpr Entry kFreeEntry = ~Entry(0);
constexpr Entry kNoEntry = Entry(0xffffffffu) << 32;  // what is found comes before it
constexpr int kRowsOfWarp = kWideRows / (kWideThreads / kWarpSize);
constexpr int64_t kCenterRows = 16;  // a rough centre does, and its kernel is all latency
constexpr int kRowThreads = 256;

int64_t wide_tiles(int64_t rows) { return ceil_div(rows, kWideRows); }
int64_t tiles_of_batch(const Search<float>& search) {
    const int64_t rows = wide_tiles(search.N);
    return search.self ? rows * (rows + 1) / 2 : rows * wide_tiles(search.M);
}

struct TileSearches {
    Search<float> of[2];
    int64_t row_tiles[2];
    int64_t tiles[2];  // of one batch
    int64_t tasks[2];
};

// Forms of rows, for p = 2.

// One thread for each column of each batch of y: the mean of up to kCenterRows rows, of the finite values there.
__global__ void __launch_bounds__(kRowThreads)
    nearest_centers_kernel(const __grid_constant__ TileSearches tiles, int64_t first_columns) {
    const bool second = grid_thread() >= first_columns;
    const Search<float>& search = tiles.of[second];
    const int64_t column = grid_thread() - (second ? first_columns : 0);
    if (column >= search.y_batches() * search.D) return;
    const float* y = search.y + column / search.D * search.y_stride + column % search.D;
    const int64_t rows = min(search.M, kCenterRows), step = search.M / rows * search.D;
    double sum = 0;
#pragma unroll 8
    for (int64_t i = 0; i < rows; ++i) {
        const float value = y[i * step];
        if (is_finite(value)) sum += static_cast<double>(value);
    }
    search.centers[column] = static_cast<float>(sum / static_cast<double>(rows));
}

// One warp for each row of x, then of y where it is not x. search.bad learns of rows that are not finite.
__global__ void __launch_bounds__(kRowThreads)
    nearest_forms_kernel(const __grid_constant__ TileSearches tiles, int64_t first_rows) {
    const bool second = grid_warp() >= first_rows;
    const Search<float>& search = tiles.of[second];
    int64_t row = grid_warp() - (second ? first_rows : 0);
    const int64_t x_rows = search.L * search.N, y_rows = search.self ? 0 : search.y_batches() * search.M;
    if (row >= x_rows + y_rows) return;
    const bool of_x = row < x_rows;
    if (!of_x) row -= x_rows;
    const int64_t batch = row / (of_x ? search.N : search.M);
    const float* values = (of_x ? search.x : search.y) + row * search.D;
    const float* center = search.centers + (search.y_batches() == 1 ? 0 : batch * search.D);
    double norm = 0, apart = 0;
    bool finite = true;
    for (int64_t d = lane_index(); d < search.D; d += kWarpSize) {
        const float form = round_to_tf32(values[d] - center[d]);
        const double left = static_cast<double>(values[d]) - center[d] - form;
        finite = finite && is_finite(values[d]);
        norm += static_cast<double>(form) * form;
        apart += left * left;
    }
    norm = warp_sum(norm);
    apart = warp_sum(apart);
    finite = __all_sync(kAllLanes, finite);
    if (lane_index() != 0) return;
    RowForm form = {static_cast<float>(norm), static_cast<float>(sqrt(apart)) * (1.0f + 0x1p-20f)};
    if (!finite) form.squared_norm = form.radius = NAN;
    (of_x ? search.x_forms : search.y_forms)[row] = form;
    if (finite || search.bad == nullptr) return;
    const bool of_all = !of_x && search.y_batches() == 1;
    for (int64_t l = of_all ? 0 : batch; l < (of_all ? search.L : batch + 1); ++l) atomicOr(search.bad + l, 1);
}

// Selection.

__device__ __forceinline__ Entry entry_of(uint32_t key, int64_t index) {
    return static_cast<Entry>(key) << 32 | static_cast<Entry>(index);
}

// One thread puts an entry into a list.
__device__ __forceinline__ void insert(Entry* list, int K, Entry entry) {
    for (int i = 0; i < K && entry != kFreeEntry; ++i) {
        const Entry there = atomicMin(list + i, entry);
        entry = there > entry ? there : entry;
    }
}

// The last entry of a list as other blocks leave it: it only falls.
__device__ __forceinline__ Entry last_entry(const Entry* list, int K) {
    const Entry last = *static_cast<const volatile Entry*>(list + K - 1);
    return last < kNoEntry ? last : kNoEntry;
}

// The candidates of one row that a warp holds: key[v] of lane l is that of index first + v step.
struct Candidates {
    uint32_t key[4];
    int64_t first;
    int step;

    __device__ __forceinline__ Entry entry(int v) const { return entry_of(key[v], first + v * step); }
    __device__ __forceinline__ Entry least() const {
        Entry least = entry(0);
#pragma unroll
        for (int v = 1; v < 4; ++v) least = entry(v) < least ? entry(v) : least;
        return least;
    }
    __device__ __forceinline__ void remove(Entry entry_) {
#pragma unroll
        for (int v = 0; v < 4; ++v)
            if (entry(v) == entry_) key[v] = free_place<uint32_t>();
    }
};

// Offers exact distances. At most K of a tile enter, the nearest first.
__device__ __forceinline__ void offer_exact(Candidates candidates, Entry* list, int K, Entry last) {
    for (int round = 0; round < K; ++round) {
        const Entry mine = candidates.least();
        if (!__any_sync(kAllLanes, mine < last)) return;
        const Entry best = warp_min(mine);
        if (lane_index() == 0) insert(list, K, best);
        candidates.remove(best);
    }
}

// The distance of two rows, the same bits whichever comes first.
__device__ __forceinline__ float euclidean(const float* __restrict__ a, const float* __restrict__ b, int64_t D) {
    float sum = 0;
    for (int64_t d = lane_index(); d < D; d += kWarpSize) {
        const float difference = a[d] - b[d];
        sum = fmaf(difference, difference, sum);
    }
    return sqrtf(warp_sum(sum));
}

// An upper bound of the keys of all candidates with a computed distance of at most that of `last`:
// (distance + radii)^2, rounded up, plus D 2^-120 for terms that underflow.
__device__ __forceinline__ uint32_t most_key(Entry last, float radii, int64_t D) {
    const float columns = static_cast<float>(D);
    const float distance = from_key(static_cast<uint32_t>(last >> 32)) * (1.0f + (columns / 32 + 16) * 0x1p-24f);
    const float reach = (distance + radii) * (1.0f + 0x1p-20f);
    const float squared = reach * reach * (1.0f + 0x1p-20f) + columns * 0x1p-120f;
    return is_finite(squared) ? __float_as_uint(squared) : free_place<uint32_t>() - 1;
}

// Offers lower bounds: computes the distance of each candidate that may enter, the K most hopeful first, the others as
// they come. radii: the row's radius and the largest of the candidates'. rows: where the candidates are, from index 0
// on.
__device__ __forceinline__ void offer_bounds(Candidates candidates, Entry* list, int K, Entry last, float radii,
                                             const float* __restrict__ row, const float* __restrict__ rows, int64_t D) {
    uint32_t most = most_key(last, radii, D);
    // Behind the last index of a list full of duplicates nothing enters.
    const auto may_enter = [&](uint32_t key, int64_t index) { return key <= most && entry_of(0, index) <= last; };
    const auto compute = [&](int64_t index) {
        const Entry entry = entry_of(to_key(euclidean(row, rows + index * D, D)), index);
        if (entry >= last) return;
        if (lane_index() == 0) insert(list, K, entry);
        last = __shfl_sync(kAllLanes, last_entry(list, K), 0);
        most = most_key(last, radii, D);
    };
    for (int round = 0; round < K; ++round) {
        const Entry best = warp_min(candidates.least());
        const uint32_t key = static_cast<uint32_t>(best >> 32);
        const int64_t index = static_cast<int64_t>(best & 0xffffffffu);
        if (key > most) return;
        if (!may_enter(key, index)) break;
        compute(index);
        candidates.remove(best);
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        const int64_t index = candidates.first + v * candidates.step;
        unsigned waiting = kAllLanes;
        for (;;) {
            waiting &= __ballot_sync(kAllLanes, may_enter(candidates.key[v], index));
            if (waiting == 0) break;
            compute(__shfl_sync(kAllLanes, index, __ffs(static_cast<int>(waiting)) - 1));
            waiting &= waiting - 1;
        }
    }
}

// The search.

__device__ __forceinline__ float largest_radius(const RowForm* __restrict__ forms, int64_t count) {
    float largest = 0;
    for (int64_t i = lane_index(); i < count; i += kWarpSize) largest = fmaxf(largest, forms[i].radius);
    return -warp_min(-largest);
}

// One side of a tile: `here` are the rows whose lists are served, `there` the candidates.
struct Side {
    const float* rows;  // of the batch
    const RowForm* forms;
    int64_t first, count;  // the tile's
};

// Of four rows that a warp serves, each lane's four candidates. across: the rows are the keys' columns, and a lane's
// candidates are 32 apart instead of neighbours.
struct FourRows {
    uint32_t key[4][4];

    __device__ __forceinline__ void load(const WideStage& stage, int row, bool across) {
        const int lane = lane_index();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t* from = across ? &stage.keys[lane + kWarpSize * i][row] : &stage.keys[row + i][4 * lane];
            const uint4 four = *reinterpret_cast<const uint4*>(from);
            (across ? key[0][i] : key[i][0]) = four.x;
            (across ? key[1][i] : key[i][1]) = four.y;
            (across ? key[2][i] : key[i][2]) = four.z;
            (across ? key[3][i] : key[i][3]) = four.w;
        }
    }
    __device__ __forceinline__ uint32_t least(int i) const {
        return min(min(key[i][0], key[i][1]), min(key[i][2], key[i][3]));
    }
    // Key v of row i, without an array that i indexes.
    __device__ __forceinline__ uint32_t of(int i, int v) const {
        const uint32_t low = i == 0 ? key[0][v] : key[1][v], high = i == 2 ? key[2][v] : key[3][v];
        return i < 2 ? low : high;
    }
};

// Offers the tile's keys to the lists of the rows of `here`. Most rows of a tile fail one comparison of their least key
// with the most that may enter, at about 12 instructions a row.
template <int P, bool kAcross>
__device__ __forceinline__ void offer_tile(const WideStage& stage, const Search<float>& search, Entry* lists,
                                           const Side& here, const Side& there) {
    const int lane = lane_index(), K = static_cast<int>(search.K), warp_first = warp_index() * kRowsOfWarp;
    lists += (here.first + warp_first) * search.K;
    const int rows = static_cast<int>(min(static_cast<int64_t>(kRowsOfWarp), here.count - warp_first));
    // Lane r holds what the warp's row r needs.
    const Entry lasts = lane < rows ? last_entry(lists + lane * K, K) : 0;
    float radii = 0;
    uint32_t mosts = static_cast<uint32_t>(lasts >> 32);
    if (P == 2) {
        const float largest = largest_radius(there.forms + there.first, there.count);
        if (lane < rows) {
            radii = here.forms[here.first + warp_first + lane].radius + largest;
            mosts = most_key(lasts, radii, search.D);
        }
    }
    const bool whole = there.count == kWideRows && !(search.self && here.first == there.first);
    Candidates candidates;
    candidates.step = kAcross ? kWarpSize : 1;
    candidates.first = there.first + (kAcross ? lane : 4 * lane);
    for (int row = 0; row < rows; row += 4) {
        FourRows four;
        four.load(stage, warp_first + row, kAcross);
        unsigned hopeful = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const uint32_t most = __shfl_sync(kAllLanes, mosts, row + i);
            hopeful |= __any_sync(kAllLanes, four.least(i) <= most) && row + i < rows ? 1u << i : 0u;
        }
        for (; hopeful != 0; hopeful &= hopeful - 1) {
            const int i = __ffs(static_cast<int>(hopeful)) - 1, r = row + i;
            const int64_t itself = search.self ? here.first + warp_first + r : -1;
#pragma unroll
            for (int v = 0; v < 4; ++v) {
                const int64_t index = candidates.first + v * candidates.step;
                const bool counts = whole || (index < there.first + there.count && index != itself);
                candidates.key[v] = counts ? four.of(i, v) : free_place<uint32_t>();
            }
            const Entry last = __shfl_sync(kAllLanes, lasts, r);
            if (P == 1)
                offer_exact(candidates, lists + r * K, K, last);
            else
                offer_bounds(candidates, lists + r * K, K, last, __shfl_sync(kAllLanes, radii, r),
                             here.rows + (here.first + warp_first + r) * search.D, there.rows, search.D);
        }
    }
}

template <int P, bool kVectors>
__global__ void __launch_bounds__(kWideThreads, 2) nearest_tiles_kernel(const __grid_constant__ TileSearches tiles) {
    auto& stage = *dynamic_shared_memory<WideStage>();
    const int which = blockIdx.x >= tiles.tasks[0];
    const Search<float>& search = tiles.of[which];
    const int64_t task = blockIdx.x - (which == 0 ? 0 : tiles.tasks[0]);
    const int64_t l = task / tiles.tiles[which], tile = task % tiles.tiles[which];
    int64_t down, across;  // neighbouring blocks serve other rows
    if (search.self) {
        triangular_pair(tile, &down, &across);
    } else {
        down = tile % tiles.row_tiles[which];
        across = tile / tiles.row_tiles[which];
    }
    const int64_t y_batch = search.y_batches() == 1 ? 0 : l;
    Side x = {search.x + l * search.N * search.D, nullptr, down * kWideRows, 0};
    Side y = {search.y + y_batch * search.y_stride, nullptr, across * kWideRows, 0};
    x.count = min(search.N - x.first, static_cast<int64_t>(kWideRows));
    y.count = min(search.M - y.first, static_cast<int64_t>(kWideRows));
    const int D = static_cast<int>(search.D);
    const WideOperand<kVectors> a(x.rows + x.first * D, x.count, D), b(y.rows + y.first * D, y.count, D);
    if (P == 1) {
        const bool check = search.bad != nullptr && (down == 0 || across == 0);  // every row is in one such tile
        if (!manhattan_keys(a, b, D, check, stage)) atomicOr(search.bad + l, 1);
    } else {
        x.forms = search.x_forms + l * search.N;
        y.forms = search.y_forms + y_batch * search.M;
        euclidean_keys(a, x.forms + x.first, static_cast<int>(x.count), b, y.forms + y.first, static_cast<int>(y.count),
                       search.centers + y_batch * D, D, stage);
    }
    Entry* lists = search.found + l * search.N * search.K;
    offer_tile<P, false>(stage, search, lists, x, y);
    if (search.self && down != across) offer_tile<P, true>(stage, search, lists, y, x);
}

// One thread for each distance that is wanted.
__global__ void __launch_bounds__(kRowThreads)
    nearest_unpack_kernel(const __grid_constant__ TileSearches tiles, int64_t first_count) {
    const bool second = grid_thread() >= first_count;
    const Search<float>& search = tiles.of[second];
    const int64_t i = grid_thread() - (second ? first_count : 0), kept = search.K - search.first;
    if (i >= search.L * search.N * kept) return;
    const Entry entry = search.found[i / kept * search.K + search.first + i % kept];
    search.distances[i] = from_key(static_cast<uint32_t>(entry >> 32));
    search.indices[i] = static_cast<int64_t>(entry & 0xffffffffu);
}

// Whether rows of x and y can be read 16 bytes at a time (and those of centers, which are aligned).
bool reads_vectors(const Search<float>& search) {
    const auto aligned = [](const float* rows) { return reinterpret_cast<uintptr_t>(rows) % 16 == 0; };
    return search.D % 4 == 0 && search.y_stride % 4 == 0 && aligned(search.x) && aligned(search.y);
}

template <int P>
fh_status launch_tiles(const TileSearches& tiles, bool vectors, void* stream) {
    const LaunchShape shape = {"nearest_tiles_kernel", tiles.tasks[0] + tiles.tasks[1], kWideThreads, sizeof(WideStage),
                               stream};
    return vectors ? launch(shape, nearest_tiles_kernel<P, true>, tiles)
                   : launch(shape, nearest_tiles_kernel<P, false>, tiles);
}

TileSearches describe_tiles(const Search<float>* searches, int count) {
    TileSearches tiles = {};
    for (int i = 0; i < count; ++i) {
        const Search<float>& search = tiles.of[i] = searches[i];
        tiles.row_tiles[i] = wide_tiles(search.N);
        tiles.tiles[i] = tiles_of_batch(search);
        tiles.tasks[i] = search.L * tiles.tiles[i];
    }
    return tiles;
}

fh_status run_forms(const TileSearches& tiles, void* stream) {
    int64_t columns[2], rows[2];
    for (int i = 0; i < 2; ++i) {
        const Search<float>& search = tiles.of[i];
        columns[i] = search.L == 0 ? 0 : search.y_batches() * search.D;
        rows[i] = search.L * search.N + (search.self || search.L == 0 ? 0 : search.y_batches() * search.M);
    }
    FH_RETURN_IF_ERROR(
        launch({"nearest_centers_kernel", ceil_div(columns[0] + columns[1], kRowThreads), kRowThreads, 0, stream},
               nearest_centers_kernel, tiles, columns[0]));
    constexpr int kWarps = kRowThreads / kWarpSize;
    return launch({"nearest_forms_kernel", ceil_div(rows[0] + rows[1], kWarps), kRowThreads, 0, stream},
                  nearest_forms_kernel, tiles, rows[0]);
}

}  // namespace

bool fits_tiles(const Search<float>& search) {
    const int64_t tasks = search.L * tiles_of_batch(search);
    return search.K <= kMostTileNeighbors && search.D <= kMostTileColumns && search.M <= 0xffffffffLL &&
           std::min(search.N, search.M) >= kLeastTileRows && tasks >= kLeastTiles && tasks < 1 << 30;
}

void cut_tiles(Search<float>& search, WorkspaceCutter& cutter) {
    search.found = cutter.take<Entry>(search.L * search.N * search.K);
    if (search.p == 1) return;
    search.centers = cutter.take<float>(search.y_batches() * search.D);
    search.x_forms = cutter.take<RowForm>(search.L * search.N);
    search.y_forms = search.self ? search.x_forms : cutter.take<RowForm>(search.y_batches() * search.M);
}

fh_status run_tiles(const Search<float>* searches, int count, void* stream) {
    if (count == 0) return FH_OK;
    const TileSearches tiles = describe_tiles(searches, count);
    int64_t wanted[2] = {};
    bool vectors = true;
    for (int i = 0; i < count; ++i) {
        const Search<float>& search = tiles.of[i];
        const size_t bytes = static_cast<size_t>(search.L * search.N * search.K) * sizeof(Entry);
        FH_RETURN_IF_ERROR(cuda_status(cudaMemsetAsync(search.found, 0xff, bytes, static_cast<cudaStream_t>(stream)),
                                       "nearest_tiles_kernel"));
        vectors = vectors && reads_vectors(search);
        wanted[i] = search.L * search.N * (search.K - search.first);
    }
    const int32_t p = tiles.of[0].p;
    if (p == 2) FH_RETURN_IF_ERROR(run_forms(tiles, stream));
    FH_RETURN_IF_ERROR(p == 1 ? launch_tiles<1>(tiles, vectors, stream) : launch_tiles<2>(tiles, vectors, stream));
    return launch({"nearest_unpack_kernel", ceil_div(wanted[0] + wanted[1], kRowThreads), kRowThreads, 0, stream},
                  nearest_unpack_kernel, tiles, wanted[0]);
}

}  // namespace fasthash
