"""Keys for an index that is built: from a column of the table of codes, from a file of keys, or from texts given.

They come in blocks, so that memory is bounded however many there are.
"""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._tables import ArrowTable, TextTable, import_arrow, open_table, recognise
from fasthash._tables.kinds import label
from fasthash._tables.table import check_column, listed
from fasthash.index.key_texts import encoded_rows, key_rows
from fasthash.index.keys import KeyRows

_ROWS = 1 << 14  # keys of a block: 160 MiB where each has 10 kB
_LINES_BYTES = 1 << 22  # text of a block of lines
_NAMES = ("key", "keys")
_TABLE_STARTS = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
_TABLE_SUFFIXES = (".csv", ".tsv", ".tab")


def open_keys(
    keys: Any, key_column: str | None, source: Any, function: str, format: str | None = None
) -> Iterator[KeyRows]:
    """The keys of the codes of a source, in blocks (see HammingIndex.build).

    Raises ValueError, TypeError or OSError, at once or where a block is asked for.
    """
    if isinstance(keys, (str, os.PathLike)):
        return _of_file(Path(keys), key_column, function)
    if keys is not None:
        if key_column is not None:
            raise ValueError(
                f"{function}: key_column must be None if keys are given, because it names a column of a table"
            )
        return _of_texts(keys, function)
    if not isinstance(source, (str, os.PathLike)):
        raise ValueError(f"{function}: key_column is for files, must be None for {type(source).__name__}")
    path = Path(source)
    kind, where = recognise(path, function, format), label(path, function)
    if kind.name not in ("parquet", "arrow", "arrow stream", "text"):
        raise ValueError(f"{where} is {kind.words}, which has no columns with names; omit key_column=")
    table = open_table(path, kind, function, format)
    return _of_table(table, check_column(table, key_column or "", "key_column", function))


def _of_texts(keys: Any, function: str) -> Iterator[KeyRows]:
    if isinstance(keys, Iterator):
        for number in itertools.count():
            block = list(itertools.islice(keys, _ROWS))
            if not block:
                return
            yield key_rows(block, function, number * _ROWS)
    if hasattr(keys, "iloc"):  # a pandas Series is sliced by its index
        keys = keys.to_numpy()
    if not isinstance(keys, (Sequence, np.ndarray)) and not hasattr(keys, "to_pylist"):
        yield key_rows(keys, function)
        return
    for start in range(0, len(keys), _ROWS):
        yield key_rows(keys[start : start + _ROWS], function, start)


def _of_file(path: Path, key_column: str | None, function: str) -> Iterator[KeyRows]:
    """Text with a key a line, exactly as it is, or a column of a table: `key_column`, else "key", else the only one."""
    where = label(path, function)
    with open(path, "rb") as file:
        start = file.read(8)
    if not start.startswith(_TABLE_STARTS) and path.suffix.lower() not in _TABLE_SUFFIXES:
        if start.startswith((b"\x93NUMPY", b"PK\x03\x04")):
            words = recognise(path, function).words
            raise ValueError(f"{where} is {words}, keys are read from text, CSV, Parquet and Arrow files")
        if key_column is not None:
            raise ValueError(f"{where} is text with one key in each line and has no columns; omit key_column=")
        return _of_lines(path, start, function)
    table = open_table(path, recognise(path, function), function)
    if isinstance(table, TextTable) and not table.headed:
        table.headed = True  # a table of one column begins with its name
    if key_column is None:
        found = [name for name in table.names if name in _NAMES] or table.names
        if len(found) != 1:
            raise ValueError(
                f"{table.where} has no column 'key'; its columns are {listed(table.names)}; name one with key_column="
            )
        key_column = found[0]
    return _of_table(table, check_column(table, key_column, "key_column", function))


def _of_lines(path: Path, start: bytes, function: str) -> Iterator[KeyRows]:
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    where, number = label(path, function), 0
    with open(path, encoding=encoding, newline="\n") as file:
        try:
            while lines := file.readlines(_LINES_BYTES):
                texts = [line.removesuffix("\n").removesuffix("\r") for line in lines]
                yield key_rows(texts, where, number, "line", 1)
                number += len(lines)
        except UnicodeDecodeError as error:
            what = "UTF-16" if encoding == "utf-16" else "UTF-8"
            raise ValueError(f"{where} is not {what} text after line {number} ({error.reason})") from None


def _of_table(table: ArrowTable | TextTable, name: str) -> Iterator[KeyRows]:
    where = f"{table.where}: column {name!r}"
    if isinstance(table, ArrowTable):
        types, kind = import_arrow("pyarrow", "").types, table.field_type(name)
        texts = ("is_string", "is_large_string", "is_string_view")  # the last came with pyarrow 16
        if not any(hasattr(types, check) and getattr(types, check)(kind) for check in texts):
            raise ValueError(
                f"{where} is of type {table.type_of(name)}, keys must be text; make it a column of strings"
            )
    return _blocks(table, name, where)


def _blocks(table: ArrowTable | TextTable, name: str, where: str) -> Iterator[KeyRows]:
    for block in table.blocks([name], _ROWS):
        column = block.columns[0]
        yield (
            key_rows(column, where, block.start, "row")
            if isinstance(column, list)
            else encoded_rows(*_buffers(column), where, block.start)
        )


def _buffers(column: Any) -> tuple[Any, Any]:
    """The bytes of an arrow array of texts, and where each ends."""
    arrow = import_arrow("pyarrow", "")
    column = column.cast(arrow.large_string())
    offsets = np.frombuffer(column.buffers()[1] or b"\0" * 8, "<i8")[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]
