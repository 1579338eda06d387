"""maxsim_topk against a plain double loop: uneven documents, ties, duplicates, and blocks of every size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fasthash
from fasthash import maxsim, reference

pytestmark = pytest.mark.usefixtures("one_thread")
Codes = np.ndarray[Any, np.dtype[np.uint8]]
CODES = np.random.default_rng(0).integers(0, 256, (12, 8), dtype=np.uint8)


def offsets_of(lengths: list[int]) -> list[int]:
    return [0, *np.cumsum(lengths, dtype=int).tolist()]


def oracle(
    queries: Codes, query_offsets: list[int], database: Codes, offsets: list[int], k: int
) -> tuple[list[list[int]], list[list[int]]]:
    """One pair of a query and a document at a time, from unpacked bits."""
    tokens, base = np.unpackbits(queries, axis=1), np.unpackbits(database, axis=1)
    distances, ids = [], []
    for q in range(len(query_offsets) - 1):
        scored = []
        for m in range(len(offsets) - 1):
            document = base[offsets[m] : offsets[m + 1]]
            total = sum(
                min(int((token != other).sum()) for other in document)
                for token in tokens[query_offsets[q] : query_offsets[q + 1]]
            )
            scored.append((total, m))
        scored.sort()
        distances.append([distance for distance, _ in scored[:k]])
        ids.append([m for _, m in scored[:k]])
    return distances, ids


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), max_size=5),
    st.sampled_from([1, 2, 8, 9]),
    st.sampled_from([1, 2, 256]),
    st.sampled_from([1, 3, 20, 1 << 18]),
    st.sampled_from([1, 3, 32]),
    st.sampled_from([1, 5, 1 << 22]),
    st.data(),
)
def test_equals_the_oracle_in_blocks_of_any_size(
    lengths: list[int],
    query_lengths: list[int],
    width: int,
    values: int,
    pairs: int,
    tokens: int,
    scores: int,
    data: st.DataObject,
) -> None:
    """Few values of a byte make equal tokens, equal documents and ties."""
    k = data.draw(st.integers(1, len(lengths)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    offsets, query_offsets = offsets_of(lengths), offsets_of(query_lengths)
    database = rng.integers(0, values, (offsets[-1], width), dtype=np.uint8)
    queries = rng.integers(0, values, (query_offsets[-1], width), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(maxsim._PAIRS, "cpu", pairs)
        patch.setattr(maxsim, "_TOKENS", tokens)
        patch.setattr(maxsim, "_SCORES", scores)
        found = fasthash.maxsim_topk(queries, query_offsets, database, offsets, k)
    assert (found.distances.dtype, found.ids.dtype) == (np.int32, np.int64)
    assert found.ids.shape == (len(query_lengths), k)
    assert (found.distances.tolist(), found.ids.tolist()) == oracle(queries, query_offsets, database, offsets, k)


def test_order_is_that_of_maxsim_of_signs() -> None:
    rng = np.random.default_rng(1)
    lengths, bits, tokens = rng.integers(1, 30, 200), 64, 20
    offsets = offsets_of(lengths.tolist())
    database, query = (rng.integers(0, 256, (n, bits // 8), dtype=np.uint8) for n in (offsets[-1], tokens))
    signs, own = (2 * np.unpackbits(codes, axis=1).astype(int) - 1 for codes in (database, query))
    similarity = np.maximum.reduceat(own @ signs.T, offsets[:-1], axis=1).sum(0)
    found = fasthash.maxsim_topk(query, [0, tokens], database, offsets, 200)
    assert found.ids[0].tolist() == np.argsort(-similarity, kind="stable").tolist()
    assert (bits * tokens - 2 * found.distances[0] == similarity[found.ids[0]]).all()


def test_documents_of_one_token_are_hamming_topk() -> None:
    found = fasthash.maxsim_topk(CODES[:5], range(6), CODES, range(13), 12)
    wanted = fasthash.hamming_topk(CODES[:5], CODES, 12)
    assert (found.ids == wanted.ids).all()
    assert (found.distances == wanted.distances).all()


def test_weights_of_bits() -> None:
    groups = [(16, 3), (48, 1)]
    offsets = [0, 2, 3, 7, 12]
    found = fasthash.maxsim_topk(CODES[:3], [0, 3], CODES, offsets, 4, bit_weights=groups)
    between = fasthash.hamming_distances(CODES[:3], CODES, bit_weights=groups)
    wanted = np.minimum.reduceat(between, offsets[:-1], axis=1).sum(0)
    assert found.ids[0].tolist() == np.argsort(wanted, kind="stable").tolist()
    assert found.distances[0].tolist() == sorted(wanted.tolist())


def test_queries_without_tokens_and_no_queries() -> None:
    found = fasthash.maxsim_topk(CODES[:2], [0, 0, 2, 2], CODES, [0, 6, 12], 2)
    assert found.ids[[0, 2]].tolist() == [[0, 1], [0, 1]]
    assert found.distances[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert fasthash.maxsim_topk(CODES[:0], [0], CODES, [0, 6, 12], 2).ids.shape == (0, 2)


def test_gives_the_kind_it_was_given() -> None:
    tensor = torch.from_numpy(CODES)
    found = fasthash.maxsim_topk(
        tensor[:4], torch.tensor([0, 4]), tensor, torch.tensor([0, 5, 12], dtype=torch.int32), 2
    )
    assert isinstance(found.ids, Tensor)
    assert (found.distances.dtype, found.ids.dtype) == (torch.int32, torch.int64)
    wide = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (12, 20), dtype=np.uint8))
    apart = wide[:, 3:11]
    found = fasthash.maxsim_topk(apart[:4], [0, 4], apart, [0, 5, 12], 2)
    again = fasthash.maxsim_topk(apart[:4].clone(), [0, 4], apart.clone(), [0, 5, 12], 2)
    assert torch.equal(found.ids, again.ids)
    assert torch.equal(found.distances, again.distances)


def test_segment_minima_of_other_devices() -> None:
    """The way of a GPU, run on the CPU."""
    distances = reference.hamming_distances(torch.from_numpy(CODES[:5]), torch.from_numpy(CODES))
    starts = np.array([0, 1, 7, 12])
    wanted = torch.stack([distances[:, a:b].amin(1) for a, b in itertools.pairwise(starts)], dim=1)
    assert torch.equal(maxsim._segment_minima(distances, starts), wanted)
    assert torch.equal(maxsim._scattered_minima(distances, starts), wanted)


def call(**changed: Any) -> Callable[[], Any]:
    arguments = {"queries": CODES[:3], "query_offsets": [0, 3], "database": CODES, "offsets": [0, 5, 12], "k": 2}
    return lambda: fasthash.maxsim_topk(**{**arguments, **changed})


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (call(k=3), ValueError, "k must be between 1 and 2, got 3"),
        (call(k=0), ValueError, "k must be between 1 and 2, got 0"),
        (call(offsets=[0, 5, 5, 12]), ValueError, "must give each document 1 to 12 tokens, got 0 for document 1"),
        (call(offsets=[0, 9, 5, 12]), ValueError, "must give each document 1 to 12 tokens, got -4 for document 1"),
        (call(query_offsets=[0, 3, 1, 3]), ValueError, "tokens, got -2 for query 1"),
        (call(offsets=[1, 12]), ValueError, "must begin with 0 and end with 12 (rows of database), got 1 and 12"),
        (call(query_offsets=[0, 2]), ValueError, "must begin with 0 and end with 3 (rows of queries), got 0"),
        (call(offsets=[[0, 12]]), ValueError, "offsets must have shape [count + 1], got [1, 2]"),
        (call(offsets=np.zeros(0, int)), ValueError, "offsets must have shape [count + 1], got [0]"),
        (call(offsets=[0.0, 12.0]), TypeError, "offsets must be integers, got float64"),
        (call(offsets=[False, True]), TypeError, "offsets must be integers, got bool"),
        (call(queries=CODES[:3, :4]), ValueError, "must have codes of one width, got 4 and 8 bytes"),
        (call(queries=CODES[:3].astype(float)), TypeError, "queries must be packed codes of dtype uint8, got float64"),
    ],
)  # fmt: skip
def test_errors_name_the_limit_and_the_value(wrong: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        wrong()
    assert str(caught.value).startswith("maxsim_topk: ")
    assert message in str(caught.value)


def test_a_query_whose_distance_would_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxsim, "_LARGEST", 130)  # of 64 bits each: two tokens
    with pytest.raises(ValueError, match="query_offsets must give each query 0 to 2 tokens, got 3 for query 0"):
        call()()
