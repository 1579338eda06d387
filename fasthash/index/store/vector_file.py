"""The rows of a segment in a file beside it, in the order of its codes (docs/index-format.md).

As with keys, an index that has them has them for every segment: the feature "vectors".
"""

from __future__ import annotations

import mmap as memory_map
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from fasthash.index.errors import IndexFolderError
from fasthash.index.merge import Merged
from fasthash.index.segments import BLOCK_BYTES, Segment
from fasthash.index.store.tensorfile import Column, TensorFile, metadata_of, read_tensors, write_tensors
from fasthash.index.store.untrusted import shorten
from fasthash.index.vectors import Vectors

KIND = "vectors"
FEATURE = "vectors"
NEEDED = "the index stores rows beside its codes; add to it with EmbeddingIndex, which stores both"
_TYPES = {"int8": "I8", "float16": "F16", "float32": "F32"}


def write(where: Path, merged: Merged, segment_checksum: str) -> str:
    """Writes the rows of a segment to a new file, block by block; gives its checksum."""
    first = merged.parts[0][0].vectors
    if first is None:
        raise IndexFolderError("a segment has no stored rows, others have; verify the index")
    count, step = merged.count(), max(1, BLOCK_BYTES // first.row_bytes)
    columns = []
    if first.scales is not None:
        scales = (block.scales for block in merged.vector_blocks(BLOCK_BYTES // 4) if block.scales is not None)
        columns.append(Column("scales", "F32", (count,), scales))
    rows = (block.rows for block in merged.vector_blocks(step))
    columns.append(Column("vectors", _TYPES[first.kind], (count, first.rows.shape[1]), rows))
    return write_tensors(where, columns, metadata_of(KIND, segment=segment_checksum))[0]


def attach(path: Path, segment: Segment, mmap: bool, kind: str, features: int) -> tuple[Segment, TensorFile]:
    """A segment that was read, with the rows that its entry names; and their file, for checks of every byte.

    kind, features: what the manifest says of all rows. Raises FileNotFoundError where the file is missing,
    IndexFolderError where it contradicts itself or the manifest. Mapped content is not read.
    """
    entry = segment.entry
    extra = None if entry is None else entry.extra(KIND)
    if entry is None or extra is None:
        raise IndexFolderError(f"{path}: a segment of an index with stored rows has none")
    where = path / extra.name
    file = read_tensors(where, mmap, advice=getattr(memory_map, "MADV_RANDOM", None))
    if not mmap:
        file.check_sum(extra.checksum)
    file.check_metadata(metadata_of(KIND, segment=entry.checksum))
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"vectors": (kind, (entry.rows, features))}
    if kind == "int8":
        expected["scales"] = ("float32", (entry.rows,))
    if file.shapes != expected:
        raise IndexFolderError(f"{where}: must hold {shorten(expected)}, got {shorten(file.shapes)}")
    return replace(segment, vectors=Vectors(file.tensors["vectors"], file.tensors.get("scales"))), file


def check(vectors: Vectors, where: Path, advance: Callable[[int], object] = lambda count: None) -> None:
    """Reads all rows of a segment: finite, scales not negative; raises IndexFolderError."""
    step = max(1, BLOCK_BYTES // vectors.row_bytes)
    for start in range(0, vectors.size, step):
        part = vectors.part(start, start + step)
        fine = np.isfinite(part.rows).all(1) if part.scales is None else np.isfinite(part.scales) & (part.scales >= 0)
        if not fine.all():
            raise IndexFolderError(f"{where}: damaged: row {start + int((~fine).argmax())} has NaN or infinity")
