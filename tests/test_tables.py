"""Files are recognised by their content; what cannot be read is refused by its name, with the way out."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fasthash._tables import open_table, recognise
from fasthash._tables.kinds import FORMATS
from fasthash._tables.text import TextTable
from fasthash.hierarchy import Hierarchy
from fasthash.index import HammingIndex

NUMBERS = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return out.getvalue()


def safetensors(metadata: dict[str, str] | None) -> bytes:
    header: dict[str, object] = {"w": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}
    if metadata is not None:
        header = {"__metadata__": metadata, **header}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"01234567"


REST = bytes(NUMBERS[:400])
REFUSED = {
    "gzip": (gzip.compress(b"abcd\n" * 99), "a gzip file", "decompress it first"),
    "bzip2": (b"BZh9" + REST, "a bzip2 file", "decompress it first"),
    "xz": (b"\xfd7zXZ\x00" + REST, "an xz file", "decompress it first"),
    "zstd": (b"\x28\xb5\x2f\xfd" + REST, "a zstd file", "decompress it first"),
    "zip": (zipped("codes.npy", "readme.txt"), "a zip archive", "unpack it first"),
    "torch": (zipped("archive/data.pkl", "archive/data/0"), "a file of torch.save", ".npy"),
    "excel": (zipped("xl/workbook.xml"), "an Excel workbook", "CSV"),
    "pickle": (pickle.dumps(NUMBERS), "a Python pickle", ".npy"),
    "tensors": (safetensors(None), "a safetensors file", ".npy"),
    "model": (safetensors({"format": "fasthash-model"}), "a fasthash model", "fasthash encode"),
    "segment": (safetensors({"format": "fasthash-index-segment"}), "a file of an index", "HammingIndex.open"),
    "pdf": (b"%PDF-1.7\n" + REST, "a PDF document", "codes"),
    "png": (b"\x89PNG\r\n\x1a\n" + REST, "a PNG image", "codes"),
    "jpeg": (b"\xff\xd8\xff\xe0" + REST, "a JPEG image", "codes"),
    "sqlite": (b"SQLite format 3\x00" + REST, "an SQLite database", "Parquet or CSV"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + REST, "an HDF5 file", ".npy"),
    "orc": (b"ORC" + REST, "an ORC file", "Parquet"),
    "feather 1": (b"FEA1" + REST, "a Feather file of version 1", "version 2"),
    "json": (b'\n{"codes": [1, 2]}', "a JSON file", ".npy"),
    "json list": (b"[1, 2]", "a JSON file", ".npy"),
    "html": (b"<!DOCTYPE html><p>404", "an HTML or XML file", "codes"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS", "git lfs pull"),
    "utf-16": ("abcd\n".encode("utf-16-le") * 9, "text in UTF-16-LE without a byte order mark", "UTF-8"),
    "unknown": (REST, "has an unknown format", "format='raw'"),
    "empty": (b"", "is empty", ""),
}


@pytest.mark.parametrize("name", list(REFUSED))
@pytest.mark.parametrize("suffix", ["", ".bin", ".dat", ".codes"])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, suffix: str) -> None:
    data, words, way = REFUSED[name]
    file = tmp_path / f"file{suffix}"
    file.write_bytes(data)
    for bits in (None, 8, 64):
        with pytest.raises(ValueError, match=r"HammingIndex\.build: ") as error:
            HammingIndex.build(tmp_path / "index", file, bits)
        message = str(error.value)
        assert words in message
        assert way in message
        assert "\n" not in message
        if name != "unknown":
            assert "bits" not in message
            assert "raw" not in message
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("name", ["torch", "model", "pdf", "png", "sqlite", "hdf5", "zip"])
def test_raw_does_not_help_what_is_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(REFUSED[name][0])
    with pytest.raises(ValueError, match="but format='raw' was given"):
        HammingIndex.build(tmp_path / "index", tmp_path / "file", 8, format="raw")


def test_raw_codes_may_begin_with_anything(tmp_path: Path) -> None:
    for start in (b"\x1f\x8b", b"BZh", b"\xff\xff\xff\xff\x08\0\0\0", b"\x80\x04", b"ab\n"):
        (tmp_path / "file").write_bytes((start + REST)[:400])
        found = HammingIndex.build(tmp_path / "index", tmp_path / "file", 64, format="raw", overwrite=True)
        assert found.get(found.ids).tobytes() == (start + REST)[:400]


def test_other_faiss_indexes(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="needs faiss-cpu")
    codes = NUMBERS.reshape(-1, 8)
    made = {"IBMp": faiss.IndexBinaryIDMap(faiss.IndexBinaryHNSW(64, 4))}
    made["IBMp"].add_with_ids(codes, np.arange(len(codes)))
    for name in ("IBHf", "IBHh", "IBHm"):
        kind = {
            "IBHf": lambda: faiss.IndexBinaryHNSW(64, 4),
            "IBHh": lambda: faiss.IndexBinaryHash(64, 8),
            "IBHm": lambda: faiss.IndexBinaryMultiHash(64, 2, 8),
        }[name]
        made[name] = kind()
        made[name].add(codes)
    quantizer = faiss.IndexBinaryFlat(64)
    made["IBwF"] = faiss.IndexBinaryIVF(quantizer, 64, 4)
    made["IBwF"].train(codes)
    made["IBwF"].add(codes)
    made["IBFf"] = faiss.IndexBinaryFromFloat(faiss.IndexFlatL2(64))
    made["IBFf"].add(codes)
    for name, index in made.items():
        faiss.write_index_binary(index, str(tmp_path / name))
    floats = NUMBERS.reshape(-1, 8).astype(np.float32)
    for text in ("Flat", "HNSW8", "IVF4,Flat", "PQ4", "IDMap,Flat", "SQ8", "LSH", "PCA4,Flat"):
        index = faiss.index_factory(8, text)
        index.train(floats)
        index.add_with_ids(floats, np.arange(len(floats))) if text.startswith("IDMap") else index.add(floats)
        faiss.write_index(index, str(tmp_path / f"float {text}".replace(",", " ")))
    for file in tmp_path.iterdir():
        for options in ({}, {"bits": 64}, {"bits": 64, "format": "raw"}, {"format": "faiss"}):
            with pytest.raises(ValueError, match="faiss index I") as error:
                HammingIndex.build(tmp_path / "index", file, **options)
            message = str(error.value)
            assert file.read_bytes()[:4].decode() in message
            assert "bits" not in message
            if "format" not in options:
                assert "only IBxF (IndexBinaryFlat) is read" in message
    assert not (tmp_path / "index").exists()


def test_real_files(tmp_path: Path) -> None:
    """As the programs write them."""
    torch = pytest.importorskip("torch")
    tensors = pytest.importorskip("safetensors.numpy")
    torch.save(torch.zeros(3), tmp_path / "t.pt")
    tensors.save_file({"codes": NUMBERS}, tmp_path / "t.safetensors")
    with sqlite3.connect(tmp_path / "t.db") as base:
        base.execute("create table t (id)")
    base.close()
    index = HammingIndex(8)
    index.add(NUMBERS[:, None])
    index.save(tmp_path / "index")
    segment = next((tmp_path / "index").glob("segment*"))
    for file, words in (
        (tmp_path / "t.pt", "a file of torch.save"),
        (tmp_path / "t.safetensors", "a safetensors file"),
        (tmp_path / "t.db", "an SQLite database"),
        (segment, "a file of an index"),
        (Path(__file__), "line 1"),
    ):
        with pytest.raises(ValueError, match=words):
            HammingIndex.build(tmp_path / "other", file, 8)
    with pytest.raises(ValueError, match=r"is a folder; an index is opened with HammingIndex\.open"):
        HammingIndex.build(tmp_path / "other", tmp_path / "index")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a regular file"):
        HammingIndex.build(tmp_path / "index", tmp_path / "pipe", 8)


PAGE = Path(__file__).resolve().parent.parent / "docs" / "files.md"


def test_the_page_names_every_format_and_its_examples_run() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in FORMATS:
        assert f"`{name}`" in page or f'format="{name}"' in page
    pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.S | re.M):
        exec(compile(block, PAGE.name, "exec"), {"__name__": "page"})


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_hierarchies_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "edges.txt").write_text("thing café\r\nthing dog\n", encoding=encoding)
    found = Hierarchy.from_file(tmp_path / "edges.txt")
    assert found.edges == [("thing", "café"), ("thing", "dog")]
    (tmp_path / "h.json").write_text(json.dumps(found.to_dict()), encoding=encoding)
    assert Hierarchy.from_file(tmp_path / "h.json").edges == found.edges
    for wrong in ("utf-16-le", "utf-16-be"):
        (tmp_path / "edges.txt").write_text("thing cafe\n", encoding=wrong)
        with pytest.raises(ValueError, match="is not text in UTF-8; save it as UTF-8, or as UTF-16 with a byte order"):
            Hierarchy.from_file(tmp_path / "edges.txt")
    (tmp_path / "edges.txt").write_bytes("thing café\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        Hierarchy.from_file(tmp_path / "edges.txt")


def table(path: Path, data: str, **options: str) -> TextTable:
    path.write_text(data, newline="")
    found = open_table(path, recognise(path, "f"), "f", **options)
    assert isinstance(found, TextTable)
    return found


@pytest.mark.parametrize(
    ("data", "delimiter", "names"),
    [
        ("a,b\n1,2\n", ",", ["a", "b"]),
        ("a\tb,c\n1\t2,5\n", "\t", ["a", "b,c"]),
        ("a;b\n1;2,5\n", ";", ["a", "b"]),
        ("a, b\r\n1, 2\r\n\r\n", ",", ["a", "b"]),
        ('"a,x","b"\n1,2', ",", ["a,x", "b"]),
        (",a\n0,5\n", ",", ["", "a"]),
        ("0,1,2\n0.5,1.5,2.5\n", ",", ["0", "1", "2"]),  # pandas without names
        (",0,1,2\n0,1,2,3\n", ",", ["", "0", "1", "2"]),
        ("0.5,1.5\n2.5,3.5\n", ",", ["1", "2"]),  # no header: numbers
        ("cat\ndog, big\n", None, ["1"]),
        ('"cat"\n"dog, big"\n', ",", ["1"]),
        ("one value\n", None, ["1"]),
    ],
)
def test_fields(tmp_path: Path, data: str, delimiter: str | None, names: list[str]) -> None:
    found = table(tmp_path / "t", data)
    assert (found.delimiter, found.names) == (delimiter, names)


def test_a_first_line_that_could_be_both(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 1 \(0, 1 \.\.\.\) may be a header or a row"):
        table(tmp_path / "t", "0,1\n1,1\n")


def test_text_that_is_refused(tmp_path: Path) -> None:
    for data, message in (
        ("a,b\n1,2\n3\n", "line 3 has 1 fields, must have 2"),
        ('a,b\n1,"2\n', "line 2 is not CSV"),
        ("a,b\n\n1,2\n", "line 2 is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            list(table(tmp_path / "t.csv", data).blocks(["a"], 10))
    with pytest.raises(ValueError, match="begins with an empty line"):
        table(tmp_path / "t", "\nab\n")
    with pytest.raises(ValueError, match="has a first line of more than 65536 bytes"):
        table(tmp_path / "t", "ab" * 40_000)


def test_blocks_and_lines(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", 'id,x\n1,"two\nlines"\n2,b\n3,c\n')
    blocks = list(found.blocks(["x", "id"], 2))
    assert [block.columns for block in blocks] == [[["two\nlines", "b"], ["1", "2"]], [["c"], ["3"]]]
    assert [block.place(0) for block in blocks] == ["line 3", "line 5"]
