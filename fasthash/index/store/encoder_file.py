"""The encoder that made the codes of an index, in a file beside them; what it holds is not looked at here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import xxhash

from fasthash._durable import new_file
from fasthash.index.errors import IndexFolderError
from fasthash.index.store.manifest import Embedding
from fasthash.index.store.untrusted import read_small

KIND = "encoder"
FEATURE = "embedding"
_LIMIT = 1 << 32  # bytes


class NewEncoder(NamedTuple):
    """An encoder that a new index gets: its file's bytes, and what the manifest will say of it but for the name."""

    data: bytes
    embedding: Embedding


def write(where: Path, encoder: NewEncoder) -> Embedding:
    """Writes the encoder to a new file; gives what the manifest says of it."""
    with new_file(where) as file:
        file.write(encoder.data)
    return replace(encoder.embedding, encoder=where.name, checksum=xxhash.xxh3_128(encoder.data).hexdigest())


def read(path: Path, embedding: Embedding) -> bytes:
    """The bytes of the encoder's file.

    Raises FileNotFoundError where it is missing, IndexFolderError where it is another one than the manifest says.
    """
    where = path / embedding.encoder
    data = read_small(where, _LIMIT)
    found = xxhash.xxh3_128(data).hexdigest()
    if found != embedding.checksum:
        raise IndexFolderError(
            f"{where}: not the encoder of this index, or damaged: its checksum is {found}, the manifest says "
            f"{embedding.checksum}"
        )
    return data
