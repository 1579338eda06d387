"""The machine code of the CUDA kernels in this build: registers, stack (what is spilled), shared memory, instructions.

For sm_90a and nvcc 13.0, which CI builds with: other compilers allot registers otherwise. Needs cuobjdump and nvdisasm,
of the CUDA toolkit or of pip (nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm). A new kernel gets a row in BOUNDS.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fasthash import _core, _ops

ARCHITECTURE, NVCC = "90a", "13.0"
SYSTEM_SHARED = 1024  # bytes that sm_90 keeps for itself in each block


class Bound(NamedTuple):
    """At most so much of each, for the kernels whose mangled name has the pattern; and what they must be made of."""

    pattern: str
    registers: int
    stack: int = 0
    shared: int = 0
    instructions: tuple[str, ...] = ()  # regular expressions of SASS


def products(kernel: str, words: int, registers: int, stack: int = 0) -> Bound:
    """Products of bits; a lane's words of a row come by one load where 16 or 8 bytes divide them."""
    load = {8: r"LDG\.E\.64 ", 16: r"LDG\.E\.128 ", 24: r"LDG\.E\.64 ", 32: r"LDG\.E\.128 "}.get(words, r"LDG\.E ")
    return Bound(rf"{kernel}.*MultipliedTileINS_9CodeWidthILi{words}E", registers, stack, 0, (r"BMMA\.", load))


# The first pattern that fits counts. Registers: what leaves a multiprocessor, which has 65,536, as many blocks as now.
WIDE = "CodeWidthILi(4|8|12|16|24|32)ELb1E"
COUNTED = (r"POPC", r"LDG\.E\.128 ")
BOUNDS = [
    products("hamming_collect_kernel", 2, 80, 32),  # 3 blocks; spilled is what is read once for 128 rows
    *(products("hamming_collect_kernel", words, 128) for words in (4, 8, 12, 16, 24, 32)),
    products("hamming_count_kernel", 2, 80),
    *(products("hamming_count_kernel", words, 128) for words in (4, 8, 12, 16, 24, 32)),
    Bound("hamming_collect_kernel.*WeightedWidth", 128),
    Bound("hamming_collect_kernel.*CodeWidthILi2ELb1E", 64, 0, 0, (r"POPC", r"LDG\.E\.64 ")),
    Bound(f"hamming_collect_kernel.*{WIDE}", 128, 0, 0, COUNTED),
    Bound("hamming_collect_kernel", 80, 0, 0, (r"POPC",)),
    Bound("hamming_count_kernel.*WeightedWidth", 128, 8),
    Bound("hamming_count_kernel.*CodeWidthILi2ELb1E", 64, 0, 0, (r"POPC", r"LDG\.E\.64 ")),
    Bound(f"hamming_count_kernel.*{WIDE}", 80, 0, 0, COUNTED),
    Bound("hamming_count_kernel", 64, 0, 0, (r"POPC",)),
    Bound("hamming_tighten_kernel", 40, 0, 8320),
    Bound("hamming_place_kernel", 40, 0, 2048),
    Bound("hamming_prefix_kernel", 64, 0, 8192),
    Bound("hamming_(start|rank|row_sum|mask|class_sum)_kernel", 40, 0, 64),
    Bound("hamming_(emit|distances|class_count)_kernel", 128, 8, 0, (r"POPC",)),
    Bound("nearest_tiles_kernelILi1E", 128, 72, 0, (r"FADD", r"LDS\.128 ")),
    Bound("nearest_tiles_kernelILi2E", 128, 0, 0, (r"HMMA\.1688\.F32\.TF32", r"LDS")),
    Bound("nearest_(centers|forms|unpack)_kernel", 40),
    Bound("nearest_kernel", 128),
    Bound("nearest_merge_kernel", 64, 0, 8192),
    Bound("nearest_sort_(block|step)_kernel", 40, 0, 32768),
    Bound("nearest_(gather|terms)_kernel", 64, 8),
    Bound("kl_loss_kernel", 40, 0, 128),
    Bound("pairwise_l1_(backward_)?kernel", 80, 8, 17408),
    Bound("beta_sample_kernel", 40),
    Bound("asymmetric_scan_kernel", 128, 0, 0, (r"IMMA\.16832\.S8\.S8",)),
    Bound("asymmetric_rescan_kernel", 64, 24, 2176),
    Bound("asymmetric_(prepare|write|select)_kernel", 64, 0, 2176),
    *(products("(duplicate_groups|hamming_pairs)_kernel", words, 128, 8) for words in (2, 4, 8, 12, 16, 24, 32)),
    Bound("(duplicate_groups|hamming_pairs)_kernel", 80, 16, 0, (r"POPC",)),
    Bound("group_(start|end)_kernel", 40),
]


