// Reading runs of bits from packed codes, and the substrings and fingerprints of a table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "mih/mih.h"

namespace fasthash {

constexpr int32_t kLongestSubstring = 24;
constexpr int32_t kMostTables = 64;
constexpr int64_t kCodePadding = 16;  // bytes after a code that read_bits may read

// The `length` bits of a code from bit `start` on, 0 <= length <= 64, the first the most significant.
inline uint64_t read_bits(const uint8_t* code, int32_t start, int32_t length) {
    if (length == 0) return 0;
    uint64_t word;
    std::memcpy(&word, code + start / 8, 8);
    word = __builtin_bswap64(word) << start % 8;
    if (start % 8 != 0) word |= code[start / 8 + 8] >> (8 - start % 8);
    return word >> (64 - length);
}

inline uint32_t substring(const uint8_t* code, const fh_mih_table& table) {
    return static_cast<uint32_t>(read_bits(code, table.start, table.length));
}

// The fingerprint as its bytes lie in memory, which is what they are compared as; the bits beyond are 0.
inline uint64_t fingerprint(const uint8_t* code, const fh_mih_table& table, int32_t bits, int32_t fingerprint_bytes) {
    const int32_t end = table.start + table.length, wanted = 8 * fingerprint_bytes;
    const int32_t after = std::min(bits - end, wanted), before = std::min(table.start, wanted - after);
    uint64_t value = 0;
    if (after > 0) value = read_bits(code, end, after) << (64 - after);
    if (before > 0) value |= read_bits(code, 0, before) << (64 - before) >> after;
    return __builtin_bswap64(value);
}

// Codes of a database as read_bits wants them: in place, but for the last few, which are copied to where the bytes
// behind them can be read.
class PaddedCodes {
  public:
    PaddedCodes(const uint8_t* codes, int64_t N, int64_t W, int64_t stride)
        : codes_(codes),
          stride_(stride),
          W_(W),
          in_place_(std::max<int64_t>(0, N - 1 - kCodePadding / stride)),
          copy_(static_cast<size_t>(W + kCodePadding)) {}
    const uint8_t* operator[](int64_t n) {
        const uint8_t* code = codes_ + n * stride_;
        if (n < in_place_) return code;
        std::memcpy(copy_.data(), code, static_cast<size_t>(W_));
        return copy_.data();
    }

  private:
    const uint8_t* codes_;
    int64_t stride_, W_, in_place_;
    std::vector<uint8_t> copy_;
};

// FH_INVALID, with a message, for tables that Python should have refused.
fh_status check_tables(const fh_hamming_problem* problem, const fh_mih_tables* tables, bool filled);

}  // namespace fasthash
