// The join itself: the pairs of different codes within a radius, in any order, each once.
#pragma once

#include <cstdint>
#include <vector>

#include "core/api.h"
#include "pairs/cpu/code_rows.h"
#include "pairs/cpu/join_plan.h"

namespace fasthash {

struct CodePair {
    uint32_t a, b;  // a < b where one set is joined with itself
    int32_t distance;
};

// Takes pairs as they are found. No two calls run at once under one worker number. Must not throw.
class PairSink {
  public:
    virtual void take(int worker, const CodePair* pairs, int64_t n) = 0;

  protected:
    ~PairSink() = default;
};

// a with b, or with itself where b is a. plan: as in pairs.h; becomes the one that was taken.
// May throw std::bad_alloc.
fh_status join_codes(const CodeRows& a, const CodeRows& b, const BitGroups& groups, int32_t radius, int32_t& plan,
                     PairSink& sink, int32_t threads, fh_cancel* cancel);

}  // namespace fasthash
