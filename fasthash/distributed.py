"""Several processes: collectives, and losses over the global batch. The only importer of torch.distributed."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

# ---- processes


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


def share(values: Iterable[Tensor], group: Any) -> None:
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


# ---- the global batch


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


@contextlib.contextmanager
def synced_batch_norms(module: nn.Module, group: Any) -> Iterator[None]:
    """Inside, batch norms of `module` take their statistics in training from all ranks' rows, on CPUs too.

    torch's own SyncBatchNorm is for GPUs only; layers that are one already are left alone. Nothing happens where group
    is None.
    """
    norms: list[nn.Module] = []
    if group is not None:
        norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and not isinstance(m, nn.SyncBatchNorm)]
    for norm in norms:
        norm.__dict__["forward"] = _SyncedForward(norm, group)
    try:
        yield
    finally:
        for norm in norms:
            del norm.__dict__["forward"]


class _SyncedForward:
    """The forward of a batch norm over the rows of all ranks. x [B, C] or [B, C, ...]."""

    def __init__(self, norm: Any, group: Any) -> None:
        self.norm, self.group = norm, group

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if not (norm.training or norm.running_mean is None):
            result: Tensor = type(norm).forward(norm, x)
            return result
        wide = x if x.dtype == torch.float64 else x.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.dim())]
        rows = wide.new_tensor([x.numel() // x.shape[1]])
        sums: Tensor = _SumOverRanks.apply(torch.cat([wide.sum(dims), rows]), self.group)  # type: ignore[no-untyped-call]
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        squares: Tensor = _SumOverRanks.apply(centred.square().sum(dims), self.group)  # type: ignore[no-untyped-call]
        variance = squares / count
        if norm.running_mean is not None:
            norm.num_batches_tracked += 1
            momentum = 1 / norm.num_batches_tracked.float() if norm.momentum is None else norm.momentum
            unbiased = variance.detach() * (count / (count - 1))
            norm.running_mean += momentum * (mean.detach() - norm.running_mean)
            norm.running_var += momentum * (unbiased - norm.running_var)
        normal = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
        result = normal.to(x.dtype)
        return result


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = values.detach().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


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
