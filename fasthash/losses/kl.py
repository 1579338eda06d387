"""The KL loss: outputs close to a nearly binary distribution lose nothing when they are rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import number
from fasthash._directions import unless_all_zero
from fasthash.distributed import check_member, gather_rows, global_rank
from fasthash.neighbors import check_k, check_norm, check_points, flatten

_RANK_STEP = 0x1E3779B97F4A7C15  # between the seeds of ranks, which may all have one torch seed


def kl_loss(
    z: Tensor,
    target: Tensor | Distribution | None = None,
    *,
    p: int = 1,
    k: int = 1,
    eps: float = 1e-2,
    group: Any = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Nearest-neighbour loss that draws the distribution of z towards that of the target.

    mean over b of log(nu_k(b) + eps) - log(rho_k(b) + eps). nu_k(b) is the distance from z_b to its k-th nearest row of
    the target, rho_k(b) its distance to its k-th nearest other row of z (Arponen & Bishop, "Learning to hash with
    semantic similarity metrics and empirical KL divergence", 2020; the estimate without its constants is that of Wang,
    Kulkarni & Verdu 2009). In high D it is a training signal, not the value of a KL divergence; `kl_divergence` gives
    the statistical estimate.

    Args:
        z: outputs [..., B, D], floating point, B >= 2. Leading dimensions are independent problems.
        target: a tensor [..., M, D], with leading dimensions that broadcast to those of z; it gets a gradient if it
            requires one. Or a Distribution with a batch + event shape that broadcasts to [D], sampled to M = B on every
            call. Or None: independent Beta(0.1, 0.1) for each bit, M = B, nearly all mass near 0 and 1.
        p: 1 Manhattan, 2 Euclidean.
        k: which neighbour, 1 to min(B - 1, M, 64).
        eps: >= 0, in units of distance; bounds a row's gradient, which grows as 1 / rho on clustered codes.
        group: a torch.distributed process group. Every rank returns the mean over the rows of all ranks in the group.
            Its gradient is that of its rows, times the number of ranks in the group, so DDP's average is exact. A
            target tensor is each rank's part; each rank draws its own samples, and they are gathered. B may differ
            between ranks. A group of some ranks (torch.distributed.new_subgroups) looks for neighbours among their rows
            only; DDP's average over all ranks is then the gradient of the mean over groups of equal size.
        generator: for target=None in eager mode: it draws the seed of the samples.

    Returns:
        float32 (float64 for float64 inputs), shape z.shape[:-2]. Deterministic for one device. Memory O((B + M) D).

        Coincident points have gradient zero, and so has a z that is 0 everywhere. With eps = 0, coincident points make
            the loss infinite or NaN. A row with a NaN or an infinity makes the loss and the row's own gradient NaN;
            other rows do not change. A distance that the type cannot hold counts as infinite (p = 2 squares
            differences: from 1e19 on in float32).
        the loss infinite or NaN. A row with a NaN or an
        infinity makes the loss and the row's own gradient NaN; other rows get nothing from it. A distance that the type
        cannot hold counts as infinite (p = 2 squares differences: from 1e19 on in float32).

        Forward mode, torch.func's transforms and second derivatives work, by torch ops over the chosen neighbours; with
            `group` a second derivative is refused.
        with `group` a second derivative is refused.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    Equivalent to, with memory O(B M):

        nu = torch.cdist(z, target, p=1).topk(k, largest=False).values[..., -1]
        rho = torch.cdist(z, z, p=1).topk(k + 1, largest=False).values[..., -1]
        ((nu + eps).log() - (rho + eps).log()).mean(-1)

    >>> import torch
    >>> z = torch.rand(128, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    >>> loss = kl_loss(z, generator=torch.Generator().manual_seed(1))
    >>> loss.backward()
    >>> loss.item() > 0, tuple(z.grad.shape)
    (True, (128, 32))
    """
    if not isinstance(z, Tensor):
        raise TypeError(f"kl_loss: z must be a tensor, got {type(z).__name__}")
    if generator is not None and (target is not None or torch.compiler.is_compiling()):
        raise ValueError("kl_loss: generator must be None, except for target=None in eager mode")
    if group is not None:
        check_member(group, "kl_loss")
    points = check_points("kl_loss", "z", z)
    if points.shape[-2] < 2 and group is None:
        raise ValueError(f"kl_loss: z must have at least 2 rows, got {points.shape[-2]}")
    p = check_norm("kl_loss", p)
    eps = number(eps, "kl_loss", "eps", least=0)
    samples = _samples(points, target, group, generator)
    points = unless_all_zero(points)
    if group is not None:
        points, samples = gather_rows(points, group), gather_rows(samples, group)
    k = check_k("kl_loss", k, min(points.shape[-2] - 1, samples.shape[-2]))
    batch, flat, flat_samples = flatten("kl_loss", points, samples)
    loss: Tensor = torch.ops.fasthash.kl_loss(flat, flat_samples, p, k, eps)[0]
    return loss.view(batch)


class KLLoss(nn.Module):
    """`kl_loss` with its settings, as a module: forward(z, target=None) -> Tensor of shape z.shape[:-2].

    >>> import torch
    >>> KLLoss(k=3)(torch.rand(64, 16)).shape
    torch.Size([])
    """

    def __init__(self, *, p: int = 1, k: int = 1, eps: float = 1e-2, group: Any = None) -> None:
        super().__init__()
        self.p, self.k, self.eps, self.group = p, k, eps, group

    def forward(self, z: Tensor, target: Tensor | Distribution | None = None) -> Tensor:
        return kl_loss(z, target, p=self.p, k=self.k, eps=self.eps, group=self.group)

    def extra_repr(self) -> str:
        return f"p={self.p}, k={self.k}, eps={self.eps}"


def _samples(z: Tensor, target: Tensor | Distribution | None, group: Any, generator: torch.Generator | None) -> Tensor:
    """Samples [..., M, D] of the target."""
    if target is None:
        return _beta_samples(z, group, generator)
    if isinstance(target, Tensor):
        return check_points("kl_loss", "target", target)
    if isinstance(target, Distribution):
        return _distribution_samples(z, target)
    raise TypeError(f"kl_loss: target must be a tensor, a Distribution or None, got {type(target).__name__}")


def _beta_samples(z: Tensor, group: Any, generator: torch.Generator | None) -> Tensor:
    limits = torch.iinfo(torch.int64)
    seed = torch.randint(limits.min, limits.max, (1,), dtype=torch.int64, device=z.device, generator=generator)
    if group is not None:
        seed = seed ^ (global_rank(group) * _RANK_STEP & limits.max)
    samples: Tensor = torch.ops.fasthash.beta_sample(seed, z.numel())
    return samples.view(z.shape).to(z.dtype)


def _distribution_samples(z: Tensor, target: Distribution) -> Tensor:
    dims = z.shape[-1]
    shape = (*target.batch_shape, *target.event_shape)
    try:
        # Independent draws for each bit, not one draw repeated: expand the distribution, then sample.
        event = len(target.event_shape)
        expanded = target.expand(torch.Size((dims,)[: 1 - event] if event <= 1 else ()))
        samples: Tensor = expanded.sample(z.shape[:-1])
        if samples.shape != z.shape:
            raise ValueError
    except (ValueError, RuntimeError):
        raise ValueError(
            f"kl_loss: target's batch + event shape must broadcast to [{dims}], got {tuple(shape)}"
        ) from None
    if samples.device != z.device:
        raise ValueError(f"kl_loss: target must be on the device of z, {z.device}, got {samples.device}")
    return samples.to(z.dtype)
