"""Pairs and groups in files: Parquet, Arrow and CSV tables by blocks, groups also as text, one a line."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from fasthash._durable import replaced_file
from fasthash._tables import import_arrow
from fasthash.index.key_texts import printed

TABLE_SUFFIXES = (".parquet", ".arrow", ".feather", ".csv")
GROUP_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
_ROWS = 1 << 16  # of CSV, or with keys, that are made at once
_KEY_BYTES = 16 << 20  # of keys, but for one row's
_QUOTED = re.compile(r'[",\r\n]')  # what a field of CSV has in quotes (RFC 4180)
_Array = np.ndarray[Any, Any]


class Texts(Protocol):
    """The keys of codes by their ids."""

    def __call__(self, ids: _Array) -> _Array:
        """ids [M] -> keys, objects [M]."""

    def lengths(self, ids: _Array) -> _Array:
        """ids [M] -> bytes of their keys, int64 [M]."""


class _Table(NamedTuple):
    """Columns of numbers, and of the keys of ids that stand in one of them."""

    columns: dict[str, type]
    keys: list[tuple[str, int, Texts]]  # name, number of the column of ids, their keys


def write_pairs(
    path: Path, blocks: Iterable[tuple[_Array, ...]], keys: tuple[Texts | None, Texts | None], function: str
) -> None:
    """Writes blocks of (id_a, id_b, distance) to a file in the format of its suffix, replaced when all is written.

    keys: those of both sides, which become the columns key_a and key_b; None: there is no such column.
    """
    named = [(name, place, own) for name, place, own in zip(("key_a", "key_b"), (0, 1), keys, strict=True) if own]
    table = _Table({"id_a": np.int64, "id_b": np.int64, "distance": np.int32}, named)
    with _new_file(path) as file:
        _write_table(file, path, table, blocks, function)


def write_groups(
    path: Path, ids: _Array, labels: _Array, representatives: _Array, sizes: _Array, keys: Texts | None, function: str
) -> None:  # fmt: skip
    """Writes the groups of two and more, in the order of their representatives (arguments as of IndexGroups).

    Tables have the columns group (the representative), id, size and, with keys, key; a row for each code. .txt has the
    ids of a group in a line, or its keys, as `member_line` gives them.
    """
    check_suffix(path, GROUP_SUFFIXES, function)
    with _new_file(path) as file:
        if path.suffix.lower() == ".txt":
            for members in group_members(ids, labels, sizes):
                for piece in member_line(members, keys):
                    file.write(piece.encode())
                file.write(b"\n")
            return
        rows = rows_by_group(labels, sizes)
        blocks = (
            (representatives[labels[part]], ids[part], sizes[labels[part]])
            for start in range(0, len(rows), _ROWS)
            for part in (rows[start : start + _ROWS],)
        )
        columns: dict[str, type] = {"group": np.int64, "id": np.int64, "size": np.int64}
        _write_table(file, path, _Table(columns, [] if keys is None else [("key", 1, keys)]), blocks, function)


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


def member_line(members: _Array, keys: Texts | None) -> Iterator[str]:
    """The line of a group in pieces: ids between spaces; with keys these alone, between tabs, on one line."""
    for part in _parts((members,), [] if keys is None else [("key", 0, keys)]):
        own = members[part]
        before = "" if part.start == 0 else " " if keys is None else "\t"
        yield before + (" ".join(map(str, own.tolist())) if keys is None else "\t".join(map(printed, keys(own))))


def check_suffix(path: Path, suffixes: tuple[str, ...], function: str) -> None:
    """Raises ValueError for a file of another suffix, before long work."""
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{function}: the suffix must be one of {', '.join(suffixes)}, got {path.suffix!r} of {path}")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path`; an error names `path`, not the file aside, and a full disk too."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        with replaced_file(path) as file:
            yield file
    except OSError as error:
        aside = error.filename is None or Path(error.filename).name.startswith(f".{path.name}.")
        if not aside or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_table(
    file: BinaryIO, path: Path, table: _Table, blocks: Iterable[tuple[_Array, ...]], function: str
) -> None:
    names = [*table.columns, *(name for name, _, _ in table.keys)]
    if path.suffix.lower() == ".csv":
        file.write((",".join(names) + "\n").encode())
        for block in blocks:
            for part in _parts(block, table.keys):
                texts = ([_field(key) for key in keys(block[place][part])] for _, place, keys in table.keys)
                rows = zip(*(map(str, column[part].tolist()) for column in block), *texts, strict=True)
                file.write("".join(",".join(row) + "\n" for row in rows).encode())
        return
    arrow = import_arrow("pyarrow", function)
    numbers = [(name, arrow.from_numpy_dtype(kind)) for name, kind in table.columns.items()]
    schema = arrow.schema([*numbers, *((name, arrow.string()) for name, _, _ in table.keys)])
    if path.suffix.lower() == ".parquet":
        writer = import_arrow("pyarrow.parquet", function).ParquetWriter(file, schema)
    else:
        writer = import_arrow("pyarrow.ipc", function).new_file(file, schema)
    with writer:
        for block in blocks:
            for part in _parts(block, table.keys) if table.keys else [slice(None)]:
                texts = (arrow.array(keys(block[place][part]), arrow.string()) for _, place, keys in table.keys)
                columns = [arrow.array(column[part]) for column in block]
                writer.write_batch(arrow.record_batch([*columns, *texts], schema=schema))


def _parts(block: tuple[_Array, ...], keyed: list[tuple[str, int, Texts]]) -> Iterator[slice]:
    """The rows of a block in parts of _ROWS at most, and of about _KEY_BYTES of keys."""
    for start in range(0, len(block[0]), _ROWS):
        stop = min(start + _ROWS, len(block[0]))
        edges = [start, stop]
        if keyed:
            sizes = sum(keys.lengths(block[place][start:stop]) for _, place, keys in keyed)
            filled = np.cumsum(sizes) // _KEY_BYTES
            edges[1:1] = (np.flatnonzero(filled[1:] > filled[:-1]) + start + 1).tolist()
        yield from map(slice, edges[:-1], edges[1:])


def _field(text: str) -> str:
    """A text as a field of CSV."""
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
