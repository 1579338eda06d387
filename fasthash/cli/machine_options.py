"""What can be typed for `fasthash bench` and `fasthash info`. Imports nothing heavy, as parser.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_bench(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash bench`. command: makes one, see `_command` of parser.py."""
    command(
        commands,
        "bench",
        "machine:bench",
        "check and time the kernels on this machine",
        """First compares each kernel with its definition in plain torch, then measures its time: the scan of
        hamming_topk, and kl_loss forward and backward compared with the same loss in torch. Takes some seconds on the
        CPU. The full benchmarks are in benchmarks/.""",
        "fasthash bench --json",
    )


def add_info(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash info`. command: makes one, see `_command` of parser.py."""
    command(
        commands,
        "info",
        "machine:info",
        "show what was built and what this machine can run",
        """Prints the version, the compiler, the CUDA architectures of the build, the instruction sets of the CPU and
        the one in use (FASTHASH_ISA selects one), threads, GPUs, and the versions of Python, torch and numpy.""",
        "fasthash info",
    )
