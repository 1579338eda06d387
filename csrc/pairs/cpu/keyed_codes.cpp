#include "pairs/cpu/keyed_codes.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/thread_pool.h"
#include "mih/cpu/bits_set.h"
#include "mih/mih.h"

namespace fasthash {
namespace {

constexpr int64_t kSlice = 1 << 16;  // rows of a task
constexpr int64_t kAhead = 16;       // rows that are fetched before they are copied

int32_t ones_of(const uint8_t* row, int64_t bytes) {
    int32_t ones = 0;
    for (int64_t byte = 0; byte < bytes; byte += 8) {
        uint64_t word = 0;
        std::memcpy(&word, row + byte, static_cast<size_t>(std::min<int64_t>(8, bytes - byte)));
        ones += bits_set(word);
    }
    return ones;
}

fh_status order_by_ones(const CodeRows& codes, KeyedCodes& out, int32_t threads, fh_cancel* cancel) {
    const int64_t N = codes.N(), keys = 8 * codes.bytes() + 1, slices = (N + kSlice - 1) / kSlice;
    std::vector<int32_t> ones(static_cast<size_t>(N));
    const fh_status status = parallel_for(slices, threads, cancel, [&](int64_t slice, int) {
        for (int64_t n = slice * kSlice; n < std::min(N, (slice + 1) * kSlice); ++n)
            ones[n] = ones_of(codes.row(n), codes.bytes());
    });
    if (status != FH_OK) return status;
    out.offsets.assign(static_cast<size_t>(keys + 1), 0);
    for (int64_t n = 0; n < N; ++n) ++out.offsets[ones[n] + 1];
    for (int64_t key = 0; key < keys; ++key) out.offsets[key + 1] += out.offsets[key];
    std::vector<uint32_t> at(out.offsets.begin(), out.offsets.end() - 1);
    for (int64_t n = 0; n < N; ++n) out.order[at[ones[n]]++] = static_cast<uint32_t>(n);
    return FH_OK;
}

fh_status order_by_substring(const CodeRows& codes, const JoinPass& pass, KeyedCodes& out, int32_t threads,
                             fh_cancel* cancel) {
    const int64_t keys = int64_t{1} << pass.length;
    out.offsets.resize(static_cast<size_t>(keys + 1));
    const fh_hamming_problem problem{nullptr,       codes.row(0),  nullptr, 0,       codes.N(),
                                     codes.bytes(), codes.bytes(), nullptr, nullptr, 0};
    if (const fh_status status =
            fh_mih_offsets_cpu(&problem, pass.start, pass.length, out.offsets.data(), threads, cancel))
        return status;
    const fh_mih_table table{pass.start, pass.length, out.offsets.data(), nullptr, nullptr};
    const fh_mih_tables tables{&table, 1, static_cast<int32_t>(8 * codes.bytes()), 4};
    return fh_mih_fill_cpu(&problem, &tables, 0, 0, keys, nullptr, out.order.data(), threads, cancel);
}

}  // namespace

fh_status sort_by_key(const CodeRows& codes, const JoinPass& pass, KeyedCodes& out, int32_t threads,
                      fh_cancel* cancel) {
    const int64_t N = codes.N(), bytes = codes.bytes();
    out.order.resize(static_cast<size_t>(N));
    const fh_status status = pass.by_ones() ? order_by_ones(codes, out, threads, cancel)
                                            : order_by_substring(codes, pass, out, threads, cancel);
    if (status == FH_NO_MEMORY) throw std::bad_alloc();  // the caller's message names the op
    if (status != FH_OK) return status;
    if (out.rows.N() != N || out.rows.bytes() != bytes) out.rows = CodeRows(N, bytes);
    return parallel_for((N + kSlice - 1) / kSlice, threads, cancel, [&](int64_t slice, int) {
        const int64_t end = std::min(N, (slice + 1) * kSlice);
        for (int64_t n = slice * kSlice; n < end; ++n) {
            if (n + kAhead < end) __builtin_prefetch(codes.row(out.order[n + kAhead]));
            std::memcpy(out.rows.row(n), codes.row(out.order[n]), static_cast<size_t>(bytes));
        }
    });
}

}  // namespace fasthash
