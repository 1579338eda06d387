"""Index folders that are damaged or hostile: one clear error, never a crash, never wrong without a word."""

import json
import os
import pickle
import re

import numpy as np
import pytest
import safetensors.numpy
import xxhash
from index_folders import content, files, make_folder, make_keyed_folder, random_codes, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "index")


# Damage


def opened_or_refused(path, before, mmap=True):
    """Opens and verifies a damaged folder: the clear error, or (where the damage means nothing) the same content."""
    try:
        index = HammingIndex.open(path, mmap=mmap)
        index.verify()
    except IndexFolderError:
        return "refused"
    assert content(index) == before
    return "same"


@pytest.mark.parametrize("kind", ["manifest", "segment", "tombstones", "keys"])
@pytest.mark.parametrize("mmap", [True, False])
def test_truncated_files(tmp_path, kind, mmap):
    folder = (make_keyed_folder if kind == "keys" else make_folder)(tmp_path / "index")
    file = files(folder, kind)[-1]
    data = file.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, 4095, 4096, 4097, len(data) // 2, len(data) - 1} - {len(data)}:
        if size < len(data):
            file.write_bytes(data[:size])
            with pytest.raises(IndexFolderError, match=re.escape(str(file))):
                HammingIndex.open(folder, mmap=mmap)
    file.write_bytes(data + b"\0")
    assert opened_or_refused(folder, None, mmap) == "refused"
    file.unlink()
    message = "has no manifest" if kind == "manifest" else "missing, but the manifest names it"
    with pytest.raises(IndexFolderError, match=message):
        HammingIndex.open(folder, mmap=mmap)


@pytest.mark.parametrize("kind", ["manifest", "segment", "tombstones", "keys", "manifest of keys"])
def test_flipped_bits(tmp_path, kind):
    folder = (make_keyed_folder if kind.endswith("keys") else make_folder)(tmp_path / "index")
    kind = kind.split()[0]
    before = content(HammingIndex.open(folder))
    for file in files(folder, kind):
        data = file.read_bytes()
        rng = np.random.default_rng(len(data))
        places = range(len(data)) if kind == "manifest" else [*range(250), *range(4080, 4100), len(data) - 1]
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 1 << rng.integers(8)
            file.write_bytes(damaged)
            result = opened_or_refused(folder, before)
            assert result == "refused" or kind == "manifest"  # white space between the manifest's tokens may change
            if kind != "manifest" and place >= 4096:
                with pytest.raises(IndexFolderError, match="damaged: its checksum is"):
                    HammingIndex.open(folder, mmap=False)
        file.write_bytes(data)
    assert opened_or_refused(folder, before) == "same"


def entry(**changes):
    def change(manifest):
        manifest["segments"][0].update(changes)

    return change


