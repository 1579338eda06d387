"""What kind of file it is, by its first bytes. The suffix decides only for .u8bin, which has no mark of its own.

`recognise` gives the kind of a file that can be read, and refuses all else by its name.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

SAMPLE = 1 << 16  # bytes that are looked at
U8BIN_HEADER = np.dtype([("rows", "<u4"), ("code_bytes", "<u4")])

# What format= may say, and the kinds of content that agree with it ("text" is lines, CSV and TSV).
FORMATS = {
    "npy": ("npy",),
    "npz": ("npz",),
    "parquet": ("parquet",),
    "arrow": ("arrow", "arrow stream"),
    "feather": ("arrow",),
    "text": ("text",),
    "csv": ("text",),
    "tsv": ("text",),
    "hex": ("text", "parquet", "arrow", "arrow stream"),
    "decimal": ("text", "parquet", "arrow", "arrow stream"),
    "faiss": ("faiss",),
    "u8bin": ("u8bin",),
    "raw": ("raw",),
}
_NAMES = {
    "npy": "a .npy file",
    "npz": "an .npz archive",
    "parquet": "a Parquet file",
    "arrow": "an Arrow file",
    "arrow stream": "an Arrow stream",
    "faiss": "a faiss index",
    "text": "a text file",
}
_BEGINS = {
    "npz": "it is no zip archive",
    "parquet": "it does not begin with PAR1",
    "arrow": "it does not begin with ARROW1",
    "faiss": "it does not begin with IBxF",
    "text": "it has bytes that are not UTF-8 text; save it as UTF-8, or as UTF-16 with a byte order mark",
}
_UNPACK = "decompress it first"
_NUMBERS = "save the numbers as .npy (numpy.save)"
_EXPORT = "export its rows as Parquet or CSV"
_CODES = "only files of codes or embeddings can be read"
_MAGIC = (
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (b"\x04\x22\x4d\x18", "an lz4 file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"FEA1", "a Feather file of version 1", "write it again: pyarrow.feather.write_feather makes version 2"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _NUMBERS),
    (b"MATLAB 5.0", "a MATLAB file", _NUMBERS),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"%PDF", "a PDF document", _CODES),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", _CODES),
    (b"\xff\xd8\xff", "a JPEG image", _CODES),
    (b"GIF8", "a GIF image", _CODES),
    (b"GGUF", "a GGUF model", _CODES),
    (b"\x7fELF", "a program", _CODES),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save the sheet as CSV"),
)
_TEXTS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch it with git lfs pull"),
    (b"<", "an HTML or XML file", _CODES),
    (b"{", "a JSON file", "save its numbers as .npy, or its rows as CSV or Parquet"),
    (b"[", "a JSON file", "save its numbers as .npy, or its rows as CSV or Parquet"),
    (b"%!PS", "a PostScript document", _CODES),
)
# Of the four letters that a faiss index starts with.
_FAISS = {
    "IBxF": "IndexBinaryFlat",
    "IBMp": "IndexBinaryIDMap",
    "IBM2": "IndexBinaryIDMap2",
    "IBwF": "IndexBinaryIVF",
    "IBFf": "IndexBinaryFromFloat",
    "IBHf": "IndexBinaryHNSW",
    "IBHc": "IndexBinaryHNSWCagra",
    "IBHh": "IndexBinaryHash",
    "IBHm": "IndexBinaryMultiHash",
    "IxFI": "IndexFlatIP",
    "IxF2": "IndexFlatL2",
    "IxFl": "IndexFlat",
    "IwFl": "IndexIVFFlat",
    "IwPQ": "IndexIVFPQ",
    "IwSq": "IndexIVFScalarQuantizer",
    "IxPq": "IndexPQ",
    "IxSQ": "IndexScalarQuantizer",
    "IxHe": "IndexLSH",
    "IxPT": "IndexPreTransform",
    "IxMp": "IndexIDMap",
    "IxM2": "IndexIDMap2",
    "IxRF": "IndexRefine",
    "IHNf": "IndexHNSWFlat",
}
FAISS_READ = ("IBxF", "IBMp", "IBM2")


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Kind(NamedTuple):
    """A format: its name in FORMATS or "text", what it is in words, and for text its encoding."""

    name: str
    words: str
    encoding: str = "utf-8"


def label(path: Path, function: str) -> str:
    """How a message about a file begins: "HammingIndex.build: codes.csv"; a command has no function's name."""
    return f"{function}: {path}" if function else str(path)


