# The CUDA architectures that are built where FASTHASH_CUDA_ARCHS names none.
include_guard()

# Sets `out` in the caller to those that nvcc of this version knows: sm_90a since 12.0, sm_100 and sm_120 since 12.8.
function(default_cuda_architectures nvcc_version out)
    set(architectures 80)
    if(nvcc_version VERSION_GREATER_EQUAL 12.0)
        list(APPEND architectures 90a)
    endif()
    if(nvcc_version VERSION_GREATER_EQUAL 12.8)
        list(APPEND architectures 100 120)
    endif()
    set(${out} ${architectures} PARENT_SCOPE)
endfunction()
