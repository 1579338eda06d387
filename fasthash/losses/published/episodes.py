"""What losses over episodes share: which rows of a batch are support, and how far the others are from prototypes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Queries(NamedTuple):
    """The queries of a batch: squares [Q, W], squared distances to the W prototypes; own int64 [Q], their classes."""

    squares: Tensor
    own: Tensor

    def mean(self, losses: Tensor) -> Tensor:
        """The mean of losses [Q]; 0 where there is no query."""
        return losses.sum() / max(len(losses), 1)


def support_rows(y: Tensor, shot: int) -> Tensor:
    """Which rows of a batch are support, boolean [B]: the first `shot` of each class y int64 [B]. Others are queries.

    >>> support_rows(torch.tensor([0, 0, 1, 0, 1]), shot=1).tolist()
    [True, False, True, False, False]
    """
    earlier = (y[:, None] == y).tril(-1).sum(1)
    return earlier < shot


def to_prototypes(u: Tensor, y: Tensor, shot: int) -> Queries:
    """Queries of outputs u [B, D] against the prototypes of all classes y int64 [B], the means of their support.

    No query is part of a prototype. A class with `shot` rows or fewer has no query, and its prototype is the mean of
    what it has.

    >>> to_prototypes(torch.tensor([[0.0], [3.0], [1.0]]), torch.tensor([7, 8, 7]), shot=1)
    Queries(squares=tensor([[1., 4.]]), own=tensor([0]))
    """
    classes, place = y.unique(return_inverse=True)
    support = support_rows(y, shot)
    members = (place == torch.arange(len(classes), device=y.device)[:, None]) & support
    prototypes = members.to(u.dtype) @ u / members.sum(1, keepdim=True)
    distances = torch.cdist(u[~support], prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    return Queries(distances.square(), place[~support])
