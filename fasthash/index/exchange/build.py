"""Building an index folder from a stream of codes: one transaction, memory bounded by a block of it.

Codes without ids go straight to the file. Codes with ids are collected into runs of 256 MiB, each sorted and written as
a segment of its own; ids that are repeated between runs are found at the end by merging the sorted ids by blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fasthash.codes import check_codes, code_bytes
from fasthash.index import merge
from fasthash.index.exchange.sources import Block, Source
from fasthash.index.groups import Groups
from fasthash.index.progress import progress_bar
from fasthash.index.segments import ID_END, block_rows
from fasthash.index.store.segment_file import read_segment, write_rows
from fasthash.index.store.writer import Writer

_RUN_BYTES = 1 << 28  # codes and ids that are sorted at once
_WINDOW = 1 << 21  # ids that are compared at once
_FUNCTION = "HammingIndex.build"


def build(path: Path, opened: Source, overwrite: bool, bit_weights: Groups, progress: bool | None) -> None:
    """Makes the codes of a source the state of a folder (see HammingIndex.build); on any failure it keeps its state."""
    writer = Writer(path, create=True, overwrite=overwrite, bit_weights=bit_weights)
    try:
        _write(writer, opened, progress)
    finally:
        writer.close()


def _write(writer: Writer, source: Source, progress: bool | None) -> None:
    written: list[Path] = []

    def new_segment() -> Path:
        written.append(writer.new_name("segment"))
        return written[-1]

    try:
        with progress_bar("build", source.rows, "code", progress) as bar:
            stream = _Stream(source, bar)
            make = _ranges if stream.first_ids() is None else _runs
            segments = []
            for where, entry in make(stream, source, new_segment):
                segments.append(read_segment(where.parent, entry, source.bits, ID_END, mmap=True)[0])
        for group in merge.overlapping(segments):
            repeated = merge.repeated_id(group, _WINDOW)
            if repeated is not None:
                raise ValueError(f"{_FUNCTION}: ids must be distinct, got {repeated[0]} more than once")
        next_id = max((segment.last_id + 1 for segment in segments), default=0)
        writer.commit(source.bits, next_id, segments, mmap=True)
    except BaseException:
        writer.discard(written)
        raise
    writer.finish()


class _Stream:
    """The blocks of a source, checked, cut where a file is full."""

    def __init__(self, source: Source, bar: Any):
        self._source, self._bar = source, bar
        self._ahead: list[Block] = []
        self._explicit: bool | None = None

    def first_ids(self) -> Tensor | None:
        """The ids of the first block; None where it has none, or there is no block."""
        return self._ahead[0][1] if self.more() else None

    def more(self) -> bool:
        """Whether there are rows left."""
        while not self._ahead:
            block = next(self._source.blocks, None)
            if block is None:
                return False
            codes, ids = block
            check_codes(codes, self._source.bits, _FUNCTION)
            if not len(codes):
                continue
            if self._explicit is None:
                self._explicit = ids is not None
            if self._explicit != (ids is not None):
                raise ValueError(f"{_FUNCTION}: either all blocks have ids or none has, got both")
            self._ahead = [block]
        return True

    def take(self, rows: int) -> Iterator[Block]:
        """The next blocks, `rows` rows altogether or all that are left."""
        while rows and self.more():
            codes, ids = self._ahead.pop()
            if len(codes) > rows:
                self._ahead = [(codes[rows:], None if ids is None else ids[rows:])]
                codes, ids = codes[:rows], None if ids is None else ids[:rows]
            rows -= len(codes)
            yield codes, ids
            self._bar.update(len(codes))


def _ranges(stream: _Stream, source: Source, new_segment: Any) -> Iterator[tuple[Path, Any]]:
    """Segments whose ids are ranges, from 0 on."""
    first = 0
    while stream.more():
        rows = -1 if source.rows is None else min(merge.SEGMENT_ROWS, source.rows - first)
        codes = (_contiguous(codes) for codes, _ in stream.take(merge.SEGMENT_ROWS))
        where = new_segment()
        entry = write_rows(where, source.bits, rows, (first, first + rows - 1), (), codes)
        first += entry.rows
        yield where, entry


def _runs(stream: _Stream, source: Source, new_segment: Any) -> Iterator[tuple[Path, Any]]:
    """Segments of sorted runs."""
    width, size = code_bytes(source.bits), block_rows(source.bits)
    rows = max(1, _RUN_BYTES // (8 + width))
    if source.rows is not None:
        rows = min(rows, source.rows)
    all_codes, all_ids = np.empty((rows, width), np.uint8), np.empty(rows, np.int64)
    while stream.more():
        count = 0
        for codes, given in stream.take(rows):
            if given is not None:
                all_codes[count : count + len(codes)], all_ids[count : count + len(codes)] = codes, given
                count += len(codes)
        ids, order = all_ids[:count], None
        if (ids[1:] <= ids[:-1]).any():
            order = np.argsort(ids)
            ids = ids[order]
            repeated = ids[1:][ids[1:] == ids[:-1]]
            if len(repeated):
                raise ValueError(f"{_FUNCTION}: ids must be distinct, got {repeated[0]} more than once")
        if ids[0] < 0:
            raise ValueError(f"{_FUNCTION}: ids must be between 0 and 2**63 - 1, got {ids[0]}")
        spans = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        blocks = (all_codes[span if order is None else order[span]] for span in spans)
        where = new_segment()
        bounds = int(ids[0]), int(ids[-1])
        yield where, write_rows(where, source.bits, count, bounds, (ids[span] for span in spans), blocks)


def _contiguous(codes: Tensor) -> Any:
    return codes.contiguous().numpy()
