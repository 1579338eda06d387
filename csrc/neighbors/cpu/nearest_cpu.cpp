// Search: tiles of distances, a limit test on whole vectors, and sorted lists of the K best that few candidates reach.
//
// A task is a block of rows against a block of candidates. Its lists start empty with the limits that other tasks have
// reached, and join the output under the row block's lock. Lists are ordered by (distance, index) and an insertion
// depends on nothing else, so the result does not depend on the order of tasks. Among the points themselves the block
// pairs (I, J), I <= J, are enough: each distance is offered to both ends.
#include <cmath>
#include <mutex>

#include "core/exceptions.h"
#include "neighbors/cpu/nearest_search.h"
#include "neighbors/cpu/tiles.h"
#include "neighbors/nearest.h"

namespace fasthash {
namespace {

constexpr int64_t kNobody = std::numeric_limits<int64_t>::max();
constexpr int64_t kBlockRows = 128;         // rows of a task; a multiple of every tile height and panel width
constexpr int64_t kBlockCandidates = 1024;  // candidates of a task among other points, at most
constexpr int64_t kTasksPerThread =
    4;  // at least, where there are candidates enough: a thread that comes late then costs little

// The K best neighbours of some rows, ascending by (distance, index); empty places are (inf, kNobody).
template <class T>
struct Lists {
    T* distances;      // [rows, K]
    int64_t* indices;  // [rows, K]
    int64_t K;

    void clear(int64_t rows) {
        std::fill(distances, distances + rows * K, std::numeric_limits<T>::infinity());
        std::fill(indices, indices + rows * K, kNobody);
    }

    bool offer(int64_t row, T distance, int64_t index) {
        T* d = distances + row * K;
        int64_t* i = indices + row * K;
        int64_t place = K - 1;
        if (!(distance < d[place] || (distance == d[place] && index < i[place]))) return false;
        for (; place > 0 && (distance < d[place - 1] || (distance == d[place - 1] && index < i[place - 1])); --place) {
            d[place] = d[place - 1];
            i[place] = i[place - 1];
        }
        d[place] = distance;
        i[place] = index;
        return true;
    }

    T worst(int64_t row) const { return distances[row * K + K - 1]; }
};

// What a tile's sums are compared with so that no candidate is missed: the list's worst distance itself for l1; for l2,
// whose tiles hold squares, its square and a little more. The exact test follows, on the rounded square root.
template <class T>
T limit_of(T worst, int32_t p) {
    return p == 1 ? worst : worst * worst * (1 + 8 * std::numeric_limits<T>::epsilon()) + std::numeric_limits<T>::min();
}

template <class T>
class Search {
  public:
    Search(const fh_nearest_problem& problem, const TileKernels<T>& kernels, T* distances, int64_t* indices,
           int32_t threads, fh_cancel* cancel)
        : p_(problem),
          kernels_(kernels),
          self_(problem.y == nullptr),
          M_(self_ ? problem.N : problem.M),
          shared_y_(!self_ && problem.y_stride == 0),
          panels_(static_cast<const T*>(self_ ? problem.x : problem.y), shared_y_ ? 1 : problem.L, M_, problem.D,
                  kernels.panel, threads),
          best_{distances, indices, problem.K},
          threads_(threads),
          cancel_(cancel) {}

