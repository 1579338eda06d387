"""rescore="all" and code_scale of HammingIndex: the results of asymmetric_topk of the live codes, wherever they are."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash
from index_folders import files, read_manifest, write_manifest

from fasthash import HammingIndex, asymmetric_topk, pack_bits
from fasthash.index import IndexFolderError, merge

BITS = 61
rng = np.random.default_rng(0)
CODES = pack_bits((rng.random((900, BITS)) > 0.5).astype(np.float32))
SCALE = (0.2 + 2 * rng.random(900)).astype(np.float16)
REAL = rng.random((5, BITS)).astype(np.float32)
METRICS = ["l1", "dot", "cosine", "l2"]


class Model:
    """An index, and what its codes and scales should be."""

    def __init__(self, index: HammingIndex, scaled: bool):
        self.index, self.scaled = index, scaled
        self.row_of: dict[int, int] = {}

    def add(self, rows: Any, ids: Any = None, **options: Any) -> None:
        rows = np.asarray(rows)
        scale = SCALE[rows] if self.scaled else None
        given = self.index.add(CODES[rows], ids, code_scale=scale, **options)
        self.row_of |= dict(zip(given.tolist(), rows.tolist(), strict=True))

    def remove(self, ids: Any) -> None:
        self.index.remove(ids)
        for number in np.asarray(ids).tolist():
            self.row_of.pop(number, None)

    def fill(self) -> None:
        """Segments whose ids are ranges or not and interleave, with deleted codes, and one that is replaced."""
        self.add(range(300))
        self.add(range(300, 500), rng.permutation(np.arange(1000, 3000))[:200])
        self.add(range(500, 700), rng.permutation(np.arange(1000, 3000, 7) + 5000)[:200])
        self.remove(np.arange(0, 280, 3))
        self.remove(list(self.row_of)[-50:])
        self.add(range(700, 720), np.arange(50, 70), replace=True)

    def check(self, index: HammingIndex | None = None, k: int = 40) -> None:
        index = self.index if index is None else index
        ids = np.array(sorted(self.row_of))
        assert np.array_equal(index.ids, ids)
        rows = np.array([self.row_of[number] for number in ids.tolist()], dtype=int)
        assert index.scaled == self.scaled
        if self.scaled:
            some = rng.integers(0, len(ids), 50)
            assert np.array_equal(index.code_scale_of(ids[some]), SCALE[rows[some]])
        masks = [None, rng.random(len(ids)) < 0.4, rng.random(len(ids)) < 0.01]
        for metric in METRICS:
            queries = REAL if metric == "l1" else 3 * REAL - 1
            scale = SCALE[rows] if self.scaled and metric != "l1" else None
            for mask in masks:
                found = index.search(queries, k, mask, "all", metric=metric)
                wanted = asymmetric_topk(queries, CODES[rows], k, code_scale=scale, metric=metric, filter=mask)
                assert np.array_equal(found.distances, wanted.distances)
                assert np.array_equal(found.ids, np.where(wanted.ids < 0, -1, ids[wanted.ids]))
                if mask is not None:
                    by_id = index.search(queries, k, ids[mask], "all", metric=metric)
                    assert np.array_equal(by_id.ids, found.ids)


@pytest.mark.parametrize("scaled", [False, True])
def test_in_memory(scaled: bool) -> None:
    model = Model(HammingIndex(BITS), scaled)
    model.fill()
    model.check()
    model.check(k=len(model.row_of))
    model.check(model.index.to("cpu"))
    model.check(pickle.loads(pickle.dumps(model.index)))
    model.check(copy.deepcopy(model.index))
    model.index.compact()
    model.check()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mmap", [False, True])
def test_in_a_folder(scaled: bool, mmap: bool, tmp_path: Path) -> None:
    HammingIndex(BITS).save(tmp_path / "index")
    with HammingIndex.open(tmp_path / "index", mmap=mmap, writable=True) as index:
        model = Model(index, scaled)
        model.fill()
        model.check()
        reader = HammingIndex.open(tmp_path / "index", mmap=mmap)
        model.check(reader)
        reader.verify()
        assert read_manifest(tmp_path / "index").get("features") == (["code_scale"] if scaled else None)
        index.compact()
        model.check()
        assert reader.refresh()
        model.check(reader)
        reader.save(tmp_path / "copy")
    again = HammingIndex.open(tmp_path / "copy")
    again.verify()
    model.check(again)


def test_many_small_segments_are_merged() -> None:
    model = Model(HammingIndex(BITS), True)
    for start in range(0, 400, 20):
        model.add(range(start, start + 20), rng.permutation(10_000)[:20] + start * 10_000)
    assert len(model.index._contents.segments) <= 2 * merge.MERGE_FAN
    model.check()


def test_tables_are_not_used(tmp_path: Path) -> None:
    codes = np.random.default_rng(1).integers(0, 256, (5000, 8), np.uint8)
    index = HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False)
    index = HammingIndex.open(tmp_path / "index", method="mih")
    queries = np.random.default_rng(2).random((3, 64)).astype(np.float32)
    assert np.array_equal(index.search(queries, 5, rescore="all").ids, asymmetric_topk(queries, codes, 5).ids)


def test_all_is_what_rescoring_everything_gives() -> None:
    groups = [(20, 3), (41, 1)]
    for bit_weights in (None, groups):
        index = HammingIndex(BITS, bit_weights=bit_weights)
        index.add(CODES)
        every, scanned = (index.search(REAL, 9, rescore=own) for own in (100, "all"))
        assert np.array_equal(every.distances, scanned.distances)
        assert np.array_equal(every.ids, scanned.ids)


def test_missing_places_are_at_infinity() -> None:
    index = HammingIndex(BITS)
    assert index.search(REAL, 2, rescore="all").distances.tolist() == [[np.inf, np.inf]] * 5
    index.add(CODES[:2], ids=[5, 3])
    index.add(CODES[2:3])
    found = index.search(torch.from_numpy(REAL[0]), 5, rescore="all")
    assert isinstance(found.ids, torch.Tensor)
    assert found.distances.dtype == torch.float32
    assert found.ids[0, 3:].tolist() == [-1, -1]
    far = index.search(np.full((1, BITS), 3e38, np.float32), 4, rescore="all", metric="l2")  # all of them at infinity
    assert far.distances.tolist() == [[np.inf] * 4]
    assert far.ids.tolist() == [[3, 5, 6, -1]]


def scaled_folder(path: Path) -> Path:
    index = HammingIndex(BITS)
    index.add(CODES[:101], code_scale=SCALE[:101])
    index.save(path)
    return path


def test_without_codes_there_are_no_scales(tmp_path: Path) -> None:
    with HammingIndex.open(scaled_folder(tmp_path / "index"), writable=True) as index:
        index.remove(index.ids)
        assert read_manifest(tmp_path / "index")["version"] == 1
        index.add(CODES[:5])
        index.verify()
        index.remove(index.ids)
        index.add(CODES[:5], code_scale=SCALE[:5])
    assert read_manifest(tmp_path / "index")["features"] == ["code_scale"]


def test_a_reader_without_the_feature_refuses_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scaled_folder(tmp_path / "index")
    monkeypatch.setattr("fasthash.index.store.manifest.KNOWN_FEATURES", frozenset({"bit_weights"}))
    with pytest.raises(IndexFolderError, match="needs feature 'code_scale', which this fasthash does not know"):
        HammingIndex.open(folder)


def test_weights_and_scales_are_features_beside_each_other(tmp_path: Path) -> None:
    index = HammingIndex(BITS, bit_weights=[(20, 3), (41, 1)])
    index.add(CODES, code_scale=SCALE)
    index.save(tmp_path / "index")
    assert read_manifest(tmp_path / "index")["features"] == ["bit_weights", "code_scale"]
    assert HammingIndex.open(tmp_path / "index").bit_weights == [(20, 3), (41, 1)]


def test_damage(tmp_path: Path) -> None:
    folder = scaled_folder(tmp_path / "index")
    manifest = read_manifest(folder)
    write_manifest(folder, manifest | {"features": []})
    with pytest.raises(IndexFolderError, match=r"the manifest says .*, the file holds .*code_scale"):
        HammingIndex.open(folder)
    write_manifest(folder, manifest | {"features": ["code_scale"]})
    (segment,) = files(folder, "segment")
    content = bytearray(segment.read_bytes())
    content[4096:4098] = np.float16(-1).tobytes()
    segment.write_bytes(content)
    with pytest.raises(IndexFolderError, match="damaged: its checksum"):
        HammingIndex.open(folder).verify()
    manifest["segments"][0]["xxh3_128"] = xxhash.xxh3_128_hexdigest(bytes(content))
    write_manifest(folder, manifest)
    with pytest.raises(IndexFolderError, match="damaged: a code_scale is not finite or below 0"):
        HammingIndex.open(folder).verify()
    plain = HammingIndex(BITS)
    plain.add(CODES[:7])
    plain.save(tmp_path / "plain")
    write_manifest(tmp_path / "plain", read_manifest(tmp_path / "plain") | {"version": 2, "features": ["code_scale"]})
    with pytest.raises(IndexFolderError, match=r"the manifest says .*code_scale"):
        HammingIndex.open(tmp_path / "plain")


def test_bad_scales_change_nothing() -> None:
    scaled, plain = HammingIndex(BITS), HammingIndex(BITS)
    scaled.add(CODES[:3], code_scale=SCALE[:3])
    plain.add(CODES[:3])
    calls: list[tuple[HammingIndex, Any, type[Exception], str]] = [
        (scaled, None, ValueError, "the codes of this index have a code_scale each, got none"),
        (plain, SCALE[3:5], ValueError, "the codes of this index have no code_scale each, got some"),
        (scaled, SCALE[3:6], ValueError, r"code_scale must have shape \[2\], one for each code, got \[3\]"),
        (scaled, SCALE[3:5].astype(np.float32), TypeError, "code_scale must be float16, got float32"),
        (scaled, SCALE[3:5] * np.float16(np.nan), ValueError, "code_scale must be finite and >= 0, got nan"),
    ]
    for index, scale, error, message in calls:
        with pytest.raises(error, match=rf"^HammingIndex\.add: {message}"):
            index.add(CODES[3:5], code_scale=scale)
        assert len(index) == 3


def test_export_refuses(tmp_path: Path) -> None:
    index = HammingIndex.open(scaled_folder(tmp_path / "index"))
    with pytest.raises(ValueError, match=r"HammingIndex\.export: no format can hold the code_scale"):
        index.export(tmp_path / "codes.npy", progress=False)
    assert not (tmp_path / "codes.npy").exists()


def test_bad_searches() -> None:
    index, weighted = HammingIndex(BITS), HammingIndex(BITS, bit_weights=[(20, 3), (41, 1)])
    calls: list[tuple[HammingIndex, Any, dict[str, Any], str]] = [
        (index, REAL, {"rescore": "some"}, "rescore must be a whole number or 'all', got 'some'"),
        (index, REAL, {"rescore": 3, "metric": "dot"}, "metric 'dot' needs rescore='all', got rescore=3"),
        (index, REAL, {"rescore": "all", "metric": "max"}, "metric must be 'l1', 'dot', 'cosine' or 'l2', got 'max'"),
        (index, CODES, {"rescore": "all"}, r"rescore needs real-valued queries \[Q, 61\], got packed codes"),
        (index, REAL[:, 1:], {"rescore": "all"}, r"real-valued queries must be \[Q, 61\], got shape \(5, 60\)"),
        (index, REAL + 1, {"rescore": "all"}, r"real-valued queries must be in \[0, 1\], got 1\."),
        (index, REAL * np.inf, {"rescore": "all", "metric": "l2"}, "must be finite and at most 3.4e38 in size, got"),
        (weighted, REAL, {"rescore": "all", "metric": "l2"}, "metric must be 'l1' where the index has bit_weights"),
    ]
    for own, queries, options, message in calls:
        with pytest.raises(ValueError, match=rf"^HammingIndex\.search: .*{message}"):
            own.search(queries, 3, **options)


def test_scales_of_ids_and_keys() -> None:
    index = HammingIndex(BITS)
    index.add(CODES[:3], ids=[7, 2, 9], keys=["a", "b", "c"], code_scale=SCALE[:3])
    assert index.code_scale_of(keys=["c", "a", "c"]).tolist() == SCALE[[2, 0, 2]].tolist()
    found = index.code_scale_of(torch.tensor([2, 7]))
    assert isinstance(found, torch.Tensor)
    assert (found.dtype, found.tolist()) == (torch.float16, SCALE[[1, 0]].tolist())
    assert index.code_scale_of(np.zeros(0, np.int64)).shape == (0,)
    with pytest.raises(KeyError, match=r"HammingIndex\.code_scale_of: .*8"):
        index.code_scale_of([7, 8])
    plain = HammingIndex(BITS)
    plain.add(CODES[:3])
    with pytest.raises(
        ValueError, match=r"HammingIndex\.code_scale_of: the codes of this index have no code_scale each"
    ):
        plain.code_scale_of([0])


@pytest.mark.parametrize("kind", ["array", "tensor", "file"])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_build(kind: str, blocks: bool, keyed: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "scales.npy", SCALE)
    given = {"array": SCALE, "tensor": torch.from_numpy(SCALE), "file": tmp_path / "scales.npy"}[kind]
    source = (CODES[start : start + 110] for start in range(0, 900, 110)) if blocks else CODES
    ids, keys = np.random.default_rng(4).permutation(2000)[:900], [f"k{row}" for row in range(900)] if keyed else None
    index = HammingIndex.build(
        tmp_path / "index", source, BITS, ids, keys=keys, code_scale=given, progress=False
    )  # fmt: skip
    index.verify()
    assert np.array_equal(index.code_scale_of(ids), SCALE)
    assert np.array_equal(index.get(ids), CODES)


def test_build_refuses_scales(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", SCALE.astype(np.float32))
    (tmp_path / "text.txt").write_text("0.5\n" * 900)
    calls: list[tuple[Any, type[Exception], str]] = [
        (SCALE[:7], ValueError, r"HammingIndex\.build: 900 codes need a code_scale each, got 7"),
        (
            np.concatenate([SCALE, SCALE]),
            ValueError,
            r"HammingIndex\.build: 900 codes need a code_scale each, got 1800",
        ),
        (-SCALE, ValueError, r"HammingIndex\.build: code_scale must be finite and >= 0, got -"),
        (
            SCALE[:, None],
            ValueError,
            r"HammingIndex\.build: code_scale must be float16 \[N\], got float16 of shape \[900",
        ),
        (
            tmp_path / "floats.npy",
            TypeError,
            r"floats\.npy: scales must be float16 \[N\], got float32 of shape \[900\]",
        ),
        (tmp_path / "text.txt", ValueError, r"text\.txt is .*, scales are read from \.npy files"),
    ]
    for given, error, message in calls:
        for source in (CODES, iter([CODES])):
            with pytest.raises(error, match=message.replace("900 codes", "900( or more)? codes")):
                HammingIndex.build(tmp_path / "index", source, BITS, code_scale=given, progress=False)
            assert not (tmp_path / "index" / "manifest.json").exists()
