"""Numbers and labels from the columns of a table: embeddings and targets [N, F], labels [N]."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables.arrow import ArrowTable, import_arrow, lists
from fasthash._tables.ids import looks_meant
from fasthash._tables.table import Block, check_column, listed
from fasthash._tables.text import TextTable

Table = ArrowTable | TextTable

LABEL_NAMES = {"label", "labels", "class", "classes", "target", "targets", "category", "categories", "intent", "y"}
_ROWS = 1 << 14  # rows that are converted at once
_LIST = re.compile(r"\[[-+\d.eE,\snainfNAIF]*\]", re.A)
_PATTERN = "a name, several with commas, or a pattern such as 'x*'"


def column_kind(table: Table, name: str) -> str:
    """ "float", "whole", "floats" (a list of floats), "wholes", "truth", "text" or "other"."""
    if isinstance(table, TextTable):
        values = table.sample(name)
        if values and all(_LIST.fullmatch(value) for value in values):
            return "floats" if any(mark in value for value in values for mark in ".en") else "wholes"
        words = table.type_of(name)
        return {"whole numbers": "whole", "numbers with a decimal point": "float", "true and false": "truth"}.get(
            words, "text"
        )
    types, found = import_arrow("pyarrow", "").types, table.field_type(name)
    lists = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    if any(hasattr(types, check) and getattr(types, check)(found) for check in lists):
        value = found.value_type
        return "floats" if types.is_floating(value) else "wholes" if types.is_integer(value) else "other"
    if types.is_floating(found):
        return "float"
    if types.is_integer(found):
        return "whole"
    if types.is_boolean(found):
        return "truth"
    texts = ("is_string", "is_large_string", "is_string_view")
    return "text" if any(hasattr(types, check) and getattr(types, check)(found) for check in texts) else "other"


def find_number_columns(table: Table, column: str | None, function: str, *, whole: bool = False) -> list[str] | None:
    """The columns of embeddings: those that `column` names, else one list column, else all columns of floats.

    None where a table has neither. whole: columns of whole numbers count too, if no others do. Raises ValueError where
    several could be meant, or where columns among them look like labels, ids or counts.
    """
    kinds = {name: column_kind(table, name) for name in dict.fromkeys(table.names)}
    if column is not None:
        return _named(table, column, kinds, function)
    for kind in ("floats", "wholes") if whole else ("floats",):
        found = [name for name, own in kinds.items() if own == kind]
        if len(found) > 1:
            raise ValueError(f"{table.where} has {len(found)} columns of lists: {listed(found)}; name one with column=")
        if found:
            return found
    plain = isinstance(table, TextTable) and not table.headed
    apart = {name for name in kinds if not plain and (name.lower() in LABEL_NAMES or looks_meant(name))}
    floats = [name for name, kind in kinds.items() if kind == "float"]
    wholes = [name for name, kind in kinds.items() if kind == "whole" and name not in apart]
    if plain and len(floats) + len(wholes) < len(kinds):
        return None
    if plain:
        return list(kinds)
    if not floats:
        return wholes if wholes and whole else None
    unsure = [name for name in floats if name in apart] + wholes
    if unsure:
        raise ValueError(
            f"{table.where}: columns {listed(unsure)} may be labels, ids or counts, or part of the embeddings; name "
            f"the columns of the embeddings with column= ({_PATTERN})"
        )
    return floats


def _named(table: Table, column: str, kinds: dict[str, str], function: str) -> list[str]:
    if column in kinds:
        names = [column]
    else:
        names = []
        for part in column.split(","):
            found = fnmatch.filter(kinds, part.strip()) or [check_column(table, part.strip(), "column", function)]
            names += [name for name in found if name not in names]
    for name in names:
        check_column(table, name, "column", function)
        if kinds[name] not in ("float", "whole", "truth") and (
            len(names) > 1 or kinds[name] not in ("floats", "wholes")
        ):
            raise ValueError(
                f"{table.where}: column {name!r} is of type {table.type_of(name)}, embeddings must be one column of "
                f"lists, or columns of numbers; name them with column= ({_PATTERN})"
            )
    return names


def number_blocks(table: Table, names: list[str]) -> Iterator[NDArray[Any]]:
    """The columns as arrays [n, F], block by block; raises ValueError naming the row for what is no number."""
    width = None
    for block in table.blocks(names, _ROWS):
        if len(names) == 1:
            rows = _rows(table, names[0], block, width)
            width = rows.shape[1]
            yield rows
        else:
            yield np.stack([_numbers(table, *pair, block) for pair in zip(names, block.columns, strict=True)], 1)


def read_numbers(table: Table, names: list[str]) -> NDArray[Any]:
    """The columns as one array [N, F], in memory; raises as `number_blocks`."""
    parts = list(number_blocks(table, names))
    if not parts:
        raise ValueError(f"{table.where} has no rows")
    return np.concatenate(parts)


def _numbers(table: Table, name: str, column: Any, block: Block) -> NDArray[Any]:
    if not isinstance(column, list):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    try:
        return np.array(column, np.float64)
    except ValueError:
        for row, text in enumerate(column):
            try:
                float(text)
            except ValueError:
                raise ValueError(
                    f"{table.where}: column {name!r} has {text[:40]!r} in {block.place(row)}, must be a number"
                ) from None
        raise


def _rows(table: Table, name: str, block: Block, width: int | None) -> NDArray[Any]:
    """A column of lists, or of numbers, as rows."""
    column = block.columns[0]
    if isinstance(column, list):
        if column and not column[0].startswith("["):
            return _numbers(table, name, column, block)[:, None]
        rows = []
        for row, text in enumerate(column):
            if not _LIST.fullmatch(text):
                raise ValueError(
                    f"{table.where}: column {name!r} has {text[:40]!r} in {block.place(row)}, must be a list"
                )
            rows.append(np.array(text[1:-1].replace(",", " ").split(), np.float64))
        lengths, items = np.array([len(row) for row in rows]), np.concatenate(rows)
    else:
        if not hasattr(column, "flatten") or not hasattr(column.type, "value_type"):
            return _numbers(table, name, column, block)[:, None]
        items, lengths, null = lists(column)
        if null is not None:
            raise ValueError(
                f"{table.where}: column {name!r} has a list with a null (or NaN, in pandas) in {block.place(null)}"
            )
    width = int(lengths[0]) if width is None and len(lengths) else width
    wrong = lengths != width
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{table.where}: column {name!r} has {lengths[row]} numbers in {block.place(row)}, the rows before have "
            f"{width}"
        )
    return items.reshape(len(lengths), -1)


def find_label_column(table: Table, column: str | None, function: str) -> str:
    """The column of labels: `column`, else the one that is called so, else the only one that could be."""
    usable = ("whole", "text", "truth")
    if column is not None:
        name = check_column(table, column, "label_column", function)
        if column_kind(table, name) not in usable:
            raise ValueError(
                f"{table.where}: column {name!r} is of type {table.type_of(name)}, labels must be integers or text; "
                "name another with label_column="
            )
        return name
    found = [name for name in table.names if column_kind(table, name) in usable]
    called = [name for name in found if name.lower() in LABEL_NAMES]
    others = [name for name in found if not looks_meant(name)]
    for names in (called, others):
        if len(names) == 1:
            return check_column(table, names[0], "label_column", function)
        if names:
            break
    several = called or others
    what = f"several columns that could be the labels: {listed(several)}" if several else "no column of labels"
    tail = "" if several else f"; its columns are {listed(table.names)}"
    raise ValueError(f"{table.where} has {what}{tail}; name one with label_column=")


def read_label_column(table: Table, name: str) -> NDArray[Any]:
    """A column of labels: integers, or text."""
    parts: list[Any] = []
    for block in table.blocks([name], _ROWS):
        column = block.columns[0]
        if isinstance(column, list):
            parts.append(np.array(column, np.str_))
        elif column_kind(table, name) == "text":
            parts.append(np.array(column.to_pylist(), np.str_))
        else:
            values = column.to_numpy(zero_copy_only=False)
            parts.append(values.astype(np.int64) if values.dtype.kind == "b" else values)
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
