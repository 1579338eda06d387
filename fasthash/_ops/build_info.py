"""What was built, and which instruction set of it runs."""

from __future__ import annotations

from fasthash import _core

_core.isa_chosen()  # a FASTHASH_ISA that names nothing available is an error now, not at the first search


def cuda_architectures() -> list[str]:
    """The CUDA architectures that were built; [] for a CPU-only build."""
    return _core.cuda_architectures.split()


def compiler() -> str:
    """Name and version of the compiler that built the kernels."""
    return _core.compiler


def isa_names() -> list[str]:
    """Instruction sets that this machine can run, the preferred one last."""
    return _core.isa_names()


def isa_chosen() -> str:
    """The instruction set in use."""
    return _core.isa_chosen()


def set_isa(name: str) -> None:
    """For tests: replaces the instruction set in use; "" returns to the best."""
    _core.isa_force(name)