def recognise(path: Path, function: str, format: str | None = None) -> Kind:
    """The kind of a file that can be read; `format`: what it is said to be.

    Raises ValueError for a content that is of no known kind, that contradicts `format`, or that cannot be read, with
    its name and the way out. Raises OSError where the file cannot be opened.
    """
    where = label(path, function)
    if format is not None and format not in FORMATS:
        names = ", ".join(repr(name) for name in FORMATS)
        raise ValueError(f"{function or path}: format must be one of {names}, got {format!r}")
    if path.is_dir():
        way = "an index is opened with HammingIndex.open" if (path / "manifest.json").exists() else "must be a file"
        raise ValueError(f"{where} is a folder; {way}")
    if path.exists() and not path.is_file():  # reading a pipe would take its bytes away
        raise ValueError(f"{where} is not a regular file, must be one; save its content to a file")
    with open(path, "rb") as file:
        start = file.read(SAMPLE)
        size = os.fstat(file.fileno()).st_size
    if format == "raw" or format == "u8bin" or (path.suffix.lower() == ".u8bin" and _u8bin_agrees(start, size)):
        return _unmarked(path, start, size, format, where)
    if not size:
        raise ValueError(f"{where} is empty, it has no bytes")
    kind = _marked(path, start, size, where) or _text(path, start, size, where)
    if kind is None:
        _refuse_unknown(path, start, size, format, where)
    if format is not None and kind.name not in FORMATS[format]:
        raise ValueError(f"{where} is {kind.words}, but format={format!r} was given; omit format=")
    return kind


def _unmarked(path: Path, start: bytes, size: int, format: str | None, where: str) -> Kind:
    """Raw bytes and .u8bin, unless the content is plainly something else."""
    if format != "raw" and (path.suffix.lower() != ".u8bin" or not _u8bin_agrees(start, size)):
        kind = _marked_or_none(path, start, size)
        if kind is not None:
            raise ValueError(f"{where} is {kind}, but format='u8bin' was given; omit format=")
        if not _u8bin_agrees(start, size):
            _refuse_u8bin(start, size, where)
    if format == "raw":
        kind = _marked_or_none(path, start, size)
        if kind is None and size >= 64 and b"\n" in start and _decoded(start, size, "utf-8") is not None:
            kind = "a text file"
        if kind is not None:
            raise ValueError(f"{where} is {kind}, but format='raw' was given; omit format=")
        return Kind("raw", "raw codes")
    if format not in (None, "u8bin"):
        raise ValueError(f"{where} is a .u8bin file, but format={format!r} was given; omit format=")
    return Kind("u8bin", "a .u8bin file")


def _marked_or_none(path: Path, start: bytes, size: int) -> str | None:
    """The kind of a file in words, if at least its first four bytes show it."""
    try:
        kind = _marked(path, start, size, "", least=4)
    except UnreadableError as refusal:
        return refusal.words
    return None if kind is None or kind.name == "arrow stream" else kind.words


class UnreadableError(ValueError):
    """A refusal that says what the file is."""

    def __init__(self, where: str, words: str, way: str):
        super().__init__(f"{where} is {words}, which cannot be read; {way}")
        self.words = words


