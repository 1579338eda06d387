"""Losses over the global batch: several processes agree with one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import fasthash
from fasthash import _ops, distributed

WAIT = timedelta(seconds=60)
NAMES = ("kl", "koleo", "batches")
ROWS = {2: [5, 9], 4: [3, 1, 6, 4]}  # uneven parts, and a rank that could not have a neighbour of its own


def everything(world: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = sum(ROWS[world])
    z = torch.rand(rows, 6, generator=generator, dtype=torch.float64)
    return z, torch.rand(rows, 6, generator=generator, dtype=torch.float64)


def loss_of(name: str, z: torch.Tensor, target: torch.Tensor, group: Any) -> torch.Tensor:
    if name == "koleo":
        return fasthash.koleo_loss(z, group=group)
    if name == "batches":  # leading dimensions: two problems, of three columns each
        z, target = (t.unflatten(1, (2, 3)).movedim(1, 0) for t in (z, target))
        return fasthash.kl_loss(z, target, p=2, group=group).sum()
    return fasthash.kl_loss(z, target, k=2, group=group)


def worker(rank: int, world: int, where: str, folder: Path, backend: str) -> None:
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=world, timeout=WAIT)
    try:
        save_results(rank, world, folder, torch.device("cpu" if backend == "gloo" else f"cuda:{rank}"))
    finally:
        distributed.leave()


def save_results(rank: int, world: int, folder: Path, device: torch.device) -> None:
    z, target = (t.split(ROWS[world])[rank].to(device) for t in everything(world))
    results: dict[str, Any] = {}
    for name in NAMES:
        own, aims = z.clone().requires_grad_(), target.clone().requires_grad_()
        loss = loss_of(name, own, aims, dist.group.WORLD)
        loss.backward()
        results[name] = (loss.item(), own.grad.cpu(), None if aims.grad is None else aims.grad.cpu())
    own = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of("kl", own, target, dist.group.WORLD), own, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):  # no second derivatives that lack other ranks
        gradient.square().sum().backward()
    torch.manual_seed(0)  # one seed everywhere: the drawn targets must differ all the same
    results["drawn"] = fasthash.kl_loss(z, group=dist.group.WORLD).item()
    torch.save(results, folder / f"{rank}.pt")


def backend_missing(backend: str, world: int) -> str | None:
    if not dist.is_available():
        return "torch was built without torch.distributed"
    if backend == "gloo":
        return None if dist.is_gloo_available() else "torch was built without gloo"
    enough = dist.is_nccl_available() and torch.cuda.device_count() >= world and _ops.cuda_architectures()
    return None if enough else f"needs NCCL and {world} GPUs"


@pytest.mark.parametrize(("backend", "world"), [("gloo", 2), ("gloo", 4), ("nccl", 2)])
def test_ranks_agree_with_one_process(backend: str, world: int, tmp_path: Path) -> None:
    missing = backend_missing(backend, world)
    if missing is not None:
        pytest.skip(missing)
    where = f"file://{tmp_path / 'rendezvous'}"
    mp.start_processes(worker, args=(world, where, tmp_path, backend), nprocs=world, start_method="spawn")
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    z, target = everything(world)
    for name in NAMES:
        whole, aims = z.clone().requires_grad_(), target.clone().requires_grad_()
        loss = loss_of(name, whole, aims, None)
        loss.backward()
        for rank, part in enumerate(whole.grad.split(ROWS[world])):
            value, gradient, target_gradient = found[rank][name]
            assert value == pytest.approx(loss.item(), rel=1e-11)
            torch.testing.assert_close(gradient, world * part)
            if name != "koleo":
                torch.testing.assert_close(target_gradient, world * aims.grad.split(ROWS[world])[rank])
    assert len({found[rank]["drawn"] for rank in range(world)}) == 1
