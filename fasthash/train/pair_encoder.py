"""Pairs of two modalities: batches of both, an encoder for each, and the loss over what is there of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fasthash.losses.published import MultilevelTripletLoss
from fasthash.train.encoder import encoder
from fasthash.train.features import Features

FEWEST = 2  # rows of a modality in a batch: batch norms need two


class SideBySide:
    """Rows [N, F1 + F2] of two tensors or memory-mapped ones, float32, joined a batch at a time.

    >>> SideBySide(torch.zeros(3, 2), torch.ones(3, 1))[torch.tensor([2])]
    tensor([[0., 0., 1.]])
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second
        self.device = first.device

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, rows: Tensor) -> Tensor:
        parts = (side[rows.to(side.device)].float().to(self.device) for side in (self.first, self.second))
        return torch.cat(list(parts), dim=1)


class PairEncoder(nn.Module):
    """Two encoders: x [B, F1 + F2], rows of both modalities, -> real-valued outputs [B, 2, bits].

    A row of NaN in the place of a modality says that it is missing. Its outputs are NaN, and the other rows do not feel
    it. In training a modality with a single row in the batch is left out like a missing one.

    sides: of both modalities the width, or `Features` with what standardises them.

    >>> PairEncoder((3, 2), 8, hidden=(), dropout=0.0)(torch.randn(4, 5)).shape
    torch.Size([4, 2, 8])
    """

    def __init__(self, sides: Sequence[int | Features], bits: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.bits, self.widths = bits, [each if isinstance(each, int) else each.rows.shape[1] for each in sides]
        encoders = []
        for width, each in zip(self.widths, sides, strict=True):
            known = {} if isinstance(each, int) else {n: getattr(each, n) for n in ("mean", "deviation", "limit")}
            encoders.append(encoder(width, bits, hidden=hidden, dropout=dropout, sigmoid=False, **known))
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for side, each in zip(x.split(self.widths, dim=1), self.encoders, strict=True):
            there = ~side[:, 0].isnan()
            found = side.new_full((len(side), self.bits), torch.nan)
            if int(there.sum()) >= (FEWEST if self.training else 1):
                found = found.index_put((there,), each(side[there]))
            outputs.append(found)
        return torch.stack(outputs, dim=1)


class PairLoss(nn.Module):
    """`MultilevelTripletLoss` of the outputs [B, 2, bits] of a `PairEncoder`.

    y: classes [B], -1 without one, or multi-hot labels [B, L]. present, boolean [B, 2]: which modalities a row has.
    """

    def __init__(self, triplets: MultilevelTripletLoss) -> None:
        super().__init__()
        self.triplets = triplets

    def forward(self, u: Tensor, y: Tensor, present: Tensor) -> Tensor:
        if y.dim() == 1:
            y = y[:, None] == y[y >= 0].unique()
        present = present & (present.sum(0) >= FEWEST)
        loss: Tensor = self.triplets(u[:, 0], y, u[:, 1], present)
        return loss
