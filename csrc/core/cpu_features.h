// Which instruction set the kernels use. One choice for the whole process, made at the first call: the best that the
// processor has, or the one that FASTHASH_ISA names.
#pragma once

#include <cstdint>

#include "core/api.h"

extern "C" {

// Order is preference: higher is better.
enum fh_isa : int32_t {
#define FH_ISA(name, ...) FH_ISA_##name,
#include "core/isa.def"
    FH_ISA_COUNT
};

const char* fh_isa_name(int32_t isa);   // as in isa.def, "none" beyond
int32_t fh_isa_available(int32_t isa);  // 1: built in and the processor (and the system) can run it
int32_t fh_isa_chosen(void);            // an fh_isa, or -1: FASTHASH_ISA names none that is available (fh_last_error())
fh_status fh_isa_force(const char* name);  // for tests: replaces the choice, "" returns to the best
}

namespace fasthash {

// A family's kernels for one instruction set.
template <class Table>
struct IsaTable {
    fh_isa isa;
    const Table* table;
};

// The kernels of the chosen instruction set; null, with a message left, where there are none.
template <class Table, int kCount>
const Table* chosen_table(const IsaTable<Table> (&tables)[kCount]) {
    const int32_t isa = fh_isa_chosen();
    for (const IsaTable<Table>& entry : tables)
        if (entry.isa == isa) return entry.table;
    if (isa >= 0) fail(FH_INVALID, "the instruction set in use has no kernels for this op");
    return nullptr;
}

}  // namespace fasthash
