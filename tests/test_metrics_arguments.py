"""Metrics: numpy and torch, labels of any kind, devices, and every error message."""

import numpy as np
import pytest
import torch
from test_metrics import SIMILARITY, close, random_case

from fasthash.metrics import (
    hierarchical_precision,
    mean_average_precision,
    ndcg,
    precision_at,
    precision_recall_curve,
    precision_within_radius,
    ranking,
    recall_at,
)


def test_numpy_and_torch_give_their_own_kind():
    query, database, a, b = random_case(np.random.default_rng(3))
    expected = mean_average_precision(query, database, a, b, per_query=True)
    assert isinstance(expected, np.ndarray)
    assert isinstance(mean_average_precision(query, database, a, b), float)
    t = [torch.from_numpy(x) for x in (query, database, a, b)]
    found = mean_average_precision(*t, per_query=True)
    assert isinstance(found, torch.Tensor)
    close(found.numpy(), expected)
    close(mean_average_precision(query, t[1], a, t[3], per_query=True), expected)
    database.setflags(write=False)
    close(mean_average_precision(query[:, ::-1], database[:, ::-1], a, b, per_query=True), expected)
    curve = precision_recall_curve(*t)
    assert all(isinstance(part, torch.Tensor) for part in curve)
    assert hierarchical_precision(*t, torch.from_numpy(SIMILARITY), at=9) == pytest.approx(
        hierarchical_precision(query, database, a, b, SIMILARITY, at=9)
    )


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("ties", ["expected", "index"])
def test_devices_agree(device, kind, ties):
    arrays = [torch.from_numpy(part) for part in random_case(np.random.default_rng(7))]
    query, database, a, b = (part.to(device) for part in arrays)
    on_cpu = (arrays[0].to(kind), arrays[1].to(kind), *arrays[2:])
    for call in (mean_average_precision, lambda *parts, **options: ndcg(*parts, 25, **options)):
        found = call(query.to(kind), database.to(kind), a, b, ties=ties, exclude_self=True, per_query=True)
        assert found.device.type == device.type
        close(found.cpu().numpy(), call(*on_cpu, ties=ties, exclude_self=True, per_query=True).numpy())


def test_labels_of_any_kind():
    query, database, a, b = random_case(np.random.default_rng(4))
    expected = mean_average_precision(query, database, a, b, per_query=True)
    names = np.array(["x", "yy", "z"])
    for first, second in (
        (names[a], names[b]),
        (names[a].tolist(), names[b].astype(object)),
        (a.tolist(), b.astype(np.uint8)),
        (a.astype(np.int8), b.astype(np.uint64)),
        (a - 7, b - 7),
        (np.eye(3, dtype=int)[a], np.eye(3, dtype=bool)[b]),
        (torch.eye(3)[a], np.eye(3)[b]),
    ):
        close(mean_average_precision(query, database, first, second, per_query=True), expected)


def test_half_precision_and_mixed_floats():
    rng = np.random.default_rng(5)
    query, database = rng.integers(0, 3, (4, 5)), rng.integers(0, 3, (30, 5))
    a, b = rng.integers(0, 3, 4), rng.integers(0, 3, 30)
    expected = precision_at(query.astype(float), database.astype(float), a, b, 5, per_query=True)
    for q, d in (("f2", "f2"), ("f4", "f8"), ("f8", "f4")):
        close(precision_at(query.astype(q), database.astype(d), a, b, 5, per_query=True), expected)


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine"])
def test_equal_rows_are_ties_wherever_they_are_stored(metric):
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((7, 33)).astype(np.float32)
    database = rows[rng.integers(0, 7, 1000)]
    found = ranking.pair_distances(*ranking.check_items("f", rows, database, metric))
    for distance in found:
        assert len(torch.unique(distance)) == 7
    if metric == "cosine":  # whatever order the matrix product adds in
        assert (found.double() * 2**23 % 0.5 == 0).all()


