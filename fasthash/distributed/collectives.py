"""What the ranks of a group tell each other: weights, gradients, and the rows of the global batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel


def broadcast(values: Iterable[Tensor], group: Any) -> None:
    """Gives tensors, in place, the values that they have on rank 0."""
    for value in values:
        dist.broadcast(value.detach(), dist.get_global_rank(group, 0), group=group)


def average_gradients(parameters: Iterable[nn.Parameter], group: Any) -> None:
    """Gives the gradients, in place, their mean over the ranks."""
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= dist.get_world_size(group)


def data_parallel(module: nn.Module, group: Any) -> nn.Module:
    """The module with rank 0's weights and buffers on all ranks, whose backward averages gradients over the ranks."""
    known = inspect.signature(DistributedDataParallel).parameters  # the setting was renamed in torch 2.12
    each_forward = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    settings: dict[str, Any] = {each_forward: False}
    return DistributedDataParallel(module, process_group=group, **settings)


def gather_rows(rows: Tensor, group: Any) -> Tensor:
    """Concatenates rows [..., B_r, D] of all ranks along dimension -2, in rank order; B_r may differ between ranks.

    Every rank is expected to compute the same scalar from the result. The gradient that reaches a rank's rows is
    world_size times that of the single-process computation, so that the average that DistributedDataParallel takes
    over ranks is the exact gradient. It cannot be differentiated again (RuntimeError): a second derivative would need
    the other ranks' gradients.
    """
    gathered: Tensor = _GatherRows.apply(rows, group)  # type: ignore[no-untyped-call]
    return gathered


def gather_batch(part: Tensor, group: Any) -> Tensor:
    """Concatenates parts [B_r, ...] of a batch, of any type, along dimension 0 in rank order, as `gather_rows` does."""
    if part.dtype == torch.bool:  # which no backend takes everywhere
        return gather_batch(part.to(torch.uint8), group).bool()
    rows = gather_rows(part.reshape(len(part), -1), group)
    return rows.reshape(-1, *part.shape[1:])


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
