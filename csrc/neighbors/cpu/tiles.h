// The distance-tile kernels of the chosen instruction set, and candidates packed into panels for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>

#include "core/cpu_features.h"
#include "core/thread_pool.h"
#include "neighbors/isa/tile.h"

namespace fasthash {

constexpr int64_t kMaxTileRows = 8, kMaxPanel = 32;

inline constexpr IsaTable<TileTable> kTileTables[] = {
#define FH_ISA(name, Name, processor, ...) FH_ON_##processor({FH_ISA_##name, &kTile##Name}, )
#include "core/isa.def"
};

// The kernels of the chosen instruction set; null, with a message left, where there are none.
template <class T>
const TileKernels<T>* tile_kernels_chosen() {
    const TileTable* table = chosen_table(kTileTables);
    if (table == nullptr) return nullptr;
    if constexpr (std::is_same_v<T, float>)
        return &table->f32;
    else
        return &table->f64;
}

// Uninitialised scratch: std::vector would write every element once for nothing.
template <class T>
std::unique_ptr<T[]> scratch(int64_t count) {
    return std::unique_ptr<T[]>(new T[static_cast<size_t>(count)]);
}

// Candidates y [batches, M, D] as panels [batches, panels, D, width]. Columns beyond M hold NaN, which no test selects.
template <class T>
class Panels {
  public:
    Panels(const T* y, int64_t batches, int64_t M, int64_t D, int64_t width, int32_t threads)
        : count_((M + width - 1) / width), size_(D * width), data_(scratch<T>(batches * count_ * size_)) {
        parallel_for(batches * count_, threads_worth(batches * M * D * 4, threads), nullptr, [&](int64_t task, int) {
            const int64_t first = task % count_ * width;
            const T* rows = y + (task / count_ * M + first) * D;
            T* panel = data_.get() + task * size_;
            for (int64_t c = 0; c < width; ++c)
                for (int64_t d = 0; d < D; ++d)
                    panel[d * width + c] = first + c < M ? rows[c * D + d] : std::numeric_limits<T>::quiet_NaN();
        });
    }
    int64_t count() const { return count_; }
    const T* panel(int64_t batch, int64_t index) const { return data_.get() + (batch * count_ + index) * size_; }

  private:
    int64_t count_, size_;
    std::unique_ptr<T[]> data_;
};

// Row pointers of the tile that starts at row `first` of x [count, D]; rows past the end repeat the last one.
template <class T>
void tile_rows(const T* x, int64_t first, int64_t count, int64_t D, int64_t rows, const T** pointers) {
    for (int64_t r = 0; r < rows; ++r) pointers[r] = x + std::min(first + r, count - 1) * D;
}

}  // namespace fasthash
