#include "core/cpu_features.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/api.h"

namespace {

constexpr const char* kNames[FH_ISA_COUNT] = {"scalar", "neon", "avx2", "avx512"};

bool cpu_has(int32_t isa) {
    switch (isa) {
        case FH_ISA_SCALAR:
            return true;
#if defined(__x86_64__)
        case FH_ISA_AVX2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2");
        case FH_ISA_AVX512:
            return cpu_has(FH_ISA_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512bitalg");
#elif defined(__aarch64__)
        case FH_ISA_NEON:
            return true;  // part of the architecture
#endif
        default:
            return false;
    }
}

int32_t best_available() {
    int32_t isa = FH_ISA_COUNT - 1;
    while (!fh_isa_available(isa)) --isa;
    return isa;
}

// The isa called `name`, or -1 with a message that lists what this machine has.
int32_t find(const char* name) {
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa)
        if (std::strcmp(name, kNames[isa]) == 0 && fh_isa_available(isa)) return isa;
    char message[256];
    int length = std::snprintf(message, sizeof(message), "FASTHASH_ISA: must be one of");
    for (int32_t isa = 0; isa < FH_ISA_COUNT; ++isa)
        if (fh_isa_available(isa))
            length += std::snprintf(message + length, sizeof(message) - length, " %s,", kNames[isa]);
    std::snprintf(message + length - 1, sizeof(message) - length + 1, ", got %.64s", name);
    fasthash::fail(FH_INVALID, message);
    return -1;
}

constexpr int32_t kUndecided = -2;
std::atomic<int32_t> chosen{kUndecided};

}  // namespace

extern "C" const char* fh_isa_name(int32_t isa) { return isa >= 0 && isa < FH_ISA_COUNT ? kNames[isa] : "none"; }

extern "C" int32_t fh_isa_available(int32_t isa) { return cpu_has(isa); }

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
