"""Metrics against brute force: every order of tied results, written out and averaged."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from fasthash.metrics import (
    average_cumulative_gain,
    expectation,
    hierarchical_precision,
    mean_average_precision,
    ndcg,
    precision_at,
    precision_recall_curve,
    precision_within_radius,
    ranking,
    recall_at,
)

SIMILARITY = np.array([[1.0, 0.7, 0.2], [0.7, 1.0, 0.0], [0.2, 0.0, 1.0]])


# The oracle: metrics of one order of results, averaged over all orders that the distances allow


def distances(query, database, metric, bit_weights=None):
    if metric == "hamming" and bit_weights is not None:
        weights = [weight for bits, weight in bit_weights for _ in range(bits)]
        differing = np.unpackbits(query ^ database, axis=1)[:, : len(weights)]
        return [int(distance) for distance in differing @ np.array(weights)]
    if metric == "hamming":
        return [sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(query, row, strict=True)) for row in database]
    if metric == "cosine":
        norms = np.linalg.norm(query) * np.linalg.norm(database, axis=1)
        cosines = np.divide(database @ query, norms, out=np.zeros(len(database)), where=norms > 0)
        return list(np.round(1 - cosines, 6))
    return list(np.abs(database - query).sum(1) if metric == "l1" else ((database - query) ** 2).sum(1))


def orders(dist, ties):
    """Every order of the results by distance: all of them, or only that of storage."""
    if ties == "index":
        return [sorted(range(len(dist)), key=lambda n: (dist[n], n))]
    runs = [[n for n in range(len(dist)) if dist[n] == d] for d in sorted(set(dist))]
    return [sum(order, ()) for order in itertools.product(*(itertools.permutations(run) for run in runs))]


def plain_ap(gains, at, divisor):
    relevant = [gain > 0 for gain in gains]
    cut = len(relevant) if at is None else at
    total = sum(sum(relevant[: i + 1]) / (i + 1) for i, hit in enumerate(relevant[:cut]) if hit)
    by = sum(relevant[:cut]) if divisor == "retrieved" else min(cut, sum(relevant))
    return total / by if by else 0.0


def plain_ahp(gains, at, variant):
    best = sorted(gains, reverse=True)
    hp = [sum(gains[: i + 1]) / sum(best[: i + 1]) if sum(best[: i + 1]) else 0.0 for i in range(at)]
    return (sum(hp) - (hp[0] + hp[-1]) / 2 if variant == "trapezoid" else sum(hp)) / at


def plain_ndcg(gains, k):
    def dcg(values):
        return sum(gain / math.log2(i + 2) for i, gain in enumerate(values[:k]))

    best = dcg(sorted(gains, reverse=True))
    return dcg(gains) / best if best else 0.0


def case_distances(case, query, database):
    return distances(query, database, case["metric"] or default_metric(query), case["bit_weights"])


def brute_force(case, gain, value, ties="expected"):
    """Mean over all orders of `value(gains in that order)`, for each query."""
    results = []
    for i, query in enumerate(case["query"]):
        keep = [n for n in range(len(case["database"])) if not (case["exclude_self"] and n == i)]
        dist = case_distances(case, query, case["database"][keep])
        gains = [gain(case["query_labels"][i], case["database_labels"][n]) for n in keep]
        results.append(np.mean([value([gains[n] for n in order]) for order in orders(dist, ties)]))
    return np.array(results)


def default_metric(query):
    return "hamming" if query.dtype == np.uint8 else "l1"


def same_class(a, b):
    return int((a & b).sum()) if isinstance(a, np.ndarray) else int(a == b)


def class_similarity(a, b):
    return SIMILARITY[a, b]


@st.composite
def cases(draw, multi_hot=None):
    """A few queries and up to 6 database rows, with many ties; codes or embeddings, classes or multi-hot labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    metric = draw(st.sampled_from(["hamming", None, "l1", "l2", "cosine"]))
    exclude_self = draw(st.booleans())
    n = draw(st.integers(2, 6))
    q = draw(st.integers(1, min(n, 3)))
    bit_weights = None
    if metric in ("hamming", None):
        weights = st.integers(1, 3)
        bit_weights = draw(
            st.none()
            | st.sampled_from([(4, 8), (4, 8, 4)]).flatmap(
                lambda sizes: st.tuples(*(st.tuples(st.just(bits), weights) for bits in sizes))
            )
        )
        database, query = (rng.integers(0, 4, (rows, 2)).astype(np.uint8) << 3 for rows in (n, q))
    else:
        database, query = (rng.integers(0, 3, (rows, 2)).astype(rng.choice(["f4", "f8"])) for rows in (n, q))
    if exclude_self:
        query = database[:q].copy()
    if draw(st.booleans()) if multi_hot is None else multi_hot:
        database_labels, query_labels = (rng.integers(0, 2, (rows, 3)).astype(np.int64) for rows in (n, q))
    else:
        database_labels, query_labels = rng.integers(0, 3, n), rng.integers(0, 3, q)
    if exclude_self and draw(st.booleans()):
        query_labels = database_labels[:q].copy()
    return {
        "query": query,
        "database": database,
        "query_labels": query_labels,
        "database_labels": database_labels,
        "metric": metric,
        "exclude_self": exclude_self,
        "bit_weights": bit_weights,
    }


