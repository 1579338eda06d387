"""Building index folders from streams and files, and writing files that other programs read."""

import os
import sys

import numpy as np
import pytest
import torch
from index_folders import content, files, random_codes, read_manifest

from fasthash.index import HammingIndex, IndexFolderError, merge
from fasthash.index.exchange import build

CODES = random_codes(1000)


@pytest.fixture
def small(monkeypatch):
    """Blocks, runs and segments of a few rows."""
    monkeypatch.setattr("fasthash.index.segments.BLOCK_BYTES", 500)
    monkeypatch.setattr(build, "_RUN_BYTES", 16 * 150)
    monkeypatch.setattr(build, "_WINDOW", 64)
    monkeypatch.setattr(merge, "SEGMENT_ROWS", 400)


def expected(codes, ids=None, bits=64):
    index = HammingIndex(bits)
    index.add(codes, ids)
    return content(index)


def check(index, codes, ids=None, bits=64):
    index.verify()
    assert content(index) == expected(codes, ids, bits)
    assert content(HammingIndex.open(index.path, mmap=False)) == content(index)


def blocks(*sizes, ids=None):
    at = 0
    for size in sizes:
        part = CODES[at : at + size]
        yield part if ids is None else (part, ids[at : at + size])
        at += size


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["array", "tensor", "memmap", "blocks", "one block", "strided"])
def test_ids_in_order(tmp_path, kind):
    np.save(tmp_path / "codes.npy", CODES)
    source = {
        "array": lambda: CODES,
        "tensor": lambda: torch.tensor(CODES),
        "memmap": lambda: np.load(tmp_path / "codes.npy", mmap_mode="r"),
        "blocks": lambda: blocks(1, 0, 399, 500, 0, 100),
        "one block": lambda: iter([CODES]),
        "strided": lambda: np.repeat(CODES, 2, axis=1)[:, ::2],
    }[kind]()
    index = HammingIndex.build(tmp_path / "index", source)
    check(index, CODES)
    assert [segment["rows"] for segment in read_manifest(index.path)["segments"]] == [400, 400, 200]
    assert all(segment["ids"] == "implicit" for segment in read_manifest(index.path)["segments"])
    with pytest.raises(ValueError, match="was opened read-only"):
        index.add(CODES)


@pytest.mark.usefixtures("small")
def test_tensors_on_a_device(tmp_path, device):
    codes, ids = torch.tensor(CODES, device=device), torch.arange(1000, device=device) * 3
    check(HammingIndex.build(tmp_path / "ranges", codes), CODES)
    check(HammingIndex.build(tmp_path / "ids", codes, ids=ids), CODES, ids.cpu().numpy())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("order", ["random", "ascending", "range", "descending"])
