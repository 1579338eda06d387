"""SDC, similarity distribution calibration: cosines of outputs get a wide distribution, in the order of the inputs'."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthash._arguments import number
from fasthash._directions import directions, unit_rows
from fasthash.losses.published.outputs import check_embeddings, check_outputs

GRID = 1 << 14  # points of the tabulated distribution function


class SDCLoss(nn.Module):
    """Mean | cos_(i) - q_i | over the n pairs of a batch, ranked by the cosine of y; q_i = 2 F^-1((2 i - 1) / 2 n) - 1.

    forward(u [B, D] outputs, y [B, E] embeddings) -> scalar. F is the distribution function of Beta(a, b), a and b >=
    1: cosines of features lie in a narrow range, which few bits cannot tell apart; their order is kept and their
    distribution replaced by a wide one. cos_(i) is the cosine of the outputs of the pair of rank i.

    Source: Ng, Song, Hospedales & Xiang, "Unsupervised hashing with similarity distribution calibration", BMVC 2023.
    How sure: the form read in public code; a = b = 5 is ours.

    >>> loss = SDCLoss()
    >>> loss(torch.randn(6, 16), torch.randn(6, 8)).shape
    torch.Size([])
    """

    cumulative: Tensor

    def __init__(self, *, a: float = 5.0, b: float = 5.0) -> None:
        super().__init__()
        self.a, self.b = (number(value, "SDCLoss", name, least=1) for name, value in (("a", a), ("b", b)))
        x = torch.linspace(0, 1, GRID, dtype=torch.float64)
        density = x ** (a - 1) * (1 - x) ** (b - 1)
        total = torch.cat([x.new_zeros(1), torch.cumulative_trapezoid(density, x)])
        self.register_buffer("cumulative", total / total[-1], persistent=False)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("SDCLoss", u)
        unit, wanted = directions(u), unit_rows(check_embeddings("SDCLoss", y, len(u)))
        i, j = torch.triu_indices(len(u), len(u), offset=1, device=u.device)
        order = (wanted @ wanted.T)[i, j].argsort()
        return ((unit @ unit.T)[i[order], j[order]] - self.quantiles(len(order)).to(u.dtype)).abs().mean()

    def quantiles(self, n: int) -> Tensor:
        """The n wanted cosines, ascending, float64 [n]."""
        parts = (torch.arange(n, dtype=torch.float64, device=self.cumulative.device) + 0.5) / n
        right = torch.searchsorted(self.cumulative, parts).clamp(1, GRID - 1)
        low, high = self.cumulative[right - 1], self.cumulative[right]
        return 2 * (right - 1 + (parts - low) / (high - low)) / (GRID - 1) - 1
