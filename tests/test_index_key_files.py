"""Keys in files: the format as docs/index-format.md has it, damage, building from columns and files, exporting."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import xxhash
from index_folders import content, files, make_folder, make_keyed_folder, random_codes, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.exchange import build as building
from fasthash.index.exchange import key_sources
from fasthash.index.store import key_file, manifest

CODES = random_codes(100)
NAMES = [f"photo {number}, ü.jpg"[: 7 + number % 20] + f"/{number}" for number in range(100)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_keyed_folder(tmp_path / "index")


# The format


def lookup(tensors: dict[str, np.ndarray], key: str) -> int:
    """The row of a key, by the words of docs/index-format.md; -1 where it is none."""
    number = xxhash.xxh3_64_intdigest(key.encode())
    at = np.searchsorted(tensors["hashes"], number - (number >> 63 << 64))
    while at < len(tensors["hashes"]) and int(tensors["hashes"][at]) % 2**64 == number:
        row = int(tensors["rows"][at])
        start, stop = tensors["offsets"][row : row + 2]
        if tensors["text"][start:stop].tobytes() == key.encode():
            return row
        at += 1
    return -1


def test_another_program_can_read_the_keys(folder: Path) -> None:
    index, seen = HammingIndex.open(folder), 0
    document = read_manifest(folder)
    assert (document["version"], document["features"]) == (2, ["keys"])
    for segment in document["segments"]:
        data = (folder / segment["keys"]).read_bytes()
        assert segment["keys_xxh3_128"] == xxhash.xxh3_128_hexdigest(data)
        assert re.fullmatch(r"keys-\d{8}-[0-9a-f]{16}\.safetensors", segment["keys"])
        header = json.loads(data[8:4096])["__metadata__"]
        assert header == {"format": "fasthash-index-keys", "version": "1", "segment": segment["xxh3_128"]}
        tensors = safetensors.numpy.load_file(folder / segment["keys"])
        ids = safetensors.numpy.load_file(folder / segment["file"]).get(
            "ids", np.arange(segment["rows"]) + segment["first_id"]
        )
        deleted = safetensors.numpy.load_file(folder / segment["tombstones"])["deleted"]
        live = np.unpackbits(deleted, count=segment["rows"]) == 0
        offsets, text = tensors["offsets"], tensors["text"].tobytes()
        for row in np.flatnonzero(live):
            key = text[offsets[row] : offsets[row + 1]].decode()
            assert index.keys_of([ids[row]]).tolist() == [key]
            assert lookup(tensors, key) == row
            seen += 1
        assert lookup(tensors, "nobody") == -1
    assert seen == len(index)


def write_keys(path: Path, number: int, names: list[str], **changes: Any) -> None:
    """Gives a segment other keys, as another program would."""
    document = read_manifest(path)
    data = [name.encode() for name in names]
    hashes = np.array([xxhash.xxh3_64_intdigest(key) for key in data], np.uint64).view(np.int64)
    order = np.argsort(hashes, kind="stable")
    tensors = {
        "offsets": np.cumsum([0, *map(len, data)]),
        "hashes": hashes[order],
        "rows": order.astype(np.uint32),
        "text": np.frombuffer(b"".join(data), np.uint8),
    } | changes
    tensors = {name: value for name, value in tensors.items() if value is not None}
    name = f"keys-{number}.safetensors"
    safetensors.numpy.save_file(tensors, path / name)
    checksum = xxhash.xxh3_128_hexdigest((path / name).read_bytes())
    document["segments"][number] |= {"keys": name, "keys_xxh3_128": checksum}
    write_manifest(path, {**document, "version": 2, "features": ["keys"]})


@pytest.mark.parametrize("mmap", [True, False])
def test_another_program_can_write_keys(tmp_path: Path, mmap: bool) -> None:
    path = make_folder(tmp_path / "index")
    first, second = [f"a{n}" for n in range(50)], [f"longer {n}" for n in range(30)]
    write_keys(path, 1, second)
    with pytest.raises(IndexFolderError, match="segment 0: keys: must be the plain name of a file"):
        HammingIndex.open(path, mmap)
    write_keys(path, 0, first)
    index = HammingIndex.open(path, mmap)
    index.verify()
    assert index.ids_of(["a0", "a3", "a4", "longer 1", "longer 0"]).tolist() == [0, -1, 4, 1010, -1]
    with HammingIndex.open(path, mmap, writable=True) as writer:
        writer.compact()
        writer.add(CODES[:1], keys=["a3"])
        writer.verify()


def test_an_index_without_keys_is_written_as_before(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "index")
    document = read_manifest(path)
    assert document["version"] == 1
    assert "features" not in document
    assert not files(path, "keys")
    assert all("keys" not in segment for segment in document["segments"])


def test_keys_go_with_weights_and_tables(tmp_path: Path) -> None:
    codes, names = random_codes(2000), [f"{number}" for number in range(2000)]
    index = HammingIndex(64, bit_weights=[(40, 3), (24, 1)])
    index.add(codes, keys=names)
    index.save(tmp_path / "index")
    assert read_manifest(tmp_path / "index")["features"] == ["bit_weights", "keys"]
    with HammingIndex.open(tmp_path / "index", writable=True) as writer:
        writer.build_mih()
        found = writer.search(codes[:5], 2)
        assert found.keys[:, 0].tolist() == names[:5]
        writer.remove(keys=names[:2])
        writer.compact()
        assert writer.search(codes[2:5], 1).keys[:, 0].tolist() == names[2:5]
        writer.verify()
    for method in ("scan", "mih", "auto"):
        assert HammingIndex.open(tmp_path / "index", method=method).search(codes[9:10], 1).keys.tolist() == [["9"]]
    assert read_manifest(tmp_path / "index")["features"] == ["bit_weights", "keys"]


def test_a_reader_that_does_not_know_keys_refuses_them_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"bit_weights"}))
    with pytest.raises(IndexFolderError, match="needs feature 'keys', which this fasthash does not know; open it with"):
        HammingIndex.open(folder)


def test_without_the_feature_the_key_keys_is_one_that_is_not_known(folder: Path) -> None:
    document = {**read_manifest(folder), "version": 1}
    del document["features"]
    write_manifest(folder, document)
    assert not HammingIndex.open(folder).keyed
    write_manifest(folder, document, sign=False)
    with pytest.raises(IndexFolderError, match="unknown key 'keys' and no checksum that confirms it"):
        HammingIndex.open(folder)
    write_manifest(folder, {**document, "version": 2, "features": ["keys"]}, sign=False)
    assert HammingIndex.open(folder).keyed


def test_a_reader_follows_when_a_folder_gets_its_first_keys(tmp_path: Path) -> None:
    HammingIndex(64).save(tmp_path / "index")
    reader = HammingIndex.open(tmp_path / "index")
    with HammingIndex.open(tmp_path / "index", writable=True) as writer:
        writer.add(CODES, keys=NAMES)
    assert not reader.keyed
    assert reader.refresh()
    assert reader.search(CODES[:1], 1).keys.tolist() == [[NAMES[0]]]
    HammingIndex(64).save(tmp_path / "index", overwrite=True)
    assert read_manifest(tmp_path / "index")["version"] == 1
    assert reader.refresh()
    assert not reader.keyed


# Folders that an earlier fasthash wrote (tests/data/index-v2-keys). No test writes to them.
#   keys          64 bits, three segments, two with tombstones; ids that are a range and others; odd keys
#   keys-weights  13 bits in two groups, tombstones
#   emptied       64 bits, had keys and has no codes any more
V2 = Path(__file__).parent / "data" / "index-v2-keys"
WRITTEN = json.loads((V2 / "expected.json").read_text(encoding="utf-8"))


def held(index: HammingIndex) -> dict[str, Any]:
    return {
        "bits": index.bits,
        "bit_weights": [list(pair) for pair in index.bit_weights or ()],
        "next_id": index._contents.next_id,
        "ids": index.ids.tolist(),
        "codes": [bytes(code).hex() for code in index.get(index.ids)],
        "keys": index.keys_of(index.ids).tolist(),
    }


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", WRITTEN)
def test_folders_of_before_open(name: str, mmap: bool, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in (V2 / name).iterdir()}
    index = HammingIndex.open(V2 / name, mmap)
    index.verify()
    expected = WRITTEN[name]
    assert index.keyed
    assert held(index) == expected
    assert index.ids_of(expected["keys"]).tolist() == expected["ids"]
    assert {file.name: file.read_bytes() for file in (V2 / name).iterdir()} == before
    assert manifest.current_manifest(V2 / name).to_bytes() == before["manifest.json"]
    copy = Path(shutil.copytree(V2 / name, tmp_path / "copy"))
    with HammingIndex.open(copy, mmap, writable=True) as writer:
        writer.add(np.zeros((1, -(-index.bits // 8)), np.uint8), keys=["added"])
        writer.compact()
        writer.verify()
        assert writer.keys_of(writer.ids).tolist() == [*expected["keys"], "added"]
        writer.remove(keys=["added"])
        assert held(writer) == {**expected, "next_id": expected["next_id"] + 1}


# Damage that opening, or else verify, finds


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.arange(50)}, "must hold .*, got "),
        ({"hashes": np.zeros(50, np.uint8)}, "must hold .*, got "),
        ({"rows": np.arange(50)}, "must hold .*, got "),
        ({"rows": None}, "must hold .*, got "),
        ({"text": None}, "must hold .*, got "),
        ({"text": np.zeros((10, 2), np.uint8)}, "must hold .*, got "),
        ({"more": np.zeros(1, np.uint8)}, "must hold .*, got "),
        ({"text": np.full(7, 97, np.uint8)}, "damaged: offsets from 0 to 90 are not those of 7 bytes of text"),
        ({"offsets": np.arange(51) + 40}, "damaged: offsets from 40 to 90 are not those of 140 bytes of text"),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_key_files_that_are_refused(folder: Path, changes: dict[str, Any], message: str, mmap: bool) -> None:
    names = [f"{n}" for n in range(50)]
    write_keys(folder, 0, names)
    HammingIndex.open(folder, mmap).verify()
    if "are not those of 140" in message:
        changes = {**changes, "text": np.full(140, 97, np.uint8)}
    write_keys(folder, 0, names, **changes)
    with pytest.raises(IndexFolderError, match=rf"keys-0\.safetensors: {message}"):
        HammingIndex.open(folder, mmap)


def swapped(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[[3, 4]] = array[[4, 3]]
    return array


def test_verify_finds_what_opening_does_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "BLOCK_BYTES", 100)
    names = [f"k{n:03d}" for n in range(50)]
    write_keys(folder, 0, names)
    tensors = safetensors.numpy.load_file(folder / "keys-0.safetensors")
    offsets, text = tensors["offsets"], tensors["text"]
    short, empty, latin = offsets.copy(), offsets.copy(), text.copy()
    short[7], empty[20], latin[4 * 30] = short[6] - 1, empty[21], 0xFC
    split = text.copy()
    split[4 * 10 - 1 : 4 * 10 + 1] = list("ü".encode())  # a character of two keys
    for changes, message in (
        ({"offsets": short}, "damaged: its offsets are not ascending inside the text"),
        ({"offsets": empty}, "damaged: its offsets are not ascending inside the text"),
        ({"hashes": swapped(tensors["hashes"])}, "damaged: its hashes are not ascending"),
        ({"rows": swapped(tensors["rows"])}, "damaged: a hash is not that of its key"),
        ({"rows": np.zeros(50, np.uint32)}, "damaged: its rows are not 0 to 49, each once"),
        ({"rows": tensors["rows"] + np.uint32(1)}, "damaged: its rows are not 0 to 49, each once"),
        ({"hashes": tensors["hashes"] // 2}, "damaged: a hash is not that of its key"),
        ({"text": latin}, "the key of row 30 is not UTF-8"),
        ({"text": split}, "the key of row (9|10) is not UTF-8"),
    ):
        write_keys(folder, 0, names, **changes)
        index = HammingIndex.open(folder)
        with pytest.raises(IndexFolderError, match=rf"keys-0\.safetensors: {message}"):
            index.verify()
    write_keys(folder, 0, [*names[:49], names[7]])
    with pytest.raises(IndexFolderError, match="damaged: a key is there twice, 'k007'"):
        HammingIndex.open(folder).verify()
    write_keys(folder, 0, names)
    write_keys(folder, 1, [f"other {n}" for n in range(29)] + [names[3]])  # row 3 of the other segment is deleted
    HammingIndex.open(folder).verify()
    write_keys(folder, 1, [f"other {n}" for n in range(28)] + [names[4], "x"])
    with pytest.raises(IndexFolderError, match="damaged: a key is in two segments, 'k004'"):
        HammingIndex.open(folder).verify()


def test_keys_of_another_segment_are_refused(folder: Path) -> None:
    document = read_manifest(folder)
    first, second = document["segments"]
    for name in ("keys", "keys_xxh3_128"):
        first[name], second[name] = second[name], first[name]
    write_manifest(folder, document)
    with pytest.raises(IndexFolderError, match=r"segment of the file is '[0-9a-f]{32}', the manifest needs"):
        HammingIndex.open(folder)
    first["keys"] = second["keys"]
    write_manifest(folder, document)
    with pytest.raises(IndexFolderError, match="the same file is named twice"):
        HammingIndex.open(folder)


# Building


def table(tmp_path: Path, kind: str, names: Any, **more: Any) -> Path:
    arrow = pytest.importorskip("pyarrow")
    codes = arrow.array([code.tobytes() for code in CODES], arrow.binary(8))
    made = arrow.table({"code": codes, "name": names, **more})
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(made, path, row_group_size=30)
    else:
        with pytest.importorskip("pyarrow.ipc").new_file(str(path), made.schema) as writer:
            writer.write_table(made, max_chunksize=30)
    return path


def built(tmp_path: Path, source: Any, **options: Any) -> HammingIndex:
    index = HammingIndex.build(tmp_path / "index", source, overwrite=True, progress=False, **options)
    index.verify()
    return index


def check(index: HammingIndex, names: list[str] = NAMES, codes: Any = CODES, ids: Any = None) -> None:
    assert index.ids_of(names).tolist() == (np.arange(len(names)) if ids is None else ids).tolist()
    np.testing.assert_array_equal(index.get(keys=names), codes)
    assert len(index) == len(names)


@pytest.fixture(params=[7, 1 << 14])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Keys of a block, and few bytes of a run where they are few."""
    monkeypatch.setattr(key_sources, "_ROWS", request.param)
    monkeypatch.setattr(building, "_KEYED_ROWS", request.param)
    if request.param == 7:
        monkeypatch.setattr(key_sources, "_LINES_BYTES", 100)
        monkeypatch.setattr(building, "_RUN_BYTES", 1500)
    return request.param


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("form", ["string", "large_string", "string_view", "dictionary", "sliced"])
def test_building_from_a_column(tmp_path: Path, kind: str, form: str, rows: int) -> None:
    arrow = pytest.importorskip("pyarrow")
    if form == "string_view" and kind == "parquet":
        pytest.skip("pyarrow writes views as what they are views of")
    names = arrow.array(NAMES)
    if form == "dictionary":
        names = names.dictionary_encode()
    elif form == "sliced":
        names = arrow.array(["x", *NAMES])[1:]
    else:
        names = names.cast(getattr(arrow, form)())
    source = table(tmp_path, kind, names)
    index = built(tmp_path, source, key_column="name")
    check(index)
    segments = read_manifest(tmp_path / "index")["segments"]
    assert all(segment["ids"] == "implicit" for segment in segments)
    assert len(segments) > 2 if rows == 7 else len(segments) == 1
    with HammingIndex.open(tmp_path / "index", writable=True) as writer:
        writer.compact()
    check(HammingIndex.open(tmp_path / "index"))
    ids = np.random.default_rng(0).permutation(1000)[:100]
    check(built(tmp_path, table(tmp_path, kind, names, id=ids), key_column="name"), ids=ids)


