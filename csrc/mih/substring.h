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
constexpr int64_t kCodePadding = 16;  // bytes behind a code that read_bits may read

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

// A code with the bytes behind it that read_bits needs. A width known to the compiler makes the copy a move.
template <int64_t kWidth>
class PaddedCode {
  public:
    explicit PaddedCode(int64_t) {}
    const uint8_t* load(const uint8_t* code) {
        std::memcpy(bytes_, code, kWidth);
        return bytes_;
    }

  private:
    uint8_t bytes_[kWidth + kCodePadding] = {};
};

template <>
class PaddedCode<0> {
  public:
    explicit PaddedCode(int64_t W) : W_(W), bytes_(static_cast<size_t>(W + kCodePadding)) {}
    const uint8_t* load(const uint8_t* code) {
        std::memcpy(bytes_.data(), code, static_cast<size_t>(W_));
        return bytes_.data();
    }

  private:
    int64_t W_;
    std::vector<uint8_t> bytes_;
};

// FH_INVALID, with a message, for tables that Python should have refused.
fh_status check_tables(const fh_hamming_problem* problem, const fh_mih_tables* tables, bool filled);

}  // namespace fasthash
