"""Nested labels: a dict of dicts, or rows with one label for each level (see `Hierarchy.from_nested`)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from fasthash.hierarchy.names import Edge, Name, to_name


def nested_edges(nested: Any) -> tuple[list[Edge], list[Name]]:
    """Edges and names of nested labels. Raises ValueError and TypeError for rows that are not alike.

    >>> nested_edges({"animal": ["cat", "dog"]})
    ([('animal', 'cat'), ('animal', 'dog')], ['animal', 'cat', 'dog'])
    """
    if not isinstance(nested, Mapping):
        return _edges_of_rows(nested)
    edges: list[Edge] = []
    names: list[Name] = []
    _add(nested, None, edges, names)
    return edges, names


def _add(below: Any, parent: Name | None, edges: list[Edge], nodes: list[Name]) -> None:
    """Appends the names and edges of one nested value of `from_nested`."""
    if below is None:
        return
    if isinstance(below, Mapping):
        for key, value in below.items():
            _add(key, parent, edges, nodes)
            _add(value, to_name(key), edges, nodes)
    elif isinstance(below, (list, tuple, set, frozenset)):
        for item in below:
            _add(item, parent, edges, nodes)
    else:
        nodes.append(to_name(below))
        if parent is not None:
            edges.append((parent, nodes[-1]))


def _edges_of_rows(nested: Any) -> tuple[list[Edge], list[Name]]:
    """Edges and names of rows with one label for each level."""
    rows = dict.fromkeys(_row(row) for row in (nested.tolist() if hasattr(nested, "tolist") else nested))
    if not rows:
        raise ValueError("Hierarchy.from_nested: at least one row is needed, got none")
    lengths = {len(row): row for row in rows}
    if len(lengths) > 1 or 0 in lengths:
        shown = " and ".join(map(repr, lengths.values()))
        raise ValueError(f"Hierarchy.from_nested: all rows must have the same number of levels, got {shown}")
    levels = [set(level) for level in zip(*rows, strict=True)]
    names: list[dict[Name, Name]] = []
    for number, level in enumerate(levels):
        clash = any(level & other for n, other in enumerate(levels) if n != number) and number < len(levels) - 1
        names.append({name: f"level{number}:{name}" if clash else name for name in level})
    paths = [tuple(names[number][name] for number, name in enumerate(row)) for row in rows]
    return [edge for path in paths for edge in pairwise(path)], [path[-1] for path in paths]


def _row(row: Any) -> tuple[Name, ...]:
    if isinstance(row, (str, bytes, Mapping)) or not hasattr(row, "__iter__"):
        raise TypeError(f"Hierarchy.from_nested: a row must hold one label for each level, got {row!r}")
    return tuple(to_name(label) for label in row)
