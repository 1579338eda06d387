"""fasthash.cluster.merge_topk: the results of any shards become those of one index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import HammingIndex, hamming_topk
from fasthash.cluster import merge_topk


def oracle(distances: list[Any], ids: list[Any], k: int, missing: Any) -> tuple[list[Any], list[Any]]:
    near, who = [], []
    for query in range(len(distances[0])):
        pairs = sorted(
            (distance, number)
            for own, numbers in zip(distances, ids, strict=True)
            for distance, number in zip(own[query].tolist(), numbers[query].tolist(), strict=True)
            if number >= 0
        )[:k]
        pairs += [(missing, -1)] * (k - len(pairs))
        near.append([distance for distance, _ in pairs])
        who.append([number for _, number in pairs])
    return near, who


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_it_is_the_sorted_union(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shards, queries, k = data.draw(st.integers(1, 5)), data.draw(st.integers(0, 4)), data.draw(st.integers(1, 9))
    kind = data.draw(st.sampled_from([np.int32, np.int64, np.float32, np.float64, np.uint8]))
    numbers = rng.permutation(400)
    near, who = [], []
    for shard in range(shards):
        columns = data.draw(st.integers(0, 6))
        distances = np.sort(rng.integers(0, 4, (queries, columns)), axis=1).astype(kind)
        ids = np.stack([numbers[shard * 50 : shard * 50 + columns] for _ in range(queries)] or [numbers[:0]])
        ids = ids.reshape(queries, columns).astype(np.int64)
        gone = rng.random((queries, columns)) < 0.2
        ids[gone], distances[gone] = -1, 5
        near.append(distances)
        who.append(ids)
    empty = any((ids < 0).any() for ids in who)
    end = np.inf if np.issubdtype(kind, np.floating) else np.iinfo(kind).max
    expected = oracle(near, who, k, 5 if empty else end)
    found = merge_topk(near, who, k)
    assert (found.distances.dtype, found.ids.dtype) == (kind, np.int64)
    assert (found.distances.tolist(), found.ids.tolist()) == expected
    tensors = merge_topk([torch.from_numpy(own) for own in near], [torch.from_numpy(own) for own in who], k)
    assert isinstance(tensors.ids, torch.Tensor)
    assert (tensors.distances.tolist(), tensors.ids.tolist()) == expected


def test_shards_of_an_index_give_what_the_index_gives() -> None:
    codes = np.random.default_rng(0).integers(0, 4, (1000, 8), np.uint8)
    one = HammingIndex(64)
    one.add(codes)
    expected = one.search(codes[:20], 30)
    parts = [hamming_topk(codes[:20], codes[start : start + 250], 30) for start in range(0, 1000, 250)]
    found = merge_topk([p.distances for p in parts], [p.ids + 250 * n for n, p in enumerate(parts)], 30)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.ids, expected.ids)


def test_missing_places_are_padded_as_an_index_pads_them() -> None:
    few, none = HammingIndex(16), HammingIndex(16)
    few.add(np.zeros((2, 2), np.uint8))
    query = np.zeros((1, 2), np.uint8)
    parts = [few.search(query, 4), none.search(query, 4)]
    found = merge_topk([p.distances for p in parts], [p.ids for p in parts], 6)
    assert found.distances.tolist() == [[0, 0, 17, 17, 17, 17]]
    assert found.ids.tolist() == [[0, 1, -1, -1, -1, -1]]


def test_a_code_at_infinity_comes_before_a_missing_one() -> None:
    inf = np.inf
    found = merge_topk([np.array([[inf, inf]]), np.array([[1.0, inf]])], [np.array([[-1, -1]]), np.array([[3, 7]])], 3)
    assert found.ids.tolist() == [[3, 7, -1]]


def test_one_array_holds_all_shards_too() -> None:
    distances, ids = np.array([[[1, 4]], [[2, 3]]], np.int32), np.array([[[0, 1]], [[2, 3]]])
    assert merge_topk(distances, ids, 3).ids.tolist() == [[0, 2, 3]]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"k": 0}, ValueError, "k must be at least 1|k must be between 1"),
    ({"k": 2.0}, TypeError, "k must be an integer, got 2.0"),
    ({"distances": []}, ValueError, "must have the same number of shards, got 0 and 1"),
    ({"ids": []}, ValueError, "must have the same number of shards, got 1 and 0"),
    ({"distances": 3}, TypeError, "distances must be a list of arrays, one a shard, got int"),
    (
        {"distances": [np.zeros((2, 2), np.int32)]},
        ValueError,
        r"must be \[2, K\], got \[2, 2\] and \[1, 2\] of shard 0",
    ),
    ({"distances": [np.zeros(2, np.int32)]}, ValueError, r"must be \[2, K\], got \[2\] and \[1, 2\] of shard 0"),
    ({"ids": [np.zeros((1, 2), np.int32)]}, TypeError, "ids must be int64, got int32 of shard 0"),
    ({"distances": [np.zeros((1, 2), np.bool_)]}, TypeError, "distances must be numbers of one type, got bool"),
    (
        {
            "distances": [np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32)],
            "ids": [np.zeros((1, 2), np.int64)] * 2,
        },
        TypeError,
        "got float32 of shard 1 and int32 of shard 0",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), WRONG)
def test_errors(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    right: dict[str, Any] = {"distances": [np.zeros((1, 2), np.int32)], "ids": [np.zeros((1, 2), np.int64)], "k": 1}
    with pytest.raises(kind, match=f"^merge_topk: .*({message})"):
        merge_topk(**{**right, **change})


def test_the_package_does_not_import_ray() -> None:
    code = "import sys, fasthash.cluster; fasthash.cluster.merge_topk; print('ray' in sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