def top(**changes):
    return lambda manifest: manifest.update(changes)


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (top(format="faiss"), "not a fasthash index: format is 'faiss'"),
        (top(version=3), "unknown version 3 of the format; this fasthash reads versions 1 and 2"),
        (top(version=0), "unknown version 0 of the format"),
        (top(version=2), "features must be a list of names, got None"),
        (top(version=2, features="keys"), "features must be a list of names, got 'keys'"),
        (top(version=2, features={"keys": 1}), "features must be a list of names, got {'keys': 1}"),
        (top(version=2, features=[1]), "a feature must be named by 1 to 64 of a-z, 0-9 and _, a letter first, got 1"),
        (top(version=2, features=[["keys"]]), r"a feature must be named by .*, got \['keys'\]"),
        (top(version=2, features=[""]), "a feature must be named by .*, got ''"),
        (top(version=2, features=["../keys"]), "a feature must be named by .*, got '../keys'"),
        (top(version=2, features=["keys\n"]), r"a feature must be named by .*, got 'keys\\n'"),
        (top(version=2, features=["x" * 65]), "a feature must be named by .*, got 'xxx"),
        (top(version=2, features=["keys", "keys"]), r"features must be distinct, got \['keys', 'keys'\]"),
        (
            top(version=2, features=["keys", "sketches"]),
            "needs feature 'sketches', which this fasthash does not know; open",
        ),
        (
            top(version=2, features=["keys"]),
            "segment 0: keys: must be the plain name of a file in the folder, got None",
        ),
        (top(version="1"), "unknown version '1'"),
        (top(version=True), "unknown version True"),
        (top(bits=0), "bits: must be an integer between 1 and 65536, got 0"),
        (top(bits=64.0), r"bits: must be an integer between 1 and 65536, got 64\.0"),
        (top(bits=60), "bits of the file is '64', the manifest needs '60'"),
        (top(bits=128, code_bytes=16), "bits of the file is '64', the manifest needs '128'"),
        (top(code_bytes=16), "code_bytes of 64 bits: must be an integer between 8 and 8, got 16"),
        (top(generation=-1), "generation: must be an integer"),
        (top(next_id=2**63 + 1), "next_id: must be an integer"),
        (top(next_id=49), "segment 0: 50 ids from 0 on do not end below next_id, 49"),
        (top(next_id=1030), "ids from 1000 to 1290 are not those of the manifest"),
        (top(segments=None), "segments must be a list, got None"),
        (top(segments=[1]), "segment 0: must be an object, got 1"),
        (entry(file="../secret"), "file: must be the plain name of a file in the folder, got '../secret'"),
        (entry(file="/etc/passwd"), "must be the plain name"),
        (entry(file=".."), "must be the plain name"),
        (entry(file="a/b"), "must be the plain name"),
        (entry(file="a\\b"), "must be the plain name"),
        (entry(file="C:x"), "must be the plain name"),
        (entry(file="a\0b"), "must be the plain name"),
        (entry(file="x" * 1000), "must be the plain name"),
        (entry(file=None), "must be the plain name"),
        (entry(file="absent"), "absent: missing, but the manifest names it"),
        (entry(file="manifest.json"), r"manifest\.json: truncated or damaged"),
        (entry(tombstones="../secret"), "tombstones: must be the plain name"),
        (entry(tombstones=None), "2 rows are deleted, but tombstones is None"),
        (entry(deleted=0), "0 rows are deleted, but tombstones is 'tomb"),
        (entry(deleted=3), "damaged: 2 rows are deleted, not 3"),
        (entry(deleted=51), "deleted: must be an integer between 0 and 50"),
        (entry(rows=0), "rows: must be an integer"),
        (entry(rows=2**60), "do not end below next_id"),
        (entry(rows=51), "the manifest says .*51, 8.* the file holds"),
        (entry(ids="both"), "ids must be 'implicit' or 'explicit', got 'both'"),
        (entry(ids="explicit"), "the manifest says .* the file holds"),
        (entry(first_id=-1), "first_id: must be an integer"),
        (entry(xxh3_128="00"), "xxh3_128: must be 32 hexadecimal digits, got '00'"),
        (entry(xxh3_128=None), "xxh3_128: must be 32"),
        (entry(tombstones_xxh3_128="0" * 32), "damaged: its checksum is"),
        (lambda m: m["segments"].append(m["segments"][0]), "the same file is named twice"),
        (lambda m: m["segments"][1].update(first_id=1001), "ids from 1000 to 1290 are not those of the manifest"),
    ],
)
def test_manifests_that_are_refused(folder, change, message, sign):
    (folder.parent / "secret").write_bytes(b"")
    manifest = read_manifest(folder)
    change(manifest)
    write_manifest(folder, manifest, sign)
    with pytest.raises(IndexFolderError, match=message):
        HammingIndex.open(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "must hold a JSON object, got list"),
        (b'{"format": "fasthash-index", "version": 1, "version": 1}', "a key is repeated"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": "fasthash-index", "version": 1, "xxh3_128": "0"}', "does not match its checksum '0'"),
        (b'{"format": "fasthash-index", "version": ' + b"9" * 5000 + b"}", "version 9|not valid JSON"),
    ],
)
def test_manifests_that_cannot_be_parsed(folder, text, message):
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(IndexFolderError, match=message):
        HammingIndex.open(folder)


def test_manifest_that_is_too_large(folder, monkeypatch):
    monkeypatch.setattr("fasthash.index.store.manifest.MANIFEST_LIMIT", 100)
    with pytest.raises(IndexFolderError, match="bytes, more than the 100 that such a file may have"):
        HammingIndex.open(folder)


