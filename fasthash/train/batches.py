"""Shuffled batches of arrays in memory (or memory-mapped), as a DataLoader."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fasthash.train.episode_batches import EpisodeBatches
from fasthash.train.neighbor_batches import NeighborBatches


class Column(Protocol):
    """What batches are made of: a tensor [N, ...], or what gives one of some rows (`fasthash.train.word_bags`)."""

    device: torch.device

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


class Rows(Dataset[tuple[Tensor, ...]]):
    """Aligned tensors [N, ...]. An item is the batch of a list of rows, so nothing is collated row by row."""

    def __init__(self, *columns: Column) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, ...]:
        index = torch.tensor(rows)
        read: dict[int, Tensor] = {}
        for column in self.columns:  # where targets are the features, they are read once
            if id(column) not in read:
                read[id(column)] = column[index.to(column.device)]
        return tuple(read[id(column)] for column in self.columns)


class ShuffledBatches(Sampler[list[int]]):
    """Batches of row numbers in a new order each time, without an incomplete last one; of each, one rank's part.

    The parts of all ranks, in rank order, are the batch, if their generators have the same state. Takes 8 bytes a row.
    RandomSampler of torch has the same order and takes 40.
    """

    def __init__(self, rows: int, batch_size: int, generator: torch.Generator, rank: int = 0, world: int = 1) -> None:
        self.rows, self.batch_size, self.generator = rows, batch_size, generator
        self.start, self.stop = (batch_size * edge // world for edge in (rank, rank + 1))

    def __len__(self) -> int:
        return self.rows // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(self.rows, generator=self.generator)
        for batch in order.split(self.batch_size)[: len(self)]:
            yield batch[self.start : self.stop].tolist()
        torch.randperm(self.rows, generator=self.generator)  # as RandomSampler: what a seed gives stays what it was


def shuffled_batches(
    *columns: Column,
    batch_size: int,
    generator: torch.Generator,
    nearest: Tensor | None = None,
    group: int = 1,
    episodes: EpisodeBatches | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[tuple[Tensor, ...]]:
    """A DataLoader of batches with one part for each column, in a new order each epoch, without an incomplete last one.

    nearest: with it, and group > 1, batches hold near rows together (see `NeighborBatches`), and the rows of an epoch
    are drawn instead of being gone through. episodes: the batches themselves, in the place of those of batch_size.
    workers: processes that read ahead, for columns that are read from a disk; the batches are the same. Of `world`
    ranks, each gets its part of every batch; their generators must have the same state.

    >>> loader = shuffled_batches(torch.arange(5), batch_size=2, generator=torch.Generator().manual_seed(0))
    >>> len(loader), [len(batch[0]) for batch in loader]
    (2, [2, 2])
    """
    rows = Rows(*columns)
    sampler: Sampler[list[int]] = ShuffledBatches(len(rows), batch_size, generator, rank, world)
    if episodes is not None:
        sampler = episodes
    elif nearest is not None and group > 1:
        sampler = NeighborBatches(nearest, group, batch_size, generator, rank, world)
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
