// A task takes some rows of one bucket, or all rows of a run of small buckets. Rows pass, 256 at a time, over panels of
// the codes that they are compared with: those after them in their own bucket, then the near buckets. In one set each
// pair of buckets is taken once, by the lower key.
#include "pairs/cpu/join.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "core/thread_pool.h"
#include "hamming/cpu/hamming_tiles.h"
#include "mih/cpu/bits_set.h"
#include "mih/cpu/substring.h"
#include "pairs/cpu/keyed_codes.h"

namespace fasthash {
namespace {

constexpr int64_t kRows = 256;                       // rows that pass over a panel before the next is laid out
constexpr int64_t kSlice = 1 << 12;                  // buckets that are looked at in one task
constexpr int64_t kStep = 32;                        // rows of one bucket that start at the same code behind them
constexpr int64_t kPanelBytes = 32 << 10;            // a level-1 cache has 32 to 64 KiB
constexpr int64_t kTaskWork = 1 << 25;               // pairs x words: some milliseconds
constexpr int64_t kRowWork = 256, kBucketWork = 32;  // what a row and a near bucket cost, in the same
constexpr int64_t kBatch = 1024;                     // pairs given to the sink at once

struct Task {
    uint32_t first_key, last_key;  // buckets [first_key, last_key)
    uint32_t first_row, last_row;  // of a bucket that is one task's or several's; all rows of others
};

// One thread's buffers.
struct Worker {
    std::unique_ptr<uint8_t[]> panel_memory;
    uint8_t* panel;                    // 64-byte aligned
    CodeRows gathered;                 // [panel_codes]: rows of several buckets, before they become a panel
    std::vector<uint32_t> rows;        // [panel_codes]: the row of b that each code of the panel is
    std::unique_ptr<uint64_t[]> hits;  // [kHitsRoom]
    std::vector<CodePair> found;
    std::vector<uint8_t> queries;  // [kRows, panel_bytes]: rows as the scan takes them, where bits are weighted
    int64_t n = 0, own = 0, own_first = 0;  // codes in the panel; the first `own` are rows own_first + c of the bucket
};

class Pass {
  public:
    Pass(const HammingPlan& kernel, const KeyedCodes& a, const KeyedCodes& b, const std::vector<JoinPass>& passes,
         size_t number, int32_t radius, PairSink& sink, int32_t threads, fh_cancel* cancel)
        : kernel_(kernel),
          a_(a),
          b_(b),
          passes_(passes),
          number_(number),
          pass_(passes[number]),
          self_(&a == &b),
          bytes_(a.rows.bytes()),
          panel_bytes_(kernel.words * kernel.word_bytes),
          panel_codes_(std::max<int64_t>(64, kPanelBytes / panel_bytes_ / 64 * 64)),
          limits_(static_cast<size_t>(kRows), radius + 1),
          sink_(sink),
          threads_(threads),
          cancel_(cancel) {}

    fh_status run() {
        if (!pass_.by_ones()) make_masks();
        // How many rows of b each bucket is compared with beside its own.
        std::vector<uint32_t> others(static_cast<size_t>(a_.keys()));
        const fh_status status =
            parallel_for((a_.keys() + kSlice - 1) / kSlice, threads_, cancel_, [&](int64_t s, int) {
                for (int64_t key = s * kSlice; key < std::min(a_.keys(), (s + 1) * kSlice); ++key)
                    if (a_.size(key) > 0)
                        near_buckets(key, [&](int64_t first, int64_t last) {
                            others[key] += static_cast<uint32_t>(last - first);
                        });
            });
        if (status != FH_OK) return status;
        const std::vector<Task> tasks = make_tasks(others);
        std::vector<Worker> workers(
            static_cast<size_t>(std::min<int64_t>(std::max(threads_, 1), static_cast<int64_t>(tasks.size()))));
        for (Worker& w : workers) {
            w.panel_memory.reset(new uint8_t[static_cast<size_t>(panel_codes_ * panel_bytes_ + 64)]);
            w.panel = w.panel_memory.get() + (64 - reinterpret_cast<uintptr_t>(w.panel_memory.get()) % 64) % 64;
            w.gathered = CodeRows(panel_codes_, bytes_);
            if (!kernel_.weighted.empty()) w.queries.resize(static_cast<size_t>(kRows * panel_bytes_));
            w.rows.resize(static_cast<size_t>(panel_codes_));
            w.hits.reset(new uint64_t[kHitsRoom]);
            w.found.reserve(static_cast<size_t>(kBatch));
        }
        return parallel_for(static_cast<int64_t>(tasks.size()), threads_, cancel_, [&](int64_t number, int worker) {
            const Task& task = tasks[number];
            Worker& w = workers[worker];
            for (int64_t key = task.first_key; key < task.last_key && !stopped(); ++key) {
                const int64_t begin = a_.offsets[key], end = a_.offsets[key + 1];
                join_rows(w, worker, key, begin + task.first_row, std::min(begin + task.last_row, end));
            }
            flush(w, worker);
        });
    }

