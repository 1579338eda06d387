"""Hierarchies in, and files out, whose names are checked before long work."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.cli.output import show
from fasthash.cli.parser import UserError
from fasthash.hierarchy import WHOLE_NUMBER, Hierarchy, telling_distances

ROWS = 1 << 14  # rows that are read at once where an array may be larger than memory


def check_finite(features: NDArray[Any], path: str) -> None:
    """Refuses NaN and infinity, telling the first row that has one."""
    for start in range(0, len(features), ROWS):
        bad = ~np.isfinite(features[start : start + ROWS]).all(axis=1)
        if bad.any():
            raise UserError(f"{path}: must be finite, got NaN or infinity in row {start + int(bad.argmax())}")


def read_hierarchy(path: str, order: str | None = None) -> Hierarchy:
    """A hierarchy from a file of edges, whose lines have the order of its header or `order`, or of a .json file."""
    try:
        return Hierarchy.from_file(path, order=order)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a UTF-8 text file") from None
    except (ValueError, TypeError) as error:
        raise UserError(_order_as_typed(str(error) if path in str(error) else f"{path}: {error}")) from None


def class_distances(labels: NDArray[Any], hierarchy: Hierarchy, path: str) -> NDArray[np.float64]:
    """Distances between the distinct labels, ascending; refuses a hierarchy that does not tell them apart."""
    try:
        return telling_distances(hierarchy, np.unique(labels).tolist(), path)
    except ValueError as error:
        raise UserError(_order_as_typed(str(error))) from None


def _order_as_typed(message: str) -> str:
    return message.replace("order=", "--hierarchy-order ").replace(" order is for", " --hierarchy-order is for")


def fit_to_hierarchy(labels: NDArray[Any], hierarchy: Hierarchy, path: str) -> NDArray[Any]:
    """The labels, as text or as numbers where only that is in the hierarchy; refuses the first that is not in it."""
    if not any(label in hierarchy for label in np.unique(labels).tolist()):
        other = as_numbers(labels) if labels.dtype.kind == "U" else labels.astype(np.str_)
        if any(label in hierarchy for label in np.unique(other).tolist()):
            labels = other
    for label in np.unique(labels).tolist():
        if label not in hierarchy:
            row = int((labels == label).argmax())
            raise UserError(f"{path}: label {label!r} (row {row}) is not in the hierarchy")
    return labels


def output_file(path: str, suffixes: Sequence[str] = ()) -> Path:
    """The file of that name, which can be written: said before long work, not after it. suffixes: it must have one."""
    file = Path(path)
    if not path:
        raise UserError("the name of the file to write must not be empty")
    if file.is_dir():
        raise UserError(f"{path}: a folder, must be the name of a file")
    if file.exists() and not file.is_file():  # /dev/null, say: a file would take its place
        raise UserError(f"{path}: cannot be written, it exists and is not a regular file")
    if not file.parent.is_dir():
        raise UserError(f"{path}: cannot be written, there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{path}: cannot be written, the folder {file.parent} is read-only")
    if suffixes and file.suffix.lower() not in suffixes:
        allowed = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
        raise UserError(f"{path}: the suffix decides the format and must be {allowed}, got {file.suffix!r}")
    return file


def print_json(result: Any) -> None:
    """Prints one JSON document; NaN and infinity, which JSON does not have, are null."""
    show(to_json(result))


def to_json(result: Any) -> str:
    return json.dumps(_plain(result), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def as_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Text labels as integers, where all are whole numbers as Python writes them: 007 is a name."""
    if not all(WHOLE_NUMBER.fullmatch(label) for label in labels.tolist()):
        return labels
    try:
        return labels.astype(np.int64)
    except OverflowError:
        return labels
