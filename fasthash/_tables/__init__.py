"""Files of numbers as people have them, recognised by their content and read by blocks.

`recognise` tells what a file is and refuses what cannot be read; `read_array` maps .npy, `open_table` opens text, CSV,
TSV, Parquet and Arrow as tables. docs/files.md says which formats are read and how they are recognised.
"""

from __future__ import annotations

from pathlib import Path

from fasthash._tables.arrays import read_array
from fasthash._tables.arrow import ArrowTable, import_arrow
from fasthash._tables.kinds import Kind, read_text, recognise
from fasthash._tables.text import TextTable

__all__ = ["ArrowTable", "Kind", "TextTable", "import_arrow", "open_table", "read_array", "read_text", "recognise"]


def open_table(path: Path, kind: Kind, function: str, format: str | None = None) -> ArrowTable | TextTable:
    """The table in a text, Parquet or Arrow file; raises ValueError where the file is not whole."""
    return TextTable(path, kind, function, format) if kind.name == "text" else ArrowTable(path, kind, function)
