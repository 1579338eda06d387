"""Keys on the command line: --keys is a column of the table of codes, or a file of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._tables import open_table, recognise
from fasthash.cli.columns import TABLES, given
from fasthash.cli.parser import UserError
from fasthash.index.exchange.key_sources import open_keys
from fasthash.index.key_texts import key_rows
from fasthash.index.keys import KeyRows, joined_rows


def key_options(codes: str, keys: str | None, format: str | None) -> dict[str, Any]:
    """What --keys means to HammingIndex.build: key_column, a column of the table of codes; else keys, a file."""
    if keys is None:
        return {}
    names: list[str] = []
    with given(codes):
        kind = recognise(Path(codes), "", format)
        if kind.name in TABLES:
            names = open_table(Path(codes), kind, "", format).names
    if keys in names:
        return {"key_column": keys}
    if not Path(keys).is_file():
        columns = ", ".join(repr(name) for name in names[:12])
        what = f"no column of {codes} (it has {columns}) and" if len(names) > 1 else "no column of a table and"
        raise UserError(f"{keys}: {what} no file, --keys must name a column or a file")
    return {"keys": keys}


def read_keys(options: dict[str, Any], codes: str, rows: int, format: str | None) -> KeyRows | None:
    """All keys of `rows` codes, where key_options has found some."""
    if not options:
        return None
    path = options.get("keys", codes)
    with given(path):
        blocks = list(open_keys(options.get("keys"), options.get("key_column"), codes, "", format))
    named = joined_rows(blocks) if blocks else key_rows([], "")
    if named.size != rows:
        raise UserError(f"{path}: {codes} has {rows} codes and needs {rows} keys, got {named.size}")
    return named


def all_keys(path: str) -> KeyRows:
    """The keys of a file."""
    with given(path):
        blocks = list(open_keys(path, None, None, ""))
    return joined_rows(blocks) if blocks else key_rows([], "")


def as_strings(keys: NDArray[Any]) -> NDArray[np.str_]:
    """Keys as .npz holds them without pickles: "" where there is none."""
    return np.array(["" if key is None else key for key in keys.reshape(-1).tolist()], np.str_).reshape(keys.shape)
