"""OrthoHash: one classification loss, by cosine to binary, nearly orthogonal class centres, with a margin."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from fasthash._directions import directions, unit_rows
from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes, hadamard_centres


class OrthoHashLoss(nn.Module):
    """CE over c of scale (cos(u, o_c) - margin [c = y]), o_c fixed centres of +1 and -1.

    forward(u [B, D] outputs, y [B] classes) -> scalar. Centres are rows of the Hadamard matrix, orthogonal, where
    there are enough (D); with more classes than bits they are random. The paper puts a batch norm before u, as
    `HashHead` does. Source: Hoe et al., "One loss for all: deep hashing with a single cosine similarity based learning
    objective", NeurIPS 2021. How sure: read in public code; scale 8, margin 0.2.

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
        classes = check_classes("OrthoHashLoss", y, len(u))
        cosines = directions(u) @ unit_rows(self.centres.to(u.dtype)).T
        margins = self.margin * one_hot(classes, len(self.centres)).to(u.dtype)
        return cross_entropy(self.scale * (cosines - margins), classes)
