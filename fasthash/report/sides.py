"""The two sides of a comparison, queries and database: codes, labels, names, and how their items are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arrays import dtype_name
from fasthash._labels import label_array
from fasthash.codes import pack_bits
from fasthash.index import HammingIndex
from fasthash.report.items import Items

Array = NDArray[Any]
FOLDER = "folder"  # labels that are the first folder of each name


@dataclass(frozen=True)
class Side:
    """Rows 0 .. size - 1: their codes, names and labels, all made for the rows that are asked for."""

    size: int
    codes_of: Callable[[Array], Array]
    names_of: Callable[[Array], list[str]]
    labels: Array | str | None
    items: Items
    outputs: Array | None = None

    def labels_of(self, rows: Array) -> Array | None:
        """Labels of the rows; None where there are none, or not each of them has a folder in its name."""
        if self.labels is None:
            return None
        if not isinstance(self.labels, str):
            return self.labels[rows]
        parts = [name.partition("/") for name in self.names_of(rows)]
        return np.array([part[0] for part in parts], np.str_) if all(part[1] for part in parts) else None

    def card_parts(self, rows: Array) -> tuple[list[str], list[str | None]]:
        """Items as HTML, and labels as text."""
        names, labels = self.names_of(rows), self.labels_of(rows)
        items = [self.items.html(row, name) for row, name in zip(rows.tolist(), names, strict=True)]
        return items, [None] * len(rows) if labels is None else [str(label) for label in labels.tolist()]


def database_side(index: HammingIndex, labels: Any, names: Any, items: Items) -> tuple[Side, Array]:
    """The codes of an index in ascending order of id, and these ids."""
    ids = index.ids

    def names_of(rows: Array) -> list[str]:
        if names is not None:
            return [str(names[row]) for row in rows.tolist()]
        if index.keyed:
            return ["" if key is None else str(key) for key in index.keys_of(ids[rows]).tolist()]
        return [f"id {id}" for id in ids[rows].tolist()]

    _check_rows("texts", items.texts, len(ids))
    _check_rows("names", names, len(ids))
    found = read_labels(labels, "database_labels", len(ids))
    return Side(len(ids), lambda rows: np.asarray(index.get(ids[rows])), names_of, found, items), ids


def query_side(queries: Any, bits: int, labels: Any, names: Any, items: Items) -> Side:
    """Queries that are given: packed codes, or outputs."""
    rows = np.asarray(queries)
    outputs = rows if rows.dtype.kind == "f" else None
    width = bits if outputs is not None else -(-bits // 8)
    known = outputs is not None or rows.dtype == np.uint8
    if not known or rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise ValueError(
            f"Report: queries must be packed uint8 codes [Q, {-(-bits // 8)}] or outputs [Q, {bits}] in [0, 1], "
            f"got {dtype_name(rows)} of shape {list(rows.shape)}"
        )
    if outputs is not None and not (outputs.min() >= 0 and outputs.max() <= 1):  # and so for NaN
        raise ValueError(f"Report: outputs must be in [0, 1], got {outputs.min()} to {outputs.max()}")
    codes = rows if outputs is None else np.asarray(pack_bits(outputs))
    _check_rows("query_texts", items.texts, len(rows))
    _check_rows("query_names", names, len(rows))

    def names_of(chosen: Array) -> list[str]:
        return [f"query {row}" if names is None else str(names[row]) for row in chosen.tolist()]

    return Side(
        len(rows),
        lambda chosen: codes[chosen],
        names_of,
        read_labels(labels, "query_labels", len(rows)),
        items,
        outputs,
    )


def read_labels(labels: Any, name: str, rows: int) -> Array | str | None:
    """1-D classes [rows], "folder" or None. Raises ValueError or TypeError."""
    if labels is None or (isinstance(labels, str) and labels == FOLDER):
        return labels
    found = label_array(labels, "Report", name)
    if found.ndim != 1:
        raise ValueError(f"Report: {name} must be 1-D classes, got shape {list(found.shape)}")
    _check_rows(name, found, rows)
    return found


def _check_rows(name: str, values: Sequence[Any] | Array | None, rows: int) -> None:
    if values is not None and len(values) != rows:
        raise ValueError(f"Report: {name} must have {rows} rows, one for each code, got {len(values)}")
