"""Ranks that die or stop answering: the others get one clear error, by torch's own means.

Gloo notices at once that the process of another rank has ended. A rank that is silent, because its machine is gone or
it is stuck, is noticed when the timeout of the group is over. So that this can be short, ranks wait apart from it for
work that one of them does alone (`waiting`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_PATIENCE = timedelta(hours=1)  # for what one rank does alone: a score, a checkpoint, reading the data


class RankLostError(RuntimeError):
    """Another rank of the group has stopped, or cannot be reached."""


@contextlib.contextmanager
def rank_faults(group: Any, function: str, advice: Callable[[], str] = str) -> Iterator[None]:
    """Turns what torch raises where another rank does not answer into RankLostError. advice: what the message adds."""
    try:
        yield
    except RuntimeError as error:
        if group is None or not _is_of_exchange(error):
            raise
        said = str(error).split("] ", 1)[-1].partition(". ")[0].partition("\n")[0]
        raise RankLostError(
            f"{function}: rank {dist.get_rank(group)} of {dist.get_world_size(group)} stops, because another rank has "
            f"stopped or cannot be reached ({said}); the output of that rank says why{advice()}"
        ) from error


def _is_of_exchange(error: RuntimeError) -> bool:
    """Whether it is an error of the exchange between ranks: Gloo's are plain RuntimeErrors, which name its files."""
    return isinstance(error, getattr(dist, "DistError", ())) or "gloo" in str(error)


@contextlib.contextmanager
def waiting(group: Any) -> Iterator[Callable[[], None]]:
    """Gives a function that waits, for an hour at most, until all ranks of the group have called it.

    Where one rank works alone, the others call it: the timeout of the group is for answers, and would be too short. A
    rank that ends meanwhile is an error, at once. Does nothing for one process, without Gloo, and for a group of some
    ranks, whose own timeout counts.
    """
    if group is None or not dist.is_gloo_available() or dist.get_world_size(group) < dist.get_world_size():
        yield lambda: None
        return
    # A group of its own: NCCL has no such barrier, and in Gloo's a rank sends within the timeout of the group. Not for
    # some ranks: torch names a group that only they make by the number of groups there are, which may differ or repeat.
    beside = dist.new_group(timeout=_PATIENCE, backend="gloo")
    try:
        yield lambda: dist.monitored_barrier(beside, _PATIENCE)
    finally:
        dist.destroy_process_group(beside)
