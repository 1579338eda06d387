"""Few labels spread over a graph: what the refined labels are, their energy, odd graphs and labels, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fasthash import Hasher
from fasthash._affinity import _cells, _Graph, _pairs
from fasthash.metrics import mean_average_precision
from fasthash.targets import Refined, refine_by_affinity


def two_groups(n: int = 60, noise: float = 1.0) -> tuple[Any, Any, Any]:
    """Features [n, 8], classes, and edges of which nine in ten stay inside a class."""
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 2
    X = rng.normal(size=(n, 8)).astype(np.float32) * noise
    X[:, 0] += 2.0 * classes - 1.0
    i = rng.integers(0, n, 6 * n)
    j = (i + 2 * rng.integers(1, n // 2, len(i)) + (rng.random(len(i)) < 0.1)) % n
    return X, classes, np.stack([i, j], 1)


def few(classes: Any, known: int = 2) -> Any:
    """The labels of the first rows of each class, -1 for the others."""
    y = np.full(len(classes), -1)
    for each in np.unique(classes):
        y[np.flatnonzero(classes == each)[:known]] = each
    return y


@pytest.mark.parametrize("affinity", ["learned", "uniform"])
def test_labels_spread_and_energy_never_rises(affinity: str) -> None:
    X, classes, edges = two_groups()
    y = few(classes)
    refined = refine_by_affinity(X, y, edges, affinity=affinity)
    assert isinstance(refined, Refined)
    assert refined.labels.dtype == np.float32
    assert refined.labels.shape == refined.classifier.shape == (60, 2)
    np.testing.assert_allclose(refined.labels.sum(1), 1, atol=1e-5)
    assert (refined.labels[y >= 0] == np.eye(2)[y[y >= 0]]).all()
    assert (refined.labels.argmax(1) == classes).mean() > 0.9
    alone = refine_by_affinity(X, y, np.zeros((0, 2), int), rounds=1)  # the classifier of the seeds, with no graph
    assert (alone.labels.argmax(1) == classes).mean() < 0.9
    assert refined.energy
    assert all(later <= earlier for earlier, later in zip(refined.energy, refined.energy[1:], strict=False))
    once = np.unique(np.sort(edges, axis=1), axis=0)
    once = once[once[:, 0] != once[:, 1]]
    expected = np.square(refined.labels[once[:, 0]] - refined.labels[once[:, 1]]).sum()
    assert refined.energy[-1] == pytest.approx(expected, rel=1e-4)
    assert refined.mined.dtype == np.bool_
    assert refined.mined[y >= 0].all()


def test_a_round_that_raises_the_energy_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    X, classes, edges = two_groups()
    known = few(classes)
    for energies, taken in (([3.0, 2.0, 2.5, 1.0], 2), ([3.0, 4.0, 1.0, 1.0], 1), ([3.0, 3.0, 2.0, 1.0], 4)):
        left = iter(energies)
        monkeypatch.setattr(_Graph, "energy", lambda graph, p, left=left: next(left))
        refined = refine_by_affinity(X, known, edges)
        assert refined.energy == energies[:taken]
        plain = refine_labels(X, known, edges, taken, monkeypatch)
        np.testing.assert_array_equal(refined.labels, plain)


def refine_labels(X: Any, y: Any, edges: Any, rounds: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The labels after exactly so many rounds."""
    monkeypatch.setattr(_Graph, "energy", lambda graph, p: 0.0)
    return refine_by_affinity(X, y, edges, rounds=rounds).labels


def test_steps_of_the_walk_lower_the_energy() -> None:
    X, _, edges = two_groups()
    graph = _Graph(torch.from_numpy(X).double(), _pairs(edges, len(X)))
    u = torch.rand(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energies = [graph.energy(graph.walk(graph.ones, u, steps)) for steps in range(6)]
    assert energies == sorted(energies, reverse=True)
    w = graph.affinities(torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    dense = torch.zeros(60, 60, dtype=torch.float64)
    dense[graph.i, graph.j] = w
    dense += torch.diag(dense.sum(1) / (dense > 0).sum(1).clamp(min=1))
    G = dense / dense.sum(1, keepdim=True)
    torch.testing.assert_close(graph.walk(w, u, 3), G @ G @ G @ u)


def test_learned_affinities_are_larger_inside_a_class() -> None:
    X, classes, edges = two_groups(noise=0.3)
    graph = _Graph(torch.nn.functional.normalize(torch.from_numpy(X)), _pairs(edges, len(X)))
    u = torch.eye(2)[torch.from_numpy(classes)]
    P = torch.full((8, 16), 0.025)
    for _ in range(5):
        P = graph.learn(P, u, torch.ones(60, dtype=torch.bool))
    w, same = graph.affinities(P), torch.from_numpy(classes)[graph.i] == torch.from_numpy(classes)[graph.j]
    before = graph.affinities(torch.full((8, 16), 0.025))
    assert w[same].mean() / w[~same].mean() > before[same].mean() / before[~same].mean() + 0.01


def test_mined_rows_are_right_more_often_than_all() -> None:
    X, classes, edges = two_groups(400, noise=1.0)
    refined = refine_by_affinity(X, few(classes, 4), edges, rounds=1)
    right = refined.labels.argmax(1) == classes
    assert 8 < refined.mined.sum() < 400
    assert right[refined.mined].mean() > right.mean() + 0.1
    assert refine_by_affinity(X, few(classes, 4), edges, mining=False).mined.all()


def test_cells_are_connected_and_small() -> None:
    X = torch.arange(50.0)[:, None]
    chain = torch.stack([torch.arange(49), torch.arange(1, 50)], 1)
    cell = _cells(X, chain[torch.arange(49) != 30])
    assert torch.bincount(cell).max() <= 20
    assert cell[30] != cell[31]
    for number in torch.unique(cell):
        rows = (cell == number).nonzero()[:, 0]
        assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))


