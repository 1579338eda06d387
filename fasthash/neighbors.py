"""Exact nearest neighbours between real-valued points, and two estimates made of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import shown, whole
from fasthash._arrays import dtype_name, like, to_tensor

MAX_NEIGHBORS = 64


class Neighbors(NamedTuple):
    """Distances [..., N, k] ascending and indices int64 [..., N, k]: tensors, or numpy arrays if the points were."""

    distances: Any
    indices: Any


def nearest(x: Any, y: Any = None, *, p: int = 2, k: int = 1) -> Neighbors:
    """Finds for each row of x the k nearest rows of y, or the k nearest other rows of x.

    Args:
        x: points [..., N, D], floating point, tensor or numpy array. Leading dimensions are independent problems.
        y: candidates [..., M, D], leading dimensions broadcastable to those of x; None: the other rows of x.
        p: 1 Manhattan, 2 Euclidean.
        k: 1 to 64, at most M (N - 1 if y is None).

    Returns:
        Distances [..., N, k], ascending, float32 (float64 for float64 points), differentiable in x and y; and indices
            int64 [..., N, k]. Ties of the computed distances go to the lowest index; NaN distances come last. Distances
            are sums of differences, never |x|^2 + |y|^2 - 2 x.y, so clustered points keep their neighbours. A distance
            that the type cannot hold is infinite (p = 2 squares differences: from 1e19 on in float32). Coincident
            points have gradient zero; if a distance is not finite the point's own gradient is NaN, its neighbour's
            zero.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    Equivalent to `torch.cdist(x, y, p=p).sort(stable=True)`, cut to k columns, without the N x M matrix.

    >>> import torch
    >>> points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    >>> found = nearest(points)
    >>> found.indices.flatten().tolist(), found.distances.flatten().tolist()[0]
    ([2, 2, 0], 1.0)
    """
    points = check_points("nearest", "x", to_tensor(x, "nearest", "x"))
    candidates = None if y is None else check_points("nearest", "y", to_tensor(y, "nearest", "y"))
    batch, flat, flat_candidates = flatten("nearest", points, candidates)
    p = check_norm("nearest", p)
    k = check_k("nearest", k, points.shape[-2] - 1 if candidates is None else candidates.shape[-2])
    distances, indices = torch.ops.fasthash.nearest(flat, flat_candidates, p, k)
    shape = (*batch, points.shape[-2], k)
    return Neighbors(like(distances.view(shape), x), like(indices.view(shape), x))


def kl_divergence(x: Any, y: Any, *, p: int = 2, k: int = 1) -> Any:
    """Estimates the KL divergence, in nats, of the distribution of x from that of y, from samples of both.

    (D / n) sum_i log(nu_k(i) / rho_k(i)) + log(m / (n - 1)). nu_k(i) is the distance of x_i to its k-th nearest row of
    y, and rho_k(i) its distance to its k-th nearest other row of x (Wang, Kulkarni & Verdu, "Divergence estimation for
    multidimensional densities via k-nearest-neighbor distances", IEEE Trans. Inf. Theory 2009). Consistent for
    continuous distributions; duplicated points make it infinite or NaN. In high dimensions (beyond about 5 for a few
    thousand samples) it is a training signal rather than a value.

    Args:
        x: samples [..., n, D], n >= 2. y: samples [..., m, D]. p: 1 or 2. k: 1 to min(n - 1, m, 64).

    Returns:
        The estimate, shape x.shape[:-2], differentiable.

    >>> import torch
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(4000, 1, generator=generator)
    >>> y = 2.0 * torch.randn(4000, 1, generator=generator)
    >>> abs(kl_divergence(x, y, k=5).item() - (math.log(2) - 3 / 8)) < 0.05
    True
    """
    points = check_points("kl_divergence", "x", to_tensor(x, "kl_divergence", "x"))
    candidates = check_points("kl_divergence", "y", to_tensor(y, "kl_divergence", "y"))
    n, dims, m = points.shape[-2], points.shape[-1], candidates.shape[-2]
    p, k = check_norm("kl_divergence", p), check_k("kl_divergence", k, min(n - 1, m))
    flatten("kl_divergence", points, candidates)  # its checks, under this name
    nu = nearest(points, candidates, p=p, k=k).distances[..., -1]
    rho = nearest(points, p=p, k=k).distances[..., -1]
    return like(dims * (nu.log() - rho.log()).mean(-1) + math.log(m / (n - 1)), x)


def entropy(x: Any, *, p: int = 2, k: int = 1) -> Any:
    """Estimates the differential entropy, in nats, of the distribution that x was drawn from.

    (D / n) sum_i log rho_k(i) + log V_p + psi(n) - psi(k). rho_k(i) is the distance of x_i to its k-th nearest other
    row, and V_p the volume of the unit ball: V_2 = pi^(D/2) / Gamma(D/2 + 1), V_1 = 2^D / D! (Kozachenko & Leonenko
    1987; Kraskov et al. 2004 for k). Duplicated points make it -inf.

    Args:
        x: samples [..., n, D], n >= 2. p: 1 or 2. k: 1 to min(n - 1, 64).

    Returns:
        The estimate, shape x.shape[:-2], differentiable.

    >>> import torch
    >>> x = torch.rand(4000, 1, generator=torch.Generator().manual_seed(0))
    >>> abs(entropy(x, k=3).item()) < 0.05
    True
    """
    points = check_points("entropy", "x", to_tensor(x, "entropy", "x"))
    n, dims = points.shape[-2], points.shape[-1]
    p, k = check_norm("entropy", p), check_k("entropy", k, n - 1)
    rho = nearest(points, p=p, k=k).distances[..., -1]
    if p == 2:
        log_volume = dims / 2 * math.log(math.pi) - math.lgamma(dims / 2 + 1)
    else:
        log_volume = dims * math.log(2) - math.lgamma(dims + 1)
    psi = torch.tensor([n, k], dtype=torch.float64, device="cpu").digamma()
    return like(dims * rho.log().mean(-1) + (log_volume + psi[0] - psi[1]).to(rho.dtype), x)


def check_points(function: str, name: str, points: Tensor) -> Tensor:
    """Gives points [..., N, D] in the precision of the kernels: float64 as it is, other floating types as float32."""
    if not points.is_floating_point():
        raise TypeError(f"{function}: {name} must be floating point, got {dtype_name(points)}")
    if points.dim() < 2 or points.shape[-1] < 1:
        raise ValueError(f"{function}: {name} must have shape [..., rows, D] with D >= 1, got {tuple(points.shape)}")
    return points if points.dtype in (torch.float32, torch.float64) else points.float()


def check_norm(function: str, p: int) -> int:
    if isinstance(p, bool) or not isinstance(p, (int, float, np.integer, np.floating)) or p not in (1, 2):
        raise ValueError(f"{function}: p must be 1 or 2, got {shown(p)}")
    return int(p)


def check_k(function: str, k: int, limit: int) -> int:
    if limit < 1:
        raise ValueError(f"{function}: at least 1 other row is needed, got {limit}")
    return whole(k, function, "k", 1, min(limit, MAX_NEIGHBORS))


def flatten(function: str, points: Tensor, candidates: Tensor | None) -> tuple[torch.Size, Tensor, Tensor | None]:
    """Gives the leading shape, points as [L, N, D], and candidates as [1 or L, M, D] of the same dtype."""
    batch = points.shape[:-2]
    problems = math.prod(batch)  # not -1: that is ambiguous where there are no points
    flat = points.reshape(problems, *points.shape[-2:])
    if candidates is None:
        return batch, flat, None
    if candidates.shape[-1] != points.shape[-1]:
        raise ValueError(
            f"{function}: both sides must have the same D, got {points.shape[-1]} and {candidates.shape[-1]}"
        )
    if candidates.device != points.device:
        raise ValueError(f"{function}: both sides must be on one device, got {points.device} and {candidates.device}")
    if candidates.dtype != points.dtype:
        candidates = candidates.to(points.dtype)
    if all(size == 1 for size in candidates.shape[:-2]):
        return batch, flat, candidates.reshape(1, *candidates.shape[-2:])
    try:
        expanded = candidates.expand(*batch, *candidates.shape[-2:])
    except RuntimeError:
        raise ValueError(
            f"{function}: leading dimensions must broadcast to {tuple(batch)}, got {tuple(candidates.shape[:-2])}"
        ) from None
    return batch, flat, expanded.reshape(problems, *candidates.shape[-2:])