def segment_bytes(header, body=b"\0" * 400, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


CODES = {"dtype": "U8", "shape": [50, 8], "data_offsets": [0, 400]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (segment_bytes({"codes": CODES}, length=2**60), "a header of 1152921504606846976 bytes in a file of"),
        (segment_bytes({"codes": CODES}, length=1), "a header of 1 bytes"),
        (segment_bytes({"codes": CODES}, body=b"\0" * 401), "tensors of 400 bytes in 401 bytes of data"),
        (segment_bytes({"codes": {**CODES, "shape": [2**60, 8]}}), "does not fit bytes 0 to 400"),
        (segment_bytes({"codes": {**CODES, "shape": [2**61, 8], "data_offsets": [0, 2**64]}}), "data_offsets: must be"),
        (segment_bytes({"codes": {**CODES, "shape": [-50, -8]}}), "shape: must be an integer"),
        (segment_bytes({"codes": {**CODES, "shape": [1, 1, 400]}}), "must have a shape and two data_offsets"),
        (segment_bytes({"codes": {**CODES, "shape": 400}}), "must have a shape and two data_offsets"),
        (segment_bytes({"codes": {**CODES, "data_offsets": [0]}}), "must have a shape and two data_offsets"),
        (segment_bytes({"codes": {**CODES, "data_offsets": [400, 0]}}), "data_offsets: must be an integer"),
        (segment_bytes({"codes": {**CODES, "dtype": "F64"}}), "must have dtype U8, U32, I64, I8, F16, F32, got"),
        (segment_bytes({"codes": {**CODES, "dtype": ["U8"]}}), "must have dtype U8, U32"),
        (segment_bytes({"codes": {**CODES, "dtype": "I64"}}), "does not fit bytes 0 to 400"),
        (segment_bytes({"codes": [1]}), "must have dtype U8, U32"),
        (segment_bytes({"other": CODES}), "the manifest says"),
        (segment_bytes({"codes": {**CODES, "shape": [100, 4]}}), "the manifest says"),
        (segment_bytes({"codes": CODES, "more": CODES}), "tensor 'more': starts at 0, expected 400"),
        (segment_bytes({"codes": CODES, "__metadata__": {"bits": 64}}), "__metadata__ must map names to strings"),
        (segment_bytes({"codes": CODES, "__metadata__": {"bits": "63"}}), "bits of the file is '63'"),
        (segment_bytes({"codes": CODES, "__metadata__": {"format": "x"}}), "format of the file is 'x'"),
        (segment_bytes(b"[1, 2]"), "must hold a JSON object"),
        (segment_bytes(b"\x80\x04K\x01."), "not valid JSON"),
        (b"\0" * 5000, "a header of 0 bytes"),
    ],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_segments_that_are_refused(folder, data, message, mmap):
    manifest = read_manifest(folder)
    (folder / manifest["segments"][0]["file"]).write_bytes(data)
    manifest["segments"][0]["xxh3_128"] = xxhash.xxh3_128_hexdigest(data)
    write_manifest(folder, manifest)
    with pytest.raises(IndexFolderError, match=message):
        HammingIndex.open(folder, mmap=mmap)


def with_content(path, number, tensors, **changes):
    """Replaces a segment's file by one with other tensors, with the right checksum."""
    manifest = read_manifest(path)
    item = manifest["segments"][number]
    safetensors.numpy.save_file(tensors, path / item["file"])
    item["xxh3_128"] = xxhash.xxh3_128_hexdigest((path / item["file"]).read_bytes())
    item.update(changes)
    write_manifest(path, manifest)


@pytest.fixture(params=[1 << 26, 100])
def checked_at_once(request, monkeypatch):
    """Bytes of a file that are checked together."""
    monkeypatch.setattr("fasthash.index.store.tensorfile._CHECK_BYTES", request.param)


@pytest.mark.usefixtures("checked_at_once")
def test_verify_finds_what_opening_does_not_read(folder):
    codes, ids = random_codes(30), np.arange(1000, 1300, 10)
    with_content(folder, 1, {"codes": codes, "ids": ids})
    HammingIndex.open(folder).verify()
    swapped = ids.copy()
    swapped[[4, 5]] = ids[[5, 4]]
    with_content(folder, 1, {"codes": codes, "ids": swapped})
    with pytest.raises(IndexFolderError, match="its ids are not ascending"):
        HammingIndex.open(folder).verify()
    ids[0] = 4
    with_content(folder, 1, {"codes": codes, "ids": ids}, first_id=4, deleted=0, tombstones=None)
    with pytest.raises(IndexFolderError, match="an id is in another segment too"):
        HammingIndex.open(folder).verify()
    ids[0] = 3  # deleted in the other segment
    with_content(folder, 1, {"codes": codes, "ids": ids}, first_id=3)
    HammingIndex.open(folder).verify()


@pytest.mark.usefixtures("checked_at_once")
def test_verify_finds_padding_bits(tmp_path):
    index = HammingIndex(60)
    index.add(random_codes(5) & 0xF0)
    index.save(tmp_path)
    with_content(tmp_path, 0, {"codes": random_codes(5) | 1})
    with pytest.raises(IndexFolderError, match=r"in the 4 padding bits after bit 60, got others in \d of \d rows"):
        HammingIndex.open(tmp_path).verify()


def test_unaligned_ids_are_refused(folder):
    manifest = read_manifest(folder)
    header = {
        "ids": {"dtype": "I64", "shape": [30], "data_offsets": [0, 240]},
        "codes": {"dtype": "U8", "shape": [30, 8], "data_offsets": [240, 480]},
    }
    text = json.dumps(header)
    for spaces in range(9):
        data = segment_bytes((text + " " * spaces).encode(), b"\0" * 480)
        (folder / manifest["segments"][1]["file"]).write_bytes(data)
        message = "ids from 0 to 0" if (len(text) + spaces) % 8 == 0 else "does not fit bytes 0 to 240"
        with pytest.raises(IndexFolderError, match=message):
            HammingIndex.open(folder)


# What is not a plain file in the folder


@pytest.mark.parametrize("kind", ["manifest", "segment", "tombstones", "keys"])
def test_links_out_of_the_folder_are_refused(tmp_path, kind):
    folder = make_keyed_folder(tmp_path / "index")
    file = files(folder, kind)[0]
    file.rename(folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(IndexFolderError, match="a symbolic link, which is not allowed in an index"):
        HammingIndex.open(folder)


def as_in_a_download_cache(folder):
    """Moves the files of an index to blobs/ beside it and leaves links, as hub caches have them."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(path for path in folder.iterdir() if path.name != "lock")):
        file.rename(blobs / str(number))
        file.symlink_to(f"../blobs/{number}")


@pytest.mark.parametrize("make", [make_folder, make_keyed_folder])
def test_links_into_a_folder_that_is_named_are_followed(make, tmp_path):
    folder = make(tmp_path / "index")
    expected = content(HammingIndex.open(folder))
    as_in_a_download_cache(folder)
    with pytest.raises(IndexFolderError, match=r"a symbolic link, .*cp -rL.* links_within"):
        HammingIndex.open(folder)
    for mmap in (True, False):
        index = HammingIndex.open(folder, mmap, links_within=folder.parent)
        assert content(index) == expected
        index.verify()
        assert not index.refresh()
        assert content(pickle.loads(pickle.dumps(index))) == expected
    with pytest.raises(ValueError, match="links_within is for reading"):
        HammingIndex.open(folder, writable=True, links_within=folder.parent)
    with pytest.raises(IndexFolderError, match="a symbolic link"):
        HammingIndex.open(folder, writable=True)


def test_links_out_of_the_named_folder_are_refused(folder):
    as_in_a_download_cache(folder)
    with pytest.raises(IndexFolderError, match="a symbolic link that ends outside"):
        HammingIndex.open(folder, links_within=folder)
    link = next(path for path in folder.iterdir() if path.is_symlink())
    link.unlink()
    link.symlink_to(link.name)
    with pytest.raises(IndexFolderError, match="leads nowhere"):
        HammingIndex.open(folder, links_within=folder.parent)
    link.unlink()
    link.symlink_to("../blobs/none")
    with pytest.raises(IndexFolderError, match=r"no manifest.json|missing"):
        HammingIndex.open(folder, links_within=folder.parent)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("kind", ["manifest", "segment", "tombstones", "keys"])
def test_pipes_and_folders_are_refused(tmp_path, kind):
    folder = make_keyed_folder(tmp_path / "index")
    file = files(folder, kind)[0]
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(IndexFolderError, match="not a regular file"):
        HammingIndex.open(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(IndexFolderError, match="not a regular file"):
        HammingIndex.open(folder)


def test_a_lock_that_is_a_link_is_not_followed(folder):
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(folder.parent / "target")
    with pytest.raises(IndexFolderError, match="cannot be opened for writing"):
        HammingIndex.open(folder, writable=True)
    assert not (folder.parent / "target").exists()


@pytest.mark.parametrize("writable", [False, True])
def test_what_is_not_an_index(tmp_path, writable):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for name, message in [
        ("absent", "no such folder"),
        ("file", r"not a folder; an index is a folder with a manifest.json"),
        ("empty", r"not an index: it has no manifest.json"),
    ]:
        with pytest.raises(IndexFolderError, match=message):
            HammingIndex.open(tmp_path / name, writable=writable)
    assert os.listdir(tmp_path / "empty") == []
