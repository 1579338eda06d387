// Runs every CPU function of the core for the sanitizers (see sanitize.sh): all instruction sets of the machine,
// several thread counts, concurrent callers, cancellation, allocations that fail and, with the argument "fork", a
// forked child. Inputs lie in heap blocks of exactly their size. Hamming results are compared with a plain loop;
// everything else with one thread's.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "asymmetric/asymmetric_topk.h"
#include "core/cpu_features.h"
#include "hamming/asymmetric.h"
#include "hamming/hamming.h"
#include "mih/mih.h"
#include "neighbors/nearest.h"
#include "pairs/pairs.h"
#include "pairwise/pairwise_l1.h"
#include "sampling/beta.h"

// Allocations of this thread that still succeed; below zero: all of them.
thread_local int64_t allocations_left = -1;

__attribute__((noinline)) void* operator new(std::size_t size) {
    void* block = allocations_left == 0 ? nullptr : std::malloc(std::max<std::size_t>(size, 1));
    if (block == nullptr) throw std::bad_alloc();
    if (allocations_left > 0) --allocations_left;
    return block;
}
__attribute__((noinline)) void* operator new[](std::size_t size) { return operator new(size); }
__attribute__((noinline)) void operator delete(void* block) noexcept { std::free(block); }
__attribute__((noinline)) void operator delete[](void* block) noexcept { std::free(block); }
__attribute__((noinline)) void operator delete(void* block, std::size_t) noexcept { std::free(block); }
__attribute__((noinline)) void operator delete[](void* block, std::size_t) noexcept { std::free(block); }

namespace {

using Bytes = std::vector<uint8_t>;

[[noreturn]] void stop(const std::string& what) {
    std::fprintf(stderr, "sanitize_driver: %s (%s)\n", what.c_str(), fh_last_error());
    std::exit(1);
}

void check(bool good, const char* what) {
    if (!good) stop(what);
}

bool starving = false;

// Calls an op. Where starving, again and again, with one more allocation that succeeds each time, until the op does.
template <class Call>
void run(const Call& call, const char* op) {
    for (int64_t allowed = 0; starving; ++allowed) {
        allocations_left = allowed;
        const fh_status status = call();
        allocations_left = -1;
        if (status == FH_OK) return;
        check(status == FH_NO_MEMORY && std::string(op) + ": out of host memory" == fh_last_error(), op);
    }
    check(call() == FH_OK, op);
}

template <class T>
void append(Bytes& all, const std::vector<T>& values) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
    all.insert(all.end(), bytes, bytes + values.size() * sizeof(T));
}

struct Shape {
    int64_t Q, N, W, gap;  // gap: bytes between rows
    int mask;              // percent of eligible codes; 100: no mask
};

struct Codes {
    // weighted: in two groups that meet inside a byte and leave the last bit out.
    explicit Codes(const Shape& shape, bool weighted = false) : shape(shape) {
        if (weighted) {
            group_bits = {5, static_cast<int32_t>(8 * shape.W - 6)};
            group_weights = {200, 3};
        }
        std::mt19937 random(static_cast<unsigned>(shape.W * 1000 + shape.N));
        queries.resize(shape.Q * shape.W);
        database.resize(shape.N * (shape.W + shape.gap) - shape.gap);
        for (auto& byte : queries) byte = static_cast<uint8_t>(random());
        for (auto& byte : database) byte = static_cast<uint8_t>(random() & random());
        if (shape.mask < 100) {
            mask.assign((shape.N + 63) / 64, 0);
            for (int64_t n = 0; n < shape.N; ++n)
                if (static_cast<int>(random() % 100) < shape.mask) mask[n / 64] |= uint64_t{1} << (n % 64);
        }
    }
    fh_hamming_problem problem() const {
        return {queries.data(),
                database.data(),
                mask.empty() ? nullptr : mask.data(),
                shape.Q,
                shape.N,
                shape.W,
                shape.W + shape.gap,
                group_bits.data(),
                group_weights.data(),
                static_cast<int32_t>(group_bits.size())};
    }
    int32_t weight(int64_t bit) const { return bit < 5 ? 200 : bit < 8 * shape.W - 1 ? 3 : 0; }
    int32_t largest() const {
        return static_cast<int32_t>(group_bits.empty() ? 8 * shape.W : 5 * 200 + (8 * shape.W - 6) * 3);
    }
    bool eligible(int64_t n) const { return mask.empty() || (mask[n / 64] >> (n % 64) & 1) != 0; }
    int32_t distance(int64_t q, int64_t n) const {
        int32_t bits = 0;
        for (int64_t byte = 0; byte < shape.W; ++byte) {
            const int differing = queries[q * shape.W + byte] ^ database[n * (shape.W + shape.gap) + byte];
            for (int bit = 0; bit < 8; ++bit)
                if (differing >> (7 - bit) & 1) bits += group_bits.empty() ? 1 : weight(8 * byte + bit);
        }
        return bits;
    }