def _marked(path: Path, start: bytes, size: int, where: str, least: int = 2) -> Kind | None:
    """The kind that the first bytes say; raises ValueError for one that cannot be read."""
    if start.startswith(b"\x93NUMPY"):
        return Kind("npy", _NAMES["npy"])
    if start.startswith(b"PAR1"):
        return Kind("parquet", _NAMES["parquet"])
    if start.startswith(b"ARROW1"):
        return Kind("arrow", _NAMES["arrow"])
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(path, where)
    faiss = _faiss(start)
    if faiss is not None:
        if faiss in FAISS_READ:
            return Kind("faiss", f"a faiss index {faiss} ({_FAISS[faiss]})")
        refuse_faiss(faiss, where)
    tensors = _safetensors(start, size)
    if tensors is not None:
        raise UnreadableError(where, *tensors)
    for magic, words, way in _MAGIC:
        if len(magic) >= least and start.startswith(magic):
            raise UnreadableError(where, words, way)
    if start[257:262] == b"ustar":
        raise UnreadableError(where, "a tar archive", "unpack it first")
    if start[:4] == b"RIFF" and start[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        raise UnreadableError(where, "an image, audio or video file (RIFF)", _CODES)
    if start[8:12] == b"DUCK":
        raise UnreadableError(where, "a DuckDB database", _EXPORT)
    if least <= 2 and start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise UnreadableError(where, "a Python pickle", f"unpickling could run its code; {_NUMBERS}")
    if start.startswith(b"\xff\xff\xff\xff") and 0 < int.from_bytes(start[4:8], "little") < size:
        return Kind("arrow stream", _NAMES["arrow stream"])
    return None


def _archive(path: Path, where: str) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise UnreadableError(where, "a damaged zip archive", "copy or make it again") from None
    if names and all(name.endswith(".npy") for name in names):
        return Kind("npz", _NAMES["npz"])
    if any(name.endswith("data.pkl") for name in names):
        raise UnreadableError(where, "a file of torch.save", "unpickling could run its code; save the tensor as .npy")
    if "xl/workbook.xml" in names:
        raise UnreadableError(where, "an Excel workbook", "save the sheet as CSV")
    raise UnreadableError(where, "a zip archive", "unpack it first")


def _faiss(start: bytes) -> str | None:
    """The four letters of a faiss index."""
    letters = start[:4].decode("ascii", "replace")
    if letters in _FAISS and start[:4] in (b"IBxF", b"IBMp", b"IBM2"):
        return letters
    if re.fullmatch(r"I[A-Za-z][A-Za-z0-9][A-Za-z0-9]", letters) and (len(start) < 8 or b"\0" in start[4:24]):
        return letters
    return None


def refuse_faiss(letters: str, where: str, inside: str = "") -> NoReturn:
    words = f"a faiss index {letters}" + (f" ({_FAISS[letters]})" if letters in _FAISS else "") + inside
    read = "only IBxF (IndexBinaryFlat) is read, alone or in an IndexBinaryIDMap"
    raise UnreadableError(where, words, f"{read}; make one of the codes, or save the codes as .npy")


def _safetensors(start: bytes, size: int) -> tuple[str, str] | None:
    """The kind of a safetensors file, and how to use it; None for other files."""
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or not 2 <= length <= size - 8:
        return None
    if not re.match(rb'\{\s*("|\})', start[8:]):
        return None
    found = re.search(rb'"format"\s*:\s*"(fasthash[a-z-]*)"', start[8 : 8 + length])
    if found is None and 8 + length <= len(start):
        try:
            json.loads(start[8 : 8 + length])
        except ValueError:
            return None
    if found is None:
        return "a safetensors file", "save the tensor as .npy"
    ours = found[1].decode()
    if ours.startswith("fasthash-index"):
        return "a file of an index (safetensors)", "give the folder of the index to HammingIndex.open"
    return "a fasthash model (safetensors)", "it makes codes of embeddings: fasthash encode"


def _text(path: Path, start: bytes, size: int, where: str) -> Kind | None:
    """Text in UTF-8, or with a byte order mark in UTF-16 or UTF-32; None for bytes that are no text."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            decoded = _decoded(start, size, encoding)
            if decoded is None:
                return None
            _refuse_named_text(decoded, where)
            return Kind("text", f"a text file in {encoding.upper()}", encoding)
    decoded = _decoded(start, size, "utf-8")
    if decoded is not None:
        _refuse_named_text(decoded, where)
        return Kind("text", _NAMES["text"])
    pairs = start[: len(start) // 2 * 2]
    for encoding, zeros, others in (("utf-16-le", pairs[1::2], pairs[::2]), ("utf-16-be", pairs[::2], pairs[1::2])):
        if len(pairs) >= 4 and zeros.count(0) >= 0.9 * len(zeros) and others.count(0) == 0:
            words = f"text in {encoding.upper()} without a byte order mark"
            raise UnreadableError(where, words, "save it as UTF-8, or as UTF-16 with the mark")
    return None


def _refuse_named_text(text: str, where: str) -> None:
    """Refuses text of a format of its own."""
    begin = text.lstrip("\ufeff \t\r\n").encode()
    for magic, words, way in _TEXTS:
        if begin.startswith(magic):
            raise UnreadableError(where, words, way)


def _decoded(start: bytes, size: int, encoding: str) -> str | None:
    """The sample as text: None where it is not in that encoding, or holds control characters."""
    whole = len(start) == size
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(start, final=whole)
    except UnicodeDecodeError:
        return None
    return None if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text) else text


def read_text(path: Path, function: str) -> str:
    """A whole text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark; raises ValueError for other bytes."""
    data = path.read_bytes()
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(
            f"{label(path, function)} is not text in UTF-8; save it as UTF-8, or as UTF-16 with a byte order mark"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _u8bin_agrees(start: bytes, size: int) -> bool:
    if size < U8BIN_HEADER.itemsize:
        return False
    rows, width = np.frombuffer(start[: U8BIN_HEADER.itemsize], "<u4").tolist()
    return width > 0 and bool(rows * width == size - U8BIN_HEADER.itemsize)


def _refuse_u8bin(start: bytes, size: int, where: str) -> NoReturn:
    if size < U8BIN_HEADER.itemsize:
        raise ValueError(f"{where} is truncated: {size} bytes are too few for a .u8bin header")
    rows, width = np.frombuffer(start[: U8BIN_HEADER.itemsize], "<u4").tolist()
    body = size - U8BIN_HEADER.itemsize
    raise ValueError(f"{where} has {body} bytes of codes, its header says {rows} x {width}")


def _refuse_unknown(path: Path, start: bytes, size: int, format: str | None, where: str) -> NoReturn:
    """Bytes without a mark: says what the suffix or `format` promises, and how raw codes are read."""
    suffix = path.suffix.lower()
    if suffix == ".u8bin" and format is None:
        _refuse_u8bin(start, size, where)
    promised = FORMATS.get(format or suffix[1:], ("",))[0]
    promised = {".pq": "parquet", ".feather": "arrow", ".ipc": "arrow", ".txt": "text"}.get(suffix, promised)
    if promised == "npy":
        raise ValueError(f"{where} is not a whole .npy file of numbers (it is of another format)")
    if promised in _NAMES:
        raise ValueError(f"{where} is not {_NAMES[promised]}: {_BEGINS[promised]}")
    raise ValueError(
        f"{where} has an unknown format (docs/files.md lists the formats); for packed codes without a header "
        "pass format='raw' and, for a new index, bits="
    )
