"""The manifest of an index folder: which segments make up the index, and nothing else (docs/index-format.md)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from fasthash._arguments import MAX_BITS
from fasthash._bit_weights import MOST_GROUPS, MOST_WEIGHT
from fasthash.codes import code_bytes
from fasthash.index.groups import Groups
from fasthash.index.segments import ExtraFile, SegmentEntry
from fasthash.index.store.untrusted import IndexFolderError, parse_json, plain_name, read_small, shorten, whole_number
from fasthash.index.vectors import KINDS as VECTOR_KINDS

MANIFEST = "manifest.json"
FORMAT = "fasthash-index"
CODE_SCALE = "code_scale"  # the feature of an index whose segments hold a scale for each code
KNOWN_FEATURES = frozenset({"bit_weights", CODE_SCALE, "embedding", "keys", "vectors"})  # what a reader must know
EXTRA_KINDS = ("mih",)  # files of a segment that a reader may leave alone
FEATURE_KINDS = ("keys", "vectors")  # features that are a file of every segment, of the same name
_FEATURE_KEYS = {"bit_weights", "embedding"}  # features that the manifest holds a value of, under their own name
MANIFEST_LIMIT = 1 << 26  # bytes; an entry takes about 300
_CHECKSUM = re.compile(r"[0-9a-f]{32}")
_FEATURE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEYS = {"format", "version", "bits", "code_bytes", "generation", "next_id", "segments"}
_SEGMENT_KEYS = {"file", "rows", "ids", "first_id", "xxh3_128", "tombstones", "tombstones_xxh3_128", "deleted"}
_SEGMENT_KEYS |= {key for kind in EXTRA_KINDS for key in (kind, f"{kind}_xxh3_128")}


METRICS = ("cosine", "dot", "l2")


@dataclass(frozen=True)
class Embedding:
    """What made the codes of an index: an encoder in a file beside them, of rows of numbers."""

    encoder: str  # the name of its file
    checksum: str
    features: int  # of a row
    metric: str
    unit_rows: bool  # whether the encoder takes rows over their lengths
    refine: str | None  # the type of the rows that are stored (the feature "vectors"); None: none are

    def to_json(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder,
            "encoder_xxh3_128": self.checksum,
            "features": self.features,
            "metric": self.metric,
            "unit_rows": self.unit_rows,
            "refine": self.refine,
        }


@dataclass(frozen=True)
class Manifest:
    """A complete state of an index."""

    bits: int
    generation: int
    next_id: int
    segments: tuple[SegmentEntry, ...]
    features: tuple[str, ...] = ()
    bit_weights: Groups = ()  # there exactly where the features name them
    embedding: Embedding | None = None  # likewise

    @property
    def files(self) -> list[str]:
        """The names of all files that it names."""
        own = [] if self.embedding is None else [self.embedding.encoder]
        return own + [name for entry in self.segments for name in entry.files]

    def to_bytes(self) -> bytes:
        """The manifest as it is written to the folder: of version 1, which more readers know, where it can be."""
        document: dict[str, Any] = {
            "format": FORMAT,
            **({"version": 2, "features": list(self.features)} if self.features else {"version": 1}),
            "bits": self.bits,
            "code_bytes": code_bytes(self.bits),
            **({"bit_weights": self.bit_weights} if self.bit_weights else {}),
            **({} if self.embedding is None else {"embedding": self.embedding.to_json()}),
            "generation": self.generation,
            "next_id": self.next_id,
            "segments": [
                {
                    "file": entry.file,
                    "rows": entry.rows,
                    "ids": "implicit" if entry.implicit else "explicit",
                    "first_id": entry.first_id,
                    "xxh3_128": entry.checksum,
                    "tombstones": entry.tombstones,
                    "tombstones_xxh3_128": entry.tombstones_checksum,
                    "deleted": entry.deleted,
                    **{extra.kind: extra.name for extra in entry.extras},
                    **{f"{extra.kind}_xxh3_128": extra.checksum for extra in entry.extras},
                }
                for entry in self.segments
            ],
        }
        document["xxh3_128"] = _document_checksum(document)
        return json.dumps(document, indent=1).encode()


def manifest_text(path: Path) -> bytes | None:
    """The manifest of a folder; None where there is none."""
    try:
        return read_small(path / MANIFEST, MANIFEST_LIMIT)
    except FileNotFoundError:
        return None


def index_manifest(path: Path) -> bytes:
    """The manifest of a folder that must be an index; else raises IndexFolderError."""
    if not path.is_dir():
        what = "not a folder; an index is a folder with a manifest.json" if path.exists() else "no such folder"
        raise IndexFolderError(f"{path}: {what}")
    text = manifest_text(path)
    if text is None:
        raise IndexFolderError(f"{path}: not an index: it has no {MANIFEST}")
    return text


def current_manifest(path: Path) -> Manifest:
    """The manifest of an index folder as it is now; nothing else is read."""
    return parse_manifest(index_manifest(path), str(path / MANIFEST))


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Reads a manifest; raises IndexFolderError, starting with `where`, for any field that is not as the format says.

    Keys that this version does not know are ignored where the manifest's own checksum vouches for them, and refused
    where it has none (a manifest written by hand).
    """
    document = parse_json(text, where)
    if document.get("format") != FORMAT:
        raise IndexFolderError(f"{where}: not a fasthash index: format is {shorten(document.get('format'))}")
    version = document.get("version")
    if type(version) is not int or version not in (1, 2):
        raise IndexFolderError(
            f"{where}: unknown version {shorten(version)} of the format; this fasthash reads versions 1 and 2"
        )
    expected = document.pop("xxh3_128", None)
    if expected not in (None, _document_checksum(document)):
        raise IndexFolderError(f"{where}: damaged: its content does not match its checksum {shorten(expected)}")
    features = () if version == 1 else _parse_features(document.get("features"), where)
    if expected is None:
        new_keys = set() if version == 1 else {"features", *_FEATURE_KEYS.intersection(features)}
        _refuse_unknown(document, _KEYS | new_keys, where)
    bits = whole_number(document.get("bits"), 1, MAX_BITS, f"{where}: bits")
    whole_number(document.get("code_bytes"), code_bytes(bits), code_bytes(bits), f"{where}: code_bytes of {bits} bits")
    weights = _parse_bit_weights(document.get("bit_weights"), bits, where) if "bit_weights" in features else ()
    generation = whole_number(document.get("generation"), 0, 2**63 - 1, f"{where}: generation")
    next_id = whole_number(document.get("next_id"), 0, 2**63, f"{where}: next_id")
    entries = document.get("segments")
    if not isinstance(entries, list):
        raise IndexFolderError(f"{where}: segments must be a list, got {shorten(entries)}")
    segments = tuple(
        _parse_entry(entry, next_id, f"{where}: segment {number}", features, strict=expected is None)
        for number, entry in enumerate(entries)
    )
    embedding = _parse_embedding(document.get("embedding"), features, where) if "embedding" in features else None
    if "vectors" in features and embedding is None:
        raise IndexFolderError(f"{where}: feature 'vectors' needs feature 'embedding' beside it")
    manifest = Manifest(bits, generation, next_id, segments, features, weights, embedding)
    if len(set(manifest.files)) != len(manifest.files):
        raise IndexFolderError(f"{where}: the same file is named twice")
    return manifest


