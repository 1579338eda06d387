// What bindings.cpp (CPU) and bindings_cuda.cpp share: addresses as integers, statuses as Python exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>

#include "core/api.h"

namespace fasthash {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

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
