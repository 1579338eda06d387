"""What CMake works out by itself: the CUDA architectures of a default build, the flags of each instruction set."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from instruction_sets import instruction_sets

ROOT = Path(__file__).resolve().parents[1]
CMAKE = shutil.which("cmake") or ""
pytestmark = pytest.mark.skipif(not CMAKE, reason="needs cmake")


def run_cmake(script: str, folder: Path) -> str:
    """What a script prints that may use the modules of cmake/."""
    path = folder / "script.cmake"
    includes = "".join(f'include("{module}")\n' for module in sorted((ROOT / "cmake").glob("*.cmake")))
    path.write_text(includes + script)
    return subprocess.run([CMAKE, "-P", str(path)], check=True, capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("nvcc", "architectures"),
    [
        ("11.8.89", "80"),
        ("12.0.140", "80;90a"),
        ("12.7.33", "80;90a"),
        ("12.8.61", "80;90a;100;120"),
        ("12.10", "80;90a;100;120"),
        ("13.0.88", "80;90a;100;120"),
    ],
)
def test_architectures_are_those_that_nvcc_knows(nvcc: str, architectures: str, tmp_path: Path) -> None:
    script = f'default_cuda_architectures({nvcc} found)\nmessage("${{found}}")\n'
    assert run_cmake(script, tmp_path).strip() == architectures


def test_flags_are_those_of_the_list(tmp_path: Path) -> None:
    script = f'read_instruction_sets("{ROOT}/csrc/core/isa.def" isa)\n' + (
        'foreach(name IN LISTS isa_names)\n  message("${name} ${isa_processor_${name}} ${isa_flags_${name}}")\n'
        "endforeach()\n"
    )
    wanted = [f"{one.name} {one.processor} {';'.join(one.flags)}" for one in instruction_sets()]
    assert [line.rstrip() for line in run_cmake(script, tmp_path).splitlines()] == [line.rstrip() for line in wanted]
