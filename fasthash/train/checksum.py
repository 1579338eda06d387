"""Checksums of data: a run goes on only with the data that it began with."""

from __future__ import annotations

import torch
import xxhash
from torch import Tensor

SAMPLE = 1 << 24  # bytes of an array that are read: of larger ones, rows at even distances


class Checksum:
    """A checksum of texts, and of types, shapes and values of arrays, in the order in which they are added.

    An array is added whole, or by `start` and then its blocks of rows from the first to the last, for who reads them
    anyway.

    >>> X = torch.arange(6.0).view(3, 2)
    >>> blocks = Checksum()
    >>> blocks.start(X)
    >>> for first in (0, 2):
    ...     blocks.rows(X[first : first + 2], first)
    >>> blocks.text() == fingerprint(X)
    True
    """

    def __init__(self) -> None:
        self._digest, self._step = xxhash.xxh3_128(), 1

    def start(self, array: Tensor) -> None:
        """Begins an array, of which the blocks follow."""
        self._digest.update(" ".join([str(array.dtype), str(tuple(array.shape))]).encode())
        self._step = -(-array.numel() * array.element_size() // SAMPLE) if array.dim() else 1

    def rows(self, block: Tensor, first: int) -> None:
        """Takes in a block of rows of the array, the first of which has the number `first`."""
        chosen = block[-first % self._step :: self._step] if self._step > 1 else block
        self._digest.update(chosen.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def add(self, *parts: Tensor | str) -> None:
        for part in parts:
            if isinstance(part, str):
                self._digest.update(part.encode())
            else:
                self.start(part)
                self.rows(part, 0)

    def text(self) -> str:
        return self._digest.hexdigest()


def fingerprint(*parts: Tensor | str) -> str:
    """The `Checksum` of texts and arrays.

    >>> fingerprint(torch.arange(3)) == fingerprint(torch.arange(3)), fingerprint(torch.arange(3).float()) == ""
    (True, False)
    """
    checksum = Checksum()
    checksum.add(*parts)
    return checksum.text()
