// One query on its way through the tables: which buckets next, what they hold, when all is found.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "core/api.h"
#include "mih/cpu/mih_weights.h"
#include "mih/isa/near.h"

namespace fasthash {

// What is the same for all queries of a call.
struct MihPlan {
    const fh_hamming_problem* problem;
    const fh_mih_tables* tables;
    Near near;
    int64_t K;  // INT64_MAX: all that are within reach
    MihWeights weights;
    double price;                      // fh_mih_prices: tables
    std::array<double, 65> near_part;  // of fingerprints, as of near_parts()
};

// The steps of a search, as far as can be foreseen: after the first i + 1 of them, all codes within found[i] are found,
// which has taken ns[i] in all.
struct MihCourse {
    std::vector<int32_t> tables, found;
    std::vector<double> ns;
};

// A hit as one integer, ordered by (distance, position).
inline uint64_t hit_key(int32_t distance, uint32_t position) { return uint64_t(uint32_t(distance)) << 32 | position; }
inline int32_t hit_distance(uint64_t key) { return static_cast<int32_t>(key >> 32); }
inline int64_t hit_position(uint64_t key) { return static_cast<int64_t>(key & 0xffffffffu); }

enum class MihOutcome { kFound, kGivenUp, kDamaged, kCancelled };

// The buckets of one table at one distance from the query's own, and the hits wanted from them.
struct MihStep {
    int32_t table, radius;
    int32_t above, most;  // distances above < d <= most
    double limit_ns;      // gives up beyond, by the model
    const int32_t* seen;  // [m] radii seen before this step, -1: none: what they hold is no hit again
};

// Kinds of pages, of which some may be in memory and others on a disk.
enum MihPages : int32_t { kOffsetPages = 1, kEntryPages = 2, kPositionPages = 4, kCodePages = 8, kAllPages = 15 };

// One worker's buffers and findings.
struct alignas(64) MihScratch {
    explicit MihScratch(const MihPlan& plan);
    void start() { entries = 0, ns = 0, preempted = 0, damaged = false, keys.clear(); }

    std::vector<uint64_t> keys;       // hits
    std::vector<uint32_t> survivors;  // entries whose fingerprints are near enough, to be verified
    size_t survivors_count = 0;
    std::vector<uint8_t> difference;  // [W + kCodePadding]
    int64_t entries = 0;              // looked at
    double ns = 0;                    // what that should have taken
    double looked = 0;                // the last look at the clock, since the query began
    double preempted = 0;             // of the time since then, what other programs had the processor for
    int32_t cold = 0;                 // kinds of pages that had to be read from a disk: MihPages
    bool damaged = false;             // a table is not one of this database
};

class MihQuery {
  public:
    // workers: at least `threads` scratches; the hits end up in the first. query [W].
    MihQuery(const MihPlan& plan, const uint8_t* query, std::vector<MihScratch>& workers, int32_t first_worker);

    // The steps that find all codes within `reach`; those from most_ns on are left out.
    MihCourse course(int32_t reach, double most_ns);

    // What a range search should take; infinity: not to be done by tables.
    double range_ns(int32_t reach);

    // Finds the K nearest of the codes within `reach`, giving up where all within `stop` are found and that is not
    // enough, or where the buckets would take more than limit_ns, or have: pages that are not mapped yet, let alone on
    // a disk, take far longer than the model says.
    MihOutcome search(int32_t reach, int32_t stop, double limit_ns, int32_t threads, fh_cancel* cancel);

    // The hits, ordered; at most K.
    const std::vector<uint64_t>& hits() const { return mine().keys; }
    int64_t entries() const { return entries_; }
    double model_ns() const { return model_ns_; }
    double elapsed_ns() const { return std::chrono::duration<double, std::nano>(Clock::now() - start_).count(); }
    // The same without what a thread was pre-empted for, as far as that decides whether the query is late.
    double own_ns() const { return own_ns(elapsed_ns(), mine()); }

  private:
    struct Table {
        uint32_t bucket;           // the query's own
        uint64_t fingerprint;      // of the query
        int32_t radius = -1;       // all buckets within are seen
        double mean_entries;       // a bucket of the next step, as far as is known
        double near_mean = -1;     // a bucket at distance 1, -1: not looked up yet
        int32_t ring = INT32_MAX;  // most that substring and fingerprint may differ by in all (mih.h: sections)
    };

    using Clock = std::chrono::steady_clock;

    MihScratch& mine() const { return workers_[static_cast<size_t>(first_worker_)]; }
    bool late(MihScratch& scratch) const;
    double own_ns(double now, MihScratch& scratch) const;
    template <class Place>
    void ask(MihPages kind, MihScratch& scratch, int64_t count, const Place& place) const;
    double step_ns(int32_t table, int32_t radius, double mean_entries, int32_t room) const;
    double next_step_ns(int32_t table, int32_t room) const;
    int32_t gain(int32_t table, int32_t radius) const;
    int32_t round_gain() const;
    double mean_at(int32_t table, int32_t radius);
    bool foresee(int32_t reach);
    bool met_before(const MihStep& step, const uint8_t* difference) const;
    double bucket_mean(int32_t table, int32_t radius) const;
    MihOutcome take(const MihStep& step, int32_t threads, fh_cancel* cancel);
    MihOutcome replay(int32_t above, int32_t most, double limit_ns, int32_t threads, fh_cancel* cancel);
    bool visit(const MihStep& step, int64_t first_mask, int64_t masks, MihScratch& scratch) const;
    void verify(const MihStep& step, int32_t& most, MihScratch& scratch) const;
    void keep_nearest(std::vector<uint64_t>& keys, int32_t& most) const;

    const MihPlan& plan_;
    const uint8_t* query_;
    std::vector<MihScratch>& workers_;
    int32_t first_worker_;
    std::vector<Table> tables_;
    std::vector<int32_t> radii_;  // [m], of tables_ or of a replay
    std::vector<int32_t> order_;  // the table of each step
    int64_t entries_ = 0;
    MihCourse course_;     // of a range search
    double model_ns_ = 0;  // by the model
    double ns_ = 0;        // by the model or by the clock, whichever is more
    Clock::time_point start_ = Clock::now();
    double limit_ns_ = 0;
};

}  // namespace fasthash
