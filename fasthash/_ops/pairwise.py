"""The op of the similarity losses: Manhattan distances between all rows of z [B, D]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.derivatives import differentiable, differentiable_again, one_by_one, through
from fasthash._ops.neighbors import kernel_dtype
from fasthash._ops.registry import address, batched, call, define


def _pairwise_problem(z: Tensor) -> _core.PairwiseProblem:
    return _core.PairwiseProblem(address(z), z.shape[0], z.shape[1], kernel_dtype(z))


def _pairwise_l1(z: Tensor) -> Tensor:
    z = z.contiguous()
    distances = _pairwise_l1_fake(z)
    call("pairwise_l1", z.device, _pairwise_problem(z), address(distances))
    return distances


def _pairwise_l1_fake(z: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], z.shape[0])


def _pairwise_l1_backward(grad: Tensor, z: Tensor) -> Tensor:
    grad, z = grad.contiguous(), z.contiguous()
    grad_z = _pairwise_l1_backward_fake(grad, z)
    call("pairwise_l1_backward", z.device, _pairwise_problem(z), address(grad), address(grad_z))
    return grad_z


def _pairwise_l1_backward_fake(grad: Tensor, z: Tensor) -> Tensor:
    return z.new_empty(z.shape)


def _pairwise_l1_setup(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _pairwise_l1_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None]:
    (z,) = ctx.saved_tensors
    if differentiable_again(grad):
        return (through(lambda: _pairwise_l1_formula(z), (z,), grad)[0],)
    return (torch.ops.fasthash.pairwise_l1_backward(grad, z),)


def _pairwise_l1_formula(z: Tensor) -> Tensor:
    return (z.unsqueeze(1) - z.unsqueeze(0)).abs().sum(-1)


define("pairwise_l1(Tensor z) -> Tensor", _pairwise_l1, _pairwise_l1_fake)
define("pairwise_l1_backward(Tensor grad, Tensor z) -> Tensor", _pairwise_l1_backward, _pairwise_l1_backward_fake)
differentiable("pairwise_l1", _pairwise_l1_setup, _pairwise_l1_gradient, _pairwise_l1_formula)
batched("pairwise_l1", one_by_one("pairwise_l1"))
batched("pairwise_l1_backward", one_by_one("pairwise_l1_backward"))
