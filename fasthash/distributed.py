"""Collectives for losses over the global batch. The only importer of torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(rows: Tensor, group: Any) -> Tensor:
    """Concatenates rows [..., B_r, D] of all ranks along dimension -2, in rank order; B_r may differ between ranks.

    Every rank is expected to compute the same scalar from the result. The gradient that reaches a rank's rows is
    world_size times that of the single-process computation, so that the average that DistributedDataParallel takes
    over ranks is the exact gradient. It cannot be differentiated again (RuntimeError): a second derivative would need
    the other ranks' gradients.
    """
    gathered: Tensor = _GatherRows.apply(rows, group)  # type: ignore[no-untyped-call]
    return gathered


def rank(group: Any) -> int:
    """This process's rank in `group`."""
    return dist.get_rank(group)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        world = dist.get_world_size(group)
        mine = torch.tensor([rows.shape[-2]], dtype=torch.int64, device=rows.device)
        sizes = [torch.empty_like(mine) for _ in range(world)]
        dist.all_gather(sizes, mine, group=group)
        counts = [int(size) for size in sizes]
        # Collectives want equal shapes: rows come first, and short parts are padded.
        first = rows.movedim(-2, 0).contiguous()
        padded = first.new_zeros(max(counts), *first.shape[1:])
        padded[: len(first)] = first
        parts = [torch.empty_like(padded) for _ in range(world)]
        dist.all_gather(parts, padded, group=group)
        ctx.world, ctx.start, ctx.count = world, sum(counts[: dist.get_rank(group)]), len(first)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).movedim(0, -2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.narrow(-2, ctx.start, ctx.count) * ctx.world, None
