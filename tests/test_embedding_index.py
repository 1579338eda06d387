"""EmbeddingIndex: embeddings and keys in, answers out; against an exact search, on disk, and every refusal."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
import torch
from embedding_cases import ENCODERS, HASHER, METRICS, REFINES, F, Q, X, rows
from numpy.typing import NDArray

import fasthash
from fasthash import EmbeddingIndex
from fasthash.index.vectors import Vectors


def exact(queries: Any, X: Any, metric: str) -> NDArray[np.float64]:
    """Scores [Q, N], one by one."""
    q, x = np.asarray(queries, np.float64), np.asarray(X, np.float64)
    if metric == "l2":
        return np.array([[np.linalg.norm(a - b) for b in x] for a in q])
    scores = np.array([[a @ b for b in x] for a in q])
    return scores / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(x, axis=1)) if metric == "cosine" else scores


def nearest(scores: NDArray[np.float64], ids: Any, k: int, metric: str) -> tuple[NDArray[Any], NDArray[Any]]:
    order = np.lexsort((np.broadcast_to(ids, scores.shape), scores if metric == "l2" else -scores))[:, :k]
    return np.take_along_axis(scores, order, 1), np.asarray(ids)[order]


# Against an exact search


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("refine", REFINES[1:])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_all_candidates_are_an_exact_search(encoder: str, refine: str, metric: str) -> None:
    index = EmbeddingIndex(ENCODERS[encoder], refine=refine, metric=metric)
    ids = np.random.default_rng(2).permutation(1000)[: len(X)]
    index.add(X, ids=ids)
    found = index.search(Q, 10, oversample=20)
    scores = exact(Q, X, metric)
    expected, near = nearest(scores, ids, 10, metric)
    off = {"int8": 0.05, "float16": 2e-3, "float32": 1e-5}[refine]
    off *= 1 if metric == "cosine" else 10
    np.testing.assert_allclose(found.scores, expected, atol=off)
    if refine == "float32":
        np.testing.assert_array_equal(found.ids, near)
    place = {id: row for row, id in enumerate(ids.tolist())}
    own = np.take_along_axis(scores, np.vectorize(place.get)(found.ids), 1)
    np.testing.assert_allclose(found.scores, own, atol=off)
    assert found.keys is None


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_candidates_are_the_nearest_codes_of_queries_as_they_are(encoder: str, metric: str) -> None:
    own: Any = ENCODERS[encoder]
    index = EmbeddingIndex(own, refine="float32", metric=metric)
    index.add(X)
    assert index.codes._contents.scaled == (encoder in ("rabitq", "osq 2") and metric != "cosine")
    if index.codes._contents.scaled:
        form = "l2" if metric == "l2" else "dot"
        codes = own.encode(X)
        given = {"code_scale": own.scales(X, codes, metric=form), "metric": form}
        near = fasthash.asymmetric_topk(own.queries(Q, metric=form), codes, 20, **given).ids
    elif encoder in ("rabitq", "osq 2"):
        queries = own.queries(Q - own.mean.numpy(), metric="dot")
        near = fasthash.asymmetric_topk(queries, own.encode(X), 20, metric="dot").ids
    else:
        near = index.codes.search(own.queries(Q), 20, rescore="all").ids
    found = index.search(Q, 4, oversample=5)
    scores = exact(Q, X, metric)
    for query, own_ids in enumerate(near):
        wanted = nearest(scores[query : query + 1, own_ids], own_ids, 4, metric)[1][0]
        np.testing.assert_array_equal(found.ids[query], wanted)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "hasher"])
def test_estimated_scores_are_those_of_what_codes_give_back(encoder: str, metric: str) -> None:
    """Against the formula of the page, with codes and weights taken apart here."""
    own: Any = ENCODERS[encoder]
    signs = 2.0 * np.unpackbits(own.encode(X), axis=1)[:, : own.bits] - 1
    mean = own.mean.double().numpy()
    if encoder in ("itq", "lsh"):
        weights = own.weights.double().numpy()
        both = weights @ weights.T
        back = mean + np.trace(both) / np.trace(both @ both) * own.unit * signs @ weights.T
    else:
        levels = np.einsum("p,npf->nf", own.weights.double().numpy(), signs.reshape(len(X), -1, F))
        points = own.unit * (levels if own.rotation is None else levels @ own.rotation.double().numpy().T)
        back = mean + points
        if metric == "dot":
            back = mean + own.scales(X, own.encode(X)).astype(np.float64)[:, None] * points
        elif metric == "l2":  # as far off as the row is
            lengths = np.linalg.norm(X - mean, axis=1, keepdims=True)
            back = mean + lengths * points / np.linalg.norm(points, axis=1, keepdims=True)
    index = EmbeddingIndex(own, metric=metric)
    index.add(X)
    found = index.search(Q, 5, oversample=40)
    scores = exact(Q, back, metric)
    np.testing.assert_allclose(found.scores, nearest(scores, np.arange(len(X)), 5, metric)[0], rtol=2e-3, atol=1e-5)


def test_estimated_scores_of_a_hasher() -> None:
    index = EmbeddingIndex(HASHER)
    index.add(X)
    found = index.search(Q, 5, oversample=40)
    distances = index.codes.search(HASHER.queries(Q), 5, rescore=40).distances
    largest = sum(count * weight for count, weight in HASHER.bit_weights_ or [(24, 1)])
    np.testing.assert_allclose(found.scores, 1 - 2 * distances / largest, atol=1e-6)


def test_stored_rows_find_more_than_codes_alone() -> None:
    base, queries = rows(2000, seed=3), rows(50, seed=4)
    truth = nearest(exact(queries, base, "cosine"), np.arange(2000), 10, "cosine")[1]
    overlap = {}
    for refine, oversample in ((None, 1), ("int8", 1), ("int8", 10), ("float32", 10)):
        index = EmbeddingIndex("rabitq", refine=refine)
        index.add(base)
        found = index.search(queries, 10, oversample=oversample).ids
        overlap[refine, oversample] = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]
        )
    assert overlap[None, 1] == overlap["int8", 1] < overlap["int8", 10] - 0.2
    assert abs(overlap["int8", 10] - overlap["float32", 10]) < 0.05


def test_ties_go_to_the_lowest_id() -> None:
    index = EmbeddingIndex(ENCODERS["itq"], refine="int8")
    index.add(np.tile(X[:1], (9, 1)), ids=[8, 3, 5, 90, 1, 4, 70, 6, 2])
    assert index.search(X[0], 4).ids.tolist() == [[1, 2, 3, 4]]


# What is stored


@pytest.mark.parametrize(("kind", "bytes"), [("int8", F + 4), ("float16", 2 * F), ("float32", 4 * F)])
def test_how_far_stored_values_are_off(kind: str, bytes: int) -> None:
    values = np.concatenate([X, np.zeros((1, F), np.float32), X * 1e-6, X * 1e4]).astype(np.float32)
    held = Vectors.of(values, kind, "f")
    off = np.abs(held.values() - values)
    most = {"int8": np.abs(values).max(1, keepdims=True) / 253.9, "float16": np.abs(values) / 2048 + 2**-25}
    assert (off <= most.get(kind, np.zeros_like(values))).all()
    assert held.row_bytes == bytes


def test_rows_that_float16_cannot_hold() -> None:
    index = EmbeddingIndex(ENCODERS["itq"], refine="float16", metric="dot")
    with pytest.raises(
        ValueError, match=r"EmbeddingIndex.add: rows stored as float16 must have values within 65504, got 100000"
    ):
        index.add(np.full((2, F), 1e5, np.float32))
    assert len(index) == 0


# Keys, filters, changes


def test_keys_and_filters_and_changes() -> None:
    index = EmbeddingIndex(ENCODERS["rabitq"], refine="float32")
    odd = ["a\0", "ü", unicodedata.normalize("NFD", "ü"), "x" * 10_000, "😀", "-1"]
    assert index.add(X[:6], odd).tolist() == [0, 1, 2, 3, 4, 5]
    found = index.search(X[:6], 1)
    assert found.keys[:, 0].tolist() == odd
    assert "ü" in index
    assert 5 in index
    assert "y" not in index
    allowed = index.search(X[0], 3, filter=["ü", "😀", "not there"])
    assert set(allowed.ids[0].tolist()) == {1, 4, -1}
    assert allowed.keys[0, -1] is None
    assert allowed.scores[0, -1] == -np.inf
    assert index.search(X[0], 2, filter=np.array([2, 3])).ids.tolist()[0][0] in (2, 3)
    mask = np.array([False, True, False, False, False, False])
    assert index.search(X[0], 1, filter=mask).ids.tolist() == [[1]]
    with pytest.raises(ValueError, match=r"^EmbeddingIndex.add: key 'ü' is in the index already"):
        index.add(X[7], ["ü"])
    index.add(X[7], ["ü"], replace=True)
    assert index.search(X[7], 1).keys.tolist() == [["ü"]]
    assert len(index) == 6
    assert index.remove(keys=["ü", "none"]) == 1
    assert index.remove([0, 99]) == 1
    assert "ü" not in index
    index.compact()
    assert index.search(X[7], 1).keys[0, 0] != "ü"
    with pytest.raises(ValueError, match=r"^EmbeddingIndex.add: the index has keys, so 1 codes need keys="):
        index.add(X[8])


def test_kinds_of_arrays() -> None:
    index = EmbeddingIndex(ENCODERS["itq"], refine="int8")
    assert isinstance(index.add(torch.from_numpy(X[:100])), torch.Tensor)
    assert isinstance(index.add(X[100:].astype(np.float64)), np.ndarray)
    found, same = index.search(torch.from_numpy(Q), 3), index.search(Q, 3)
    assert isinstance(found.scores, torch.Tensor)
    assert (found.scores.dtype, found.ids.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(found.ids.numpy(), same.ids)
    np.testing.assert_array_equal(found.scores.numpy(), same.scores)
    np.testing.assert_array_equal(index.search(Q[0], 3).ids, same.ids[:1])
    assert index.search(Q[:0], 3).ids.shape == (0, 3)
    assert index.add(X[:0]).tolist() == []


@pytest.mark.parametrize("refine", [None, "int8"])
@pytest.mark.parametrize("metric", METRICS)
def test_more_results_than_rows(refine: str | None, metric: str) -> None:
    index = EmbeddingIndex(ENCODERS["itq"], refine=refine, metric=metric)
    worst = np.inf if metric == "l2" else -np.inf
    empty = index.search(Q, 2)
    assert empty.ids.tolist() == [[-1, -1]] * len(Q)
    assert (empty.scores == worst).all()
    index.add(X[:3])
    found = index.search(Q, 5)
    assert (np.sort(found.ids[:, :3]) == [0, 1, 2]).all()
    assert (found.ids[:, 3:] == -1).all()
    assert (found.scores[:, 3:] == worst).all()
    index.remove([0, 1, 2])
    assert (index.search(Q, 5).ids == -1).all()


# Encoders by name


@pytest.mark.parametrize("name", ["itq", "lsh", "pca_sign", "osq", "rabitq", "turboquant"])
def test_names_are_fitted_on_the_first_rows(name: str) -> None:
    index = EmbeddingIndex(name, refine="int8")
    assert "fitted" not in repr(index)
    with pytest.raises(ValueError, match=f"encoder '{name}' is not fitted, add rows first"):
        index.search(Q, 1)
    assert len(index) == 0
    assert index.ids.tolist() == []
    assert 3 not in index
    assert index.remove([3]) == 0
    index.add(X)
    assert index.codes.bits == F
    first = index.encoder
    index.add(rows(50, seed=9) * 100)
    assert index.encoder is first
    assert (index.search(X[:20], 1).scores > 0.99).all()


def test_names_take_directions_for_cosines() -> None:
    """Rows over their lengths give the same codes."""
    long = X * np.random.default_rng(0).uniform(0.01, 100, (len(X), 1)).astype(np.float32)
    one, other = EmbeddingIndex("rabitq"), EmbeddingIndex("rabitq")
    one.add(X)
    other.add(long)
    differ = np.unpackbits(one.codes.get(one.ids) ^ other.codes.get(one.ids)).mean()
    assert differ < 0.001
    plain = EmbeddingIndex("rabitq", metric="dot")
    plain.add(long)
    assert np.unpackbits(one.codes.get(one.ids) ^ plain.codes.get(one.ids)).mean() > 0.02


def test_bits_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bits in (("itq", 8), ("lsh", 100), ("osq", 2 * F), ("turboquant", 4 * F)):
        index = EmbeddingIndex(name, bits=bits)
        index.add(X)
        assert index.codes.bits == bits
    for name, bits, message in (
        ("itq", F + 1, f"EmbeddingIndex.add: bits of 'itq' must be at most the {F} features, got {F + 1}"),
        ("rabitq", F + 1, f"bits of 'rabitq' must be 1 to 4 times the {F} features, got {F + 1}"),
        ("osq", 5 * F, f"bits of 'osq' must be 1 to 4 times the {F} features, got {5 * F}"),
    ):
        index = EmbeddingIndex(name, bits=bits)
        with pytest.raises(ValueError, match=message):
            index.add(X)
        assert len(index) == 0
    with pytest.raises(
        ValueError,
        match="'itq' of 16 bits is fitted on the first rows that are added and needs at least 16, got 3; add more",
    ):
        EmbeddingIndex("itq").add(X[:3])
    monkeypatch.setattr("fasthash.embeddings.embedding_index.FIT_ROWS", 50)
    index, other = EmbeddingIndex("itq"), EmbeddingIndex("itq")
    index.add(X)
    other.add(np.concatenate([X[:50], rows(30, seed=8)]))
    assert torch.equal(index.encoder.weights, other.encoder.weights)  # type: ignore[union-attr]


# Refusals


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EmbeddingIndex("itqq"), ValueError, "EmbeddingIndex: encoder must be 'itq', 'lsh', .*, got 'itqq'"),
        (lambda: EmbeddingIndex(3), TypeError, "EmbeddingIndex: encoder must be a fitted Hasher, .*, got int"),
        (lambda: EmbeddingIndex(fasthash.Hasher()), ValueError, "encoder must be fitted, got a Hasher before fit"),
        (lambda: EmbeddingIndex(HASHER, bits=64), ValueError, "bits must be None for an encoder object"),
        (lambda: EmbeddingIndex("itq", bits=0), ValueError, "EmbeddingIndex: bits must be between 1 and 65536, got 0"),
        (lambda: EmbeddingIndex("itq", refine="int4"), ValueError, "refine must be 'int8', 'float16' or 'float32'"),
        (lambda: EmbeddingIndex("itq", metric="l1"), ValueError, "metric must be 'cosine', 'dot' or 'l2', got 'l1'"),
        (lambda: EmbeddingIndex(HASHER, metric="l2"), ValueError, "metric 'l2' with a Hasher needs refine"),
        (lambda: EmbeddingIndex("itq").save("x"), ValueError, "encoder 'itq' is not fitted"),
    ],
)
def test_what_cannot_be_made(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("encoder", ["hasher", "itq", "rabitq"])
def test_rows_that_are_refused(encoder: str) -> None:
    index = EmbeddingIndex(ENCODERS[encoder], refine="int8")
    index.add(X)
    bad = X.copy()
    bad[17, 3] = np.nan
    for call, name, given in ((index.add, "add: X", bad), (lambda Q: index.search(Q, 1), "search: Q", bad)):
        message = f"^EmbeddingIndex.{name} must be finite in float32, got NaN or infinity in row 17$"
        with pytest.raises(ValueError, match=message):
            call(given)
        with pytest.raises(ValueError, match=f"^EmbeddingIndex.{name} must have {F} features, got {F + 1}$"):
            call(np.zeros((2, F + 1), np.float32))
        with pytest.raises(TypeError, match=f"^EmbeddingIndex.{name} must be"):
            call(["text"])
    assert len(index) == len(X)
    for options, message in (
        ({"k": 0}, "k must be"),
        ({"k": 1, "oversample": 0}, "oversample must be between 1 and .*, got 0"),
    ):
        with pytest.raises(ValueError, match=f"^EmbeddingIndex.search: {message}"):
            index.search(Q, **options)
    with pytest.raises(ValueError, match=r"^EmbeddingIndex.refresh: the index is in memory"):
        index.refresh()
    with pytest.raises(ValueError, match=r"^EmbeddingIndex.search: a boolean filter must have"):
        index.search(Q, 1, filter=np.ones(3, bool))