def close(found, expected):
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


anything = settings(deadline=None, max_examples=120)
kinds_of_ties = st.sampled_from(["expected", "index"])


@given(cases(), kinds_of_ties, st.sampled_from(["retrieved", "possible"]), st.integers(1, 7) | st.none())
@anything
def test_mean_average_precision(case, ties, divisor, at):
    expected = brute_force(case, same_class, lambda gains: plain_ap(gains, at, divisor), ties)
    close(mean_average_precision(**case, at=at, divisor=divisor, ties=ties, per_query=True), expected)
    assert mean_average_precision(**case, at=at, divisor=divisor, ties=ties) == pytest.approx(expected.mean())


@given(cases(multi_hot=False), kinds_of_ties, st.sampled_from(["mean", "trapezoid"]), st.data())
@anything
def test_hierarchical_precision(case, ties, variant, data):
    at = data.draw(st.integers(1, len(case["database"]) - case["exclude_self"]))
    expected = brute_force(case, class_similarity, lambda gains: plain_ahp(gains, at, variant), ties)
    found = hierarchical_precision(
        **case, class_similarity=SIMILARITY, at=at, variant=variant, ties=ties, per_query=True
    )
    close(found, expected)


@given(cases(), kinds_of_ties, st.data())
@anything
def test_precision_and_recall_at(case, ties, data):
    k = data.draw(st.integers(1, len(case["database"]) - case["exclude_self"]))
    expected = brute_force(case, same_class, lambda gains: sum(g > 0 for g in gains[:k]) / k, ties)
    close(precision_at(**case, k=k, ties=ties, per_query=True), expected)

    def recall(gains):
        return sum(g > 0 for g in gains[:k]) / max(1, sum(g > 0 for g in gains))

    close(recall_at(**case, k=k, ties=ties, per_query=True), brute_force(case, same_class, recall, ties))


@given(cases(), kinds_of_ties, st.sampled_from(["exponential", "linear"]), st.data())
@anything
def test_ndcg(case, ties, gains, data):
    k = data.draw(st.integers(1, len(case["database"]) - case["exclude_self"]))

    def gain(a, b):
        return 2.0 ** same_class(a, b) - 1 if gains == "exponential" else same_class(a, b)

    expected = brute_force(case, gain, lambda values: plain_ndcg(values, k), ties)
    close(ndcg(**case, k=k, gains=gains, ties=ties, per_query=True), expected)


@given(cases(), kinds_of_ties, st.data())
@anything
def test_average_cumulative_gain(case, ties, data):
    k = data.draw(st.integers(1, len(case["database"]) - case["exclude_self"]))
    expected = brute_force(case, same_class, lambda gains: sum(gains[:k]) / k, ties)
    close(average_cumulative_gain(**case, k=k, ties=ties, per_query=True), expected)


@given(cases(multi_hot=False), st.data())
@anything
def test_ndcg_of_class_gains(case, data):
    k = data.draw(st.integers(1, len(case["database"]) - case["exclude_self"]))
    expected = brute_force(case, class_similarity, lambda values: plain_ndcg(values, k))
    close(ndcg(**case, k=k, gains=SIMILARITY, per_query=True), expected)


