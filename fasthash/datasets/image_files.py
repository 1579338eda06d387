"""Encoded images: folders of classes, as ImageNet is distributed, and archives of JPEG files in one array."""

from __future__ import annotations

import io
import itertools
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._labels import label_array
from fasthash.datasets.files import existing

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


class ImageFiles(NamedTuple):
    """Files of images by class; row i of `paths` and `labels` belongs together."""

    paths: list[Path]
    labels: NDArray[np.int64]  # [N], positions in `classes`
    classes: list[str]  # names of the folders, sorted: WordNet ids (n01440764 ...) in ImageNet


def image_folder(folder: str | PathLike[str]) -> ImageFiles:
    """The images of a folder with one folder for each class: ImageNet's train, or val once it is sorted by class.

    Files are found at any depth below a class and listed by class and path. Raises FileNotFoundError, and ValueError
    for a folder without classes or without images.
    """
    root = existing(Path(folder), "image_folder")
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise ValueError(
            f"image_folder: {root} must have a folder with images for each class, got {len(classes)} classes"
        )
    return ImageFiles(paths, np.array(labels, dtype=np.int64), classes)


def image_archive(path: str | PathLike[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, H, W, 3] and labels int64 [N] of an .npz file of encoded images of one size; needs Pillow.

    Arrays: jpeg uint8, all files end to end; offset [N + 1], where each begins; label [N]. Raises FileNotFoundError,
    ImportError without Pillow, and ValueError for other arrays.
    """
    path = existing(Path(path), "image_archive")
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("image_archive: needs Pillow: pip install pillow") from None
    with np.load(path, allow_pickle=False) as arrays:
        missing = {"jpeg", "offset", "label"} - set(arrays)
        if missing:
            raise ValueError(
                f"image_archive: {path} must hold jpeg, offset and label, got no {', '.join(sorted(missing))}"
            )
        data, offset, labels = arrays["jpeg"], arrays["offset"], arrays["label"]
    labels = label_array(labels, f"image_archive: {path}", "label").astype(np.int64)
    if len(offset) != len(labels) + 1:
        raise ValueError(f"image_archive: {path}: offset must have {len(labels) + 1} entries, got {len(offset)}")
    pieces = (data[start:stop].tobytes() for start, stop in itertools.pairwise(offset.tolist()))
    images = np.stack([np.asarray(Image.open(io.BytesIO(piece)).convert("RGB")) for piece in pieces])
    return images, labels
