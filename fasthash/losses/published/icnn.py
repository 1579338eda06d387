"""SuSana Distancia's ICNN loss: near neighbours are of the own class, and nearer than those of other classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fasthash._arguments import whole
from fasthash.losses.published.outputs import check_classes, check_outputs
from fasthash.neighbors import MAX_NEIGHBORS, nearest

EPS = 1e-7


class ICNNLoss(nn.Module):
    """-log of the ICNN score in (0, 1] of a batch: 1 where classes are points far from one another.

    forward(u [B, D] outputs, y [B] classes) -> scalar. `score(u, y)` gives the score itself. All rows count, support
    and queries alike. Of the rows, k = `neighbors` (B - 2 of batches of up to k + 2 rows, but at least 1), and for each
    row i the distances d_i1 <= d_i2 <= ... to its m nearest others, m = `look_ahead` (None: the rows of the largest
    class of the batch, which is support + queries in an episode), at least k, at most 64 and at most B - 1:

        r_i      = distance to the nearest of another class among the m; infinite without one
        lam_same = 1 - mean_i mean_{j <= k, same class} d_ij / max(r_i, d_ik)
        lam_diff = mean_i mean_{j <= k, other class} d_ij / (largest distance to another class among all m)
        gam      = mean_i (rows of the own class among the k) / k; 1 of batches of up to k + 2 rows
        score    = ((lam_same + lam_diff) / 2 + gam) / 2

    Means over i are of the rows that have such a neighbour; without any lam_same is 0 and lam_diff is 1. gam has no
    gradient. Equal distances: the lower index is the nearer. With one class alone the loss is near 0.

    Source: Mendez-Ruiz et al., "SuSana Distancia is all you need", arXiv 2305.09062 (2023); the score is of
    arXiv 2107.06992. How sure: parts, k = 4, support and queries pooled ("fullicnn") and 1e-7 in divisions were read in
    public code (maumruiz/FSL-Loss), restated here with its two divisions of same-class distances as one. Ours: the
    values without any such neighbour; k of at least 1; m of at most 64, what `fasthash.nearest` finds; that "all"
    distances of lam_diff are those to the m nearest; and that distances are first divided by the root mean square of
    those from the mean row, which takes the scale out of the 1e-7. That code tells other classes by values of 0, which
    loses coincident rows, and drops a row's nearest in the place of the row itself; here both are masks.

    >>> loss = ICNNLoss()
    >>> round(loss.score(torch.tensor([[0.0], [0.0], [9.0], [9.0]] * 4), torch.arange(16) // 2 % 2).item(), 4)
    1.0
    """

    rows_per_class = 16  # the default of Hasher with this loss

    def __init__(self, *, neighbors: int = 4, look_ahead: int | None = None) -> None:
        super().__init__()
        self.neighbors = whole(neighbors, "ICNNLoss", "neighbors", 1, MAX_NEIGHBORS)
        self.look_ahead = None if look_ahead is None else whole(look_ahead, "ICNNLoss", "look_ahead", 1, MAX_NEIGHBORS)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        return -self.score(u, y).clamp(min=EPS).log()

    def score(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        """The ICNN score of a batch, a scalar."""
        u = check_outputs("ICNNLoss", u)
        y = check_classes("ICNNLoss", y, len(u))
        same = y[:, None] == y
        few = self.neighbors + 2 >= len(u)
        k = max(len(u) - 2, 1) if few else self.neighbors
        ahead = int(same.sum(1).max()) if self.look_ahead is None else self.look_ahead
        size = (u - u.mean(0)).detach().abs().amax()
        apart = size > torch.finfo(u.dtype).tiny ** 0.5  # else rows are taken for equal: their squares are 0
        u = u / torch.where(apart, size.log2().floor().exp2(), 1.0)  # a power of 2: nothing is rounded
        found = nearest(u, k=min(max(ahead, k), MAX_NEIGHBORS, len(u) - 1))
        spread = (u - u.mean(0)).square().sum(1).mean()
        distances = found.distances * torch.where(apart, spread, 1.0).rsqrt()
        same = same.gather(1, found.indices)
        radius = distances.masked_fill(same, math.inf).amin(1, keepdim=True)
        largest = distances.masked_fill(same, 0.0).amax()
        near, own = distances[:, :k], same[:, :k]
        inside, has_own = _mean_of_rows(near / (radius.maximum(near[:, -1:]) + EPS), own)
        outside, has_other = _mean_of_rows(near / (largest + EPS), ~own)
        lam_same = (1 - inside) * has_own
        lam_diff = torch.where(has_other, outside, 1.0)
        gam = 1.0 if few else own.to(u.dtype).mean()
        return ((lam_same + lam_diff) / 2 + gam) / 2


def _mean_of_rows(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each row's mean of its marked values [B, k], over the rows that have some; and whether any has."""
    counts = mask.sum(1)
    means = (values * mask).sum(1) / counts.clamp(min=1)
    has = counts > 0
    return means.sum() / has.sum().clamp(min=1), has.any()
