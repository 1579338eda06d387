"""Losses over the rows of some ranks: values and gradients of one process that has these rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from rank_cases import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fasthash

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch has no gloo")

PARTS = [[0, 3], [1, 2]]  # ranks of each group
ROWS = [4, 7, 5, 1]  # of each rank: the last one has no neighbour of its own
LOSSES = {
    "kl": lambda z, target, group: fasthash.kl_loss(z, target, k=2, group=group),
    "kl, p=2": lambda z, target, group: fasthash.kl_loss(z, target, p=2, group=group),
    "koleo": lambda z, target, group: fasthash.koleo_loss(z, group=group),
    "koleo, p=1": lambda z, target, group: fasthash.koleo_loss(z, p=1, k=2, normalize=False, group=group),
}


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(sum(ROWS), 6, generator=generator, dtype=torch.float64)
    return z, torch.rand(sum(ROWS), 6, generator=generator, dtype=torch.float64)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 4, dtype=torch.float64)


def some(rank: int, world: int) -> dict[str, Any]:
    groups = [dist.new_group(part) for part in PARTS]
    mine = next(number for number, part in enumerate(PARTS) if rank in part)
    group, other = groups[mine], groups[1 - mine]
    z, target = (values.split(ROWS)[rank] for values in rows())
    found: dict[str, Any] = {}
    for name, loss_of in LOSSES.items():
        own, aims = z.clone().requires_grad_(), target.clone().requires_grad_()
        loss = loss_of(own, aims, group)
        loss.backward()
        found[name] = loss.item(), own.grad, aims.grad
    trained = DistributedDataParallel(layer())  # over all ranks
    fasthash.kl_loss(trained(z), trained(target), group=group).backward()
    found["average"] = trained.module.weight.grad
    torch.manual_seed(1)  # on all ranks
    found["drawn"] = fasthash.kl_loss(torch.ones(40, 8), group=group).item()  # by the targets alone
    for name, loss_of in LOSSES.items():
        with pytest.raises(ValueError, match=r"_loss: this process is not in the group") as caught:
            loss_of(z, target, other)
        found[f"{name}, other"] = str(caught.value).split(":")[0]
    return found


def test_neighbours_among_the_ranks_of_a_group(tmp_path: Path) -> None:
    found = run_ranks(4, tmp_path / "4", some)
    z, target = rows()
    for part in PARTS:
        chosen = torch.cat([torch.arange(sum(ROWS)).split(ROWS)[rank] for rank in part])
        for name, loss_of in LOSSES.items():
            whole, aims = (values[chosen].clone().requires_grad_() for values in (z, target))
            loss = loss_of(whole, aims, None)
            loss.backward()
            counts = [ROWS[rank] for rank in part]
            for place, rank in enumerate(part):
                value, gradient, target_gradient = found[rank][name]
                assert value == pytest.approx(loss.item(), rel=1e-11)
                torch.testing.assert_close(gradient, len(part) * whole.grad.split(counts)[place])
                if aims.grad is not None:
                    torch.testing.assert_close(target_gradient, len(part) * aims.grad.split(counts)[place])
    for name in LOSSES:
        assert {result[f"{name}, other"] for result in found} == {f"{name[: 2 if 'kl' in name else 5]}_loss"}


def test_averages_of_all_ranks_are_the_gradient_of_the_mean_over_groups(tmp_path: Path) -> None:
    found = run_ranks(4, tmp_path / "4", some)
    z, target = rows()
    alone = layer()
    for part in PARTS:
        chosen = torch.cat([torch.arange(sum(ROWS)).split(ROWS)[rank] for rank in part])
        (fasthash.kl_loss(alone(z[chosen]), alone(target[chosen])) / len(PARTS)).backward()
    for result in found:
        torch.testing.assert_close(result["average"], alone.weight.grad)
    drawn = [found[rank]["drawn"] for part in PARTS for rank in part]
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]  # with one seed, each group draws its own
