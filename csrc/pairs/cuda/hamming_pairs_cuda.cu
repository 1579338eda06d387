// Pairs of codes within a radius, and the groups that they make, on CUDA: see pairs.h for the contract.
//
// All pairs are compared, by the tiles of the Hamming search (counted bits, or products of bits). The matrix of pairs
// is cut into squares of kSquare rows each way; of one set with itself, only the squares on and above the diagonal are
// visited, so that each pair is compared once, but for those within the squares on the diagonal. A block takes a tile
// of rows of a square against all its columns, and each of its warps an equal part of the columns.
#include "core/cuda/cuda_check.h"
#include "core/cuda/shared_memory.cuh"
#include "core/cuda/triangle.cuh"
#include "core/cuda/warp.cuh"
#include "core/cuda/workspace.h"
#include "hamming/cuda/product_tile.cuh"
#include "pairs/pairs.h"

namespace fasthash {
namespace {

using Count = unsigned long long;  // the 64-bit type of atomicAdd

#ifdef FASTHASH_SMALL_SIZES
constexpr int64_t kSquare = 128, kMostBlocks = 16;
constexpr int32_t kProductRows = 16, kCountedRows = 32;
#else
constexpr int64_t kSquare = 2048, kMostBlocks = int64_t{1} << 30;  // of a launch
constexpr int32_t kProductRows = 256, kCountedRows = 64;           // of a tile
#endif
static_assert(kSquare % (kScanWarps * 16) == 0 && kSquare % kProductRows == 0 && kSquare % kCountedRows == 0);
constexpr int64_t kMostRows = (int64_t{1} << 31) - 1;  // of a set: a pair fits a key

// The squares of a join. Block b takes tile b % tiles of square b / tiles.
struct Squares {
    int64_t across;  // squares in a row, where there are two sets
    int64_t tiles;   // of a square
    bool symmetric;  // one set: rows i < columns j
    int32_t limit;   // distances below are pairs

