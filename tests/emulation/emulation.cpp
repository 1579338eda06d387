// The scheduler: fibers for threads, random order, barriers and warp collectives (see emulation.h).
#include "emulation.h"

#include <cuda_runtime.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <vector>

#ifdef FH_EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx, blockDim, gridDim;

// Switching stacks: by hand on x86-64 (some nanoseconds), by ucontext elsewhere (two system calls).
#if defined(__x86_64__) && !defined(FH_EMULATION_UCONTEXT)
#define FH_ASSEMBLY_SWITCH 1
extern "C" void fh_switch_stacks(void** save, void* load);
asm(R"(
.text
.p2align 4
.hidden fh_switch_stacks
.globl fh_switch_stacks
.type fh_switch_stacks, @function
fh_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fh_switch_stacks, .-fh_switch_stacks
)");
#else
#define FH_ASSEMBLY_SWITCH 0
#endif

namespace emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr int kMaxThreads = 1024;
constexpr int kWarp = 32;

struct Context {
#if FH_ASSEMBLY_SWITCH
    void* stack_pointer = nullptr;
#else
    ucontext_t context;
#endif
    const void* bottom = nullptr;  // the stack, for the address sanitizer
    size_t bytes = 0;
    void* fake_stack = nullptr;
};

enum class State { kRunnable, kAtBarrier, kInCollective, kDone };

struct Fiber {
    Context context;
    char* stack = nullptr;
    uint3 index{};
    State state = State::kDone;
    int line = 0;
    // What it brought to the barrier or collective, and what it takes away.
    Collective kind{};
    unsigned mask = 0;
    uint64_t value = 0, result = 0;
    int source = 0;
};

struct Random {
    uint64_t state = 0x9e3779b97f4a7c15u;
    uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state * 0x2545f4914f6cdd1du >> 16;
    }
    size_t below(size_t n) { return next() % n; }
};

// Memory of exactly the wanted size, so that the sanitizer's red zone begins at its end. What it holds is arbitrary:
// zeros, ones (a NaN, -1), one byte over and over, or noise.
using Bytes = std::unique_ptr<char, void (*)(void*)>;
Bytes garbage(size_t bytes, Random& random) {
    void* p = nullptr;
    if (posix_memalign(&p, 256, bytes == 0 ? 1 : bytes) != 0) std::abort();
    char* out = static_cast<char*>(p);
    const size_t kind = random.below(4);
    std::memset(out, kind == 0 ? 0 : kind == 1 ? 0xff : static_cast<int>(random.below(256)), bytes);
    for (size_t i = 0; kind == 3 && i < bytes; ++i) out[i] = static_cast<char>(random.next());
    return Bytes(out, std::free);
}

// How the next fiber is picked. A fair pick alone would let all threads go on at one pace, and a missing barrier shows
// when one runs far ahead: so some blocks give each thread, or each warp, a priority that seldom changes.
enum class Policy { kFair, kThreadPriorities, kWarpPriorities };

std::vector<Fiber> fibers(kMaxThreads);
std::vector<std::pair<uint64_t, int>> runnable;  // a heap of (priority, thread)
uint64_t priorities[kMaxThreads];
Policy policy = Policy::kFair;
Context scheduler;
Fiber* running = nullptr;
int threads = 0, at_barrier = 0;
void (*thread_body)(void*) = nullptr;
void* thread_arguments = nullptr;
std::map<const void*, std::pair<Bytes, size_t>> shared_variables;
Bytes dynamic_shared(nullptr, std::free);
Random random_order;
uint64_t switch_count = 0;
char failure[1024] = "";
bool failed = false;
std::map<const void*, int> allowed_shared;

int number(const Fiber& f) { return static_cast<int>(&f - fibers.data()); }

void switch_context(Context& from, Context& to, bool from_ends) {
    ++switch_count;
#ifdef FH_EMULATION_ASAN
    __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.fake_stack, to.bottom, to.bytes);
#else
    (void)from_ends;
#endif
#if FH_ASSEMBLY_SWITCH
    fh_switch_stacks(&from.stack_pointer, to.stack_pointer);
#else
    swapcontext(&from.context, &to.context);
#endif
#ifdef FH_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Back to the scheduler; returns when it picks this fiber again.
void leave(bool for_good = false) {
    Fiber& self = *running;
    switch_context(self.context, scheduler, for_good);
}

void fiber_entry() {
#ifdef FH_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler.bottom, &scheduler.bytes);
#endif
    thread_body(thread_arguments);
    running->state = State::kDone;
    leave(true);
    std::abort();  // a finished fiber is never picked
}