def test_building_from_arrays_iterators_and_blocks(tmp_path: Path, rows: int) -> None:
    pandas = pytest.importorskip("pandas")
    ids = np.random.default_rng(0).permutation(1000)[:100]
    for names in (NAMES, tuple(NAMES), np.array(NAMES), iter(NAMES), (name for name in NAMES), pandas.Series(NAMES)):
        check(built(tmp_path, CODES, keys=names))
    check(built(tmp_path, CODES, keys=NAMES, ids=ids), ids=ids)
    check(built(tmp_path, iter([CODES[:33], CODES[33:33], CODES[33:]]), keys=NAMES))
    spans = [slice(0, 33), slice(33, 33), slice(33, 100)]
    check(built(tmp_path, ((CODES[span], None, NAMES[span]) for span in spans)))
    check(built(tmp_path, ((CODES[span], ids[span], NAMES[span]) for span in spans)), ids=ids)
    check(built(tmp_path, CODES, keys=NAMES, mih=True))
    assert built(tmp_path, CODES[:0], keys=[]).keyed
    assert built(tmp_path, iter([CODES[:0]]), keys=[], bits=64).keyed


def test_building_with_a_file_of_keys(tmp_path: Path, rows: int) -> None:
    arrow = pytest.importorskip("pyarrow")
    odd = [*NAMES[:94], " a, b", "<html>", '"quoted"', "{", "#", "a\rb"]
    for data in (
        "\n".join(odd).encode(),
        "".join(f"{name}\r\n" for name in odd).encode(),
        b"\xef\xbb\xbf" + "".join(f"{name}\n" for name in odd).encode(),
        "\n".join(odd).encode("utf-16"),
    ):
        (tmp_path / "keys.txt").write_bytes(data)
        check(built(tmp_path, CODES, keys=tmp_path / "keys.txt"), odd)
        check(built(tmp_path, CODES, keys=str(tmp_path / "keys.txt")), odd)
    text = "".join(f'"{name}",{number}\n' for number, name in enumerate(NAMES))
    (tmp_path / "keys.csv").write_text(f"key,score\n{text}")
    check(built(tmp_path, CODES, keys=tmp_path / "keys.csv"))
    (tmp_path / "keys.csv").write_text(f"photo,score\n{text}")
    check(built(tmp_path, CODES, keys=tmp_path / "keys.csv", key_column="photo"))
    (tmp_path / "one.csv").write_text("photo\n" + "".join(f"{number}.jpg\n" for number in range(100)))
    check(built(tmp_path, CODES, keys=tmp_path / "one.csv"), [f"{number}.jpg" for number in range(100)])
    pytest.importorskip("pyarrow.parquet").write_table(arrow.table({"photo": NAMES}), tmp_path / "keys.parquet")
    check(built(tmp_path, CODES, keys=tmp_path / "keys.parquet"))
    (tmp_path / "codes.csv").write_text(
        "hash,name\n" + "".join(f'{code.tobytes().hex()},"{name}"\n' for code, name in zip(CODES, NAMES, strict=True))
    )
    check(built(tmp_path, tmp_path / "codes.csv", key_column="name"))


