"""Shards of an index: folders that it is split into, and views of some of its segments."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from fasthash._arguments import whole
from fasthash._durable import make_folder
from fasthash.index.errors import IndexFolderError
from fasthash.index.joins import Joins, Side
from fasthash.index.merge import Merged
from fasthash.index.progress import progress_bar
from fasthash.index.segments import Contents, Segment
from fasthash.index.store import shard_list
from fasthash.index.store.writer import Writer


class Split(Joins):
    """Splitting an index into shards: methods of `HammingIndex`."""

    def split(self, folder: str | os.PathLike[str], n: int, *, progress: bool | None = None) -> list[Path]:
        """Writes the codes to n new index folders, one a shard, and gives their paths; this index stays as it is.

        folder: is made where it is missing, and must be empty; the shards are folder/shard-00000 and so on, and
        folder/shards.json lists them. `fasthash.cluster.ShardedIndex(folder)` searches them as one index, with equal
        results, and `HammingIndex.open` opens each by itself. Ids, keys, code_scale and bit_weights are kept. Each
        shard gets about as many codes as any other, cut by ranges of ids, and continues with the same next id. Tables
        of `build_mih` are not copied; make them in each shard. Memory: some blocks of 16 MiB; with keys, also 32 bytes
        a code of a shard. progress: a bar on stderr; None: if that is a terminal. Raises ValueError or TypeError for
        n outside 1 to 10,000, IndexFolderError where the folder cannot be used, OSError where the disk is full; the
        folder then holds no shards.

        >>> import numpy as np, tempfile
        >>> from fasthash import HammingIndex
        >>> index = HammingIndex(bits=8)
        >>> _ = index.add(np.arange(5, dtype=np.uint8)[:, None])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [HammingIndex.open(shard).ids.tolist() for shard in index.split(folder, 2)]
        [[0, 1], [2, 3, 4]]
        """
        n = whole(n, "HammingIndex.split", "n", 1, shard_list.MOST_SHARDS)
        path, side = Path(folder).absolute(), self._side()
        try:
            make_folder(path)
            held = sorted(os.listdir(path))
        except OSError as error:
            raise IndexFolderError(f"{path}: cannot be made a folder ({error.strerror})") from error
        if held:
            raise IndexFolderError(f"{path}: not empty, it holds {held[0]!r}; split into an empty folder")
        shards = [path / f"shard-{number:05d}" for number in range(n)]
        try:
            with progress_bar("split", side.contents.size, "code", progress) as bar:
                for number, shard in enumerate(shards):
                    _write_part(shard, side, number, n, bar)
            shard_list.write(path, [shard.name for shard in shards])
        except BaseException:
            for shard in shards:
                with contextlib.suppress(OSError):
                    shutil.rmtree(shard)
            raise
        return shards


def _write_part(shard: Path, side: Side, number: int, n: int, bar: Any) -> None:
    """Writes part `number` of n of the codes of every segment."""
    contents = side.contents
    parts = [
        (replace(segment, vectors=None), segment.rows * number // n, segment.rows * (number + 1) // n)
        for segment in contents.segments
    ]
    live = [part for part in parts if part[0].live_count(part[1], part[2])]
    writer = Writer(shard, True, bit_weights=side.groups, keyed=contents.keyed)
    try:
        segments = [Merged((part,)) for part in live]
        writer.commit(side.bits, contents.next_id, segments, True, bar.update)
        writer.finish()
    finally:
        writer.close()


def frozen(index: Any) -> Any:
    """The present content of a HammingIndex, unaffected by later changes: for several searches of one state."""
    copy = object.__new__(type(index))
    copy.__dict__.update(index.__dict__)
    return copy


def segment_rows(contents: Contents) -> dict[str, int]:
    """The live codes of each segment of an index on disk, by a name that no other state of a segment has."""
    return {name: segment.count for segment in contents.segments if (name := _name(segment)) is not None}


def only(contents: Contents, names: Collection[str], path: Path) -> Contents:
    """The contents of some segments alone; raises IndexFolderError where one is no longer part of the index."""
    chosen = [segment for segment in contents.segments if _name(segment) in names]
    if len(chosen) != len(names):
        raise IndexFolderError(f"{path}: changed since its segments were given to shards; refresh the ShardedIndex")
    return Contents.of(chosen, contents.next_id, contents.keyed)


def _name(segment: Segment) -> str | None:
    entry = segment.entry
    return None if entry is None else "+".join(name for name in (entry.file, entry.tombstones) if name is not None)
