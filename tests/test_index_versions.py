"""Versions of the index format: folders that an older fasthash wrote, and the features of version 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_folders import content, make_folder, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.search import tables
from fasthash.index.store import manifest
from fasthash.index.store.manifest import current_manifest

# Folders written by fasthash before version 2 of the format, and what they hold. No test writes to them.
#   empty     100 bits, no codes
#   implicit  64 bits, ids 0 .. 19, saved from memory
#   explicit  64 bits, ids of up to 12 digits, saved from memory
#   deleted   64 bits, three segments, two of them with tombstones; the ids of two segments interleave
#   tables    64 bits, a segment with tombstones and tables for multi-index hashing, and one without tables
#   odd-bits  13 bits, explicit ids, tombstones
DATA = Path(__file__).parent / "data"
V1 = DATA / "index-v1"
EXPECTED = json.loads((V1 / "expected.json").read_text())

# Folders of version 2, and what they hold.
#   bit_weights          100 bits in three groups, ids of up to 12 digits, tombstones
#   bit_weights-tables   64 bits in two groups, a segment with tombstones and tables, and one without tables
V2 = DATA / "index-v2"
WEIGHTED = json.loads((V2 / "expected.json").read_text())


def codes_of(expected):
    width = -(-expected["bits"] // 8)
    return np.array([list(bytes.fromhex(code)) for code in expected["codes"]], np.uint8).reshape(-1, width)


def nearest(queries, codes, ids, k, groups=None):
    """By counting bits one by one: distances and ids, ordered by (distance, id)."""
    bits = np.unpackbits(queries[:, None] ^ codes[None], axis=2)
    weights = np.repeat([w for _, w in groups], [b for b, _ in groups]) if groups else np.ones(bits.shape[2], int)
    distances = (bits[..., : len(weights)] * weights).sum(2, dtype=np.int64)
    order = np.lexsort((np.broadcast_to(ids, distances.shape), distances))[:, :k]
    return np.take_along_axis(distances, order, 1), ids[order]


def check(index, expected):
    ids, codes = np.array(expected["ids"], np.int64), codes_of(expected)
    groups = [tuple(pair) for pair in expected.get("bit_weights", ())]
    assert index.bits == expected["bits"]
    assert index.bit_weights == (groups or None)
    assert index._contents.next_id == expected["next_id"]
    np.testing.assert_array_equal(index.ids, ids)
    np.testing.assert_array_equal(index.get(ids), codes)
    if len(ids):
        queries, k = codes[::7], min(9, len(ids))
        found, (distances, nearby) = index.search(queries, k), nearest(queries, codes, ids, len(ids), groups)
        np.testing.assert_array_equal(found.distances, distances[:, :k])
        np.testing.assert_array_equal(found.ids, nearby[:, :k])
        for radius in (0, 10):
            assert index.range_search(queries, radius).offsets[-1] == (distances <= radius).sum()


def listed(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_there_is_a_folder_of_each_kind():
    assert {path.name for path in V1.iterdir() if path.is_dir()} == set(EXPECTED)
    assert len(list((V1 / "tables").glob("mih-*"))) == 1
    assert len(list((V1 / "deleted").glob("tombstones-*"))) == 2


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"method": "scan"}, {"method": "mih"}, {"device": ["cpu"]}])
@pytest.mark.parametrize("name", EXPECTED)
def test_version_1_opens(name, options, tmp_path):
    folder = V1 / name
    if options.get("method") == "mih" and name != "tables":  # makes tables where they are missing
        folder = shutil.copytree(V1 / name, tmp_path / name)
    before = listed(folder)
    index = HammingIndex.open(folder, **options)
    check(index, EXPECTED[name])
    index.verify()
    assert listed(folder) == before


@pytest.mark.parametrize("name", EXPECTED)
def test_version_1_can_be_changed_and_stays_version_1(name, tmp_path):
    folder, expected = shutil.copytree(V1 / name, tmp_path / name), EXPECTED[name]
    codes, next_id = codes_of(expected), expected["next_id"]
    added = np.zeros((3, codes.shape[1]), np.uint8)
    with HammingIndex.open(folder, writable=True) as index:
        assert index.add(added).tolist() == [next_id, next_id + 1, next_id + 2]
        index.remove([next_id + 1, *expected["ids"][:2]])
        index.compact()
        index.build_mih()
    kept = {
        "bits": expected["bits"],
        "next_id": next_id + 3,
        "ids": [*expected["ids"][2:], next_id, next_id + 2],
        "codes": [*expected["codes"][2:], *[bytes(added[0]).hex()] * 2],
    }
    again = HammingIndex.open(folder)
    check(again, kept)
    again.verify()
    assert read_manifest(folder)["version"] == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_what_needs_no_feature_is_written_as_before(name):
    assert current_manifest(V1 / name).to_bytes() == (V1 / name / "manifest.json").read_bytes()


# Version 2


def with_features(folder, features, **changes):
    write_manifest(folder, {**read_manifest(folder), "version": 2, "features": features, **changes})


def test_version_2_without_features_opens_and_becomes_version_1(tmp_path):
    folder = make_folder(tmp_path / "index")
    before = content(HammingIndex.open(folder))
    with_features(folder, [])
    index = HammingIndex.open(folder)
    index.verify()
    assert content(index) == before
    with HammingIndex.open(folder, writable=True) as index:
        index.remove([5])
    assert read_manifest(folder)["version"] == 1
    assert "features" not in read_manifest(folder)


def test_features_survive_every_change(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"sketches", "bit_weights"}))
    folder = make_folder(tmp_path / "index")
    with_features(folder, ["sketches", "bit_weights"], bit_weights=[[40, 3], [24, 1]])
    HammingIndex.open(folder).verify()

    def kept():
        document = read_manifest(folder)
        assert document["bit_weights"] == [[40, 3], [24, 1]]
        return (document["version"], document["features"]) == (2, ["sketches", "bit_weights"])

    with HammingIndex.open(folder, writable=True) as index:
        index.add(np.zeros((1100, 8), np.uint8))
        assert kept()
        index.remove([5])
        assert kept()
        index.compact()
        assert kept()
        index.build_mih()
        assert kept()
    after = content(HammingIndex.open(folder))
    with HammingIndex.open(folder, writable=True) as index:  # by another writer
        index.remove([6])
    assert kept()
    HammingIndex.open(folder).save(tmp_path / "copy")
    assert read_manifest(tmp_path / "copy")["features"] == ["bit_weights"]  # a copy of the codes and ids needs no other
    HammingIndex.build(folder, np.zeros((3, 8), np.uint8), overwrite=True, progress=False)
    assert read_manifest(folder)["version"] == 1
    assert len(after[1]) > 1000


@pytest.mark.parametrize("writable", [False, True])
def test_a_feature_that_is_not_known_is_refused_by_name(tmp_path, writable):
    folder = make_folder(tmp_path / "index")
    with_features(folder, ["sketches"])
    before = listed(folder)
    with pytest.raises(
        IndexFolderError, match=r"manifest.json: needs feature 'sketches', which this fasthash does not know"
    ):
        HammingIndex.open(folder, writable=writable)
    assert listed(folder) == before


def test_an_open_reader_refuses_a_feature_at_its_next_refresh(tmp_path):
    folder = make_folder(tmp_path / "index")
    index = HammingIndex.open(folder)
    before = content(index)
    with_features(folder, ["sketches"], generation=9)
    for change in (index.refresh, index.verify):
        with pytest.raises(IndexFolderError, match="needs feature 'sketches'"):
            change()
    assert content(index) == before


def test_a_manifest_of_version_1_has_no_features(tmp_path):
    """As a key that is not known: ignored where the checksum vouches for it, refused where there is none."""
    folder = make_folder(tmp_path / "index")
    document = {**read_manifest(folder), "features": ["sketches"]}
    write_manifest(folder, document)
    HammingIndex.open(folder).verify()
    write_manifest(folder, document, sign=False)
    with pytest.raises(IndexFolderError, match="unknown key 'features' and no checksum that confirms it"):
        HammingIndex.open(folder)


def test_version_2_needs_no_checksum_either(tmp_path):
    folder = make_folder(tmp_path / "index")
    write_manifest(folder, {**read_manifest(folder), "version": 2, "features": []}, sign=False)
    HammingIndex.open(folder).verify()


# Weights of bits


def test_there_is_a_folder_of_weights_with_tables_and_without():
    assert {path.name for path in V2.iterdir() if path.is_dir()} == set(WEIGHTED)
    assert len(list((V2 / "bit_weights-tables").glob("mih-*"))) == 1
    assert list((V2 / "bit_weights").glob("tombstones-*"))
    for name in WEIGHTED:
        document = read_manifest(V2 / name)
        assert (document["version"], document["features"]) == (2, ["bit_weights"])


@pytest.mark.parametrize("options", [{}, {"mmap": False}, {"method": "scan"}, {"method": "mih"}, {"device": ["cpu"]}])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_open(name, options, tmp_path, monkeypatch):
    monkeypatch.setitem(tables.BUDGETS, "mih", 1e12)
    folder = shutil.copytree(V2 / name, tmp_path / name) if options.get("method") == "mih" else V2 / name
    before = listed(V2 / name)
    index = HammingIndex.open(folder, **options)
    check(index, WEIGHTED[name])
    index.verify()
    assert current_manifest(V2 / name).to_bytes() == (V2 / name / "manifest.json").read_bytes()
    assert listed(V2 / name) == before


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_stay_through_every_change(name, tmp_path):
    folder, expected = shutil.copytree(V2 / name, tmp_path / name), WEIGHTED[name]
    codes, next_id = codes_of(expected), expected["next_id"]
    added = np.zeros((3, codes.shape[1]), np.uint8)
    with HammingIndex.open(folder, writable=True) as index:
        index.add(added)
        index.remove([next_id + 1, *expected["ids"][:2]])
        index.compact()
        index.build_mih()
    kept = {
        **expected,
        "next_id": next_id + 3,
        "ids": [*expected["ids"][2:], next_id, next_id + 2],
        "codes": [*expected["codes"][2:], *[bytes(added[0]).hex()] * 2],
    }
    check(HammingIndex.open(folder), kept)
    HammingIndex.open(folder).save(tmp_path / "copy")
    check(HammingIndex.open(tmp_path / "copy"), kept)
    HammingIndex.open(folder).verify()


def test_a_reader_that_does_not_know_weights_refuses_them_by_name(monkeypatch):
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset())
    for name in WEIGHTED:
        with pytest.raises(IndexFolderError, match="needs feature 'bit_weights', which this fasthash does not know"):
            HammingIndex.open(V2 / name)


def test_an_index_without_weights_is_version_1_byte_for_byte(tmp_path):
    """Also where it takes the place of one with weights."""
    folder = make_folder(tmp_path / "index", bit_weights=[(40, 3), (24, 1)])
    assert read_manifest(folder)["bit_weights"] == [[40, 3], [24, 1]]
    HammingIndex.open(folder).to("cpu").save(tmp_path / "copy")
    assert read_manifest(tmp_path / "copy")["bit_weights"] == [[40, 3], [24, 1]]
    HammingIndex(64).save(folder, overwrite=True)
    document = read_manifest(folder)
    assert list(document) == [
        "format", "version", "bits", "code_bytes", "generation", "next_id", "segments", "xxh3_128",
    ]  # fmt: skip
    assert document["version"] == 1


@pytest.mark.parametrize("sign", [True, False])
@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("absent", r"bit_weights must be a list of pairs \[bits, weight\], got None"),
        (7, r"bit_weights must be a list of pairs \[bits, weight\], got 7"),
        ({"64": 1}, r"bit_weights must be a list of pairs \[bits, weight\], got {'64': 1}"),
        ([64, 1], r"bit_weights must be a list of pairs \[bits, weight\], got \[64, 1\]"),
        ([[64]], r"bit_weights must be a list of pairs \[bits, weight\], got \[\[64\]\]"),
        ([], "number of groups of bit_weights: must be an integer between 1 and 64, got 0"),
        ([[1, 1]] * 65, "number of groups of bit_weights: must be an integer between 1 and 64, got 65"),
        ([[63, 1]], "the groups of bit_weights must hold 64 bits, got 63"),
        ([[40, 3], [25, 1]], "the groups of bit_weights must hold 64 bits, got 65"),
        ([[64, 0]], "weight of a group of bit_weights: must be an integer between 1 and 255, got 0"),
        ([[64, 256]], "weight of a group of bit_weights: must be an integer between 1 and 255, got 256"),
        ([[64, 1.0]], r"weight of a group of bit_weights: must be an integer between 1 and 255, got 1\.0"),
        ([[64, True]], "weight of a group of bit_weights: must be an integer between 1 and 255, got True"),
        ([[64.0, 1]], r"bits of a group of bit_weights: must be an integer between 1 and 64, got 64\.0"),
        ([[0, 1], [64, 1]], "bits of a group of bit_weights: must be an integer between 1 and 64, got 0"),
        ([[-1, 1], [65, 1]], "bits of a group of bit_weights: must be an integer between 1 and 64, got -1"),
        ([["64", 1]], "bits of a group of bit_weights: must be an integer between 1 and 64, got '64'"),
        ([[10**400, 1]], "bits of a group of bit_weights: must be an integer between 1 and 64, got 1000"),
    ],
)
def test_damaged_weights_are_refused(groups, message, sign, tmp_path):
    folder = make_folder(tmp_path / "index")
    document = {**read_manifest(folder), "version": 2, "features": ["bit_weights"], "bit_weights": groups}
    if groups == "absent":
        del document["bit_weights"]
    write_manifest(folder, document, sign=sign)
    before = listed(folder)
    for options in ({}, {"writable": True}):
        with pytest.raises(IndexFolderError, match=rf"manifest\.json: {message}"):
            HammingIndex.open(folder, **options)
    assert listed(folder) == before


def test_weights_that_no_feature_names_are_a_key_that_is_not_known(tmp_path):
    for version in ({"version": 1}, {"version": 2, "features": []}):
        folder = make_folder(tmp_path / f"index{version['version']}")
        document = {**read_manifest(folder), **version, "bit_weights": [[64, 3]]}
        write_manifest(folder, document)
        assert HammingIndex.open(folder).bit_weights is None
        write_manifest(folder, document, sign=False)
        with pytest.raises(IndexFolderError, match="unknown key 'bit_weights' and no checksum that confirms it"):
            HammingIndex.open(folder)
        write_manifest(folder, {**document, "version": 2, "features": ["bit_weights"]}, sign=False)
        assert HammingIndex.open(folder).bit_weights == [(64, 3)]


def test_a_folder_that_holds_other_weights_by_now_is_refused(tmp_path):
    folder = make_folder(tmp_path / "index")
    index = HammingIndex.open(folder)
    before = content(index)
    HammingIndex(64, bit_weights=[(40, 3), (24, 1)]).save(folder, overwrite=True)
    with pytest.raises(IndexFolderError, match="its bit_weights are now 40x3,24x1, not none; open it again"):
        index.refresh()
    assert content(index) == before
    again = HammingIndex.open(folder)
    assert not again.refresh()
    HammingIndex(64, bit_weights=[(64, 3)]).save(folder, overwrite=True)
    with pytest.raises(IndexFolderError, match="its bit_weights are now 64x3, not 40x3,24x1; open it again"):
        again.refresh()
