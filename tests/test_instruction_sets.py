"""One list of instruction sets (csrc/core/isa.def): the build, the choice at run time and the objects follow it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from instruction_sets import CSRC, InstructionSet, families, instruction_sets

from fasthash import _ops

PROCESSOR = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
needs_compiler = pytest.mark.skipif(not shutil.which("g++") or not shutil.which("nm"), reason="needs g++ and nm")
# What a feature brings along: a processor that has avx2 has these.
IMPLIED = {"avx", "sse", "sse2", "sse3", "ssse3", "sse4_1", "sse4_2", "xsave", "crc32", "mmx", "evex256", "evex512"}


def family_name(family: Path) -> str:
    return f"{family.parent.parent.name}/{family.name}"


def named(sets: list[InstructionSet]) -> list[object]:
    return [pytest.param(one, id=one.name) for one in sets]


def test_the_list_is_the_one_that_was_built() -> None:
    names = [one.name for one in instruction_sets()]
    assert [name for name in names if name in _ops.isa_names()] == _ops.isa_names()
    assert set(_ops.isa_names()) <= {one.name for one in instruction_sets(PROCESSOR)}


def test_families_are_found() -> None:
    assert {family_name(family) for family in families()} >= {"hamming/scan", "mih/near", "neighbors/tile"}


@pytest.mark.parametrize("family", families(), ids=family_name)
def test_each_family_has_each_set_and_is_built(family: Path) -> None:
    found = {path.stem for path in family.parent.glob("*.cpp")}
    assert found == {f"{family.name}_{one.name}" for one in instruction_sets()}
    build = (CSRC.parent / "CMakeLists.txt").read_text()
    assert re.search(rf"foreach\(family IN ITEMS [^)]*\b{family.relative_to(CSRC)}\b", build)


def macros(flags: list[str]) -> set[str]:
    """What g++ defines under these flags, __AVX2__ as avx2."""
    command = ["g++", "-dM", "-E", *flags, "-x", "c++", "/dev/null"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name.lower() for name in re.findall(r"^#define __([A-Z0-9_]+?)__ 1$", text, re.M)}


@needs_compiler
@pytest.mark.skipif(PROCESSOR != "x86_64", reason="the flags are of x86-64")
@pytest.mark.parametrize("one", named(instruction_sets("x86_64")))
def test_the_choice_asks_for_all_that_the_compiler_may_use(one: InstructionSet) -> None:
    may_use = macros(one.flags) - macros([]) - IMPLIED
    assert may_use <= set(one.needs), f"{one.name}: add FH_NEEDS for them to isa.def"
    command = ["g++", "-std=c++17", "-E", "-P", f"-I{CSRC}", str(CSRC / "core" / "cpu_features.cpp")]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (choice,) = re.findall(rf'{{"{one.name}", \[\] {{(.*?)}}}}', text)
    asked = set(re.findall(r'__builtin_cpu_supports\("(\w+)"\)', choice)) | set(re.findall(r"has_(\w+)\(\)", choice))
    assert asked == set(one.needs)


@needs_compiler
@pytest.mark.parametrize("one", named(instruction_sets(PROCESSOR)))
@pytest.mark.parametrize("family", families(), ids=family_name)
def test_objects_export_their_table_alone(family: Path, one: InstructionSet, tmp_path: Path) -> None:
    """A shared template symbol from an AVX-512 file could be the copy that every processor runs."""
    source, target = family.with_name(f"{family.name}_{one.name}.cpp"), tmp_path / "isa.o"
    # -O0 keeps every function that could be shared.
    command = ["g++", "-std=c++17", "-O0", "-fPIC", "-c", f"-I{CSRC}", *one.flags, str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    symbols = subprocess.run(["nm", "--defined-only", "-C", str(target)], check=True, capture_output=True, text=True)
    exported = [line.split(maxsplit=2) for line in symbols.stdout.splitlines()]
    # Capitals are visible to the linker (R: constant data, D: data, W / V / u: weak and shared).
    visible = [name for _, kind, name in exported if kind.isupper() or kind in "vwu"]
    assert visible == [f"fasthash::k{family.name.title()}{one.table}"]
