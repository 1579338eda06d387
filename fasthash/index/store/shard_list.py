"""The list of the shards that an index was split into: shards.json, beside their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fasthash._durable import replaced_file
from fasthash.index.store.untrusted import IndexFolderError, parse_json, plain_name, read_small, shorten

SHARDS = "shards.json"
FORMAT = "fasthash-shards"
MOST_SHARDS = 10_000
_LIMIT = 1 << 20  # bytes


def write(path: Path, names: Sequence[str]) -> None:
    """Writes the list to the folder `path`: from then on its shards are complete."""
    document = {"format": FORMAT, "version": 1, "shards": list(names)}
    with replaced_file(path / SHARDS) as file:
        file.write(json.dumps(document, indent=1).encode())


def read(path: Path) -> list[Path]:
    """The folders of the shards, which need not be there; raises IndexFolderError where `path` has no valid list."""
    where = path / SHARDS
    try:
        document = parse_json(read_small(where, _LIMIT), str(where))
    except FileNotFoundError:
        raise IndexFolderError(
            f"{path}: no shards of an index: it has no {SHARDS}, which a split writes last"
        ) from None
    if document.get("format") != FORMAT:
        raise IndexFolderError(f"{where}: format must be {FORMAT!r}, got {shorten(document.get('format'))}")
    if document.get("version") != 1:
        raise IndexFolderError(f"{where}: version {shorten(document.get('version'))} is not known, only 1 is")
    names = document.get("shards")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_SHARDS:
        raise IndexFolderError(f"{where}: shards must be a list of 1 to {MOST_SHARDS} names, got {shorten(names)}")
    plain = [plain_name(name, f"{where}: a shard") for name in names]
    if len(set(plain)) != len(plain):
        raise IndexFolderError(f"{where}: a shard is named twice")
    return [path / name for name in plain]
