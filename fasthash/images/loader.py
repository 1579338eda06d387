"""Pictures in batches, read ahead by worker processes; those that cannot be read are skipped and named."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fasthash._arguments import whole
from fasthash.images.files import image_files
from fasthash.images.reading import ImageError, pillow, read_image

LISTED = 1000  # skipped pictures that are kept by name


class ImageLoader:
    """Batches (x float32 [B, 3, size, size] in [0, 1], keys) of the pictures in a folder; keys are their paths in it.

    One for `fasthash.train.encode`. No file is opened before the first batch. After a pass, `skipped` has a line for
    each picture that could not be read (the first 1,000), "cats/1.jpg: not a picture, or broken", and `skipped_count`
    says how many there were.

    Args:
        folder: where the pictures are.
        keys: their paths relative to the folder; None: all that `image_files` finds.
        size: of the squares, see `read_image`.
        batch_size: pictures of a batch; one with skipped pictures is shorter.
        workers: processes that read ahead; 0: this one reads.

    Raises ValueError for numbers out of range or a folder without pictures, ImportError without Pillow.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> Image.new("RGB", (40, 30)).save(folder / "a.png"); _ = (folder / "b.png").write_text("?")
    >>> loader = ImageLoader(folder, size=16)
    >>> [(x.shape, keys) for x, keys in loader], loader.skipped
    ([(torch.Size([1, 3, 16, 16]), ['a.png'])], ['b.png: not a picture, or broken'])
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        keys: Sequence[str] | None = None,
        *,
        size: int = 224,
        batch_size: int = 64,
        workers: int = 0,
    ) -> None:
        pillow()
        self.folder, self.keys = os.fspath(folder), image_files(folder) if keys is None else list(keys)
        size = whole(size, "ImageLoader", "size", 1, 4096)
        batch_size = whole(batch_size, "ImageLoader", "batch_size", 1)
        workers = whole(workers, "ImageLoader", "workers", 0)
        self.dataset = _Pictures(self.folder, self.keys, size)
        self._loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size,
            num_workers=workers,
            collate_fn=_collated,
            multiprocessing_context=worker_context(workers),
        )
        self.skipped: list[str] = []
        self.skipped_count = 0

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, list[str]]]:
        self.skipped, self.skipped_count = [], 0
        for pictures, keys, bad in self._loader:
            self.skipped_count += len(bad)
            self.skipped += bad[: LISTED - len(self.skipped)]
            if keys:
                yield pictures.float() / 255, keys


class _Pictures(Dataset[Any]):
    """Pictures by position: (uint8 [3, size, size], key), or a line that says what is wrong."""

    def __init__(self, folder: str, keys: list[str], size: int) -> None:
        self.folder, self.keys, self.size = folder, keys, size

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> tuple[Tensor, str] | str:
        key = self.keys[position]
        path = os.path.join(self.folder, key)
        try:
            return read_image(path, self.size), key
        except ImageError as error:
            return key + str(error).removeprefix(path)


def _collated(parts: list[tuple[Tensor, str] | str]) -> tuple[Tensor, list[str], list[str]]:
    good = [part for part in parts if not isinstance(part, str)]
    pictures = torch.stack([picture for picture, _ in good]) if good else torch.empty(0)
    return pictures, [key for _, key in good], [part for part in parts if isinstance(part, str)]


def worker_context(workers: int) -> str | None:
    """A way to start workers that is safe beside threads."""
    return "forkserver" if workers and os.name == "posix" else None
