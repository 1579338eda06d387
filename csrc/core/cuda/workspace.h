// Cutting a caller's workspace into arrays: the same code measures it and hands the parts out.
#pragma once

#include <cstdint>
#include <cstdio>

#include "core/api.h"

namespace fasthash {

// Takes arrays one after another, each 256-byte aligned. Without a base it only measures: the pointers are null then.
class WorkspaceCutter {
  public:
    explicit WorkspaceCutter(void* base = nullptr) : base_(static_cast<char*>(base)) {}

    template <class T>
    T* take(int64_t count) {
        constexpr int64_t kAlignment = 256;
        char* start = base_ == nullptr ? nullptr : base_ + bytes_;
        bytes_ += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
        return reinterpret_cast<T*>(start);
    }
    int64_t bytes() const { return bytes_; }

  private:
    char* base_;
    int64_t bytes_ = 0;
};

inline fh_status require_workspace(const char* function, int64_t wanted, int64_t got) {
    if (got >= wanted) return FH_OK;
    char message[160];
    std::snprintf(message, sizeof(message), "%s: the workspace must have %lld bytes, got %lld", function,
                  static_cast<long long>(wanted), static_cast<long long>(got));
    return fail(FH_INVALID, message);
}

}  // namespace fasthash