def tool(name: str) -> str | None:
    found = shutil.which(name)
    packaged = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin" / name
    return found or (str(packaged) if packaged.is_file() else None)


@pytest.fixture(scope="module")
def cuobjdump() -> str:
    """The command, where this build can be looked at."""
    if ARCHITECTURE not in _ops.cuda_architectures():
        pytest.skip(f"this build has no code for sm_{ARCHITECTURE}")
    nvcc = shutil.which("nvcc")
    version = "" if nvcc is None else subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    if f"release {NVCC}," not in version:
        pytest.skip(f"the bounds are those of nvcc {NVCC}")
    found = tool("cuobjdump")
    if found is None or tool("nvdisasm") is None:
        pytest.skip("needs cuobjdump and nvdisasm")
    return found


def dump(cuobjdump: str, *options: str) -> str:
    folder = str(Path(tool("nvdisasm") or "").parent)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = [cuobjdump, *options, "-arch", f"sm_{ARCHITECTURE}", str(_core.__file__)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture(scope="module")
def resources(cuobjdump: str) -> dict[str, dict[str, int]]:
    """REG, STACK, SHARED and so on of each kernel, by mangled name."""
    lines = re.findall(r"Function (\w+):\s+(REG:[^\n]*)", dump(cuobjdump, "--dump-resource-usage"))
    return {name: {key: int(n) for key, n in re.findall(r"(\w+(?:\[0\])?):(\d+)", rest)} for name, rest in lines}


def assembly(cuobjdump: str) -> Iterator[tuple[str, str]]:
    for part in dump(cuobjdump, "-sass").split("Function : ")[1:]:
        yield part.split(maxsplit=1)[0], part


def bound_of(name: str) -> Bound | None:
    return next((bound for bound in BOUNDS if re.search(bound.pattern, name)), None)


def test_every_kernel_keeps_its_bounds(resources: dict[str, dict[str, int]]) -> None:
    assert len(resources) > 100
    wrong = []
    for name, used in resources.items():
        bound, shared = bound_of(name), used["SHARED"] - SYSTEM_SHARED
        if bound is None:
            wrong.append(f"{name} has no row in BOUNDS: {used}")
        elif used["REG"] > bound.registers or used["STACK"] > bound.stack or shared > bound.shared or used["LOCAL"]:
            wrong.append(f"{name}: {used} is more than {bound}")
    assert not wrong, "\n".join(wrong)


def test_every_bound_has_a_kernel(resources: dict[str, dict[str, int]]) -> None:
    """A row that no kernel fits checks nothing."""
    used = Counter(bound.pattern for name in resources if (bound := bound_of(name)) is not None)
    assert not [bound.pattern for bound in BOUNDS if bound.pattern not in used]


def test_kernels_are_made_of_the_instructions_they_count_on(cuobjdump: str) -> None:
    missing = []
    for name, text in assembly(cuobjdump):
        bound = bound_of(name)
        for expression in () if bound is None else bound.instructions:
            if not re.search(expression, text):
                missing.append(f"{name} has no {expression}")
    assert not missing, "\n".join(missing)
