"""Which column of a table has the ids, and its values as int64."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables.arrow import ArrowTable, import_arrow
from fasthash._tables.table import Block, Table, check_column, listed
from fasthash._tables.text import TextTable

NAMES = ("id", "ids")
_MEANT = re.compile(
    r"|unnamed: 0|index|level_0|__index_level_\d+__|(.*[_\-. ])?(id|ids|idx|uid|uuid|guid|pk|key)|.*[a-z](Id|ID)s?",
    re.A,
)
_WHOLE = re.compile(r"[-+]?\d+", re.A)


def looks_meant(name: str) -> bool:
    """Whether a column's name looks like ids: "ID", "image_id", "imageId", the index of pandas."""
    return bool(_MEANT.fullmatch(name) or _MEANT.fullmatch(name.lower()))


def look_alikes(table: Table, but: Sequence[str] = ()) -> list[str]:
    """Columns of whole numbers whose names look like ids, or that are the index of a pandas frame."""
    return [name for name in meant(table, but) if _is_whole(table, name)]


def meant(table: Table, but: Sequence[str] = ()) -> list[str]:
    """Columns of any type whose names look like ids, or that are the index of a pandas frame."""
    index = table.index_names if isinstance(table, ArrowTable) else []
    found = [name for name in table.names if name not in but and name and (looks_meant(name) or name in index)]
    return [*found, *(name for name in _ranges(table) if name not in but)]


def find_id_column(table: Table, id_column: str | None, function: str, *, beside: bool = True) -> str | None:
    """The column of ids: `id_column`, else "id" or "ids", else None; raises ValueError for one that cannot be ids.

    beside: ids may be given beside the table too, as `ids=`, which the message then names.
    """
    where = f"{function}: {table.path}" if function else str(table.path)
    ranges = _ranges(table)
    if id_column is not None:
        name = id_column if id_column in ranges else check_column(table, id_column, "id_column", function)
    else:
        found = [name for name in NAMES if name in table.names or name in ranges]
        if len(found) > 1:
            raise ValueError(f"{where} has columns 'id' and 'ids'; pass id_column='id' or id_column='ids'")
        if not found:
            return None
        name = found[0] if found[0] in ranges else check_column(table, found[0], "id_column", function)
    if name in ranges and isinstance(table, ArrowTable) and table.count_rows() != len(ranges[name]):
        raise ValueError(
            f"{where}: the metadata say that the pandas index {name!r} is a range of {len(ranges[name])} values, "
            f"the file has {table.rows} rows; call frame.reset_index() and write the file again, or pass ids="
        )
    if not _is_whole(table, name):
        others = look_alikes(table, (name,))
        if others:
            way = f"name another column with id_column= (possible: {listed(others)})"
        else:
            way = "name a column of integers with id_column="
            way = f"pass your own numbers as ids=, or {way}" if beside else way
        raise ValueError(
            f"{where}: column {name!r} is of type {table.type_of(name)}, ids must be integers >= 0; {way}, or "
            "rename or drop the column (then the rows are numbered)"
        )
    return name


def id_values(column: Any, block: Block, name: str, where: str) -> NDArray[np.int64]:
    """The ids of a block; raises ValueError, naming the row, for what is no integer in 0..2**63 - 1."""
    if isinstance(column, list):
        bad = next((row for row, text in enumerate(column) if not _WHOLE.fullmatch(text)), None)
        if bad is not None:
            raise ValueError(
                f"{where}: column {name!r} has {column[bad]!r} in {block.place(bad)}, ids must be integers >= 0; name "
                "another column with id_column="
            )
        numbers = [int(text) for text in column]
        bad = next((row for row, number in enumerate(numbers) if not 0 <= number < 2**63), None)
    else:
        values = column.to_numpy(zero_copy_only=False)
        wrong = (values < 0) if values.dtype.kind == "i" else values >= 2**63
        numbers, bad = values, int(wrong.argmax()) if wrong.any() else None
    if bad is not None:
        raise ValueError(
            f"{where}: column {name!r} has {numbers[bad]} in {block.place(bad)}, ids must be between 0 and 2**63 - 1"
        )
    return np.asarray(numbers, np.int64)


def _ranges(table: Table) -> dict[str, range]:
    return table.ranges if isinstance(table, ArrowTable) else {}


def _is_whole(table: Table, name: str) -> bool:
    if name in _ranges(table):
        return True
    if isinstance(table, ArrowTable):
        return bool(import_arrow("pyarrow", "").types.is_integer(table.field_type(name)))
    if isinstance(table, TextTable):
        values = table.sample(name)
        return all(_WHOLE.fullmatch(value) for value in values)
    return False
