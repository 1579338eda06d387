#include "core/cpu_features.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/api.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

#if defined(__x86_64__)
bool has_lzcnt() {
    unsigned a, b, c, d;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) != 0 && (c >> 5 & 1) != 0;
}
#endif

// __builtin_cpu_supports, but has_lzcnt() for lzcnt, which older compilers do not know there: the second of what the
// argument becomes.
#define FH_SECOND(first, second, ...) second
#define FH_SECOND_OF(...) FH_SECOND(__VA_ARGS__)
#define FH_INSTEAD_lzcnt ~, has_lzcnt()
#define FH_SUPPORTS(feature) FH_SECOND_OF(FH_INSTEAD_##feature, __builtin_cpu_supports(#feature), ~)

struct InstructionSet {
    const char* name;
    bool (*runs_here)();
};

constexpr InstructionSet kSets[] = {
#define FH_NEEDS(feature) &&FH_SUPPORTS(feature)
#define FH_ISA(name, Name, processor, flags, needs) {#name, [] { return false FH_ON_##processor(|| (true needs)); }},
#include "core/isa.def"
};

int32_t best_available() {
    int32_t isa = FH_ISA_COUNT - 1;
    while (!fh_isa_available(isa)) --isa;
    return isa;
}

// The isa called `name`, or -1 with a message that lists what this machine has.
int32_t find(const char* name) {
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa)
        if (std::strcmp(name, kSets[isa].name) == 0 && fh_isa_available(isa)) return isa;
    char message[256];
    int length = std::snprintf(message, sizeof(message), "FASTHASH_ISA: must be one of");
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa)
        if (fh_isa_available(isa))
            length += std::snprintf(message + length, sizeof(message) - length, " %s,", kSets[isa].name);
    std::snprintf(message + length - 1, sizeof(message) - length + 1, ", got %.64s", name);
    fasthash::fail(FH_INVALID, message);
    return -1;
}

constexpr int32_t kUndecided = -2;
std::atomic<int32_t> chosen{kUndecided};

}  // namespace

extern "C" const char* fh_isa_name(int32_t isa) { return isa >= 0 && isa < FH_ISA_COUNT ? kSets[isa].name : "none"; }

extern "C" int32_t fh_isa_available(int32_t isa) { return isa >= 0 && isa < FH_ISA_COUNT && kSets[isa].runs_here(); }

extern "C" int32_t fh_isa_chosen(void) {
    int32_t isa = chosen.load(std::memory_order_relaxed);
    if (isa != kUndecided) return isa;
    const char* name = std::getenv("FASTHASH_ISA");
    isa = name != nullptr && name[0] != '\0' ? find(name) : best_available();
    if (isa >= 0) chosen.store(isa, std::memory_order_relaxed);
    return isa;
}

extern "C" fh_status fh_isa_force(const char* name) {
    const int32_t isa = name[0] == '\0' ? best_available() : find(name);
    if (isa < 0) return FH_INVALID;
    chosen.store(isa, std::memory_order_relaxed);
    return FH_OK;
}