    Shape shape;
    Bytes queries, database;
    std::vector<uint64_t> mask;
    std::vector<int32_t> group_bits, group_weights;
};

// All codes of a query in (distance, position) order.
std::vector<std::pair<int32_t, int64_t>> ranking(const Codes& codes, int64_t q) {
    std::vector<std::pair<int32_t, int64_t>> all;
    for (int64_t n = 0; n < codes.shape.N; ++n)
        if (codes.eligible(n)) all.emplace_back(codes.distance(q, n), n);
    std::sort(all.begin(), all.end());
    return all;
}

void topk(const Codes& codes, int64_t K, int32_t threads, bool compare, Bytes& all) {
    const fh_hamming_problem p = codes.problem();
    std::vector<int32_t> distances(p.Q * K);
    std::vector<int64_t> ids(p.Q * K);
    run([&] { return fh_hamming_topk_cpu(&p, K, distances.data(), ids.data(), threads, nullptr); }, "hamming_topk");
    for (int64_t q = 0; compare && q < p.Q; ++q) {
        const auto wanted = ranking(codes, q);
        for (int64_t i = 0; i < K; ++i) {
            const bool there = i < static_cast<int64_t>(wanted.size());
            check(distances[q * K + i] == (there ? wanted[i].first : codes.largest() + 1), "hamming_topk: distances");
            check(ids[q * K + i] == (there ? wanted[i].second : -1), "hamming_topk: ids");
        }
    }
    append(all, distances);
    append(all, ids);
}

void range(const Codes& codes, int32_t radius, int32_t threads, bool compare, Bytes& all) {
    const fh_hamming_problem p = codes.problem();
    std::vector<int64_t> counts(p.Q), offsets(p.Q + 1);
    run([&] { return fh_hamming_range_count_cpu(&p, radius, counts.data(), threads, nullptr); }, "hamming_range_count");
    for (int64_t q = 0; q < p.Q; ++q) offsets[q + 1] = offsets[q] + counts[q];
    std::vector<int32_t> distances(offsets[p.Q]);
    std::vector<int64_t> ids(offsets[p.Q]);
    run(
        [&] {
            return fh_hamming_range_fill_cpu(&p, radius, offsets.data(), distances.data(), ids.data(), threads,
                                             nullptr);
        },
        "hamming_range_fill");
    for (int64_t q = 0; compare && q < p.Q; ++q) {
        const auto wanted = ranking(codes, q);
        for (int64_t i = 0; i < counts[q]; ++i)
            check(distances[offsets[q] + i] == wanted[i].first && ids[offsets[q] + i] == wanted[i].second,
                  "hamming_range: results");
        check(counts[q] == static_cast<int64_t>(wanted.size()) || wanted[counts[q]].first > radius,
              "hamming_range: too few");
    }
    append(all, distances);
    append(all, ids);
}

void counts(const Codes& codes, int32_t threads, Bytes& all) {
    fh_hamming_problem p = codes.problem();
    p.mask = nullptr;
    const int64_t C = 5, bins = codes.largest() + 1;
    std::vector<int64_t> labels(p.N), counted(p.Q * bins);
    std::vector<double> weights(p.Q * C), sums(p.Q * bins);
    for (int64_t n = 0; n < p.N; ++n) labels[n] = n * 7 % C;
    for (int64_t i = 0; i < p.Q * C; ++i) weights[i] = 1.0 / static_cast<double>(i + 1);
    run([&] { return fh_hamming_histogram_cpu(&p, nullptr, nullptr, 0, counted.data(), nullptr, threads, nullptr); },
        "hamming_histogram");
    append(all, counted);
    run(
        [&] {
            return fh_hamming_histogram_cpu(&p, labels.data(), weights.data(), C, counted.data(), sums.data(), threads,
                                            nullptr);
        },
        "hamming_histogram");
    append(all, counted);
    append(all, sums);
    std::vector<int32_t> distances(p.Q * p.N);
    run([&] { return fh_hamming_distances_cpu(&p, distances.data(), threads, nullptr); }, "hamming_distances");
    append(all, distances);
}

