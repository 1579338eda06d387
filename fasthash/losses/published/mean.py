"""The mean of several losses, as one loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MeanLoss(nn.Module):
    """The mean of losses of the same u and y: forward(u [B, D] outputs, y) -> scalar.

    SuSana Distancia trains on the mean of a cross-entropy over prototypes, the prototype triplet and the ICNN loss.
    How sure: that the losses' sum is a mean, and these three as the last of twelve combinations, were read in public
    code (maumruiz/FSL-Loss); which combination its paper names best is unknown.

    >>> from fasthash.losses.published import ICNNLoss, PrototypeTripletLoss, PrototypicalLoss
    >>> loss = MeanLoss(PrototypicalLoss(), PrototypeTripletLoss(), ICNNLoss())
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        for loss in losses:
            if not isinstance(loss, nn.Module):
                raise TypeError(f"MeanLoss: losses must be modules, got {type(loss).__name__}")
        if not losses:
            raise ValueError("MeanLoss: at least one loss is needed, got none")
        self.losses = nn.ModuleList(losses)
        # Of Hasher's batches, where it is not told: what the losses ask for; None: random batches.
        self.rows_per_class = max((getattr(loss, "rows_per_class", None) or 0 for loss in losses), default=0) or None

    def forward(self, u: Tensor, y: Any = None) -> Tensor:
        return torch.stack([loss(u, y) for loss in self.losses]).mean()
