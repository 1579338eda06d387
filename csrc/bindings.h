// What bindings.cpp (CPU) and bindings_cuda.cpp share: addresses as integers, statuses as Python exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "asymmetric/asymmetric_topk.h"
#include "core/api.h"
#include "hamming/hamming.h"

namespace fasthash {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// A problem and the groups of bits that it points to.
struct HammingProblem : fh_hamming_problem {
    HammingProblem(const fh_hamming_problem& problem, const std::vector<int32_t>& bit_weights)
        : fh_hamming_problem(problem) {
        if (bit_weights.size() % 2 != 0) throw pybind11::value_error("bit_weights must be pairs of bits and weight");
        for (size_t i = 0; i < bit_weights.size(); i += 2) {
            bits.push_back(bit_weights[i]);
            weights.push_back(bit_weights[i + 1]);
        }
        group_bits = bits.data();
        group_weights = weights.data();
        G = static_cast<int32_t>(bits.size());
    }
    HammingProblem(const HammingProblem&) = delete;
    std::vector<int32_t> bits, weights;
};

// The same for real-valued queries. Built by Python from the arguments in this order.
struct AsymmetricProblem : fh_asymmetric_topk_problem {
    AsymmetricProblem(Address queries, fh_dtype dtype, Address database, Address mask, Address scales, int64_t Q,
                      int64_t D, int64_t N, int64_t W, int64_t stride, int32_t metric,
                      const std::vector<int32_t>& bit_weights)
        : fh_asymmetric_topk_problem{at<void>(queries),
                                     dtype,
                                     at<uint8_t>(database),
                                     at<uint64_t>(mask),
                                     at<uint16_t>(scales),
                                     Q,
                                     D,
                                     N,
                                     W,
                                     stride,
                                     static_cast<fh_asymmetric_metric>(metric),
                                     nullptr,
                                     nullptr,
                                     0},
          groups({}, bit_weights) {
        group_bits = groups.group_bits;
        group_weights = groups.group_weights;
        G = groups.G;
    }
    AsymmetricProblem(const AsymmetricProblem&) = delete;
    HammingProblem groups;
};

inline void check(fh_status status) {
    switch (status) {
        case FH_OK:
            return;
        case FH_CANCELLED:  // the signal handler has set the exception
            throw pybind11::error_already_set();
        case FH_NO_MEMORY:
            pybind11::set_error(PyExc_MemoryError, fh_last_error());
            throw pybind11::error_already_set();
        case FH_INVALID:
            throw pybind11::value_error(fh_last_error());
        case FH_CUDA_ERROR:
            throw std::runtime_error(fh_last_error());
    }
}

// Adds the CUDA functions (bindings_cuda.cpp; built where CUDA is).
void bind_cuda(pybind11::module_& m);

}  // namespace fasthash
