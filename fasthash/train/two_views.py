"""Two views of every row: how they are made, and the loss over codes of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash._directions import directions
from fasthash.train.similarity_mining import MinedPairs, mine

View = Callable[[Tensor], Tensor]
BLOCK = 1024  # rows whose views are made at once for mining


class BothRows:
    """Rows of two tensors [N, ...] of one shape, side by side: [B, 2, ...], a batch at a time.

    >>> BothRows(torch.zeros(3, 2), torch.ones(3, 2))[torch.tensor([2])].tolist()
    [[[0.0, 0.0], [1.0, 1.0]]]
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second, self.device = first, second, first.device

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Tensor) -> Tensor:
        sides = (side[rows.to(side.device)].to(self.device) for side in (self.first, self.second))
        return torch.stack(list(sides), dim=1)


class InViews(nn.Module):
    """In training the network's outputs for every view of a batch, [views, B, bits]; else for the rows as they are.

    views: of one row, functions of the batch. both: x is [B, 2, ...], a row of each view.

    >>> InViews(nn.Linear(3, 4), [torch.neg, torch.abs])(torch.randn(5, 3)).shape
    torch.Size([2, 5, 4])
    """

    def __init__(self, network: nn.Module, views: Sequence[View], both: bool = False) -> None:
        super().__init__()
        self.network, self.views, self.both = network, views, both

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            outputs: Tensor = self.network(x)
            return outputs
        outputs = self.network(torch.cat(seen(x, self.views, self.both)))
        return outputs.view(len(self.views), -1, outputs.shape[-1])


def seen(x: Tensor, views: Sequence[View], both: bool) -> list[Tensor]:
    """A batch in every view."""
    return [view(x[:, number] if both else x) for number, view in enumerate(views)]


@torch.no_grad()
def mine_views(
    rows: Tensor | BothRows, views: Sequence[View], features: View, device: torch.device, **settings: Any
) -> list[MinedPairs]:
    """The pairs that features [B, F] of each view of all rows give; settings: of `mine`.

    Raises ValueError, in the name of `CIMON.fit`, for features of another shape, NaN and infinity.
    """
    parts: list[list[Tensor]] = [[] for _ in views]
    for numbers in torch.arange(len(rows)).split(BLOCK):
        batch = rows[numbers.to(rows.device)].to(device)
        for part, view in zip(parts, seen(batch, views, isinstance(rows, BothRows)), strict=True):
            found = features(view)
            if found.dim() != 2 or len(found) != len(numbers):
                shape, count = [*found.shape], len(numbers)
                raise ValueError(f"CIMON.fit: features must give [{count}, F] for {count} rows, got {shape}")
            if not bool(torch.isfinite(found).all()):
                raise ValueError("CIMON.fit: features must be finite, got NaN or infinity")
            part.append(found.float())
    return [mine(torch.cat(part), **settings) for part in parts]


class Noisy:
    """x [B, F] with noise of so many standard deviations of the features, in a view of its own each time."""

    def __init__(self, deviation: Tensor) -> None:
        self.deviation = deviation

    def __call__(self, x: Tensor) -> Tensor:
        return x.float() + self.deviation.to(x.device) * torch.randn(x.shape, device=x.device)


class MinedSimilarityLoss(nn.Module):
    """forward(z [V, B, K] outputs in [0, 1] of V = 2 views, rows int64 [B]) -> scalar: of the rows of a batch

        L = sum over views a, b of sem(v_a, S_b, W_b) + contrast NTXent(v_1, v_2),    v = 2 z - 1
        sem(v, S, W) = sum_ij W_ij (v_i . v_j / K - S_ij)^2 / B^2
        NTXent = mean over all 2 B rows of cross-entropy: which of the other 2 B - 1 is the other view of the row,
                 with logits cosine / temperature

    S and W are those of `MinedPairs`, mined from each view. V = 1: sem(v_1, S_1, W_1) alone.

    Source: Luo et al., "CIMON: towards high-quality hash codes", IJCAI 2021 (arXiv 2010.07804). How sure: all terms and
    both defaults were read in the authors' public code.

    >>> pairs = MinedPairs(torch.eye(4), 0.5, None, None)
    >>> MinedSimilarityLoss([pairs, pairs])(torch.rand(2, 3, 8), torch.tensor([0, 3, 1])).shape
    torch.Size([])
    """

    def __init__(self, mined: Sequence[MinedPairs], *, contrast: float = 0.3, temperature: float = 0.5) -> None:
        super().__init__()
        self.mined, self.contrast, self.temperature = mined, contrast, temperature

    def forward(self, z: Tensor, rows: Tensor) -> Tensor:
        views = 2 * z - 1
        similarity = views @ views.mT / z.shape[-1]
        loss = z.new_zeros(())
        for pairs in self.mined:
            S, W = (each.to(z.device) for each in pairs.of(rows.to(pairs.directions.device)))
            loss = loss + (W * (similarity - S).square()).mean((1, 2)).sum()
        if self.contrast and len(views) == 2:
            loss = loss + self.contrast * nt_xent(*views, temperature=self.temperature)
        return loss


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of two views [B, K] (Chen, Kornblith, Norouzi & Hinton 2020).

    >>> views = torch.eye(3)
    >>> nt_xent(views, views, temperature=0.01).item() < 1e-6
    True
    """
    rows = directions(torch.cat([first, second]))
    logits = rows @ rows.T / temperature
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return cross_entropy(logits.masked_fill(itself, -torch.inf), partner)
