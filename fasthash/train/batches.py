"""Shuffled batches of arrays in memory (or memory-mapped), as a DataLoader."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler


class Rows(Dataset[tuple[Tensor, ...]]):
    """Aligned tensors [N, ...]. An item is the batch of a list of rows, so nothing is collated row by row."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, ...]:
        index = torch.tensor(rows)
        return tuple(column[index.to(column.device)] for column in self.columns)


class RankPart(Sampler[list[int]]):
    """One rank's consecutive part of every batch: the parts of all ranks, in rank order, are the batch."""

    def __init__(self, batches: BatchSampler, rank: int, world: int) -> None:
        self.sampler, self.rank, self.world = batches, rank, world

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.sampler:
            start, stop = (len(batch) * edge // self.world for edge in (self.rank, self.rank + 1))
            yield batch[start:stop]


def shuffled_batches(
    *columns: Tensor, batch_size: int, generator: torch.Generator, workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[tuple[Tensor, ...]]:
    """A DataLoader of batches with one part for each column, in a new order each epoch, without an incomplete last one.

    workers: processes that read ahead, for columns that are read from a disk; the batches are the same. Of `world`
    ranks, whose generators are alike, each gets its part of every batch.

    >>> loader = shuffled_batches(torch.arange(5), batch_size=2, generator=torch.Generator().manual_seed(0))
    >>> len(loader), [len(batch[0]) for batch in loader]
    (2, [2, 2])
    """
    rows = Rows(*columns)
    batches = BatchSampler(RandomSampler(rows, generator=generator), batch_size, drop_last=True)
    sampler = batches if world == 1 else RankPart(batches, rank, world)
    # Forked processes share the columns; others would be sent a copy of memory-mapped ones.
    context = "fork" if workers and sys.platform == "linux" else None
    return DataLoader(
        rows,
        sampler=sampler,
        batch_size=None,
        generator=generator,
        num_workers=workers,
        multiprocessing_context=context,
    )
