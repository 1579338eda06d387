"""Reading an index folder: a consistent state of it while a writer may be at work, and a check of every byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from fasthash.index.errors import IndexFolderError
from fasthash.index.merge import overlapping, repeated_id
from fasthash.index.progress import progress_bar
from fasthash.index.segments import Segment, SegmentEntry, block_rows, repeated_key
from fasthash.index.store import encoder_file, key_file, vector_file
from fasthash.index.store.manifest import CODE_SCALE, MANIFEST, Manifest, index_manifest, parse_manifest
from fasthash.index.store.segment_file import ExtraFormat, check_segment, read_segment
from fasthash.index.store.tensorfile import TensorFile
from fasthash.index.store.untrusted import shorten

_ATTEMPTS = 20  # manifests that a reader tries while a writer replaces them under its feet
_Read = TypeVar("_Read")


class Snapshot(NamedTuple):
    """A complete state of an index folder."""

    manifest: Manifest
    segments: tuple[Segment, ...]


def load(path: Path, mmap: bool, extras: Sequence[ExtraFormat] = (), known: Sequence[Segment] = ()) -> Snapshot:
    """Reads the current state of an index folder; raises IndexFolderError for anything that is not as the format says.

    mmap=True maps the segments and checks everything but their content (verify does); mmap=False loads them and checks
    their checksums too. extras: the kinds of extra files that are read. Of `known` segments, read before, those that
    the state still has are taken as they are.
    """
    have = {segment.entry: segment for segment in known if segment.entry is not None}

    def read(entry: SegmentEntry, manifest: Manifest) -> Segment:
        if entry in have:
            return have[entry]
        scaled = CODE_SCALE in manifest.features
        segment = read_segment(path, entry, manifest.bits, manifest.next_id, mmap, scaled)[0]
        if key_file.FEATURE in manifest.features:
            segment = key_file.attach(path, segment, mmap)[0]
        if manifest.embedding is not None and manifest.embedding.refine is not None:
            kind, features = manifest.embedding.refine, manifest.embedding.features
            segment = vector_file.attach(path, segment, mmap, kind, features)[0]
        found = {extra.KIND: extra.read(path, entry, manifest.bits, mmap) for extra in extras}
        return replace(segment, extras={kind: own[0] for kind, own in found.items() if own is not None})

    return Snapshot(*_read(path, read))


def verify(path: Path, extras: Sequence[ExtraFormat] = (), progress: bool | None = False) -> None:
    """Reads every byte of the current state: checksums, order and uniqueness of ids and keys, padding of codes.

    extras: the kinds of extra files that are read too. Raises IndexFolderError, naming the file, for the first fault.
    """

    def read(entry: SegmentEntry, manifest: Manifest) -> tuple[Segment, TensorFile, list[tuple[TensorFile, str]]]:
        found = []
        for extra in extras:
            named, own = entry.extra(extra.KIND), extra.read(path, entry, manifest.bits, mmap=True)
            if named is not None and own is not None:
                found.append((own[1], named.checksum))
        scaled = CODE_SCALE in manifest.features
        segment, file = read_segment(path, entry, manifest.bits, manifest.next_id, mmap=True, scaled=scaled)
        keys = entry.extra(key_file.KIND)
        if keys is not None:
            segment, own_file = key_file.attach(path, segment, mmap=True)
            found.append((own_file, keys.checksum))
        vectors, embedding = entry.extra(vector_file.KIND), manifest.embedding
        if vectors is not None and embedding is not None and embedding.refine is not None:
            segment, own_file = vector_file.attach(path, segment, True, embedding.refine, embedding.features)
            found.append((own_file, vectors.checksum))
        return segment, file, found

    def check_encoder(manifest: Manifest) -> None:
        if manifest.embedding is not None:
            encoder_file.read(path, manifest.embedding)

    manifest, parts = _read(path, read, check_encoder)
    size = sum(len(file.data) + sum(len(extra.data) for extra, _ in found) for _, file, found in parts)
    with progress_bar("verify", size, "B", progress) as bar:
        for entry, (segment, file, found) in zip(manifest.segments, parts, strict=True):
            for extra, checksum in found:
                for _ in extra.check_bytes(checksum, bar.update):
                    pass
            check_segment(segment, file, entry.checksum, manifest.bits, bar.update)
            if segment.keys is not None:
                key_file.check(segment.keys, _place(path, entry, key_file.KIND))
            if segment.vectors is not None:
                vector_file.check(segment.vectors, _place(path, entry, vector_file.KIND))
    segments = [segment for segment, _, _ in parts]
    for group in overlapping(segments):
        repeated = repeated_id(group, block_rows(manifest.bits))
        if repeated is not None:
            number, holders = repeated
            name = next(
                e.file for e, segment in zip(manifest.segments, segments, strict=True) if segment is holders[-1]
            )
            raise IndexFolderError(f"{path / name}: damaged: an id is in another segment too, {number}")
    key = repeated_key(segments)
    if key is not None:
        raise IndexFolderError(f"{path}: damaged: a key is in two segments, {shorten(key)}")


def _place(path: Path, entry: SegmentEntry, kind: str) -> Path:
    """The file of a segment that holds more about its rows."""
    extra = entry.extra(kind)
    return path if extra is None else path / extra.name


def encoder_of(path: Path) -> tuple[Manifest, bytes]:
    """The manifest of an index that has an encoder, and the encoder; raises IndexFolderError where it has none."""
    found: list[bytes] = []

    def read(manifest: Manifest) -> None:
        if manifest.embedding is None:
            raise IndexFolderError(f"{path}: an index of codes without an encoder; open it as a HammingIndex")
        found[:] = [encoder_file.read(path, manifest.embedding)]

    manifest, _ = _read(path, lambda entry, manifest: entry, read)
    return manifest, found[0]


def _read(
    path: Path,
    read: Callable[[SegmentEntry, Manifest], _Read],
    begin: Callable[[Manifest], object] = lambda manifest: None,
) -> tuple[Manifest, tuple[_Read, ...]]:
    """The manifest, and what `read` gives for every segment that it names, after `begin`."""
    for _ in range(_ATTEMPTS):
        text = index_manifest(path)
        manifest = parse_manifest(text, str(path / MANIFEST))
        try:
            begin(manifest)
            return manifest, tuple(read(entry, manifest) for entry in manifest.segments)
        except FileNotFoundError as error:
            if index_manifest(path) == text:  # else a writer replaced both: read the new state
                raise IndexFolderError(f"{error.filename}: missing, but the manifest names it") from error
    raise IndexFolderError(f"{path}: a writer replaces it faster than it can be read")
