"""Cross-entropy on real-valued outputs, rounded afterwards: the baselines that hashing papers compare with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes, label_rows


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


class SignBinaryCrossEntropyLoss(nn.Module):
    """BCE(W u + b, y), a sum over the labels, with linear classifiers that are trained along; bits are the signs of u.

    forward(u [B, D] outputs, y) -> scalar; y: multi-hot labels, integers or booleans [B, classes], or classes [B], sets
    of one label. No term draws u to +-1. Source: the baseline "BCE + sign" of several labels. How sure: certain; the
    sum over the labels in place of their mean is ours.

    >>> import torch
    >>> loss = SignBinaryCrossEntropyLoss(16, classes=3)
    >>> loss(torch.randn(2, 16), torch.tensor([[1, 0, 1], [0, 0, 0]])).shape
    torch.Size([])
    """

    def __init__(self, bits: int, classes: int) -> None:
        super().__init__()
        check_sizes("SignBinaryCrossEntropyLoss", bits=bits, classes=classes)
        self.classifier = nn.Linear(bits, classes).float()

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("SignBinaryCrossEntropyLoss", u)
        labels = label_rows("SignBinaryCrossEntropyLoss", y, len(u), self.classifier.out_features)
        logits = self.classifier(u)
        return binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum") / len(u)
