// Codes as rows of whole panel words (scan_table.h), 64-byte aligned, that may be read a little beyond their end.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

namespace fasthash {

class CodeRows {
  public:
    CodeRows() = default;
    CodeRows(int64_t N, int64_t W)
        : N_(N),
          bytes_(W <= 4 ? 4 : (W + 7) / 8 * 8),
          memory_(new uint8_t[static_cast<size_t>(N * bytes_ + 2 * kSlack)]),
          rows_(memory_.get() + (kSlack - reinterpret_cast<uintptr_t>(memory_.get()) % kSlack) % kSlack) {}
    int64_t N() const { return N_; }
    int64_t bytes() const { return bytes_; }  // of a row
    uint8_t* row(int64_t n) { return rows_ + n * bytes_; }
    const uint8_t* row(int64_t n) const { return rows_ + n * bytes_; }

  private:
    static constexpr int64_t kSlack = 64;
    int64_t N_ = 0, bytes_ = 0;
    std::unique_ptr<uint8_t[]> memory_;
    uint8_t* rows_ = nullptr;
};

}  // namespace fasthash