    fh_status run() {
        const int64_t rows = p_.L * p_.N;
        best_.clear(rows);
        row_blocks_ = (p_.N + kBlockRows - 1) / kBlockRows;
        const auto enough = [&] { return p_.L * row_blocks_ * candidate_blocks_ >= kTasksPerThread * threads_; };
        for (block_candidates_ = kBlockCandidates;; block_candidates_ /= 2) {
            candidate_blocks_ = (M_ + block_candidates_ - 1) / block_candidates_;
            if (block_candidates_ <= kBlockRows || threads_ == 1 || enough()) break;
        }
        const int64_t per_batch = self_ ? row_blocks_ * (row_blocks_ + 1) / 2 : row_blocks_ * candidate_blocks_;
        locks_.reset(new std::mutex[static_cast<size_t>(p_.L * row_blocks_)]);
        const int64_t list = kBlockRows * p_.K, lists = self_ ? 2 : 1;
        const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads_, p_.L * per_batch));
        local_distances_ = scratch<T>(workers * lists * list);
        local_indices_ = scratch<int64_t>(workers * lists * list);
        const fh_status status = parallel_for(p_.L * per_batch, threads_, cancel_, [&](int64_t task, int worker) {
            const int64_t l = task / per_batch, pair = task % per_batch, at = worker * lists * list;
            Lists<T> own{local_distances_.get() + at, local_indices_.get() + at, p_.K};
            if (!self_) return candidates_block(l, pair / candidate_blocks_, pair % candidate_blocks_, own);
            // The pair-th of (0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), ...: J is the larger triangular root.
            auto J = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(pair) + 1.0) - 1.0) / 2.0);
            while (J * (J + 1) / 2 > pair) --J;
            while ((J + 1) * (J + 2) / 2 <= pair) ++J;
            Lists<T> others{own.distances + list, own.indices + list, p_.K};
            self_block(l, pair - J * (J + 1) / 2, J, own, others);
        });
        if (status == FH_OK) complete();
        return status;
    }

  private:
    const T* x(int64_t l) const { return static_cast<const T*>(p_.x) + l * p_.N * p_.D; }
    const T* y(int64_t l) const {
        return self_ ? x(l) : static_cast<const T*>(p_.y) + (shared_y_ ? 0 : l * p_.y_stride);
    }
    T exact(T sum) const { return p_.p == 1 ? sum : std::sqrt(sum); }

    void tile(const T* const* rows, const T* panel, T* out) const {
        (p_.p == 1 ? kernels_.l1 : kernels_.l2)(rows, panel, p_.D, out);
    }

    // The limits that block I of batch l has reached so far.
    void read_limits(int64_t l, int64_t I, T* limits) {
        const int64_t first = I * kBlockRows, count = std::min(kBlockRows, p_.N - first);
        std::lock_guard<std::mutex> lock(locks_[l * row_blocks_ + I]);
        for (int64_t r = 0; r < kBlockRows; ++r)
            limits[r] = r < count ? limit_of(best_.worst(l * p_.N + first + r), p_.p) : -1;
    }

    void join(int64_t l, int64_t I, const Lists<T>& lists) {
        const int64_t first = I * kBlockRows, count = std::min(kBlockRows, p_.N - first);
        std::lock_guard<std::mutex> lock(locks_[l * row_blocks_ + I]);
        for (int64_t r = 0; r < count; ++r)
            for (int64_t c = r * p_.K; c < (r + 1) * p_.K && lists.indices[c] != kNobody; ++c)
                if (!best_.offer(l * p_.N + first + r, lists.distances[c], lists.indices[c])) break;
    }

    // Offers one candidate to a local list and tightens its limit.
    void offer(Lists<T>& lists, T* limits, int64_t row, T distance, int64_t index) const {
        if (lists.offer(row, distance, index)) limits[row] = std::min(limits[row], limit_of(lists.worst(row), p_.p));
    }

    void candidates_block(int64_t l, int64_t I, int64_t J, Lists<T>& own) {
        alignas(64) T out[kMaxTileRows * kMaxPanel], limits[kBlockRows];
        uint32_t hits[kMaxTileRows];
        const T* rows[kMaxTileRows];
        own.clear(kBlockRows);
        read_limits(l, I, limits);
        const int64_t first = I * kBlockRows, end = std::min(first + kBlockRows, p_.N);
        const int64_t last_candidate = std::min((J + 1) * block_candidates_, M_);
        for (int64_t candidate = J * block_candidates_; candidate < last_candidate; candidate += kernels_.panel)
            for (int64_t row = first; row < end; row += kernels_.rows) {
                tile_rows(x(l), row, p_.N, p_.D, kernels_.rows, rows);
                tile(rows, panels_.panel(shared_y_ ? 0 : l, candidate / kernels_.panel), out);
                kernels_.hits(out, limits + (row - first), nullptr, hits, nullptr);
                for (int64_t r = 0; r < kernels_.rows; ++r)
                    for (uint32_t bits = hits[r]; bits != 0; bits &= bits - 1) {
                        const int c = __builtin_ctz(bits);
                        offer(own, limits, row - first + r, exact(out[r * kernels_.panel + c]), candidate + c);
                    }
            }
        join(l, I, own);
    }

    void self_block(int64_t l, int64_t I, int64_t J, Lists<T>& own, Lists<T>& others) {
        alignas(64) T out[kMaxTileRows * kMaxPanel], limits[kBlockRows], other_limits[kBlockRows];
        uint32_t hits[kMaxTileRows], other_hits[kMaxTileRows];
        const T* rows[kMaxTileRows];
        const bool diagonal = I == J;
        own.clear(kBlockRows);
        read_limits(l, I, limits);
        if (!diagonal) {
            others.clear(kBlockRows);
            read_limits(l, J, other_limits);
        }
        const int64_t first = I * kBlockRows, end = std::min(first + kBlockRows, p_.N);
        const int64_t first_candidate = J * kBlockRows, last_candidate = std::min(first_candidate + kBlockRows, p_.N);
        for (int64_t candidate = first_candidate; candidate < last_candidate; candidate += kernels_.panel)
            for (int64_t row = first; row < end; row += kernels_.rows) {
                tile_rows(x(l), row, p_.N, p_.D, kernels_.rows, rows);
                tile(rows, panels_.panel(l, candidate / kernels_.panel), out);
                kernels_.hits(out, limits + (row - first),
                              diagonal ? nullptr : other_limits + (candidate - first_candidate), hits, other_hits);
                for (int64_t r = 0; r < std::min<int64_t>(kernels_.rows, end - row); ++r) {
                    for (uint32_t bits = hits[r]; bits != 0; bits &= bits - 1) {
                        const int c = __builtin_ctz(bits);
                        if (candidate + c != row + r)
                            offer(own, limits, row - first + r, exact(out[r * kernels_.panel + c]), candidate + c);
                    }
                    if (diagonal) continue;
                    for (uint32_t bits = other_hits[r]; bits != 0; bits &= bits - 1) {
                        const int c = __builtin_ctz(bits);
                        offer(others, other_limits, candidate - first_candidate + c, exact(out[r * kernels_.panel + c]),
                              row + r);
                    }
                }
            }
        join(l, I, own);
        if (!diagonal) join(l, J, others);
    }

    // Rows with fewer than K numbers among their distances: NaN distances follow, lowest indices first.
    void complete() {
        for (int64_t row = 0; row < p_.L * p_.N; ++row) {
            T* d = best_.distances + row * p_.K;
            int64_t* i = best_.indices + row * p_.K;
            int64_t filled = p_.K;
            while (filled > 0 && i[filled - 1] == kNobody) --filled;
            const int64_t found = filled;
            for (int64_t index = 0; filled < p_.K; ++index) {
                if (self_ && index == row % p_.N) continue;
                if (std::find(i, i + found, index) != i + found) continue;
                d[filled] = std::numeric_limits<T>::quiet_NaN();
                i[filled++] = index;
            }
        }
    }

    const fh_nearest_problem& p_;
    const TileKernels<T>& kernels_;
    bool self_;
    int64_t M_;
    bool shared_y_;
    Panels<T> panels_;
    Lists<T> best_;
    int32_t threads_;
    fh_cancel* cancel_;
    int64_t row_blocks_ = 0, candidate_blocks_ = 0, block_candidates_ = 0;
    std::unique_ptr<std::mutex[]> locks_;  // [L, row_blocks]: guards a block's rows of best_
    std::unique_ptr<T[]> local_distances_;
    std::unique_ptr<int64_t[]> local_indices_;
};

}  // namespace

template <class T>
fh_status nearest_search(const fh_nearest_problem& problem, T* distances, int64_t* indices, int32_t threads,
                         fh_cancel* cancel) {
    if (problem.L == 0 || problem.N == 0) return FH_OK;
    const TileKernels<T>* kernels = tile_kernels_chosen<T>();
    if (kernels == nullptr) return FH_INVALID;
    threads = threads_worth(problem.L * problem.N * problem.M * problem.D, threads);
    return Search<T>(problem, *kernels, distances, indices, threads, cancel).run();
}

template fh_status nearest_search(const fh_nearest_problem&, float*, int64_t*, int32_t, fh_cancel*);
template fh_status nearest_search(const fh_nearest_problem&, double*, int64_t*, int32_t, fh_cancel*);

}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_nearest_cpu(const fh_nearest_problem* problem, void* distances, int64_t* indices,
                                    int32_t threads, fh_cancel* cancel) {
    return without_exceptions("nearest", [&] {
        return with_dtype(problem->dtype, [&](auto zero) {
            using T = decltype(zero);
            return nearest_search(*problem, static_cast<T*>(distances), indices, threads, cancel);
        });
    });
}