@given(cases(), st.sampled_from([0, 1, 1.5, 2, 100]))
@anything
def test_precision_within_radius(case, radius):
    expected = []
    for i, query in enumerate(case["query"]):
        keep = [n for n in range(len(case["database"])) if not (case["exclude_self"] and n == i)]
        dist = np.array(case_distances(case, query, case["database"][keep]))
        dist = np.sqrt(dist) if case["metric"] == "l2" else dist
        hits = [same_class(case["query_labels"][i], case["database_labels"][n]) > 0 for n in keep]
        expected.append(np.array(hits)[dist <= radius].mean() if (dist <= radius).any() else 0.0)
    close(precision_within_radius(**case, radius=radius, per_query=True), expected)


@given(cases(), kinds_of_ties)
@anything
def test_precision_recall_curve_by_rank(case, ties):
    size = len(case["database"]) - case["exclude_self"]
    curve = precision_recall_curve(**case, ties=ties)
    assert curve.thresholds.tolist() == list(range(1, size + 1))
    close(curve.precision, [precision_at(**case, k=k, ties=ties) for k in curve.thresholds])
    close(curve.recall, [recall_at(**case, k=k, ties=ties) for k in curve.thresholds])
    part = precision_recall_curve(**case, ties=ties, ranks=[1, size] if size > 1 else [1])
    close(part.precision, curve.precision[[0, -1] if size > 1 else [0]])


@given(cases())
@anything
def test_precision_recall_curve_by_radius(case):
    if case["query"].dtype != np.uint8:
        return
    curve = precision_recall_curve(**case, by="radius")
    radii = range(1 + sum(bits * weight for bits, weight in case["bit_weights"] or [(16, 1)]))
    assert curve.thresholds.tolist() == list(radii)
    close(curve.precision, [precision_within_radius(**case, radius=r) for r in radii])
    assert (np.diff(curve.recall) >= 0).all()
    some = [brute_force(case, same_class, lambda gains: float(any(g > 0 for g in gains)))]
    assert curve.recall[-1] == pytest.approx(np.mean(some))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(deadline=None, max_examples=10)
def test_expected_is_the_mean_over_all_storage_orders(seed, at):
    rng = np.random.default_rng(seed)
    database, labels = rng.integers(0, 4, (5, 1)).astype(np.uint8), rng.integers(0, 3, 5)
    query, query_labels = rng.integers(0, 4, (2, 1)).astype(np.uint8), rng.integers(0, 3, 2)
    calls = [
        lambda d, y, ties: mean_average_precision(query, d, query_labels, y, at=at, ties=ties),
        lambda d, y, ties: hierarchical_precision(query, d, query_labels, y, SIMILARITY, at=at, ties=ties),
        lambda d, y, ties: precision_at(query, d, query_labels, y, at, ties=ties),
        lambda d, y, ties: recall_at(query, d, query_labels, y, at, ties=ties),
        lambda d, y, ties: ndcg(query, d, query_labels, y, at, ties=ties),
        lambda d, y, ties: average_cumulative_gain(query, d, query_labels, y, at, ties=ties),
    ]
    for call in calls:
        shuffled = [call(database[list(p)], labels[list(p)], "index") for p in itertools.permutations(range(5))]
        assert call(database, labels, "expected") == pytest.approx(np.mean(shuffled), rel=1e-10, abs=1e-12)


