"""GreedyHash: classification of the signs themselves, with a straight-through gradient."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes, straight_through_sign


class GreedyHashLoss(nn.Module):
    """CE(W sign(u), y) + weight mean | |u| - 1 |^3; the gradient of sign(u) is taken as that of u.

    forward(u [B, D] outputs, y [B] classes) -> scalar. W is trained along. Source: Su, Zhang, Han & Tian, "Greedy
    Hash: towards fast optimization for accurate hash coding in CNN", NeurIPS 2018. How sure: read in public code;
    weight 0.1 (1 for ImageNet).

    >>> import torch
    >>> loss = GreedyHashLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    def __init__(self, bits: int, classes: int, *, weight: float = 0.1) -> None:
        super().__init__()
        check_sizes("GreedyHashLoss", bits=bits, classes=classes)
        self.weight = weight
        self.classifier = nn.Linear(bits, classes, bias=False).float()

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("GreedyHashLoss", u)
        logits = self.classifier(straight_through_sign(u))
        quantisation = (u.abs() - 1).abs().pow(3).mean()
        return cross_entropy(logits, check_classes("GreedyHashLoss", y, len(u))) + self.weight * quantisation
