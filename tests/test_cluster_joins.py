"""Pairs and groups of a ShardedIndex, with a stand-in for ray: those of HammingIndex, whatever the number of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cluster_cases import assert_same, made_index, stand_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from one_process_ray import OneProcessRay

from fasthash import HammingIndex, IndexFolderError
from fasthash.cluster import ShardedIndex, ShardError, joins
from fasthash.pairs import hamming_pairs


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> OneProcessRay:
    return stand_in(monkeypatch)


def sparse_index(seed: int, rows: int) -> HammingIndex:
    """Codes of which some are near to each other, and some equal."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (rows, 2), np.uint8)
    index = HammingIndex(16)
    ids = rng.permutation(5 * rows + 5)[:rows]
    for part in np.array_split(np.arange(rows), 3):
        index.add(codes[part], ids=ids[part])
    index.remove(ids[rng.random(rows) < 0.1])
    return index


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(0, 120), st.integers(1, 6), st.integers(0, 7))
def test_joins_are_those_of_one_index(
    ray: OneProcessRay, tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, shards: int, radius: int
) -> None:
    one, folder = sparse_index(seed, rows), tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(seed)
    one.split(folder, shards, progress=False)
    with ShardedIndex(folder) as many, pytest.MonkeyPatch.context() as patch:
        patch.setattr(joins, "_ROWS", int(rng.integers(1, 30)))
        patch.setattr(joins, "_TILE_PAIRS", int(rng.integers(1, 30)))
        other = rng.integers(0, 256, (20, 2), np.uint8)
        for filter in (None, one.ids[rng.random(len(one)) < 0.5], rng.random(len(one)) < 0.5):
            assert_same(many.pairs(radius, filter=filter), one.pairs(radius, filter=filter))
            assert_same(many.pairs(radius, other, filter=filter), one.pairs(radius, other, filter=filter))
            for link in ("single", "star"):
                found = many.groups(radius, link=link, filter=filter)
                assert_same(found, one.groups(radius, link=link, filter=filter))


def test_two_indexes(ray: OneProcessRay, tmp_path: Path) -> None:
    one, other = sparse_index(0, 90), sparse_index(1, 50)
    one.split(tmp_path / "one", 3, progress=False)
    other.split(tmp_path / "other", 2, progress=False)
    with ShardedIndex(tmp_path / "one") as many, ShardedIndex(tmp_path / "other") as there:
        assert_same(many.pairs(5, there), one.pairs(5, other))


def test_weighted_bits(ray: OneProcessRay, tmp_path: Path) -> None:
    one, other = made_index(3, weighted=True), made_index(4, weighted=True)
    one.split(tmp_path / "one", 3, progress=False)
    other.split(tmp_path / "other", 2, progress=False)
    with ShardedIndex(tmp_path / "one") as many, ShardedIndex(tmp_path / "other") as there:
        assert_same(many.pairs(3), one.pairs(3))
        assert_same(many.pairs(3, there), one.pairs(3, other))
        assert len(one.pairs(3).ids_a) > len(one.pairs(2).ids_a)
        for link in ("single", "star"):
            assert_same(many.groups(1, link=link), one.groups(1, link=link))


def test_segments_and_keys(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(3, rows=100, keyed=True)
    one.save(tmp_path)
    some = [f"key {id}" for id in one.ids[::2]]
    with ShardedIndex(tmp_path) as many:
        assert_same(many.pairs(2), one.pairs(2))
        assert_same(many.pairs(2, filter=some), one.pairs(2, filter=one.ids_of(some)))
        assert_same(many.groups(0, filter=some), one.groups(0, filter=one.ids_of(some)))


def test_pairs_are_compared_once(ray: OneProcessRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, sizes = sparse_index(2, 90), list[int]()

    def counted(codes: Any, radius: int, other: Any = None, **options: Any) -> Any:
        rows = len(codes)
        sizes.append(rows * (rows - 1) // 2 if other is None else rows * len(other))
        return hamming_pairs(codes, radius, other, **options)

    monkeypatch.setattr(joins, "hamming_pairs", counted)
    one.split(tmp_path, 4, progress=False)
    with ShardedIndex(tmp_path) as many:
        many.pairs(3)
    assert (len(sizes), sum(sizes)) == (10, len(one) * (len(one) - 1) // 2)


def test_many_equal_codes_are_no_danger(ray: OneProcessRay, tmp_path: Path) -> None:
    one = HammingIndex(64)
    one.add(np.zeros((100_000, 8), np.uint8))
    one.split(tmp_path, 2, progress=False)
    with ShardedIndex(tmp_path) as many:
        for link in ("single", "star"):
            groups = many.groups(3, link=link)
            assert (groups.representatives.tolist(), groups.sizes.tolist()) == ([0], [100_000])
        with pytest.raises(ValueError, match=r"^ShardedIndex.pairs: radius 0 gives \d+ pairs, but limit is 1000"):
            many.pairs(0, limit=1000)


def test_errors(ray: OneProcessRay, tmp_path: Path) -> None:
    one = sparse_index(4, 60)
    one.split(tmp_path / "one", 3, progress=False)
    made_index(1, weighted=True).split(tmp_path / "weighted", 2, progress=False)
    made_index(1).split(tmp_path / "wide", 2, progress=False)
    total = len(one.pairs(6).ids_a)
    with ShardedIndex(tmp_path / "one") as many, ShardedIndex(tmp_path / "wide") as wide:
        assert len(many.pairs(6, limit=total).ids_a) == total
        for call, kind, message in [
            (lambda: many.pairs(-1), ValueError, "pairs: radius must be at least 0, got -1"),
            (lambda: many.pairs(1, limit=-1), ValueError, "pairs: limit must be at least 0, got -1"),
            (lambda: many.pairs(6, limit=total - 1), ValueError, r"pairs: radius 6 gives \d+ pairs.*, but limit is"),
            (lambda: many.pairs(1, wide), ValueError, "pairs: other must have codes of 16 bits, got 24"),
            (lambda: many.pairs(1, np.zeros((2, 3), np.uint8)), ValueError, "pairs: other"),
            (lambda: many.groups(1, link="chain"), ValueError, "groups: link must be 'single' or 'star', got 'chain'"),
            (lambda: many.groups(1, filter=[True]), ValueError, "groups: a boolean filter must have one value"),
        ]:
            with pytest.raises(kind, match=f"^ShardedIndex.{message}"):
                call()
        (tmp_path / "one" / "shard-00002" / "manifest.json").write_text("")
        with pytest.raises(
            ShardError, match=r"^ShardedIndex.pairs: no answer from 1 of 3 shards \(.*shard-00002: .*JSON"
        ):
            many.pairs(1)
    with (
        ShardedIndex(tmp_path / "weighted") as many,
        ShardedIndex(tmp_path / "wide") as wide,
        pytest.raises(
            ValueError,
            match=r"^ShardedIndex.pairs: other must have the same bit_weights, \[\(12, 3\), \(12, 1\)\], got None",
        ),
    ):
        many.pairs(1, wide)


def test_a_folder_that_changes_during_a_join_is_an_error(ray: OneProcessRay, tmp_path: Path) -> None:
    one = made_index(3)
    one.save(tmp_path)
    with ShardedIndex(tmp_path, 2) as many:
        with HammingIndex.open(tmp_path, writable=True) as writer:
            writer.compact()
        with pytest.raises(ShardError, match="segments were given to shards; refresh the ShardedIndex"):
            many.pairs(1)
        assert issubclass(IndexFolderError, ValueError)