    // The first row and the first column of a square.
    __device__ __forceinline__ void place(int64_t square, int64_t* row, int64_t* column) const {
        if (symmetric) {
            triangular_pair(square, row, column);
        } else {
            *row = square / across;
            *column = square % across;
        }
        *row *= kSquare;
        *column *= kSquare;
    }
};

// Pairs that were found: all are counted, and those that find room are kept in any order.
struct KeptPairs {
    int64_t room;
    int64_t* keys;       // [room]: i 2^32 + j
    int32_t* distances;  // [room]
    Count* counts;       // [2]: pairs, and places taken
};

__device__ __noinline__ void keep_pair(const KeptPairs& kept, int64_t i, int64_t j, int32_t distance) {
    if (*const_cast<volatile Count*>(&kept.counts[1]) >= static_cast<Count>(kept.room)) return;
    const Count place = atomicAdd(&kept.counts[1], Count(1));
    if (place >= static_cast<Count>(kept.room)) return;
    kept.keys[place] = i << 32 | j;
    kept.distances[place] = distance;
}

// found(i, j, distance) for the pairs of this block, in the lane that found each.
template <class Tile, class Found>
__device__ __forceinline__ void visit_pairs(const typename Tile::ScanType& scan, const Squares& squares,
                                            int64_t first_block, const Found& found) {
    const int64_t block = first_block + blockIdx.x;
    int64_t row, column;
    squares.place(block / squares.tiles, &row, &column);
    const int64_t q0 = row + block % squares.tiles * scan.tile;
    if (q0 >= scan.Q) return;
    const int rows = static_cast<int>(min(static_cast<int64_t>(scan.tile), scan.Q - q0));
    const int32_t limit = squares.limit;
    const Tile tile(scan, q0, rows, dynamic_shared_memory<uint32_t>(), [&](int) { return limit; });
    __syncthreads();
    int64_t begin = column + warp_index() * (kSquare / kScanWarps);
    const int64_t end = min(begin + kSquare / kScanWarps, scan.N);
    if (squares.symmetric) begin = max(begin, q0);
    tile.visit_nearer(scan, begin, end, [&](int q, int64_t n, int distance) {
        if (!squares.symmetric || q0 + q < n) found(q0 + q, n, distance);
    });
}

template <class Tile>
__global__ void __launch_bounds__(kScanThreads)
    hamming_pairs_kernel(typename Tile::ScanType scan, const __grid_constant__ Squares squares, int64_t first_block,
                         const __grid_constant__ KeptPairs kept) {
    unsigned own = 0;
    visit_pairs<Tile>(scan, squares, first_block, [&](int64_t i, int64_t j, int distance) {
        ++own;
        keep_pair(kept, i, j, distance);
    });
    __syncwarp();
    const Count all = warp_sum(static_cast<Count>(own));
    if (lane_index() == 0 && all != 0) atomicAdd(&kept.counts[0], all);
}

// The lowest row of x's set so far. Parents only ever become lower, and only rows of the same set.
__device__ __forceinline__ unsigned root_of(unsigned* parents, unsigned x) {
    volatile unsigned* now = parents;
    for (;;) {
        const unsigned parent = now[x], next = now[parent];
        if (parent == next) return parent;
        now[x] = next;  // halves the path
        x = next;
    }
}

// Puts two rows into one set: the root that is higher gets the lower one as its parent.
__device__ __noinline__ void unite(unsigned* parents, unsigned x, unsigned y) {
    for (;;) {
        x = root_of(parents, x);
        y = root_of(parents, y);
        if (x == y) return;
        if (x > y) {
            const unsigned lower = y;
            y = x;
            x = lower;
        }
        if (atomicCAS(&parents[y], y, x) == y) return;
    }
}

// Connected components by union-find without locks (R. Anderson & H. Woll, 1991).
template <class Tile>
__global__ void __launch_bounds__(kScanThreads)
    duplicate_groups_kernel(typename Tile::ScanType scan, const __grid_constant__ Squares squares, int64_t first_block,
                            unsigned* parents) {  // [N]
    visit_pairs<Tile>(scan, squares, first_block, [&](int64_t i, int64_t j, int) {
        unite(parents, static_cast<unsigned>(i), static_cast<unsigned>(j));
    });
}

__global__ void __launch_bounds__(kScanThreads) group_start_kernel(unsigned* __restrict__ parents, int64_t N) {
    const int64_t n = grid_thread();
    if (n < N) parents[n] = static_cast<unsigned>(n);
}

__global__ void __launch_bounds__(kScanThreads)
    group_end_kernel(unsigned* parents, int64_t N, int64_t* __restrict__ representatives) {
    const int64_t n = grid_thread();
    if (n < N) representatives[n] = static_cast<int64_t>(root_of(parents, static_cast<unsigned>(n)));
}

fh_status check(const fh_pairs_problem& p, const char* message) {
    const bool rows_fit = p.Na >= 0 && p.Nb >= 0 && p.Na <= kMostRows && p.Nb <= kMostRows;
    if (!rows_fit || p.W < 1 || p.radius < 0 || p.stride_a != p.W || (p.b != nullptr && p.Nb > 1 && p.stride_b < p.W))
        return fail(FH_INVALID, message);
    return FH_OK;
}

// Calls run(the type of the tiles, scan, squares, first block, blocks) for pieces that a launch can have.
template <class Run>
fh_status for_all_squares(const fh_pairs_problem& p, const Run& run) {
    const bool symmetric = p.b == nullptr;
    const fh_hamming_problem codes = {p.a,
                                      symmetric ? p.a : p.b,
                                      nullptr,
                                      p.Na,
                                      symmetric ? p.Na : p.Nb,
                                      p.W,
                                      symmetric ? p.stride_a : p.stride_b,
                                      nullptr,
                                      nullptr,
                                      0};
    PlannedScan scan = make_scan(codes, 1, kSquare);
    scan.tile = multiplies(scan) ? kProductRows : kCountedRows;
    const int64_t down = ceil_div(scan.Q, kSquare), across = ceil_div(scan.N, kSquare);
    const int32_t limit = static_cast<int32_t>(std::min<int64_t>(p.radius, scan.largest) + 1);
    const Squares squares = {across, kSquare / scan.tile, symmetric, limit};
    const int64_t blocks = (symmetric ? down * (down + 1) / 2 : down * across) * squares.tiles;
    return with_tile(scan, [&](auto type) {
        using Tile = typename decltype(type)::Type;
        if constexpr (std::is_same_v<typename Tile::ScanType, Scan>) {
            for (int64_t first = 0; first < blocks; first += kMostBlocks)
                FH_RETURN_IF_ERROR(run(type, scan, squares, first, std::min(kMostBlocks, blocks - first)));
            return FH_OK;
        } else {
            return fail(FH_INVALID,
                        "pairs need codes without weights");  // no kernels are made for them
        }
    });
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" {

fh_status fh_hamming_pairs_cuda(const fh_pairs_problem* problem, int64_t room, int64_t* keys, int32_t* distances,
                                int64_t* counts, void* stream) {
    FH_RETURN_IF_ERROR(check(
        *problem, "fh_hamming_pairs_cuda: must have at most 2^31 - 1 rows, radius >= 0, stride_a = W, stride_b >= W"));
    const KeptPairs kept = {room, keys, distances, reinterpret_cast<Count*>(counts)};
    FH_RETURN_IF_ERROR(cuda_status(cudaMemsetAsync(counts, 0, 2 * sizeof(Count), static_cast<cudaStream_t>(stream)),
                                   "hamming_pairs_kernel"));
    return for_all_squares(
        *problem, [&](auto type, const PlannedScan& scan, const Squares& squares, int64_t first, int64_t blocks) {
            using Tile = typename decltype(type)::Type;
            return launch({"hamming_pairs_kernel", blocks, kScanThreads, Tile::bytes(scan), stream},
                          hamming_pairs_kernel<Tile>, scan, squares, first, kept);
        });
}

int64_t fh_duplicate_groups_cuda_workspace(int64_t N) { return ceil_div(N * int64_t{sizeof(unsigned)}, 256) * 256; }

fh_status fh_duplicate_groups_cuda(const fh_pairs_problem* problem, int64_t* representatives, void* workspace,
                                   int64_t workspace_bytes, void* stream) {
    const fh_pairs_problem& p = *problem;
    FH_RETURN_IF_ERROR(check(
        p, "fh_duplicate_groups_cuda: must have at most 2^31 - 1 rows, radius >= 0, stride_a = W, stride_b >= W"));
    if (p.b != nullptr) return fail(FH_INVALID, "fh_duplicate_groups_cuda: must have one set of codes, got two");
    FH_RETURN_IF_ERROR(
        require_workspace("fh_duplicate_groups_cuda", fh_duplicate_groups_cuda_workspace(p.Na), workspace_bytes));
    unsigned* parents = static_cast<unsigned*>(workspace);
    const int64_t blocks = ceil_div(p.Na, kScanThreads);
    FH_RETURN_IF_ERROR(
        launch({"group_start_kernel", blocks, kScanThreads, 0, stream}, group_start_kernel, parents, p.Na));
    FH_RETURN_IF_ERROR(for_all_squares(
        p, [&](auto type, const PlannedScan& scan, const Squares& squares, int64_t first, int64_t count) {
            using Tile = typename decltype(type)::Type;
            return launch({"duplicate_groups_kernel", count, kScanThreads, Tile::bytes(scan), stream},
                          duplicate_groups_kernel<Tile>, scan, squares, first, parents);
        }));
    return launch({"group_end_kernel", blocks, kScanThreads, 0, stream}, group_end_kernel, parents, p.Na,
                  representatives);
}
}
