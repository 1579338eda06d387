"""Contrastive loss on real-valued outputs, rounded afterwards, and its form for every level of a hierarchy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fasthash._arguments import number
from fasthash._directions import directions, unit_rows
from fasthash.losses.published.outputs import alike, check_classes, check_embeddings, check_levels, check_outputs


class ContrastiveLoss(nn.Module):
    """Mean over rows and their positives of -log softmax_j(cos(u_i, u_j) / temperature), j the others of the batch.

    forward(u [B, D] outputs, y) -> scalar. Positives of a row, by y: rows of its class (integers [B]), rows with at
    least one label in common (multi-hot labels, integers [B, L]), the pairs that are True (booleans [B, B]), or its
    nearest row by cosine (floating-point embeddings [B, E]). Rows without positives do not count. Bits are the signs of
    u; nothing asks u to be near +-1.

    Source: Khosla et al., "Supervised contrastive learning", NeurIPS 2020 (the form with the sum outside the
    logarithm); with one positive each it is NT-Xent (Chen et al. 2020) and, one-sided, MNRL. How sure: certain for
    classes, its equation (2). Ours: positives of multi-hot labels, and of embeddings, for data without pairs.

    >>> loss = ContrastiveLoss()
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = number(temperature, "ContrastiveLoss", "temperature", above=0)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("ContrastiveLoss", u)
        if isinstance(y, Tensor) and y.is_floating_point():
            unit = unit_rows(check_embeddings("ContrastiveLoss", y, len(u)))
            nearest = (unit @ unit.T).fill_diagonal_(-math.inf).argmax(1)
            positive = torch.arange(len(u), device=u.device) == nearest[:, None]
        else:
            positive = alike("ContrastiveLoss", y, len(u))
        return contrastive(u, positive, self.temperature)


class HierarchicalContrastiveLoss(nn.Module):
    """Weighted mean over the levels of a hierarchy of the supervised contrastive loss with that level's classes.

    forward(u [B, D] outputs, y [B] classes) -> scalar. `levels` int64 [L, C]: the class at each level that each of the
    C classes belongs to, finest first (see `targets.class_levels`). weights: of the levels; None: 1, 1/2, 1/4 ...

    Source: the hierarchy-aware form of Zhang, Xu, Yu, Ermon & Xie, "Use all the labels: a hierarchical multi-label
    contrastive learning framework", CVPR 2022, without its constraint between levels. How sure: the sum over levels is
    theirs (memory), the weights are ours.

    >>> loss = HierarchicalContrastiveLoss(torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]]))
    >>> loss(torch.randn(8, 16), torch.arange(8) % 4).shape
    torch.Size([])
    """

    levels: Tensor

    def __init__(self, levels: Tensor, *, temperature: float = 0.1, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        levels = check_levels("HierarchicalContrastiveLoss", levels)
        self.temperature = number(temperature, "HierarchicalContrastiveLoss", "temperature", above=0)
        weights = [2.0**-depth for depth in range(len(levels))] if weights is None else list(weights)
        if len(weights) != len(levels) or min(weights) < 0 or not sum(weights) > 0:
            raise ValueError(
                f"HierarchicalContrastiveLoss: weights must be {len(levels)} numbers >= 0, not all 0, got {weights}"
            )
        self.weights = [weight / sum(weights) for weight in weights]
        self.register_buffer("levels", levels)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("HierarchicalContrastiveLoss", u)
        classes = check_classes("HierarchicalContrastiveLoss", y, len(u))
        loss = u.new_zeros(())
        for weight, level in zip(self.weights, self.levels, strict=True):
            positive = level[classes][:, None] == level[classes]
            loss = loss + weight * contrastive(u, positive, self.temperature)
        return loss


def contrastive(u: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of outputs [B, D]; `positive` boolean [B, B], its diagonal is ignored."""
    unit = directions(u)
    diagonal = torch.eye(len(u), dtype=torch.bool, device=u.device)
    found = (unit @ unit.T / temperature).masked_fill(diagonal, -math.inf).log_softmax(1).masked_fill(diagonal, 0.0)
    wanted = (positive & ~diagonal).to(u.dtype)
    count = wanted.sum(1)
    rows = -(wanted * found).sum(1) / count.clamp(min=1)
    return rows.sum() / (count > 0).sum().clamp(min=1)
