"""Batches of pictures for training: in random order, cropped and mirrored at random, without the broken ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fasthash.images.loader import LISTED, worker_context
from fasthash.images.reading import ImageError, read_image

MARGIN = 8  # a picture is read 1/8 larger than its crop: 36 pixels for 32


class TrainingBatches(DataLoader[Any]):
    """(x float32 [B, 3, size, size] in [0, 1], y [B, ...]) in a new order each epoch, without an incomplete last one.

    All that is random comes from `generator` and, in workers, from seeds that it gives. Pictures that cannot be read
    are left out, and listed in `skipped` (the first 1,000), each once. A batch of less than 2 pictures is left out too.
    """

    def __init__(
        self,
        folder: str,
        keys: list[str],
        y: Tensor,
        *,
        size: int,
        batch_size: int,
        workers: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            _Examples(folder, keys, y, size),
            min(batch_size, len(keys)),
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            generator=generator,
            collate_fn=_collated,
            multiprocessing_context=worker_context(workers),
        )
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> list[str]:
        """A line for each picture that could not be read so far."""
        return list(self._skipped)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for pictures, y, bad in super().__iter__():
            if len(self._skipped) < LISTED:
                self._skipped.update(dict.fromkeys(bad))
            if len(y) > 1:
                yield pictures.float() / 255, y


class _Examples(Dataset[Any]):
    """By position: a random crop, perhaps mirrored, uint8 [3, size, size], and its y; or what is wrong."""

    def __init__(self, folder: str, keys: list[str], y: Tensor, size: int) -> None:
        self.folder, self.keys, self.y, self.size = folder, keys, y, size

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | str:
        key = self.keys[position]
        path = os.path.join(self.folder, key)
        larger = self.size + max(1, self.size // MARGIN)
        left, top, mirrored = torch.rand(3).tolist()  # drawn for broken pictures too: the others stay what they were
        try:
            picture = read_image(path, larger)
        except ImageError as error:
            return key + str(error).removeprefix(path)
        row, column = (int(part * (larger - self.size + 1)) for part in (top, left))
        picture = picture[:, row : row + self.size, column : column + self.size]
        return (picture.flip(2) if mirrored < 0.5 else picture.contiguous()), self.y[position]


def _collated(parts: list[tuple[Tensor, Tensor] | str]) -> tuple[Tensor, Tensor, list[str]]:
    good = [part for part in parts if not isinstance(part, str)]
    bad = [part for part in parts if isinstance(part, str)]
    if not good:
        return torch.empty(0), torch.empty(0), bad
    return torch.stack([picture for picture, _ in good]), torch.stack([y for _, y in good]), bad
