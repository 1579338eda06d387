"""Codes from a column of a table: which column it is, and its values as packed codes, block by block."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._tables import ArrowTable, TextTable, import_arrow
from fasthash._tables.arrow import lists
from fasthash._tables.ids import looks_meant
from fasthash._tables.table import Block, check_column, listed
from fasthash.codes import code_bytes
from fasthash.index.exchange.numbers import (
    Codes,
    NotCodes,
    codes_of_bits,
    codes_of_decimal,
    codes_of_hex,
    codes_of_literals,
    codes_of_numbers,
    decide_base,
    text_form,
)

Table = ArrowTable | TextTable
_TIERS = ("bytes", "hex", "number")  # how surely a column holds codes
_USUAL = {"code", "codes", "hash", "hashes"}
# The header of a text file of one column; other words there are refused, since a damaged code could look like one.
_CODE_WORD = re.compile(
    r"[a-z_ ]*(code|hash|hex|bits|fingerprint|signature|md5|sha|uint64|int64|value)[a-z0-9_ ]*", re.I
)
_READ = "codes are binary, lists of uint8, 64-bit integers, or hexadecimal or decimal text"


class CodeColumn(NamedTuple):
    """A column of codes: its name and form ("binary", "list", "bools", "number", "hex", "decimal", "literal")."""

    name: str
    form: str
    bits: int


def find_code_column(
    table: Table,
    column: str | None,
    others: tuple[str | None, ...],
    bits: int | None,
    format: str | None,
    function: str,
) -> CodeColumn:
    """The column that holds codes, and their form and bits; raises ValueError where none or several could be meant."""
    if isinstance(table, TextTable) and not table.headed:
        _name_columns(table, column, function)
    if column is not None and not (isinstance(table, TextTable) and len(table.names) == 1 and not table.headed):
        name = check_column(table, column, "column", function)
        form = _form(table, name)
        if form is None:
            raise ValueError(
                f"{table.where}: column {name!r} is of type {table.type_of(name)}, which holds no codes; {_READ}"
            )
    elif isinstance(table, TextTable) and len(table.names) == 1:
        name, form = table.names[0], _form(table, table.names[0]) or "text"
    else:
        name, form = _only_candidate(table, others)
    return _with_bits(table, name, form, bits, format)


def code_blocks(table: Table, column: CodeColumn, id_name: str | None, rows: int) -> Iterator[tuple[Codes, Any, Block]]:
    """Codes, the column of ids (or None) and the block that they are of; raises ValueError naming the row."""
    names = [column.name] if id_name is None else [column.name, id_name]
    try:
        for block in table.blocks(names, rows):
            codes = _codes(block.columns[0], column, block)
            yield codes, None if id_name is None else block.columns[1], block
    except NotCodes as error:
        raise _placed(table, column.name, error) from None


def _placed(table: Table, name: str, error: NotCodes) -> ValueError:
    one = isinstance(table, TextTable) and len(table.names) == 1
    return ValueError(f"{table.where}: {error}" if one else f"{table.where}: column {name!r}: {error}")


def _name_columns(table: TextTable, column: str | None, function: str) -> None:
    """Decides whether the first line of a text file is a header."""
    if len(table.names) > 1:
        shown = ", ".join(repr(field) for field in table.first[:3])
        raise ValueError(
            f"{table.where}: line 1 ({shown}) has values, must have the names of the columns; add a header line such "
            "as id,code"
        )
    first = table.first[0]
    if (column is not None and first == column) or (_CODE_WORD.fullmatch(first) and text_form([first]) is None):
        table.headed = True
    elif column is not None and column != "1":
        raise ValueError(f"{table.where} has one column without a name; omit column=, got {column!r}")
    elif text_form([first]) is None:
        raise ValueError(
            f"{table.where}: line 1 has {first[:60]!r}, which is not a code in hexadecimal or decimal digits; if "
            "it is the name of the column, pass column= with that name"
        )


def _form(table: Table, name: str) -> str | None:
    """binary, list, bools, number or text; None for a type that holds no codes."""
    if isinstance(table, TextTable):
        return "text"
    types, found = import_arrow("pyarrow", "").types, table.field_type(name)
    if _is_any(types, found, "is_fixed_size_binary", "is_binary", "is_large_binary", "is_binary_view"):
        return "binary"
    if _is_any(types, found, "is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view"):
        if types.is_boolean(found.value_type):
            return "bools"
        return "list" if types.is_integer(found.value_type) else None
    if _is_any(types, found, "is_string", "is_large_string", "is_string_view"):
        return "text"
    return "number" if types.is_integer(found) and found.bit_width >= 16 else None


def _is_any(types: Any, found: Any, *checks: str) -> bool:
    return any(hasattr(types, check) and getattr(types, check)(found) for check in checks)  # some came with pyarrow 16


def _sample(table: Table, name: str) -> list[str]:
    """The first values of a column of text."""
    if isinstance(table, TextTable):
        return table.sample(name)
    first = next(table.blocks([name], 1000), None)
    return [] if first is None else [text.strip() for text in first.columns[0].to_pylist()]


def _only_candidate(table: Table, others: tuple[str | None, ...]) -> tuple[str, str]:
    tiers: dict[str, list[tuple[str, str]]] = {tier: [] for tier in _TIERS}
    for name in table.names:
        form = None if name in others or table.names.count(name) > 1 else _form(table, name)
        if form is None:
            continue
        tier = "number" if form == "number" else "bytes"
        if form == "text":
            what = text_form(_sample(table, name))
            if what is None:
                continue
            tier = {"literal": "bytes", "hex": "hex", "digits": "number"}[what]
        elif form == "number" and isinstance(table, ArrowTable) and table.field_type(name).bit_width < 64:
            continue
        if tier == "bytes" or not looks_meant(name):
            tiers[tier].append((name, form))
    found = next((names for names in tiers.values() if names), [])
    if len(found) > 1 and found is tiers["number"]:
        usual = [entry for entry in found if entry[0].lower() in _USUAL]
        found = usual if len(usual) == 1 else found
    if len(found) == 1:
        return found[0]
    if found:
        names = listed([name for name, _ in found])
        raise ValueError(
            f"{table.where} has {len(found)} columns that could be the codes: {names}; name one with column="
        )
    named = [name for name in table.names if _CODE_WORD.fullmatch(name) and _form(table, name) == "text"]
    if len(named) == 1:
        return named[0], "text"  # the first value that is no code is told
    columns = ", ".join(f"{name!r} ({table.type_of(name)})" for name in table.names[:12]) or "none"
    raise ValueError(
        f"{table.where} has no column that certainly holds codes; its columns are {columns}; {_READ}; name "
        "one with column="
    )


def _with_bits(table: Table, name: str, form: str, bits: int | None, format: str | None) -> CodeColumn:
    """The form of text, and the bits of the codes, from the first value where they are not given."""
    if form != "text" and isinstance(table, ArrowTable):
        if format in ("hex", "decimal"):
            raise ValueError(
                f"{table.where}: column {name!r} is of type {table.type_of(name)}, but format={format!r} needs text; "
                "omit format="
            )
        return CodeColumn(name, form, _bits_of(table, name, form, bits))
    try:
        what = format if format in ("hex", "decimal") else text_form(_sample(table, name))
        if what == "digits":
            what = decide_base((_texts(block.columns[0]) for block in table.blocks([name], 1 << 16)), bits)
    except NotCodes as error:
        raise _placed(table, name, error) from None
    if what is None and not _sample(table, name) and bits is None:
        raise ValueError(f"{table.where} has no rows, bits must be given")
    what = what or _likely(_sample(table, name))
    if bits is None:
        if what == "decimal":
            return CodeColumn(name, what, 64)
        first = (_sample(table, name) or [""])[0]
        if what == "literal":
            return CodeColumn(name, what, 8 * codes_of_literals([first], None, str).shape[1])
        digits = len(first) - 2 * (first[:2] in ("0x", "0X"))
        if digits % 2 or not digits:
            raise _placed(
                table,
                name,
                NotCodes(
                    f"the first value {first!r} has {digits} hexadecimal digits, must have an even number (whole "
                    "bytes); for codes of other widths pass bits="
                ),
            )
        bits = 4 * digits
    if what == "decimal" and bits > 64:
        raise ValueError(f"{table.where}: decimal codes have at most 64 bits, got bits={bits}")
    return CodeColumn(name, what, bits)


def _likely(sample: list[str]) -> str:
    """The format of most values. The message about the first wrong value then fits."""
    lengths = [len(text) for text in sample if text.lstrip("-").isdecimal()]
    return "decimal" if len(set(lengths)) > 1 and 2 * len(lengths) > len(sample) else "hex"


def _bits_of(table: ArrowTable, name: str, form: str, bits: int | None) -> int:
    found = table.field_type(name)
    if form == "number":
        size = int(found.bit_width)
        if bits is not None and bits > size:
            raise ValueError(f"{table.where}: column {name!r} has numbers of {size} bits, codes of {bits} do not fit")
        return size if bits is None else bits
    first = next(table.blocks([name], 1), None)
    if first is None:
        width = getattr(found, "list_size", None) or _fixed_width(found)
        if width is None and bits is None:
            raise ValueError(f"{table.where} has no rows, bits must be given")
    else:
        width = len(first.columns[0][0].as_py())
    if bits is not None:
        return bits
    return int(width or 0) if form == "bools" else 8 * int(width or 0)


def _fixed_width(found: Any) -> int | None:
    try:
        return int(found.byte_width)
    except (AttributeError, ValueError):
        return None


def _texts(column: Any) -> list[str]:
    return column if isinstance(column, list) else [text.strip() for text in column.to_pylist()]


def _codes(column: Any, of: CodeColumn, block: Block) -> Codes:
    if of.form == "hex":
        return codes_of_hex(_texts(column), of.bits, block.place)
    if of.form == "decimal":
        return codes_of_decimal(_texts(column), of.bits, block.place)
    width = code_bytes(of.bits)
    if of.form == "literal":
        return codes_of_literals(_texts(column), width, block.place)
    if of.form == "number":
        return codes_of_numbers(column.to_numpy(zero_copy_only=False), of.bits, block.place)
    if of.form == "binary":
        return _of_one_width(_binary(column), width, "bytes", of, block)
    items, lengths, null = lists(column)
    if null is not None:
        raise NotCodes(f"{block.place(null)} has a list with a null, must not have any")
    if of.form == "bools":
        return codes_of_bits(_of_one_width((items, lengths), of.bits, "bits", of, block))
    rows = _of_one_width((items, lengths), width, "bytes", of, block)
    if rows.size and rows.max() <= 1 and (rows.dtype != np.uint8 or width >= 32):
        raise NotCodes(
            "lists hold only 0 and 1, which may be bits; if they are, make them boolean, or pack them (numpy.packbits)"
        )
    if rows.dtype == np.uint8:
        return rows
    wrong = ((rows < 0) | (rows > 255)).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise NotCodes(f"{block.place(row)} has values outside 0 to 255, codes are lists of bytes (uint8)")
    return rows.astype(np.uint8)


def _of_one_width(
    values: tuple[NDArray[Any], NDArray[Any]], width: int, what: str, of: CodeColumn, block: Block
) -> NDArray[Any]:
    items, lengths = values
    wrong = lengths != width
    if wrong.any():
        row = int(wrong.argmax())
        raise NotCodes(
            f"{block.place(row)} has {lengths[row]} {what}, codes of {of.bits} bits have {width}; all must have one "
            "width"
        )
    return items.reshape(len(lengths), width)


def _binary(column: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The bytes of all rows, and the length of each."""
    arrow = import_arrow("pyarrow", "")
    if arrow.types.is_fixed_size_binary(column.type):
        width = column.type.byte_width
        data = np.frombuffer(column.buffers()[1] or b"", np.uint8)
        return data[column.offset * width : (column.offset + len(column)) * width], np.full(len(column), width)
    column = column.cast(arrow.large_binary())
    offsets = np.frombuffer(column.buffers()[1] or b"\0" * 8, "<i8")[column.offset : column.offset + len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", np.uint8)
    return data[offsets[0] : offsets[-1]], np.diff(offsets)
