"""The KoLeo regulariser: spreads points by their nearest-neighbour distances."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import number
from fasthash._directions import directions
from fasthash.distributed import check_member, gather_rows
from fasthash.neighbors import check_k, check_norm, check_points, nearest


def koleo_loss(
    z: Tensor, *, p: int = 2, k: int = 1, eps: float = 1e-8, normalize: bool = True, group: Any = None
) -> Tensor:
    """-mean_b log(rho_k(b) + eps), rho_k(b) the distance of z_b to its k-th nearest other row.

    Source: Sablayrolles et al., "Spreading vectors for similarity search", 2019, after the Kozachenko-Leonenko entropy.

    Args:
        z: points [..., B, D], floating point, B >= 2.
        p: 1 Manhattan, 2 Euclidean. k: 1 to min(B - 1, 64). eps: >= 0.
        normalize: divide rows by their Euclidean length first, as is usual for this loss. A row of zeros has no
            direction and no gradient; the gradient of a row shorter than a tenth of the typical length falls with its
            length.
        group: a torch.distributed process group, of all ranks or of some: the mean over the rows of its ranks, as in
            `kl_loss`.

    Returns:
        float32 (float64 for float64 inputs), shape z.shape[:-2]. Coincident points have gradient zero; with `normalize`
            so have points that differ only by rounding (z_b and 3 z_b). A row with a NaN or an infinity makes the loss
            NaN or infinite and its own gradient NaN; other rows do not change.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import torch
    >>> koleo_loss(torch.eye(4)).item()  # -log sqrt(2)
    -0.34657...
    """
    if not isinstance(z, Tensor):
        raise TypeError(f"koleo_loss: z must be a tensor, got {type(z).__name__}")
    if group is not None:
        check_member(group, "koleo_loss")
    points = check_points("koleo_loss", "z", z)
    p = check_norm("koleo_loss", p)
    eps = number(eps, "koleo_loss", "eps", least=0)
    if group is not None:
        points = gather_rows(points, group)
    k = check_k("koleo_loss", k, points.shape[-2] - 1)
    if normalize:  # after the rows are gathered: what length is typical depends on all of them
        points = directions(points)
    rho: Tensor = nearest(points, p=p, k=k).distances[..., -1]
    if normalize:
        rho = torch.where(rho <= _rounding(points, p), rho.detach(), rho)
    return -(rho + eps).log().mean(-1)


def _rounding(unit: Tensor, p: int) -> float:
    """How far rows of one direction lie apart, at most, once they were divided by their lengths."""
    root = math.sqrt(unit.shape[-1])
    euclidean = torch.finfo(unit.dtype).eps * max(8.0, root)  # measured: 3, but 0.8 root where all values are equal
    return euclidean * root if p == 1 else euclidean


class KoLeoLoss(torch.nn.Module):
    """`koleo_loss` with its settings, as a module: forward(z) -> Tensor of shape z.shape[:-2].

    >>> import torch
    >>> KoLeoLoss()(torch.rand(64, 16)).shape
    torch.Size([])
    """

    def __init__(self, *, p: int = 2, k: int = 1, eps: float = 1e-8, normalize: bool = True, group: Any = None) -> None:
        super().__init__()
        self.p, self.k, self.eps, self.normalize, self.group = p, k, eps, normalize, group

    def forward(self, z: Tensor) -> Tensor:
        return koleo_loss(z, p=self.p, k=self.k, eps=self.eps, normalize=self.normalize, group=self.group)

    def extra_repr(self) -> str:
        return f"p={self.p}, k={self.k}, eps={self.eps}, normalize={self.normalize}"
