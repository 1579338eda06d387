"""Text files of edges, "parent child" on each line (see `Hierarchy.from_file`)."""

from __future__ import annotations

from pathlib import Path

from fasthash.hierarchy.names import WHOLE_NUMBER, Edge


def read_edges(path: Path, child_first: bool) -> list[Edge]:
    """The (parent, child) pairs of a file. `child_first`: its lines are "child parent"; a header line decides.

    Raises ValueError, with the line, for anything else.
    """
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"Hierarchy.from_file: {path} line {number} must be two names, got {line[:60]!r}")
        if not pairs and [part.lower() for part in parts] in (["parent", "child"], ["child", "parent"]):
            child_first = parts[0].lower() == "child"
            continue
        pairs.append((parts[1], parts[0]) if child_first else (parts[0], parts[1]))
    if not pairs:
        raise ValueError(f"Hierarchy.from_file: {path} has no edges")
    if all(WHOLE_NUMBER.fullmatch(part) for pair in pairs for part in pair):
        return [(int(parent), int(child)) for parent, child in pairs]
    return list(pairs)
