"""The methods of task h: HashGNN, and factors of BPR-MF with the ways to make codes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.quality.recommendation import Recommender, asked
from benchmarks.quality.tasks import Items, Task
from fasthash import GraphHasher, Hasher, baselines
from fasthash.train import train
from fasthash.train.edges import Edges
from fasthash.train.hash_gnn import LinkBatches
from fasthash.train.randomness import seeded

Array = NDArray[Any]
Settings = dict[str, Any]
Factors = tuple[Array, Array]
CPU = torch.device("cpu")
HASHER_EPOCHS = 40  # 200 would take longer than all other methods together


def shape_of(task: Task) -> tuple[int, int]:
    users, films = asked(task, "test")[0].shape
    return users, films


def fit_graph(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Recommender:
    """GraphHasher, with the package's settings where the tried ones say nothing else."""
    hasher = GraphHasher(bits, seed=seed, progress=False, **settings).fit(rows.X, shape=shape_of(task))
    outputs = hasher.transform()
    return Recommender(2 * outputs.users - 1, 2 * outputs.items - 1)


class Factorisation(nn.Module):
    """rows [B, 1 + n], a user and films -> a vector for each."""

    def __init__(self, shape: tuple[int, int], width: int) -> None:
        super().__init__()
        self.users, self.films = (nn.Embedding(size, width) for size in shape)
        for embedding in (self.users, self.films):
            nn.init.normal_(embedding.weight, std=0.1)

    def forward(self, rows: Tensor) -> Tensor:
        return torch.cat([self.users(rows[:, :1]), self.films(rows[:, 1:])], dim=1)


def ranking_loss(l2: float) -> Callable[..., Tensor]:
    """BPR (Rendle et al., 2009), with squared lengths as in its regularisation."""

    def loss(x: Tensor, _: Tensor) -> Tensor:
        scores = (x[:, 1:] @ x[:, 0, :, None])[..., 0]
        lengths = x.square().sum(-1)
        penalty = lengths[:, :2].sum(1).mean() + lengths[:, 2:].mean()
        return softplus(scores[:, 1:] - scores[:, :1]).mean() + l2 * penalty

    return loss


_factors: dict[Any, Factors] = {}  # several methods begin with the same


def factors(task: Task, rows: Items, bits: int, seed: int, l2: float) -> Factors:
    known = task.name, len(rows.X), bits, seed, l2
    if known not in _factors:
        edges = Edges(rows.X, shape_of(task))
        with seeded(seed, CPU):
            module = Factorisation(edges.shape, bits)
            batches = LinkBatches(edges, 10, batch_size=4096, seed=seed)
            train(module, batches, ranking_loss(l2), epochs=40, lr=1e-2, weight_decay=0.0, progress=False)
        _factors[known] = module.users.weight.detach().numpy(), module.films.weight.detach().numpy()
    return _factors[known]


def fit_factors(coded: bool = True) -> Callable[..., Recommender]:
    """The factors themselves, and their signs where `coded`."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Recommender:
        return Recommender(*factors(task, rows, bits, seed, **settings), coded)

    return fit


def fit_on_factors(codes: Callable[..., Any]) -> Callable[..., Recommender]:
    """Codes of the vectors of users and films together: what `codes(X, bits, seed)` learns of them."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> Recommender:
        sides = factors(task, rows, bits, seed, **settings)
        transform = codes(np.concatenate(sides), bits, seed)
        return Recommender(*(transform(side) for side in sides))

    return fit


def linear(function: Callable[..., baselines.LinearCodes]) -> Callable[..., Any]:
    return lambda X, bits, seed: function(X, bits, seed=seed).transform


def hasher(X: Array, bits: int, seed: int) -> Callable[[Array], Array]:
    """Hasher of fasthash without targets, with a fifth of its default passes."""
    fitted = Hasher(bits, epochs=HASHER_EPOCHS, seed=seed, progress=False).fit(X)
    return lambda rows: 2 * fitted.queries(rows) - 1
