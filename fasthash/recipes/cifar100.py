"""CIFAR-100 as users download it, with WordNet above its classes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasthash._durable import make_folder, replaced_file
from fasthash.datasets import cifar100
from fasthash.hierarchy import Hierarchy
from fasthash.recipes.cifar100_synsets import SYNSETS
from fasthash.recipes.experiment import Experiment, Rows, Sizes, first_of_each, of_classes
from fasthash.recipes.networks import NARROW
from fasthash.recipes.pictures import ArrayPictures

FULL = Sizes(epochs=100, batch_size=128, size=32, backbone="small")
SMALL = Sizes(epochs=8, batch_size=64, size=32, backbone=NARROW, each=50)
INNER = ("cifar-100-python", "cifar-100-binary")  # folders that the two archives hold


def read(data: Path, out: Path, sizes: Sizes, hierarchy: Hierarchy, *, validation: bool) -> Experiment:
    """data: cifar-100-python or cifar-100-binary, what holds it, its .tar.gz, or a folder with images.npz.

    images.npz: arrays rgb uint8 [N, 32, 32, 3], fine [N] and split [N], "train" or "test", as the fragment has it.
    """
    if (data / "images.npz").is_file():
        images, labels, queried = _archive(data / "images.npz")
        about = [f"CIFAR-100, the {len(labels):,} pictures of {data.name}"]
    else:
        folder = _unpacked(data, out) if data.is_file() else data
        folder = next((folder / name for name in INNER if (folder / name).is_dir()), folder)
        parts = [cifar100(folder, split) for split in ("train", "test")]
        images, labels = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
        queried = np.arange(len(labels)) >= len(parts[0].labels)
        about = ["CIFAR-100"]
    keep = queried | first_of_each(np.where(queried, -1, labels), sizes.each)
    if not keep.all():
        about.append(f"reduced to {sizes.each} training pictures of each class")
    return of_classes(
        ArrayPictures(np.ascontiguousarray(images[keep])),
        labels[keep],
        queried[keep],
        list(SYNSETS.values()),
        hierarchy,
        validation=validation,
        about=about,
    )


def _archive(path: Path) -> tuple[NDArray[np.uint8], Rows, NDArray[np.bool_]]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["rgb"], arrays["fine"].astype(np.int64), arrays["split"] == "test"


def _unpacked(path: Path, out: Path) -> Path:
    """The two files of an archive, copied to a folder of the run; nothing else of the archive is used."""
    folder = out / "data"
    make_folder(folder)
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name in ("train", "test", "train.bin", "test.bin"):
                    content = archive.extractfile(member)
                    if content is not None:
                        with replaced_file(folder / name) as file:
                            file.write(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"recipe: {path} must be CIFAR-100's .tar.gz, cannot be read: {error}") from None
    return folder
