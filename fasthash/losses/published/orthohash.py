"""OrthoHash: one classification loss, by cosine to binary, nearly orthogonal class centres, with a margin."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from fasthash._directions import directions, unit_rows
from fasthash.losses.published.outputs import check_labels, check_outputs, check_sizes, hadamard_centres


class OrthoHashLoss(nn.Module):
    """CE over c of scale (cos(u, o_c) - margin [c = y]), o_c fixed centres of +1 and -1.

    forward(u [B, D] outputs, y) -> scalar; y: classes [B], or multi-hot labels, integers [B, classes]. Centres are rows
    of the Hadamard matrix, orthogonal, where there are enough (D); with more classes than bits they are random. The
    paper puts a batch norm before u, as `HashHead` does. Several labels: each has the margin and an equal part of the
    target of CE; rows without labels do not count.

    Source: Hoe et al., "One loss for all: deep hashing with a single cosine similarity based learning objective",
    NeurIPS 2021. How sure: read in public code; scale 8, margin 0.2. Several labels as its multi-label experiments have
    them (label smoothing), restated from memory; rows without labels are ours.

    >>> import torch
    >>> loss = OrthoHashLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    centres: Tensor

    def __init__(self, bits: int, classes: int, *, scale: float = 8.0, margin: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        check_sizes("OrthoHashLoss", bits=bits, classes=classes)
        self.scale, self.margin = scale, margin
        self.register_buffer("centres", hadamard_centres(classes, bits, both_signs=False, seed=seed))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("OrthoHashLoss", u)
        labels = check_labels("OrthoHashLoss", y, len(u), len(self.centres))
        cosines = directions(u) @ unit_rows(self.centres.to(u.dtype)).T
        wanted = (one_hot(labels, len(self.centres)) if labels.dim() == 1 else labels).to(u.dtype)
        logits = self.scale * (cosines - self.margin * wanted)
        if labels.dim() == 1:
            return cross_entropy(logits, labels)
        count = wanted.sum(1, keepdim=True)
        losses = -(wanted / count.clamp(min=1) * logits.log_softmax(1)).sum(1)
        return losses.sum() / (count > 0).sum().clamp(min=1)