CODES = np.zeros((3, 2), dtype=np.uint8)
FLOATS = np.zeros((3, 2), dtype=np.float32)
Y = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: mean_average_precision(CODES, FLOATS, Y, Y),
            TypeError,
            "mean_average_precision: query and database must both be packed uint8 codes or both floating point, "
            "got uint8 and float32",
        ),
        (lambda: precision_at(Y[:, None], Y[:, None], Y, Y, 1), TypeError, "got int64 and int64"),
        (
            lambda: precision_at(CODES[0], CODES, Y, Y, 1),
            ValueError,
            r"precision_at: query must have shape \[rows, columns\]",
        ),
        (lambda: precision_at(CODES, CODES[:0], Y, Y[:0], 1), ValueError, r"database must have .* got \[0, 2\]"),
        (
            lambda: recall_at(CODES, CODES[:, :1], Y, Y, 1),
            ValueError,
            "must have the same number of columns, got 2 and 1",
        ),
        (lambda: ndcg(CODES, CODES, Y[:2], Y, 1), ValueError, "ndcg: query_labels must have 3 rows like query, got 2"),
        (
            lambda: ndcg(CODES, CODES, Y, Y[:2], 1),
            ValueError,
            "ndcg: database_labels must have 3 rows like database, got 2",
        ),
        (
            lambda: ndcg(CODES, CODES, Y, Y, 1, gains="square"),
            ValueError,
            'gains must be "exponential", "linear" or a .* got \'square\'',
        ),
        (
            lambda: ndcg(CODES, CODES, Y, Y, 1, gains=np.eye(2)),
            ValueError,
            "ndcg: query_labels must be between 0 and 1 to index gains, got 0 to 2",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y, Y, metric="l1"),
            ValueError,
            "metric for packed uint8 codes must be 'hamming', got 'l1'",
        ),
        (
            lambda: mean_average_precision(FLOATS, FLOATS, Y, Y, metric="hamming"),
            ValueError,
            "must be 'l1', 'l2' or 'cosine', got 'hamming'",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y, Y, ties="random"),
            ValueError,
            "ties must be 'expected' or 'index', got 'random'",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y, Y, divisor="all"),
            ValueError,
            "divisor must be 'retrieved' or 'possible', got 'all'",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y, Y, at=0),
            ValueError,
            "mean_average_precision: at must be at least 1, got 0",
        ),
        (lambda: mean_average_precision(CODES, CODES, Y, Y, at=2.5), TypeError, "at must be an integer, got 2.5"),
        (lambda: precision_at(CODES, CODES, Y, Y, True), TypeError, "precision_at: k must be an integer, got True"),
        (
            lambda: mean_average_precision(CODES, CODES, Y[:, None] == Y, Y),
            ValueError,
            r"both be \[rows\] or both \[rows, L\] .* \[3, 3\] and \[3\]",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y, ["a", "b", "c"]),
            TypeError,
            "must be of one kind, got int64 and <U1",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, Y * 0.5, Y),
            TypeError,
            "query_labels must hold integer or string classes, got float64",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, np.stack([Y, Y], 1), np.stack([Y, Y], 1)),
            ValueError,
            "query_labels with 2 dimensions must be multi-hot, 0 or 1",
        ),
        (
            lambda: mean_average_precision(CODES, CODES, 1, Y),
            ValueError,
            r"query_labels must be 1-D classes or 2-D multi-hot, got shape \[\]",
        ),
        (lambda: mean_average_precision(FLOATS * np.nan, FLOATS, Y, Y), ValueError, "query has NaN or infinite values"),
        (
            lambda: mean_average_precision(FLOATS, FLOATS + np.inf, Y, Y),
            ValueError,
            "database has NaN or infinite values",
        ),
        (
            lambda: mean_average_precision(CODES, CODES[:2], Y, Y[:2], exclude_self=True),
            ValueError,
            "got 3 queries and 2 rows",
        ),
        (
            lambda: mean_average_precision(CODES[:1], CODES[:1], Y[:1], Y[:1], exclude_self=True),
            ValueError,
            "exclude_self needs a database of at least 2 rows",
        ),
        (lambda: precision_at(CODES, CODES, Y, Y, 4), ValueError, "precision_at: k must be between 1 and 3, got 4"),
        (
            lambda: recall_at(CODES, CODES, Y, Y, 3, exclude_self=True),
            ValueError,
            "recall_at: k must be between 1 and 2, got 3",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y, np.eye(3)),
            ValueError,
            "hierarchical_precision: at must be between 1 and 3, got 250",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y, np.eye(3), at=1, variant="sum"),
            ValueError,
            "variant must be 'mean' or 'trapezoid', got 'sum'",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y, np.ones((3, 2)), at=1),
            ValueError,
            r"class_similarity must have shape \[C, C\], got \[3, 2\]",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y, -np.eye(3), at=1),
            ValueError,
            "class_similarity must be finite and not negative",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y, np.eye(3) * np.nan, at=1),
            ValueError,
            "class_similarity must be finite",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, Y, Y - 1, np.eye(3), at=1),
            ValueError,
            "database_labels must be between 0 and 2 to index class_similarity, got -1 to 1",
        ),
        (
            lambda: hierarchical_precision(CODES, CODES, list("abc"), list("abc"), np.eye(3), at=1),
            TypeError,
            "class_similarity needs 1-D integer labels that index it, got text; number the classes in the order of its "
            "rows",
        ),
        (
            lambda: precision_within_radius(CODES, CODES, Y, Y, "a"),
            TypeError,
            "radius must be a number, got 'a' \\(str\\)",
        ),
        (lambda: precision_within_radius(CODES, CODES, Y, Y, -1), ValueError, "radius must be >= 0 and finite, got -1"),
        (
            lambda: precision_within_radius(CODES, CODES, Y, Y, float("nan")),
            ValueError,
            "radius must be >= 0 and finite, got nan",
        ),
        (
            lambda: precision_recall_curve(CODES, CODES, Y, Y, by="bits"),
            ValueError,
            "by must be 'rank' or 'radius', got 'bits'",
        ),
        (
            lambda: ndcg(FLOATS, FLOATS, Y, Y, 1, bit_weights=[(16, 1)]),
            TypeError,
            "ndcg: bit_weights need packed uint8 codes, got float32 embeddings",
        ),
        (
            lambda: recall_at(CODES, CODES, Y, Y, 1, bit_weights=[(8, 1)]),
            ValueError,
            "recall_at: the groups of bit_weights must hold 9 to 16 bits for codes of 2 bytes, got 8",
        ),
        (lambda: precision_recall_curve(FLOATS, FLOATS, Y, Y, by="radius"), ValueError, 'by="radius" needs codes'),
        (
            lambda: precision_recall_curve(CODES, CODES, Y, Y, ranks=[2, 1]),
            ValueError,
            r"ranks must be at least one and increasing, got \[2, 1\]",
        ),
        (
            lambda: precision_recall_curve(CODES, CODES, Y, Y, ranks=[4]),
            ValueError,
            "ranks must be between 1 and 3, got 4",
        ),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
