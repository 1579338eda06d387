"""HPDH: outputs near their class's centre, at every level of a hierarchy of classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash.losses.published.outputs import check_classes, check_levels, check_outputs, check_sizes, signs


class HPDHLoss(nn.Module):
    """Outputs near centres mu of their classes at all levels, and near +1 and -1.

    sum over levels l of -log softmax_c(-s_l |u - mu_c|^2 / 2)[y_l] + (10 sum relu(|u| - 1.1) + 0.1 |sign u - u|^2) / D.

    forward(u [B, D] outputs, y [B] classes) -> scalar, a mean over the rows. `levels` int64 [L, C]: the class at each
    level that each of the C classes belongs to, finest first (see `targets.class_levels`). Centres mu of the finest
    level are means of outputs, without a gradient; those above are means of their children. s_l = 2^-l.

    Source: "hierarchy preserving deep hashing", after its public code. How sure: terms and factors read there, for two
    levels (s = 1 and 0.5); it recomputes the centres after each epoch, here they are running means (`momentum`), which
    need no second pass.

    >>> loss = HPDHLoss(16, levels=torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]]))
    >>> loss(torch.randn(8, 16), torch.arange(8) % 4).shape
    torch.Size([])
    """

    levels: Tensor
    centres: Tensor
    seen: Tensor

    def __init__(self, bits: int, levels: Tensor, *, momentum: float = 0.1, pull: float = 0.1) -> None:
        super().__init__()
        check_sizes("HPDHLoss", bits=bits)
        levels = check_levels("HPDHLoss", levels)
        self.momentum, self.pull = momentum, pull
        self.register_buffer("levels", levels)
        self.register_buffer("centres", torch.zeros(levels.shape[1], bits, dtype=torch.float32))
        self.register_buffer("seen", torch.zeros(levels.shape[1], dtype=torch.bool))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("HPDHLoss", u)
        classes = check_classes("HPDHLoss", y, len(u))
        if self.training:
            self._follow(u.detach(), classes)
        loss = u.new_zeros(())
        for depth, level in enumerate(self.levels):
            centres = _means(self.centres, level, int(level.max()) + 1).to(u.dtype)
            squares = torch.cdist(u, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
            loss = loss + cross_entropy(-0.5 * 2.0**-depth * squares, level[classes])
        outside = 10 * (u.abs() - 1.1).relu().sum(1) + self.pull * (signs(u) - u).square().sum(1)
        return loss + outside.mean() / u.shape[1]

    def _follow(self, u: Tensor, classes: Tensor) -> None:
        """Moves the centres of the batch's classes towards the means of their rows."""
        number = len(self.centres)
        counts = torch.bincount(classes, minlength=number)
        means = _means(u.to(self.centres), classes, number)
        step = torch.where(self.seen, self.momentum, 1.0) * (counts > 0)
        self.centres.add_(step[:, None] * (means - self.centres))
        self.seen |= counts > 0


def _means(rows: Tensor, groups: Tensor, number: int) -> Tensor:
    """Means [number, D] of the rows of each group; 0 for one without rows."""
    sums = rows.new_zeros(number, rows.shape[1]).index_add_(0, groups, rows)
    return sums / torch.bincount(groups, minlength=number).clamp(min=1)[:, None]