def test_duplicates_self_loops_and_direction_count_as_nothing() -> None:
    X, classes, edges = two_groups()
    loops = np.stack([np.arange(60)] * 2, 1)
    plain = refine_by_affinity(X, few(classes), edges)
    for other in (
        np.concatenate([edges, edges[::-1], loops]),
        edges[:, ::-1].astype(np.int32),
        torch.from_numpy(edges),
    ):
        np.testing.assert_array_equal(refine_by_affinity(X, few(classes), other).labels, plain.labels)


def test_a_sparse_matrix_is_its_edges() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    X, classes, edges = two_groups()
    plain = refine_by_affinity(X, few(classes), edges)
    data = np.ones(len(edges) + 1)
    data[-1] = 0.0  # an entry that is stored, and no edge
    i, j = np.concatenate([edges, [[0, 1]]]).T
    for make in (sparse.coo_matrix, sparse.csr_matrix, sparse.csr_array):
        found = refine_by_affinity(X, few(classes), make((data, (i, j)), shape=(60, 60)))
        if make is sparse.coo_matrix or (0, 1) in {tuple(sorted(pair)) for pair in edges.tolist()}:
            np.testing.assert_array_equal(found.labels, plain.labels)
        assert found.labels.shape == (60, 2)
    with pytest.raises(
        ValueError, match=r"refine_by_affinity: edges must be an adjacency matrix \[60, 60\], got \[3, 3\]"
    ):
        refine_by_affinity(X, few(classes), sparse.csr_matrix(np.eye(3)))


def test_without_edges_the_nearest_rows_are_the_graph() -> None:
    X, classes, _ = two_groups(noise=0.3)
    refined = refine_by_affinity(X, few(classes))
    assert (refined.labels.argmax(1) == classes).mean() > 0.95
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    near = np.argsort(np.linalg.norm(unit[:, None] - unit, axis=2) + 9 * np.eye(60), axis=1)[:, :10]
    edges = np.stack([np.repeat(np.arange(60), 10), near.ravel()], 1)
    np.testing.assert_allclose(refined.labels, refine_by_affinity(X, few(classes), edges).labels, atol=1e-5)
    assert refine_by_affinity(X[:4], [0, 1, -1, -1]).labels.shape == (4, 2)  # fewer rows than neighbours
    assert refine_by_affinity(X[:1], [0]).labels.tolist() == [[1.0]]


def test_odd_graphs_and_labels() -> None:
    X, classes, edges = two_groups()
    y = few(classes)
    apart = edges[(edges != 59).all(1)]
    refined = refine_by_affinity(X, y, apart, rounds=1)  # row 59 has no edge
    assert np.isfinite(refined.labels).all()
    seeds_only = refine_by_affinity(X, y, np.zeros((0, 2), dtype=np.int64), rounds=1)
    np.testing.assert_allclose(refined.labels[59], seeds_only.labels[59], atol=1e-6)  # what the classifier says
    assert seeds_only.energy == [0.0]
    halves = edges[(edges < 30).all(1) | (edges >= 30).all(1)]  # no path from the seeds to the second half
    assert np.isfinite(refine_by_affinity(X, y, halves).labels).all()
    one = refine_by_affinity(X, np.where(y == 0, 0, -1), edges)
    np.testing.assert_array_equal(one.labels, np.ones((60, 1)))
    wide = refine_by_affinity(X, y, edges, classes=4).labels  # two classes that nobody has
    assert wide.shape == (60, 4)
    assert wide[:, 2:].max() < 0.1
    assert (refine_by_affinity(X, classes, edges).labels.argmax(1) == classes).all()  # all known
    equal = refine_by_affinity(np.ones((60, 3)), y, edges)
    zero = refine_by_affinity(np.zeros((60, 3)), y, edges)
    assert np.isfinite(equal.labels).all()
    assert np.isfinite(zero.labels).all()


