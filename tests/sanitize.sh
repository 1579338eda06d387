#!/usr/bin/env bash
# Builds the C++ core and sanitize_driver.cpp under a sanitizer, and runs the driver on every instruction set.
#
#     bash tests/sanitize.sh [address|thread|none] [quick]        address: with undefined behaviour
#
# CXX names the compiler, RUN what the program is run with: NEON without such a machine is
#     CXX=aarch64-linux-gnu-g++ RUN="qemu-aarch64 -L /usr/aarch64-linux-gnu" bash tests/sanitize.sh none
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-address} size=${2:-full}
CXX=${CXX:-g++}
case $kind in
    address) flags="-fsanitize=address,undefined -fno-sanitize-recover=all" extra=fork ;;
    thread) flags="-fsanitize=thread" extra= ;;
    none) flags= extra= ;;
    *) echo "sanitize.sh: must be address, thread or none, got $kind" >&2; exit 2 ;;
esac
flags="-std=c++17 -O1 -g1 -ffp-contract=off -Wall -Wextra -Icsrc $flags"
processor=$("$CXX" -dumpmachine)
sets=$(python3 tests/instruction_sets.py "${processor%%-*}") # lines "name flags"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

compile() { # what is of an instruction set, *_<name>.cpp, gets its flags
    local name isa
    name=$(basename "$1" .cpp)
    isa=$(sed -n "s/^${name##*_} //p" <<<"$sets")
    $CXX $flags $isa -c "$1" -o "$out/$(echo "${1%.cpp}" | tr / _).o"
}
export -f compile
export CXX flags sets out
{ echo tests/sanitize_driver.cpp; find csrc -name '*.cpp' ! -name 'bindings*'; } |
    xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} bash -c 'compile {}'
$CXX $flags "$out"/*.o -o "$out/driver" -lpthread
export ASAN_OPTIONS="detect_stack_use_after_return=1 ${ASAN_OPTIONS:-}"
${RUN:-} "$out/driver" "$size" $extra
