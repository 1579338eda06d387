"""Batches of class-mates beside the batches of a loader: what the item part of two-part codes learns from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fasthash.train.encoder import Standardize

GROUP = 32  # rows of a class that are compared with one another
STREAM = 0x2545F4914F6CDD1D  # between the seed of the order of rows and that of the groups


class ClassBatches:
    """The batches (x [B, F], y) of a loader, each with B class-mates: ({"x", "mates"}, y, features [B, F], groups [B]).

    The mates are rows of X in groups of up to 32 of one class, in a new order each time all have come. groups: the
    number of each one's group. features: the mates as float32, whose cosines are wanted; standardised by `standard`,
    for X with values far out or features of several units.

    classes: of the rows of X, int64 [N]. Rows whose class has no other row are mates of each other. Random: a generator
    of its own from `seed`, which checkpoints hold with that of the loader. Of `world` ranks each gets its part.

    >>> from fasthash.train.batches import shuffled_batches
    >>> X, y = torch.randn(9, 3), torch.arange(9) % 2
    >>> loader = shuffled_batches(X, y, batch_size=4, generator=torch.Generator().manual_seed(0))
    >>> [list(x["mates"].shape) + list(groups.shape) for x, y, _, groups in ClassBatches(loader, X, y, size=4, seed=0)]
    [[4, 3, 4], [4, 3, 4]]
    """

    def __init__(
        self,
        loader: DataLoader[tuple[Tensor, ...]],
        X: Tensor,
        classes: Tensor,
        *,
        size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        standard: Standardize | None = None,
    ) -> None:
        self.loader, self.sampler, self.X, self.size, self.standard = loader, loader.sampler, X, size, standard
        self.start, self.stop = (size * edge // world for edge in (rank, rank + 1))
        self.generator = torch.Generator().manual_seed(seed ^ STREAM)
        counts = torch.bincount(classes)
        merged = torch.where(counts[classes] > 1, classes, len(counts))
        members = merged.argsort(stable=True).split(torch.bincount(merged).tolist())
        # By their first rows: how classes are numbered changes nothing.
        self.members = sorted((rows for rows in members if len(rows)), key=lambda rows: int(rows[0]))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor, Tensor]]:
        mates = self._mates()
        for x, y in self.loader:
            rows, groups = next(mates)
            given = self.X[rows[self.start : self.stop].to(self.X.device)]
            features: Any = given.float() if self.standard is None else self.standard(given)
            yield {"x": x, "mates": given}, y, features, groups[self.start : self.stop]

    def _mates(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows [size] and the numbers of their groups, without end."""
        rows, groups, number = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), 0
        while True:
            chunks = [chunk for members in self.members for chunk in self._shuffled(members).split(GROUP)]
            for place in torch.randperm(len(chunks), generator=self.generator).tolist():
                chunk = chunks[place]
                rows, groups = torch.cat([rows, chunk]), torch.cat([groups, torch.full_like(chunk, number)])
                number += 1
                if len(rows) >= self.size:
                    yield rows[: self.size], groups[: self.size]
                    rows, groups = rows[self.size :], groups[self.size :]

    def _shuffled(self, rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=self.generator)]