def refused(tmp_path: Path, source: Any, message: str, kind: type = ValueError, **options: Any) -> None:
    path = tmp_path / "kept"
    if not path.exists():
        make_keyed_folder(path)
    before, names = content(HammingIndex.open(path)), files(path)
    with pytest.raises(kind, match=message):
        HammingIndex.build(path, source, overwrite=True, progress=False, **options)
    assert content(HammingIndex.open(path)) == before
    assert files(path) == names


def test_what_build_refuses(tmp_path: Path, rows: int) -> None:
    arrow = pytest.importorskip("pyarrow")
    start = "HammingIndex.build: "
    refused(tmp_path, CODES, start + "100 codes need 100 keys, got 99", keys=NAMES[:99])
    refused(tmp_path, CODES, start + "100 codes need 100 keys, got 10[1-9] or more", keys=[*NAMES, *"abc"])
    refused(tmp_path, iter([CODES]), start + "more than 99 codes need more than 99 keys, got 99", keys=NAMES[:99])
    refused(
        tmp_path, CODES, start + "keys must be distinct, got 'photo .*' more than once", keys=[*NAMES[:99], NAMES[3]]
    )
    refused(tmp_path, CODES, start + "a key must have 1 to .*, got 0 in key 71", keys=[*NAMES[:71], "", *NAMES[72:]])
    refused(tmp_path, CODES, start + "keys must be texts .*, got int in key 99", TypeError, keys=[*NAMES[:99], 5])
    refused(tmp_path, CODES, start + "ids must be distinct, got 7 more", keys=NAMES, ids=[*range(99), 7])
    refused(tmp_path, CODES, start + "key_column is for files, must be None for ndarray", key_column="name")
    blocks = [(CODES[:50], None, NAMES[:50]), CODES[50:]]
    refused(tmp_path, iter(blocks), start + "either all blocks have keys or none has, got both")
    refused(tmp_path, iter(blocks[:1]), start + "the source has keys already; keys must be None", keys=NAMES)
    refused(tmp_path, iter([(CODES, None, NAMES[:9])]), start + "a block of 100 codes needs 100 keys, got 9")
    np.save(tmp_path / "codes.npy", CODES)
    refused(tmp_path, tmp_path / "codes.npy", "is a .npy file, which has no columns .*key_column=", key_column="name")
    source = table(tmp_path, "parquet", NAMES, number=np.arange(100), key=[*NAMES[:50], None, *NAMES[51:]])
    refused(tmp_path, source, r"has no column 'nam' \(key_column=\).*did you mean 'name'", key_column="nam")
    refused(tmp_path, source, "column 'number' is of type int64, keys must be text", key_column="number")
    refused(tmp_path, source, "column 'key' has a null in row 50", key_column="key")
    refused(tmp_path, source, "column 'code' is of type .*binary.*, keys must be text", key_column="code")
    refused(tmp_path, source, "key_column must be None if keys", keys=NAMES, key_column="name")
    source = table(tmp_path, "parquet", [code.tobytes().hex() for code in CODES])
    check(built(tmp_path, source, key_column="name"), [code.tobytes().hex() for code in CODES])  # not taken for codes
    refused(tmp_path, source, "column 'name' cannot be both the keys and the codes", key_column="name", column="name")
    bad = arrow.Array.from_buffers(
        arrow.string(), 100, [None, arrow.py_buffer(np.arange(101, dtype=np.int32)), arrow.py_buffer(b"\xff" * 100)]
    )
    refused(
        tmp_path,
        table(tmp_path, "arrow", bad),
        "column 'name': a key must be UTF-8, got b'.xff' in row 0",
        key_column="name",
    )
    empty = table(tmp_path, "arrow", [*NAMES[:99], ""])
    refused(tmp_path, empty, "column 'name': a key must have 1 to .*, got 0 in row 99", key_column="name")
    for data, message in (
        (b"a\n\nb\n", "keys.txt: a key must have 1 to .*, got 0 in line 2"),
        (b"a\n\xff\n", "keys.txt is not UTF-8 text after line 0"),
        (b"a\nb\n", "100 codes need 100 keys, got 2"),
        (b"", "100 codes need 100 keys, got 0"),
        (b"\x93NUMPY\x01\0v\0", "is a .npy file, keys are read from text, CSV, Parquet and Arrow files"),
    ):
        (tmp_path / "keys.txt").write_bytes(data)
        refused(tmp_path, CODES, message, keys=tmp_path / "keys.txt")
    refused(tmp_path, CODES, "no such file|No such file", FileNotFoundError, keys=tmp_path / "absent.txt")
    (tmp_path / "keys.txt").write_bytes(b"a\nb\n")
    refused(tmp_path, CODES, "and has no columns; omit key_column=", keys=tmp_path / "keys.txt", key_column="a")
    (tmp_path / "keys.csv").write_text("a,b\nc,d\n")
    refused(tmp_path, CODES, "has no column 'key'; its columns are 'a', 'b'; name one", keys=tmp_path / "keys.csv")


