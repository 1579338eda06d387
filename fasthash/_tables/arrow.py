"""Parquet and Arrow files (Feather version 2 is one of them) and Arrow streams as tables."""

from __future__ import annotations

import importlib
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


class ArrowTable:
    """The columns of a Parquet or Arrow file. Dictionary columns are decoded, extension types are read as stored."""

    def __init__(self, path: Path, kind: Kind, function: str):
        self.path, self.where, self._kind = path, label(path, function), kind
        self._arrow = import_arrow("pyarrow", function)
        self._function = function
        file = self._open()
        self.schema = file.schema_arrow if kind.name == "parquet" else file.schema
        self.rows = file.metadata.num_rows if kind.name == "parquet" else None

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

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
        start = 0
        try:
            for batch in self._batches(names, rows):
                for at in range(0, len(batch), rows):
                    part = batch.slice(at, rows)
                    columns = [self._plain(part.column(part.schema.get_field_index(name))) for name in names]
                    block = Block(columns, start, None)
                    self._refuse_nulls(block, names)
                    yield block
                    start += len(part)
        except self._arrow.ArrowException as error:
            raise ValueError(f"{self.where} is damaged: {error}") from error

    def _batches(self, names: list[str], rows: int) -> Iterator[Any]:
        file = self._open()
        if self._kind.name == "parquet":
            yield from file.iter_batches(batch_size=rows, columns=names)
        elif self._kind.name == "arrow":
            yield from (file.get_batch(number) for number in range(file.num_record_batches))
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
