"""The C++ core under the sanitizers, quickly (`bash tests/sanitize.sh` does it at length); files for ARM compiled."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from instruction_sets import InstructionSet, families, instruction_sets

ROOT = Path(__file__).resolve().parents[1]


def compiler(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not there")
    return found


def test_addresses_and_undefined_behaviour(tmp_path: Path) -> None:
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}")
    flags = ["-fsanitize=address,undefined", "-o", str(tmp_path / "probe")]
    if subprocess.run([compiler("g++"), *flags, str(probe)], capture_output=True).returncode:
        pytest.skip("g++ has no address sanitizer here")
    done = subprocess.run(
        ["bash", str(ROOT / "tests" / "sanitize.sh"), "address", "quick"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scalar: ok" in done.stdout
    assert "warning:" not in done.stderr


@pytest.mark.parametrize("one", [one for one in instruction_sets() if one.processor == "aarch64"], ids=lambda s: s.name)
@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_arm_files_compile(family: Path, one: InstructionSet, tmp_path: Path) -> None:
    cross = compiler("aarch64-linux-gnu-g++")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-Icsrc", *one.flags]
    source, output = f"{family}_{one.name}.cpp", tmp_path / "object.o"
    done = subprocess.run(
        [cross, *flags, "-c", source, "-o", str(output)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    symbols = subprocess.run(
        [compiler("aarch64-linux-gnu-nm"), "--defined-only", str(output)], capture_output=True, text=True, check=True
    )
    assert one.table in symbols.stdout
