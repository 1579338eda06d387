"""What an EmbeddingIndex can be built from: arrays, blocks, and files of numbers (docs/files.md), read by blocks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._tables import open_table, read_array, recognise
from fasthash._tables.ids import find_id_column, id_values
from fasthash._tables.matrix import find_number_columns, number_blocks
from fasthash.embeddings.encoders import FIT_ROWS, ROWS, block_of, checked_rows
from fasthash.index.exchange.code_files import read_ids
from fasthash.index.exchange.key_sources import open_keys
from fasthash.index.exchange.sources import Block, Source, with_ids, with_keys
from fasthash.index.key_texts import key_rows
from fasthash.index.keys import KeyRows
from fasthash.index.segments import id_tensor


class Rows(NamedTuple):
    """Rows to build an index from."""

    features: int
    total: int | None  # None: known when the blocks have ended
    blocks: Iterator[tuple[Tensor, Any, Any]]  # float32 [n, F], and ids and keys or None
    ids: Any = None  # of the table that the rows are in


def open_rows(source: Any, column: str | None, id_column: str | None, with_ids: bool, function: str) -> Rows:
    """Opens what holds rows of numbers; raises ValueError, TypeError or OSError where it does not.

    with_ids: whether a table's column of ids is read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_file(Path(source), column, id_column, with_ids, function)
    for name, value in (("column", column), ("id_column", id_column)):
        if value is not None:
            raise ValueError(f"{function}: {name} is for files, must be None for {type(source).__name__}")
    if isinstance(source, (np.ndarray, Tensor)):
        rows = checked_rows(source, None, function)
        return Rows(rows.shape[1], len(rows), _of_array(rows, function))
    if not isinstance(source, Iterable):
        raise TypeError(f"{function}: source must be an array, a path or blocks of rows, got {type(source).__name__}")
    blocks = _of_blocks(source, function)
    head = next(blocks, None)
    if head is None:
        raise ValueError(f"{function}: source must have at least one block, got none")
    return Rows(head[0].shape[1], None, itertools.chain([head], blocks))


def first_rows(rows: Rows) -> tuple[Tensor, Rows]:
    """The first `FIT_ROWS` rows, or all, and the rows with these still to come."""
    taken: list[tuple[Tensor, Any, Any]] = []
    while sum(len(block) for block, _, _ in taken) < FIT_ROWS:
        block = next(rows.blocks, None)
        if block is None:
            break
        taken.append(block)
    first = torch.cat([block for block, _, _ in taken])[:FIT_ROWS] if taken else torch.zeros(0, rows.features)
    return first, rows._replace(blocks=itertools.chain(taken, rows.blocks))


def coded(
    rows: Rows, bits: int, encode: Any, ids: Any, keys: Any, key_column: str | None, source: Any, function: str
) -> Source:
    """The rows as codes, stored rows, ids and keys; encode: float32 [n, F] -> a Block without ids and keys."""

    def blocks() -> Iterator[Block]:
        for values, own, names in rows.blocks:
            yield encode(values)._replace(ids=own, keys=names)

    named = Source(bits, rows.total, blocks())
    if isinstance(ids, (str, os.PathLike)):
        ids = read_ids(Path(ids), function, None)
    given = rows.ids if ids is None else ids
    named = with_ids(named, None if given is None else id_tensor(given, function).cpu(), function)
    if keys is None and key_column is None:
        return named
    return with_keys(named, open_keys(keys, key_column, source, function), function)


def _of_file(path: Path, column: str | None, id_column: str | None, with_ids: bool, function: str) -> Rows:
    kind = recognise(path, function)
    if kind.name in ("npy", "npz"):
        for name, value in (("column", column), ("id_column", id_column)):
            if value is not None:
                raise ValueError(
                    f"{function}: {path} is {kind.words}, which has no columns with names; {name} must be None"
                )
        rows = checked_rows(read_array(path, kind, function), None, function, str(path))
        return Rows(rows.shape[1], len(rows), _of_array(rows, function))
    if kind.name not in ("text", "parquet", "arrow", "arrow stream"):
        raise ValueError(f"{function}: {path} is {kind.words}; rows are read from .npy, .npz, CSV, Parquet and Arrow")
    table = open_table(path, kind, function)
    names = find_number_columns(table, column, function)
    if names is None:
        raise ValueError(f"{function}: {path} has no columns of embeddings; name them with column=")
    ids = None
    named = find_id_column(table, id_column, function) if with_ids else None
    if named is not None:
        parts = [id_values(block.columns[0], block, named, table.where) for block in table.blocks([named], ROWS)]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    blocks = number_blocks(table, names)
    head = next(blocks, None)
    if head is None:
        raise ValueError(f"{function}: {path} has no rows")
    count = getattr(table, "rows", None)
    return Rows(head.shape[1], count, _checked(itertools.chain([head], blocks), head.shape[1], function), ids)


def _of_array(rows: Tensor, function: str) -> Iterator[tuple[Tensor, Any, Any]]:
    for start in range(0, len(rows), ROWS):
        yield block_of(rows, start, function), None, None


def _checked(blocks: Iterator[Any], features: int, function: str) -> Iterator[tuple[Tensor, Any, Any]]:
    for block in blocks:
        yield from _of_array(checked_rows(block, features, function), function)


def _of_blocks(source: Iterable[Any], function: str) -> Iterator[tuple[Tensor, Any, Any]]:
    features = None
    for block in source:
        X, ids, keys = block, None, None
        if isinstance(block, tuple) and len(block) in (2, 3):
            X, ids, keys = (*block, None)[:3]
        rows = checked_rows(X, features, function)
        features = rows.shape[1]
        numbers = None if ids is None else id_tensor(ids, function).cpu()
        named: KeyRows | None = None if keys is None else key_rows(keys, function)
        for what, size in (("ids", None if numbers is None else len(numbers)), ("keys", named and named.size)):
            if size is not None and size != len(rows):
                raise ValueError(f"{function}: a block of {len(rows)} rows needs {len(rows)} {what}, got {size}")
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            yield (
                block_of(rows, start, function),
                None if numbers is None else numbers[part],
                None if named is None else named.part(start, min(start + ROWS, named.size)),
            )
