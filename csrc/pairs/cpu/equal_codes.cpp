// Rows are sorted by a hash of their codes, in parts by its first bits; only rows of one hash are compared.
#include "pairs/cpu/equal_codes.h"

#include <cstring>

#include "core/thread_pool.h"

namespace fasthash {
namespace {

constexpr int64_t kSlice = 1 << 16;  // rows of a task
constexpr int kPartBits = 10;        // of the hash
constexpr int64_t kParts = 1 << kPartBits;

// 64-bit multiply and fold (the finisher of splitmix64) over the words of a row.
uint32_t hash_row(const uint8_t* code, int64_t W) {
    uint64_t hash = static_cast<uint64_t>(W);
    for (int64_t byte = 0; byte < W; byte += 8) {
        uint64_t word = 0;
        std::memcpy(&word, code + byte, static_cast<size_t>(std::min<int64_t>(8, W - byte)));
        hash = (hash ^ word) + 0x9e3779b97f4a7c15u;
        hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9u;
        hash = (hash ^ hash >> 27) * 0x94d049bb133111ebu;
        hash ^= hash >> 31;
    }
    return static_cast<uint32_t>(hash >> 32);
}

// Entries of one hash: each gets the lowest row that has its code. Entries ascend by row.
void mark_equal(const uint8_t* codes, int64_t W, int64_t stride, const uint64_t* begin, const uint64_t* end,
                std::vector<uint32_t>& left, uint32_t* lowest) {
    const auto code = [&](uint32_t row) { return codes + row * stride; };
    left.clear();
    for (const uint64_t* entry = begin; entry != end; ++entry) left.push_back(static_cast<uint32_t>(*entry));
    while (!left.empty()) {  // a round for each different code: seldom a second
        const uint32_t first = left[0];
        size_t kept = 0;
        for (const uint32_t row : left) {
            if (std::memcmp(code(row), code(first), static_cast<size_t>(W)) == 0)
                lowest[row] = first;
            else
                left[kept++] = row;
        }
        left.resize(kept);
    }
}

}  // namespace

fh_status different_codes(const uint8_t* codes, int64_t N, int64_t W, int64_t stride, DifferentCodes& out,
                          int32_t threads, fh_cancel* cancel) {
    out.rows = N;
    const int64_t slices = (N + kSlice - 1) / kSlice;
    std::vector<uint32_t> lowest(static_cast<size_t>(N));
    {
        std::vector<uint32_t> hashes(static_cast<size_t>(N));
        std::vector<int64_t> places(static_cast<size_t>(slices * kParts)), parts(kParts + 1);
        const auto each_row = [&](const auto& visit) {
            return parallel_for(slices, threads, cancel, [&](int64_t slice, int) {
                for (int64_t n = slice * kSlice; n < std::min(N, (slice + 1) * kSlice); ++n)
                    visit(n, &places[slice * kParts]);
            });
        };
        fh_status status = each_row([&](int64_t n, int64_t* counts) {
            hashes[n] = hash_row(codes + n * stride, W);
            ++counts[hashes[n] >> (32 - kPartBits)];
        });
        if (status != FH_OK) return status;
        int64_t place = 0;
        for (int64_t part = 0; part < kParts; ++part) {
            parts[part] = place;
            for (int64_t slice = 0; slice < slices; ++slice) {
                const int64_t here = places[slice * kParts + part];
                places[slice * kParts + part] = place;
                place += here;
            }
        }
        parts[kParts] = place;
        std::vector<uint64_t> entries(static_cast<size_t>(N));
        status = each_row([&](int64_t n, int64_t* at) {
            entries[at[hashes[n] >> (32 - kPartBits)]++] = uint64_t{hashes[n]} << 32 | static_cast<uint64_t>(n);
        });
        if (status != FH_OK) return status;
        std::vector<std::vector<uint32_t>> left(static_cast<size_t>(std::max(threads, 1)));
        for (auto& one : left) one.reserve(static_cast<size_t>(N));  // so that no task throws; touched where needed
        status = parallel_for(N < kSlice ? 1 : kParts, threads, cancel, [&](int64_t task, int worker) {
            const int64_t first = N < kSlice ? 0 : task, last = N < kSlice ? kParts : task + 1;
            uint64_t* const begin = entries.data() + parts[first];
            uint64_t* const end = entries.data() + parts[last];
            if (!std::is_sorted(begin, end)) std::sort(begin, end);  // they are where nearly all codes are equal
            for (uint64_t *run = begin, *next = begin; run != end; run = next) {
                while (next != end && *next >> 32 == *run >> 32) ++next;
                if (next - run == 1)
                    lowest[static_cast<uint32_t>(*run)] = static_cast<uint32_t>(*run);
                else
                    mark_equal(codes, W, stride, run, next, left[worker], lowest.data());
            }
        });
        if (status != FH_OK) return status;
    }
    int64_t different = 0;
    for (int64_t n = 0; n < N; ++n) different += lowest[n] == n;
    out.codes = CodeRows(different, W);
    const auto copy = [&](int64_t u, int64_t n) {
        std::memset(out.codes.row(u) + out.codes.bytes() - std::min<int64_t>(8, out.codes.bytes()), 0,
                    static_cast<size_t>(std::min<int64_t>(8, out.codes.bytes())));
        std::memcpy(out.codes.row(u), codes + n * stride, static_cast<size_t>(W));
    };
    if (different == N)
        return parallel_for(slices, threads, cancel, [&](int64_t slice, int) {
            for (int64_t n = slice * kSlice; n < std::min(N, (slice + 1) * kSlice); ++n) copy(n, n);
        });
    out.starts.assign(static_cast<size_t>(different + 1), 0);
    out.members.resize(static_cast<size_t>(N));
    int64_t u = 0;
    for (int64_t n = 0; n < N; ++n) {  // lowest[n] becomes the number of the code: those of earlier rows are numbers
        if (lowest[n] == n) copy(u, n);
        lowest[n] = lowest[n] == n ? static_cast<uint32_t>(u++) : lowest[lowest[n]];
        ++out.starts[lowest[n] + 1];
    }
    for (int64_t i = 0; i < different; ++i) out.starts[i + 1] += out.starts[i];
    std::vector<uint32_t> at(out.starts.begin(), out.starts.end() - 1);
    for (int64_t n = 0; n < N; ++n) out.members[at[lowest[n]]++] = static_cast<uint32_t>(n);
    return FH_OK;
}

}  // namespace fasthash