  private:
    bool stopped() const { return cancel_ != nullptr && __atomic_load_n(&cancel_->requested, __ATOMIC_RELAXED) != 0; }

    // What a key is changed by: all values of the substring's length with at most `radius` ones, but 0.
    void make_masks() {
        std::vector<uint32_t> last = {0};
        for (int32_t d = 1; d <= std::min(pass_.radius, pass_.length); ++d) {
            std::vector<uint32_t> next;
            for (const uint32_t mask : last)
                for (int32_t bit = mask == 0 ? 0 : 32 - __builtin_clz(mask); bit < pass_.length; ++bit)
                    next.push_back(mask | uint32_t{1} << bit);
            masks_.insert(masks_.end(), next.begin(), next.end());
            last.swap(next);
        }
    }

    // Calls visit(first, last) with the rows of b that rows of bucket `key` are compared with, beside those of the
    // same key where one set is joined with itself.
    template <class Visit>
    void near_buckets(int64_t key, const Visit& visit) const {
        if (pass_.by_ones()) {
            const int64_t first = self_ ? key + 1 : std::max<int64_t>(0, key - pass_.radius);
            const int64_t last = std::min(b_.keys(), key + pass_.radius + 1);
            if (first < last) visit(b_.offsets[first], b_.offsets[last]);
            return;
        }
        if (!self_) visit(b_.offsets[key], b_.offsets[key + 1]);
        for (const uint32_t mask : masks_) {
            const int64_t other = key ^ mask;
            if (!self_ || other > key) visit(b_.offsets[other], b_.offsets[other + 1]);
        }
    }

    std::vector<Task> make_tasks(const std::vector<uint32_t>& all_others) const {
        std::vector<Task> tasks;
        const int64_t words = kernel_.words, near = static_cast<int64_t>(masks_.size());
        int64_t open = -1, work = 0;  // a run of small buckets that is not yet a task
        const auto close = [&](int64_t end) {
            if (open >= 0) tasks.push_back({static_cast<uint32_t>(open), static_cast<uint32_t>(end), 0, UINT32_MAX});
            open = -1;
            work = 0;
        };
        for (int64_t key = 0; key < a_.keys(); ++key) {
            const int64_t rows = a_.size(key);
            if (rows == 0) continue;
            const int64_t others = all_others[key];
            const int64_t row = ((self_ ? rows / 2 : 0) + others) * words + kRowWork;
            const int64_t here = row * rows + others * words + near * kBucketWork;
            if (here > kTaskWork) {
                close(key);
                const int64_t step = std::max(kRows, kTaskWork / row / kRows * kRows);
                for (int64_t first = 0; first < rows; first += step)
                    tasks.push_back({static_cast<uint32_t>(key), static_cast<uint32_t>(key + 1),
                                     static_cast<uint32_t>(first), static_cast<uint32_t>(first + step)});
                continue;
            }
            if (open < 0) open = key;
            work += here;
            if (work > kTaskWork / 8) close(key + 1);
        }
        close(a_.keys());
        return tasks;
    }

    void join_rows(Worker& w, int worker, int64_t key, int64_t begin, int64_t end) {
        const int64_t bucket_end = a_.offsets[key + 1];
        for (int64_t first = begin; first < end && !stopped(); first += kRows) {
            const int64_t last = std::min(first + kRows, end);
            w.n = w.own = 0;
            if (self_) {
                w.own_first = first;
                for (int64_t from = first; from < bucket_end;) {
                    if (w.n == panel_codes_) scan(w, worker, first, last);
                    if (w.n == 0) w.own_first = from;
                    from = add(w, from, bucket_end);
                    w.own = w.n;
                }
            }
            near_buckets(key, [&](int64_t from, int64_t to) {
                while (from < to) {
                    if (w.n == panel_codes_) scan(w, worker, first, last);
                    from = add(w, from, to);
                }
            });
            scan(w, worker, first, last);
        }
    }

    // Adds rows [from, to) of b to the codes of the next panel, as many as it holds; gives where to go on.
    int64_t add(Worker& w, int64_t from, int64_t to) const {
        const int64_t count = std::min(to - from, panel_codes_ - w.n);
        std::memcpy(w.gathered.row(w.n), b_.rows.row(from), static_cast<size_t>(count * bytes_));
        for (int64_t c = 0; c < count; ++c) w.rows[w.n + c] = static_cast<uint32_t>(from + c);
        w.n += count;
        return from + count;
    }

