"""Changing an index folder, so that it is left in the last complete state whenever a change is cut off.

A change writes new files under names never used before, flushes them and the folder to the disk, and then renames a new
manifest over the old one: the rename is the change. Files are never modified, so readers keep what they mapped.
docs/index-format.md describes the format.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._durable import Lock, LockedError, make_folder, new_file, sync_folder
from fasthash.index.groups import Groups
from fasthash.index.merge import Merged
from fasthash.index.segments import ExtraFile, Segment, SegmentEntry, block_rows
from fasthash.index.store import encoder_file, key_file, vector_file
from fasthash.index.store.manifest import (
    CODE_SCALE,
    EXTRA_KINDS,
    FEATURE_KINDS,
    MANIFEST,
    MANIFEST_LIMIT,
    Embedding,
    Manifest,
    index_manifest,
    manifest_text,
    parse_manifest,
)
from fasthash.index.store.segment_file import ExtraFormat, read_segment, write_rows, write_tombstones
from fasthash.index.store.untrusted import IndexFolderError, shorten

_LOCK = "lock"
# Files that only a writer makes, and that it may delete when no manifest names them.
_KINDS = "|".join(("segment", "tombstones", encoder_file.KIND, *FEATURE_KINDS, *EXTRA_KINDS))
_WORK_FILE = re.compile(rf"({_KINDS})-\d{{8,}}-[0-9a-f]{{16}}\.safetensors|manifest-[0-9a-f]{{16}}\.tmp")


class Writer:
    """The one writer of an index folder, from its construction until `close`.

    A change is `commit` (from then on new readers see the new state), then `finish` (from then on it is on the disk).
    """

    def __init__(
        self,
        path: Path,
        create: bool = False,
        overwrite: bool = False,
        bit_weights: Groups = (),
        keyed: bool = False,
        encoder: encoder_file.NewEncoder | None = None,
    ):
        """Locks the folder. create=True: a folder that will hold a new index; else one that holds an index.

        bit_weights, keyed (whether its codes have keys), encoder (what made them): of a new index; one that is there
        keeps what it has.
        Raises IndexFolderError where the folder is locked, read-only, or not what was asked for.
        """
        if create:
            try:
                make_folder(path)
            except OSError as error:
                raise IndexFolderError(f"{path}: cannot be made a folder ({error.strerror})") from error
            _check_free(path, overwrite)  # before the lock puts a file into a folder that is not ours
        else:
            index_manifest(path)  # raises where there is no index to lock
        self.path = path
        self._process = os.getpid()
        self._lock = _locked(path)
        try:
            if create:
                _check_free(path, overwrite)  # another writer may have been faster
            self._text, self._generation, self._features, self._bit_weights, self._embedding = _current(path, create)
            self._encoder = encoder  # that is still to be written
            if create and bit_weights:
                self._features, self._bit_weights = ("bit_weights",), bit_weights
            if create and keyed:
                self._features = (*self._features, key_file.FEATURE)
            if create and encoder is not None:
                self._embedding = encoder.embedding
                self._features = (*self._features, encoder_file.FEATURE)
                if encoder.embedding.refine is not None:
                    self._features = (*self._features, vector_file.FEATURE)
            self._remove_leftovers()
        except BaseException:
            self.close()
            raise

    @property
    def keyed(self) -> bool:
        """Whether the codes of the folder have keys."""
        return key_file.FEATURE in self._features

    def close(self) -> None:
        """Gives up the lock."""
        self._lock.close()

    def check_process(self) -> None:
        """Raises IndexFolderError in a forked child: the writer is the process that opened the folder."""
        if os.getpid() != self._process:
            raise IndexFolderError(
                f"{self.path}: opened for writing by process {self._process}, and this process is a fork of it; open "
                "the folder again here, or open it read-only"
            )

    def commit(
        self,
        bits: int,
        next_id: int,
        segments: Sequence[Segment | Merged],
        mmap: bool,
        advance: Callable[[int], object] = lambda count: None,
    ) -> tuple[Segment, ...]:
        """Makes `segments` the state of the folder; gives them as they are on disk. `advance` is told of codes written.

        Segments without an entry and merged ones are written (live rows only), those with more deleted rows than their
        entry get new tombstones. On any failure the folder keeps its state, and OSError (a full disk) or
        IndexFolderError says why.
        """
        self.check_process()
        if manifest_text(self.path) != self._text:
            raise IndexFolderError(f"{self.path}: changed by a process that does not hold its lock; open it again")
        generation, features, embedding = self._generation + 1, self._features, self._embedding
        if vector_file.FEATURE in features and not all(_vectored(segment) for segment in segments):
            raise ValueError(f"{self.path}: {vector_file.NEEDED}")
        if key_file.FEATURE not in features and any(_keyed(segment) for segment in segments):
            features = (*features, key_file.FEATURE)
        written: list[Path] = []
        try:
            if self._encoder is not None:
                written.append(self.new_name(encoder_file.KIND))
                embedding = encoder_file.write(written[-1], self._encoder)
            stored = tuple(self._store(segment, bits, next_id, mmap, written, advance) for segment in segments)
            entries = tuple(segment.entry for segment in stored if segment.entry is not None)
            features = _with_scale(features, any(segment.scales is not None for segment in stored))
            text = Manifest(bits, generation, next_id, entries, features, self._bit_weights, embedding).to_bytes()
            if len(text) > MANIFEST_LIMIT:
                raise IndexFolderError(f"{self.path}: {len(segments)} segments are too many for one manifest")
            aside = self.path / f"manifest-{secrets.token_hex(8)}.tmp"
            written.append(aside)
            with new_file(aside) as file:
                file.write(text)
            sync_folder(self.path)  # the names of the new files, before the manifest that needs them
            os.replace(aside, self.path / MANIFEST)
        except BaseException as error:
            if manifest_text(self.path) == self._text:  # the old state holds: nothing needs the new files
                for name in written:
                    with contextlib.suppress(OSError):
                        name.unlink()
            if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise IndexFolderError(f"{self.path}: cannot be written ({error.strerror})") from error
            raise
        self._text, self._generation, self._features = text, generation, features
        self._embedding, self._encoder = embedding, None
        return stored

    def finish(self) -> None:
        """Waits until the last commit is on the disk, then deletes the files that it made superfluous."""
        sync_folder(self.path)
        self._remove_leftovers()

    def new_name(self, kind: str) -> Path:
        """A name for a file of the next commit, without which it is left over; kind: what the name begins with."""
        return self.path / f"{kind}-{self._generation + 1:08d}-{secrets.token_hex(8)}.safetensors"

    def add_extras(
        self,
        extra: ExtraFormat,
        bits: int,
        next_id: int,
        segments: Sequence[Segment],
        mmap: bool,
        advance: Callable[[int], object],
    ) -> None:
        """Makes extra files of one kind for those of these segments, all on disk, that lack one, and commits them.

        advance: is told of entries as they are written.
        """
        written: list[Path] = []
        made = []
        try:
            for segment in segments:
                if segment.entry is not None and lacks(segment, extra):
                    written.append(self.new_name(extra.KIND))
                    checksum = extra.write(written[-1], segment, bits, advance)
                    file = ExtraFile(extra.KIND, written[-1].name, checksum)
                    entry = replace(segment.entry, extras=(*segment.entry.extras, file))
                    segment = replace(segment, entry=entry)
                made.append(segment)
            if written:
                self.commit(bits, next_id, made, mmap)
        except BaseException:
            self.discard(written)
            raise

    def discard(self, files: Sequence[Path]) -> None:
        """Deletes files that were written for a commit, unless it took place."""
        text = manifest_text(self.path)
        if text is None or not any(file.name.encode() in text for file in files):
            for file in files:
                with contextlib.suppress(OSError):
                    file.unlink()

    def write(
        self,
        segment: Segment | Merged,
        bits: int,
        next_id: int,
        mmap: bool,
        written: list[Path],
        advance: Callable[[int], object] = lambda count: None,
    ) -> Segment:
        """Writes the live rows of a segment, their keys and stored rows to new files of the next commit; gives it as
        it is there.

        Files are noted in `written` before they exist. `advance` is told of codes written.
        """
        merged = segment if isinstance(segment, Merged) else Merged.of([segment])
        written.append(self.new_name("segment"))
        entry = _write_segment(written[-1], merged, bits, advance)
        extras: list[ExtraFile] = []
        if merged.keyed:
            written.append(self.new_name(key_file.KIND))
            checksum = key_file.write(written[-1], merged, entry.checksum, block_rows(bits))
            extras.append(ExtraFile(key_file.KIND, written[-1].name, checksum))
        if merged.vectored:
            written.append(self.new_name(vector_file.KIND))
            checksum = vector_file.write(written[-1], merged, entry.checksum)
            extras.append(ExtraFile(vector_file.KIND, written[-1].name, checksum))
        entry = replace(entry, extras=tuple(extras))
        made = read_segment(self.path, entry, bits, next_id, mmap, merged.scaled)[0]
        if merged.keyed:
            made = key_file.attach(self.path, made, mmap)[0]
        embedding = self._embedding
        if merged.vectored and embedding is not None and embedding.refine is not None:
            made = vector_file.attach(self.path, made, mmap, embedding.refine, embedding.features)[0]
        return made

    def _store(
        self,
        segment: Segment | Merged,
        bits: int,
        next_id: int,
        mmap: bool,
        written: list[Path],
        advance: Callable[[int], object],
    ) -> Segment:
        """The segment with its files on disk. Files are noted in `written` before they exist."""
        if isinstance(segment, Merged) or segment.entry is None or segment.live is None:
            if isinstance(segment, Segment) and segment.entry is not None:
                return segment
            return self.write(segment, bits, next_id, mmap, written, advance)
        if segment.entry.deleted == segment.deleted:
            return segment
        written.append(self.new_name("tombstones"))
        entry = replace(
            segment.entry,
            tombstones=written[-1].name,
            tombstones_checksum=write_tombstones(written[-1], segment),
            deleted=segment.deleted,
        )
        return replace(segment, entry=entry)

    def _remove_leftovers(self) -> None:
        """Deletes what an interrupted writer left, and what the current manifest no longer names."""
        if self._text is None:
            keep = set()
        else:
            try:
                manifest = parse_manifest(self._text, MANIFEST)
            except IndexFolderError:  # a damaged index, about to be replaced
                return
            keep = set(manifest.files)
        for name in os.listdir(self.path):
            if _WORK_FILE.fullmatch(name) and name not in keep:
                with contextlib.suppress(OSError):
                    os.unlink(self.path / name)


def lacks(segment: Segment, extra: ExtraFormat) -> bool:
    """Whether a segment that is on disk can have an extra file of this kind and has none."""
    return segment.entry is not None and segment.entry.extra(extra.KIND) is None and extra.can_have(segment)


def _keyed(segment: Segment | Merged) -> bool:
    return segment.keyed if isinstance(segment, Merged) else segment.keys is not None


def _vectored(segment: Segment | Merged) -> bool:
    return segment.vectored if isinstance(segment, Merged) else segment.vectors is not None


def _write_segment(where: Path, merged: Merged, bits: int, advance: Callable[[int], object]) -> SegmentEntry:
    """Writes the live rows of segments in the order of ids; memory is bounded by the block."""
    rows = block_rows(bits)
    ids = (block.cpu().numpy() for block in merged.id_blocks(rows))

    def codes() -> Iterator[np.ndarray[Any, Any]]:
        for block in merged.code_blocks(rows):
            yield block.cpu().numpy()
            advance(len(block))

    scales = (block.cpu().numpy() for block in merged.scale_blocks(rows)) if merged.scaled else None
    return write_rows(where, bits, merged.count(), merged.bounds(), ids, codes(), scales)


def _with_scale(features: tuple[str, ...], scaled: bool) -> tuple[str, ...]:
    """The features of an index whose codes have a code_scale each, or have none; without codes it has none."""
    others = tuple(name for name in features if name != CODE_SCALE)
    return (*others, CODE_SCALE) if scaled else others


def _locked(path: Path) -> Lock:
    """The folder's lock."""
    try:
        return Lock(path / _LOCK)
    except LockedError as error:
        raise IndexFolderError(f"{path}: another writer has it open") from error
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be opened for writing ({error.strerror})") from error


