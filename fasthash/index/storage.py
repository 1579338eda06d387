"""Index folders: reading a consistent state, and changes that leave the last complete one whenever they are cut off.

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
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from fasthash._durable import LockedError, lock_file, make_folder, new_file, sync_folder
from fasthash.index.manifest import MANIFEST_LIMIT, Manifest, SegmentEntry, parse_manifest
from fasthash.index.merge import Merged, overlapping, repeated_id
from fasthash.index.mih import can_have_tables, read_tables, table_entries, write_tables
from fasthash.index.progress import progress_bar, unseen
from fasthash.index.segment_file import (
    block_rows,
    check_bytes,
    check_segment,
    read_segment,
    write_segment,
    write_tombstones,
)
from fasthash.index.segments import Segment
from fasthash.index.tensorfile import TensorFile
from fasthash.index.untrusted import IndexFolderError, read_small, shorten

_MANIFEST = "manifest.json"
_LOCK = "lock"
# Files that only a writer makes, and that it may delete when no manifest names them.
_WORK_FILE = re.compile(r"(segment|tombstones|mih)-\d{8,}-[0-9a-f]{16}\.safetensors|manifest-[0-9a-f]{16}\.tmp")
_ATTEMPTS = 20  # manifests that a reader tries while a writer replaces them under its feet
_Read = TypeVar("_Read")


class Snapshot(NamedTuple):
    """A complete state of an index folder."""

    manifest: Manifest
    segments: tuple[Segment, ...]


def load(path: Path, mmap: bool, known: Sequence[Segment] = (), tables: bool = True) -> Snapshot:
    """Reads the current state of an index folder; raises IndexFolderError for anything that is not as the format says.

    mmap=True maps the segments and checks everything but their content (verify does); mmap=False loads them and checks
    their checksums too. Of `known` segments, read before, those that the state still has are taken as they are.
    tables=False leaves those of multi-index hashing alone.
    """
    have = {segment.entry: segment for segment in known if segment.entry is not None}

    def read(entry: SegmentEntry, manifest: Manifest) -> Segment:
        if entry in have:
            return have[entry]
        segment = read_segment(path, entry, manifest.bits, manifest.next_id, mmap)[0]
        found = read_tables(path, entry, manifest.bits, mmap) if tables else None
        return segment if found is None else replace(segment, tables=found[0])

    return Snapshot(*_read(path, read))


def current_manifest(path: Path) -> Manifest:
    """The manifest of an index folder as it is now; nothing else is read."""
    return parse_manifest(_manifest_bytes(path), str(path / _MANIFEST))


def verify(path: Path, progress: bool | None = False) -> Manifest:
    """Reads every byte of the current state: checksums, order and uniqueness of ids, padding of codes.

    Gives the manifest that was found good; raises IndexFolderError, naming the file, for the first fault.
    """

    def read(entry: SegmentEntry, manifest: Manifest) -> tuple[Segment, TensorFile, TensorFile | None]:
        tables = read_tables(path, entry, manifest.bits, mmap=True)
        segment, file = read_segment(path, entry, manifest.bits, manifest.next_id, mmap=True)
        return segment, file, None if tables is None else tables[1]

    manifest, parts = _read(path, read)
    size = sum(len(file.data) for _, *files in parts for file in files if file is not None)
    with progress_bar("verify", size, "B", progress) as bar:
        for entry, (segment, file, tables) in zip(manifest.segments, parts, strict=True):
            if tables is not None and entry.mih is not None and entry.mih_checksum is not None:
                for _ in check_bytes(path / entry.mih, tables, entry.mih_checksum, bar.update):
                    pass
            check_segment(path / entry.file, segment, file, entry.checksum, manifest.bits, bar.update)
    segments = [segment for segment, _, _ in parts]
    for group in overlapping(segments):
        repeated = repeated_id(group, block_rows(manifest.bits))
        if repeated is not None:
            number, holders = repeated
            name = next(
                e.file for e, segment in zip(manifest.segments, segments, strict=True) if segment is holders[-1]
            )
            raise IndexFolderError(f"{path / name}: damaged: an id is in another segment too, {number}")
    return manifest


class Writer:
    """The one writer of an index folder, from its construction until `close`.

    A change is `commit` (from then on new readers see the new state), then `finish` (from then on it is on the disk).
    """

    def __init__(self, path: Path, create: bool = False, overwrite: bool = False):
        """Locks the folder. create=True: a folder that will hold a new index; else one that holds an index.

        Raises IndexFolderError where the folder is locked, read-only, or not what was asked for.
        """
        if create:
            try:
                make_folder(path)
            except OSError as error:
                raise IndexFolderError(f"{path}: cannot be made a folder ({error.strerror})") from error
            _check_target(path, overwrite)  # before the lock puts a file into a folder that is not ours
        else:
            _manifest_bytes(path)  # raises where there is no index to lock
        self.path = path
        self._process = os.getpid()
        descriptor = _locked(path)
        self.close = weakref.finalize(self, os.close, descriptor)  # a forgotten writer gives its lock back
        try:
            if create:
                _check_target(path, overwrite)  # another writer may have been faster
            self._text, self._generation = _current(path, missing_ok=create)
            self._remove_leftovers()
        except BaseException:
            self.close()
            raise

    def commit(
        self,
        bits: int,
        next_id: int,
        segments: Sequence[Segment | Merged],
        mmap: bool,
        advance: Callable[[int], object] = unseen,
    ) -> tuple[Segment, ...]:
        """Makes `segments` the state of the folder; gives them as they are on disk. `advance` is told of codes written.

        Segments without an entry and merged ones are written (live rows only), those with more deleted rows than their
        entry get new tombstones. On any failure the folder keeps its state, and OSError (a full disk) or
        IndexFolderError says why.
        """
        if os.getpid() != self._process:
            raise IndexFolderError(f"{self.path}: opened for writing by process {self._process}, this is a fork of it")
        if _text_of(self.path) != self._text:
            raise IndexFolderError(f"{self.path}: changed by something that does not hold its lock; open it again")
        generation = self._generation + 1
        written: list[Path] = []
        try:
            stored = tuple(self._store(segment, bits, next_id, mmap, written, advance) for segment in segments)
            entries = tuple(segment.entry for segment in stored if segment.entry is not None)
            text = Manifest(bits, generation, next_id, entries).to_bytes()
            if len(text) > MANIFEST_LIMIT:
                raise IndexFolderError(f"{self.path}: {len(segments)} segments are too many for one manifest")
            aside = self.path / f"manifest-{secrets.token_hex(8)}.tmp"
            written.append(aside)
            with new_file(aside) as file:
                file.write(text)
            sync_folder(self.path)  # the names of the new files, before the manifest that needs them
            os.replace(aside, self.path / _MANIFEST)
        except BaseException as error:
            if _text_of(self.path) == self._text:  # the old state holds: nothing needs the new files
                for name in written:
                    with contextlib.suppress(OSError):
                        name.unlink()
            if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise IndexFolderError(f"{self.path}: cannot be written ({error.strerror})") from error
            raise
        self._text, self._generation = text, generation
        return stored

    def finish(self) -> None:
        """Waits until the last commit is on the disk, then deletes the files that it made superfluous."""
        sync_folder(self.path)
        self._remove_leftovers()

    def new_name(self, kind: str) -> Path:
        """A name for a file ("segment", "tombstones" or "mih") of the next commit, without which it is left over."""
        return self.path / f"{kind}-{self._generation + 1:08d}-{secrets.token_hex(8)}.safetensors"

    def add_tables(
        self, bits: int, next_id: int, segments: Sequence[Segment], mmap: bool, progress: bool | None
    ) -> tuple[Segment, ...]:
        """Makes tables of multi-index hashing for these segments, all on disk; otherwise as `commit`.

        Those that have some, or can have none, stay as they are.
        """
        written: list[Path] = []
        wanted = [s for s in segments if s.entry is not None and s.entry.mih is None and can_have_tables(s)]
        total = sum(table_entries(segment, bits) for segment in wanted)
        made = []
        try:
            with progress_bar("tables", total, "entry", progress if wanted else False) as bar:
                for segment in segments:
                    if any(segment is one for one in wanted):
                        written.append(self.new_name("mih"))
                        segment = write_tables(written[-1], segment, bits, bar.update)
                    made.append(segment)
            return self.commit(bits, next_id, made, mmap) if written else tuple(made)
        except BaseException:
            if not self.holds(written):
                for name in written:
                    with contextlib.suppress(OSError):
                        name.unlink()
            raise

    def holds(self, files: Sequence[Path]) -> bool:
        """Whether the state of the folder needs one of these files."""
        text = _text_of(self.path)
        return text is not None and any(file.name.encode() in text for file in files)

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
            written.append(self.new_name("segment"))
            entry = write_segment(written[-1], segment, bits, advance)
            return read_segment(self.path, entry, bits, next_id, mmap)[0]
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
                manifest = parse_manifest(self._text, _MANIFEST)
            except IndexFolderError:  # a damaged index, about to be replaced
                return
            keep = {name for entry in manifest.segments for name in entry.files}
        for name in os.listdir(self.path):
            if _WORK_FILE.fullmatch(name) and name not in keep:
                with contextlib.suppress(OSError):
                    os.unlink(self.path / name)


def _read(path: Path, read: Callable[[SegmentEntry, Manifest], _Read]) -> tuple[Manifest, tuple[_Read, ...]]:
    """The manifest, and what `read` gives for every segment that it names."""
    for _ in range(_ATTEMPTS):
        text = _manifest_bytes(path)
        manifest = parse_manifest(text, str(path / _MANIFEST))
        try:
            return manifest, tuple(read(entry, manifest) for entry in manifest.segments)
        except FileNotFoundError as error:
            if _manifest_bytes(path) == text:  # else a writer replaced both: read the new state
                raise IndexFolderError(f"{error.filename}: missing, but the manifest names it") from error
    raise IndexFolderError(f"{path}: a writer replaces it faster than it can be read")


def _locked(path: Path) -> int:
    """The descriptor that holds the folder's lock."""
    try:
        return lock_file(path / _LOCK)
    except LockedError as error:
        raise IndexFolderError(f"{path}: another writer has it open") from error
    except OSError as error:
        raise IndexFolderError(f"{path}: cannot be opened for writing ({error.strerror})") from error