# Exporting


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "feather"])
@pytest.mark.parametrize("block", [1, 1 << 24])
def test_export_carries_keys(
    folder: Path, tmp_path: Path, suffix: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("fasthash.index.segments.BLOCK_BYTES", block * 500)
    monkeypatch.setattr("fasthash.index.merge.BLOCK_BYTES", block * 40)
    index = HammingIndex.open(folder)
    out = tmp_path / f"codes.{suffix}"
    index.export(out)
    frame = pandas.read_parquet(out) if suffix == "parquet" else pandas.read_feather(out)
    assert list(frame.columns) == ["id", "key", "code"]
    assert frame["key"].tolist() == index.keys_of(index.ids).tolist()
    assert frame["id"].tolist() == index.ids.tolist()
    again = built(tmp_path / "again", out, key_column="key")
    assert content(again)[1:3] == content(index)[1:3]
    assert content(again)[-1] == content(index)[-1]
    empty = HammingIndex(64)
    empty.add(CODES[:1], keys=["a"])
    empty.remove([0])
    empty.export(out)
    frame = pandas.read_parquet(out) if suffix == "parquet" else pandas.read_feather(out)
    assert list(frame.columns) == ["id", "key", "code"]
    assert len(frame) == 0


@pytest.mark.parametrize("suffix", ["npy", "u8bin", "faiss", "ibxf"])
def test_what_cannot_hold_keys_says_so(folder: Path, tmp_path: Path, suffix: str) -> None:
    index = HammingIndex.open(folder)
    with pytest.warns(UserWarning, match=rf"export: \.{suffix} files cannot hold keys, .* has none; .parquet, .arrow"):
        index.export(tmp_path / f"codes.{suffix}", ids=tmp_path / "ids.npy")
    assert np.load(tmp_path / "ids.npy").tolist() == index.ids.tolist()


def test_export_without_keys_is_as_before(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    index = HammingIndex(64)
    index.add(CODES)
    index.export(tmp_path / "codes.parquet")
    index.export(tmp_path / "codes.npy")
    assert parquet.read_schema(tmp_path / "codes.parquet").names == ["id", "code"]
