"""Versions of the index format: folders of version 1 that an older fasthash wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fasthash.index import HammingIndex

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
    assert json.loads((folder / "manifest.json").read_text())["version"] == 1