def test_explicit_ids(tmp_path, order):
    ids = {
        "random": np.random.default_rng(0).permutation(10**6)[:1000],
        "ascending": np.arange(1000) * 3,
        "range": np.arange(1000) + 5,
        "descending": np.arange(1000)[::-1].copy(),
    }[order]
    np.save(tmp_path / "ids.npy", ids)
    for number, (source, given) in enumerate(
        [(CODES, ids), (blocks(10, 300, 690, ids=ids), None), (blocks(500, 500), tmp_path / "ids.npy")]
    ):
        index = HammingIndex.build(tmp_path / f"index{number}", source, ids=given)
        check(index, CODES, ids)
        assert {segment["ids"] for segment in read_manifest(index.path)["segments"]} == {
            "implicit" if order in ("range", "descending") else "explicit"
        }
    with HammingIndex.open(index.path, writable=True) as writer:
        writer.compact()
        check(writer, CODES, ids)
        assert len(files(index.path, "segment")) <= 4


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("source", "arguments", "error", "message"),
    [
        (
            lambda: blocks(10, 10),
            {"ids": np.arange(19)},
            ValueError,
            "more than 19 codes need more than 19 ids",
        ),
        (lambda: blocks(10, 10), {"ids": np.arange(21)}, ValueError, "20 codes need 20 ids, got 21"),
        (lambda: CODES, {"ids": [1]}, ValueError, "1000 codes need 1000 ids, got 1"),
        (lambda: CODES, {"ids": np.arange(1000) // 2}, ValueError, "ids must be distinct, got 0 more than once"),
        (lambda: CODES, {"ids": np.arange(1000) % 990}, ValueError, "ids must be distinct, got 0 more than once"),
        (lambda: CODES, {"ids": np.arange(1000) - 5}, ValueError, r"ids must be between 0 and 2\*\*63 - 1, got -5"),
        (lambda: CODES, {"ids": np.zeros(1000)}, TypeError, "ids must be integers"),
        (lambda: blocks(5, 5, ids=np.arange(10)), {"ids": np.arange(10)}, ValueError, "the source has ids already"),
        (lambda: [CODES, (CODES, np.arange(1000))], {}, ValueError, "either all blocks have ids or none has"),
        (lambda: [(CODES, [1])], {}, ValueError, "a block of 1000 codes needs 1000 ids, got 1"),
        (lambda: [CODES, CODES[:, :4]], {}, ValueError, r"codes of 64 bits must be \[N, 8\], got shape \(1000, 4\)"),
        (lambda: [CODES, CODES.astype(int)], {}, TypeError, "HammingIndex.build: codes must be packed uint8"),
        (lambda: CODES, {"bits": 60}, ValueError, "zeros in the 4 padding bits"),
        (lambda: CODES, {"bits": 0}, ValueError, "bits must be between 1 and 65536, got 0"),
        (lambda: CODES[0], {}, ValueError, r"codes must be \[N, bytes of a code\], got shape \(8,\)"),
        (lambda: [CODES[0]], {}, ValueError, r"a block must be \[N, bytes of a code\], got shape \(8,\)"),
        (lambda: [], {}, ValueError, "the source has no blocks, so bits must be given"),
        (lambda: 5, {}, TypeError, "source must be an array, a path or blocks of codes, got int"),
    ],
)
def test_refused_builds_leave_nothing(tmp_path, source, arguments, error, message):
    with pytest.raises(error, match=message):
        HammingIndex.build(tmp_path / "index", source(), **arguments)
    assert not (tmp_path / "index").exists() or set(os.listdir(tmp_path / "index")) <= {"lock"}
    HammingIndex.build(tmp_path / "index", CODES)
    before, names = content(HammingIndex.open(tmp_path / "index")), files(tmp_path / "index")
    with pytest.raises(error, match=message):
        HammingIndex.build(tmp_path / "index", source(), overwrite=True, **arguments)
    assert content(HammingIndex.open(tmp_path / "index")) == before
    assert files(tmp_path / "index") == names


def test_build_over_an_index_and_empty_sources(tmp_path, capfd):
    HammingIndex.build(tmp_path, CODES)
    with pytest.raises(IndexFolderError, match="already holds an index; pass overwrite=True"):
        HammingIndex.build(tmp_path, CODES)
    assert capfd.readouterr().err == ""
    index = HammingIndex.build(tmp_path, blocks(5, ids=[9, 8, 7, 3, 1]), overwrite=True, progress=True)
    assert index.ids.tolist() == [1, 3, 7, 8, 9]
    assert "5.00" in capfd.readouterr().err
    with HammingIndex.open(tmp_path, writable=True) as writer:
        assert writer.add(CODES[:1]).tolist() == [10]
    assert len(HammingIndex.build(tmp_path, [], bits=9, overwrite=True)) == 0
    assert len(HammingIndex.build(tmp_path, CODES[:0], overwrite=True)) == 0
    assert len(HammingIndex.build(tmp_path, CODES[:0], ids=[], overwrite=True)) == 0
    interrupted = iter(lambda: (_ for _ in ()).throw(KeyboardInterrupt), None)
    names = files(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        HammingIndex.build(tmp_path, (block() or next(block()) for block in interrupted), bits=8, overwrite=True)
    assert files(tmp_path) == names


# Files


def gone_through(tmp_path, name, index, **arguments):
    """The content after an export and a build from the file."""
    index.export(tmp_path / name)
    return content(HammingIndex.build(tmp_path / f"from-{name}", tmp_path / name, **arguments))


@pytest.fixture(params=["0 .. N - 1", "others"])
def index(request, tmp_path):
    index = HammingIndex(64)
    index.add(CODES)
    if request.param == "others":
        index.remove(np.arange(0, 1000, 3))
        index.add(CODES[:10], np.arange(5000, 5020, 2)[::-1].copy())
    return index


def test_npy_and_u8bin_and_raw(tmp_path, index, small):
    ids = index.ids
    codes = index.get(ids)
    for name in ("codes.npy", "codes.u8bin"):
        assert gone_through(tmp_path, name, index, ids=ids) == content(index)
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), codes)
    data = (tmp_path / "codes.u8bin").read_bytes()
    assert np.frombuffer(data[:8], "<u4").tolist() == [len(codes), 8]
    assert data[8:] == codes.tobytes()
    (tmp_path / "codes.raw").write_bytes(codes.tobytes())
    assert content(
        HammingIndex.build(tmp_path / "raw", tmp_path / "codes.raw", bits=64, ids=ids, format="raw")
    ) == content(index)
    index.export(tmp_path / "codes.npy", tmp_path / "ids.npy", progress=True)
    np.testing.assert_array_equal(np.load(tmp_path / "ids.npy"), ids)
    built = HammingIndex.build(tmp_path / "both", str(tmp_path / "codes.npy"), ids=str(tmp_path / "ids.npy"))
    assert content(built) == content(index)
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith(".")) == []


