"""Class Anchor Margin: outputs near a learned anchor of their class, anchors a margin apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fasthash._arguments import number
from fasthash.codes import pack_bits
from fasthash.losses.published.code_distance import code_distance_bounds
from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes, hadamard_centres


class ClassAnchorMarginLoss(nn.Module):
    """L_A + repel L_R + min_norm L_N, of outputs u and learned anchors c of the classes, all by Euclidean distance.

    - L_A = mean over rows of |u - c_y|^2 / 2: the attractor.
    - L_R = mean over ordered pairs of classes of relu(2 m - |c - c'|)^2 / 2: the repeller, 2 m = `margin`.
    - L_N = mean over classes of relu(p - |c|)^2 / 2: the minimum norm, p = `norm`.

    forward(u [B, D] outputs, y [B] classes) -> scalar; float32, float64 of float64. The anchors, a parameter [classes,
    bits], are trained along: give the optimizer the parameters of this module. margin None: 2 sqrt(d), with the
    distance d that `code_distance_bounds` guarantees; norm None: sqrt(bits). 0 leaves a term out. Anchors begin as rows
    of +-Hadamard, random +1 and -1 where there are too few. Where two anchors coincide, the repeller has no gradient.
    `codes()` are the anchors' codes, for `fasthash.index.AnchorIndex`. Raises ValueError for a class outside 0 ..
    classes - 1 (looked at on the CPU).

    Source: Ghita & Ionescu, "Class anchor margin loss for content-based image retrieval", 2023 (arXiv 2306.00630). How
    sure: the three terms are named in the abstract; L_A and L_R are restated from a re-implementation's docstring, L_N
    and unit weights from memory (medium). Ours: means over pairs and classes in the place of sums, so that the scale
    does not depend on the number of classes; the margin, the norm and the first anchors, which the paper's text could
    not be had for; signs of anchors as codes.

    >>> import torch
    >>> loss = ClassAnchorMarginLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    >>> loss.codes().shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        bits: int,
        classes: int,
        *,
        margin: float | None = None,
        norm: float | None = None,
        repel: float = 1.0,
        min_norm: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        name = "ClassAnchorMarginLoss"
        check_sizes(name, bits=bits, classes=classes)
        if margin is None:
            margin = 2.0 * math.sqrt(code_distance_bounds(bits, classes)[0])
        self.margin = number(margin, name, "margin", least=0)
        self.norm = number(math.sqrt(bits) if norm is None else norm, name, "norm", least=0)
        self.repel = number(repel, name, "repel", least=0)
        self.min_norm = number(min_norm, name, "min_norm", least=0)
        self.anchors = nn.Parameter(hadamard_centres(classes, bits, both_signs=True, seed=seed))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("ClassAnchorMarginLoss", u)
        labels = check_classes("ClassAnchorMarginLoss", y, len(u))
        classes, bits = self.anchors.shape
        if u.shape[1] != bits:
            raise ValueError(f"ClassAnchorMarginLoss: u must have {bits} columns, one for each bit, got {u.shape[1]}")
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= classes:
                raise ValueError(f"ClassAnchorMarginLoss: y must be in 0..{classes - 1}, got {low}..{high}")
        anchors = self.anchors.to(u.dtype)
        loss = (u - anchors[labels]).square().sum(1).mean() / 2
        if self.repel and classes > 1:
            # pdist has each unordered pair once: the mean over ordered pairs is the same. Its gradient at 0 is 0.
            gaps = (self.margin - torch.pdist(anchors)).relu()
            loss = loss + self.repel * gaps.square().mean() / 2
        if self.min_norm:
            short = (self.norm - torch.linalg.vector_norm(anchors, dim=1)).relu()
            loss = loss + self.min_norm * short.square().mean() / 2
        return loss

    def codes(self) -> Tensor:
        """Packed codes uint8 [classes, ceil(bits / 8)] of the anchors: their signs."""
        codes: Tensor = pack_bits(self.anchors.detach(), threshold=0.0)
        return codes