def random_case(rng, q=20, n=200, bits=16, classes=3):
    query, database = (rng.integers(0, 256, (rows, bits // 8)).astype(np.uint8) for rows in (q, n))
    return query, database, rng.integers(0, classes, q), rng.integers(0, classes, n)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=6)
def test_order_of_the_database_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    query, database, a, b = random_case(rng)
    p = rng.permutation(len(database))
    for data in (database, database.astype(np.float32)):
        q = query.astype(data.dtype)
        for call in (
            lambda q, d, y: mean_average_precision(q, d, a, y, per_query=True),
            lambda q, d, y: mean_average_precision(q, d, a, y, at=30, per_query=True),
            lambda q, d, y: hierarchical_precision(q, d, a, y, SIMILARITY, at=50, per_query=True),
            lambda q, d, y: ndcg(q, d, a, y, 25, per_query=True),
        ):
            close(call(q, data, b), call(q, data[p], b[p]))


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
@settings(deadline=None, max_examples=30)
def test_bounds_and_monotony(seed, k):
    query, database, a, b = random_case(np.random.default_rng(seed))
    values = [
        mean_average_precision(query, database, a, b, per_query=True),
        mean_average_precision(query, database, a, b, at=k, per_query=True),
        mean_average_precision(query, database, a, b, at=k, divisor="possible", per_query=True),
        hierarchical_precision(query, database, a, b, SIMILARITY, at=k, per_query=True),
        ndcg(query, database, a, b, k, per_query=True),
    ]
    for value in values:
        assert value.min() >= 0
        assert value.max() <= 1 + 1e-12
    trapezoid = hierarchical_precision(query, database, a, b, SIMILARITY, at=k, variant="trapezoid", per_query=True)
    assert trapezoid.max() <= (k - 1) / k + 1e-12
    recalls = [recall_at(query, database, a, b, rank, per_query=True) for rank in (1, (k + 1) // 2, k, 200)]
    for fewer, more in itertools.pairwise(recalls):
        assert (more >= fewer - 1e-12).all()
    close(recalls[-1], 1.0)
    # Bringing a relevant item to the query's own code cannot hurt.
    better = database.copy()
    better[np.flatnonzero(b == a[0])[0]] = query[0]
    gains = [mean_average_precision(query[:1], d, a[:1], b) for d in (database, better)]
    assert gains[1] >= gains[0] - 1e-12


def test_perfect_ranking_scores_one():
    b = np.repeat([0, 1, 2], 20)
    database = np.array([0b00000000, 0b00011111, 0b11111111], dtype=np.uint8)[b][:, None]
    similarity = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.4], [0.0, 0.4, 1.0]])
    for k in (1, 7, 20, 45, 60):
        found = [
            mean_average_precision(database, database, b, b, at=k),
            mean_average_precision(database, database, b, b, at=k, divisor="possible"),
            hierarchical_precision(database[:20], database, b[:20], b, similarity, at=k),
            ndcg(database, database, b, b, k),
            ndcg(database[:20], database, b[:20], b, k, gains=similarity),
        ]
        np.testing.assert_allclose(found, 1.0)
    assert precision_at(database, database, b, b, 20) == 1.0
    assert hierarchical_precision(database[:20], database, b[:20], b, similarity, at=5, variant="trapezoid") == 0.8


def test_nothing_relevant_scores_zero():
    codes = np.array([[0], [1], [2]], dtype=np.uint8)
    for found in (
        mean_average_precision(codes[:1], codes, [9], [0, 1, 2]),
        mean_average_precision(codes[:1], codes, [9], [0, 1, 2], at=2),
        recall_at(codes[:1], codes, [9], [0, 1, 2], 2),
        ndcg(codes[:1], codes, [9], [0, 1, 2], 2),
        hierarchical_precision(codes[:1], codes, [2], [1, 1, 1], SIMILARITY, at=2),
        mean_average_precision(codes[:1], codes, np.zeros((1, 2), int), np.ones((3, 2), int)),
        mean_average_precision(codes[:1], codes, np.zeros((1, 0), int), np.zeros((3, 0), int)),
    ):
        assert found == 0.0


def test_without_ties_equal_scikit_learn():
    rng = np.random.default_rng(0)
    query, database = rng.random((8, 3)), rng.random((60, 3))
    a, b = rng.integers(0, 4, 8), rng.integers(0, 4, 60)
    dist = np.abs(query[:, None] - database).sum(-1)
    relevant = a[:, None] == b
    expected = [average_precision_score(r, -d) for r, d in zip(relevant, dist, strict=True)]
    for ties in ("expected", "index"):
        close(mean_average_precision(query, database, a, b, ties=ties, per_query=True), expected)
    for k in (1, 10, 60):
        assert ndcg(query, database, a, b, k, gains="linear") == pytest.approx(ndcg_score(relevant, -dist, k=k))


def test_tied_ndcg_equals_scikit_learn():
    rng = np.random.default_rng(1)
    query, database, a, b = random_case(rng, bits=8)
    dist = np.unpackbits(query[:, None] ^ database, axis=-1).sum(-1, dtype=float)
    for k in (1, 10, 100):
        expected = ndcg_score(a[:, None] == b, -dist, k=k)  # averages over ties as well
        assert ndcg(query, database, a, b, k) == pytest.approx(expected)


# The closed forms on large groups.


def exact_cut(before, found, size, relevant, inside):
    """E[AP@R, divisor retrieved] of one group after `before` results of which the first `found` are relevant."""
    value = Fraction(0)
    start = sum(Fraction(1) for _ in range(found))  # precisions at ranks 1..found are 1
    for j in range(max(0, inside - (size - relevant)), min(inside, relevant) + 1):
        chance = Fraction(math.comb(relevant, j) * math.comb(size - relevant, inside - j), math.comb(size, inside))
        # Given j, place i is relevant with chance j/inside, and then has (i-1)(j-1)/(inside-1) relevant before it.
        total = start + sum(
            Fraction(j, inside) * (found + 1 + Fraction((i - 1) * (j - 1), max(inside - 1, 1))) / (before + i)
            for i in range(1, inside + 1)
        )
        value += chance * total / (found + j) if found + j else 0
    return float(value)


@pytest.mark.parametrize(
    ("before", "found", "size", "relevant", "inside"),
    [(0, 0, 300, 40, 50), (10, 4, 200, 200, 7), (3, 0, 150, 1, 149), (40, 40, 90, 45, 1), (5, 1, 120, 0, 60)],
)
def test_cut_groups_equal_exact_fractions(before, found, size, relevant, inside):
    columns = [[1.0] * found + [float(before - found)] * (before > found) + [float(size), 3.0]]
    hits = [[1.0] * found + [0.0] * (before > found) + [float(relevant), 3.0]]
    value = expectation.average_precision(
        torch.tensor(columns, dtype=torch.float64), torch.tensor(hits, dtype=torch.float64), at=before + inside
    )
    assert value.item() == pytest.approx(exact_cut(before, found, size, relevant, inside), rel=1e-11)


def test_large_databases_keep_their_digits():
    counts = torch.tensor([[1.0, 999_999.0, 3.0, 1_000_000.0]], dtype=torch.float64)
    relevant = torch.tensor([[1.0, 5_000.0, 2.0, 17.0]], dtype=torch.float64)
    n, r = counts[0].tolist(), relevant[0].tolist()
    terms, before, found = [], 0, 0
    for size, hits in zip(n, r, strict=True):
        i = np.arange(1, size + 1)
        terms.append(hits / size * (found + (i - 1) * (hits - 1) / max(size - 1, 1) + 1) / (before + i))
        before, found = before + size, found + hits
    expected = math.fsum(np.concatenate(terms)) / found
    assert expectation.average_precision(counts, relevant).item() == pytest.approx(expected, rel=1e-9)


def test_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    query, database, a, b = random_case(rng)
    multi_a, multi_b = rng.random((20, 4)) < 0.3, rng.random((200, 4)) < 0.3

    def everything():
        for data in (database, database.astype(np.float64)):
            q = query.astype(data.dtype)
            yield mean_average_precision(q, data, a, b, per_query=True)
            yield mean_average_precision(q, data, multi_a, multi_b, at=40, per_query=True)
            yield hierarchical_precision(q, data, a, b, SIMILARITY, at=30, per_query=True)
            yield ndcg(q, data, multi_a, multi_b, 20, ties="index", per_query=True)
            yield ndcg(data[:20], data, multi_b[:20], multi_b, 20, exclude_self=True, per_query=True)
            yield precision_recall_curve(q, data, a, b).precision

    whole = list(everything())
    monkeypatch.setattr(ranking, "BLOCK", 97)
    monkeypatch.setattr(ranking, "PAIRS", 450)
    monkeypatch.setattr(expectation, "BLOCK", 97)
    for part, expected in zip(everything(), whole, strict=True):
        close(part, expected)
