"""Inputs of the commands: features, targets, labels, codes and ids from files of any kind (docs/files.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash._arrays import dtype_name
from fasthash._labels import label_array
from fasthash._tables import ArrowTable, TextTable, open_table, read_array, recognise
from fasthash._tables.ids import find_id_column, id_values, look_alikes
from fasthash._tables.matrix import (
    LABEL_NAMES,
    column_kind,
    find_label_column,
    find_number_columns,
    read_label_column,
    read_numbers,
)
from fasthash._tables.table import listed
from fasthash._warnings import warn
from fasthash.cli.files import ROWS, as_numbers, check_finite
from fasthash.cli.parser import UserError
from fasthash.index.exchange.code_files import CodeFile, codes_of_array, open_codes
from fasthash.index.exchange.code_files import read_ids as ids_of_file
from fasthash.index.exchange.sources import open_scales

TABLES = ("text", "parquet", "arrow", "arrow stream")


class Codes(NamedTuple):
    """Packed codes, mapped where the file has them so, their bits, and the ids of the file."""

    codes: NDArray[np.uint8]
    bits: int
    ids: NDArray[np.int64] | None


class Items(NamedTuple):
    """Codes and their bits, or embeddings and None."""

    items: NDArray[Any]
    bits: int | None


def read_features(path: str, column: str | None = None) -> NDArray[Any]:
    """Embeddings: floating point [N, F], N and F at least 1, without NaN or infinity; .npy is mapped."""
    with given(path):
        features = _numbers(path, column, whole=False)
    if features.dtype.kind != "f":
        raise UserError(f"{path}: features must be floating point, got {dtype_name(features)}")
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(f"{path}: features must be [rows, columns], neither of them 0, got shape {features.shape}")
    check_finite(features, path)
    return features


def read_targets(path: str, column: str | None = None) -> NDArray[Any]:
    """Target embeddings or multi-hot labels: numbers [N, C]."""
    with given(path):
        targets = _numbers(path, column, whole=True)
    if targets.ndim != 2 or targets.dtype.kind not in "fiub":
        raise UserError(
            f"{path}: targets must be numbers [rows, columns], got {dtype_name(targets)} of shape {targets.shape}"
        )
    if targets.dtype.kind == "f":
        check_finite(targets, path)
    return targets


def read_codes(
    path: str, bits: int | None = None, format: str | None = None, column: str | None = None,
    id_column: str | None = None, *, with_ids: bool = True, key_column: str | None = None,
) -> Codes:  # fmt: skip
    """Codes in any form that an index can be built from."""
    with given(path):
        names = {"format": format, "column": column, "id_column": id_column, "key_column": key_column}
        return _whole(open_codes(Path(path), bits, "", lambda _: ROWS, with_ids=with_ids, **names))


def read_items(path: str, bits: int | None, format: str | None, column: str | None, *, empty: bool = False) -> Items:
    """Embeddings or outputs (floating point) or codes (uint8), by the type of the array or of the column.

    empty: an array of no rows is allowed.
    """
    with given(path):
        kind = recognise(Path(path), "", format)
        if kind.name in ("npy", "npz"):
            _no_column(path, kind.words, column)
            array = read_array(Path(path), kind, "")
            if array.dtype.kind != "f":
                return Items(*_whole(codes_of_array(array, bits, path, lambda _: ROWS))[:2])
            if empty and array.ndim == 2 and not len(array):
                return Items(array, None)
        elif kind.name in TABLES and format not in ("hex", "decimal"):
            table = open_table(Path(path), kind, "", format)
            names = _embedding(table, column)
            if names is not None:
                items = read_numbers(table, names)
                check_finite(items, path)
                return Items(items, None)
    if kind.name in ("npy", "npz"):
        return Items(read_features(path), None)
    return Items(*read_codes(path, bits, format, column, with_ids=False)[:2])


def read_ids(path: str, id_column: str | None = None) -> NDArray[Any]:
    """Ids: integers [N]."""
    with given(path):
        return ids_of_file(Path(path), "", id_column)


def read_scales(path: str | None) -> NDArray[np.float16] | None:
    """The code_scale float16 [N] of a .npy file; None for None."""
    if path is None:
        return None
    with given(path):
        return open_scales(path, "").numpy()


def ids_beside(path: str, id_column: str | None) -> NDArray[np.int64] | None:
    """The ids in the table that the features are in; None where it has none."""
    with given(path):
        kind = recognise(Path(path), "")
        if kind.name not in TABLES:
            _no_column(path, kind.words, id_column, "id_column")
            return None
        table = open_table(Path(path), kind, "")
        if isinstance(table, TextTable) and not table.headed and id_column is None:
            return None
        name = find_id_column(table, id_column, "", beside=False)
        if name is None:
            others = look_alikes(table)
            if others:
                warn(
                    f"{path} has no column 'id', so the codes get the row numbers; {listed(others)} looks like ids: "
                    f"pass id_column={others[0]!r} to use it"
                )
            return None
        parts = [id_values(block.columns[0], block, name, table.where) for block in table.blocks([name], ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def read_labels(path: str, rows: int, items: str, column: str | None = None) -> NDArray[Any]:
    """One label for each of the `rows` of `items`: integers or text; text of whole numbers only is integers."""
    header = ""
    with given(path):
        kind = recognise(Path(path), "")
        if kind.name in TABLES:
            table = open_table(Path(path), kind, "")
            if isinstance(table, TextTable) and len(table.names) == 1:
                labels, header = _lines(table, rows, column)
            else:
                if isinstance(table, TextTable) and not table.headed:
                    raise ValueError(
                        f"{path}: line 1 has {len(table.names)} values; it must have the names of the columns, or "
                        "each line must have one label (in double quotes if a label has commas or tabs)"
                    )
                labels = read_label_column(table, find_label_column(table, column, ""))
            labels = as_numbers(labels) if labels.dtype.kind == "U" else labels
        elif kind.name in ("npy", "npz"):
            _no_column(path, kind.words, column, "label_column")
            array = read_array(Path(path), kind, "")
            if array.dtype.kind not in "biuU" or array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
                raise UserError(
                    f"{path}: labels must be integers or text [N], got {dtype_name(array)} of shape {array.shape}"
                )
            labels = label_array(array, path, "labels")
        else:
            raise UserError(f"{path} is {kind.words}, labels are read from .npy, text, CSV, Parquet and Arrow files")
    if len(labels) != rows:
        raise UserError(f"{path}: {items} has {rows} rows and needs {rows} labels, got {len(labels)}{header}")
    return labels


def for_tables(paths: Sequence[str | None], column: str | None, flag: str) -> dict[str | None, str | None]:
    """The column that `flag` names, for each file that has named columns; raises UserError where none has."""
    if column is None:
        return dict.fromkeys(paths)
    has = {}
    for path in paths:
        if path is not None and not Path(path).is_dir():
            with given(path):
                has[path] = recognise(Path(path), "").name in TABLES
    if not any(has.values()):
        raise UserError(f"{flag} names a column, but {listed(list(has))} has no columns with names; omit it")
    return {path: column if has.get(path or "") else None for path in paths}


@contextlib.contextmanager
def given(path: str) -> Iterator[None]:
    """Tells what is wrong with a file that was named on the command line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ImportError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def _numbers(path: str, column: str | None, whole: bool) -> NDArray[Any]:
    kind = recognise(Path(path), "")
    if kind.name in ("npy", "npz"):
        _no_column(path, kind.words, column)
        return read_array(Path(path), kind, "")
    if kind.name not in TABLES:
        raise ValueError(f"{path} is {kind.words}, which has no embeddings; they are read from .npy, CSV and Parquet")
    table = open_table(Path(path), kind, "")
    names = find_number_columns(table, column, "", whole=whole)
    if names is None:
        raise ValueError(
            f"{path} has no column of embeddings (lists of floats, or columns of floats); its columns are "
            f"{listed(table.names)}; name one with column="
        )
    return read_numbers(table, names)


