"""DSRH, deep semantic ranking hashing: triplets weighted by what their wrong order costs in NDCG."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fasthash._arguments import number
from fasthash.losses.published.ordered_pairs import ordered_hinges
from fasthash.losses.published.outputs import check_outputs, half_distances, label_rows, shared_labels


class DSRHLoss(nn.Module):
    """Mean_q sum_{r_qi > r_qj} (2^r_qi - 2^r_qj) relu(margin + (d_qi - d_qj) / K) / Z_q, r = shared labels.

    forward(u [B, D] outputs, y) -> scalar; y: multi-hot labels, integers or booleans [B, L], or classes [B] (r is 0 or
    1). d_qi = (K - h_q . h_i) / 2, h = tanh u, over all triplets of the batch. Z_q is the sum of the weights of q's
    pairs. Rows whose others are all equally similar do not count.

    Source: Zhao, Huang, Wang & Tan, "Deep semantic ranking based hashing for multi-label image retrieval", CVPR 2015.
    How sure: the weighted hinge restated in a survey. Ours: Z (the formula there says no more than that it
    normalises), tanh, the margin in parts of K. The balance of bits and the weight decay that the paper adds (from
    memory) are left out.

    >>> loss = DSRHLoss()
    >>> loss(torch.randn(4, 16), torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])).shape
    torch.Size([])
    """

    def __init__(self, *, margin: float = 0.25) -> None:
        super().__init__()
        self.margin = number(margin, "DSRHLoss", "margin", least=0)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("DSRHLoss", u)
        h, shared = u.tanh(), shared_labels(label_rows("DSRHLoss", y, len(u)).to(u.dtype))
        others = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
        gain = torch.exp2(shared - shared.amax())  # the largest is 1: Z takes out any factor
        found, weights = ordered_hinges(
            half_distances(h, h) / h.shape[1], shared, others, margin=self.margin, gain=gain
        )
        counted = weights > 0
        return (found / weights.where(counted, 1.0)).where(counted, 0.0).sum() / counted.sum().clamp(min=1)
