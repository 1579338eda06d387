"""The processes of a run: how they find each other, and which of them this one is."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch
import torch.distributed as dist


def join() -> Any:
    """The group of all processes that torchrun started this one with (made where it is missing), None for one process.

    With NCCL for tensors on GPUs, where torch has it and there is a GPU for each process, and Gloo for all others.
    """
    if not dist.is_available() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    if not dist.is_initialized():
        enough = torch.cuda.is_available() and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count()
        if enough:
            torch.cuda.set_device(local_rank())
        dist.init_process_group("cpu:gloo,cuda:nccl" if enough and dist.is_nccl_available() else "gloo")
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


def world_size(group: Any) -> int:
    """Processes in `group`, 1 where that is None."""
    return 1 if group is None else dist.get_world_size(group)
