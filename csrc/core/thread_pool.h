// A persistent pool of threads for loops over independent tasks. No OpenMP: a second OpenMP runtime in a process that
// has torch's is a known source of slowdowns.
#pragma once

#include <cstdint>

#include "core/api.h"

namespace fasthash {

// A non-owning reference to a callable void(int64_t task, int worker); it must outlive the loop.
class TaskRef {
  public:
    template <class F>
    TaskRef(const F& f)  // NOLINT: implicit on purpose
        : object_(&f), call_([](const void* o, int64_t t, int w) { (*static_cast<const F*>(o))(t, w); }) {}
    void operator()(int64_t task, int worker) const { call_(object_, task, worker); }

  private:
    const void* object_;
    void (*call_)(const void*, int64_t, int);
};

// Runs run(task, worker) for every task in [0, tasks), at most once each, on the calling thread and up to threads - 1
// others. worker is in [0, threads) and no two tasks run at once under one worker number, so it may index scratch.
// Any thread may call it, several at once; called from inside a task, or in a forked child, it still works.
// Tasks must not throw. Returns FH_CANCELLED, with tasks left undone, once `cancel` (may be null) asks to stop.
fh_status parallel_for(int64_t tasks, int32_t threads, fh_cancel* cancel, TaskRef run);

// How many of `threads` are worth waking for work of about `operations` vectorisable operations: one for each 2e6 (some
// 50 microseconds), since waking a thread costs about ten.
inline int32_t threads_worth(int64_t operations, int32_t threads) {
    const int64_t useful = 1 + operations / 2000000;
    return useful < threads ? static_cast<int32_t>(useful) : threads;
}

}  // namespace fasthash
