import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash import metrics
from fasthash.evaluate import code_statistics, evaluate, overlap_at

SIMILARITY = np.array([[1.0, 0.7, 0.2], [0.7, 1.0, 0.0], [0.2, 0.0, 1.0]])


def data(seed, q=12, n=90):
    rng = np.random.default_rng(seed)
    query, database = (rng.integers(0, 256, (rows, 2)).astype(np.uint8) for rows in (q, n))
    return query, database, rng.integers(0, 3, q), rng.integers(0, 3, n)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("ties", ["expected", "index"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_evaluate_equals_the_metrics_one_by_one(kind, ties, exclude_self):
    query, database, a, b = data(0)
    if exclude_self:
        query, a = database[:12], b[:12]
    arguments = (query.astype(kind), database.astype(kind), a, b)
    options = {"ties": ties, "exclude_self": exclude_self}
    if kind == np.uint8 and exclude_self:
        options["bit_weights"] = [(3, 5), (8 * database.shape[1] - 3, 1)]
    found = evaluate(*arguments, class_similarity=SIMILARITY, k=7, at=40, **options)
    expected = {
        "mAP": metrics.mean_average_precision(*arguments, **options),
        "mAHP@40": metrics.hierarchical_precision(*arguments, SIMILARITY, at=40, **options),
        "P@1": metrics.precision_at(*arguments, 1, **options),
        "P@7": metrics.precision_at(*arguments, 7, **options),
        "R@7": metrics.recall_at(*arguments, 7, **options),
        "nDCG@7": metrics.ndcg(*arguments, 7, **options),
    }
    if kind == np.uint8:
        expected["P@radius2"] = metrics.precision_within_radius(
            *arguments, 2, exclude_self=exclude_self, bit_weights=options.get("bit_weights")
        )
        expected |= code_statistics(database)
    assert set(found) == set(expected)
    assert all(type(value) is float for value in found.values())
    assert found == pytest.approx(expected)


def test_evaluate_multi_hot_and_cut():
    query, database, _, _ = data(1)
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 2, (12, 4)), rng.integers(0, 2, (90, 4))
    found = evaluate(query, database, a, b, map_at=20, k=5)
    assert found["mAP@20"] == pytest.approx(metrics.mean_average_precision(query, database, a, b, at=20))
    assert found["nDCG@5"] == pytest.approx(metrics.ndcg(query, database, a, b, 5))
    assert found["P@5"] == pytest.approx(metrics.precision_at(query, database, a, b, 5))
    assert "mAP" not in found


def test_evaluate_takes_torch_and_counts_the_bits_given():
    query, database, a, b = data(2)
    query, database = query & 0xF0, database & 0xF0
    query[:, 0], database[:, 0] = query[:, 0] | 1, database[:, 0] | 1
    tensors = [torch.from_numpy(x) for x in (query, database, a, b)]
    assert evaluate(*tensors) == evaluate(query, database, a, b)
    assert evaluate(query, database, a, b, bits=12)["bit_entropy"] > evaluate(query, database, a, b)["bit_entropy"]


def test_evaluate_adds_the_overlap():
    query, database, a, b = data(3)
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((12, 5)), rng.standard_normal((90, 5))
    found = evaluate(query, database, a, b, query_input=x, database_input=y, k=4)
    assert found["overlap@4"] == overlap_at(query, database, x, y, a, b, 4)
    own = {"exclude_self": True, "k": 4}
    found = evaluate(database[:12], database, b[:12], b, query_input=y[:12], database_input=y, **own)
    assert found["overlap@4"] == overlap_at(database[:12], database, y[:12], y, b[:12], b, **own)
    assert found["overlap@4"] != overlap_at(database[:12], database, y[:12], y, b[:12], b, 4)


# Overlap_at


def plain_overlap(dist, true, k):
    """Mean of |A and B| / k over all tie orders of both."""

    def tops(distances):
        ranked = [order for order in itertools.permutations(range(len(distances))) if sorted_by(order, distances)]
        return [set(order[:k]) for order in ranked]

    def sorted_by(order, distances):
        return all(distances[i] <= distances[j] for i, j in itertools.pairwise(order))

    return np.mean([len(first & second) / k for first in tops(dist) for second in tops(true)])


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
@settings(deadline=None, max_examples=25)
def test_overlap_equals_brute_force(seed, k, exclude_self):
    rng = np.random.default_rng(seed)
    n, q = 9, 4
    database, b = rng.integers(0, 4, (n, 1)).astype(np.uint8), rng.integers(0, 2, n)
    y = rng.integers(0, 3, (n, 2)).astype(np.float32)
    if exclude_self:
        query, a, x = database[:q], b[:q], y[:q]
    else:
        query, a = rng.integers(0, 4, (q, 1)).astype(np.uint8), rng.integers(0, 3, q)
        x = rng.integers(0, 3, (q, 2)).astype(np.float32)
    found = overlap_at(query, database, x, y, a, b, k, exclude_self=exclude_self, per_query=True)
    expected = []
    for i in range(q):
        rows = [n for n in range(9) if b[n] == a[i] and not (exclude_self and n == i)]
        if len(rows) <= k or len(rows) > 6:
            expected.append(math.nan if len(rows) <= k else found[i])
            continue
        dist = [bin(int(query[i, 0]) ^ int(database[n, 0])).count("1") for n in rows]
        norms = np.linalg.norm(x[i]) * np.linalg.norm(y[rows], axis=1)
        true = np.round(1 - np.divide(y[rows] @ x[i], norms, out=np.zeros(len(rows)), where=norms > 0), 5)
        expected.append(plain_overlap(dist, true, k))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    mean = overlap_at(query, database, x, y, a, b, k, exclude_self=exclude_self)
    assert mean == pytest.approx(np.nanmean(expected) if not np.isnan(expected).all() else math.nan, nan_ok=True)


def test_overlap_of_weighted_codes():
    """Codes whose heavy bit repeats the input's order and whose light bits go against it."""
    x = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    codes = np.array([[0], [6], [1], [1]], dtype=np.uint8)
    arguments = codes[:1], codes[1:], x[:1], x[1:], [0], [0, 0, 0], 1
    assert overlap_at(*arguments) == 0.0
    assert overlap_at(*arguments, bit_weights=[(7, 1), (1, 3)]) == 1.0
    with pytest.raises(TypeError, match="overlap_at: bit_weights need packed uint8 codes, got float64 embeddings"):
        overlap_at(x, x, x, x, [0] * 4, [0] * 4, 1, bit_weights=[(8, 1)])


def test_overlap_extremes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 8)).astype(np.float32)
    y = np.repeat([0, 1], 50)
    assert overlap_at(x, x, x, x, y, y, 10, metric="cosine", exclude_self=True) == 1.0
    one_code = np.zeros((100, 1), dtype=np.uint8)
    assert overlap_at(one_code, one_code, x, x, y, y, 10) == pytest.approx(10 / 50)
    assert overlap_at(one_code, one_code, x, x, y, y, 10, exclude_self=True) == pytest.approx(10 / 49)
    found = overlap_at(*(torch.from_numpy(part) for part in (one_code, one_code, x, x, y, y)), 10, per_query=True)
    assert isinstance(found, torch.Tensor)
    assert math.isnan(overlap_at(one_code, one_code, x, x, y, y, 50))


