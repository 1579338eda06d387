// Making the tables: a counting sort of the codes by each substring, in ranges of buckets so that memory is bounded.
//
// The database is cut into a few chunks, one for each worker. Each chunk counts its codes by bucket, so that the place
// of every code is known: after the codes of earlier chunks in its bucket. Buckets are thus in order of position.
#include <memory>

#include "core/exceptions.h"
#include "core/thread_pool.h"
#include "mih/cpu/substring.h"

namespace fasthash {

fh_status check_tables(const fh_hamming_problem* problem, const fh_mih_tables* tables, bool filled) {
    const fh_hamming_problem& p = *problem;
    if (p.Q < 0 || p.N < 0 || p.W < 1 || p.stride < p.W)
        return fail(FH_INVALID, "mih: must have Q, N >= 0, W >= 1, stride >= W");
    if (p.N > 0xffffffff) return fail(FH_INVALID, "mih: N must be below 2^32");
    if (tables->bits <= 8 * (p.W - 1) || tables->bits > 8 * p.W)
        return fail(FH_INVALID, "mih: bits must be 8 W - 7 to 8 W");
    if (tables->m < 1 || tables->m > kMostTables) return fail(FH_INVALID, "mih: must have 1 to 64 tables");
    if (tables->fingerprint_bytes != 4 && tables->fingerprint_bytes != 8)
        return fail(FH_INVALID, "mih: fingerprints must have 4 or 8 bytes");
    for (int32_t t = 0; t < tables->m; ++t) {
        const fh_mih_table& table = tables->tables[t];
        const int32_t before = t == 0 ? 0 : tables->tables[t - 1].start + tables->tables[t - 1].length;
        if (table.length < 1 || table.length > kLongestSubstring || table.start < before ||
            table.start > tables->bits - table.length)
            return fail(FH_INVALID, "mih: substrings must be disjoint, ascending and of 1 to 24 bits");
        if (filled && (table.offsets[0] != 0 || table.offsets[int64_t{1} << table.length] != p.N))
            return fail(FH_INVALID, "mih: a table is damaged, or belongs to another database");
    }
    return FH_OK;
}

namespace {

constexpr int64_t kMostChunks = 8;
constexpr int64_t kSlice = 1 << 20;  // codes of a chunk between two looks at the cancel flag

// Each chunk has counters of its own, so it should have many more codes than there are buckets.
struct Chunks {
    int64_t count, codes;
    Chunks(int64_t N, int64_t buckets, int32_t threads)
        : count(std::clamp<int64_t>(std::min<int64_t>(threads, N / (16 * buckets + kSlice / 4)), 1, kMostChunks)),
          codes((N + count - 1) / count) {}
};

// Runs visit(chunk, position, code) over the codes of each chunk, in order of position.
template <class Visit>
fh_status each_code(const fh_hamming_problem& p, const Chunks& chunks, int32_t threads, fh_cancel* cancel,
                    const Visit& visit) {
    std::vector<PaddedCodes> codes(static_cast<size_t>(chunks.count), PaddedCodes(p.database, p.N, p.W, p.stride));
    for (int64_t slice = 0; slice < chunks.codes; slice += kSlice) {
        const fh_status status = parallel_for(chunks.count, threads, cancel, [&](int64_t chunk, int) {
            const int64_t begin = chunk * chunks.codes + slice;
            const int64_t end = std::min({begin + kSlice, (chunk + 1) * chunks.codes, p.N});
            for (int64_t n = begin; n < end; ++n) visit(chunk, n, codes[static_cast<size_t>(chunk)][n]);
        });
        if (status != FH_OK) return status;
    }
    return FH_OK;
}

// counts [chunks, last - first]: the codes of each chunk in each of the buckets.
fh_status count(const fh_hamming_problem& p, const Chunks& chunks, const fh_mih_table& table, int64_t first,
                int64_t last, uint32_t* counts, int32_t threads, fh_cancel* cancel) {
    const uint32_t buckets = static_cast<uint32_t>(last - first), low = static_cast<uint32_t>(first);
    return each_code(p, chunks, threads, cancel, [=](int64_t chunk, int64_t, const uint8_t* code) {
        const uint32_t bucket = substring(code, table) - low;
        if (bucket < buckets) ++counts[chunk * buckets + bucket];
    });
}

template <class Fingerprint>
fh_status scatter(const fh_hamming_problem& p, const Chunks& chunks, const fh_mih_tables& tables,
                  const fh_mih_table& table, int64_t first, int64_t last, uint32_t* places, Fingerprint* fingerprints,
                  uint32_t* positions, int32_t threads, fh_cancel* cancel) {
    const uint32_t buckets = static_cast<uint32_t>(last - first), low = static_cast<uint32_t>(first);
    const int32_t bits = tables.bits;
    return each_code(p, chunks, threads, cancel, [=](int64_t chunk, int64_t n, const uint8_t* code) {
        const uint32_t bucket = substring(code, table) - low;
        if (bucket >= buckets) return;
        const uint32_t place = places[chunk * buckets + bucket]++;
        if (positions != nullptr) positions[place] = static_cast<uint32_t>(n);
        if (fingerprints == nullptr) return;
        const uint64_t value = fingerprint(code, table, bits, static_cast<int32_t>(sizeof(Fingerprint)));
        std::memcpy(fingerprints + place, &value, sizeof(Fingerprint));
    });
}

}  // namespace
}  // namespace fasthash