void asymmetric(const Codes& codes, int32_t threads, Bytes& all) {
    const int64_t D = 8 * codes.shape.W - 3, C = codes.shape.N / codes.shape.Q;
    if (codes.shape.gap != 0) return;
    std::vector<double> queries(codes.shape.Q * D, 0.25);
    const int32_t bits[] = {1, static_cast<int32_t>(D - 1)}, weights[] = {255, 3};
    for (const int32_t G : {0, 2}) {
        const fh_asymmetric_problem p{
            queries.data(), codes.database.data(), codes.shape.Q, C, D, codes.shape.W, bits, weights, G};
        std::vector<float> distances(p.Q * C);
        run([&] { return fh_asymmetric_distances_cpu(&p, distances.data(), threads, nullptr); },
            "asymmetric_distances");
        append(all, distances);
    }
}

// The distance of a code, four bits at a time. scale: a power of two, 2^exponent.
float real_distance(const Codes& codes, const float* query, int64_t n, bool dot, int exponent) {
    double sum = 0;
    for (int64_t nibble = 0; nibble < 2 * codes.shape.W; ++nibble) {
        double four = 0;
        for (int64_t bit = 4 * nibble; bit < std::min(4 * nibble + 4, 8 * codes.shape.W - 3); ++bit) {
            const int set = codes.database[n * (codes.shape.W + codes.shape.gap) + bit / 8] >> (7 - bit % 8) & 1;
            const double q = query[bit];
            four += dot ? (set != 0 ? -q : q) : std::fabs(q - set);
        }
        sum += four;
    }
    return static_cast<float>(std::ldexp(sum, exponent));
}

void asymmetric_topk(const Codes& codes, int64_t K, bool dot, int32_t threads, bool compare, Bytes& all) {
    const Shape& shape = codes.shape;
    const int64_t D = 8 * shape.W - 3;
    std::mt19937 random(static_cast<unsigned>(shape.N));
    std::vector<float> queries(shape.Q * D), distances(shape.Q * K);
    std::vector<int64_t> ids(shape.Q * K);
    std::vector<uint16_t> scales(shape.N);
    for (auto& q : queries) q = static_cast<float>(random() % 1000) / 1000 - (dot ? 0.5f : 0.0f);
    for (auto& scale : scales) scale = static_cast<uint16_t>((12 + random() % 6) << 10);  // 2^-3 to 2^2
    const fh_asymmetric_topk_problem p{queries.data(),
                                       FH_FLOAT32,
                                       codes.database.data(),
                                       codes.mask.empty() ? nullptr : codes.mask.data(),
                                       dot ? scales.data() : nullptr,
                                       shape.Q,
                                       D,
                                       shape.N,
                                       shape.W,
                                       shape.W + shape.gap,
                                       dot ? FH_DOT : FH_L1,
                                       nullptr,
                                       nullptr,
                                       0};
    run([&] { return fh_asymmetric_topk_cpu(&p, K, distances.data(), ids.data(), threads, nullptr); },
        "asymmetric_topk");
    for (int64_t q = 0; compare && q < p.Q; ++q) {
        std::vector<std::pair<float, int64_t>> wanted;
        for (int64_t n = 0; n < p.N; ++n)
            if (codes.eligible(n))
                wanted.emplace_back(real_distance(codes, &queries[q * D], n, dot, dot ? (scales[n] >> 10) - 15 : 0), n);
        std::sort(wanted.begin(), wanted.end());
        wanted.resize(K, {std::numeric_limits<float>::infinity(), -1});
        for (int64_t i = 0; i < K; ++i)
            check(distances[q * K + i] == wanted[i].first && ids[q * K + i] == wanted[i].second,
                  "asymmetric_topk: results");
    }
    append(all, distances);
    append(all, ids);
}

