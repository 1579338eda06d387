"""Batches of near rows: where targets are embeddings, random batches hold nearly no neighbours to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from fasthash._directions import unit_rows

# Neighbours are looked for among all rows while that takes so many pairs at most, about a minute's work on a CPU; then
# among as many random rows as that leaves, but no fewer than CANDIDATES.
PAIRS = 1 << 32
CANDIDATES = 1 << 12
NEAREST = 64  # companions of a row are drawn from this number of nearest rows


class NeighborBatches(Sampler[list[int]]):
    """Batches of `batch_size` different rows of N: random rows, each with `group` - 1 of its `nearest`, int64 [N, k].

    An epoch has N // batch_size batches. Where companions coincide, random rows take their places. With several ranks,
    each gets its part of every batch. Their generators must have the same state.

    >>> nearest = nearest_rows(torch.eye(6).repeat(2, 1), torch.Generator())
    >>> batches = NeighborBatches(nearest, 2, 4, torch.Generator().manual_seed(0))
    >>> len(batches), [len(set(batch)) for batch in batches]
    (3, [4, 4, 4])
    """

    def __init__(
        self,
        nearest: Tensor,
        group: int,
        batch_size: int,
        generator: torch.Generator,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.nearest, self.batch_size, self.generator = nearest, batch_size, generator
        self.start, self.stop = (batch_size * edge // world for edge in (rank, rank + 1))
        self.companions = min(group - 1, nearest.shape[1], batch_size - 1)

    def __len__(self) -> int:
        return len(self.nearest) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.nearest), generator=self.generator)
        groups = max(1, self.batch_size // (self.companions + 1))
        for start in range(len(self)):
            # Seeds first, then their companions, then other rows: the first batch_size different ones are taken.
            rows = order[torch.arange(start * self.batch_size, (start + 1) * self.batch_size + groups) % len(order)]
            seeds, others = rows[:groups], rows[groups:]
            draws = torch.rand(groups, self.nearest.shape[1], generator=self.generator)
            companions = self.nearest[seeds].gather(1, draws.argsort(1)[:, : self.companions])
            found = torch.cat([seeds, companions.flatten(), others]).tolist()
            yield list(dict.fromkeys(found))[self.start : self.stop]


def nearest_rows(
    targets: Tensor,
    generator: torch.Generator,
    k: int = NEAREST,
    *,
    centre: Callable[[Tensor], Tensor] | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """The min(k, N - 1) nearest other rows by cosine of each row of targets [N, E]: int64, on the CPU.

    centre: taken of the rows first, a block at a time. advance: gets the number of rows that are done.

    Among all rows, or among random ones where there are more than 2^16 (see PAIRS).

    >>> nearest_rows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]]), torch.Generator(), k=1)[:, 0].tolist()
    [2, 2, 0]
    """
    rows = len(targets)
    limit = max(CANDIDATES, PAIRS // rows)
    every = rows <= limit  # targets are then read once
    chosen = torch.arange(rows) if every else torch.randperm(rows, generator=generator)[:limit].sort().values
    centred = centre or (lambda rows: rows)
    candidates = unit_rows(centred((targets if every else targets[chosen.to(targets.device)]).float()))
    k = min(k, len(chosen) - 1)
    found = torch.empty(rows, k, dtype=torch.int64)
    for start in range(0, rows, 2048):
        block = slice(start, start + 2048)
        cosines = (candidates[block] if every else unit_rows(centred(targets[block].float()))) @ candidates.T
        nearest = chosen[cosines.topk(k + 1, dim=1).indices.cpu()]
        own = nearest == torch.arange(start, start + len(nearest))[:, None]
        own[:, -1] |= ~own.any(1)  # not among its own nearest: the furthest goes
        found[block] = nearest[~own].view(len(nearest), k)
        advance(len(nearest))
    return found
