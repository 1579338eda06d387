"""Tables: named columns of a text, CSV, TSV, Parquet or Arrow file, read by blocks of rows."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fasthash._tables.kinds import label


class Block(NamedTuple):
    """Some rows: for each column a list of str (text files) or a pyarrow array."""

    columns: list[Any]
    start: int  # number of the first row, from 0
    lines: Sequence[int] | None  # of a text file: the number of each row's line, from 1

    def place(self, row: int) -> str:
        """The place of a row of the block in the file: "line 12" of text, else "row 11"."""
        return f"row {self.start + row}" if self.lines is None else f"line {self.lines[row]}"


class Table(Protocol):
    """Common parts of ArrowTable and TextTable."""

    path: Path

    @property
    def names(self) -> list[str]:
        """Of the columns."""

    def type_of(self, name: str) -> str:
        """The type of a column in words."""

    def blocks(self, names: list[str], rows: int) -> Iterator[Block]:
        """The columns `names`, at most `rows` rows at a time."""


def check_column(table: Table, name: str, option: str, function: str) -> str:
    """The name, of a column that is there once; `option`: of the argument that gave it."""
    if table.names.count(name) == 1:
        return name
    where = label(table.path, function)
    if name in table.names:
        raise ValueError(f"{where} has {table.names.count(name)} columns {name!r}; rename one of them")
    near = difflib.get_close_matches(name, table.names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{where} has no column {name!r} ({option}=), its columns are {listed(table.names)}{hint}")


def listed(names: Sequence[str]) -> str:
    """Names of columns as a message shows them, 12 at most."""
    shown = ", ".join(repr(name) for name in names[:12])
    return shown if len(names) <= 12 else f"{shown} and {len(names) - 12} more"