def _manifest_bytes(path: Path) -> bytes:
    if not path.is_dir():
        what = "not a folder; an index is a folder with a manifest.json" if path.exists() else "no such folder"
        raise IndexFolderError(f"{path}: {what}")
    text = _text_of(path)
    if text is None:
        raise IndexFolderError(f"{path}: not an index: it has no {_MANIFEST}")
    return text


def _text_of(path: Path) -> bytes | None:
    try:
        return read_small(path / _MANIFEST, MANIFEST_LIMIT)
    except FileNotFoundError:
        return None


def _current(path: Path, missing_ok: bool) -> tuple[bytes | None, int]:
    """The manifest's text and generation: what the next commit replaces."""
    text = _text_of(path) if missing_ok else _manifest_bytes(path)
    if text is None:
        return None, 0
    try:
        return text, parse_manifest(text, str(path / _MANIFEST)).generation
    except IndexFolderError:
        if missing_ok:  # overwrite=True: a damaged index may be replaced
            return text, 0
        raise


def _check_target(path: Path, overwrite: bool) -> None:
    """Refuses a folder that holds an index (unless it may be overwritten) or anything else than what writers leave."""
    names = os.listdir(path)
    foreign = sorted(name for name in names if name not in (_MANIFEST, _LOCK) and not _WORK_FILE.fullmatch(name))
    if _MANIFEST in names:
        if not overwrite:
            raise IndexFolderError(f"{path}: already holds an index; pass overwrite=True to replace it")
        if foreign:  # only a manifest that can be read proves that this is an index
            parse_manifest(_manifest_bytes(path), str(path / _MANIFEST))
    elif foreign:
        raise IndexFolderError(f"{path}: neither empty nor an index, it holds {shorten(foreign[0])}")