def _parse_features(features: Any, where: str) -> tuple[str, ...]:
    """The names of a list of features, all of them known."""
    if not isinstance(features, list):
        raise IndexFolderError(f"{where}: features must be a list of names, got {shorten(features)}")
    for name in features:
        if not isinstance(name, str) or not _FEATURE.fullmatch(name):
            raise IndexFolderError(
                f"{where}: a feature must be named by 1 to 64 of a-z, 0-9 and _, a letter first, got {shorten(name)}"
            )
    if len(set(features)) != len(features):
        raise IndexFolderError(f"{where}: features must be distinct, got {shorten(features)}")
    for name in features:
        if name not in KNOWN_FEATURES:
            raise IndexFolderError(
                f"{where}: needs feature {name!r}, which this fasthash does not know; open it with a newer fasthash"
            )
    return tuple(features)


def _parse_bit_weights(groups: Any, bits: int, where: str) -> Groups:
    """Pairs [bits, weight] that make up the bits of a code."""
    if not isinstance(groups, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in groups):
        raise IndexFolderError(f"{where}: bit_weights must be a list of pairs [bits, weight], got {shorten(groups)}")
    whole_number(len(groups), 1, MOST_GROUPS, f"{where}: number of groups of bit_weights")
    for count, weight in groups:
        whole_number(count, 1, bits, f"{where}: bits of a group of bit_weights")
        whole_number(weight, 1, MOST_WEIGHT, f"{where}: weight of a group of bit_weights")
    total = sum(count for count, _ in groups)
    if total != bits:
        raise IndexFolderError(f"{where}: the groups of bit_weights must hold {bits} bits, got {total}")
    return tuple((count, weight) for count, weight in groups)


