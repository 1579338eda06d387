"""Pictures with their labels: folders by class, or a table of paths and labels."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._tables import open_table, recognise
from fasthash._tables.table import check_column, listed
from fasthash.images.files import image_files

PATHS, LABELS = ("path", "file", "filename", "image", "picture", "key"), ("label", "labels", "class", "classes")
SEPARATOR = ";"  # between the labels of one picture in a text table
_ROWS = 1 << 16


class LabelledImages(NamedTuple):
    """Pictures by their paths in `folder`, and what is on them: classes [N], or multi-hot labels [N, L] of `names`."""

    folder: str
    keys: list[str]
    labels: NDArray[Any]
    names: list[str] | None


def labelled_images(source: str | PathLike[str]) -> LabelledImages:
    """The pictures of a folder with a folder for each class, or of a table (CSV, TSV, Parquet, Arrow); none is opened.

    A table has a column path (or file, filename, image, picture, key), relative to the table's folder, and a column
    label, labels, class or classes. Several labels of a picture are "cat;dog" in text, and a list in Parquet and
    Arrow; the labels are then multi-hot, and their names sorted. Raises FileNotFoundError, and ValueError for a folder
    or table that is not like that.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "list.csv").write_text("path,labels\\na.jpg,cat;dog\\nb.jpg,dog\\n")
    >>> labelled_images(folder / "list.csv").labels.tolist()
    [[1, 1], [0, 1]]
    """
    path = Path(source)
    if path.is_dir():
        keys = image_files(path)
        loose = [key for key in keys if "/" not in key]
        if loose:
            raise ValueError(
                f"labelled_images: {path} must have a folder for each class, got {len(loose)} pictures outside such a "
                f"folder, for example {loose[0]}"
            )
        return LabelledImages(str(path), keys, np.array([key.partition("/")[0] for key in keys]), None)
    if not path.is_file():
        raise FileNotFoundError(f"labelled_images: {path}: no such file or folder")
    table = open_table(path, recognise(path, "labelled_images"), "labelled_images")
    columns = [_column(table, path, names) for names in (PATHS, LABELS)]
    keys, labels = list[str](), list[Any]()
    for block in table.blocks(columns, _ROWS):
        paths, given = (part if isinstance(part, list) else part.to_pylist() for part in block.columns)
        keys += [str(key) for key in paths]
        labels += given
    if not keys:
        raise ValueError(f"labelled_images: {path} must have a row for each picture, got none")
    several = [isinstance(label, (list, tuple)) for label in labels]
    texts = any(isinstance(label, str) and SEPARATOR in label for label in labels)
    if not any(several) and not texts:
        return LabelledImages(str(path.parent), keys, np.array(labels), None)
    sets = [label if isinstance(label, (list, tuple)) else str(label).split(SEPARATOR) for label in labels]
    return LabelledImages(str(path.parent), keys, *_multi_hot(sets))


def _column(table: Any, path: Path, names: Sequence[str]) -> str:
    found = [name for name in table.names if name.lower() in names]
    if len(found) != 1:
        raise ValueError(
            f"labelled_images: {path} must have one column called {' or '.join(names)}, "
            f"its columns are {listed(table.names)}"
        )
    return check_column(table, found[0], "column", "labelled_images")


def _multi_hot(sets: Sequence[Any]) -> tuple[NDArray[np.uint8], list[str]]:
    stripped = [[str(label).strip() for label in labels] for labels in sets]
    names = sorted({label for labels in stripped for label in labels if label})
    place = {name: number for number, name in enumerate(names)}
    rows = np.zeros((len(sets), len(names)), np.uint8)
    for row, labels in enumerate(stripped):
        rows[row, [place[label] for label in labels if label]] = 1
    return rows, names
