"""Prototypical networks: cross-entropy over the distances of a query to the prototypes of the classes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fasthash._arguments import number
from fasthash.losses.published.episodes import to_prototypes
from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes


class PrototypicalLoss(nn.Module):
    """Mean over queries q of class w of -log softmax_v(-|q - c_v|^2 / temperature)[w].

    forward(u [B, D] outputs, y [B] classes) -> scalar. c_v is the mean of the support of class v, its first `shot` rows
    of the batch; all later rows are queries, as in `PrototypeTripletLoss`. Without a query, or with one class alone,
    the loss is 0.

    Source: Snell, Swersky & Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017, equation (2), as the
    cross-entropy that SuSana Distancia adds its losses to. How sure: read in public code (maumruiz/FSL-Loss), with its
    temperature of 1. Ours: support and queries from the order of a batch.

    >>> import torch
    >>> loss = PrototypicalLoss()
    >>> loss(torch.tensor([[0.0], [4.0], [0.0], [4.0]]), torch.tensor([0, 1, 0, 1])) < 1e-6
    tensor(True)
    """

    rows_per_class = 16  # the default of Hasher with this loss

    def __init__(self, *, shot: int = 1, temperature: float = 1.0) -> None:
        super().__init__()
        check_sizes("PrototypicalLoss", shot=shot)
        self.shot, self.temperature = shot, number(temperature, "PrototypicalLoss", "temperature", above=0)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("PrototypicalLoss", u)
        queries = to_prototypes(u, check_classes("PrototypicalLoss", y, len(u)), self.shot)
        return queries.mean(cross_entropy(-queries.squares / self.temperature, queries.own, reduction="none"))