def _parse_embedding(given: Any, features: tuple[str, ...], where: str) -> Embedding:
    """The key `embedding`, which agrees with the feature "vectors"."""
    if not isinstance(given, dict):
        raise IndexFolderError(f"{where}: embedding must be an object, got {shorten(given)}")
    where = f"{where}: embedding"
    metric, unit_rows, refine = (given.get(name) for name in ("metric", "unit_rows", "refine"))
    if metric not in METRICS:
        raise IndexFolderError(f"{where}: metric must be one of {', '.join(METRICS)}, got {shorten(metric)}")
    if type(unit_rows) is not bool:
        raise IndexFolderError(f"{where}: unit_rows must be true or false, got {shorten(unit_rows)}")
    if refine not in (None, *VECTOR_KINDS):
        raise IndexFolderError(
            f"{where}: refine must be null or one of {', '.join(VECTOR_KINDS)}, got {shorten(refine)}"
        )
    if (refine is not None) != ("vectors" in features):
        raise IndexFolderError(f"{where}: refine is {shorten(refine)}, but the features are {shorten(list(features))}")
    return Embedding(
        plain_name(given.get("encoder"), f"{where}: encoder"),
        _checksum(given.get("encoder_xxh3_128"), f"{where}: encoder_xxh3_128"),
        whole_number(given.get("features"), 1, 2**31 - 1, f"{where}: features"),
        metric,
        unit_rows,
        refine,
    )


def _parse_entry(entry: Any, next_id: int, where: str, features: tuple[str, ...], strict: bool) -> SegmentEntry:
    if not isinstance(entry, dict):
        raise IndexFolderError(f"{where}: must be an object, got {shorten(entry)}")
    needed = [kind for kind in FEATURE_KINDS if kind in features]
    if strict:
        _refuse_unknown(entry, _SEGMENT_KEYS.union(*({kind, f"{kind}_xxh3_128"} for kind in needed)), where)
    rows = whole_number(entry.get("rows"), 1, 2**63 - 1, f"{where}: rows")
    first_id = whole_number(entry.get("first_id"), 0, 2**63 - 1, f"{where}: first_id")
    if first_id + rows > next_id:
        raise IndexFolderError(f"{where}: {rows} ids from {first_id} on do not end below next_id, {next_id}")
    if entry.get("ids") not in ("implicit", "explicit"):
        raise IndexFolderError(f"{where}: ids must be 'implicit' or 'explicit', got {shorten(entry.get('ids'))}")
    deleted = whole_number(entry.get("deleted"), 0, rows, f"{where}: deleted")
    tombstones, tombstones_checksum = entry.get("tombstones"), entry.get("tombstones_xxh3_128")
    if (tombstones is None) != (deleted == 0):
        raise IndexFolderError(f"{where}: {deleted} rows are deleted, but tombstones is {shorten(tombstones)}")
    extras = tuple(
        ExtraFile(
            kind,
            plain_name(entry.get(kind), f"{where}: {kind}"),
            _checksum(entry.get(f"{kind}_xxh3_128"), f"{where}: {kind}_xxh3_128"),
        )
        for kind in (*needed, *EXTRA_KINDS)
        if kind in needed or entry.get(kind) is not None
    )
    return SegmentEntry(
        file=plain_name(entry.get("file"), f"{where}: file"),
        rows=rows,
        implicit=entry["ids"] == "implicit",
        first_id=first_id,
        checksum=_checksum(entry.get("xxh3_128"), f"{where}: xxh3_128"),
        tombstones=None if tombstones is None else plain_name(tombstones, f"{where}: tombstones"),
        tombstones_checksum=None
        if tombstones_checksum is None
        else _checksum(tombstones_checksum, f"{where}: tombstones_xxh3_128"),
        deleted=deleted,
        extras=extras,
    )


def _document_checksum(document: dict[str, Any]) -> str:
    """XXH3-128 of the document in canonical form: keys sorted, no spaces, ASCII, and without its own checksum."""
    return xxhash.xxh3_128(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _checksum(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _CHECKSUM.fullmatch(value):
        raise IndexFolderError(f"{where}: must be 32 hexadecimal digits, got {shorten(value)}")
    return value


def _refuse_unknown(document: dict[str, Any], known: set[str], where: str) -> None:
    unknown = document.keys() - known
    if unknown:
        raise IndexFolderError(f"{where}: unknown key {shorten(min(unknown))} and no checksum that confirms it")
