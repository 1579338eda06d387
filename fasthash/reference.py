"""Plain-torch oracles of every op: what the kernels must compute, in as few lines as say it.

Tests compare with them and docs quote them. They take O(N M D) memory and are never a fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BitWeights = Sequence[tuple[int, int]]


def pairwise_distances(x: Tensor, y: Tensor, p: int) -> Tensor:
    """Distances [..., N, M] between rows, from differences. Gradient zero at coincident points."""
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    if p == 1:
        return difference.abs().sum(-1)
    squared = difference.square().sum(-1)
    zero = squared == 0
    return torch.where(zero, 0.0, squared.masked_fill(zero, 1.0).sqrt())


def nearest(x: Tensor, y: Tensor | None = None, *, p: int = 2, k: int = 1) -> tuple[Tensor, Tensor]:
    """Distances [..., N, k] ascending and indices int64 [..., N, k]; ties to the lowest index, NaN last."""
    distances = pairwise_distances(x, x if y is None else y, p)
    if y is None:
        n = x.shape[-2]
        others = torch.arange(n - 1, device=x.device).expand(n, n - 1)
        others = others + (others >= torch.arange(n, device=x.device)[:, None]).long()
        distances = distances.gather(-1, others.expand(*distances.shape[:-1], n - 1))
        values, order = distances.sort(dim=-1, stable=True)
        return values[..., :k], others.expand_as(order).gather(-1, order[..., :k])
    values, order = distances.sort(dim=-1, stable=True)
    return values[..., :k], order[..., :k]


def kl_loss(z: Tensor, target: Tensor, *, p: int = 1, k: int = 1, eps: float = 1e-2) -> Tensor:
    """mean_b log(nu_k(b) + eps) - log(rho_k(b) + eps), shape z.shape[:-2]."""
    nu = nearest(z, target, p=p, k=k)[0][..., -1]
    rho = nearest(z, p=p, k=k)[0][..., -1]
    return ((nu + eps).log() - (rho + eps).log()).mean(-1)


def similarity_loss(
    z: Tensor, distance: Tensor, weight: Tensor, tau_z: float | Tensor, tau_y: float | Tensor
) -> Tensor:
    """Weighted mean over pairs b != b' of | |z_b - z_b'|_1 / tau_z - d_bb' / tau_y |; tau_y = 0 drops d."""
    off = ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    d = distance / tau_y if tau_y != 0 else torch.zeros_like(distance)
    stress = (pairwise_distances(z, z, 1) / tau_z - d).abs()
    return (weight * stress)[off].sum() / weight[off].sum()


