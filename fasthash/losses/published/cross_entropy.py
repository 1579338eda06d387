"""Cross-entropy on real-valued outputs, rounded afterwards: the baseline that hashing papers compare with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes


class SignCrossEntropyLoss(nn.Module):
    """CE(W u + b, y) with a linear classifier that is trained along; bits are the signs of u.

    forward(u [B, D] outputs, y [B] classes) -> scalar. No term draws u to +-1. Source: the baseline "CE + sign" of the
    literature. How sure: certain.

    >>> import torch
    >>> loss = SignCrossEntropyLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__()
        check_sizes("SignCrossEntropyLoss", bits=bits, classes=classes)
        self.classifier = nn.Linear(bits, classes).float()

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("SignCrossEntropyLoss", u)
        return cross_entropy(self.classifier(u), check_classes("SignCrossEntropyLoss", y, len(u)))