using namespace fasthash;

extern "C" fh_status fh_mih_offsets_cpu(const fh_hamming_problem* problem, int32_t start, int32_t length,
                                        uint32_t* offsets, int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_offsets", [&]() -> fh_status {
        const fh_mih_table table = {start, length, nullptr, nullptr, nullptr};
        const fh_mih_tables tables = {&table, 1, static_cast<int32_t>(8 * problem->W), 4};
        if (const fh_status status = check_tables(problem, &tables, false)) return status;
        const int64_t buckets = int64_t{1} << length;
        const Chunks chunks(problem->N, buckets, threads);
        std::vector<uint32_t> counts(static_cast<size_t>(chunks.count * buckets));
        if (const fh_status status = count(*problem, chunks, table, 0, buckets, counts.data(), threads, cancel))
            return status;
        uint32_t total = 0;
        for (int64_t bucket = 0; bucket < buckets; ++bucket) {
            offsets[bucket] = total;
            for (int64_t chunk = 0; chunk < chunks.count; ++chunk) total += counts[chunk * buckets + bucket];
        }
        offsets[buckets] = total;
        return FH_OK;
    });
}

extern "C" fh_status fh_mih_fill_cpu(const fh_hamming_problem* problem, const fh_mih_tables* tables, int32_t number,
                                     int64_t first, int64_t last, uint8_t* fingerprints, uint32_t* positions,
                                     int32_t threads, fh_cancel* cancel) {
    return without_exceptions("mih_fill", [&]() -> fh_status {
        if (const fh_status status = check_tables(problem, tables, false)) return status;
        if (number < 0 || number >= tables->m)
            return fail(FH_INVALID, "fh_mih_fill_cpu: the number of the table is out of range");
        const fh_mih_table& table = tables->tables[number];
        const int64_t buckets = last - first;
        if (first < 0 || buckets < 0 || last > int64_t{1} << table.length)
            return fail(FH_INVALID, "fh_mih_fill_cpu: the buckets are out of range");
        const Chunks chunks(problem->N, buckets, threads);
        std::vector<uint32_t> places(static_cast<size_t>(chunks.count * buckets));
        if (const fh_status status = count(*problem, chunks, table, first, last, places.data(), threads, cancel))
            return status;
        for (int64_t bucket = 0; bucket < buckets; ++bucket) {  // counts become places
            uint32_t place = table.offsets[first + bucket] - table.offsets[first];
            for (int64_t chunk = 0; chunk < chunks.count; ++chunk) {
                const uint32_t here = places[chunk * buckets + bucket];
                places[chunk * buckets + bucket] = place;
                place += here;
            }
            if (place != table.offsets[first + bucket + 1] - table.offsets[first])
                return fail(FH_INVALID, "fh_mih_fill_cpu: the offsets do not belong to these codes");
        }
        if (tables->fingerprint_bytes == 4)
            return scatter(*problem, chunks, *tables, table, first, last, places.data(),
                           reinterpret_cast<uint32_t*>(fingerprints), positions, threads, cancel);
        return scatter(*problem, chunks, *tables, table, first, last, places.data(),
                       reinterpret_cast<uint64_t*>(fingerprints), positions, threads, cancel);
    });
}
