"""What CMake works out by itself: the CUDA architectures of a build, the flags of each instruction set."""

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
def test_architectures_for_all_are_those_that_nvcc_knows(nvcc: str, architectures: str, tmp_path: Path) -> None:
    script = f'default_cuda_architectures({nvcc} found)\nmessage("${{found}}")\n'
    assert run_cmake(script, tmp_path).strip() == architectures


def test_targets_have_machine_code_and_ptx_of_the_first(tmp_path: Path) -> None:
    script = 'cuda_targets("80;90a" found)\nmessage("${found}")\n'
    assert run_cmake(script, tmp_path).strip() == "80-real;90a-real;80-virtual"


KNOWN = "75;80;86;87;88;89;90;100;110;103;120;121"  # as nvcc 13.0 lists them


@pytest.mark.parametrize(
    ("gpus", "known", "nvcc", "targets"),
    [
        ("", KNOWN, "13.0.88", ""),
        ("9.0", KNOWN, "13.0.88", "90a-real"),
        ("9.0", "80;86;90", "11.8.89", "90-real"),  # 90a is known since 12.0
        ("8.6;9.0", KNOWN, "13.0.88", "86-real;90a-real"),
        ("10.0;12.0", KNOWN, "13.0.88", "100-real;120-real"),
        ("13.5", KNOWN, "13.0.88", "121-virtual"),  # newer than all that nvcc knows
        ("12.0", "80;86;89;90", "12.4.99", "90-virtual"),  # PTX of 90a would run on no other GPU
        ("10.1", KNOWN, "13.0.88", "100-virtual"),  # between known ones
        ("8.9;9.9;9.8", KNOWN, "13.0.88", "89-real;90-virtual"),
        ("7.5", KNOWN, "13.0.88", ""),  # the kernels need 8.0
        ("7.5;8.0", KNOWN, "13.0.88", "80-real"),
    ],
)
def test_targets_of_the_gpus_of_a_machine(gpus: str, known: str, nvcc: str, targets: str, tmp_path: Path) -> None:
    script = f'cuda_targets_of_gpus("{gpus}" "{known}" {nvcc} found)\nmessage("${{found}}")\n'
    assert run_cmake(script, tmp_path).strip() == targets


@pytest.mark.parametrize(
    ("body", "gpus"),
    [
        ("printf '9.0\\n9.0\\n8.6\\n'", "9.0;8.6"),
        ("echo 12.1", "12.1"),
        ("echo '[N/A]'", ""),
        ("echo 'NVIDIA-SMI has failed, driver 535.54'; exit 9", ""),
        (None, ""),  # no nvidia-smi at all
    ],
)
def test_gpus_are_those_that_nvidia_smi_shows(
    body: str | None, gpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if body is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f'#!/bin/sh\n[ "$*" = "--query-gpu=compute_cap --format=csv,noheader" ] || exit 2\n{body}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_cmake('find_gpus(found)\nmessage("${found}")\n', tmp_path).strip() == gpus


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_known_architectures_are_numbers_that_nvcc_lists(tmp_path: Path) -> None:
    script = f'known_cuda_architectures("{shutil.which("nvcc")}" found)\nmessage("${{found}}")\n'
    known = run_cmake(script, tmp_path).strip().split(";")
    assert {"80", "90"} <= set(known)
    assert all(architecture.isdecimal() for architecture in known)


def test_flags_are_those_of_the_list(tmp_path: Path) -> None:
    script = f'read_instruction_sets("{ROOT}/csrc/core/isa.def" isa)\n' + (
        'foreach(name IN LISTS isa_names)\n  message("${name} ${isa_processor_${name}} ${isa_flags_${name}}")\n'
        "endforeach()\n"
    )
    wanted = [f"{one.name} {one.processor} {';'.join(one.flags)}" for one in instruction_sets()]
    assert [line.rstrip() for line in run_cmake(script, tmp_path).splitlines()] == [line.rstrip() for line in wanted]
