"""Pairs and groups in files: Parquet, Arrow and CSV tables by blocks, groups also as text, one a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fasthash._durable import replaced_file
from fasthash._tables import import_arrow

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather", ".csv")
GROUP_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
_ROWS = 1 << 16  # of CSV that are made at once
_Array = np.ndarray[Any, Any]


def write_pairs(path: Path, blocks: Iterable[tuple[_Array, _Array, _Array]], function: str) -> None:
    """Writes blocks of (id_a, id_b, distance) to a file in the format of its suffix, replaced when all is written."""
    with replaced_file(path) as file:
        _write_table(file, path, ("id_a", "id_b", "distance"), blocks, (np.int64, np.int64, np.int32), function)


def write_groups(
    path: Path, ids: _Array, labels: _Array, representatives: _Array, sizes: _Array, function: str
) -> None:  # fmt: skip
    """Writes the groups of two and more, in the order of their representatives (arguments as of IndexGroups).

    Tables have the columns group (the representative), id and size, a row for each code; .txt has the ids of a group in
    a line.
    """
    check_suffix(path, GROUP_SUFFIXES, function)
    with replaced_file(path) as file:
        if path.suffix.lower() == ".txt":
            for members in group_members(ids, labels, sizes):
                file.write((" ".join(map(str, members.tolist())) + "\n").encode())
            return
        rows = rows_by_group(labels, sizes)
        blocks = (
            (representatives[labels[part]], ids[part], sizes[labels[part]])
            for start in range(0, len(rows), _ROWS)
            for part in (rows[start : start + _ROWS],)
        )
        _write_table(file, path, ("group", "id", "size"), blocks, (np.int64,) * 3, function)


def rows_by_group(labels: _Array, sizes: _Array) -> _Array:
    """The rows in groups of two and more, group after group, ascending in each."""
    rows = np.flatnonzero(sizes[labels] > 1)
    order: _Array = rows[np.argsort(labels[rows], kind="stable")]
    return order


def group_members(ids: _Array, labels: _Array, sizes: _Array) -> Iterator[_Array]:
    """The ids of each group of two and more."""
    ordered, start = ids[rows_by_group(labels, sizes)], 0
    for size in sizes[sizes > 1].tolist():
        yield ordered[start : start + size]
        start += size


def check_suffix(path: Path, suffixes: tuple[str, ...], function: str) -> None:
    """Raises ValueError for a file of another suffix, before long work."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{function}: the suffix must be one of {', '.join(suffixes)}, got {path.suffix!r} of {path}")


def _write_table(
    file: BinaryIO, path: Path, names: tuple[str, ...], blocks: Iterable[tuple[_Array, ...]], kinds: Any, function: str
) -> None:
    if path.suffix.lower() == ".csv":
        file.write((",".join(names) + "\n").encode())
        for block in blocks:
            for start in range(0, len(block[0]), _ROWS):
                rows = zip(*(column[start : start + _ROWS].tolist() for column in block), strict=True)
                file.write("".join(",".join(map(str, row)) + "\n" for row in rows).encode())
        return
    arrow = import_arrow("pyarrow", function)
    schema = arrow.schema([(name, arrow.from_numpy_dtype(kind)) for name, kind in zip(names, kinds, strict=True)])
    if path.suffix.lower() == ".parquet":
        writer = import_arrow("pyarrow.parquet", function).ParquetWriter(file, schema)
    else:
        writer = import_arrow("pyarrow.ipc", function).new_file(file, schema)
    with writer:
        for block in blocks:
            writer.write_batch(arrow.record_batch([arrow.array(column) for column in block], schema=schema))
