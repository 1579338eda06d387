"""The pictures of a recipe, by row number: in memory, or in files that are read as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash.images import ImageLoader
from fasthash.images.training import TrainingBatches
from fasthash.train.checksum import fingerprint

SHIFT = 4  # pixels; training shifts a picture of 32 pixels by up to 4, larger pictures in proportion


class Pictures(Protocol):
    """N pictures, by row."""

    @property
    def skipped(self) -> list[str]:
        """A line for each picture that `read` could not read so far."""

    def __len__(self) -> int: ...

    def batches(
        self, rows: NDArray[np.int64], y: Tensor, batch_size: int, workers: int, generator: torch.Generator
    ) -> Iterable[Any]:
        """Training batches (x float32 [B, 3, S, S] in [0, 1], y) of these rows in random order, varied at random."""

    def read(self, rows: NDArray[np.int64], batch_size: int, workers: int) -> Iterator[tuple[Tensor, list[int]]]:
        """(x float32 [B, 3, S, S], their rows), in order, without those that cannot be read."""

    def checksum(self) -> str:
        """Tells other pictures, or another order, apart."""


class ArrayPictures:
    """Pictures in memory: uint8 [N, S, S, 3]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    @property
    def skipped(self) -> list[str]:
        return []

    def __len__(self) -> int:
        return len(self.images)

    def batches(
        self, rows: NDArray[np.int64], y: Tensor, batch_size: int, workers: int, generator: torch.Generator
    ) -> Iterable[Any]:
        return _ArrayBatches(self.images, torch.from_numpy(rows), y, batch_size, generator)

    def read(self, rows: NDArray[np.int64], batch_size: int, workers: int) -> Iterator[tuple[Tensor, list[int]]]:
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield self.images[torch.from_numpy(part)].float() / 255, part.tolist()

    def checksum(self) -> str:
        return fingerprint(self.images.permute(0, 2, 3, 1))


class _ArrayBatches:
    """Each epoch in a new order, shifted and mirrored at random, without an incomplete last batch."""

    def __init__(self, images: Tensor, rows: Tensor, y: Tensor, batch_size: int, generator: torch.Generator) -> None:
        self.images, self.rows, self.y, self.generator = images, rows, y, generator
        self.batch_size = min(batch_size, len(rows))

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.rows), generator=self.generator)
        for chosen in order.split(self.batch_size)[: len(self)]:
            yield self._varied(self.images[self.rows[chosen]].float() / 255), self.y[chosen]

    def _varied(self, x: Tensor) -> Tensor:
        size = x.shape[-1]
        margin = max(1, SHIFT * size // 32)
        wide = torch.nn.functional.pad(x, (margin,) * 4, mode="reflect")
        places = torch.randint(2 * margin + 1, (2, len(x)), generator=self.generator).tolist()
        moved = torch.stack(
            [part[:, top : top + size, left : left + size] for part, top, left in zip(wide, *places, strict=True)]
        )
        mirrored = torch.rand(len(x), 1, 1, 1, generator=self.generator) < 0.5
        return torch.where(mirrored, moved.flip(3), moved)


class FilePictures:
    """Files in a folder, scaled to `size`: none is opened before it is needed."""

    def __init__(self, folder: str, keys: list[str], size: int) -> None:
        self.folder, self.keys, self.size = folder, keys, size
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> list[str]:
        return list(self._skipped)

    def __len__(self) -> int:
        return len(self.keys)

    def batches(
        self, rows: NDArray[np.int64], y: Tensor, batch_size: int, workers: int, generator: torch.Generator
    ) -> Iterable[Any]:
        return TrainingBatches(
            self.folder,
            [self.keys[row] for row in rows],
            y,
            size=self.size,
            batch_size=batch_size,
            workers=workers,
            generator=generator,
        )

    def read(self, rows: NDArray[np.int64], batch_size: int, workers: int) -> Iterator[tuple[Tensor, list[int]]]:
        chosen = [self.keys[row] for row in rows]
        place = {key: int(row) for key, row in zip(chosen, rows, strict=True)}
        loader = ImageLoader(self.folder, chosen, size=self.size, batch_size=batch_size, workers=workers)
        for x, keys in loader:
            yield x, [place[key] for key in keys]
        self._skipped.update(dict.fromkeys(loader.skipped))

    def checksum(self) -> str:
        return fingerprint("\n".join(self.keys))
