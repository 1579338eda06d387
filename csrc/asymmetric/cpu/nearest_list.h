// The K nearest codes of one query so far, which all workers share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace fasthash {

struct NearCode {
    uint32_t key;  // of its distance (nibble_bound.h)
    int64_t position;
    bool operator<(const NearCode& other) const {
        return key != other.key ? key < other.key : position < other.position;
    }
};

// Twice as many are kept as are wanted, so that the others are seldom dropped.
class NearestList {
  public:
    explicit NearestList(int64_t K) : K_(K), codes_(new NearCode[capacity(K)]) {}

    static int64_t capacity(int64_t K) { return 2 * K + kRoom; }

    // A code of a greater key is not among the K nearest.
    uint32_t most() const { return most_.load(std::memory_order_relaxed); }

    // At most kRoom codes. lowered(key): is called when no code of a greater key is wanted any more.
    template <class Lowered>
    void add(const NearCode* codes, int64_t count, const Lowered& lowered) {
        const std::lock_guard<std::mutex> lock(mutex_);
        for (int64_t i = 0; i < count; ++i)
            if (codes[i].key <= most()) codes_[size_++] = codes[i];
        if (size_ + kRoom <= capacity(K_)) return;
        keep_nearest();
        most_.store(codes_[K_ - 1].key, std::memory_order_relaxed);
        lowered(most());
    }

    // The nearest, in order; there may be fewer than K.
    int64_t sorted(const NearCode*& codes) {
        keep_nearest();
        std::sort(codes_.get(), codes_.get() + size_);
        codes = codes_.get();
        return size_;
    }

    static constexpr int64_t kRoom = 128;

  private:
    void keep_nearest() {
        if (size_ <= K_) return;
        std::nth_element(codes_.get(), codes_.get() + K_ - 1, codes_.get() + size_);
        size_ = K_;
    }

    const int64_t K_;
    int64_t size_ = 0;
    std::mutex mutex_;
    std::atomic<uint32_t> most_{UINT32_MAX};
    std::unique_ptr<NearCode[]> codes_;
};

}  // namespace fasthash
