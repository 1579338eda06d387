"""BiHalf: each bit is on for half of the batch, by construction, and the gradient pulls outputs to such codes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash._arguments import whole
from fasthash._directions import directions
from fasthash.losses.published.outputs import check_classes, check_embeddings, check_outputs, check_sizes


class BiHalfLoss(nn.Module):
    """A loss on codes b [B, D] of +1 and -1: b is +1 for the half of the batch with the largest u, bit by bit.

    forward(u [B, D] outputs, y) -> scalar. The gradient of u is that of b plus gamma (u - b) / (B D). The loss on b:

    - classes=0, y floating-point embeddings [B, E]: mean square difference between the cosines of b and of y, over the
      pairs of row i of the first half of the batch with row i of the second;
    - classes=C, y class labels [B]: CE(W b), W trained along.

    Source: Li & van Gemert, "Deep unsupervised image hashing by maximizing bit entropy", AAAI 2021. How sure: layer,
    gamma = 6 and the unsupervised loss read in public code; the supervised form is the layer in the place of
    GreedyHash's sign.

    >>> import torch
    >>> loss = BiHalfLoss(16)
    >>> loss(torch.randn(6, 16), torch.randn(6, 8)).shape
    torch.Size([])
    """

    def __init__(self, bits: int, classes: int = 0, *, gamma: float = 6.0) -> None:
        super().__init__()
        check_sizes("BiHalfLoss", bits=bits)
        whole(classes, "BiHalfLoss", "classes", 0)
        self.gamma = gamma
        self.classifier = nn.Linear(bits, classes, bias=False).float() if classes else None

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("BiHalfLoss", u)
        b: Tensor = _HalfOn.apply(u, self.gamma)  # type: ignore[no-untyped-call]
        if self.classifier is not None:
            return cross_entropy(self.classifier(b), check_classes("BiHalfLoss", y, len(u)))
        wanted = directions(check_embeddings("BiHalfLoss", y, len(u))).to(u.dtype)
        half = len(u) // 2
        found = (b[:half] * b[half : 2 * half]).mean(1)  # a cosine: rows of b have length sqrt(D)
        return (found - (wanted[:half] * wanted[half : 2 * half]).sum(1)).square().mean()


class _HalfOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, gamma: float) -> Tensor:
        order = u.argsort(dim=0, descending=True, stable=True)
        half = torch.where(torch.arange(len(u), device=u.device) < len(u) // 2, 1.0, -1.0).to(u.dtype)
        b = torch.empty_like(u).scatter_(0, order, half[:, None].expand_as(u).contiguous())
        ctx.save_for_backward(u, b)
        ctx.gamma = gamma
        return b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        u, b = ctx.saved_tensors
        return gradients[0] + ctx.gamma * (u - b) / u.numel(), None
