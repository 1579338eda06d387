"""Episodes: batches of a few classes with as many rows of each; the first of them are support, the others queries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from fasthash._arguments import whole
from fasthash._labels import label_array


class EpisodeBatches(Sampler[list[int]]):
    """Batches of row numbers: `way` random classes, and of each `shot` + `queries` random rows, all different.

    The rows of a class follow one another. Its first `shot` are the support of losses such as
    `losses.published.PrototypeTripletLoss(shot=shot)`, the others are the queries: none is both. Each batch is drawn
    anew, so rows of large classes come less often than those of small ones.

    Args:
        y: class labels of all rows, integers or strings [N].
        way: classes of a batch.
        shot: support rows of a class. queries: further rows of it.
        batches: of an epoch; None: as many as N rows fill.
        seed: of the draws. The same seed gives the same epochs, in the same order. generator: a torch.Generator in its
            place. Checkpoints of `fasthash.train.train` hold its state.
        rank, world: of `world` ranks, each gets its part of every batch; their generators must have the same state.

    Raises ValueError where a class has fewer than `shot` + `queries` rows: leave such classes out of the data first.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> X, y = torch.randn(40, 3), torch.arange(40) % 4
    >>> episodes = EpisodeBatches(y, way=2, shot=1, queries=3, seed=0)
    >>> loader = DataLoader(TensorDataset(X, y), batch_sampler=episodes)
    >>> len(loader), [tuple(x.shape) for x, _ in loader][0]
    (5, (8, 3))
    """

    def __init__(
        self,
        y: Any,
        *,
        way: int,
        shot: int = 1,
        queries: int = 15,
        batches: int | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        labels = label_array(y, "EpisodeBatches", "y")
        if labels.ndim != 1 or not len(labels):
            raise ValueError(f"EpisodeBatches: y must be class labels of shape [N], N >= 1, got {list(labels.shape)}")
        self.shot = whole(shot, "EpisodeBatches", "shot", 1)
        self.queries = whole(queries, "EpisodeBatches", "queries", 1)
        names, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        self.way = whole(way, "EpisodeBatches", "way", 1, len(names), "the classes of y")
        self.rows_per_class = self.shot + self.queries
        if counts.min() < self.rows_per_class:
            small = int(counts.argmin())
            raise ValueError(
                f"EpisodeBatches: each class needs {self.shot} + {self.queries} rows, shot + queries, got "
                f"{int(counts[small])} of class {names[small].item()!r}"
            )
        batch = self.way * self.rows_per_class
        self.batches = (
            max(len(labels) // batch, 1) if batches is None else whole(batches, "EpisodeBatches", "batches", 1)
        )
        self.start, self.stop = (batch * edge // world for edge in (rank, rank + 1))
        order = torch.from_numpy(places.reshape(-1).argsort(kind="stable"))
        # By their first rows: how classes are numbered changes nothing.
        self.members: list[Tensor] = sorted(order.split(counts.tolist()), key=lambda rows: int(rows[0]))
        if generator is None:
            generator = torch.Generator().manual_seed(whole(seed, "EpisodeBatches", "seed", 0, 2**63 - 1))
        self.generator = generator

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.batches):
            classes = torch.randperm(len(self.members), generator=self.generator)[: self.way]
            rows = torch.cat([self._drawn(self.members[place]) for place in classes.tolist()])
            yield rows[self.start : self.stop].tolist()

    def _drawn(self, rows: Tensor) -> Tensor:
        """Different rows of a class, as many as a batch has of each."""
        return rows[torch.randperm(len(rows), generator=self.generator)[: self.rows_per_class]]