void mih(const Codes& codes, bool weighted, int32_t threads, Bytes& all) {
    fh_hamming_problem p = codes.problem();
    if (p.W < 4) return;
    const int32_t bits[] = {21, static_cast<int32_t>(8 * p.W - 21)}, weights[] = {7, 2};
    if (weighted) p.group_bits = bits, p.group_weights = weights, p.G = 2;
    const int32_t length = 10;
    std::vector<uint32_t> offsets[2], positions[2];
    Bytes fingerprints[2];
    fh_mih_table tables[2];
    const fh_mih_tables both{tables, 2, static_cast<int32_t>(8 * p.W), 4};
    for (int t = 0; t < 2; ++t) {
        offsets[t].resize((1 << length) + 1);
        positions[t].resize(p.N);
        fingerprints[t].resize(4 * p.N);
        run([&] { return fh_mih_offsets_cpu(&p, t * 16, length, offsets[t].data(), threads, nullptr); }, "mih_offsets");
        tables[t] = {t * 16, length, offsets[t].data(), fingerprints[t].data(), positions[t].data()};
        const fh_mih_tables alone{&tables[t], 1, both.bits, both.fingerprint_bytes};
        run(
            [&] {
                return fh_mih_fill_cpu(&p, &alone, 0, 0, 1 << length, fingerprints[t].data(), positions[t].data(),
                                       threads, nullptr);
            },
            "mih_fill");
        append(all, fingerprints[t]);
    }
    const int64_t K = std::min<int64_t>(5, p.N);
    std::vector<int32_t> distances(p.Q * K), scanned(p.Q * K);
    std::vector<int64_t> ids(p.Q * K), scanned_ids(p.Q * K), visited(p.Q), ends(p.Q + 1);
    fh_mih_spent spent;
    const fh_mih_terms always{{1, 1, 1}, 1e9, nullptr, 0};
    run(
        [&] {
            return fh_mih_topk_cpu(&p, &both, K, nullptr, &always, distances.data(), ids.data(), visited.data(), &spent,
                                   threads, nullptr);
        },
        "mih_topk");
    run([&] { return fh_hamming_topk_cpu(&p, K, scanned.data(), scanned_ids.data(), threads, nullptr); },
        "hamming_topk");
    for (int64_t q = 0; q < p.Q; ++q)
        if (visited[q] >= 0)
            check(std::equal(&ids[q * K], &ids[q * K] + K, &scanned_ids[q * K]), "mih_topk: not as the scan");
    const int32_t last[] = {2, 9};
    const fh_mih_terms foreseen{{1, 1e6, 1e6}, 0.1, last, 2};
    run(
        [&] {
            return fh_mih_topk_cpu(&p, &both, K, nullptr, &foreseen, distances.data(), ids.data(), visited.data(),
                                   &spent, threads, nullptr);
        },
        "mih_topk");
    for (const fh_mih_terms* terms : {&always, &foreseen}) {
        fh_mih_hits* hits = nullptr;
        run(
            [&] {
                return fh_mih_range_cpu(&p, &both, weighted ? 12 : 3, terms, ends.data(), visited.data(), &spent, &hits,
                                        threads, nullptr);
            },
            "mih_range");
        std::vector<int32_t> near(ends[p.Q]);
        std::vector<int64_t> near_ids(ends[p.Q]);
        fh_mih_hits_write(hits, near.data(), near_ids.data());
        fh_mih_hits_free(hits);
        if (terms == &always) append(all, ends);
    }
}

