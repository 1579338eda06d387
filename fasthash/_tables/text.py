"""Text files as tables: one value a line, or CSV and TSV with a header line.

Fields are separated by tab, comma or semicolon: the first of them by which all lines that are looked at have the same
number of fields, two or more. UTF-8, or UTF-16 and UTF-32 with a byte order mark; CRLF or LF.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasthash._tables.kinds import SAMPLE, Kind, label
from fasthash._tables.table import Block, check_column

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*|\s*(nan|inf|-inf)\s*", re.I | re.A)
_CODE = re.compile(r"\s*(0[xX][0-9a-fA-F]+|[0-9a-fA-F]{8,})\s*")
_FIELD_BYTES = 1 << 24  # of one field of CSV


class TextTable:
    """A text file: `delimiter` None where it has one value a line, `headed` where its first line names the columns."""

    def __init__(self, path: Path, kind: Kind, function: str, format: str | None = None):
        self.path, self.encoding, self._function = path, kind.encoding, function
        self.where = label(path, function)
        sample, whole = self._sample()
        if not whole and "\n" not in sample:
            raise ValueError(f"{self.where} has a first line of more than {SAMPLE} bytes, must have one value a line")
        self.delimiter = _delimiter(sample, whole, path.suffix.lower(), format)
        self.first = next(self._rows(), ([], 0))[0]
        if not self.first:
            raise ValueError(f"{self.where} begins with an empty line, must begin with a header or a value")
        self._head: list[list[str]] | None = None
        self.headed = len(self.first) > 1 and self._has_header()

    @property
    def names(self) -> list[str]:
        """The names of the header, else the numbers of the columns, from 1."""
        if self.headed:
            return [name.strip() for name in self.first]
        return [str(number) for number in range(1, len(self.first) + 1)]

    def type_of(self, name: str) -> str:
        values = self.sample(name)
        if values and all(re.fullmatch(r"\s*[-+]?\d+\s*", value, re.A) for value in values):
            return "whole numbers"
        if values and all(_NUMBER.fullmatch(value) for value in values):
            return "numbers with a decimal point"
        if values and {value.strip().lower() for value in values} <= {"true", "false"}:
            return "true and false"
        return "text"

    def sample(self, name: str) -> list[str]:
        """The first values of a column, 1,000 at most, without empty ones."""
        at = self.names.index(name)
        return [row[at] for row in self._begin()[int(self.headed) :] if at < len(row) and row[at]]

    def _begin(self) -> list[list[str]]:
        if self._head is None:
            self._head = [row for row, _ in itertools.islice(self._rows(), 1001)]
        return self._head

    def _has_header(self) -> bool:
        """Whether the first of several fields a line are names: also 0, 1, 2 ..., as pandas names unnamed columns."""
        numbers = [field for field in self.first if field]
        if len(numbers) < 2 or numbers != [str(number) for number in range(len(numbers))]:
            return looks_like_header(self.first)
        if len(numbers) < len(self.first) or any("." in field for row in self._begin()[1:] for field in row):
            return True
        raise ValueError(
            f"{self.where}: line 1 ({', '.join(numbers[:3])} ...) may be a header or a row of data; use names of "
            "columns that are not numbers"
        )

    def blocks(self, names: list[str], rows: int) -> Iterator[Block]:
        """Columns as lists of str. Empty lines are allowed at the end only, empty fields nowhere."""
        places = [self.names.index(check_column(self, name, "column", self._function)) for name in names]
        width, start, blank = len(self.first), 0, 0
        columns: list[list[str]] = [[] for _ in places]
        lines: list[int] = []
        for row, line in itertools.islice(self._rows(), int(self.headed), None):
            if not row:
                blank = blank or line
                continue
            if blank:
                raise ValueError(f"{self.where}: line {blank} is empty, must have a value; only the end may be empty")
            if len(row) != width:
                raise ValueError(f"{self.where}: line {line} has {len(row)} fields, must have {width} as line 1 has")
            for column, at in zip(columns, places, strict=True):
                column.append(row[at])
            lines.append(line)
            if len(lines) == rows:
                yield self._checked(Block(columns, start, lines), names)
                columns, lines, start = [[] for _ in places], [], start + rows
        if lines:
            yield self._checked(Block(columns, start, lines), names)

    def _checked(self, block: Block, names: list[str]) -> Block:
        for name, column in zip(names, block.columns, strict=True):
            if "" in column:
                place = block.place(column.index(""))
                raise ValueError(f"{self.where}: column {name!r} has no value in {place}; fill it or leave the row out")
        return block

    def _rows(self) -> Iterator[tuple[list[str], int]]:
        """Fields without outer spaces, and the number of the line; [] for an empty line."""
        line = 0
        try:
            with open(self.path, encoding=self.encoding, newline=None if self.delimiter is None else "") as file:
                if self.delimiter is None:
                    for line, text in enumerate(file, 1):
                        value = text.strip()
                        yield ([value] if value else []), line
                    return
                csv.field_size_limit(max(csv.field_size_limit(), _FIELD_BYTES))
                reader: Any = csv.reader(file, delimiter=self.delimiter, strict=True, skipinitialspace=True)
                for row in reader:
                    line = reader.line_num
                    fields = [field.strip() for field in row]
                    yield ([] if fields == [""] else fields), line
        except UnicodeDecodeError as error:
            what = self.encoding.upper()
            raise ValueError(f"{self.where} is not {what} text after line {line} ({error.reason})") from None
        except csv.Error as error:
            raise ValueError(f"{self.where}: line {line + 1} is not CSV ({error})") from None

    def _sample(self) -> tuple[str, bool]:
        with open(self.path, encoding=self.encoding, errors="replace", newline="") as file:
            text = file.read(SAMPLE)
            return text, not file.read(1)


def looks_like_header(fields: list[str]) -> bool:
    """Whether fields can be the names of columns: none is a number or a hexadecimal code, at most one is empty."""
    if sum(not field.strip() for field in fields) > 1:
        return False
    return not any(_NUMBER.fullmatch(field) or _CODE.fullmatch(field) or field[:1] in "[(" for field in fields if field)


def _delimiter(sample: str, whole: bool, suffix: str, format: str | None) -> str | None:
    """The separator of the fields; None: one value a line."""
    lines = sample.splitlines(keepends=True)
    if not whole and len(lines) > 1:
        lines = lines[:-1]
    for delimiter in "\t,;" if format != "tsv" else "\t":
        if not lines or delimiter not in lines[0]:
            continue
        try:
            rows = [row for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row]
        except csv.Error:
            continue
        counts = {len(row) for row in (rows if whole or len(rows) < 2 else rows[:-1])}
        if min(counts) >= 2 and len(counts) == 1:
            return delimiter
        if len(rows[0]) >= 2 and (suffix in (".csv", ".tsv", ".tab") or format in ("csv", "tsv")):
            return delimiter  # lines of another number of fields are refused where they are read
    if suffix in (".csv", ".tsv", ".tab") or format in ("csv", "tsv"):
        return "," if suffix == ".csv" or format == "csv" else "\t"  # one column, whose fields may be in quotes
    if any(line.startswith('"') for line in lines):
        with contextlib.suppress(csv.Error):
            if {len(row) for row in csv.reader(lines, skipinitialspace=True)} <= {0, 1}:
                return ","
    return None
