"""Task h, recommendation: the edges of MovieLens, what its methods give, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.tasks import Items, Task
from fasthash import hamming_distances, pack_bits
from fasthash.datasets import movielens
from fasthash.evaluate import code_statistics

Array = NDArray[Any]
K, RERANKED = 50, 500
LIKED, FEWEST = 4.0, 10  # a rating that is an edge, and edges of a user who is asked about
PARTS = {"test": 0.2, "validation": 0.1}  # of a user's edges, the last in time first
TRAIN = "train"


def task_h(data: Path) -> Task:
    """MovieLens latest small: ratings of 4 and more are edges; a user's last ones in time are to be found."""
    found = movielens(data / "movielens_latest_small")
    liked = found.ratings >= LIKED
    users, films, times = (column[liked] for column in (found.users, found.films, found.times))
    _, users = np.unique(users, return_inverse=True)
    _, films = np.unique(films, return_inverse=True)
    parts = split(users, films, times)
    edges = np.column_stack([users, films]).astype(np.int64)
    rows = {name: Items(edges[parts == name], edges[parts == name, 0]) for name in (TRAIN, *PARTS)}
    asked = len(np.unique(rows["test"].y))
    return Task(
        "h",
        f"MovieLens latest small, ratings of at least {LIKED:.0f}: {len(edges):,} edges of {users.max() + 1} users and "
        f"{films.max() + 1:,} films",
        "edges",
        rows[TRAIN],
        {"films": (rows["validation"], rows[TRAIN])},
        {"films": (rows["test"], rows[TRAIN])},
        (32,),
        notes=(
            f"For each of the {asked} users with at least {FEWEST} edges, the last 20 % in time are the test, the "
            f"10 % before them the validation: {', '.join((f'{len(r.y):,} {name}' for name, r in rows.items()))}. "
            "Other users are only in training",
            f"R@{K} and nDCG@{K} rank all films except the training films of the user (in the test also except "
            "validation films); means over users, ties count by their expected value. The ideal order of "
            f"nDCG@{K} has all test films first",
            f"Codes: ranked by Hamming distance. Re-ranked: the {RERANKED} nearest by code, ranked by real-valued "
            "outputs; of tied codes at the end of this list, the lowest number is taken. Outputs: all films, "
            "ranked by real-valued outputs. The numbers of the paper are not known: its code reports re-ranked "
            "values, keeps training films in the list and uses another ideal order",
            f"Settings are chosen by R@{K} of codes, or of outputs for methods without codes. Methods learn only "
            "from the training edges, also for the test. The defaults of HashGNN come from 24 trials on "
            "validation edges (benchmarks/results/quality-trials.jsonl); the factors had 3 trials",
        ),
    )


def split(users: Array, films: Array, times: Array) -> Array:
    """The part of each edge: "train", or for the last of a user with at least 10 edges "validation" or "test"."""
    parts = np.full(len(users), TRAIN, dtype="<U10")
    for user in np.unique(users):
        rows = np.flatnonzero(users == user)
        if len(rows) < FEWEST:
            continue
        rows = rows[np.lexsort((films[rows], times[rows]))]  # ratings of one second: by number
        end = len(rows)
        for name, part in PARTS.items():
            start = end - round(part * len(rows))
            parts[rows[start:end]] = name
            end = start
    return parts


@dataclass(frozen=True)
class Recommender:
    """Real-valued outputs of users [U, D] and films [I, D], by inner product; their signs are the codes."""

    users: Array
    films: Array
    coded: bool = True

    def outputs(self) -> Array:
        """Distances float64 [U, I] by outputs."""
        found: Array = -(self.users.astype(np.float64) @ self.films.T.astype(np.float64))
        return found

    def codes(self) -> tuple[Array, Array]:
        return pack_bits(self.users, threshold=0.0), pack_bits(self.films, threshold=0.0)

    def pure(self) -> Array:
        """Hamming distances float64 [U, I]."""
        found: Array = hamming_distances(*self.codes()).astype(np.float64)
        return found

    def reranked(self, known: Array) -> Array:
        """Distances by outputs of the 500 nearest by code that are not known; the others are behind them."""
        near = np.where(known, np.inf, self.pure()).argsort(axis=1, kind="stable")[:, :RERANKED]
        outputs = self.outputs()
        found = np.full(outputs.shape, outputs.max() + 1)
        np.put_along_axis(found, near, np.take_along_axis(outputs, near, 1), 1)
        return found


def expected_recall(distances: Array, wanted: Array, known: Array) -> dict[str, float]:
    """R@50 and nDCG@50, means over users who want something; all are [U, I]; every order of ties is as likely."""
    discounts = 1 / np.log2(np.arange(2, K + 2))
    recall, gain = [], []
    for user in np.flatnonzero(wanted.any(1)):
        left = np.flatnonzero(~known[user])
        order = left[distances[user, left].argsort(kind="stable")]
        ranked = distances[user, order]
        low, high = (np.searchsorted(ranked, ranked[:K], side) for side in ("left", "right"))
        before = np.concatenate([[0], wanted[user, order].cumsum()])
        chance = (before[high] - before[low]) / (high - low)  # that a wanted one is at this rank
        size = int(wanted[user].sum())
        recall.append(chance.sum() / size)
        gain.append((chance * discounts[: len(chance)]).sum() / discounts[:size].sum())
    return {f"R@{K}": float(np.mean(recall)), f"nDCG@{K}": float(np.mean(gain))}


def asked(task: Task, side: str) -> tuple[Array, Array]:
    """What is wanted, and what is known and left out, [U, I] each."""
    everything = [pair[0] for pair in (*task.validation.values(), *task.test.values())]
    shape = tuple(1 + np.concatenate([task.train.X, *(items.X for items in everything)]).max(0))
    validation, test = (mark(items.X, shape) for items in everything)
    train = mark(task.train.X, shape)
    return (validation, train) if side == "validation" else (test, train | validation)


def mark(edges: Array, shape: tuple[int, ...]) -> Array:
    marks = np.zeros(shape, dtype=bool)
    marks[tuple(edges.T)] = True
    return marks


def measure_edges(task: Task, model: Recommender, side: str) -> dict[str, dict[str, float]]:
    """Pure, re-ranked and real-valued numbers, by "codes films", "reranked films" and "outputs films"."""
    wanted, known = asked(task, side)
    found = {}
    if model.coded:
        found["codes films"] = expected_recall(model.pure(), wanted, known)
        found["codes films"] |= code_statistics(model.codes()[1], model.films.shape[1])
        found["reranked films"] = expected_recall(model.reranked(known), wanted, known)
    found["outputs films"] = expected_recall(model.outputs(), wanted, known)
    return found


def edge_score(task: Task, model: Recommender) -> float:
    """What settings are chosen by."""
    found = measure_edges(task, model, "validation")
    return found["codes films" if model.coded else "outputs films"][f"R@{K}"]


def edge_floors(task: Task) -> dict[str, dict[str, float]]:
    """Any order, and the films with the most edges of training first."""
    wanted, known = asked(task, "test")
    popular = -np.bincount(task.train.X[:, 1], minlength=wanted.shape[1]).astype(np.float64)
    rankings: dict[str, Callable[[], Array]] = {
        "random films": lambda: np.zeros(wanted.shape),
        "most popular films": lambda: np.tile(popular, (len(wanted), 1)),
    }
    return {name: expected_recall(ranking(), wanted, known) for name, ranking in rankings.items()}