// Joins by every plan, of codes some of which are equal; in one set, and of two sets. weighted: all bits but the last
// three count 3.
void pairs(const Codes& codes, bool weighted, int32_t threads, bool compare, Bytes& all) {
    Codes some = codes;
    const int64_t W = some.shape.W, N = std::min<int64_t>(some.shape.N, 1500), stride = W + some.shape.gap;
    for (int64_t n = 0; n + 7 < N; n += 7) std::copy_n(&some.database[n * stride], W, &some.database[(n + 5) * stride]);
    const int32_t radius = static_cast<int32_t>(W), weights[] = {3, 1}, bits[] = {static_cast<int32_t>(8 * W - 3), 3};
    for (const bool self : {true, false}) {
        std::vector<int64_t> wanted_a, wanted_b;
        for (int64_t i = 0; compare && i < (self ? N : some.shape.Q); ++i)
            for (int64_t j = self ? i + 1 : 0; j < N; ++j) {
                const uint8_t *x = self ? &some.database[i * stride] : &some.queries[i * W],
                              *y = &some.database[j * stride];
                int32_t distance = 0;
                for (int64_t byte = 0; byte < W; ++byte) distance += __builtin_popcount(x[byte] ^ y[byte]);
                if (weighted) distance = 3 * distance - 2 * __builtin_popcount((x[W - 1] ^ y[W - 1]) & 7);
                if (distance <= radius) wanted_a.push_back(i), wanted_b.push_back(j);
            }
        for (const int32_t plan : {0, -1, 1, 3, radius + 1}) {
            fh_pairs_problem p{
                some.queries.data(), some.database.data(), some.shape.Q, N, W, W, stride, radius, plan, bits, weights,
                weighted ? 2 : 0};
            if (self) p = {some.database.data(), nullptr, N, 0, W, stride, 0, radius, plan, bits, weights, p.G};
            fh_pairs* join = nullptr;
            int64_t total = 0;
            run([&] { return fh_pairs_open_cpu(&p, &join, threads, nullptr); }, "hamming_pairs");
            run([&] { return fh_pairs_find_cpu(join, 0, p.Na, N * N, &total, threads, nullptr); }, "hamming_pairs");
            std::vector<int64_t> a(total), b(total);
            std::vector<int32_t> distances(total);
            run([&] { return fh_pairs_write_cpu(join, a.data(), b.data(), distances.data(), threads, nullptr); },
                "hamming_pairs");
            check(!compare || (a == wanted_a && b == wanted_b), "hamming_pairs: results");
            append(all, a);
            append(all, b);
            append(all, distances);
            std::vector<int64_t> lowest(N), parents(p.Na + N);
            for (int64_t n = 0; n < p.Na + N; ++n) parents[n] = n;
            run([&] { return fh_pairs_unite_cpu(join, 0, p.Na, parents.data(), threads, nullptr); },
                "duplicate_groups");
            fh_pairs_roots_cpu(parents.data(), p.Na + N);
            append(all, parents);
            run(
                [&] {
                    return self ? fh_pairs_stars_cpu(join, 2000, lowest.data(), threads, nullptr)
                                : fh_pairs_lowest_cpu(join, lowest.data(), threads, nullptr);
                },
                "duplicate_groups");
            append(all, lowest);
            for (const int64_t K : {1, 5}) {  // rows with fewer others have -1 and places that are not written
                if (!self || N <= K) continue;
                std::vector<int32_t> near(N * K);
                std::vector<int64_t> ids(N * K);
                run([&] { return fh_pairs_knn_cpu(join, K, near.data(), ids.data(), threads, nullptr); }, "knn_graph");
                append(all, near);
                append(all, ids);
            }
            fh_pairs_close(join);
        }
    }
}

// Points, losses and samples; the float and the double functions alike.
template <class T>
void points(int64_t N, int64_t D, int32_t threads, Bytes& all) {
    const fh_dtype dtype = std::is_same_v<T, float> ? FH_FLOAT32 : FH_FLOAT64;
    const int64_t L = 2, M = N - 1, K = 3;
    std::mt19937 random(static_cast<unsigned>(N * D));
    std::vector<T> x(L * N * D), y(L * M * D), grad_x(x.size()), grad_y(y.size());
    for (auto& value : x) value = static_cast<T>(random() % 1000) / 1000;
    for (auto& value : y) value = static_cast<T>(random() % 1000) / 1000;
    for (int32_t norm = 1; norm <= 2; ++norm) {
        const fh_nearest_problem p{x.data(), y.data(), L, N, M, D, K, M * D, norm, dtype};
        const fh_nearest_problem own{x.data(), nullptr, L, N, N, D, K, 0, norm, dtype};
        std::vector<T> distances(L * N * K), weights(L * N * K, 1), nu(L * N), rho(L * N), loss(L), one(L, 1);
        std::vector<int64_t> indices(L * N * K), nu_index(L * N), rho_index(L * N);
        for (const auto* problem : {&p, &own}) {
            T* const grad = problem->y == nullptr ? nullptr : grad_y.data();
            run([&] { return fh_nearest_cpu(problem, distances.data(), indices.data(), threads, nullptr); }, "nearest");
            run(
                [&] {
                    return fh_nearest_backward_cpu(problem, weights.data(), distances.data(), indices.data(), K,
                                                   grad_x.data(), grad, threads, nullptr);
                },
                "nearest_backward");
            append(all, distances);
            append(all, indices);
            append(all, grad_x);
        }
        run(
            [&] {
                return fh_kl_loss_cpu(&p, 1e-2, loss.data(), nu.data(), nu_index.data(), rho.data(), rho_index.data(),
                                      threads, nullptr);
            },
            "kl_loss");
        run(
            [&] {
                return fh_kl_loss_backward_cpu(&p, 1e-2, one.data(), nu.data(), nu_index.data(), rho.data(),
                                               rho_index.data(), grad_x.data(), grad_y.data(), threads, nullptr);
            },
            "kl_loss_backward");
        append(all, loss);
        append(all, grad_x);
        append(all, grad_y);
    }
    const fh_pairwise_problem pairs{x.data(), N, D, dtype};
    std::vector<T> distances(N * N), ones(N * N, 1);
    run([&] { return fh_pairwise_l1_cpu(&pairs, distances.data(), threads, nullptr); }, "pairwise_l1");
    run([&] { return fh_pairwise_l1_backward_cpu(&pairs, ones.data(), grad_x.data(), threads, nullptr); },
        "pairwise_l1_backward");
    append(all, distances);
    append(all, grad_x);
}

