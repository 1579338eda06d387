"""Parquet and Arrow files (Feather version 2 is one of them) and Arrow streams as tables."""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables.kinds import Kind, label
from fasthash._tables.table import Block


def import_arrow(what: str, function: str) -> Any:
    """pyarrow, or one of its modules; a clear error where it is not installed."""
    try:
        return importlib.import_module(what)
    except ImportError as error:
        start = f"{function}: " if function else ""
        raise ImportError(
            f"{start}Parquet and Arrow files need pyarrow, which is not installed: pip install 'fasthash[arrow]'"
        ) from error


def lists(column: Any) -> tuple[NDArray[Any], NDArray[Any], int | None]:
    """Of an array of lists: all items, the length of each list, and the first row whose list holds a null."""
    items = column.flatten()
    lengths = import_arrow("pyarrow.compute", "").list_value_length(column).to_numpy(zero_copy_only=False)
    row = None
    if items.null_count:
        first = int(items.is_null().to_numpy(zero_copy_only=False).argmax())
        row = int(np.searchsorted(np.cumsum(lengths), first, side="right"))
    return items.to_numpy(zero_copy_only=False), lengths, row


def _pandas_index(schema: Any) -> tuple[list[str], dict[str, range]]:
    """The columns that are the index of a pandas frame, and an index that is a range, which pandas writes as no column.

    A range without a name has pandas' own name for a column of the index. The plain range from 0 is left out, as its
    values are the row numbers.
    """
    try:
        found = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
        names = [name for name in found if isinstance(name, str) and name in schema.names]
        parts = [part for part in found if isinstance(part, dict) and part.get("kind") == "range"]
        ranges = {
            f"__index_level_{at}__" if part["name"] is None else str(part["name"]): range(
                part["start"], part["stop"], part["step"]
            )
            for at, part in enumerate(parts)
        }
    except (ValueError, KeyError, TypeError, AttributeError):  # metadata of another program
        return [], {}
    return names, {
        name: values
        for name, values in ranges.items()
        if name not in schema.names and (values.start, values.step) != (0, 1)
    }


class ArrowTable:
    """The columns of a Parquet or Arrow file. Dictionary columns are decoded, extension types are read as stored.

    `ranges` are an index of pandas that is in the metadata only: no columns, but `blocks` gives their values as ids.
    """

    def __init__(self, path: Path, kind: Kind, function: str):
        self.path, self.where, self._kind = path, label(path, function), kind
        self._arrow = import_arrow("pyarrow", function)
        self._function = function
        file = self._open()
        self.schema = file.schema_arrow if kind.name == "parquet" else file.schema
        self.rows = file.metadata.num_rows if kind.name == "parquet" else None
        self.index_names, self.ranges = _pandas_index(self.schema)
        self._units: range | None = None  # row groups, or batches, that are read; None: all
        self._first = 0  # the row that the first of them begins with

    def unit_rows(self) -> list[int]:
        """Rows of each unit that can be read by itself: a row group of Parquet, a batch of Arrow, a whole stream."""
        file = self._open()
        if self._kind.name == "parquet":
            return [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        if self._kind.name == "arrow":
            return [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
        return [self.count_rows()]

    def part(self, units: range, first: int) -> ArrowTable:
        """The table of some units, one after the other, the first of which begins with the row `first`."""
        part = copy.copy(self)
        part._units, part._first = units, first
        return part

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    def count_rows(self) -> int:
        """The rows of the file; of an Arrow file by going through its batches."""
        if self.rows is None:
            self.rows = sum(len(batch) for batch in self._batches([], 1))
        return self.rows

    def _open(self) -> Any:
        arrow, path = self._arrow, os.fspath(self.path)
        try:
            if self._kind.name == "parquet":
                return import_arrow("pyarrow.parquet", self._function).ParquetFile(path, memory_map=True)
            ipc = import_arrow("pyarrow.ipc", self._function)
            opened = ipc.open_file if self._kind.name == "arrow" else ipc.open_stream
            return opened(arrow.memory_map(path))
        except (arrow.ArrowException, OSError) as error:
            if isinstance(error, (FileNotFoundError, PermissionError)):
                raise
            raise ValueError(
                f"{self.where} is not a whole {self._kind.words.split(maxsplit=1)[1]} ({error})"
            ) from error

    def field_type(self, name: str) -> Any:
        """The arrow type of a column, below extension and dictionary types."""
        found = self.schema.field(name).type
        while True:
            if isinstance(found, self._arrow.BaseExtensionType):
                found = found.storage_type
            elif self._arrow.types.is_dictionary(found):
                found = found.value_type
            else:
                return found

    def type_of(self, name: str) -> str:
        return str(self.schema.field(name).type)

    def blocks(self, names: list[str], rows: int) -> Iterator[Block]:
        """Columns as arrays; nulls are refused."""
        start = self._first
        stored = [name for name in names if name not in self.ranges] or self.names[:1]
        try:
            for batch in self._batches(stored, rows):
                for at in range(0, len(batch), rows):
                    part = batch.slice(at, rows)
                    columns = [self._column(part, name, start) for name in names]
                    block = Block(columns, start, None)
                    self._refuse_nulls(block, names)
                    yield block
                    start += len(part)
        except self._arrow.ArrowException as error:
            raise ValueError(f"{self.where} is damaged: {error}") from error

    def _column(self, part: Any, name: str, start: int) -> Any:
        if name not in self.ranges:
            return self._plain(part.column(part.schema.get_field_index(name)))
        values = self.ranges[name][start : start + len(part)]
        return self._arrow.array(np.arange(values.start, values.stop, values.step, dtype=np.int64))

    def _batches(self, names: list[str], rows: int) -> Iterator[Any]:
        file = self._open()
        if self._kind.name == "parquet":
            groups = None if self._units is None else list(self._units)
            yield from file.iter_batches(batch_size=rows, row_groups=groups, columns=names)
        elif self._kind.name == "arrow":
            units = range(file.num_record_batches) if self._units is None else self._units
            yield from (file.get_batch(number) for number in units)
        else:
            yield from file

    def _plain(self, array: Any) -> Any:
        while True:
            if isinstance(array.type, self._arrow.BaseExtensionType):
                array = array.storage
            elif self._arrow.types.is_dictionary(array.type):
                array = self._decoded(array)
            else:
                return array

    def _decoded(self, array: Any) -> Any:
        values, types = array.dictionary, self._arrow.types
        if hasattr(types, "is_string_view") and types.is_string_view(values.type):  # views cannot be taken from
            array = self._arrow.DictionaryArray.from_arrays(array.indices, values.cast(self._arrow.large_string()))
        return array.dictionary_decode()

    def _refuse_nulls(self, block: Block, names: list[str]) -> None:
        for name, column in zip(names, block.columns, strict=True):
            if column.null_count:
                row = column.is_null().to_numpy(zero_copy_only=False).argmax()
                raise ValueError(
                    f"{self.where}: column {name!r} has a null in {block.place(int(row))}, must not have any; fill it "
                    "or leave the row out"
                )
