"""Folders of an EmbeddingIndex: reopened, built, read beside a writer, damaged."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_cases import ENCODERS, REFINES, F, Q, X, content, rows, saved
from index_folders import files, read_manifest, write_manifest

from fasthash import EmbeddingIndex, HammingIndex, IndexFolderError
from fasthash.baselines import itq
from fasthash.index import merge
from fasthash.index.exchange import build
from fasthash.index.store import manifest


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("refine", REFINES)
def test_reopened(encoder: str, refine: str | None, tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", encoder=ENCODERS[encoder], refine=refine)
    index = EmbeddingIndex(ENCODERS[encoder], refine=refine)
    index.add(X[:120], keys=[f"row {number}" for number in range(120)])
    index.add(X[120:], keys=[f"row {number}" for number in range(120, 200)], ids=np.arange(80)[::-1] * 3 + 1000)
    index.remove(keys=["row 3", "row 150"])
    for mmap in (True, False):
        opened = EmbeddingIndex.open(folder, mmap=mmap)
        opened.verify()
        assert content(opened) == content(index)
        for own, other in zip(opened.search(Q, 9), index.search(Q, 9), strict=True):
            np.testing.assert_array_equal(own, other)
    needed = ["embedding", *["vectors"][: refine is not None], "keys"]
    assert read_manifest(folder)["features"] == needed
    with EmbeddingIndex.open(folder, writable=True) as writer:
        before = content(writer)
        writer.compact()
        assert content(writer) == before
        writer.verify()
        writer.save(folder, overwrite=True)
    opened = EmbeddingIndex.open(folder)
    assert len(opened.codes._contents.segments) == 1
    opened.save(tmp_path / "copy")
    assert content(EmbeddingIndex.open(tmp_path / "copy")) == before
    unit = EmbeddingIndex("rabitq")
    unit.add(X)
    unit.save(folder, overwrite=True)
    again = EmbeddingIndex.open(folder)
    np.testing.assert_array_equal(again.search(Q * 3, 5).ids, unit.search(Q, 5).ids)
    assert again.refine is None


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_built_codes_have_the_scales_of_added_ones(metric: str, tmp_path: Path) -> None:
    built = EmbeddingIndex.build(tmp_path / "index", X, "rabitq", metric=metric, progress=False)
    added = EmbeddingIndex("rabitq", metric=metric)
    added.add(X)
    assert read_manifest(tmp_path / "index")["features"] == ["embedding", "code_scale"]
    for own, other in zip(built.search(Q, 9), added.search(Q, 9), strict=True):
        np.testing.assert_array_equal(own, other)
    with EmbeddingIndex.open(tmp_path / "index", writable=True) as writer:
        writer.add(X[:5] + 1)
        writer.remove([0, 7])
        writer.compact()
    assert len(EmbeddingIndex.open(tmp_path / "index")) == len(X) + 3


def test_many_adds_merge(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    EmbeddingIndex(ENCODERS["itq"], refine="int8").save(folder)
    whole = EmbeddingIndex(ENCODERS["itq"], refine="int8")
    with EmbeddingIndex.open(folder, writable=True) as index:
        for start in range(0, 200, 10):
            names = [f"{number}" for number in range(start, start + 10)]
            index.add(X[start : start + 10], names)
            whole.add(X[start : start + 10], names)
            index.remove([start])
            whole.remove([start])
        assert len(index.codes._contents.segments) < merge.MERGE_FAN * 2
        assert content(index) == content(whole)
        index.verify()


def test_the_codes_alone_are_a_hamming_index(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    codes = HammingIndex.open(folder)
    codes.verify()
    assert codes.search(ENCODERS["itq"].encode(X[:1]), 1).keys.tolist() == [["row 0"]]
    codes.save(tmp_path / "codes")
    assert read_manifest(tmp_path / "codes")["features"] == ["keys"]
    with pytest.raises(IndexFolderError, match="an index of codes without an encoder; open it as a HammingIndex"):
        EmbeddingIndex.open(tmp_path / "codes")
    with HammingIndex.open(folder, writable=True) as writer:
        before = files(folder)
        with pytest.raises(ValueError, match="the index stores rows beside its codes; add to it with EmbeddingIndex"):
            writer.add(codes.get([0]), keys=["new"])
        assert files(folder) == before
        writer.remove([0])
        writer.build_mih()
        writer.compact()
    EmbeddingIndex.open(folder).verify()
    EmbeddingIndex(ENCODERS["itq"], refine="int8").save(tmp_path / "empty")
    with (
        HammingIndex.open(tmp_path / "empty", writable=True) as writer,
        pytest.raises(ValueError, match="the index stores rows beside its codes"),
    ):
        writer.add(codes.get([1]))
    with pytest.raises(ValueError, match=r"^EmbeddingIndex.add: the index was opened read-only"):
        EmbeddingIndex.open(folder).add(X[0], ["new"])


@pytest.mark.parametrize("refine", REFINES)
def test_build(refine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_RUN_BYTES", 4000)  # several segments
    for module in ("embedding_index", "encoders", "sources"):
        monkeypatch.setattr(f"fasthash.embeddings.{module}.ROWS", 64)
    monkeypatch.setattr(build, "_KEYED_ROWS", 50)
    names = [f"key {number}" for number in range(200)]
    np.save(tmp_path / "X.npy", X)
    options: dict[str, Any] = {"refine": refine, "progress": False}
    whole = EmbeddingIndex("osq", refine=refine, bits=2 * F)
    whole.add(X, names)
    sources = {
        "array": X,
        "file": tmp_path / "X.npy",
        "mapped": np.load(tmp_path / "X.npy", mmap_mode="r"),
        "blocks": (X[start : start + 30] for start in range(0, 200, 30)),
    }
    for name, source in sources.items():
        index = EmbeddingIndex.build(tmp_path / name, source, "osq", bits=2 * F, keys=names, **options)
        index.verify()
        assert content(index) == content(whole), name
        assert refine is None or len(index.codes._contents.segments) > 1
    pairs = ((X[start : start + 30], np.arange(start, min(start + 30, 200)) * 2) for start in range(0, 200, 30))
    index = EmbeddingIndex.build(tmp_path / "ids", pairs, ENCODERS["itq"], **options)
    assert index.ids.tolist() == list(range(0, 400, 2))
    assert index.keyed is False
    triples = ((X[at : at + 30], None, names[at : at + 30]) for at in range(0, 200, 30))
    assert content(EmbeddingIndex.build(tmp_path / "triples", triples, "osq", bits=2 * F, **options)) == content(whole)


def test_build_from_tables(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    feather, parquet = pytest.importorskip("pyarrow.feather"), pytest.importorskip("pyarrow.parquet")
    names = [f"key {number}" for number in range(200)]
    table = arrow.table({"id": np.arange(200) + 5, "vector": list(X), "name": names})
    parquet.write_table(table, tmp_path / "X.parquet", row_group_size=33)
    feather.write_feather(table, str(tmp_path / "X.arrow"), compression="uncompressed")
    for suffix in ("parquet", "arrow"):
        source = tmp_path / f"X.{suffix}"
        index = EmbeddingIndex.build(
            tmp_path / suffix, source, "itq", refine="float32", key_column="name", progress=False
        )
        assert index.ids.tolist() == list(range(5, 205))
        found = index.search(X[:9], 1)
        assert found.keys[:, 0].tolist() == names[:9]
        assert (found.scores > 0.9999).all()
    for options, message in (
        ({"column": "none"}, "has no column 'none'"),
        ({"column": "name"}, "column 'name' is of type string"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingIndex.build(tmp_path / "x", source, "itq", progress=False, **options)


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    bad = X.copy()
    bad[150] = np.inf
    for source, options, message in (
        (bad, {}, "EmbeddingIndex.build: X must be finite in float32, got NaN or infinity in row 150"),
        (X, {"keys": ["a"] * 200}, "keys must be distinct, got 'a' more than once"),
        (X, {"keys": ["a"]}, "200 codes need 200 keys, got 1"),
        (X, {"ids": [1, 2]}, "EmbeddingIndex.build: 200 codes need 200 ids, got 2"),
        (X[:, :4], {}, f"the encoder takes {F} features, the source has 4"),
        (iter([]), {}, "source must have at least one block, got none"),
    ):
        with pytest.raises(ValueError, match=message):
            EmbeddingIndex.build(
                folder, source, ENCODERS["itq"], overwrite=True, refine="int8", progress=False, **options
            )
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with pytest.raises(IndexFolderError, match="already holds an index"):
        EmbeddingIndex.build(folder, X, "itq", progress=False)


def test_a_reader_beside_a_writer(tmp_path: Path) -> None:
    """Each search sees a state that was complete: rows and keys of one change, scored by their own stored rows."""
    folder = tmp_path / "index"
    EmbeddingIndex(ENCODERS["itq"], refine="float32").save(folder)
    writer = EmbeddingIndex.open(folder, writable=True)
    writer.add(X, keys=[f"0 {number}" for number in range(200)])
    reader, faults, done = EmbeddingIndex.open(folder), list[str](), threading.Event()

    def read() -> None:
        while not done.is_set():
            reader.refresh()
            found = reader.search(X[:20], 1, oversample=5)
            rounds = {key.split()[0] for key in found.keys[:, 0].tolist() if key is not None}
            if len(rounds) != 1 or not (found.scores > 0.9999).all():
                faults.append(f"{found.keys.tolist()} {found.scores.tolist()}")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(1, 8):  # the same ids get other keys; the rows of ids 0 .. 199 stay theirs
        writer.add(X, keys=[f"{turn} {number}" for number in range(200)], ids=np.arange(200), replace=True)
    done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert reader.refresh() in (True, False)
    assert reader.search(X[0], 1).keys.tolist() == [["7 0"]]
    writer.close()


def test_refresh_refuses_another_encoder(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    reader = EmbeddingIndex.open(folder)
    before = content(reader)
    other = EmbeddingIndex(itq(rows(100, seed=5), 12), refine="float32")
    other.add(X)
    other.save(folder, overwrite=True)
    for _ in range(2):
        with pytest.raises(IndexFolderError, match="its codes are now those of another encoder; open it again"):
            reader.refresh()
    assert content(reader) == before


# Damage


def test_a_wrong_encoder_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    (encoder,) = files(folder, "encoder")
    whole = encoder.read_bytes()
    itq(rows(100, seed=5), 12).save(encoder)
    message = f"{re.escape(str(encoder))}: not the encoder of this index, or damaged: its checksum is"
    with pytest.raises(IndexFolderError, match=message):
        EmbeddingIndex.open(folder)
    with pytest.raises(IndexFolderError, match=message):
        HammingIndex.open(folder).verify()
    document = read_manifest(folder)
    for other, message in (
        (itq(X, 8), "not the encoder of this index: its bits are 8, the index has 12"),
        (itq(X[:, :14], 12), "not the encoder of this index: its features are 14, the index has 16"),
        (None, "its encoder is not a file of Hasher, LinearCodes or GridCodes"),
    ):
        encoder.write_bytes(b"nothing") if other is None else other.save(encoder)
        document["embedding"]["encoder_xxh3_128"] = checksum(encoder)
        write_manifest(folder, document)
        with pytest.raises(IndexFolderError, match=message):
            EmbeddingIndex.open(folder)
    encoder.write_bytes(whole.replace(b'\\"bits\\"', b'\\"bitz\\"'))
    document["embedding"]["encoder_xxh3_128"] = checksum(encoder)
    write_manifest(folder, document)
    with pytest.raises(IndexFolderError, match=r"LinearCodes.load: its encoder is damaged"):
        EmbeddingIndex.open(folder)
    encoder.unlink()
    for check in (lambda: EmbeddingIndex.open(folder), lambda: HammingIndex.open(folder).verify()):
        with pytest.raises(IndexFolderError, match=f"{re.escape(str(encoder))}: missing, but the manifest names it"):
            check()


def checksum(file: Path) -> str:
    import xxhash

    return str(xxhash.xxh3_128_hexdigest(file.read_bytes()))


@pytest.mark.parametrize("refine", REFINES[1:])
def test_damaged_vectors(refine: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "index", refine=refine)
    before = content(EmbeddingIndex.open(folder))
    for file in files(folder, "vectors"):
        whole = file.read_bytes()
        for size in (0, 7, 4095, 4096, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:size])
            with pytest.raises(IndexFolderError, match=re.escape(str(file))):
                EmbeddingIndex.open(folder)
        rng = np.random.default_rng(0)
        for place in [*range(0, 200, 3), 4096, 4100, len(whole) - 1]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << rng.integers(8)
            file.write_bytes(damaged)
            with pytest.raises(IndexFolderError, match=re.escape(str(file))):
                EmbeddingIndex.open(folder).verify()
            with pytest.raises(IndexFolderError, match=re.escape(str(file))):
                EmbeddingIndex.open(folder, mmap=False)
        file.unlink()
        with pytest.raises(IndexFolderError, match="missing, but the manifest names it"):
            EmbeddingIndex.open(folder)
        file.write_bytes(whole)
    one, other = files(folder, "vectors")
    document = read_manifest(folder)
    entries = document["segments"]
    for name in ("vectors", "vectors_xxh3_128"):
        entries[0][name], entries[1][name] = entries[1][name], entries[0][name]
    write_manifest(folder, document)
    with pytest.raises(IndexFolderError, match=r"segment of the file is|must hold"):
        EmbeddingIndex.open(folder)
    assert one != other
    for name in ("vectors", "vectors_xxh3_128"):
        entries[0][name], entries[1][name] = entries[1][name], entries[0][name]
    write_manifest(folder, document)
    assert content(EmbeddingIndex.open(folder)) == before


def change(**changes: Any) -> Any:
    return lambda document: document["embedding"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("embedding"), "embedding must be an object, got None"),
        (lambda document: document.update(embedding=[1]), r"embedding must be an object, got \[1\]"),
        (change(encoder="../secret"), "embedding: encoder: must be the plain name of a file in the folder"),
        (change(encoder_xxh3_128="0"), "encoder_xxh3_128: must be 32 hexadecimal digits"),
        (change(features=0), "embedding: features: must be an integer"),
        (change(features=F + 1), "must hold"),
        (change(metric="l1"), "embedding: metric must be one of cosine, dot, l2, got 'l1'"),
        (change(unit_rows=1), "embedding: unit_rows must be true or false, got 1"),
        (change(refine="int4"), "embedding: refine must be null or one of int8, float16, float32, got 'int4'"),
        (change(refine=None), "embedding: refine is None, but the features are"),
        (change(refine="int8"), "must hold .*int8"),
        (
            lambda document: document["features"].remove("embedding"),
            "feature 'vectors' needs feature 'embedding'|unknown key 'embedding'",
        ),
        (
            lambda document: document["features"].remove("vectors"),
            "embedding: refine is 'float32', but|unknown key 'vectors'",
        ),
        (lambda document: document["segments"][0].pop("vectors"), "segment 0: vectors: must be the plain name"),
        (
            lambda document: document["embedding"].update(encoder=document["segments"][0]["file"]),
            "the same file is named twice",
        ),
    ],
)
@pytest.mark.parametrize("sign", [True, False])
def test_manifests_that_are_refused(change: Any, message: str, sign: bool, tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    document = read_manifest(folder)
    change(document)
    write_manifest(folder, document, sign)
    with pytest.raises(IndexFolderError, match=message):
        EmbeddingIndex.open(folder)


def test_older_readers_refuse_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "index")
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"bit_weights", "keys"}))
    with pytest.raises(IndexFolderError, match="needs feature 'embedding', which this fasthash does not know"):
        HammingIndex.open(folder)


def test_stored_rows_that_no_writer_writes(tmp_path: Path) -> None:
    """NaN with a right checksum: another program's file."""
    folder = saved(tmp_path / "index")
    document = read_manifest(folder)
    file = folder / document["segments"][0]["vectors"]
    data = bytearray(file.read_bytes())
    data[4096:4100] = np.float32(np.nan).tobytes()
    file.write_bytes(data)
    document["segments"][0]["vectors_xxh3_128"] = checksum(file)
    write_manifest(folder, document)
    with pytest.raises(IndexFolderError, match=f"{re.escape(str(file))}: damaged: row 0 has NaN or infinity"):
        EmbeddingIndex.open(folder).verify()


def test_what_a_crash_left_is_deleted(tmp_path: Path) -> None:
    folder = saved(tmp_path / "index")
    before = {file.name for file in folder.iterdir()}
    for kind in ("encoder", "vectors"):
        shutil.copy(files(folder, kind)[0], folder / f"{kind}-00000099-0123456789abcdef.safetensors")
    (folder / "encoder.safetensors").write_bytes(b"a user's own")
    with EmbeddingIndex.open(folder, writable=True) as index:
        index.verify()
    assert {file.name for file in folder.iterdir()} == {*before, "encoder.safetensors"}
