// The CUDA execution model on the CPU: what the kernels see of it.
//
// Blocks run one after another in random order. The threads of a block are fibers; a fiber runs until it meets a
// barrier, a warp collective or an atomic, and then a random runnable one goes on (at one pace, or some threads or
// warps far ahead of others). So code that lacks a barrier meets schedules that show it, and one seed always gives the
// same schedule. Shared memory is a heap block for each variable, filled with garbage before every block, so that the
// address sanitizer sees each step over its end.
#pragma once

#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};

// Those of the fiber that runs; the scheduler sets them.
extern uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

enum class Collective { kShuffle, kBallot, kMatchAny, kSyncWarp };

// All threads of the block must meet here, at the same line. Gives the number of threads with a non-zero value.
int barrier(int line, bool value);

// All lanes of `mask` must meet here, with the same mask, kind and line. kShuffle gives the value of lane `source`
// (garbage where that is outside the mask), kBallot the lanes with value != 0, kMatchAny those with an equal value.
uint64_t collective(Collective kind, int line, unsigned mask, uint64_t value, int source);

// Lets other fibers run, now and then: called by atomics, whose order must not show in results.
void maybe_yield();

// The shared variable `key` of this block; every thread that asks gets the same one.
void* shared_variable(const void* key, size_t bytes);
void* dynamic_shared_memory();

// Runs a grid: body(arguments) is the life of one thread. False when the kernel did what hardware would hang on, trap
// or leave undefined; last_failure() says what.
bool run_grid(uint3 grid, uint3 block, size_t dynamic_shared_bytes, void (*body)(void*), void* arguments);
const char* last_failure();

}  // namespace emulation

// For the tests: the following launches take their schedules from `seed`; the number of fiber switches so far.
extern "C" void fh_emulation_seed(uint64_t seed);
extern "C" uint64_t fh_emulation_switches();
// For sources into which a test has put faults: the one that shows, 0 for none. Below zero: launches fail with the
// cudaError_t of that number.
extern "C" int fh_emulation_fault;