def _embedding(table: ArrowTable | TextTable, column: str | None) -> list[str] | None:
    """The columns of embeddings, None where the table holds codes."""
    if column is not None and column in table.names:
        return [column] if column_kind(table, column) == "floats" else None
    return find_number_columns(table, column, "")


def _whole(file: CodeFile) -> Codes:
    if file.packed is not None and not file.has_ids:
        return Codes(file.packed, file.bits, None)
    parts = list(file.blocks)
    if not parts:
        return Codes(np.zeros((0, -(-file.bits // 8)), np.uint8), file.bits, None)
    ids = [ids for _, ids in parts if ids is not None]
    return Codes(np.concatenate([codes for codes, _ in parts]), file.bits, np.concatenate(ids) if ids else None)


def _lines(table: TextTable, rows: int, column: str | None) -> tuple[NDArray[Any], str]:
    """One label a line, and what a message about their number adds.

    The first line is a header where it is `column`, or a word such as "label" or "class" that is no label below; and
    where there is one line too many and all others are whole numbers.
    """
    lines = [text for block in table.blocks(table.names, ROWS) for text in block.columns[0]]
    first, rest = lines[0], lines[1:]
    if column is not None and column != first:
        raise ValueError(
            f"{table.where} has one column and its first line is {first[:40]!r}, not {column!r} (label_column=); "
            f"omit label_column=, or write {column!r} as the first line"
        )
    whole = (
        bool(rest) and as_numbers(np.array(rest)).dtype.kind == "i" and as_numbers(np.array([first])).dtype.kind == "U"
    )
    if column is not None or (first.lower() in LABEL_NAMES and first not in rest) or (whole and len(rest) == rows):
        return np.array(rest, np.str_), f" below the header {first!r} in line 1"
    hint = f"; if line 1 is a header, pass label_column={first[:40]!r}" if len(rest) == rows else ""
    return np.array(lines, np.str_), hint


def _no_column(path: str, words: str, column: str | None, option: str = "column") -> None:
    if column is not None:
        raise ValueError(f"{path} is {words}, which has no columns with names; omit {option}=")
