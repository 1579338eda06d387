"""Runs functions in several processes with a Gloo group, without importing torch anew in each."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fasthash import distributed

Work = Callable[[int, int], Any]  # of rank and number of ranks
STARTS = "spawn" if torch.cuda.is_available() else "fork"  # autograd refuses to run in a fork beside CUDA


def run_ranks(world: int, folder: Path, work: Work, *, timeout: float = 60.0, dies: int | None = None) -> list[Any]:
    """What `work` gives on each rank, or its error as a text. dies: a rank that ends without either."""
    importlib.import_module("torch._dynamo")  # DistributedDataParallel imports it: once here, and not in each fork
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context(STARTS)
    processes = [context.Process(target=_rank, args=(rank, world, folder, work, timeout)) for rank in range(world)]
    for process in processes:
        process.start()
    for rank, process in enumerate(processes):
        if rank != dies:
            process.join(120)
    left = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    assert left in ([], [dies]), f"ranks {left} did not end"
    return [torch.load(file) if (file := folder / f"{rank}.pt").exists() else None for rank in range(world)]


def _rank(rank: int, world: int, folder: Path, work: Work, timeout: float) -> None:
    torch.set_num_threads(1)
    if world > 1:
        where = f"file://{folder / 'rendezvous'}"
        limit = timedelta(seconds=timeout)
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world, timeout=limit)
    try:
        result = work(rank, world)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    torch.save(result, folder / f"{rank}.pt")
    if world > 1:
        distributed.leave()


def everyone() -> Any:
    """The group of all ranks; None for one."""
    return dist.group.WORLD if dist.is_initialized() else None
