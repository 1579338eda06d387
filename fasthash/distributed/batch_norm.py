"""Batch norm over the rows of all ranks, for every device.

Ours, because torch's SyncBatchNorm refuses tensors on the CPU in training (ValueError in torch 2.13), and because its
converter replaces layers of the user's module, which here is afterwards what it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def synced_batch_norms(module: nn.Module, group: Any) -> Iterator[None]:
    """Inside, batch norms of `module` take their statistics in training from all ranks' rows, on CPUs too.

    Layers that are SyncBatchNorm already are left alone. Nothing happens where group is None.
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
