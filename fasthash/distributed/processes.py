"""The processes of a run: how they find each other, and which of them this one is."""

from __future__ import annotations

import gc
import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_START = timedelta(minutes=10)  # for all processes to start


def join(timeout: float = 60.0) -> Any:
    """The group of all processes that torchrun started this one with (made where it is missing), None for one process.

    With NCCL for tensors on GPUs, where torch has it and there is a GPU for each process, and Gloo for all others.
    timeout: seconds that a rank waits for the answer of another one. After that it counts as lost.
    """
    if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    if not dist.is_initialized():
        enough = torch.cuda.is_available() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
        if enough:
            torch.cuda.set_device(local_rank())
        backend = "cpu:gloo,cuda:nccl" if enough and dist.is_nccl_available() else "gloo"
        from torch.distributed.rendezvous import rendezvous

        store, number, world = next(iter(rendezvous("env://", timeout=_START)))
        store.set(f"fasthash/{number}", "is here")  # a rank may start long after another: the timeout is for answers
        store.wait([f"fasthash/{other}" for other in range(world)], _START)
        answers = timedelta(seconds=timeout)
        dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=answers)
    return dist.group.WORLD


def leave() -> None:
    """Ends what `join` began. The caller keeps no reference to the group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()  # Gloo's threads end with the group; at work while Python ends, they can abort the process


def local_rank() -> int:
    """This process's number on its machine, as torchrun counts: 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def rank(group: Any) -> int:
    """This process's rank in `group`, 0 where that is None."""
    return 0 if group is None else dist.get_rank(group)


def global_rank(group: Any) -> int:
    """This process's rank among all processes, also where `group` holds some of them; 0 where that is None."""
    return 0 if group is None else dist.get_rank()


def world_size(group: Any) -> int:
    """Processes in `group`, 1 where that is None."""
    return 1 if group is None else dist.get_world_size(group)


def check_member(group: Any, function: str) -> None:
    """Raises ValueError where this process is not in `group`: its collectives would give what memory held before."""
    if dist.get_rank(group) < 0:
        raise ValueError(f"{function}: this process is not in the group; call it in the processes of the group only")
