// The search of one query through the tables.
//
// Each step looks at the buckets of one table at one distance from the query's own, and makes the radius within which
// all codes are known to be found grow by one. Of a step's codes only those within a window are kept: nearer than the
// K-th nearest so far, and than a little beyond the radius, so that fingerprints rule nearly all of them out. Where the
// radius outgrows the window the steps are taken again for what lies above it; steps grow so fast that this costs
// little.
//
// Tables may be mapped files whose pages are not in memory. Where a query has waited for one, the pages of the next
// block of buckets are asked for before they are read, and so on as long as that turns out to be of use.
#include "mih/cpu/mih_query.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <new>

#include "core/preempted.h"
#include "core/thread_pool.h"
#include "core/will_need.h"
#include "mih/cpu/bits_set.h"
#include "mih/cpu/mih_cost.h"

namespace fasthash {
namespace {

constexpr int64_t kBlock = 256;        // buckets whose offsets are fetched together
constexpr int64_t kAhead = 8;          // buckets whose entries are fetched ahead
constexpr int64_t kClock = 8;          // buckets between two looks at the clock: each may take a page fault or two
constexpr double kColdNs = 50e3;       // a longer wait between two looks: a disk was read
constexpr double kAskNs = 750;         // asking for a page takes longer where it is not in memory, 450 where it is
constexpr int64_t kPiece = 4096;       // entries of a bucket compared at a time
constexpr size_t kSurvivors = 1024;    // verified together, so that their fetches overlap
constexpr size_t kClockCodes = 16;     // codes that are verified between two
constexpr double kParallelNs = 200e3;  // a step worth several threads
constexpr int64_t kTaskMasks = 2048;   // of which each takes so many buckets at a time

struct Binomials {
    int64_t of[kLongestSubstring + 1][kLongestSubstring + 2] = {};
    constexpr Binomials() {
        for (int n = 0; n <= kLongestSubstring; ++n) {
            of[n][0] = 1;
            for (int k = 1; k <= n; ++k) of[n][k] = of[n - 1][k - 1] + of[n - 1][k];
        }
    }
};
constexpr Binomials kBinomials;

// The number `index` of the masks with `ones` bits set, in ascending order (the combinatorial number system).
uint32_t mask_at(int64_t index, int32_t ones) {
    uint32_t mask = 0;
    for (int32_t bit = kLongestSubstring - 1; ones > 0; --bit)
        if (index >= kBinomials.of[bit][ones]) {
            index -= kBinomials.of[bit][ones--];
            mask |= uint32_t{1} << bit;
        }
    return mask;
}

// The next mask with as many bits set.
uint32_t next_mask(uint32_t mask) {
    const uint32_t lowest = mask & -mask, ripple = mask + lowest;
    return ripple | (mask ^ ripple) >> 2 >> __builtin_ctz(lowest);
}

// difference [W + padding] = a xor b; gives the bits set.
int32_t compare(const uint8_t* a, const uint8_t* b, int64_t W, uint8_t* difference) {
    int32_t distance = 0;
    int64_t i = 0;
    for (; i + 8 <= W; i += 8) {
        uint64_t x, y;
        std::memcpy(&x, a + i, 8);
        std::memcpy(&y, b + i, 8);
        x ^= y;
        std::memcpy(difference + i, &x, 8);
        distance += bits_set(x);
    }
    for (; i < W; ++i) distance += bits_set(difference[i] = a[i] ^ b[i]);
    return distance;
}

}  // namespace

MihScratch::MihScratch(const MihPlan& plan)
    : survivors(kSurvivors + kPiece + kNearSlack), difference(static_cast<size_t>(plan.problem->W + kCodePadding)) {}

MihQuery::MihQuery(const MihPlan& plan, const uint8_t* query, std::vector<MihScratch>& workers, int32_t first_worker)
    : plan_(plan),
      query_(query),
      workers_(workers),
      first_worker_(first_worker),
      tables_(static_cast<size_t>(plan.tables->m)),
      radii_(tables_.size(), -1),
      model_ns_(kQueryNs * plan.price),
      ns_(model_ns_) {
    const fh_mih_tables& all = *plan.tables;
    PaddedCodes padded(query, 1, plan.problem->W, plan.problem->W);
    const uint8_t* code = padded[0];
    for (int32_t t = 0; t < all.m; ++t) {
        tables_[t].bucket = substring(code, all.tables[t]);
        tables_[t].fingerprint = fingerprint(code, all.tables[t], all.bits, all.fingerprint_bytes);
        __builtin_prefetch(all.tables[t].offsets + tables_[t].bucket);
    }
    for (int32_t t = 0; t < all.m; ++t) tables_[t].mean_entries = bucket_mean(t, 0);
    mine().start();
    mine().cold = elapsed_ns() > kColdNs ? kAllPages : 0;
}

// Has `count` places of a kind read ahead where that is of use: place(i, will_need) tells of one.
template <class Place>
void MihQuery::ask(MihPages kind, MihScratch& scratch, int64_t count, const Place& place) const {
    if ((scratch.cold & kind) == 0) return;
    WillNeed will_need;
    const double start = elapsed_ns();
    for (int64_t i = 0; i < count; ++i) place(i, will_need);
    scratch.looked = elapsed_ns();
    if (scratch.looked - start < kAskNs * static_cast<double>(will_need.asked())) scratch.cold &= ~kind;
}

// Entries of a bucket at distance `radius`, 0 or 1, on average.
double MihQuery::bucket_mean(int32_t table, int32_t radius) const {
    const fh_mih_table& t = plan_.tables->tables[table];
    const int32_t buckets = radius == 0 ? 1 : t.length;
    const auto bucket = [&](int64_t i) { return tables_[table].bucket ^ (radius == 0 ? 0 : uint32_t{1} << i); };
    ask(kOffsetPages, mine(), buckets, [&](int64_t i, WillNeed& need) { need(t.offsets + bucket(i), 8); });
    uint64_t total = 0;
    for (int32_t i = 0; i < buckets; ++i)
        total += t.offsets[bucket(i) + 1] - t.offsets[bucket(i)];  // of a damaged table, anything: visit() checks
    return static_cast<double>(total) / buckets;
}

// What the buckets of a table at one distance should take, of codes within `room` of the query.
double MihQuery::step_ns(int32_t table, int32_t radius, double mean_entries, int32_t room) const {
    const int64_t buckets = kBinomials.of[plan_.tables->tables[table].length][radius];
    const int32_t near =
        plan_.weights.near_limit(table, std::min(room, tables_[table].ring) - plan_.weights.least(table, radius));
    const double verified = near < 0 ? 0 : plan_.near_part[static_cast<size_t>(std::min(near, 64))];
    const double entry_ns = kEntryNs * plan_.tables->fingerprint_bytes / 4 + verified * kVerifyNs;
    return static_cast<double>(buckets) * (kBucketNs + mean_entries * entry_ns) * plan_.price;
}

double MihQuery::next_step_ns(int32_t table, int32_t room) const {
    return step_ns(table, tables_[table].radius + 1, tables_[table].mean_entries, room);
}

// By how much a step to `radius` of a table makes the radius of what is found grow: by its next lowest weight.
int32_t MihQuery::gain(int32_t table, int32_t radius) const {
    return radius > plan_.tables->tables[table].length
               ? 1
               : plan_.weights.least(table, radius + 1) - plan_.weights.least(table, radius);
}

// What the next step of each table gains, all together.
int32_t MihQuery::round_gain() const {
    int32_t round = 0;
    for (int32_t t = 0; t < plan_.tables->m; ++t) round += gain(t, tables_[t].radius + 1);
    return round;
}

// Entries of a bucket at a distance from the query's own, on average: fewer and fewer, down to what any bucket holds.
double MihQuery::mean_at(int32_t table, int32_t radius) {
    Table& own = tables_[table];
    if (radius == 0) return own.mean_entries;
    const double any = std::ldexp(static_cast<double>(plan_.problem->N), -plan_.tables->tables[table].length);
    return own.near_mean < 0 ? any : std::max(any, std::ldexp(own.near_mean, 1 - radius));
}

MihCourse MihQuery::course(int32_t reach, double most_ns) {
    const int32_t m = plan_.tables->m, round = round_gain();
    MihCourse course;
    std::vector<int32_t> radii(static_cast<size_t>(m), -1);
    double ns = model_ns_;
    for (int32_t found = -1; found < reach;) {
        const int32_t room = std::min(reach, plan_.K == INT64_MAX ? reach : found + round);
        int32_t best = 0;
        double best_ns = 0;
        for (int32_t t = 0; t < m; ++t) {
            const double step = step_ns(t, radii[t] + 1, mean_at(t, radii[t] + 1), room);
            if (t == 0 || step / gain(t, radii[t] + 1) < best_ns / gain(best, radii[best] + 1))
                best = t, best_ns = step;
        }
        if (radii[best] == plan_.tables->tables[best].length) break;  // all of it is seen: a scan
        if (radii[best] == 0 && tables_[best].near_mean < 0) {
            tables_[best].near_mean = bucket_mean(best, 1);
            continue;
        }
        ns += best_ns;
        if (ns >= most_ns) break;
        found = std::min(reach, found + gain(best, ++radii[best]));
        course.tables.push_back(best);
        course.found.push_back(found);
        course.ns.push_back(ns);
    }
    return course;
}

// Of a range search: its course, and how near substring and fingerprint have to be (mih.h: sections).
bool MihQuery::foresee(int32_t reach) {
    const fh_mih_tables& all = *plan_.tables;
    const auto in_sections = [&](int32_t t, const auto& visit) {  // those that substring and fingerprint lie in
        const int32_t end = all.tables[t].length + std::min(8 * all.fingerprint_bytes, all.bits - all.tables[t].length);
        for (int32_t i = 0; i < all.m; ++i) {
            const int32_t from = all.tables[(t + i) % all.m].start - all.tables[t].start;
            if ((from + all.bits) % all.bits < end) visit((t + i) % all.m);
        }
    };
    for (int32_t t = 0; t < all.m; ++t) {  // about: as if all sections had the same part
        int32_t sections = 0;
        in_sections(t, [&](int32_t) { ++sections; });
        tables_[t].ring = static_cast<int32_t>(int64_t{reach + 1} * sections / all.m);
    }
    course_ = course(reach, INFINITY);
    if (course_.found.empty() || course_.found.back() < reach) return false;
    std::vector<int32_t> steps(tables_.size(), 0);
    for (const int32_t t : course_.tables) ++steps[t];
    for (int32_t t = 0; t < all.m; ++t) {
        tables_[t].ring = -1;
        in_sections(t, [&](int32_t section) { tables_[t].ring += plan_.weights.least(section, steps[section]); });
    }
    return true;
}

double MihQuery::range_ns(int32_t reach) {
    return foresee(std::min(reach, plan_.weights.largest())) ? course_.ns.back() : INFINITY;
}

MihOutcome MihQuery::search(int32_t reach, int32_t stop, double limit_ns, int32_t threads, fh_cancel* cancel) {
    const int32_t m = plan_.tables->m;
    const bool all = plan_.K == INT64_MAX;
    reach = std::min(reach, plan_.weights.largest());
    limit_ns_ = limit_ns;
    if (all && course_.found.empty() && !foresee(reach)) return MihOutcome::kGivenUp;
    const int32_t round = round_gain();
    int32_t found = -1;                                             // all codes within are found
    int32_t window = all ? reach : std::min(reach, 2 * round - 1);  // hits beyond are not kept
    while (found < reach) {
        if (found >= stop) return MihOutcome::kGivenUp;
        int32_t t = 0;
        if (all)
            t = course_.tables[order_.size()];
        else
            for (int32_t other = 1; other < m; ++other)
                if (next_step_ns(other, window) / gain(other, tables_[other].radius + 1) <
                    next_step_ns(t, window) / gain(t, tables_[t].radius + 1))
                    t = other;
        Table& table = tables_[t];
        const double step = next_step_ns(t, window);
        if (table.radius == plan_.tables->tables[t].length || ns_ + step > limit_ns) return MihOutcome::kGivenUp;
        const int32_t next = std::min(reach, found + gain(t, table.radius + 1));
        if (next > window) {
            const int32_t wider = std::min(reach, next + round - 1);
            const MihOutcome outcome = replay(window, wider, limit_ns - step, threads, cancel);
            if (outcome != MihOutcome::kFound) return outcome;
            window = wider;
        }
        const int64_t before = entries_;
        const MihOutcome outcome =
            take({t, table.radius + 1, -1, std::min(window, reach), limit_ns - ns_, radii_.data()}, threads, cancel);
        if (outcome != MihOutcome::kFound) return outcome;
        order_.push_back(t);
        radii_[t] = ++table.radius;
        if (table.radius > 0)
            table.mean_entries = static_cast<double>(entries_ - before) /
                                 static_cast<double>(kBinomials.of[plan_.tables->tables[t].length][table.radius]);
        else if (!all)
            table.mean_entries = bucket_mean(t, 1);
        else
            table.mean_entries = mean_at(t, 1);
        found = next;
        if (static_cast<int64_t>(mine().keys.size()) >= plan_.K) keep_nearest(mine().keys, reach);
    }
    std::sort(mine().keys.begin(), mine().keys.end());
    return MihOutcome::kFound;
}

// Takes all steps so far again, for the hits at distances above < d <= most.
MihOutcome MihQuery::replay(int32_t above, int32_t most, double limit_ns, int32_t threads, fh_cancel* cancel) {
    std::fill(radii_.begin(), radii_.end(), -1);
    for (const int32_t t : order_) {
        const MihOutcome outcome =
            take({t, radii_[t] + 1, above, most, limit_ns - ns_, radii_.data()}, threads, cancel);
        if (outcome != MihOutcome::kFound) return outcome;
        ++radii_[t];
    }
    return MihOutcome::kFound;
}

// Takes one step, on several threads where it is long; its hits go to mine().
MihOutcome MihQuery::take(const MihStep& step, int32_t threads, fh_cancel* cancel) {
    const int64_t masks = kBinomials.of[plan_.tables->tables[step.table].length][step.radius];
    MihScratch& own = mine();
    own.ns = 0, own.entries = 0;
    bool enough = false;  // limit_ns passed
    if (threads == 1 || next_step_ns(step.table, step.most) < kParallelNs) {
        enough = !visit(step, 0, masks, own);
    } else {
        std::atomic<bool> stop{false}, no_memory{false};
        for (int32_t worker = 1; worker < threads; ++worker) {
            workers_[worker].start();
            workers_[worker].cold = own.cold;
        }
        const fh_status status =
            parallel_for((masks + kTaskMasks - 1) / kTaskMasks, threads, cancel, [&](int64_t task, int worker) {
                if (stop.load(std::memory_order_relaxed)) return;
                try {
                    if (!visit(step, task * kTaskMasks, std::min(kTaskMasks, masks - task * kTaskMasks),
                               workers_[worker]))
                        stop.store(true, std::memory_order_relaxed);
                } catch (const std::bad_alloc&) {
                    no_memory = stop = true;
                }
            });
        if (status == FH_CANCELLED) return MihOutcome::kCancelled;
        if (no_memory) throw std::bad_alloc();
        enough = stop;
        for (int32_t worker = 1; worker < threads; ++worker) {
            const MihScratch& other = workers_[worker];
            own.keys.insert(own.keys.end(), other.keys.begin(), other.keys.end());
            own.ns = std::max(own.ns, other.ns);
            own.preempted = std::max(own.preempted, other.preempted);
            own.entries += other.entries;
            own.damaged |= other.damaged;
            own.cold |= other.cold;
        }
    }
    entries_ += own.entries;
    model_ns_ += own.ns;
    ns_ = std::max(ns_ + own.ns, own_ns());
    if (own.damaged) return MihOutcome::kDamaged;
    return enough ? MihOutcome::kGivenUp : MihOutcome::kFound;
}

// The buckets of the masks first_mask .. first_mask + masks of a step. False: stopped, at the limit or at damage.
bool MihQuery::visit(const MihStep& step, int64_t first_mask, int64_t masks, MihScratch& scratch) const {
    const fh_mih_tables& all = *plan_.tables;
    const fh_mih_table& table = all.tables[step.table];
    const Table& own = tables_[step.table];
    const int64_t bytes = all.fingerprint_bytes;
    const double bucket_ns = kBucketNs * plan_.price,
                 entry_ns = kEntryNs * plan_.price * static_cast<double>(bytes) / 4;
    const int32_t nearest = plan_.weights.least(step.table, step.radius);  // all codes of the step are at least so far
    int32_t most = step.most;
    const auto room = [&] { return std::min(most, own.ring) - nearest; };  // for the fingerprints
    int32_t near_limit = plan_.weights.near_limit(step.table, room());
    uint32_t mask = mask_at(first_mask, step.radius);
    uint32_t begins[kBlock], ends[kBlock], buckets[kBlock];
    size_t survivors = 0;
    scratch.looked = elapsed_ns();
    for (int64_t done = 0; done < masks; done += kBlock) {
        const int64_t block = std::min(kBlock, masks - done);
        for (int64_t i = 0; i < block; ++i) {
            buckets[i] = own.bucket ^ mask;
            __builtin_prefetch(table.offsets + buckets[i]);
            if (step.radius > 0) mask = next_mask(mask);
        }
        ask(kOffsetPages, scratch, block, [&](int64_t i, WillNeed& need) { need(table.offsets + buckets[i], 8); });
        int64_t filled = 0, entries = 0;
        for (int64_t i = 0; i < block; ++i) {
            if (i % kClock == 0 && late(scratch)) return false;
            begins[filled] = table.offsets[buckets[i]];
            ends[filled] = table.offsets[buckets[i] + 1];
            scratch.damaged |= ends[filled] < begins[filled] || ends[filled] > plan_.problem->N;
            entries += ends[filled] - begins[filled];
            filled += ends[filled] > begins[filled];
        }
        if (scratch.damaged) return false;
        scratch.ns += static_cast<double>(block) * bucket_ns + static_cast<double>(entries) * entry_ns;
        if (scratch.ns > step.limit_ns) return false;
        scratch.entries += entries;
        ask(kEntryPages, scratch, filled, [&](int64_t i, WillNeed& need) {
            need(table.fingerprints + begins[i] * bytes, (ends[i] - begins[i]) * bytes);
        });
        const auto fetch = [&](int64_t i) {
            const uint8_t* first = table.fingerprints + begins[i] * bytes;
            const int64_t length = std::min<int64_t>((ends[i] - begins[i]) * bytes, 256);
            for (int64_t at = 0; at < length; at += 64) __builtin_prefetch(first + at);
        };
        for (int64_t i = 0; i < std::min(kAhead, filled); ++i) fetch(i);
        for (int64_t i = 0; i < filled; ++i) {
            if (i + kAhead < filled) fetch(i + kAhead);
            if (i % kClock == 0 && late(scratch)) return false;
            for (int64_t at = begins[i]; at < ends[i]; at += kPiece) {
                uint32_t* fresh = scratch.survivors.data() + survivors;
                int64_t count = plan_.near(table.fingerprints + at * bytes, std::min<int64_t>(kPiece, ends[i] - at),
                                           own.fingerprint, near_limit, static_cast<uint32_t>(at), fresh);
                if (plan_.weights.weighted())
                    count =
                        plan_.weights.keep_near(step.table, table.fingerprints, own.fingerprint, room(), fresh, count);
                survivors += count;
                if (survivors >= kSurvivors) {
                    scratch.survivors_count = survivors;
                    verify(step, most, scratch);
                    near_limit = plan_.weights.near_limit(step.table, room());
                    survivors = 0;
                    if (scratch.damaged || scratch.ns > step.limit_ns || late(scratch)) return false;
                }
            }
        }
    }
    scratch.survivors_count = survivors;
    verify(step, most, scratch);
    return !scratch.damaged && scratch.ns <= step.limit_ns && !late(scratch);
}

// Whether the query has taken too long; notes whether it has waited for a disk since the last look.
bool MihQuery::late(MihScratch& scratch) const {
    const double now = elapsed_ns();
    if (now - scratch.looked > kColdNs) scratch.cold = kAllPages;
    scratch.looked = now;
    return own_ns(now, scratch) > limit_ns_;
}

// Of the time `now` since the query began, the part that it is charged for.
double MihQuery::own_ns(double now, MihScratch& scratch) const {
    if (now - scratch.preempted > limit_ns_) scratch.preempted += std::min(newly_preempted_ns(), now);
    return now - scratch.preempted;
}

// Compares the survivors in full; those within the window that no earlier step has met become hits.
void MihQuery::verify(const MihStep& step, int32_t& most, MihScratch& scratch) const {
    const fh_hamming_problem& p = *plan_.problem;
    const fh_mih_tables& all = *plan_.tables;
    uint32_t* entries = scratch.survivors.data();
    const size_t count = scratch.survivors_count;
    const uint32_t* positions = all.tables[step.table].positions;
    const int64_t places = static_cast<int64_t>(count);
    for (size_t i = 0; i < count; ++i) __builtin_prefetch(positions + entries[i]);
    ask(kPositionPages, scratch, places, [&](int64_t i, WillNeed& need) { need(positions + entries[i], 4); });
    for (size_t i = 0; i < count; ++i) {
        if (i % kClockCodes == 0 && late(scratch)) return;  // late() stays true: visit() gives up
        entries[i] = positions[entries[i]];
        if (entries[i] >= p.N) {
            scratch.damaged = true;
            return;
        }
        __builtin_prefetch(p.database + entries[i] * p.stride);
        if (p.mask != nullptr) __builtin_prefetch(p.mask + entries[i] / 64);
    }
    ask(kCodePages, scratch, places, [&](int64_t i, WillNeed& need) { need(p.database + entries[i] * p.stride, p.W); });
    scratch.ns += static_cast<double>(count) * kVerifyNs * plan_.price;
    uint8_t* difference = scratch.difference.data();
    for (size_t i = 0; i < count; ++i) {
        if (i % kClockCodes == 0 && late(scratch)) return;
        const uint32_t n = entries[i];
        if (p.mask != nullptr && (p.mask[n / 64] >> n % 64 & 1) == 0) continue;
        int32_t distance = compare(query_, p.database + n * p.stride, p.W, difference);
        if (plan_.weights.weighted()) distance = plan_.weights.distance(difference);
        if (distance <= step.above || distance > most) continue;
        if (bits_set(substring(difference, all.tables[step.table])) != step.radius) {
            scratch.damaged = true;
            return;
        }
        if (met_before(step, difference)) continue;
        scratch.keys.push_back(hit_key(distance, n));
        const size_t size = scratch.keys.size();
        if (size >= 1024 && static_cast<int64_t>(size / 2) >= plan_.K) keep_nearest(scratch.keys, most);
    }
}

// Whether a bucket of an earlier step has led to a code, of which `difference` says how it differs.
bool MihQuery::met_before(const MihStep& step, const uint8_t* difference) const {
    const fh_mih_tables& all = *plan_.tables;
    for (int32_t t = 0; t < all.m; ++t) {
        const int32_t ones = bits_set(substring(difference, all.tables[t])), ring = tables_[t].ring;
        if (step.seen[t] < ones) continue;
        if (ring == INT32_MAX) return true;
        const uint64_t behind = fingerprint(difference, all.tables[t], all.bits, all.fingerprint_bytes);
        if (plan_.weights.least(t, ones) + plan_.weights.fingerprint_distance(t, behind) <= ring) return true;
    }
    return false;
}

// Keeps the K nearest of at least K hits; nothing beyond the last of them is wanted any more.
void MihQuery::keep_nearest(std::vector<uint64_t>& keys, int32_t& most) const {
    std::nth_element(keys.begin(), keys.begin() + (plan_.K - 1), keys.end());
    most = std::min(most, hit_distance(keys[static_cast<size_t>(plan_.K - 1)]));
    keys.resize(static_cast<size_t>(plan_.K));
}

}  // namespace fasthash
