#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: builds from source for this GPU, runs the tests on CUDA and the small
# ones under compute-sanitizer, then the benchmarks of the CUDA ops. Each step has a time limit; with a minute for the
# build they come to 8 minutes. Results: benchmarks/results/gpu-<device>-*.json, and a table of the Hamming search.
# Needs torch with CUDA, nvcc, pybind11, scikit-build-core, cmake, ninja, pytest, hypothesis in the environment.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
step() {
    echo "== $1"
    shift
    "$@" || { echo "FAILED ($?): $*"; failed=1; }
}

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
[ "$capability" = 90 ] && capability=90a
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr ' A-Z' '-a-z')
export FASTHASH_CUDA=ON FASTHASH_CUDA_ARCHS="$capability"

step "build for sm_$capability" python -m pip install -q --no-build-isolation --no-deps .
step "what was built" fasthash info
step "tests on CUDA" timeout 110 pytest -q -x -k cuda tests --ignore tests/test_cuda_sources.py --ignore tests/test_emulation.py
small="tests/test_hamming.py tests/test_neighbors.py tests/test_losses_kl.py tests/test_losses_similarity.py tests/test_sampling.py"
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        # shellcheck disable=SC2086
        step "compute-sanitizer $tool" timeout 50 compute-sanitizer --tool $tool --error-exitcode 9 \
            python "$(command -v pytest)" -q -x $small -k "cuda and (oracle or ties or coincident)"
    done
else
    echo "compute-sanitizer is not installed: left out"
fi
step "rates of instructions" timeout 40 python benchmarks/bench_rates_cuda.py --name "gpu-$device-rates"
step "KL loss" timeout 80 python benchmarks/bench_kl.py --device cuda --sizes 128x32 4096x64 4096x256 16384x64 16384x256 \
    --rounds 5 --seconds 3 --name "gpu-$device-kl"
step "KL loss in a training step" timeout 25 python benchmarks/bench_kl_step.py --name "gpu-$device-kl-step"
step "Hamming search" timeout 110 python benchmarks/bench_hamming_cuda.py --seconds 90 --name "gpu-$device-hamming"
[ -f "benchmarks/results/gpu-$device-hamming.md" ] && cat "benchmarks/results/gpu-$device-hamming.md"
exit $failed
