// Mapped pages that are about to be read.
#pragma once

#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace fasthash {

// Asks the system to read the pages of scattered places, without waiting: a disk then reads many at a time, where page
// faults would wait for one after the other. Costs half a microsecond where a page is in memory already.
class WillNeed {
  public:
    // [first, first + bytes). Nothing is asked where these pages are the ones of the call before.
    void operator()(const void* first, int64_t bytes) {
#if defined(__unix__) || defined(__APPLE__)
        static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        const uintptr_t begin = reinterpret_cast<uintptr_t>(first) / page * page;
        const uintptr_t end = reinterpret_cast<uintptr_t>(first) + static_cast<uintptr_t>(bytes);
        if (begin >= begin_ && end <= end_) return;
        ++asked_;
        begin_ = begin, end_ = (end + page - 1) / page * page;
        posix_madvise(reinterpret_cast<void*>(begin), end_ - begin, POSIX_MADV_WILLNEED);
#else
        (void)first, (void)bytes;
#endif
    }

    int64_t asked() const { return asked_; }  // calls that were not such

  private:
    int64_t asked_ = 0;
    uintptr_t begin_ = 0, end_ = 0;
};

}  // namespace fasthash
