# The CUDA architectures of a build, as CMAKE_CUDA_ARCHITECTURES takes them. Kernels need compute capability 8.0 or more.
include_guard()

# Sets `out` in the caller to what an image for any machine has: those of 80, 90a, 100 and 120 that nvcc of this version
# knows, sm_90a since 12.0, sm_100 and sm_120 since 12.8.
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

# Sets `out` in the caller to machine code for each of `architectures`, and PTX of the first for GPUs that come after.
function(cuda_targets architectures out)
    list(TRANSFORM architectures APPEND "-real" OUTPUT_VARIABLE targets)
    list(GET architectures 0 first)
    set(${out} ${targets} "${first}-virtual" PARENT_SCOPE)
endfunction()

# Sets `out` in the caller to the compute capabilities of this machine's GPUs, say "8.9;9.0"; empty where the driver's
# nvidia-smi shows none.
function(find_gpus out)
    execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
        OUTPUT_VARIABLE shown ERROR_QUIET RESULT_VARIABLE status)
    set(capabilities "")
    if(status EQUAL 0)
        string(REGEX MATCHALL "[0-9]+\\.[0-9]" capabilities "${shown}")
        list(REMOVE_DUPLICATES capabilities)
    endif()
    set(${out} ${capabilities} PARENT_SCOPE)
endfunction()

# Sets `out` in the caller to what this nvcc knows, say "80;86;90;100".
function(known_cuda_architectures nvcc out)
    execute_process(COMMAND ${nvcc} --list-gpu-code OUTPUT_VARIABLE shown ERROR_QUIET)
    string(REGEX MATCHALL "sm_[0-9]+" known "${shown}")
    list(TRANSFORM known REPLACE "sm_" "")
    list(REMOVE_DUPLICATES known)
    set(${out} ${known} PARENT_SCOPE)
endfunction()

# Sets `out` in the caller to the targets for GPUs of these compute capabilities, each once: machine code where nvcc knows
# the GPU (sm_90a for 9.0, since nvcc 12.0), else PTX of the newest architecture below that it knows, which the driver
# compiles at the first call. A GPU below 8.0 has none.
function(cuda_targets_of_gpus capabilities known nvcc_version out)
    list(SORT known COMPARE NATURAL)
    set(targets "")
    foreach(capability IN LISTS capabilities)
        string(REPLACE "." "" number "${capability}")
        set(newest "")
        foreach(architecture IN LISTS known)
            if(architecture GREATER_EQUAL 80 AND architecture LESS_EQUAL number)
                set(newest ${architecture})
            endif()
        endforeach()
        if(newest STREQUAL "90" AND number EQUAL 90 AND nvcc_version VERSION_GREATER_EQUAL 12.0)
            list(APPEND targets "90a-real")
        elseif(newest STREQUAL "${number}")
            list(APPEND targets "${newest}-real")
        elseif(newest)
            list(APPEND targets "${newest}-virtual")
        endif()
    endforeach()
    list(REMOVE_DUPLICATES targets)
    set(${out} ${targets} PARENT_SCOPE)
endfunction()