Bytes everything(const std::vector<Shape>& shapes, int64_t most_points, int32_t threads, bool compare) {
    Bytes all;
    for (const Shape& shape : shapes) {
        const Codes codes(shape);
        for (const int64_t K : {int64_t{1}, int64_t{10}, (shape.N + 1) / 2, shape.N})
            topk(codes, K, threads, compare, all);
        for (const int32_t radius : {0, static_cast<int32_t>(3 * shape.W)}) range(codes, radius, threads, compare, all);
        counts(codes, threads, all);
        const Codes weighted(shape, true);
        for (const int64_t K : {int64_t{1}, (shape.N + 1) / 2}) topk(weighted, K, threads, compare, all);
        range(weighted, static_cast<int32_t>(10 * shape.W), threads, compare, all);
        counts(weighted, threads, all);
        asymmetric(codes, threads, all);
        for (const int64_t K : {int64_t{1}, int64_t{10}, (shape.N + 1) / 2})
            for (const bool dot : {false, true}) asymmetric_topk(codes, K, dot, threads, compare, all);
        pairs(codes, false, threads, compare, all);
        pairs(codes, true, threads, compare, all);
        for (const bool with_weights : {false, true}) mih(codes, with_weights, threads, all);
    }
    for (const int64_t N : {int64_t{5}, most_points / 3 + 1, most_points}) {
        points<float>(N, 17, threads, all);
        points<double>(N, 32, threads, all);
    }
    const int64_t seed = 7;
    std::vector<float> samples(100003);
    const auto count = static_cast<int64_t>(samples.size());
    run([&] { return fh_beta_sample_cpu(&seed, count, samples.data(), threads, nullptr); }, "beta_sample");
    append(all, samples);
    return all;
}

int32_t stop_at_once(void) { return 1; }

void cancelled() {
    const Codes codes({40, 60000, 64, 0, 100});
    const fh_hamming_problem p = codes.problem();
    std::vector<int32_t> distances(p.Q * 10);
    std::vector<int64_t> ids(p.Q * 10);
    fh_cancel already{1, stop_at_once};
    check(fh_hamming_topk_cpu(&p, 10, distances.data(), ids.data(), 3, &already) == FH_CANCELLED, "not cancelled");
    fh_cancel polled{0, stop_at_once};  // may be done before the first poll
    const fh_status status = fh_hamming_topk_cpu(&p, 10, distances.data(), ids.data(), 3, &polled);
    check(status == FH_OK || status == FH_CANCELLED, "cancelled: status");
}