    // Rows [first, last) of a against the codes that were added.
    void scan(Worker& w, int worker, int64_t first, int64_t last) {
        // Nothing to compare: an empty panel, or one code that is the only row.
        if (w.n == 0 || (w.own == w.n && w.own_first + w.n <= first + 1)) {
            w.n = w.own = 0;
            return;
        }
        const uint8_t *panel = w.gathered.row(0), *queries = a_.rows.row(first);
        if (kernel_.words > 1 || !kernel_.weighted.empty()) {
            kernel_.pack(panel, nullptr, w.n, w.panel);
            panel = w.panel;
        }
        if (!kernel_.weighted.empty()) {
            for (int64_t row = first; row < last; ++row)
                kernel_.pack_weighted_query(a_.rows.row(row), &w.queries[(row - first) * panel_bytes_]);
            queries = w.queries.data();
        }
        const int64_t step = w.own > 0 && w.own_first < last ? kStep : kRows;
        for (int64_t row = first; row < last; row += step) {
            const int64_t behind = w.own > 0 ? std::clamp<int64_t>(row - w.own_first, 0, w.own) / kStep * kStep : 0;
            ScanRequest request{queries + (row - first) * panel_bytes_,
                                limits_.data(),
                                panel + behind * panel_bytes_,
                                nullptr,
                                kernel_.words,
                                kernel_.largest,
                                w.n - behind,
                                w.hits.get(),
                                nullptr,
                                0,
                                0,
                                std::min(step, last - row),
                                0,
                                0,
                                0,
                                kernel_.weighted.data(),
                                kernel_.shared};
            if (request.n <= 0) break;
            while (kernel_.scan(&request)) {
                for (int64_t i = 0; i < request.hit_count; ++i) {
                    const uint64_t hit = w.hits[i];
                    const int64_t code = behind + static_cast<uint32_t>(hit), at = row + request.hit_query;
                    if (code < w.own && w.own_first + code <= at) continue;
                    if (found_before(at, w.rows[code])) continue;
                    const uint32_t x = a_.order[at], y = b_.order[w.rows[code]];
                    w.found.push_back(
                        {self_ ? std::min(x, y) : x, self_ ? std::max(x, y) : y, static_cast<int32_t>(hit >> 32)});
                    if (static_cast<int64_t>(w.found.size()) == kBatch) flush(w, worker);
                }
            }
        }
        w.n = w.own = 0;
    }

    // Whether an earlier pass has compared this pair.
    bool found_before(int64_t row, int64_t other) const {
        const uint8_t *x = a_.rows.row(row), *y = b_.rows.row(other);
        for (size_t t = 0; t < number_; ++t) {
            const JoinPass& pass = passes_[t];
            if (bits_set(read_bits(x, pass.start, pass.length) ^ read_bits(y, pass.start, pass.length)) <= pass.radius)
                return true;
        }
        return false;
    }

    void flush(Worker& w, int worker) {
        if (!w.found.empty()) sink_.take(worker, w.found.data(), static_cast<int64_t>(w.found.size()));
        w.found.clear();
    }

    const HammingPlan& kernel_;
    const KeyedCodes &a_, &b_;
    const std::vector<JoinPass>& passes_;
    const size_t number_;
    const JoinPass pass_;
    const bool self_;
    const int64_t bytes_, panel_bytes_;  // of a code: in a row, and in a panel
    const int64_t panel_codes_;
    const std::vector<int32_t> limits_;
    std::vector<uint32_t> masks_;
    PairSink& sink_;
    const int32_t threads_;
    fh_cancel* const cancel_;
};

}  // namespace

fh_status join_codes(const CodeRows& a, const CodeRows& b, const BitGroups& groups, int32_t radius, int32_t& plan,
                     PairSink& sink, int32_t threads, fh_cancel* cancel) {
    if (a.N() == 0 || b.N() == 0 || (&a == &b && a.N() == 1)) return FH_OK;
    const int32_t G = static_cast<int32_t>(groups.bits.size());
    const int64_t W = G > 0 ? groups.W : a.bytes();
    const fh_hamming_problem codes{
        nullptr, nullptr, nullptr, 0, 0, W, a.bytes(), groups.bits.data(), groups.weights.data(), G};
    HammingPlan kernel;
    if (const fh_status status = make_plan(&codes, kernel)) return status;
    radius = std::min(radius, kernel.largest);
    const std::vector<JoinPass> passes = plan == 0 ? cheapest_passes(a, b, groups, radius, kernel.words)
                                                   : passes_of_plan(plan, std::max(a.N(), b.N()), groups, radius);
    plan = passes[0].by_ones() ? -1 : static_cast<int32_t>(passes.size());
    KeyedCodes sorted_a, sorted_b;
    for (size_t number = 0; number < passes.size(); ++number) {
        if (const fh_status status = sort_by_key(a, passes[number], sorted_a, threads, cancel)) return status;
        if (&a != &b)
            if (const fh_status status = sort_by_key(b, passes[number], sorted_b, threads, cancel)) return status;
        Pass pass(kernel, sorted_a, &a == &b ? sorted_a : sorted_b, passes, number, radius, sink, threads, cancel);
        if (const fh_status status = pass.run()) return status;
    }
    return FH_OK;
}

}  // namespace fasthash
