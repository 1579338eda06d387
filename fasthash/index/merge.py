"""Merging segments in the order of ids, by blocks: which segments to merge, and the rows of the merged one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasthash.index.errors import IndexFolderError
from fasthash.index.keys import KEY_ROWS, Bytes, KeyRows, Keys, Numbers, joined_rows, reordered
from fasthash.index.segments import BLOCK_BYTES, Segment, make_segment
from fasthash.index.vectors import Vectors, joined_vectors

MERGE_FAN = 8  # segments of one size class before they are merged
MERGE_ROWS = 1 << 25  # rows of the largest segment that an add or a remove makes by merging (bounds how long it takes)
MERGE_BYTES = 1 << 31  # the same of the rows that are stored beside codes
SEGMENT_ROWS = 1 << 30  # rows of the largest segment that is made at all (bounds a bitmap of its rows: 128 MiB)
_SMALLEST_CLASS = 1 << 13  # rows below which all segments count as equally small

Rows = tuple[Segment, int, int]  # rows start .. stop of a segment, deleted ones included


@dataclass(frozen=True)
class Merged:
    """A segment that is still to be made: the live rows of parts of segments, in ascending order of id."""

    parts: tuple[Rows, ...]

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Merged:
        """All live rows of these segments."""
        return cls(tuple((segment, 0, segment.rows) for segment in segments))

    def count(self) -> int:
        """Live rows."""
        return sum(segment.live_count(start, stop) for segment, start, stop in self.parts)

    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest id (there must be a live row)."""
        edges = [edge for segment, start, stop in self.parts for edge in segment.live_bounds(start, stop)]
        return min(edges), max(edges)

    def id_blocks(self, rows: int) -> Iterator[Tensor]:
        """The ids, ascending, at most `rows` at a time."""
        for window in windows(self.parts, rows):
            ids = joined([_live(*part)[1] for part in window])
            if len(ids):
                yield ids if len(window) == 1 else ids[id_order(ids)]

    def code_blocks(self, rows: int) -> Iterator[Tensor]:
        """Their codes, at most `rows` at a time."""
        for window in windows(self.parts, rows):
            chosen = [_live(*part) for part in window]
            codes = [_codes(*part, live) for part, (live, _) in zip(window, chosen, strict=True)]
            if sum(map(len, codes)):
                yield codes[0] if len(codes) == 1 else joined(codes)[id_order(joined([ids for _, ids in chosen]))]

    def key_places(self, rows: int) -> Iterator[tuple[list[tuple[Keys, Numbers]], Numbers | None]]:
        """Where their keys are, at most `rows` at a time: rows of tables, and what sorts all of these (None: nothing).

        All segments must have keys.
        """
        for window in windows(self.parts, rows):
            chosen = [_live(*part) for part in window]
            places = [
                (_keys(segment), np.arange(start, stop) if live is None else live.cpu().numpy())
                for (segment, start, stop), (live, _) in zip(window, chosen, strict=True)
            ]
            if sum(len(own) for _, own in places):
                order = id_order(joined([ids for _, ids in chosen])).cpu().numpy() if len(places) > 1 else None
                yield places, order

    def text_blocks(self, rows: int) -> Iterator[tuple[Bytes, Numbers]]:
        """Their keys in UTF-8, one after the other, and the length of each, at most `rows` at a time."""
        for places, order in self.key_places(rows):
            parts = [keys.text_of(own) for keys, own in places]
            text, lengths = (np.concatenate(column) for column in zip(*parts, strict=True))
            yield (text, lengths) if order is None else (reordered(text, lengths, order), lengths[order])

    def hashes_by_row(self) -> dict[int, Numbers]:
        """The hashes of each table of keys in the order of its rows, by its id()."""
        return {id(segment.keys): segment.keys.by_row() for segment, _, _ in self.parts if segment.keys is not None}

    def text_rows(self, rows: int) -> int:
        """How many rows have at most about a block of text, `rows` at most."""
        held = [segment.keys for segment, _, _ in self.parts if segment.keys is not None]
        return max(1, min(rows, BLOCK_BYTES * sum(k.size for k in held) // max(1, sum(len(k.text) for k in held))))

    def vector_blocks(self, rows: int) -> Iterator[Vectors]:
        """Their stored rows, at most `rows` at a time. All segments must have some."""
        for window in windows(self.parts, rows):
            chosen = [_live(*part) for part in window]
            found = [
                _vectors(segment).part(start, stop) if live is None else _vectors(segment).taken(live.cpu().numpy())
                for (segment, start, stop), (live, _) in zip(window, chosen, strict=True)
            ]
            if sum(own.size for own in found):
                whole = joined_vectors(found)
                order = None if len(window) == 1 else id_order(joined([ids for _, ids in chosen]))
                yield whole if order is None else whole.taken(order.cpu().numpy())

    @property
    def vectored(self) -> bool:
        """Whether the segments have stored rows."""
        return bool(self.parts) and self.parts[0][0].vectors is not None

    @property
    def keyed(self) -> bool:
        """Whether the segments have keys."""
        return bool(self.parts) and self.parts[0][0].keys is not None

    @property
    def scaled(self) -> bool:
        """Whether the codes have a code_scale each."""
        return any(segment.scales is not None for segment, _, _ in self.parts)

    def scale_blocks(self, rows: int) -> Iterator[Tensor]:
        """Their scales, at most `rows` at a time; only where they have some."""
        for window in windows(self.parts, rows):
            chosen = [_live(*part) for part in window]
            scales = [_scales(*part, live) for part, (live, _) in zip(window, chosen, strict=True)]
            if sum(map(len, scales)):
                yield scales[0] if len(scales) == 1 else joined(scales)[id_order(joined([ids for _, ids in chosen]))]

    def made(self) -> Segment:
        """The segment, in memory."""
        everything = 1 << 62
        ids, codes = list(self.id_blocks(everything)), list(self.code_blocks(everything))
        keys = None
        if self.keyed:
            by_row = self.hashes_by_row()
            keys = joined_rows([_joined_keys(*block, by_row) for block in self.key_places(everything)])
        scales = joined(list(self.scale_blocks(everything))) if self.scaled else None
        vectors = joined_vectors(list(self.vector_blocks(everything))) if self.vectored else None
        return make_segment(joined(codes), joined(ids), keys, scales, vectors)


def windows(parts: Sequence[Rows], rows: int) -> Iterator[list[Rows]]:
    """Cuts parts of segments at the same ids: every id of a window is below all ids of the next.

    A window has at most `rows` rows (one of each part where there are more parts than that); parts without rows in it
    are left out. Deleted rows count.
    """
    ahead = sorted(
        ([segment.id_at(start), number, start] for number, (segment, start, stop) in enumerate(parts) if start < stop),
    )  # [next id, number of the part, its row]
    while ahead:
        last = parts[ahead[0][1]]
        end = last[0].id_at(last[2] - 1)
        near = [entry for entry in ahead if entry[0] <= end]
        step = max(1, rows // len(near))
        for _, number, row in near:  # the window ends at the lowest id that a part reaches in `step` rows
            segment, _, stop = parts[number]
            end = min(end, segment.id_at(min(row + step, stop) - 1))
        window = []
        for entry in near:
            segment, _, stop = parts[entry[1]]
            row, until = entry[2], min(segment.row_after(end), stop)
            if until > row:
                window.append((segment, row, until))
                entry[2] = until
                entry[0] = segment.id_at(until) if until < stop else -1
        if not window:
            raise IndexFolderError("the ids of a segment are not ascending; verify the index")
        ahead = sorted(entry for entry in ahead if entry[0] >= 0)
        yield window


def repeated_id(segments: Sequence[Segment], rows: int) -> tuple[int, list[Segment]] | None:
    """The first id that is live more than once, and the segments that hold it; None where all are distinct.

    Only blocks of ids are in memory, `rows` at a time.
    """
    for window in windows([(segment, 0, segment.rows) for segment in segments], rows):
        if len(window) > 1:
            ids = joined([_live(*part)[1] for part in window])
            ids = torch.from_numpy(np.sort(ids.numpy())) if ids.device.type == "cpu" else ids.sort().values
            same = (ids[1:] == ids[:-1]).nonzero()[:, 0]
            if len(same):
                repeated = ids[same[:1]]
                return int(repeated), [segment for segment, _, _ in window if int(segment.find(repeated)) >= 0]
    return None


def overlapping(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """The groups of two or more segments whose ranges of ids overlap: others cannot hold an id twice."""
    group: list[Segment] = []
    last = -1
    for segment in sorted(segments, key=lambda segment: segment.first_id):
        if segment.first_id > last:
            if len(group) > 1:
                yield group
            group = []
        group.append(segment)
        last = max(last, segment.last_id)
    if len(group) > 1:
        yield group


def settle(segments: Sequence[Segment]) -> list[Segment | Merged]:
    """Bounds the number of segments and of deleted rows.

    Segments fall into classes by live rows, each MERGE_FAN times the one before; MERGE_FAN of one class become one. So
    n codes added in any number of steps make at most about MERGE_FAN log(n) segments (plus one for each MERGE_ROWS /
    MERGE_FAN codes), and a code is rewritten about log(n) times. Segments that are half deleted are rewritten, empty
    ones dropped.
    """
    groups: list[tuple[int, list[Segment]]] = [(s.count, [s]) for s in segments if s.count]
    stored = max((s.vectors.row_bytes for s in segments if s.vectors is not None), default=0)
    most = min(MERGE_ROWS, MERGE_BYTES // stored) if stored else MERGE_ROWS
    while True:
        classes: dict[int, list[tuple[int, list[Segment]]]] = {}
        for group in groups:
            if group[0] * MERGE_FAN <= most:
                classes.setdefault(_size_class(group[0]), []).append(group)
        full = next((group for _, group in sorted(classes.items()) if len(group) >= MERGE_FAN), None)
        if full is None:
            break
        chosen = {id(group) for group in full}
        merged = (sum(count for count, _ in full), [segment for _, group in full for segment in group])
        groups = [group for group in groups if id(group) not in chosen] + [merged]
    return [
        group[0] if len(group) == 1 and not _worn(group[0]) else Merged.of(group)
        for _, group in groups
    ]  # fmt: skip


def cut(segment: Segment) -> list[Segment]:
    """A segment without deleted rows, cut where it has more rows than one may have."""
    most = _most_rows([segment])
    if segment.rows <= most:
        return [segment]
    by_row = None if segment.keys is None else segment.keys.by_row()
    result = []
    for start in range(0, segment.rows, most):
        stop = min(start + most, segment.rows)
        keys = None
        if segment.keys is not None and by_row is not None:
            offsets = segment.keys.offsets[start : stop + 1]
            text = segment.keys.text[offsets[0] : offsets[-1]]
            keys = Keys.of(KeyRows(text, offsets - offsets[0], by_row[start:stop]))
        ids, scales = (None if part is None else part[start:stop] for part in (segment.ids, segment.scales))
        vectors = None if segment.vectors is None else segment.vectors.part(start, stop)
        first = segment.id_at(start)
        result.append(Segment(segment.codes[start:stop], first, ids, keys=keys, scales=scales, vectors=vectors))
    return result


def compacted(segments: Sequence[Segment], rows: int) -> list[Segment | Merged]:
    """The fewest segments that hold all live rows: disjoint, nothing deleted, at most about SEGMENT_ROWS rows each.

    With keys, at most about KEY_ROWS. rows: about how many are in memory at once, at most that.
    """
    most = _most_rows(segments)
    ascending = sorted((s for s in segments if s.count), key=lambda segment: segment.first_id)
    disjoint = all(a.last_id < b.first_id for a, b in itertools.pairwise(ascending))
    fewest = all(a.count + b.count > most for a, b in itertools.pairwise(ascending))
    if disjoint and fewest and not any(segment.deleted for segment in ascending):
        return list(ascending)
    if sum(segment.count for segment in ascending) <= most:
        return [Merged.of(ascending)] if ascending else []
    result: list[Segment | Merged] = []
    count, spans = 0, dict[int, list[int]]()  # spans: number in `ascending` -> [start, stop]
    number_of = {id(segment): number for number, segment in enumerate(ascending)}
    for window in windows([(segment, 0, segment.rows) for segment in ascending], min(rows, most)):
        here = sum(segment.live_count(start, stop) for segment, start, stop in window)
        if count and count + here > most:
            result.append(_of_spans(ascending, spans))
            count, spans = 0, {}
        count += here
        for segment, start, stop in window:
            span = spans.setdefault(number_of[id(segment)], [start, stop])
            span[1] = stop
    if count:
        result.append(_of_spans(ascending, spans))
    return result


def _of_spans(segments: Sequence[Segment], spans: dict[int, list[int]]) -> Merged:
    return Merged(tuple((segments[number], start, stop) for number, (start, stop) in spans.items()))


def _most_rows(segments: Sequence[Segment]) -> int:
    """Rows of the largest segment that is made of these."""
    return min(SEGMENT_ROWS, KEY_ROWS) if any(segment.keys is not None for segment in segments) else SEGMENT_ROWS


def _keys(segment: Segment) -> Keys:
    if segment.keys is None:
        raise IndexFolderError("a segment has no keys, others have; verify the index")
    return segment.keys


def _vectors(segment: Segment) -> Vectors:
    if segment.vectors is None:
        raise IndexFolderError("a segment has no stored rows, others have; verify the index")
    return segment.vectors


def _joined_keys(
    places: Sequence[tuple[Keys, Numbers]], order: Numbers | None, by_row: Mapping[int, Numbers]
) -> KeyRows:
    """The keys of rows of several tables in one order."""
    parts = []
    for keys, rows in places:
        text, lengths = keys.text_of(rows)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        parts.append(KeyRows(text, offsets, by_row[id(keys)][rows]))
    whole = joined_rows(parts)
    return whole if order is None else whole.taken(order)


def _live(segment: Segment, start: int, stop: int) -> tuple[Tensor | None, Tensor]:
    """The live rows from start to stop (None: all of them), and their ids."""
    if segment.live is not None:
        rows = segment.live_rows(start, stop)
        return rows, segment.ids_of(rows)
    if segment.ids is not None:
        return None, segment.ids[start:stop]
    return None, torch.arange(start, stop, device=segment.codes.device) + segment.first_id


def _codes(segment: Segment, start: int, stop: int, live: Tensor | None) -> Tensor:
    return segment.codes[start:stop] if live is None else segment.codes[live]


def _scales(segment: Segment, start: int, stop: int, live: Tensor | None) -> Tensor:
    if segment.scales is None:
        raise IndexFolderError("only some segments have a code_scale; verify the index")
    return segment.scales[start:stop] if live is None else segment.scales[live]


def joined(blocks: Sequence[Tensor]) -> Tensor:
    """The rows of several tensors one after the other; one is not copied.

    numpy where it can: for a few MB torch's threads may take longer to meet than one takes to copy.
    """
    if len(blocks) == 1:
        return blocks[0]
    if blocks[0].device.type == "cpu":
        return torch.from_numpy(np.concatenate([block.numpy() for block in blocks]))
    return torch.cat(list(blocks))


def id_order(ids: Tensor) -> Tensor:
    """The permutation that sorts distinct ids (numpy's sort of 64-bit integers is the faster one on the CPU)."""
    return torch.from_numpy(np.argsort(ids.numpy())) if ids.device.type == "cpu" else ids.argsort()


def _worn(segment: Segment) -> bool:
    return 2 * segment.deleted >= segment.rows and segment.rows <= MERGE_ROWS and segment.deleted > 0


def _size_class(count: int) -> int:
    size, limit = 0, _SMALLEST_CLASS
    while count >= limit:
        size, limit = size + 1, limit * MERGE_FAN
    return size
