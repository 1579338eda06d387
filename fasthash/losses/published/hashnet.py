"""HashNet: pairwise logistic loss on nearly binary outputs, which sharpen as training goes on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fasthash._arguments import whole
from fasthash._labels import one_column
from fasthash.losses.published.outputs import alike, check_outputs, check_sizes


class HashNetLoss(nn.Module):
    """Weighted mean over pairs of softplus(x_ij) - s_ij x_ij, x_ij = alpha h_i . h_j, h = tanh(beta u).

    forward(u [B, D] outputs, y) -> scalar; which pairs are alike (s_ij = 1): those of one class (y integers [B]), those
    with at least one label in common (y multi-hot labels, integers [B, L]), or those that y says, booleans [B, B].
    Pairs are those of the batch with itself and with the latest `memory` outputs (classes only), which are kept as they
    were. Weights balance the two kinds of pairs: 1 / part of the pairs that are of that kind. beta = (1 + gamma
    step)^power grows in training mode. alpha: None for 10 / D.

    Source: Cao, Long, Wang & Yu, "HashNet: deep learning to hash by continuation", ICCV 2017. How sure: the pair loss
    and its weights read in public code; one label in common is the rule of the paper's multi-label data sets (NUS-WIDE,
    COCO), restated. The code compares with all training codes (here: a queue); the steps of beta from
    memory.

    >>> import torch
    >>> loss = HashNetLoss(16)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    outputs: Tensor
    classes: Tensor
    steps: Tensor

    def __init__(
        self, bits: int, *, alpha: float | None = None, gamma: float = 5e-3, power: float = 0.5, memory: int = 1024
    ) -> None:
        super().__init__()
        check_sizes("HashNetLoss", bits=bits)
        whole(memory, "HashNetLoss", "memory", 0)
        self.alpha = 10 / bits if alpha is None else alpha
        self.gamma, self.power = gamma, power
        self.register_buffer("outputs", torch.zeros(memory, bits, dtype=torch.float32))
        self.register_buffer("classes", torch.full((memory,), -1, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("HashNetLoss", u)
        y = one_column(y) if isinstance(y, Tensor) else y
        same = alike("HashNetLoss", y, len(u))
        h = torch.tanh((1 + self.gamma * self.steps) ** self.power * u)
        counted = ~torch.eye(len(u), dtype=torch.bool, device=u.device)
        logits = self.alpha * h @ h.T
        remembers = y is not None and y.dim() == 1 and len(self.outputs) > 0
        if remembers and y is not None:
            logits = torch.cat([logits, self.alpha * h @ self.outputs.to(h.dtype, copy=True).T], dim=1)
            same = torch.cat([same, y[:, None] == self.classes], dim=1)
            counted = torch.cat([counted, (self.classes >= 0).expand(len(u), -1)], dim=1)
        pairs = counted.sum()
        like = (same & counted).sum()
        weights = torch.where(same, pairs / like.clamp(min=1), pairs / (pairs - like).clamp(min=1)) * counted
        loss = (weights * (softplus(logits) - same * logits)).sum() / pairs
        if self.training:
            self.steps += 1
            if remembers and y is not None:
                rows = min(len(u), len(self.outputs))
                self.outputs.copy_(torch.cat([h.detach()[:rows].to(self.outputs), self.outputs[:-rows]]))
                self.classes.copy_(torch.cat([y[:rows].long(), self.classes[:-rows]]))
        return loss