def test_faiss_reads_and_writes_the_same_files(tmp_path, index, small):
    faiss = pytest.importorskip("faiss", reason="needs faiss-cpu")
    assert gone_through(tmp_path, "codes.faiss", index) == content(index)
    theirs = faiss.read_index_binary(str(tmp_path / "codes.faiss"))
    assert (theirs.d, theirs.ntotal) == (64, len(index))
    queries = random_codes(5, seed=3)
    ours = index.search(queries, 20)
    distances, ids = theirs.search(queries, 20)
    np.testing.assert_array_equal(distances, ours.distances)
    assert len(set(ids.ravel().tolist()) - set(index.ids.tolist())) == 0
    for kind in (faiss.IndexBinaryIDMap, faiss.IndexBinaryIDMap2):
        wrapped = kind(faiss.IndexBinaryFlat(64))
        wrapped.add_with_ids(index.get(index.ids), index.ids)
        faiss.write_index_binary(wrapped, str(tmp_path / "theirs"))
        built = HammingIndex.build(tmp_path / kind.__name__, tmp_path / "theirs")
        assert content(built)[:3] == content(index)[:3]
    flat = faiss.IndexBinaryFlat(64)
    flat.add(CODES)
    faiss.write_index_binary(flat, str(tmp_path / "theirs"))
    check(HammingIndex.build(tmp_path / "flat", tmp_path / "theirs"), CODES)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_arrow(tmp_path, index, small, suffix):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    assert gone_through(tmp_path, f"codes{suffix}", index)[:3] == content(index)[:3]
    if suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "codes.parquet")
    else:
        table = arrow.ipc.open_file(tmp_path / "codes.arrow").read_all()
    assert table.column("id").to_pylist() == index.ids.tolist()
    assert b"".join(table.column("code").to_pylist()) == index.get(index.ids).tobytes()
    with pytest.raises(ValueError, match="holds ids already; ids must be None"):
        HammingIndex.build(tmp_path / "index", tmp_path / f"codes{suffix}", ids=index.ids)


def test_arrow_tables_that_are_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    codes = arrow.array([b"abcd", None, b"efgh"], arrow.binary(4))
    for table, message in [
        ({"x": [0.5, 2]}, r"has no column that certainly holds codes; its columns are 'x' \(double\)"),
        ({"a": codes, "b": codes}, "has 2 columns that could be the codes: 'a', 'b'; name one with column="),
        ({"a": codes}, "column 'a' has a null in row 1, must not have any"),
    ]:
        parquet.write_table(arrow.table(table), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=message):
            HammingIndex.build(tmp_path / "index", tmp_path / "t.parquet")
    sliced = arrow.table({"a": codes.drop_null()}).slice(1)
    with arrow.ipc.new_file(tmp_path / "t.arrow", sliced.schema) as writer:
        writer.write_table(sliced)
    assert HammingIndex.build(tmp_path / "sliced", tmp_path / "t.arrow").get([0]).tobytes() == b"efgh"
    for name in ("t.parquet", "t.arrow"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match="line 1 has 'nothing of the kind', which is not a code"):
            HammingIndex.build(tmp_path / "index", tmp_path / name)


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    message = r"need pyarrow, which is not installed: pip install 'fasthash\[arrow\]'"
    with pytest.raises(ImportError, match=f"HammingIndex.build: Parquet and Arrow files {message}"):
        HammingIndex.build(tmp_path / "index", tmp_path / "t.parquet")
    index = HammingIndex(8)
    with pytest.raises(ImportError, match=f"HammingIndex.export: Parquet and Arrow files {message}"):
        index.export(tmp_path / "new.parquet")
    assert os.listdir(tmp_path) == ["t.parquet"]


