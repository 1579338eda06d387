"""The folder of an opened index: how it is read, and its writer where it may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fasthash.index.errors import IndexFolderError
from fasthash.index.groups import Groups, shown_groups
from fasthash.index.merge import Merged
from fasthash.index.progress import progress_bar
from fasthash.index.segments import Contents, Segment
from fasthash.index.store import encoder_file, key_file, reader, untrusted
from fasthash.index.store.manifest import Embedding, Manifest
from fasthash.index.store.segment_file import ExtraFormat
from fasthash.index.store.writer import Writer, lacks


class Folder:
    """The folder that an opened index reads. Writable, it is the folder's one writer, until `close`.

    extras: the kinds of extra files that searches use; others are left alone. links_within: the folder that its files
    may be links into, None: they must not be links.
    """

    def __init__(
        self, path: Path, mmap: bool, writable: bool, extras: Sequence[ExtraFormat], links_within: Path | None = None
    ):
        """Locks the folder if writable; raises IndexFolderError where that cannot be."""
        self.path, self.mmap, self.links_within = path, mmap, links_within
        self.frozen = "" if writable else "the index was opened read-only; open it with writable=True"
        self.embedding: Embedding | None = None  # what made its codes, as it was last read
        self._extras = extras
        self._writer = Writer(path) if writable else None

    @property
    def writable(self) -> bool:
        """Whether this is the folder's writer."""
        return self._writer is not None

    def load(self, known: Sequence[Segment] = ()) -> tuple[Manifest, Contents]:
        """The manifest and the contents, as they are now. `known` segments are not opened again."""
        with untrusted.links_within(self.links_within):
            manifest, segments = reader.load(self.path, self.mmap, self._extras, known)
        self.embedding = manifest.embedding
        return manifest, Contents.of(segments, manifest.next_id, key_file.FEATURE in manifest.features)

    def refreshed(self, bits: int, bit_weights: Groups, before: Contents) -> Contents:
        """The contents as they are now; `before` itself where nobody else may change them."""
        if self._writer is not None:
            return before
        embedding = self.embedding
        found, contents = self.load(before.segments)
        if found.bits != bits:
            raise IndexFolderError(f"{self.path}: its codes now have {found.bits} bits, not {bits}; open it again")
        if found.bit_weights != bit_weights:
            raise IndexFolderError(
                f"{self.path}: its bit_weights are now {shown_groups(found.bit_weights)}, not "
                f"{shown_groups(bit_weights)}; open it again"
            )
        if found.embedding != embedding:
            self.embedding = embedding
            raise IndexFolderError(f"{self.path}: its codes are now those of another encoder; open it again")
        return contents

    def commit(
        self, bits: int, next_id: int, segments: Sequence[Segment | Merged], progress: bool | None = False
    ) -> Contents:
        """Makes these segments the state of the folder; it is on the disk after `finish`. progress: of what is merged.

        Raises what Writer.commit does, ValueError where the folder is not writable.
        """
        rows = sum(segment.count() for segment in segments if isinstance(segment, Merged))
        with progress_bar("compact", rows, "code", progress) as bar:
            stored = self._open_writer().commit(bits, next_id, segments, self.mmap, bar.update)
        return Contents.of(stored, next_id, self._open_writer().keyed)

    def finish(self) -> None:
        """Waits until the last commit is on the disk, and tidies up after it."""
        self._open_writer().finish()

    def with_extras(self, extra: ExtraFormat, bits: int, contents: Contents, progress: bool | None) -> Contents:
        """Makes the extra files of this kind for all segments that can have one and have none: one transaction."""
        writer, segments = self._open_writer(), contents.segments
        total = sum(extra.entries(segment, bits) for segment in segments if lacks(segment, extra))
        with progress_bar("tables", total, "entry", progress if total else False) as bar:
            writer.add_extras(extra, bits, contents.next_id, segments, self.mmap, bar.update)
        writer.finish()
        return self.load([segment for segment in segments if segment.extras])[1]

    def verify(self, extras: Sequence[ExtraFormat], progress: bool | None) -> None:
        """Reads every byte of the folder as it is now; raises IndexFolderError for the first fault found."""
        with untrusted.links_within(self.links_within):
            reader.verify(self.path, extras, progress)

    def check_process(self) -> None:
        """Raises IndexFolderError in a child that has inherited the writer."""
        if self._writer is not None:
            self._writer.check_process()

    def close(self) -> None:
        """Gives up the folder's lock."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self.frozen = "the index was closed"

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise ValueError(f"{self.path}: {self.frozen}")
        return self._writer


def make_extras(path: Path, extra: ExtraFormat) -> None:
    """Makes the extra files of a kind for an index that nobody has open for writing, as a writer of one change."""
    try:
        folder = Folder(path, mmap=True, writable=True, extras=())
    except IndexFolderError as error:
        raise IndexFolderError(
            f"{error}; it has no tables for method {extra.KIND!r}, and they cannot be made now"
        ) from error
    try:
        manifest, contents = folder.load()
        folder.with_extras(extra, manifest.bits, contents, progress=None)
    finally:
        folder.close()


def save(
    path: Path,
    overwrite: bool,
    bits: int,
    bit_weights: Groups,
    contents: Contents,
    encoder: encoder_file.NewEncoder | None = None,
) -> None:
    """Writes contents to a folder, made where it is missing (see HammingIndex.save); stored rows only with encoder."""
    keyed = contents.keyed
    writer = Writer(path, True, overwrite, bit_weights=bit_weights, keyed=keyed, encoder=encoder)
    try:
        fresh = [replace(segment, entry=None) for segment in contents.segments if segment.count]
        if encoder is None:
            fresh = [replace(segment, vectors=None) for segment in fresh]
        writer.commit(bits, contents.next_id, fresh, mmap=True)
        writer.finish()
    finally:
        writer.close()
