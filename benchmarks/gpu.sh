#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one command: builds from source for this GPU, runs the tests on CUDA and small
# ones under compute-sanitizer, then the benchmarks of the CUDA ops. A step that fails does not keep the next from
# running. Each has a time limit (on SIGINT pytest still says what failed); with a minute for the build they come to 8
# minutes. Beside each figure stands what is expected on an H100 (expected.py). Results:
# benchmarks/results/gpu-<device>-*.json, all of them in gpu-<device>.json, and tables in gpu-<device>.md.
# Needs torch with CUDA, nvcc, pybind11, scikit-build-core, cmake, ninja, pytest, hypothesis in the environment of python3.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
step() {
    echo "== $1"
    shift
    SECONDS=0
    "$@" || { echo "FAILED ($?): $*"; failed=1; }
    echo "-- ${SECONDS} s"
}

python=$(command -v python3 || command -v python)
PATH="$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH:/usr/local/cuda/bin"
# `python -m pytest` would take this folder's fasthash/, which has no extension, for the one that was installed.
pytest=("$python" -c 'import sys; sys.path = [p for p in sys.path if p]; import pytest; sys.exit(pytest.main())')

read -r capability device < <("$python" -c '
import torch
print("%d%d" % torch.cuda.get_device_capability(), torch.cuda.get_device_name().lower().replace(" ", "-"))')
[ -n "${device:-}" ] || { echo "torch sees no GPU"; exit 1; }
[ "$capability" = 90 ] && capability=90a
export FASTHASH_CUDA=ON PIP_DISABLE_PIP_VERSION_CHECK=1
# An nvcc that is older than the GPU builds what it knows, and the driver compiles the PTX in it at the first call.
if nvcc --list-gpu-code | grep -qx "sm_${capability%a}"; then
    export FASTHASH_CUDA_ARCHS="$capability"
else
    echo "this nvcc does not know sm_$capability: the GPU runs PTX of the oldest architecture that is built"
    unset FASTHASH_CUDA_ARCHS
fi
# A kernel then fails with error 35 or 222, and says what to do.
toolkit=$(nvcc --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
driver=$(nvidia-smi | sed -n 's/.*CUDA Version: \([0-9]*\)\..*/\1/p')
[ "${driver:-$toolkit}" -ge "$toolkit" ] || echo "the driver knows CUDA $driver, nvcc is of CUDA $toolkit: too old for it"
echo "GPUs: $("$python" -c 'import torch; print(torch.cuda.device_count())'); benchmarks run on the first," \
    "tests of several devices need two"
rm -f benchmarks/results/gpu-"$device"{,-*}.{json,md} # of an earlier run

# Both tools side by side: most of their time goes into Python. Every tensor has memory of its own, so that a step over
# its end is seen.
small=(tests/test_hamming.py tests/test_hamming_cuda.py tests/test_asymmetric_cuda.py tests/test_pairs_cuda.py
    tests/test_neighbors.py tests/test_nearest_cuda.py tests/test_losses_kl.py tests/test_losses_similarity.py
    tests/test_sampling.py)
which="cuda and (widths or large_k or strided or one_pass or small_batches or oracle or ties or coincident or seed)"
# racecheck is some ten times slower and looks at shared memory alone: fewer tests, and no more than so many launches.
races="cuda and (one_pass or large_k or small_batches or ties)"
sanitizers() {
    local logs tool status=0
    declare -A running
    logs=$(mktemp -d)
    for tool in memcheck racecheck; do
        local chosen="$which" limits=()
        [ $tool = racecheck ] && chosen="$races" limits=(--launch-count 2000)
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout -k 5 90 compute-sanitizer --tool $tool --kernel-name kns=fasthash \
            --report-api-errors no --error-exitcode 9 --print-limit 20 "${limits[@]}" \
            "${pytest[@]}" -q --maxfail 5 --tb short -p no:cacheprovider "${small[@]}" -k "$chosen" >"$logs/$tool" 2>&1 &
        running[$tool]=$!
    done
    for tool in memcheck racecheck; do
        wait "${running[$tool]}" || { echo "FAILED ($?): $tool"; status=1; }
        echo "-- $tool"
        tail -n 30 "$logs/$tool"
    done
    rm -r "$logs"
    return $status
}

step "build for sm_$capability" "$python" -m pip install -q --no-build-isolation --no-deps .
step "what was built" fasthash info
step "tests on CUDA" timeout -s INT -k 5 105 "${pytest[@]}" -q --maxfail 20 --tb short --durations 5 -k cuda tests \
    --ignore tests/test_cuda_sources.py --ignore tests/test_emulation.py
if command -v compute-sanitizer >/dev/null; then
    step "compute-sanitizer" sanitizers
else
    echo "compute-sanitizer is not installed: left out"
fi
step "Hamming search" timeout -s INT -k 5 105 "$python" benchmarks/bench_hamming_cuda.py --seconds 85 \
    --name "gpu-$device-hamming"
step "KL loss" timeout -s INT -k 5 75 "$python" benchmarks/bench_kl.py --device cuda \
    --sizes 128x32 4096x64 4096x256 16384x64 16384x256 --rounds 5 --seconds 3 --name "gpu-$device-kl"
step "KL loss in a training step" timeout -s INT -k 5 20 "$python" benchmarks/bench_kl_step.py --name "gpu-$device-kl-step"
step "rates of instructions" timeout -s INT -k 5 25 "$python" benchmarks/bench_rates_cuda.py --name "gpu-$device-rates"

step "results" "$python" - "$device" <<'END'
import json, pathlib, sys
folder, device = pathlib.Path("benchmarks/results"), sys.argv[1]
names = [name for name in ("hamming", "kl", "kl-step", "rates") if (folder / f"gpu-{device}-{name}.json").exists()]
found = {name: json.loads((folder / f"gpu-{device}-{name}.json").read_text()) for name in names}
(folder / f"gpu-{device}.json").write_text(json.dumps(found, indent=1) + "\n")
tables = [folder / f"gpu-{device}-{name}.md" for name in names]
text = "\n".join(path.read_text() for path in tables if path.exists())
(folder / f"gpu-{device}.md").write_text(text)
print(text)
END
exit $failed
