"""The instruction sets of csrc/core/isa.def and the families of kernels that have a file for each of them.

python tests/instruction_sets.py x86_64          prints, for each set of that processor, its name and its flags
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
ENTRY = re.compile(r'^FH_ISA\((\w+), (\w+), (\w+), "([^"]*)",\s*((?:FH_NEEDS\([\w.]+\)\s*)*)\)$', re.M)


@dataclass(frozen=True)
class InstructionSet:
    name: str
    table: str  # the last part of its tables' names
    processor: str  # any, x86_64 or aarch64
    further_flags: tuple[str, ...]
    needs: tuple[str, ...]  # features of the processor

    @property
    def flags(self) -> list[str]:
        return [*(f"-m{feature}" for feature in self.needs), *self.further_flags]


def instruction_sets(processor: str | None = None) -> list[InstructionSet]:
    """All sets, or those that a processor may run, the preferred one last."""
    text = (CSRC / "core" / "isa.def").read_text()
    sets = [
        InstructionSet(name, table, where, tuple(further.split()), tuple(re.findall(r"FH_NEEDS\(([\w.]+)\)", needs)))
        for name, table, where, further, needs in ENTRY.findall(text)
    ]
    assert len(sets) == len(re.findall(r"^FH_ISA\(", text, re.M)), "isa.def: an entry is not written like the others"
    return [one for one in sets if processor is None or one.processor in ("any", processor)]


def families() -> list[Path]:
    """csrc/<op>/isa/<family>, the files' names without _<set>.cpp: every family has plain C++."""
    return [path.with_name(path.stem.removesuffix("_scalar")) for path in sorted(CSRC.glob("*/isa/*_scalar.cpp"))]


if __name__ == "__main__":
    for one in instruction_sets(sys.argv[1]):
        print(one.name, *one.flags)