// No op runs, on plain C++ say, where FASTHASH_ISA names no instruction set that is here.
void unknown_instruction_set() {
    setenv("FASTHASH_ISA", "abacus", 1);
    const auto refused = [](fh_status status, const char* op) {
        check(status == FH_INVALID && std::strstr(fh_last_error(), "got abacus") != nullptr, op);
    };
    const uint8_t code[1] = {};
    const uint32_t offsets[3] = {};
    uint64_t mask[1];
    int32_t distances[1];
    int64_t ids[2], visited[1];
    const fh_hamming_problem codes{code, code, nullptr, 1, 0, 1, 1, nullptr, nullptr, 0};
    refused(fh_hamming_topk_cpu(&codes, 1, distances, ids, 1, nullptr), "hamming_topk");
    refused(fh_hamming_mask_cpu(code, 1, mask, 1), "hamming_mask");
    const float x[2] = {};
    float out[4];
    const fh_asymmetric_topk_problem real{x, FH_FLOAT32, code, nullptr, nullptr, 1,       1,
                                          0, 1,          1,    FH_L1,   nullptr, nullptr, 0};
    refused(fh_asymmetric_topk_cpu(&real, 1, out, ids, 1, nullptr), "asymmetric_topk");
    const fh_mih_table table{0, 1, offsets, code, offsets};
    const fh_mih_tables tables{&table, 1, 8, 4};
    const fh_mih_terms terms{{1, 1, 1}, 1, nullptr, 0};
    fh_mih_spent spent;
    fh_mih_hits* hits = nullptr;
    refused(fh_mih_topk_cpu(&codes, &tables, 1, nullptr, &terms, distances, ids, visited, &spent, 1, nullptr),
            "mih_topk");
    refused(fh_mih_range_cpu(&codes, &tables, 1, &terms, ids, visited, &spent, &hits, 1, nullptr), "mih_range");
    const fh_nearest_problem points{x, nullptr, 1, 2, 2, 1, 1, 0, 1, FH_FLOAT32};
    refused(fh_nearest_cpu(&points, out, ids, 1, nullptr), "nearest");
    const fh_pairwise_problem pairs{x, 2, 1, FH_FLOAT32};
    refused(fh_pairwise_l1_cpu(&pairs, out, 1, nullptr), "pairwise_l1");
    unsetenv("FASTHASH_ISA");

    const fh_pairwise_problem none{x, 2, 1, static_cast<fh_dtype>(7)};
    check(fh_pairwise_l1_cpu(&none, out, 1, nullptr) == FH_INVALID, "pairwise_l1: element type");
    fh_hamming_problem masked{code, code, mask, 1, 1, 1, 1, nullptr, nullptr, 0};
    check(fh_hamming_histogram_cpu(&masked, nullptr, nullptr, 0, ids, nullptr, 1, nullptr) == FH_INVALID, "mask");
}

void out_of_memory() {
    starving = true;
    everything({{3, 700, 8, 0, 60}, {2, 300, 12, 5, 100}}, 20, 1, true);
    starving = false;
}

void in_a_child(const std::vector<Shape>& shapes, const Bytes& wanted, int64_t most_points) {
    const pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) _exit(everything(shapes, most_points, 3, false) == wanted ? 0 : 1);
    int status = 0;
    check(waitpid(child, &status, 0) == child && status == 0, "the child's results differ");
}

}  // namespace

int main(int count, char** arguments) {
    const auto asked = [&](const char* name) {
        return std::any_of(arguments + 1, arguments + count,
                           [&](char* given) { return std::strcmp(given, name) == 0; });
    };
    const bool quick = asked("quick");
    std::vector<Shape> shapes{{3, 1, 8, 0, 100}, {2, 70, 1, 0, 100}, {3, 200, 12, 5, 60}, {5, 3300, 8, 0, 30}};
    if (quick) {
        shapes.push_back({20, 9000, 16, 0, 100});
    } else {
        for (const int64_t W : {2, 3, 4, 5, 8, 9, 16, 24, 31, 32, 33, 64, 65, 127, 128, 130, 256})
            for (const int mask : {100, 97, 40, 1}) shapes.push_back({3, 500, W, mask == 40 ? 3 : 0, mask});
        shapes.push_back({60, 20011, 8, 0, 100});
        shapes.push_back({3, 270011, 4, 0, 90});
    }
    const int64_t most_points = quick ? 150 : 400;
    unknown_instruction_set();
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa) {
        if (!fh_isa_available(isa)) continue;
        check(fh_isa_force(fh_isa_name(isa)) == FH_OK, "isa");
        const Bytes wanted = everything(shapes, most_points, 1, true);
        for (const int32_t threads : {2, 4})
            check(everything(shapes, most_points, threads, false) == wanted, "results depend on the thread count");
        std::vector<std::thread> callers;
        for (int caller = 0; caller < 4; ++caller)
            callers.emplace_back([&] {
                check(everything(shapes, most_points, 3, false) == wanted, "concurrent callers: results differ");
            });
        for (auto& caller : callers) caller.join();
        cancelled();
        out_of_memory();
        if (asked("fork")) in_a_child(shapes, wanted, most_points);
        std::printf("%s: ok\n", fh_isa_name(isa));
    }
    return 0;
}
