// Which instruction set the kernels use. One choice for the whole process, made at the first call: the best that the
// processor has, or the one that FASTHASH_ISA names.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

// Order is preference: higher is better.
enum fh_isa : int32_t {
    FH_ISA_SCALAR = 0,
    FH_ISA_NEON = 1,
    FH_ISA_AVX2 = 2,    // AVX2, FMA, POPCNT, BMI2
    FH_ISA_AVX512 = 3,  // AVX-512 F, BW, DQ, VL, VPOPCNTDQ, BITALG
    FH_ISA_COUNT = 4,
};

const char* fh_isa_name(int32_t isa);   // "scalar", "neon", "avx2", "avx512"
int32_t fh_isa_available(int32_t isa);  // 1: built in and the processor (and the system) can run it
int32_t fh_isa_chosen(void);            // an fh_isa, or -1: FASTHASH_ISA names none that is available (fh_last_error())
fh_status fh_isa_force(const char* name);  // for tests: replaces the choice, "" returns to the best
}
