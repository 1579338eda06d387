"""Ops over real-valued points: nearest neighbours, and the KL loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.derivatives import differentiable, differentiable_again, folded, one_by_one, plain, through
from fasthash._ops.registry import address, batched, call, define

# Nearest neighbours: x [L, N, D], y [1 or L, M, D] or None (the others of x); float32 or float64.


def _nearest_problem(x: Tensor, y: Tensor | None, p: int, k: int) -> _core.NearestProblem:
    batches, points, dims = x.shape
    if y is None:
        return _core.NearestProblem(address(x), 0, batches, points, points, dims, k, 0, p, kernel_dtype(x))
    count = y.shape[1]
    stride = count * dims if y.shape[0] == batches else 0
    return _core.NearestProblem(address(x), address(y), batches, points, count, dims, k, stride, p, kernel_dtype(x))


def kernel_dtype(x: Tensor) -> _core.Dtype:
    return _core.Dtype.float64 if x.dtype == torch.float64 else _core.Dtype.float32


def _nearest(x: Tensor, y: Tensor | None, p: int, k: int) -> tuple[Tensor, Tensor]:
    x, y = x.contiguous(), None if y is None else y.contiguous()
    distances, indices = _nearest_fake(x, y, p, k)
    problem = _nearest_problem(x, y, p, k)
    call(
        "nearest", x.device, problem, address(distances), address(indices),
        workspace=("nearest", problem, k),
    )  # fmt: skip
    return distances, indices


def _nearest_fake(x: Tensor, y: Tensor | None, p: int, k: int) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], k)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _nearest_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, distances: Tensor, indices: Tensor, p: int
) -> tuple[Tensor, Tensor]:
    x, y, grad = x.contiguous(), None if y is None else y.contiguous(), grad.contiguous()
    distances, indices = distances.contiguous(), indices.contiguous()
    grad_x, grad_y = _nearest_backward_fake(grad, x, y, distances, indices, p)
    k = distances.shape[-1]
    problem = _nearest_problem(x, y, p, k)
    call(
        "nearest_backward", x.device, problem, address(grad), address(distances), address(indices), k,
        address(grad_x), address(grad_y) if y is not None else 0,
        workspace=("nearest", problem, k),
    )  # fmt: skip
    return grad_x, grad_y


def _nearest_backward_fake(
    grad: Tensor, x: Tensor, y: Tensor | None, distances: Tensor, indices: Tensor, p: int
) -> tuple[Tensor, Tensor]:
    if y is None:
        return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(0)
    return x.new_empty(x.shape), x.new_empty(x.shape[0], *y.shape[1:])


def _nearest_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, ctx.p, _ = inputs
    ctx.save_for_backward(x, y, *output)
    ctx.mark_non_differentiable(output[1])


def _nearest_gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, y, distances, indices = ctx.saved_tensors
    if differentiable_again(grad):
        grads = through(lambda: _chosen_distances(x, y, indices, ctx.p), (x, y), grad)
        return grads[0], grads[1], None, None
    grad_x, grad_y = torch.ops.fasthash.nearest_backward(grad, x, y, distances, indices, ctx.p)
    if y is None:
        return grad_x, None, None, None
    return grad_x, grad_y.sum(0, keepdim=True) if y.shape[0] != x.shape[0] else grad_y, None, None


define("nearest(Tensor x, Tensor? y, int p, int k) -> (Tensor, Tensor)", _nearest, _nearest_fake)
define(
    "nearest_backward(Tensor grad, Tensor x, Tensor? y, Tensor distances, Tensor indices, int p) -> (Tensor, Tensor)",
    _nearest_backward,
    _nearest_backward_fake,
)


def _nearest_formula(x: Tensor, y: Tensor | None, p: int, k: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        indices = torch.ops.fasthash.nearest(plain(x), plain(y), p, k)[1]
    return _chosen_distances(x, y, indices, p), indices


differentiable("nearest", _nearest_setup, _nearest_gradient, _nearest_formula)
batched("nearest", folded("nearest"))
batched("nearest_backward", one_by_one("nearest_backward"))


# Where one fused gradient is not enough (derivatives.py): torch ops over the chosen neighbours, O((N + M) D) memory a
# neighbour.


def _chosen_distances(x: Tensor, y: Tensor | None, indices: Tensor, p: int) -> Tensor:
    """Distances [L, N, k] from the points to their chosen neighbours, as torch ops."""
    batches, points, k = indices.shape
    finite = x.isfinite().all(-1)[..., None, None]
    x, y = _marked(x), None if y is None else _marked(y)
    source = (x if y is None else y).expand(batches, -1, -1)
    rows = indices.reshape(batches, points * k, 1).expand(-1, -1, x.shape[-1])
    chosen = source.gather(1, rows).view(batches, points, k, -1)
    difference = x.unsqueeze(2) - torch.where(finite, chosen, chosen.detach())  # bad rows stay out of others' gradients
    if p == 1:
        return difference.abs().sum(-1)
    squared: Tensor = difference.square().sum(-1)
    zero = squared == 0
    return squared.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _marked(x: Tensor) -> Tensor:
    """The points, those of them with a NaN or an infinity all NaN, so that their own gradient is NaN."""
    return x * torch.where(x.isfinite().all(-1, keepdim=True), 1.0, math.nan).to(x.dtype)


# The KL loss: z [L, B, D], target [1 or L, M, D].


def _kl_loss(z: Tensor, target: Tensor, p: int, k: int, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    z, target = z.contiguous(), target.contiguous()
    outputs = _kl_loss_fake(z, target, p, k, eps)
    problem = _nearest_problem(z, target, p, k)
    call(
        "kl_loss", z.device, problem, eps, *map(address, outputs),
        workspace=("kl_loss", problem),
    )  # fmt: skip
    return outputs


def _kl_loss_fake(
    z: Tensor, target: Tensor, p: int, k: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = z.shape[:2]
    return (
        z.new_empty(z.shape[0]),
        z.new_empty(rows),
        z.new_empty(rows, dtype=torch.int64),
        z.new_empty(rows),
        z.new_empty(rows, dtype=torch.int64),
    )


def _kl_loss_backward(
    grad: Tensor, z: Tensor, target: Tensor, nu: Tensor, nu_index: Tensor, rho: Tensor, rho_index: Tensor,
    p: int, k: int, eps: float, target_wanted: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad, z, target = grad.contiguous(), z.contiguous(), target.contiguous()
    chosen = (nu.contiguous(), nu_index.contiguous(), rho.contiguous(), rho_index.contiguous())
    grad_z, grad_target = _kl_loss_backward_fake(grad, z, target, *chosen, p, k, eps, target_wanted)
    problem = _nearest_problem(z, target, p, k)
    call(
        "kl_loss_backward", z.device, problem, eps, address(grad), *map(address, chosen),
        address(grad_z), address(grad_target) if target_wanted else 0,
        workspace=("kl_loss", problem),
    )  # fmt: skip
    return grad_z, grad_target


def _kl_loss_backward_fake(
    grad: Tensor, z: Tensor, target: Tensor, nu: Tensor, nu_index: Tensor, rho: Tensor, rho_index: Tensor,
    p: int, k: int, eps: float, target_wanted: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad_target = z.new_empty(z.shape[0], *target.shape[1:]) if target_wanted else z.new_empty(0)
    return z.new_empty(z.shape), grad_target


def _kl_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, target, ctx.p, ctx.k, ctx.eps = inputs
    ctx.save_for_backward(z, target, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _kl_loss_gradient(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    z, target, nu, nu_index, rho, rho_index = ctx.saved_tensors
    if differentiable_again(grad):
        p, eps = ctx.p, ctx.eps
        grads = through(lambda: _kl_of_chosen(z, target, nu_index, rho_index, p, eps)[0], (z, target), grad)
        return *grads, None, None, None
    target_wanted = bool(ctx.needs_input_grad[1])
    grad_z, grad_target = torch.ops.fasthash.kl_loss_backward(
        grad, z, target, nu, nu_index, rho, rho_index, ctx.p, ctx.k, ctx.eps, target_wanted
    )
    if not target_wanted:
        return grad_z, None, None, None, None
    shared = target.shape[0] != z.shape[0]
    return grad_z, grad_target.sum(0, keepdim=True) if shared else grad_target, None, None, None


define(
    "kl_loss(Tensor z, Tensor target, int p, int k, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _kl_loss,
    _kl_loss_fake,
)
define(
    "kl_loss_backward(Tensor grad, Tensor z, Tensor target, Tensor nu, Tensor nu_index, Tensor rho, Tensor rho_index, "
    "int p, int k, float eps, bool target_wanted) -> (Tensor, Tensor)",
    _kl_loss_backward,
    _kl_loss_backward_fake,
)


def _kl_of_chosen(
    z: Tensor, target: Tensor, nu_index: Tensor, rho_index: Tensor, p: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss [L] and its distances nu and rho [L, B], as torch ops."""
    nu = _chosen_distances(z, target, nu_index.unsqueeze(-1), p).squeeze(-1)
    rho = _chosen_distances(z, None, rho_index.unsqueeze(-1), p).squeeze(-1)
    return ((nu + eps).log() - (rho + eps).log()).mean(1), nu, rho


def _kl_loss_formula(
    z: Tensor, target: Tensor, p: int, k: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    with torch.no_grad():
        _, _, nu_index, _, rho_index = torch.ops.fasthash.kl_loss(plain(z), plain(target), p, k, eps)
    loss, nu, rho = _kl_of_chosen(z, target, nu_index, rho_index, p, eps)
    return loss, nu, nu_index, rho, rho_index


differentiable("kl_loss", _kl_loss_setup, _kl_loss_gradient, _kl_loss_formula)
batched("kl_loss", folded("kl_loss"))
batched("kl_loss_backward", one_by_one("kl_loss_backward"))