def listwise_loss(
    z: Tensor,
    distance: Tensor,
    *,
    temperature_y: float = 0.2,
    temperature_z: float = 0.1,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over i of the cross-entropy of softmax_j(-d_ij / T_y) and softmax_j(-|z_i - z_j|_1 / (D T_z)), j != i.

    weights: of i in the mean [B]; None: all alike.
    """
    rows, bits = z.shape
    off = ~torch.eye(rows, dtype=torch.bool, device=z.device)
    wanted = (-distance[off].view(rows, rows - 1) / temperature_y).softmax(-1)
    found = (-pairwise_distances(z, z, 1)[off].view(rows, rows - 1) / (bits * temperature_z)).log_softmax(-1)
    losses = -(wanted * found).sum(-1)
    return losses.mean() if weights is None else losses @ (weights / weights.sum()).to(losses)


def hamming_distances(a: Tensor, b: Tensor, bit_weights: BitWeights | None = None) -> Tensor:
    """Number of differing bits, int32 [N, M], of packed codes uint8 [N, W] and [M, W].

    bit_weights: (bits, weight) of each group of bits: a differing bit counts its group's weight, one beyond them 0.
    """
    difference = a.unsqueeze(1) ^ b.unsqueeze(0)
    if bit_weights is None:
        ones = torch.tensor([bin(byte).count("1") for byte in range(256)], dtype=torch.int32, device=a.device)
        return ones[difference.long()].sum(-1, dtype=torch.int32)
    weights = [weight for bits, weight in bit_weights for _ in range(bits)]
    weights += [0] * (8 * a.shape[-1] - len(weights))
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=a.device)
    differing = (difference.unsqueeze(-1) >> shifts & 1).flatten(2)
    return (differing * torch.tensor(weights, dtype=torch.int32, device=a.device)).sum(-1, dtype=torch.int32)


def largest_distance(width: int, bit_weights: BitWeights | None = None) -> int:
    """The distance of codes of `width` bytes that differ in every bit."""
    return 8 * width if bit_weights is None else sum(bits * weight for bits, weight in bit_weights)


def asymmetric_distances(queries: Tensor, codes: Tensor, bit_weights: BitWeights | None = None) -> Tensor:
    """sum_d w_d |q_d - b_d|, float32 [Q, C], of queries [Q, D] and each one's packed codes [Q, C, W]; in float64.

    w_d: 1, or the weight of the group of bits (bits, weight) that bit d is in.
    """
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=codes.device)
    bits = (codes.unsqueeze(-1) >> shifts & 1).flatten(2)[..., : queries.shape[1]]
    weights = [weight for count, weight in bit_weights or [(queries.shape[1], 1)] for _ in range(count)]
    return ((queries.double().unsqueeze(1) - bits).abs() * torch.tensor(weights, device=codes.device)).sum(-1).float()


def asymmetric_topk(
    queries: Tensor,
    database: Tensor,
    k: int,
    *,
    code_scale: Tensor | None = None,
    metric: str = "l1",
    mask: Tensor | None = None,
    bit_weights: BitWeights | None = None,
) -> tuple[Tensor, Tensor]:
    """The k nearest (distances float32, positions int64) by (distance, position); missing ones (infinity, -1).

    Sums are float64, four bits at a time in ascending order, as asymmetric_topk.h says.
    """
    q, D = queries.double(), queries.shape[1]
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=database.device)
    bits = (database.unsqueeze(-1) >> shifts & 1).flatten(1)[:, :D]
    weights = [weight for count, weight in bit_weights or [(D, 1)] for _ in range(count)]
    w = torch.tensor(weights, dtype=torch.float64, device=database.device)
    terms = w * (q[:, None] - bits).abs() if metric == "l1" else q[:, None] * (1 - 2.0 * bits)
    terms = torch.nn.functional.pad(terms, (0, -D % 4)).unflatten(-1, (-1, 4))
    sums = terms.cumsum(-1)[..., -1].cumsum(-1)[..., -1]  # cumsum adds one after the other
    norms = q.square().cumsum(1)[:, -1:]
    scale = torch.ones(1, device=database.device) if code_scale is None else code_scale
    s = 1 / _sqrt(torch.tensor([D]).double()) if metric == "cosine" and code_scale is None else scale.double()
    if metric == "cosine":
        distances = 1 + torch.where(norms > 0, 1 / _sqrt(norms), 0) * (sums * s)
    else:
        distances = ((norms + 2 * (sums * s)) + D * (s * s)).clamp(min=0) if metric == "l2" else sums * s
    values, order = distances.float().sort(dim=-1, stable=True)
    if mask is not None:
        eligible = mask[order]
        first = (~eligible).long().argsort(dim=-1, stable=True)
        values, order = values.masked_fill(~eligible, torch.inf), order.masked_fill(~eligible, -1)
        values, order = values.gather(1, first), order.gather(1, first)
    return values[:, :k], order[:, :k]


def _sqrt(values: Tensor) -> Tensor:
    """Rounded correctly, as C's is; torch's of several values is not on every processor."""
    return torch.from_numpy(np.sqrt(values.cpu().numpy())).to(values.device)


def hamming_topk(
    queries: Tensor, database: Tensor, k: int, *, mask: Tensor | None = None, bit_weights: BitWeights | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest (distances int32, positions int64) by (distance, position); missing ones (largest + 1, -1)."""
    largest = largest_distance(database.shape[-1], bit_weights)
    distances = hamming_distances(queries, database, bit_weights)
    if mask is not None:
        distances = distances.masked_fill(~mask, largest + 1)
    values, order = distances.sort(dim=-1, stable=True)
    values, order = values[:, :k], order[:, :k]
    return values, order.masked_fill(values > largest, -1)


def hamming_range(
    queries: Tensor,
    database: Tensor,
    radius: int,
    *,
    mask: Tensor | None = None,
    bit_weights: BitWeights | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """offsets int64 [Q + 1], distances int32 [T], positions int64 [T] of the codes within `radius`, in order."""
    values, order = hamming_topk(queries, database, len(database), mask=mask, bit_weights=bit_weights)
    inside = (values <= radius) & (order >= 0)
    offsets = torch.cat([inside.new_zeros(1, dtype=torch.int64), inside.sum(-1).cumsum(0)])
    return offsets, values[inside], order[inside]


def hamming_pairs(
    codes: Tensor, radius: int, other: Tensor | None = None, bit_weights: BitWeights | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows i and j (int64) and distances (int32) of the pairs within `radius`, by (i, j); i < j in one set of codes."""
    distances = hamming_distances(codes, codes if other is None else other, bit_weights)
    near = distances <= radius
    if other is None:
        near = near.triu(1)
    i, j = near.nonzero(as_tuple=True)
    return i, j, distances[i, j]


def duplicate_groups(codes: Tensor, radius: int, link: str = "single", bit_weights: BitWeights | None = None) -> Tensor:
    """The lowest row of each row's group, int64 [N]."""
    near = hamming_distances(codes, codes, bit_weights) <= radius
    lowest = torch.full((len(codes),), -1)
    for row in range(len(codes)):
        if lowest[row] >= 0:
            continue
        taken, reached = near[row] & (lowest < 0), 0
        while link == "single" and int(taken.sum()) > reached:  # the rows near those that are reached, too
            reached = int(taken.sum())
            taken = near[taken].any(0)
        lowest[taken] = row
    return lowest


def hamming_histogram(
    queries: Tensor,
    database: Tensor,
    labels: Tensor | None = None,
    class_weights: Tensor | None = None,
    bit_weights: BitWeights | None = None,
) -> tuple[Tensor, Tensor | None]:
    """counts int64 [Q, largest + 1] of codes at each distance, and the sums of class_weights[q, label] over them."""
    distances = hamming_distances(queries, database, bit_weights).long()
    counts = distances.new_zeros(len(queries), largest_distance(database.shape[-1], bit_weights) + 1)
    counts.scatter_add_(1, distances, torch.ones_like(distances))
    if labels is None or class_weights is None:
        return counts, None
    sums = torch.zeros(counts.shape, dtype=torch.float64, device=counts.device)
    return counts, sums.scatter_add_(1, distances, class_weights.double()[:, labels])