def faiss_bytes(bits=64, width=8, rows=3, size=24, fourcc=b"IBxF", metric=1):
    numbers = [n.to_bytes(k, "little", signed=True) for n, k in [(bits, 4), (width, 4), (rows, 8), (1, 1), (metric, 4)]]
    return b"".join([fourcc, *numbers, size.to_bytes(8, "little")])


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.npy", b"\x93NUMPY nothing", "is not a whole .npy file of numbers"),
        ("a.npy", b"\x80\x04K\x01.", "is a Python pickle, which cannot be read; unpickling could"),
        ("a.u8bin", b"\0" * 7, "is truncated: 7 bytes are too few for a .u8bin header"),
        ("a.u8bin", b"\2\0\0\0\4\0\0\0" + b"\0" * 7, r"has 7 bytes of codes, its header says 2 x 4"),
        ("a.raw", b"\0" * 9, r"an unknown format .* pass format='raw' and, for a new index, bits="),
        ("a", faiss_bytes() + b"\0" * 23, "is truncated: it ends at byte 56, expected 57"),
        ("a", faiss_bytes() + b"\0" * 25, "is damaged: 1 bytes after its end"),
        ("a", faiss_bytes(rows=4) + b"\0" * 24, "is damaged: 4 codes of 64 bits"),
        ("a", faiss_bytes(rows=2**60, size=2**63) + b"\0" * 24, "is truncated"),
        ("a", faiss_bytes(rows=-3, width=-8) + b"\0" * 24, "is damaged: -3 codes"),
        ("a", faiss_bytes(bits=63) + b"\0" * 24, "is damaged: 3 codes of 63 bits"),
        ("a", faiss_bytes()[:20], "is truncated"),
        (
            "a",
            faiss_bytes(fourcc=b"IBMp")[:25] + b"IBwF" + b"\0" * 60,
            r"is a faiss index IBwF \(IndexBinaryIVF\) inside IBMp",
        ),
        ("a", faiss_bytes(fourcc=b"IBMp")[:25] + faiss_bytes() + b"\0" * 24, "is truncated: it ends at byte 82"),
        (
            "a",
            faiss_bytes(fourcc=b"IBM2")[:25] + faiss_bytes() + b"\0" * 24 + (2).to_bytes(8, "little") + b"\0" * 16,
            "is damaged: 2 ids for 3 codes",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        HammingIndex.build(tmp_path / "index", tmp_path / name)
    assert not (tmp_path / "index").exists()


def test_other_refusals(tmp_path):
    index = HammingIndex(8)
    with pytest.raises(ValueError, match=r"the suffix must be one of \.npy, \.u8bin, .*, got '\.csv' of"):
        index.export(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"ids are written as \.npy, got"):
        index.export(tmp_path / "a.npy", tmp_path / "ids.txt")
    with pytest.raises(FileNotFoundError):
        index.export(tmp_path / "absent" / "a.npy")
    with pytest.raises(FileNotFoundError):
        HammingIndex.build(tmp_path / "index", tmp_path / "absent.npy")
    (tmp_path / "a.raw").write_bytes(b"\0" * 9)
    with pytest.raises(ValueError, match=r"has 9 bytes, no multiple of 2 \(16 bits\)"):
        HammingIndex.build(tmp_path / "index", tmp_path / "a.raw", format="raw", bits=16)
    np.savez(tmp_path / "a", a=CODES)
    (tmp_path / "a.npz").rename(tmp_path / "b.npy")
    assert len(HammingIndex.build(tmp_path / "b", tmp_path / "b.npy")) == 1000  # the content decides
    index.export(tmp_path / "empty.faiss")
    assert len(HammingIndex.build(tmp_path / "empty", tmp_path / "empty.faiss")) == 0
