"""Files of rows of numbers, cut into blocks that can be read by themselves, on any machine that sees the files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._tables import ArrowTable, open_table, read_array, recognise
from fasthash._tables.ids import find_id_column, id_values
from fasthash._tables.matrix import find_number_columns, number_blocks

STEP = 1 << 14  # rows that are encoded at once, from the start of a file: as one process does, so that codes are equal
_KINDS = ("npy", "parquet", "arrow", "arrow stream")
_SUFFIXES = (".npy", ".parquet", ".pq", ".arrow", ".feather", ".ipc")


class RowBlock(NamedTuple):
    """Rows start to before stop of a file. place: of the first of them among the rows of all files."""

    file: int
    start: int
    stop: int
    place: int


class RowFile(NamedTuple):
    """A file of rows: its path, columns, and where its units (row groups, batches) begin; a .npy has none."""

    path: str
    columns: list[str] | None
    id_column: str | None
    rows: int
    starts: list[int]


def open_files(source: Any, column: str | None, id_column: str | None, function: str) -> list[RowFile]:
    """The files of a source: a path, several, or a folder; raises ValueError, TypeError or OSError."""
    files = [_opened(path, column, id_column, function) for path in _paths(source, function)]
    if not sum(file.rows for file in files):
        raise ValueError(f"{function}: {os.fspath(files[0].path)} has no rows")
    named = [file.id_column is not None for file in files]
    if any(named) and not all(named):
        with_ids, without = files[named.index(True)].path, files[named.index(False)].path
        raise ValueError(f"{function}: either all files have ids or none, {with_ids} has, {without} has not")
    return files


def blocks_of(files: Sequence[RowFile], rows: int) -> list[RowBlock]:
    """All rows in blocks of about `rows`, or of a unit where that is larger, each a multiple of STEP but the last."""
    blocks: list[RowBlock] = []
    place = 0
    for number, file in enumerate(files):
        units = np.diff([*file.starts, file.rows]) if file.starts else [0]
        size = -(-max(rows, int(max(units))) // STEP) * STEP
        for start in range(0, file.rows, size):
            stop = min(start + size, file.rows)
            blocks.append(RowBlock(number, start, stop, place))
            place += stop - start
    return blocks


def read_block(file: RowFile, start: int, stop: int, function: str) -> Iterator[Tensor]:
    """The rows as float32 [n, F], STEP at a time; raises ValueError for what is not finite, naming the row."""
    path = Path(file.path)
    kind = recognise(path, function)
    if file.columns is None:
        array = read_array(path, kind, function)
        parts: Iterator[NDArray[Any]] = (array[at : min(at + STEP, stop)] for at in range(start, stop, STEP))
    else:
        table, first = _table_of(file, start, stop, function)
        parts = _cut(number_blocks(table, file.columns), start - first, stop - first)
    at = start
    for part in parts:
        rows = torch.from_numpy(np.array(part, np.float32))
        bad = ~torch.isfinite(rows).all(1)
        if bool(bad.any()):
            row = at + int(bad.int().argmax())
            raise ValueError(f"{function}: {file.path} must be finite in float32, got NaN or infinity in row {row}")
        at += len(rows)
        yield rows
    if at != stop:
        raise ValueError(f"{function}: {file.path} has {at} rows, it had {file.rows} when the work began")


def read_ids(file: RowFile, start: int, stop: int, function: str) -> NDArray[np.int64] | None:
    """The ids int64 of the rows, None where the file has none."""
    if file.id_column is None:
        return None
    table, first = _table_of(file, start, stop, function)
    blocks = table.blocks([file.id_column], STEP)
    parts = [id_values(block.columns[0], block, file.id_column, table.where) for block in blocks]
    return np.concatenate(parts)[start - first : stop - first]


def _paths(source: Any, function: str) -> list[Path]:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_dir():
            return [path]
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.name[0] not in "._")
        if not found:
            raise ValueError(f"{function}: {path} has no files that end in {', '.join(_SUFFIXES)}")
        return found
    if not isinstance(source, (list, tuple)) or not all(isinstance(path, (str, os.PathLike)) for path in source):
        raise TypeError(f"{function}: source must be a path or a list of paths, got {type(source).__name__}")
    if not source:
        raise ValueError(f"{function}: source must have at least one path, got none")
    return [Path(path) for path in source]


def _opened(path: Path, column: str | None, id_column: str | None, function: str) -> RowFile:
    path = path.absolute()
    kind = recognise(path, function)
    if kind.name not in _KINDS:
        raise ValueError(f"{function}: {path} is {kind.words}; blocks of rows are read from .npy, Parquet and Arrow")
    if kind.name == "npy":
        for name, value in (("column", column), ("id_column", id_column)):
            if value is not None:
                raise ValueError(f"{function}: {path} is {kind.words}, which has no columns; {name} must be None")
        array = read_array(path, kind, function)
        if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
            shape = f"{array.dtype.name} of shape {list(array.shape)}"
            raise ValueError(f"{function}: {path} must hold floating point rows [N, F], got {shape}")
        return RowFile(os.fspath(path), None, None, len(array), [])
    table = open_table(path, kind, function)
    columns = find_number_columns(table, column, function)
    if columns is None or not isinstance(table, ArrowTable):
        raise ValueError(f"{function}: {path} has no columns of embeddings; name them with column=")
    units = table.unit_rows()
    starts = [0, *itertools.accumulate(units)]
    named = find_id_column(table, id_column, function, beside=False)
    return RowFile(os.fspath(path), columns, named, starts[-1], starts[:-1])


def _table_of(file: RowFile, start: int, stop: int, function: str) -> tuple[ArrowTable, int]:
    """The part of a table that holds the rows, and its first row."""
    path = Path(file.path)
    table = open_table(path, recognise(path, function), function)
    if not isinstance(table, ArrowTable):
        raise ValueError(f"{function}: {path} has changed since the work began")
    units = [at for at, end in enumerate([*file.starts[1:], file.rows]) if file.starts[at] < stop and end > start]
    first = file.starts[units[0]]
    return table.part(range(units[0], units[-1] + 1), first), first


def _cut(parts: Iterator[NDArray[Any]], start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Rows start to before stop of what the parts hold together, STEP at a time."""
    held: list[NDArray[Any]] = []
    at = 0
    for part in parts:
        wanted = part[max(start - at, 0) : max(stop - at, 0)]
        at += len(part)
        while len(wanted):
            room = STEP - sum(map(len, held))
            held.append(wanted[:room])
            wanted = wanted[room:]
            if sum(map(len, held)) == STEP:
                yield np.concatenate(held)
                held = []
        if at >= stop:
            break
    if held:
        yield np.concatenate(held)
