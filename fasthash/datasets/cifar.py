"""CIFAR-10 and CIFAR-100 as distributed: the binary version, or the Python one read without running what it holds."""

from __future__ import annotations

import pickle
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._arrays import dtype_name
from fasthash.datasets.files import existing

PIXELS = 3 * 32 * 32
# All that a file of the Python version names: arrays of numpy, by the names of its versions, and how strings are kept.
ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class Images(NamedTuple):
    """Images and their classes; row i of each belongs together."""

    images: NDArray[np.uint8]  # [N, 32, 32, 3] RGB
    labels: NDArray[np.int64]  # [N]
    coarse: NDArray[np.int64] | None  # [N], the 20 superclasses of CIFAR-100


def cifar10(folder: str | PathLike[str], split: str) -> Images:
    """The "train" (50,000) or "test" (10,000) images of CIFAR-10, 10 classes.

    `folder` holds the files of the binary version (data_batch_1.bin ... test_batch.bin) or of the Python version
    (data_batch_1 ... test_batch). The latter are pickles: only arrays, strings, numbers and containers are read from
    them, and a file that asks for anything else is refused. Raises ValueError for another split or for a file that is
    not what it should be, FileNotFoundError where there is none.
    """
    names = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    return _read("cifar10", Path(folder), names, split, ("labels",))


def cifar100(folder: str | PathLike[str], split: str) -> Images:
    """The "train" (50,000) or "test" (10,000) images of CIFAR-100: 100 classes, and 20 above them as `coarse`.

    `folder` holds train.bin and test.bin, or train and test of the Python version (see `cifar10`).
    """
    return _read(
        "cifar100", Path(folder), {"train": ["train"], "test": ["test"]}, split, ("coarse_labels", "fine_labels")
    )


def _read(function: str, folder: Path, names: dict[str, list[str]], split: str, labels: tuple[str, ...]) -> Images:
    if split not in names:
        raise ValueError(f'{function}: split must be "train" or "test", got {split!r}')
    read = _binary if (folder / f"{names[split][0]}.bin").exists() else _python
    parts = [read(function, folder / name, labels) for name in names[split]]
    pixels, classes = (np.concatenate(column) for column in zip(*parts, strict=True))
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Images(images, classes[:, -1], classes[:, 0] if len(labels) == 2 else None)


def _binary(function: str, path: Path, labels: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels [N, 3072] and labels [N, L] of one file: for each image its labels, a byte each, then its pixels."""
    path = existing(path.with_name(path.name + ".bin"), function)
    data = np.fromfile(path, dtype=np.uint8)
    size = len(labels) + PIXELS
    if len(data) == 0 or len(data) % size:
        raise ValueError(f"{function}: {path} must hold images of {size} bytes, got {len(data)} bytes in all")
    rows = data.reshape(-1, size)
    return rows[:, len(labels) :], rows[:, : len(labels)].astype(np.int64)


def _python(function: str, path: Path, labels: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        with existing(path, function).open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        table = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        pixels = np.asarray(table["data"])
        classes = np.stack([np.asarray(table[name], dtype=np.int64) for name in labels], axis=1)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{function}: {path} is damaged or not a file of this data set: {error}") from None
    if pixels.dtype != np.uint8 or pixels.shape != (len(classes), PIXELS):
        raise ValueError(
            f"{function}: {path} must hold uint8 pixels [{len(classes)}, {PIXELS}], got {dtype_name(pixels)} "
            f"{list(pixels.shape)}"
        )
    return pixels, classes


class _ArraysOnly(pickle.Unpickler):
    """Reads containers, strings, numbers and plain arrays. What a pickle could call otherwise is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        if name == "_reconstruct":  # where it is depends on numpy's version
            return np.zeros(0).__reduce__()[0]
        return super().find_class(module, name)
