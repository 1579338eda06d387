"""Codes and ids from files, recognised by their content (docs/files.md): one entry for all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._arrays import dtype_name
from fasthash._tables import ArrowTable, TextTable, open_table, read_array, recognise
from fasthash._tables.ids import find_id_column, id_values, look_alikes, meant
from fasthash._tables.kinds import U8BIN_HEADER, label
from fasthash._tables.table import Block, check_column, listed
from fasthash._tables.text import looks_like_header
from fasthash._warnings import warn
from fasthash.codes import code_bytes
from fasthash.index.exchange.columns import code_blocks, find_code_column
from fasthash.index.exchange.faiss_file import open_faiss
from fasthash.index.exchange.numbers import Codes, NotCodes, codes_of_bits, codes_of_numbers

_TABLE_ROWS = 1 << 16  # rows of text that are in memory at once


class CodeFile(NamedTuple):
    """Codes of a file: `blocks` gives pairs (codes, ids or None), each time anew."""

    bits: int
    rows: int | None  # None: known when the blocks have ended
    has_ids: bool
    blocks: Iterator[tuple[Codes, NDArray[np.int64] | None]]
    packed: NDArray[np.uint8] | None = None  # all codes, mapped, where the file has them as they are


def open_codes(
    path: Path,
    bits: int | None,
    function: str,
    block_rows: Any,
    *,
    format: str | None = None,
    column: str | None = None,
    id_column: str | None = None,
    with_ids: bool = True,
    key_column: str | None = None,
) -> CodeFile:
    """Opens a file of codes. block_rows: a function from bits to rows. with_ids=False: ids are given beside the file.

    key_column: a column that holds neither codes nor ids.

    Raises ValueError for what cannot be read or has no codes, OSError where the file cannot be opened.
    """
    kind = recognise(path, function, format)
    where = label(path, function)
    if kind.name in ("parquet", "arrow", "arrow stream", "text"):
        table = open_table(path, kind, function, format)
        return _from_table(table, bits, function, block_rows, format, column, id_column, with_ids, key_column)
    for option, value in (("column", column), ("id_column", id_column)):
        if value is not None:
            raise ValueError(f"{where} is {kind.words}, which has no columns with names; omit {option}=")
    ids = None
    if kind.name == "faiss":
        codes, ids = open_faiss(path, function)
    elif kind.name in ("npy", "npz"):
        array = read_array(path, kind, function)
        return codes_of_array(array, bits, where, block_rows)
    else:
        data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        if kind.name == "u8bin":
            width = int(data[: U8BIN_HEADER.itemsize].view(U8BIN_HEADER)["code_bytes"][0])
            codes = data[U8BIN_HEADER.itemsize :].reshape(-1, width)
        else:
            if bits is None:
                raise ValueError(f"{where}: format='raw' needs bits=")
            width = code_bytes(bits)
            if len(data) % width:
                raise ValueError(f"{where} has {len(data)} bytes, no multiple of {width} ({bits} bits)")
            codes = data.reshape(-1, width)
    opened = codes_of_array(codes, bits, where, block_rows)
    if ids is None:
        return opened
    step = block_rows(opened.bits)
    pairs = ((codes[at : at + step], ids[at : at + step]) for at in range(0, len(codes), step))
    return CodeFile(opened.bits, len(codes), True, pairs, codes)


def codes_of_array(array: Any, bits: int | None, where: str, block_rows: Any) -> CodeFile:
    """Packed uint8 [N, W]; bool [N, bits]; integers of 16, 32 or 64 bits [N]. Raises ValueError or TypeError."""
    kind, size = array.dtype.kind, 8 * array.dtype.itemsize
    if kind == "b":
        if array.ndim != 2 or not array.shape[1]:
            raise ValueError(f"{where}: boolean codes must be [N, bits], got shape {tuple(array.shape)}")
        if bits is not None and bits != array.shape[1]:
            raise ValueError(
                f"{where}: boolean codes must have one column for each of the {bits} bits, got {array.shape[1]} columns"
            )
        bits = array.shape[1]
    elif kind in "iu" and size >= 16:
        if array.ndim == 2 and array.shape[1] == 1:  # a column of a data frame
            array = array[:, 0]
        if array.ndim != 1:
            raise ValueError(
                f"{where}: codes of type {dtype_name(array)} must be [N], one number for each code, got shape "
                f"{tuple(array.shape)}; packed codes are uint8 [N, bytes of a code]: convert bytes with array.astype, "
                "pack bits with numpy.packbits"
            )
        if bits is not None and bits > size:
            raise ValueError(f"{where}: numbers of {size} bits cannot be codes of {bits} bits")
        bits = size if bits is None else bits
    elif array.dtype != np.uint8:
        hint = "; fasthash.codes.from_signed reads packed bits minus 128" if array.dtype == np.int8 else ""
        raise TypeError(
            f"{where}: codes must be packed uint8 [N, bytes of a code], 64-bit integers [N] or booleans [N, bits], got "
            f"{dtype_name(array)} of shape {tuple(array.shape)}{hint}"
        )
    elif array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{where}: codes must be [N, bytes of a code], got shape {tuple(array.shape)}")
    else:
        if bits is None and array.shape[1] >= 32 and len(array) and array[:1000].max() == 1:
            raise ValueError(
                f"{where}: codes hold only 0 and 1, which may be bits. If they are bits, pack them (numpy.packbits). "
                f"If they are bytes, pass bits={8 * array.shape[1]}"
            )
        bits = 8 * array.shape[1] if bits is None else bits
        if code_bytes(bits) != array.shape[1]:
            hint = "; pack bits (numpy.packbits)" if array.shape[1] == bits else ""
            raise ValueError(
                f"{where}: codes of {bits} bits have {code_bytes(bits)} bytes, got {array.shape[1]} bytes in each "
                f"row{hint}"
            )
    step, width = block_rows(bits), bits

    def blocks() -> Iterator[tuple[Codes, None]]:
        for start in range(0, len(array), step):
            part = array[start : start + step]
            if kind == "b":
                yield codes_of_bits(part), None
            elif size >= 16:
                try:
                    yield codes_of_numbers(part, width, Block([], start, None).place), None
                except NotCodes as error:
                    raise ValueError(f"{where}: {error}") from None
            else:
                yield part, None

    return CodeFile(bits, len(array), False, blocks(), array if array.dtype == np.uint8 else None)


def _from_table(
    table: ArrowTable | TextTable,
    bits: int | None,
    function: str,
    block_rows: Any,
    format: str | None,
    column: str | None,
    id_column: str | None,
    with_ids: bool,
    key_column: str | None,
) -> CodeFile:
    id_name = None
    named = not isinstance(table, TextTable) or table.headed
    if named or id_column is not None:
        try:
            id_name = find_id_column(table, id_column, function)
        except ValueError:
            if with_ids or id_column is not None:
                raise
    found = find_code_column(table, column, (id_name, key_column), bits, format, function)
    for name, what in ((found.name, "codes"), (id_name, "ids")):
        if name == key_column and key_column is not None:
            raise ValueError(f"{table.where}: column {name!r} cannot be both the keys and the {what}")
    if found.name == id_name:
        if column is None or id_column is not None:
            raise ValueError(f"{table.where}: column {found.name!r} cannot be both the codes and the ids")
        id_name = None
    if id_name is None and with_ids and named:
        taken = [name for name in (found.name, key_column) if name is not None]
        others, unfit = look_alikes(table, taken), meant(table, taken)
        if others or unfit:
            way = f"{listed(others)} looks like ids: pass id_column={others[0]!r} to use it, or" if others else ""
            if not others:
                way = f"{unfit[0]!r} looks like ids, but is of type {table.type_of(unfit[0])} and not of integers: pass"
            warn(f"{table.where} has no column 'id', so the rows are numbered; {way} your own numbers as ids=")
    rows = table.rows if isinstance(table, ArrowTable) else None
    step = (
        min(block_rows(found.bits), _TABLE_ROWS)
        if found.form in ("hex", "decimal", "literal")
        else block_rows(found.bits)
    )

    def blocks() -> Iterator[tuple[Codes, NDArray[np.int64] | None]]:
        for codes, ids, block in code_blocks(table, found, id_name, step):
            yield codes, None if id_name is None else id_values(ids, block, id_name, table.where)

    return CodeFile(found.bits, rows, id_name is not None, blocks())


def read_ids(path: Path, function: str, id_column: str | None = None) -> NDArray[Any]:
    """Ids from a file of any kind: an array [N] of integers, a number a line, or a column of a table."""
    kind = recognise(path, function)
    where = label(path, function)
    if kind.name in ("npy", "npz"):
        if id_column is not None:
            raise ValueError(f"{where} is {kind.words}, which has no columns with names; omit id_column=")
        ids = read_array(path, kind, function)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"{where}: ids must be integers [N], got {dtype_name(ids)} of shape {tuple(ids.shape)}")
        return ids
    if kind.name not in ("parquet", "arrow", "arrow stream", "text"):
        raise ValueError(f"{where} is {kind.words}, ids are read from .npy, text, CSV, Parquet and Arrow files")
    table = open_table(path, kind, function)
    name = _id_column(table, id_column, function)
    parts = [id_values(block.columns[0], block, name, where) for block in table.blocks([name], _TABLE_ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _id_column(table: ArrowTable | TextTable, id_column: str | None, function: str) -> str:
    """The column of a file of ids."""
    if isinstance(table, TextTable) and not table.headed:
        if len(table.names) > 1:
            raise ValueError(f"{table.where}: line 1 has values, must have the names of the columns; add a header line")
        table.headed = looks_like_header(table.first) and id_column in (None, table.first[0])
        if not table.headed:
            return table.names[0]
    name = find_id_column(table, id_column, function, beside=False)
    if name is not None:
        return name
    if len(table.names) == 1:
        return check_column(table, table.names[0], "id_column", function)
    others = look_alikes(table)
    if len(others) == 1:
        return others[0]
    raise ValueError(
        f"{table.where} has no column 'id' or 'ids'; its columns are {listed(table.names)}; name one with id_column="
    )
