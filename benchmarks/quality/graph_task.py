"""Task k, few labels on a graph: its rows, and what spreads the labels to the others before codes are learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.tasks import UNLABELLED, Graph, Items, Task, clinc150_splits, number_inside
from fasthash.neighbors import nearest
from fasthash.targets import refine_by_affinity

Array = NDArray[Any]
DIRECTIONS = 256
PROPAGATION_STEPS = 100
Spread = tuple[Array, dict[str, Any]]  # label probabilities [N, C], and what was measured of them


def task_k(data: Path) -> Task:
    """Cora: 140 labelled nodes, Planetoid split."""
    path = data / "planetoid" / "cora.npz"
    with np.load(path, allow_pickle=False) as arrays:
        shape, starts = arrays["shape"], arrays["indptr"]
        words = np.zeros(shape, dtype=np.float64)
        words[np.repeat(np.arange(shape[0]), np.diff(starts)), arrays["indices"]] = arrays["data"]
        y, edges = arrays["label"].astype(np.int64), arrays["edges"].astype(np.int64)
        train, validation, test = (arrays[name].astype(np.int64) for name in ("train", "val", "test"))
    words /= np.linalg.norm(words, axis=1, keepdims=True).clip(min=1e-12)
    directions = np.linalg.eigh(words.T @ words)[1][:, : -DIRECTIONS - 1 : -1]
    every = Items((words @ directions).astype(np.float32), y)
    known = np.full(len(y), UNLABELLED)
    known[train] = y[train]

    def sides(queries: Array, left_out: Array) -> dict[str, tuple[Items, Items]]:
        rest = np.setdiff1d(np.arange(len(y)), np.concatenate([train, queries, left_out]))
        return {"unlabelled": (every.part(queries), every.part(rest))}

    return Task(
        "k",
        f"Cora, {len(y):,} papers with citations, {len(train)} of them with a label",
        "classes",
        Items(every.X, known),
        sides(validation, test),
        sides(test, test[:0]),
        (32,),
        graph=Graph(edges, y, test),
        notes=(
            f"Queries: {len(test):,} test nodes. Database: {len(y) - len(train) - len(test):,} nodes, all except "
            "test nodes and labelled nodes",
            f"Inputs of every method: {DIRECTIONS} singular directions of the words of all nodes. Training sees "
            "the graph and the rows without a label, but not their labels",
            "Settings are chosen by mAP of codes of the validation nodes. The settings of the refinement are the "
            "defaults of fasthash in every run",
        ),
        score="mAP",
    )


def task_k_clinc150(data: Path) -> Task:
    """clinc150: 20 rows of each intent, one of them with a label, and the graph of their nearest rows."""
    splits, notes = clinc150_splits()
    place = number_inside(splits["train"].y)
    rows = splits["train"].part(place < 20)
    place = place[place < 20]
    known = np.where(place == 0, rows.y, UNLABELLED)
    near = nearest(rows.X, k=10).indices
    edges = np.sort(np.stack([np.repeat(np.arange(len(near)), 10), near.ravel()], axis=1), axis=1)
    rest = rows.part(place > 0)
    nodes = np.flatnonzero(place > 0)
    return Task(
        "k-clinc150",
        "clinc150 flat, one label for each of 150 intents, a graph of nearest rows",
        "classes",
        Items(rows.X, known),
        {"unlabelled": (splits["val"], rest)},
        {"unlabelled": (splits["test"], rest)},
        (32,),
        graph=Graph(np.unique(edges, axis=0), rows.y, nodes),
        notes=(
            f"Queries: {len(splits['test'].y):,} texts of the test split. Database: the {len(rest.y):,} rows "
            "without a label. Accuracy is that of the database rows; no test text is in the graph",
            *notes,
        ),
        score="mAP",
    )


def propagated(task: Task, rows: Items, seed: int) -> Spread:
    """Label propagation: each row takes the mean of its neighbours, and the given labels stay (Zhu et al., 2002)."""
    graph = _graph(task)
    i, j = np.concatenate([graph.edges, graph.edges[:, ::-1]]).T
    given = rows.y != UNLABELLED
    hot = np.eye(1 + rows.y.max())[rows.y.clip(min=0)] * given[:, None]
    labels, degree = hot, np.bincount(i, minlength=len(rows.y))
    for _ in range(PROPAGATION_STEPS):
        told = np.zeros_like(labels)
        np.add.at(told, i, labels[j])
        labels = np.where(given[:, None], hot, told / degree.clip(min=1)[:, None])
    return labels / labels.sum(1, keepdims=True).clip(min=1e-12), {"accuracy": _accuracy(labels, graph)}


def refined(**settings: Any) -> Callable[[Task, Items, int], Spread]:
    """`refine_by_affinity` with these settings; what is measured is of the last round taken."""

    def spread(task: Task, rows: Items, seed: int) -> Spread:
        graph = _graph(task)
        found = refine_by_affinity(rows.X, rows.y, graph.edges, seed=seed, **settings)
        right = found.labels.argmax(1) == graph.y
        mined = found.mined & (rows.y == UNLABELLED)
        return found.labels, {
            "accuracy": _accuracy(found.labels, graph),
            "accuracy of f": _accuracy(found.classifier, graph),
            "energy": [round(energy, 3) for energy in found.energy],
            "mined": int(mined.sum()),
            "precision mined": float(right[mined].mean()) if mined.any() else 0.0,
            "precision all": float(right[rows.y == UNLABELLED].mean()),
        }

    return spread


_spread: dict[tuple[str, str, int], Spread] = {}  # by task, method and seed: all its settings share one


def spread_then(fit: Callable[..., Any], name: str, spread: Callable[[Task, Items, int], Spread]) -> Callable[..., Any]:
    """`fit` on the labels that `spread` gives all rows.

    target="soft" is near by the cosine of labels - their mean, "hard" is the likeliest class.
    """

    def fitted(task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]) -> Any:
        key = task.name, name, seed
        if key not in _spread:
            _spread[key] = spread(task, rows, seed)
        labels, reached = _spread[key]
        chosen = dict(settings)
        soft = chosen.pop("target") == "soft"
        y = (labels - labels.mean(0)).astype(np.float32) if soft else labels.argmax(1)
        return replace(fit(task, Items(rows.X, y), bits, seed, chosen), reached=reached)

    return fitted


def _graph(task: Task) -> Graph:
    if task.graph is None:
        raise ValueError(f"task {task.name}: no graph")
    return task.graph


def _accuracy(labels: Array, graph: Graph) -> float:
    """Of the nodes that are asked for."""
    return float((labels.argmax(1) == graph.y)[graph.asked].mean())
