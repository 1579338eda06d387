"""Shuffled batches of arrays in memory (or memory-mapped), as a DataLoader."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler


class Rows(Dataset[tuple[Tensor, ...]]):
    """Aligned tensors [N, ...]. An item is the batch of a list of rows, so nothing is collated row by row."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, ...]:
        index = torch.tensor(rows)
        return tuple(column[index.to(column.device)] for column in self.columns)


def shuffled_batches(*columns: Tensor, batch_size: int, generator: torch.Generator) -> DataLoader[tuple[Tensor, ...]]:
    """A DataLoader of batches with one part for each column, in a new order each epoch, without an incomplete last one.

    >>> loader = shuffled_batches(torch.arange(5), batch_size=2, generator=torch.Generator().manual_seed(0))
    >>> len(loader), [len(batch[0]) for batch in loader]
    (2, [2, 2])
    """
    rows = Rows(*columns)
    sampler = BatchSampler(RandomSampler(rows, generator=generator), batch_size, drop_last=True)
    return DataLoader(rows, sampler=sampler, batch_size=None, generator=generator)
