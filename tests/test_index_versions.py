"""Versions of the index format: folders of version 1 that an older fasthash wrote, and the features of version 2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from index_folders import content, make_folder, read_manifest, write_manifest

from fasthash.index import HammingIndex, IndexFolderError
from fasthash.index.store import manifest
from fasthash.index.store.manifest import current_manifest

# Folders written by fasthash before version 2 of the format, and what they hold. No test writes to them.
#   empty     100 bits, no codes
#   implicit  64 bits, ids 0 .. 19, saved from memory
#   explicit  64 bits, ids of up to 12 digits, saved from memory
#   deleted   64 bits, three segments, two of them with tombstones; the ids of two segments interleave
#   tables    64 bits, a segment with tombstones and tables for multi-index hashing, and one without tables
#   odd-bits  13 bits, explicit ids, tombstones
V1 = Path(__file__).parent / "data" / "index-v1"
EXPECTED = json.loads((V1 / "expected.json").read_text())


def codes_of(expected):
    width = -(-expected["bits"] // 8)
    return np.array([list(bytes.fromhex(code)) for code in expected["codes"]], np.uint8).reshape(-1, width)


def nearest(queries, codes, ids, k):
    """By counting bits one by one: distances and ids, ordered by (distance, id)."""
    distances = np.unpackbits(queries[:, None] ^ codes[None], axis=2).sum(2, dtype=np.int64)
    order = np.lexsort((np.broadcast_to(ids, distances.shape), distances))[:, :k]
    return np.take_along_axis(distances, order, 1), ids[order]


def check(index, expected):
    ids, codes = np.array(expected["ids"], np.int64), codes_of(expected)
    assert index.bits == expected["bits"]
    assert index._contents.next_id == expected["next_id"]
    np.testing.assert_array_equal(index.ids, ids)
    np.testing.assert_array_equal(index.get(ids), codes)
    if len(ids):
        queries, k = codes[::7], min(9, len(ids))
        found, (distances, nearby) = index.search(queries, k), nearest(queries, codes, ids, k)
        np.testing.assert_array_equal(found.distances, distances)
        np.testing.assert_array_equal(found.ids, nearby)
        assert index.range_search(queries, 0).offsets[-1] == (distances == 0).sum()


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
    monkeypatch.setattr(manifest, "KNOWN_FEATURES", frozenset({"keys", "bit_weights"}))
    folder = make_folder(tmp_path / "index")
    with_features(folder, ["keys", "bit_weights"])
    HammingIndex.open(folder).verify()

    def kept():
        document = read_manifest(folder)
        return (document["version"], document["features"]) == (2, ["keys", "bit_weights"])

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
    assert read_manifest(tmp_path / "copy")["version"] == 1  # a copy of the codes and ids needs no feature
    HammingIndex.build(folder, np.zeros((3, 8), np.uint8), overwrite=True, progress=False)
    assert read_manifest(folder)["version"] == 1
    assert len(after[1]) > 1000


@pytest.mark.parametrize("writable", [False, True])
def test_a_feature_that_is_not_known_is_refused_by_name(tmp_path, writable):
    folder = make_folder(tmp_path / "index")
    with_features(folder, ["keys"])
    before = listed(folder)
    with pytest.raises(
        IndexFolderError, match=r"manifest.json: needs feature 'keys', which this fasthash does not know"
    ):
        HammingIndex.open(folder, writable=writable)
    assert listed(folder) == before


def test_an_open_reader_refuses_a_feature_at_its_next_refresh(tmp_path):
    folder = make_folder(tmp_path / "index")
    index = HammingIndex.open(folder)
    before = content(index)
    with_features(folder, ["keys"], generation=9)
    for change in (index.refresh, index.verify):
        with pytest.raises(IndexFolderError, match="needs feature 'keys'"):
            change()
    assert content(index) == before


def test_a_manifest_of_version_1_has_no_features(tmp_path):
    """As a key that is not known: ignored where the checksum vouches for it, refused where there is none."""
    folder = make_folder(tmp_path / "index")
    document = {**read_manifest(folder), "features": ["keys"]}
    write_manifest(folder, document)
    HammingIndex.open(folder).verify()
    write_manifest(folder, document, sign=False)
    with pytest.raises(IndexFolderError, match="unknown key 'features' and no checksum to vouch for it"):
        HammingIndex.open(folder)


def test_version_2_needs_no_checksum_either(tmp_path):
    folder = make_folder(tmp_path / "index")
    write_manifest(folder, {**read_manifest(folder), "version": 2, "features": []}, sign=False)
    HammingIndex.open(folder).verify()