# Code_statistics


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 20))
@settings(deadline=None)
def test_code_statistics_equal_the_definitions(seed, n, bits):
    rng = np.random.default_rng(seed)
    rows = (rng.random((n, bits)) < rng.random(bits)).astype(np.uint8)
    found = code_statistics(np.packbits(rows, axis=1), bits)
    p = rows.mean(0)
    inner = np.where((p > 0) & (p < 1), p, 0.5)
    entropy = np.where((p > 0) & (p < 1), -inner * np.log2(inner) - (1 - inner) * np.log2(1 - inner), 0)
    assert found["codes"] == len({tuple(row) for row in rows})
    assert found["bit_balance"] == pytest.approx(np.mean(2 * np.minimum(p, 1 - p)))
    assert found["bit_entropy"] == pytest.approx(entropy.mean())
    correlations = [
        abs(np.corrcoef(rows[:, i], rows[:, j])[0, 1]) if rows[:, i].std() > 0 and rows[:, j].std() > 0 else 0.0
        for i, j in itertools.combinations(range(bits), 2)
    ]
    assert found["bit_correlation"] == pytest.approx(np.mean(correlations) if correlations else 0.0, abs=1e-9)


CODES = np.zeros((3, 2), dtype=np.uint8)
X = np.ones((3, 4), dtype=np.float32)
Y = [0, 1, 1]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: code_statistics(X), TypeError, "code_statistics: codes must be packed uint8"),
        (lambda: code_statistics(CODES, 17), ValueError, "code_statistics: codes of 17 bits must be"),
        (lambda: code_statistics(CODES, 0), ValueError, "code_statistics: bits must be at least 1, got 0"),
        (lambda: code_statistics(CODES[:0]), ValueError, r"codes must not be empty, got shape \[0, 2\]"),
        (lambda: evaluate(CODES, CODES, Y, Y, k=4), ValueError, "evaluate: k must be between 1 and 3, got 4"),
        (
            lambda: evaluate(CODES, CODES, Y, Y, k=1, at=250, class_similarity=np.eye(2)),
            ValueError,
            "evaluate: at must be between 1 and 3, got 250",
        ),
        (lambda: evaluate(CODES, CODES, Y, Y, k=1, map_at=0), ValueError, "evaluate: map_at must be at least 1, got 0"),
        (
            lambda: evaluate(CODES, CODES, Y, Y, k=1, query_input=X),
            ValueError,
            "query_input and database_input must be given together, got one",
        ),
        (
            lambda: overlap_at(CODES, CODES, X[:2], X, Y, Y, 1),
            ValueError,
            "overlap_at: query_input must have 3 rows, got 2",
        ),
        (lambda: overlap_at(CODES, CODES, X, X, Y, Y[:2], 1), ValueError, "database_labels must have 3 rows, got 2"),
        (lambda: overlap_at(CODES, CODES, CODES, X, Y, Y, 1), TypeError, "must both be packed uint8 codes or both"),
        (lambda: overlap_at(CODES, CODES, CODES, CODES, Y, Y, 1), ValueError, "must be 'hamming', got 'cosine'"),
        (
            lambda: overlap_at(CODES, CODES, X, X, np.eye(3), np.eye(3), 1),
            TypeError,
            "overlap_at: labels must be 1-D classes, got multi-hot rows",
        ),
        (
            lambda: overlap_at(CODES, CODES[:2], X, X[:2], Y, Y[:2], 1, exclude_self=True),
            ValueError,
            "got 3 queries and 2 rows",
        ),
        (lambda: overlap_at(CODES, CODES, X, X, Y, Y, 4), ValueError, "overlap_at: k must be between 1 and 3, got 4"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