def _current(path: Path, create: bool) -> tuple[bytes | None, int, tuple[str, ...], Groups, Embedding | None]:
    """What the next commit replaces: the manifest's text and generation; and what it keeps: all that codes mean."""
    text = manifest_text(path) if create else index_manifest(path)
    if text is None:
        return None, 0, (), (), None
    try:
        manifest = parse_manifest(text, str(path / MANIFEST))
    except IndexFolderError:
        if create:  # overwrite=True: a damaged index may be replaced
            return text, 0, (), (), None
        raise
    if create:
        return text, manifest.generation, (), (), None
    return text, manifest.generation, manifest.features, manifest.bit_weights, manifest.embedding


def _check_free(path: Path, overwrite: bool) -> None:
    """Refuses a folder that holds an index (unless it may be overwritten) or anything else than what writers leave."""
    names = os.listdir(path)
    foreign = sorted(name for name in names if name not in (MANIFEST, _LOCK) and not _WORK_FILE.fullmatch(name))
    if MANIFEST in names:
        if not overwrite:
            raise IndexFolderError(f"{path}: already holds an index; pass overwrite=True to replace it")
        if foreign:  # only a manifest that can be read proves that this is an index
            parse_manifest(index_manifest(path), str(path / MANIFEST))
    elif foreign:
        raise IndexFolderError(f"{path}: neither empty nor an index, it holds {shorten(foreign[0])}")
