"""Gradients of expectations over Bernoulli bits, for logits of bits that a loss takes as 0 and 1.

A network gives logits phi [..., K]. Bits are drawn, P(b_k = 1) = s(phi_k), s the sigmoid. Rounding has no gradient, so
what is the gradient of E f(b)? Four estimators of it with one signature:

- `arm`, `disarm`: unbiased for any f, also one without a gradient. They compare f at two draws that depend on one
  another: two evaluations of f for each step. DisARM's variance is never above ARM's.
- `straight_through`, `gumbel`: biased. f must be differentiable; one evaluation.

Each is a function of (logits, f) that gives f of a draw. Its gradient in the logits is the estimate, and gradients of
other parameters inside f are those of f at that draw, as usual:

    loss = disarm(encoder(x), lambda bits: (decoder(bits) - x).square().sum(1)).mean()
    loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fasthash._arrays import dtype_name

__all__ = ["ESTIMATORS", "arm", "disarm", "gumbel", "straight_through"]

Costs = Callable[[Tensor], Tensor]
TEMPERATURE = 2 / 3  # of relaxed bits


def arm(logits: Tensor, f: Costs, *, generator: torch.Generator | None = None) -> Tensor:
    """Augment-REINFORCE-merge: with one uniform u_k for each bit,

        b1 = 1[u > s(-phi)],  b2 = 1[u < s(phi)],  dE/dphi_k ~ (f(b1) - f(b2)) (u_k - 1/2)

    Args:
        logits: phi, floating point [..., K].
        f: takes bits, 0 and 1, of the shape and type of the logits. It gives one number, or one for each row, [...]:
            the part of the loss that the bits of this row take part in. The other parts have no effect on the row's
            gradient but noise, so one for each row is better. Call f(b1) has gradients, call f(b2) has none.
        generator: of u; None: torch's global one.

    Returns f(b1). Raises TypeError for logits that are not floating point and for an f that cannot be called,
    ValueError for what f gives. A second derivative is an error.

    Source: Yin & Zhou, "ARM: Augment-REINFORCE-merge gradient for stochastic binary networks", ICLR 2019. How sure:
    read in public code.

    >>> logits = torch.zeros(5, 3, requires_grad=True)
    >>> arm(logits, lambda bits: (bits.sum(1) - 2).square()).mean().backward()
    >>> logits.grad.shape
    torch.Size([5, 3])
    """
    phi, u = _uniform("arm", logits, f, generator)
    first, second = (u > (-phi).sigmoid()).to(logits), (u < phi.sigmoid()).to(logits)
    return _two_evaluations("arm", logits, f, first, second, u - 0.5)


def disarm(logits: Tensor, f: Costs, *, generator: torch.Generator | None = None) -> Tensor:
    """DisARM, the mean of `arm` over all u that give the same two draws:

        dE/dphi_k ~ 1/2 (f(b1) - f(b2)) (-1)^b2_k 1[b1_k != b2_k] s(|phi_k|),  b1 and b2 as in `arm`

    Arguments, result and errors: those of `arm`. The variance of each bit's gradient is at most that of `arm`.

    Source: Dong, Mnih & Tucker, "DisARM: An antithetic gradient estimator for binary latent variables", NeurIPS 2020;
    the same as U2G of Yin et al. (2020). How sure: read in public code; that U2G is the same was checked by algebra.

    >>> logits = torch.zeros(5, 3, requires_grad=True)
    >>> disarm(logits, lambda bits: (bits.sum(1) > 1).float()).mean().backward()  # f has no gradient of its own
    >>> logits.grad.shape
    torch.Size([5, 3])
    """
    phi, u = _uniform("disarm", logits, f, generator)
    first, second = (u > (-phi).sigmoid()).to(logits), (u < phi.sigmoid()).to(logits)
    return _two_evaluations("disarm", logits, f, first, second, 0.5 * (first - second) * phi.abs().sigmoid())


def straight_through(logits: Tensor, f: Costs, *, generator: torch.Generator | None = None) -> Tensor:
    """f at drawn bits, whose gradient is taken for that of s(phi): biased, unless f is linear in each bit.

    Arguments, result and errors: those of `arm`, but f must be differentiable.

    Source: Bengio, Leonard & Courville, "Estimating or propagating gradients through stochastic neurons", 2013. How
    sure: from memory, high.

    >>> logits = torch.zeros(2, requires_grad=True)
    >>> straight_through(logits, lambda bits: bits.sum()).backward()
    >>> logits.grad
    tensor([0.2500, 0.2500])
    """
    _, u = _uniform("straight_through", logits, f, generator)
    p = logits.sigmoid()
    return _checked("straight_through", f((u < p).to(p) + (p - p.detach())), logits)


def gumbel(logits: Tensor, f: Costs, *, generator: torch.Generator | None = None) -> Tensor:
    """f at relaxed bits s((phi + log u - log(1 - u)) / T), T = 2/3, between 0 and 1: biased, low variance.

    Arguments, result and errors: those of `arm`, but f must be differentiable and take numbers between 0 and 1.

    Source: Maddison, Mnih & Teh, "The concrete distribution", and Jang, Gu & Poole, "Categorical reparameterization
    with Gumbel-softmax", both ICLR 2017. How sure: from memory, high; T = 2/3 is that of the former.

    >>> logits = torch.zeros(2, requires_grad=True)
    >>> gumbel(logits, lambda bits: bits.prod()).backward()
    >>> logits.grad.shape
    torch.Size([2])
    """
    _, u = _uniform("gumbel", logits, f, generator)
    noise = u.clamp(torch.finfo(u.dtype).tiny, 1 - torch.finfo(u.dtype).eps).logit()
    return _checked("gumbel", f(((logits + noise.to(logits)) / TEMPERATURE).sigmoid()), logits)


# By the names that `TextHasher(gradient=...)` knows.
ESTIMATORS: dict[str, Callable[..., Tensor]] = {
    "arm": arm,
    "disarm": disarm,
    "gumbel": gumbel,
    "straight_through": straight_through,
}


class _WithGradient(torch.autograd.Function):
    """costs [...] as they are, with `gradient` [..., K] as their gradient in the logits."""

    @staticmethod
    def forward(ctx: Any, costs: Tensor, logits: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return costs.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, out: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return out, out[..., None] * gradient, None


def _two_evaluations(name: str, logits: Tensor, f: Costs, first: Tensor, second: Tensor, direction: Tensor) -> Tensor:
    costs = _checked(name, f(first), logits)
    with torch.no_grad():
        difference = costs.detach() - _checked(name, f(second), logits)
        gradient = (difference[..., None] * direction).to(logits)
    carried: Tensor = _WithGradient.apply(costs, logits, gradient)  # type: ignore[no-untyped-call]
    return carried


def _uniform(name: str, logits: Tensor, f: Costs, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The logits without a gradient, and u of their shape: at least float32."""
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        got = dtype_name(logits) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"{name}: logits must be a floating-point tensor [..., K], got {got}")
    if logits.dim() < 1:
        raise ValueError(f"{name}: logits must have shape [..., K], got a single number")
    if not callable(f):
        raise TypeError(f"{name}: f must be a function of bits, got {type(f).__name__}")
    phi = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    return phi, torch.rand(phi.shape, dtype=phi.dtype, device=phi.device, generator=generator)


def _checked(name: str, costs: Any, logits: Tensor) -> Tensor:
    rows = logits.shape[:-1]
    if not isinstance(costs, Tensor) or costs.shape not in ((), rows) or not costs.is_floating_point():
        got = f"{dtype_name(costs)} {list(costs.shape)}" if isinstance(costs, Tensor) else type(costs).__name__
        wanted = f" or one for each row, {list(rows)}" if rows else ""
        raise ValueError(f"{name}: f must give one floating-point number{wanted}, got {got}")
    return costs
