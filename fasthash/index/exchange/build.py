"""Building an index folder from a stream of codes: one transaction, memory bounded by a block of it.

Codes without ids go straight to the file. Codes with ids or keys are collected into runs of 256 MiB, each sorted and
written as a segment of its own; ids that are repeated between runs are found at the end by merging the sorted ids by
blocks, and so are keys.
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
from fasthash.index.keys import joined_rows, shown
from fasthash.index.progress import progress_bar
from fasthash.index.segments import ID_END, Segment, block_rows, make_segment, repeated_key
from fasthash.index.store.encoder_file import NewEncoder
from fasthash.index.store.segment_file import read_segment, write_rows
from fasthash.index.store.writer import Writer
from fasthash.index.vectors import joined_vectors

_RUN_BYTES = 1 << 28  # codes, ids and keys that are sorted at once
_KEY_BYTES = 28  # what a key takes beside its text: where it ends, and its entry of the table
_KEYED_ROWS = 1 << 14  # rows with keys that are taken at once, of which one may have 2**20 bytes
_WINDOW = 1 << 21  # ids that are compared at once
_FUNCTION = "HammingIndex.build"


def build(
    path: Path,
    opened: Source,
    overwrite: bool,
    bit_weights: Groups,
    progress: bool | None,
    encoder: NewEncoder | None = None,
) -> None:
    """Makes the codes of a source the state of a folder (see HammingIndex.build); on any failure it keeps its state.

    encoder: what made the codes, where an EmbeddingIndex is built.
    """
    keyed = opened.keyed
    writer = Writer(path, True, overwrite, bit_weights=bit_weights, keyed=keyed, encoder=encoder)
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
            first, segments = stream.first(), []
            if first is not None and any(part is not None for part in (first.keys, first.vectors, first.scales)):
                for segment in _whole_runs(stream, source):
                    segments.append(writer.write(segment, source.bits, ID_END, True, written))
            else:
                make = _ranges if first is None or first.ids is None else _runs
                for where, entry in make(stream, source, new_segment):
                    segments.append(read_segment(where.parent, entry, source.bits, ID_END, mmap=True)[0])
        for group in merge.overlapping(segments):
            repeated = merge.repeated_id(group, _WINDOW)
            if repeated is not None:
                raise ValueError(f"{_FUNCTION}: ids must be distinct, got {repeated[0]} more than once")
        key = repeated_key(segments)
        if key is not None:
            raise ValueError(f"{_FUNCTION}: keys must be distinct, got {shown(key)} more than once")
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
        self._form: tuple[bool, bool] | None = None  # whether blocks have ids, and keys

    def first(self) -> Block | None:
        """The first block that is left; None where there is none."""
        return self._ahead[0] if self.more() else None

    def more(self) -> bool:
        """Whether there are rows left."""
        while not self._ahead:
            block = next(self._source.blocks, None)
            if block is None:
                return False
            check_codes(block.codes, self._source.bits, _FUNCTION)
            if not block.rows:
                continue
            form = block.ids is not None, block.keys is not None
            self._form = self._form or form
            for what, had, has in zip(("ids", "keys"), self._form, form, strict=True):
                if had != has:
                    raise ValueError(f"{_FUNCTION}: either all blocks have {what} or none has, got both")
            self._ahead = [block]
        return True

    def take(self, rows: int) -> Iterator[Block]:
        """The next blocks, `rows` rows altogether or all that are left."""
        while rows and self.more():
            block = self._ahead.pop()
            if block.rows > rows:
                self._ahead = [block.part(rows, block.rows)]
                block = block.part(0, rows)
            rows -= block.rows
            yield block
            self._bar.update(block.rows)


def _ranges(stream: _Stream, source: Source, new_segment: Any) -> Iterator[tuple[Path, Any]]:
    """Segments whose ids are ranges, from 0 on."""
    first = 0
    while stream.more():
        rows = -1 if source.rows is None else min(merge.SEGMENT_ROWS, source.rows - first)
        codes = (_contiguous(block.codes) for block in stream.take(merge.SEGMENT_ROWS))
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
        for block in stream.take(rows):
            if block.ids is not None:
                all_codes[count : count + block.rows], all_ids[count : count + block.rows] = block.codes, block.ids
                count += block.rows
        ids, order = all_ids[:count], None
        if (ids[1:] <= ids[:-1]).any():
            order = np.argsort(ids)
            ids = ids[order]
        _check_ids(ids)
        spans = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        blocks = (all_codes[span if order is None else order[span]] for span in spans)
        where = new_segment()
        bounds = int(ids[0]), int(ids[-1])
        yield where, write_rows(where, source.bits, count, bounds, (ids[span] for span in spans), blocks)


def _whole_runs(stream: _Stream, source: Source) -> Iterator[Segment]:
    """Segments of sorted runs with keys or stored rows, in memory; without ids these are ranges, from 0 on."""
    first, one = 0, 8 + code_bytes(source.bits) + _KEY_BYTES
    while stream.more():
        blocks, size = list[Block](), 0
        while size < _RUN_BYTES and stream.more():
            for block in stream.take(_KEYED_ROWS):
                blocks.append(block)
                size += one * block.rows + (0 if block.keys is None else len(block.keys.text))
                size += 0 if block.vectors is None else block.vectors.row_bytes * block.rows
        codes = merge.joined([block.codes for block in blocks]).contiguous()
        keys = joined_rows([b.keys for b in blocks if b.keys is not None]) if blocks[0].keys is not None else None
        stored = [block.vectors for block in blocks if block.vectors is not None]
        vectors = joined_vectors(stored) if stored else None
        scales = [block.scales for block in blocks if block.scales is not None]
        scale = merge.joined(scales) if scales else None
        ids: Tensor | int = first
        if blocks[0].ids is not None:
            ids = merge.joined([block.ids for block in blocks if block.ids is not None])
            _check_ids(np.sort(ids.numpy()))
        first += len(codes)
        blocks, stored = [], []  # they would stay while the segment is written
        yield make_segment(codes, ids, keys, scale, vectors)


def _check_ids(ascending: Any) -> None:
    repeated = ascending[1:][ascending[1:] == ascending[:-1]]
    if len(repeated):
        raise ValueError(f"{_FUNCTION}: ids must be distinct, got {repeated[0]} more than once")
    if ascending[0] < 0:
        raise ValueError(f"{_FUNCTION}: ids must be between 0 and 2**63 - 1, got {ascending[0]}")


def _contiguous(codes: Tensor) -> Any:
    return codes.contiguous().numpy()
