"""Text files of edges, "parent child" or "child parent" on each line (see `Hierarchy.from_file`)."""

from __future__ import annotations

import csv
from pathlib import Path

from fasthash._tables import read_text
from fasthash.hierarchy.header import KNOWN, header_doubt, header_order
from fasthash.hierarchy.names import WHOLE_NUMBER, Edge

_FUNCTION = "Hierarchy.from_file"


def read_edges(path: Path, order: str | None) -> list[Edge]:
    """The (parent, child) pairs of a file, in the order of its header, or of `order`, or "parent child".

    Raises ValueError, with the line, for lines that are not two names, for a header that does not say the order, or
    says another one than `order`.
    """
    lines = [(number, line) for number, line in enumerate(read_text(path, _FUNCTION).splitlines(), 1) if line.strip()]
    separator = _separator([line for _, line in lines])
    pairs: list[tuple[str, str]] = []
    for number, line in lines:
        parts = _parts(line, separator)
        if not pairs and len(parts) == 3 and parts[0] == "#":  # numpy.savetxt writes "# parent child"
            parts = parts[1:]
        if len(parts) != 2 or not all(parts):
            raise ValueError(
                f"{_FUNCTION}: {path} line {number} must be two names, got {line[:60]!r}. "
                "A tab, a comma or white space separates them; a table of more columns is for Hierarchy.from_nested"
            )
        pairs.append((parts[0], parts[1]))
    if pairs:
        skip, order = _header(path, pairs, order)
        pairs = pairs[skip:]
    if not pairs:
        raise ValueError(f"{_FUNCTION}: {path} has no edges")
    if order == "child parent":
        pairs = [(parent, child) for child, parent in pairs]
    if all(WHOLE_NUMBER.fullmatch(part) for pair in pairs for part in pair):
        return [(int(parent), int(child)) for parent, child in pairs]
    return list(pairs)


def _header(path: Path, pairs: list[tuple[str, str]], order: str | None) -> tuple[int, str | None]:
    """How many lines are a header, 0 or 1, and the order of the columns. Raises ValueError if this is ambiguous."""
    (first, second), others = pairs[0], pairs[1:]
    words = (first.lstrip("#").strip(), second)
    told = header_order(words, others)
    if told is not None:
        if order not in (None, told):
            raise ValueError(
                f'{_FUNCTION}: {path} has the header {" ".join(words)!r}, which means order="{told}", got '
                f'order="{order}"; pass the same order, or correct the header'
            )
        return 1, told
    doubt = header_doubt(words, others)
    if doubt is None:
        return 0, order
    if doubt == "sure":
        if order is not None:
            return 1, order
        raise ValueError(
            f"{_FUNCTION}: {path} starts with {' '.join(words)!r}, a header that does not say which column is the "
            'parent; pass order="parent child" or order="child parent", or replace the header by one of these '
            f"(known words: {KNOWN}, in both orders)"
        )
    raise ValueError(
        f"{_FUNCTION}: {path} starts with {' '.join(words)!r}, whose names are in no other line: it may be a "
        'header in unknown words, or an edge. If it is a header, replace it by "parent child" or "child '
        f'parent" (known words: {KNOWN}, in both orders). If it is an edge, put such a header above it'
    )


def refuse_header(pairs: list[tuple[object, object]]) -> None:
    """Refuses a header among pairs in memory, as the rows of a CSV file have it."""
    if len(pairs) < 2 or not all(isinstance(word, str) for word in pairs[0]):
        return
    first = [str(word) for word in pairs[0]]
    others = [[str(word) for word in pair] for pair in pairs[1:]]
    told = header_order(first, others)
    if told is not None and not any(word in pair for pair in others for word in first):
        raise ValueError(
            f"Hierarchy.from_edges: the first pair, {tuple(first)}, is a header, not an edge; remove it and pass "
            f'order="{told}"'
        )


def _separator(lines: list[str]) -> str | None:
    """A tab where a line has one, else the comma or semicolon that makes two names of every line; None: white space."""
    if any("\t" in line for line in lines):
        return "\t"
    for separator in (",", ";"):
        rows = [_parts(line, separator) for line in lines]
        if rows and all(len(parts) == 2 and all(parts) for parts in rows):
            return separator
        if rows and len(rows[0]) == 2 and header_order(rows[0], []) is not None:
            return separator
    return None


def _parts(line: str, separator: str | None) -> list[str]:
    if separator in (",", ";"):
        return [part.strip() for part in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    return [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