void prepare(Fiber& f) {
    if (f.stack == nullptr) {
        f.stack =
            static_cast<char*>(mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (f.stack == MAP_FAILED) std::abort();
        mprotect(f.stack, 4096, PROT_NONE);  // an overflow faults
    }
    f.context.bottom = f.stack + 4096;
    f.context.bytes = kStackBytes - 4096;
#ifdef FH_EMULATION_ASAN
    __asan_unpoison_memory_region(f.context.bottom, f.context.bytes);  // a failed launch leaves frames behind
#endif
#if FH_ASSEMBLY_SWITCH
    // Six zero registers, then the entry as return address; at a function's entry rsp is 8 modulo 16.
    void** top = reinterpret_cast<void**>(f.stack + kStackBytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&fiber_entry);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    f.context.stack_pointer = top;
#else
    getcontext(&f.context.context);
    f.context.context.uc_stack.ss_sp = f.stack + 4096;
    f.context.context.uc_stack.ss_size = f.context.bytes;
    f.context.context.uc_link = nullptr;
    makecontext(&f.context.context, fiber_entry, 0);
#endif
}

void note_failure(const char* format, ...) __attribute__((format(printf, 1, 2)));
void note_failure(const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list list;
    va_start(list, format);
    vsnprintf(failure, sizeof(failure), format, list);
    va_end(list);
}

void make_runnable(Fiber& f) {
    constexpr int kChangeOneIn = 64;
    f.state = State::kRunnable;
    const int owner = policy == Policy::kWarpPriorities ? number(f) / kWarp : number(f);
    if (policy == Policy::kFair || random_order.below(kChangeOneIn) == 0) priorities[owner] = random_order.next();
    // The low bits order the lanes of a warp anew each time.
    runnable.emplace_back((priorities[owner] & ~uint64_t{0xffff}) | random_order.below(0x10000), number(f));
    std::push_heap(runnable.begin(), runnable.end());
}

const char* name(Collective kind) {
    switch (kind) {
        case Collective::kShuffle:
            return "a shuffle";
        case Collective::kBallot:
            return "a vote";
        case Collective::kMatchAny:
            return "__match_any_sync";
        case Collective::kSyncWarp:
            return "__syncwarp";
    }
    return "?";
}

// Nobody can go on and not everybody is done: says who waits where.
void report_deadlock() {
    int done = 0, in_barrier = 0, in_collective = 0;
    const Fiber* first_barrier = nullptr;
    const Fiber* first_collective = nullptr;
    for (int t = 0; t < threads; ++t) {
        const Fiber& f = fibers[t];
        if (f.state == State::kDone) ++done;
        if (f.state == State::kAtBarrier && in_barrier++ == 0) first_barrier = &f;
        if (f.state == State::kInCollective && in_collective++ == 0) first_collective = &f;
    }
    char barrier_text[96] = "", collective_text[160] = "";
    if (first_barrier != nullptr)
        snprintf(barrier_text, sizeof(barrier_text), "; %d wait at a barrier (thread %d at line %d)", in_barrier,
                 number(*first_barrier), first_barrier->line);
    if (first_collective != nullptr)
        snprintf(collective_text, sizeof(collective_text),
                 "; %d wait in warp collectives (thread %d in %s at line %d, mask 0x%08x)", in_collective,
                 number(*first_collective), name(first_collective->kind), first_collective->line,
                 first_collective->mask);
    note_failure("deadlock in block (%u, %u, %u): of %d threads %d have left the kernel%s%s", blockIdx.x, blockIdx.y,
                 blockIdx.z, threads, done, barrier_text, collective_text);
}

bool run_block() {
    shared_variables.clear();
    runnable.clear();
    at_barrier = 0;
    policy = static_cast<Policy>(random_order.below(3));
    for (int t = 0; t < threads; ++t) priorities[t] = random_order.next();
    for (int t = 0; t < threads; ++t) {
        Fiber& f = fibers[t];
        f.index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
        prepare(f);
        make_runnable(f);
    }
    while (!runnable.empty() && !failed) {
        std::pop_heap(runnable.begin(), runnable.end());
        running = &fibers[runnable.back().second];
        runnable.pop_back();
        threadIdx = running->index;
        switch_context(scheduler, running->context, false);
    }
    for (int t = 0; t < threads && !failed; ++t)
        if (fibers[t].state != State::kDone) report_deadlock();
    return !failed;
}

// Ends the launch from inside a thread.
[[noreturn]] void stop_launch() {
    leave();
    std::abort();  // nobody is picked after a failure
}

}  // namespace

int barrier(int line, bool value) {
    Fiber& self = *running;
    self.state = State::kAtBarrier;
    self.line = line;
    self.value = value;
    if (++at_barrier == threads) {
        at_barrier = 0;
        uint64_t count = 0;
        for (int t = 0; t < threads; ++t) count += fibers[t].value;
        for (int t = 0; t < threads; ++t) {
            if (fibers[t].line != line) {
                note_failure("barrier divergence in block (%u, %u, %u): thread %d at line %d, thread %d at line %d",
                             blockIdx.x, blockIdx.y, blockIdx.z, number(self), line, t, fibers[t].line);
                stop_launch();
            }
            fibers[t].result = count;
            make_runnable(fibers[t]);
        }
    }
    leave();
    return static_cast<int>(self.result);
}

