"""The tasks k of the harness, few labels on a graph: rows, label propagation, the acceptance table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hasher_cases import blobs

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "quality").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.append(str(ROOT))

from benchmarks.quality import fits, graph_task, methods, results, run, tables, tasks  # noqa: E402
from benchmarks.quality.graph_acceptance import graph_acceptance  # noqa: E402


def small_task() -> tasks.Task:
    X, y = blobs(120)
    order = np.argsort(y, kind="stable")
    edges = np.stack([order[:-1], order[1:]], 1)
    known = np.full(120, tasks.UNLABELLED)
    known[:12] = y[:12]
    every, rows = tasks.Items(X, y), np.arange(12, 120)
    sides = {"unlabelled": (every.part(rows[:40]), every.part(rows[40:]))}
    graph = tasks.Graph(edges, y, rows)
    return tasks.Task("k", "blobs", "classes", tasks.Items(X, known), sides, sides, (8,), graph=graph, score="mAP")


def test_propagation_is_the_harmonic_solution() -> None:
    """A chain of five with different ends: labels change evenly between them."""
    X = np.zeros((5, 2), dtype=np.float32)
    y, known = np.array([0, 0, 0, 1, 1]), np.array([0, -1, -1, -1, 1])
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    items = tasks.Items(X, known)
    task = tasks.Task("k", "", "classes", items, {}, {}, (8,), graph=tasks.Graph(edges, y, np.array([1, 3])))
    labels, reached = graph_task.propagated(task, items, 0)
    np.testing.assert_allclose(labels[:, 1], [0, 0.25, 0.5, 0.75, 1], atol=1e-6)
    assert reached == {"accuracy": 1.0}


def test_runs_are_measured_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_task, "_spread", {})
    quick = {"epochs": 3, "hidden": (16,), "batch_size": 32}
    fit = fits.fit_hasher("l1", **quick)
    tried: tuple[dict[str, Any], ...] = ({"target": "hard"}, {"target": "soft", "neighbors": 1})

    def of(name: str, spread: Any, **more: Any) -> methods.Method:
        fitted = graph_task.spread_then(fit, name, spread)
        return methods.Method(
            name, name, "labels", fitted, **{"settings": tried, "tasks": ("k",), **more}, unlabelled=True
        )

    few = fits.fit_hasher("l1", **{**quick, "batch_size": 4})
    chosen = (
        methods.Method("graph-seeds", "seeds", "labels", few, tasks=("k",)),
        of("graph-propagated", graph_task.propagated),
        of("graph-refined", graph_task.refined()),
        of("graph-refined-uniform", graph_task.refined(affinity="uniform"), settings=({},), base="graph-refined"),
    )
    for module in (methods, run, tables):
        monkeypatch.setattr(module, "METHODS", chosen)
    monkeypatch.setattr("benchmarks.quality.graph_acceptance.METHODS", chosen)
    monkeypatch.setattr(tables, "TITLES", {m.name: m.title for m in chosen})
    task = small_task()
    run.floors(task, tmp_path)
    assert run.run(task, list(chosen), [8], [0, 1], tmp_path) == 8
    lines = results.read(tmp_path, "k")
    whole = results.find(lines, kind="run", method="graph-refined", seed=0)
    assert whole is not None
    found = whole["reached"]
    assert {"accuracy", "accuracy of f", "energy", "precision mined", "precision all"} <= set(found)
    assert found["accuracy"] > 0.8
    assert found["energy"] == sorted(found["energy"], reverse=True)
    text = tables.write_tables(tmp_path, tmp_path).read_text()
    assert "| 8 | accuracy of f at least 0.72 |" in text
    assert "| 8 | graph-refined-uniform | mAP |" in text


def test_acceptance_says_pass_fail_and_idle() -> None:
    def runs(score: float, **reached: Any) -> list[dict[str, Any]]:
        return [{"metrics": {"codes unlabelled": {"mAP": score + more}}, "reached": reached} for more in (0.0, 0.02)]

    whole = {"accuracy of f": 0.75, "energy": [3.0, 2.0], "precision mined": 0.85, "precision all": 0.8}
    found = {
        ("k", "graph-refined", 32): runs(0.5, accuracy=0.8, **whole),
        ("k", "graph-refined-uniform", 32): runs(0.51, accuracy=0.7),
        ("k", "graph-propagated", 32): runs(0.55, accuracy=0.74),
        ("k", "graph-seeds", 32): runs(0.3),
    }
    lines = graph_acceptance(found, "k")
    verdicts = [(line.split("|")[2].strip(), line.split("|")[-2].strip()) for line in lines if line.startswith("| 32")]
    assert verdicts == [
        ("accuracy of f at least 0.72", "pass"),
        ("accuracy of f above label propagation + 0.02", "**fail**"),
        ("largest rise of J from a round to the next (2.0 rounds taken of 4)", "pass"),
        ("precision of mined nodes at least 0.9", "**fail**"),
        ("precision of mined nodes above that of all nodes", "pass"),
        ("mAP of codes at least that of fasthash on the seeds alone + 0.10", "pass"),
        ("mAP of codes at least that of fasthash on label propagation (of this package)", "**fail**"),
        ("fasthash on refined labels, w = 1", "needed"),  # accuracy
        ("fasthash on refined labels, w = 1", "idle"),  # mAP
    ]
    assert graph_acceptance({}, "k") == []


def test_cora_is_split_as_everyone_splits_it(shared_data: Path) -> None:
    task = graph_task.task_k(shared_data)
    assert task.graph is not None
    assert task.train.X.shape == (2708, 256)
    assert (task.train.y != tasks.UNLABELLED).sum() == 140
    queries, database = task.test["unlabelled"]
    assert (len(queries.y), len(database.y)) == (1000, 1568)
    assert len(task.graph.edges) == 5278
    validation = task.validation["unlabelled"]
    assert [len(items.y) for items in validation] == [500, 1068]
    with np.load(shared_data / "planetoid" / "cora.npz") as arrays:
        train, val, test = (arrays[name] for name in ("train", "val", "test"))
    assert np.flatnonzero(task.train.y != tasks.UNLABELLED).tolist() == train.tolist()
    rest = np.setdiff1d(np.arange(2708), np.concatenate([train, test]))
    for items, nodes in (
        (queries, test),
        (database, rest),
        (validation[0], val),
        (validation[1], np.setdiff1d(rest, val)),
    ):
        np.testing.assert_array_equal(items.X, task.train.X[nodes])
        np.testing.assert_array_equal(items.y, task.graph.y[nodes])
