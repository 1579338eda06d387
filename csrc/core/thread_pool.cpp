#include "core/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace fasthash {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollEvery = std::chrono::milliseconds(50);
constexpr int kSpins = 2000;  // a few microseconds: back-to-back small calls find the workers awake

// One parallel_for in flight. It lives on the caller's stack, which leaves only when no helper is inside.
struct Job {
    TaskRef run;
    int64_t tasks;
    int32_t threads;
    fh_cancel* cancel;
    std::atomic<int64_t> next{0};
    int32_t joined = 1;              // worker numbers handed out, the caller's 0 included; guarded by Pool::mutex
    std::atomic<int32_t> inside{0};  // helpers at work

    bool stopped() const { return cancel != nullptr && __atomic_load_n(&cancel->requested, __ATOMIC_RELAXED) != 0; }

    void work(int worker) {
        for (int64_t task; !stopped() && (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;)
            run(task, worker);
    }

    void work_and_poll() {
        if (cancel == nullptr || cancel->poll == nullptr) return work(0);
        auto last = Clock::now();
        for (int64_t task; !stopped() && (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
            run(task, 0);
            poll(last);
        }
    }

    void poll(Clock::time_point& last) {
        if (cancel == nullptr || cancel->poll == nullptr) return;
        const auto now = Clock::now();
        if (now - last < kPollEvery) return;
        last = now;
        if (cancel->poll() != 0) __atomic_store_n(&cancel->requested, 1, __ATOMIC_RELAXED);
    }
};

struct Pool {
    std::mutex mutex;
    std::condition_variable wake;    // workers wait here for jobs
    std::condition_variable left;    // callers wait here for their helpers to leave
    std::deque<Job*> jobs;           // jobs that may still take helpers; guarded by mutex
    std::atomic<int64_t> posted{0};  // jobs ever posted: lets a worker spin without the lock
    int32_t workers = 0;

    // A job that wants another helper, joined under the next worker number; null if there is none. Lock held.
    Job* join(int& worker) {
        for (Job* job : jobs)
            if (job->joined < job->threads && job->next.load(std::memory_order_relaxed) < job->tasks) {
                worker = job->joined++;
                job->inside.fetch_add(1, std::memory_order_relaxed);
                return job;
            }
        return nullptr;
    }

    void serve() {
        int64_t seen = 0;
        for (;;) {
            for (int spin = 0; spin < kSpins && posted.load(std::memory_order_acquire) == seen; ++spin) {
#if defined(__x86_64__)
                __builtin_ia32_pause();
#endif
            }
            std::unique_lock<std::mutex> lock(mutex);
            int worker = 0;
            Job* job = nullptr;
            wake.wait(lock, [&] { return (job = join(worker)) != nullptr; });
            seen = posted.load(std::memory_order_relaxed);
            lock.unlock();
            job->work(worker);
            if (job->inside.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                // The caller may be about to wait: the lock orders this notification after its check.
                lock.lock();
                left.notify_all();
            }
        }
    }

    // Grows the pool to `count` workers. Lock held. A system that refuses a thread leaves the loop with fewer.
    void grow(int32_t count) {
        while (workers < count) {
            try {
                std::thread([this] { serve(); }).detach();
            } catch (const std::system_error&) {
                return;
            }
            ++workers;
        }
    }
};

// The pool is never destroyed: its threads may outlive static destructors. After a fork the child has none of the
// threads, and the parent's locks may be held by nobody, so the child starts with a new pool.
std::atomic<Pool*> the_pool{nullptr};

Pool& pool() {
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current != nullptr) return *current;
    static std::once_flag once;
    std::call_once(once, [] {
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { the_pool.store(new (std::nothrow) Pool, std::memory_order_release); });
#endif
        the_pool.store(new Pool, std::memory_order_release);
    });
    return *the_pool.load(std::memory_order_acquire);
}

}  // namespace

fh_status parallel_for(int64_t tasks, int32_t threads, fh_cancel* cancel, TaskRef run) {
    Job job{run, tasks, static_cast<int32_t>(std::min<int64_t>(threads, tasks)), cancel};
    if (job.threads <= 1) {
        job.work_and_poll();
        return job.stopped() ? FH_CANCELLED : FH_OK;
    }
    Pool& workers = pool();
    {
        std::lock_guard<std::mutex> lock(workers.mutex);
        workers.grow(job.threads - 1);
        workers.jobs.push_back(&job);
        workers.posted.fetch_add(1, std::memory_order_release);
    }
    if (job.threads == 2)
        workers.wake.notify_one();
    else
        workers.wake.notify_all();

    job.work_and_poll();

    std::unique_lock<std::mutex> lock(workers.mutex);
    workers.jobs.erase(std::find(workers.jobs.begin(), workers.jobs.end(), &job));
    lock.unlock();
    auto last_poll = Clock::now();
    for (int spin = 0; job.inside.load(std::memory_order_acquire) != 0; ++spin) {
        if (spin < kSpins) continue;
        lock.lock();
        workers.left.wait_for(lock, kPollEvery, [&] { return job.inside.load(std::memory_order_acquire) == 0; });
        lock.unlock();
        job.poll(last_poll);
    }
    return job.stopped() ? FH_CANCELLED : FH_OK;
}

}  // namespace fasthash
