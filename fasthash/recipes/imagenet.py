"""ImageNet as users download it: folders of synsets, with WordNet above them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from fasthash.datasets import image_archive
from fasthash.datasets.files import existing
from fasthash.hierarchy import Hierarchy
from fasthash.images import image_files
from fasthash.recipes.experiment import Experiment, Rows, Sizes, first_of_each, of_classes
from fasthash.recipes.networks import NARROW
from fasthash.recipes.pictures import ArrayPictures, FilePictures, Pictures

FULL = Sizes(epochs=90, batch_size=256, size=224, backbone="torchvision:resnet50")
SMALL = Sizes(epochs=8, batch_size=64, size=32, backbone=NARROW, each=30)
SOLUTION = "LOC_val_solution.csv"  # Kaggle's table of what is on the pictures of a flat val/


def read(data: Path, out: Path, sizes: Sizes, hierarchy: Hierarchy, *, validation: bool) -> Experiment:
    """data: a folder with train/n01440764/*.JPEG and val/ like it, or a flat val/ beside LOC_val_solution.csv.

    Or, as tiny_imagenet_32 has it, with dev_train.npz and dev_query.npz (see `fasthash.datasets.image_archive`) and
    classes.tsv, whose columns label and wnid name the classes.
    """
    pictures: Pictures
    if (data / "dev_train.npz").is_file():
        names = _archive_names(data / "classes.tsv")
        (stored, first), (asked, second) = (image_archive(data / f"dev_{part}.npz") for part in ("train", "query"))
        labels = np.concatenate([first, second])
        queried = np.arange(len(labels)) >= len(first)
        keep = _kept(labels, queried, sizes.each)
        pictures = ArrayPictures(np.concatenate([stored, asked])[keep])
        about = [f"{data.name}: ImageNet's pictures at {stored.shape[1]} pixels, {len(names)} classes"]
    else:
        keys, wnids, queried = _listed(data)
        names = sorted(set(wnids))
        labels = np.searchsorted(np.array(names), np.array(wnids))
        keep = _kept(labels, queried, sizes.each)
        pictures = FilePictures(str(data), [keys[row] for row in np.flatnonzero(keep)], sizes.size)
        about = [f"ImageNet, {len(names)} classes, at {sizes.size} pixels"]
    if not keep.all():
        about.append(f"reduced to {sizes.each} training pictures of each class")
    return of_classes(pictures, labels[keep], queried[keep], names, hierarchy, validation=validation, about=about)


def _kept(labels: Rows, queried: np.typing.NDArray[np.bool_], each: int | None) -> np.typing.NDArray[np.bool_]:
    kept: np.typing.NDArray[np.bool_] = queried | first_of_each(np.where(queried, -1, labels), each)
    return kept


def _archive_names(path: Path) -> list[str]:
    with existing(path, "recipe").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row["wnid"] for row in sorted(rows, key=lambda row: int(row["label"]))]


def _listed(data: Path) -> tuple[list[str], list[str], np.typing.NDArray[np.bool_]]:
    """Paths, synsets, and which are of val; no picture is opened."""
    train, val = (image_files(existing(data / part, "recipe")) for part in ("train", "val"))
    flat = [key for key in val if "/" not in key]
    solution = _solution(existing(data / SOLUTION, "recipe")) if flat else {}
    for key in [key for key in train if "/" not in key] + [key for key in flat if Path(key).stem not in solution]:
        raise ValueError(f"recipe: {data}: {key} must be in a folder of its synset, or named in {SOLUTION}")
    wnids = [key.partition("/")[0] for key in train]
    wnids += [key.partition("/")[0] if "/" in key else solution[Path(key).stem] for key in val]
    keys = [f"train/{key}" for key in train] + [f"val/{key}" for key in val]
    return keys, wnids, np.arange(len(keys)) >= len(train)


def _solution(path: Path) -> dict[str, str]:
    """Picture -> synset, of the lines "ILSVRC2012_val_00048981,n03995372 85 1 499 272"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2]
    return {image: found.split()[0] for image, found in rows if found.split()}
