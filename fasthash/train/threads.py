"""How many of torch's threads a step or a block of outputs uses on a CPU, and how they wait for one another.

torch's CPU wheels use GNU OpenMP. After each parallel loop its threads spin for milliseconds, and a loop ends only with
its last thread. Where another process or a thread of ours needs a core, a loop of microseconds takes milliseconds.
benchmarks/bench_busy.py measures fits on all threads against one. Hence:

- `threads_for`: one thread for each 20 milliseconds of work (of one core), so that small steps use one. The number
  follows from sizes, never from times: the same data and settings always use as many threads.
- `own_threads`: that number, for the calling thread alone, for a while.
- `short_waits`: where several threads are used, they sleep soon instead of spinning, for a while.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

# Operations for which another thread is worth while: about 20 milliseconds of one core (AVX-512, 2.5 GHz).
EACH = 1_500_000_000
PAIR = 1_500  # operations that take the time of the losses of one pair of rows, measured at 64 bits
LOOP = 1 << 16  # elements of a torch operation that surely is a parallel loop

_state = threading.local()


def forward_operations(module: nn.Module, x: Tensor) -> int | None:
    """Multiplications and additions of module(x), or None where the sizes do not tell.

    They tell for x [B, F] and a module whose matrices are all those of linear layers, each used once a row.

    >>> forward_operations(nn.Linear(8, 4), torch.zeros(10, 8))
    640
    """
    if x.dim() != 2:
        return None
    weights = 0
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if parameter.dim() >= 2:
                if not isinstance(part, nn.Linear):
                    return None
                weights += parameter.numel()
    return 2 * len(x) * weights


def step_operations(module: nn.Module, objective: object, x: Tensor) -> int | None:
    """Operations of a training step on the batch x: forward, backward and losses; None where the sizes do not tell.

    >>> step_operations(nn.Linear(8, 4), None, torch.zeros(10, 8))
    151920
    """
    forward = forward_operations(module, x)
    if forward is None:
        return None
    if isinstance(objective, nn.Module):
        forward += 2 * len(x) * sum(p.numel() for p in objective.parameters() if p.dim() >= 2)
    return 3 * forward + PAIR * len(x) ** 2


def threads_for(operations: int | None, most: int) -> int:
    """How many of `most` threads to use for so many operations; all where that is not known.

    >>> [threads_for(operations, 8) for operations in (1_000, 2_000_000_000, 10**12, None)]
    [1, 2, 8, 8]
    """
    return most if operations is None else min(most, 1 + operations // EACH)


@contextlib.contextmanager
def own_threads(count: int) -> Iterator[None]:
    """torch uses `count` threads for what the calling thread does inside; other threads keep their number.

    torch.set_num_threads sets the number of the calling thread, and the number with which every thread starts that uses
    torch for the first time. The latter is set back at once, from a thread that is started for that.
    """
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    with ThreadPoolExecutor(1) as other:
        common = other.submit(torch.get_num_threads).result()

        def use(threads: int) -> None:
            torch.set_num_threads(threads)
            other.submit(torch.set_num_threads, common).result()

        use(count)
        try:
            yield
        finally:
            use(before)


@contextlib.contextmanager
def short_waits() -> Iterator[None]:
    """OpenMP's threads sleep after a microsecond of waiting inside, instead of spinning for milliseconds.

    GNU OpenMP does so by itself while its threads are more than the processors ("throttled spinning" in libgomp's
    env.c). So a few threads of its own are started, which sleep until the end: one more than processors are left. Does
    nothing with one thread, where more processors are left than threads are used (torch's default is a thread for each
    core), with another OpenMP, or where the environment says how to wait (GOMP_SPINCOUNT, OMP_WAIT_POLICY). Results are
    the same. One inside another starts what is missing for its number of threads.
    """
    threads, asleep = torch.get_num_threads(), getattr(_state, "asleep", 0)
    left = len(os.sched_getaffinity(0)) - threads if threads > 1 and _spins() else -1
    missing = left + 1 - asleep
    if missing < 1 or left > threads:
        yield
        return
    started, done = threading.Event(), threading.Event()
    _state.asleep = asleep + missing
    try:
        with ThreadPoolExecutor(1) as other:
            other.submit(_sleep, missing, started, done)
            started.wait()
            try:
                yield
            finally:
                done.set()
    finally:
        _state.asleep = asleep


def _sleep(count: int, started: threading.Event, done: threading.Event) -> None:
    """Starts `count` threads of OpenMP, which sleep; they end with the thread that calls this."""
    try:
        with own_threads(count + 1):
            torch.zeros(LOOP).add_(1)  # this loop starts them, and they stay
    finally:
        started.set()
    done.wait()


@lru_cache(1)
def _spins() -> bool:
    """Whether OpenMP is GNU's, and spins as it does by itself."""
    if not sys.platform.startswith("linux") or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return False
    try:
        return "libgomp" in Path("/proc/self/maps").read_text()
    except OSError:
        return False