uint64_t collective(Collective kind, int line, unsigned mask, uint64_t value, int source) {
    Fiber& self = *running;
    const int lane = number(self) % kWarp, warp = number(self) - lane;
    const unsigned lanes = threads - warp >= kWarp ? 0xffffffffu : (1u << (threads - warp)) - 1;
    if ((mask >> lane & 1) == 0 || (mask & ~lanes) != 0) {
        note_failure("%s at line %d: thread %d (lane %d) named mask 0x%08x in a warp of lanes 0x%08x", name(kind), line,
                     number(self), lane, mask, lanes);
        stop_launch();
    }
    self.state = State::kInCollective;
    self.kind = kind;
    self.line = line;
    self.mask = mask;
    self.value = value;
    self.source = source;
    bool complete = true;
    for (int i = 0; i < kWarp && complete; ++i) {
        if ((mask >> i & 1) == 0) continue;
        const Fiber& other = fibers[warp + i];
        complete =
            other.state == State::kInCollective && other.kind == kind && other.mask == mask && other.line == line;
    }
    if (complete) {
        uint64_t ballot = 0;
        for (int i = 0; i < kWarp; ++i)
            if ((mask >> i & 1) != 0 && fibers[warp + i].value != 0) ballot |= uint64_t{1} << i;
        for (int i = 0; i < kWarp; ++i) {
            if ((mask >> i & 1) == 0) continue;
            Fiber& f = fibers[warp + i];
            if (kind == Collective::kBallot) f.result = ballot;
            if (kind == Collective::kShuffle) {
                const bool inside = f.source >= 0 && f.source < kWarp && (mask >> f.source & 1) != 0;
                f.result = inside ? fibers[warp + f.source].value : 0xbadc0ffee0ddf00du;
            }
            if (kind == Collective::kMatchAny) {
                f.result = 0;
                for (int j = 0; j < kWarp; ++j)
                    if ((mask >> j & 1) != 0 && fibers[warp + j].value == f.value) f.result |= uint64_t{1} << j;
            }
        }
        for (int i = 0; i < kWarp; ++i)
            if ((mask >> i & 1) != 0) make_runnable(fibers[warp + i]);
    }
    leave();
    return self.result;
}

void maybe_yield() {
    if (random_order.below(4) != 0) return;
    make_runnable(*running);
    leave();
}

void* shared_variable(const void* key, size_t bytes) {
    auto found = shared_variables.find(key);
    if (found == shared_variables.end())
        found = shared_variables.emplace(key, std::make_pair(garbage(bytes, random_order), bytes)).first;
    return found->second.first.get();
}

void* dynamic_shared_memory() { return dynamic_shared.get(); }

bool run_grid(uint3 grid, uint3 block, size_t dynamic_shared_bytes, void (*body)(void*), void* arguments) {
    gridDim = grid;
    blockDim = block;
    threads = static_cast<int>(block.x * block.y * block.z);
    thread_body = body;
    thread_arguments = arguments;
    failed = false;
    const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
    std::vector<uint32_t> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_order.below(i)]);
    for (const uint32_t b : order) {
        blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
        dynamic_shared = garbage(dynamic_shared_bytes, random_order);
        if (!run_block()) break;
    }
    dynamic_shared.reset();
    shared_variables.clear();
    return !failed;
}

const char* last_failure() { return failure; }

}  // namespace emulation

// The limits of the smallest GPU that the project builds for.
cudaError_t emulation_check_launch(const cudaLaunchConfig_t& config, const void* kernel) {
    if (fh_emulation_fault < 0) return static_cast<cudaError_t>(-fh_emulation_fault);
    const dim3 &g = config.gridDim, &b = config.blockDim;
    const auto allowed = emulation::allowed_shared.find(kernel);
    const size_t shared_limit = allowed == emulation::allowed_shared.end() ? 48 << 10 : allowed->second;
    const bool shape_fits = g.x >= 1 && g.y >= 1 && g.z >= 1 && g.x <= 0x7fffffffu && g.y <= 65535 && g.z <= 65535 &&
                            b.x >= 1 && b.y >= 1 && b.z >= 1 && b.z <= 64 &&
                            uint64_t{b.x} * b.y * b.z <= emulation::kMaxThreads;
    return shape_fits && config.dynamicSmemBytes <= shared_limit ? cudaSuccess : cudaErrorInvalidConfiguration;
}

cudaError_t emulation_allow_shared(const void* kernel, int bytes) {
    if (bytes > 99 << 10) return cudaErrorInvalidValue;
    emulation::allowed_shared[kernel] = std::max(bytes, 48 << 10);
    return cudaSuccess;
}

extern "C" void fh_emulation_seed(uint64_t seed) {
    emulation::random_order.state = seed * 0x9e3779b97f4a7c15u + 0x1234567u;
    for (int i = 0; i < 8; ++i) emulation::random_order.next();
}

extern "C" {
int fh_emulation_fault = 0;
}

extern "C" uint64_t fh_emulation_switches() { return emulation::switch_count; }

extern "C" void* fh_emulation_allocate(int64_t bytes) {
    return emulation::garbage(static_cast<size_t>(bytes), emulation::random_order).release();
}

extern "C" void fh_emulation_free(void* address) { std::free(address); }
