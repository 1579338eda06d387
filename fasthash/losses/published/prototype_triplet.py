"""SuSana Distancia's prototype triplet: a query is nearer to its own class's prototype than to the nearest other."""

from __future__ import annotations

import math

from torch import Tensor, nn

from fasthash._arguments import number
from fasthash.losses.published.episodes import to_prototypes
from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes

EPS = 1e-6  # added to squared distances, so that a query on its prototype has a gradient


class PrototypeTripletLoss(nn.Module):
    """Mean over queries q of class w of relu(d(q, c_w) - min_{v != w} d(q, c_v) + margin).

    forward(u [B, D] outputs, y [B] classes) -> scalar. d(a, b) = sqrt(|a - b|^2 + 1e-6). c_v is the mean of the support
    of class v: its first `shot` rows of the batch, in the order of the batch. All later rows of a class are queries, so
    no query is part of a prototype. Any batch will do. An episode is one that has `shot` + Q rows of each of its
    classes (`fasthash.train.EpisodeBatches`, `Hasher(rows_per_class=...)`). Without a query, or with one class alone,
    the loss is 0.

    Source: Mendez-Ruiz et al., "SuSana Distancia is all you need", arXiv 2305.09062 (2023). How sure: the formula, the
    margin of 0.5 and the 1e-6 were read in public code (maumruiz/FSL-Loss). Ours: support and queries from the order of
    a batch, and the outputs u of codes in the place of an embedding. That code draws support and queries independently,
    so that a query can be in the support; here they are disjoint.

    >>> import torch
    >>> loss = PrototypeTripletLoss()
    >>> loss(torch.tensor([[0.0], [4.0], [1.0], [3.0]]), torch.tensor([0, 1, 0, 1]))
    tensor(0.)
    """

    rows_per_class = 16  # the default of Hasher with this loss

    def __init__(self, *, shot: int = 1, margin: float = 0.5) -> None:
        super().__init__()
        check_sizes("PrototypeTripletLoss", shot=shot)
        self.shot, self.margin = shot, number(margin, "PrototypeTripletLoss", "margin", least=0)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("PrototypeTripletLoss", u)
        queries = to_prototypes(u, check_classes("PrototypeTripletLoss", y, len(u)), self.shot)
        distances, own = (queries.squares + EPS).sqrt(), queries.own[:, None]
        nearest_other = distances.scatter(1, own, math.inf).amin(1)
        return queries.mean((distances.gather(1, own)[:, 0] - nearest_other + self.margin).relu())