def test_types_stay_and_results_repeat() -> None:
    X, classes, edges = two_groups()
    y = few(classes)
    double = refine_by_affinity(X.astype(np.float64), y, edges)
    assert double.labels.dtype == double.classifier.dtype == np.float64
    tensor = refine_by_affinity(torch.from_numpy(X).requires_grad_(), torch.from_numpy(y), edges)
    assert isinstance(tensor.labels, torch.Tensor)
    assert not tensor.labels.requires_grad
    assert refine_by_affinity(X.astype(np.float16), y, edges).labels.dtype == np.float32
    state = torch.get_rng_state()
    with torch.no_grad():
        again = refine_by_affinity(X, y, edges)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(again.labels, tensor.labels.numpy())
    np.testing.assert_allclose(double.labels, again.labels, atol=0.05)
    assert not np.array_equal(refine_by_affinity(X, y, edges, seed=1).labels, again.labels)


@pytest.mark.parametrize("soft", [True, False])
def test_hasher_learns_from_refined_labels(soft: bool) -> None:
    X, classes, edges = two_groups(200, noise=0.7)
    y = few(classes)
    labels = refine_by_affinity(X, y, edges).labels
    targets = labels - labels.mean(0) if soft else labels.argmax(1)
    settings = {"epochs": 30, "hidden": (32,), "batch_size": 64, "progress": False}

    def score(hasher: Hasher) -> float:
        codes = hasher.encode(X)
        weights = hasher.bit_weights_
        return float(
            mean_average_precision(codes[:100], codes[100:], classes[:100], classes[100:], bit_weights=weights)
        )

    few_rows = {**settings, "batch_size": 4}
    alone = Hasher(16, **few_rows).fit(X[y >= 0], y[y >= 0])  # type: ignore[arg-type]
    found = Hasher(16, **settings).fit(X, targets)  # type: ignore[arg-type]
    assert score(found) > score(alone) + 0.1


X6, Y6 = np.eye(6), [0, 1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: refine_by_affinity(X6, [-1] * 6), ValueError, "y must give the class of at least one row, got -1 in"),
        (lambda: refine_by_affinity(X6, [0, 1, 5, -1, -1, -1], classes=3), ValueError, "between -1 and 2, got -1 to 5"),
        (lambda: refine_by_affinity(X6, [0, -2, 1, 0, 0, 0]), ValueError, "y must be between -1 and 1, got -2 to 1"),
        (lambda: refine_by_affinity(X6, ["a"] * 6), TypeError, "y must hold integer classes, -1 where unknown, got"),
        (
            lambda: refine_by_affinity(X6, [0, 1]),
            ValueError,
            r"y must have shape \[6\], one class a row of X, got \[2\]",
        ),
        (
            lambda: refine_by_affinity(X6[0], [0]),
            ValueError,
            r"X must have shape \[N, F\] with N and F >= 1, got \[6\]",
        ),
        (
            lambda: refine_by_affinity(X6[:0], []),
            ValueError,
            r"X must have shape \[N, F\] with N and F >= 1, got \[0, 6\]",
        ),
        (lambda: refine_by_affinity(X6.astype(int), Y6), TypeError, "X must be floating point, got int64"),
        (
            lambda: refine_by_affinity(X6 * np.nan, Y6),
            ValueError,
            "X must be finite, got NaN or infinity in 6 of 6 rows",
        ),
        (lambda: refine_by_affinity(X6, Y6, [[0, 6]]), ValueError, "edges must name rows between 0 and 5, got 0 to 6"),
        (
            lambda: refine_by_affinity(X6, Y6, [[-1, 2]]),
            ValueError,
            "edges must name rows between 0 and 5, got -1 to 2",
        ),
        (lambda: refine_by_affinity(X6, Y6, [[0.0, 1.0]]), TypeError, "edges must hold integers, got float"),
        (lambda: refine_by_affinity(X6, Y6, [[0, 1, 2]]), ValueError, r"edges must have shape \[E, 2\] or be a sparse"),
        (lambda: refine_by_affinity(X6, Y6, rounds=0), ValueError, "rounds must be at least 1, got 0"),
        (lambda: refine_by_affinity(X6, Y6, steps=0), ValueError, "steps must be at least 1, got 0"),
        (lambda: refine_by_affinity(X6, Y6, neighbors=65), ValueError, "neighbors must be between 1 and 64, got 65"),
        (
            lambda: refine_by_affinity(X6, Y6, affinity="w"),
            ValueError,
            "affinity must be 'learned' or 'uniform', got 'w'",
        ),
    ],
)
def test_errors(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^refine_by_affinity: .*{message}"):
        call()
