"""Task l, graded retrieval at 16 to 212 bytes an item: what is searched, how it is searched, and nDCG@10 of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.quality.graded_texts import CORPORA
from benchmarks.quality.tasks import Items, Task

Array = NDArray[Any]
Measured = dict[str, dict[str, float]]
BYTES = (16, 24, 32, 48, 64, 96, 128, 212)
K = 10
NEAR = 64  # of a query: more are looked at only where so many are tied with the tenth
RERANKED = (3, 10)  # times K: so many of the nearest are ordered anew by their floats
LEARNED_FROM = {"captions": "clinc150", "clinc150": "captions", "pubmedqa": "captions"}  # of codes that are moved
MODES = ("symmetric", "asymmetric", *(f"top{times}" for times in RERANKED))


@dataclass(frozen=True)
class Coder:
    """A corpus in codes: bytes of an item, and scores float32 [Q, N] of queries [Q, F], higher is better.

    symmetric: the query is a code too. asymmetric: it is not rounded.
    """

    bytes: int
    symmetric: Callable[[Array], Array]
    asymmetric: Callable[[Array], Array]


def task_l(data: Path, *, name: str, moved: bool = False) -> Task:
    """Queries in one corpus; methods learn from it or, moved, from another one."""
    corpus = CORPORA[name](data)
    rows = corpus
    notes = corpus.notes
    if moved:
        rows = CORPORA[LEARNED_FROM[name]](data)
        notes = (
            *notes,
            f"Encoders and codebooks are learned from the corpus of task l-{LEARNED_FROM[name]}. Then `Hasher.adapt` "
            "and `LinearDecoder.fit` get the rows of this one; the other methods get their mean",
        )
    title = f"{corpus.title}, {'learned from another corpus' if moved else 'graded retrieval'}"
    validation, test = ({"corpus": (queries, corpus.items)} for queries in (corpus.validation, corpus.test))
    widths = tuple(8 * count for count in BYTES)
    return Task(
        f"l-{name}{'-moved' if moved else ''}", title, "graded", rows.items, validation, test, widths, notes=notes
    )


def _tasks() -> dict[str, Callable[[Path], Task]]:
    names = [(name, moved) for moved in (False, True) for name in LEARNED_FROM]
    return {f"l-{name}{'-moved' * moved}": partial(task_l, name=name, moved=moved) for name, moved in names}


TASKS = _tasks()


def gains(queries: Items, corpus: Items) -> Tensor:
    """Relevance float32 [Q, N]: how many of the columns of y, [Q, L] and [N, L], are equal."""
    same = queries.y[:, None] == corpus.y[None]
    return torch.from_numpy(same.sum(2, dtype=np.float32))


def expected_ndcg(scores: Array | Tensor, gain: Tensor) -> float:
    """The mean over queries of nDCG@10, linear gains [Q, N], in expectation over equal scores [Q, N]."""
    discounts = 1 / torch.arange(2, K + 2).double().log2()
    best = (gain.topk(K, dim=1).values.double() * discounts).sum(1)
    given = torch.as_tensor(scores)
    near, at = given.topk(min(NEAR, given.shape[1]), dim=1)
    open_end = near[:, -1] == near[:, K - 1]  # others may be as near as the tenth: then all count
    found = _discounted(near, gain.gather(1, at), discounts)
    if bool(open_end.any()):
        found[open_end] = _discounted(given[open_end], gain[open_end], discounts)
    return float((found / best).mean())


def _discounted(scores: Tensor, gain: Tensor, discounts: Tensor) -> Tensor:
    total = torch.zeros(len(scores), dtype=torch.float64)
    for rank, score in enumerate(scores.topk(K, dim=1).values.T):
        tied = scores == score[:, None]  # any of these is as likely at this rank
        total += discounts[rank] * ((tied * gain).sum(1) / tied.sum(1)).double()
    return total


def reranked(scores: Array, floats: Tensor, count: int) -> Tensor:
    """Scores by floats [Q, N] of the `count` nearest, all others behind them."""
    near = torch.from_numpy(scores).topk(count, dim=1).indices
    found = torch.full_like(floats, -torch.inf)
    return found.scatter_(1, near, floats.gather(1, near))


def measure_graded(task: Task, coder: Coder, side: str) -> Measured:
    """nDCG@10 by "symmetric corpus", "asymmetric corpus", "top3 corpus" and "top10 corpus"; and bytes of an item."""
    queries, corpus = (task.validation if side == "validation" else task.test)["corpus"]
    gain = gains(queries, corpus)
    floats = torch.from_numpy(queries.X @ corpus.X.T)
    asymmetric = coder.asymmetric(queries.X)
    scores: dict[str, Any] = {"symmetric": coder.symmetric(queries.X), "asymmetric": asymmetric}
    scores |= {f"top{times}": reranked(asymmetric, floats, times * K) for times in RERANKED}
    values = {f"{mode} corpus": {f"nDCG@{K}": expected_ndcg(each, gain)} for mode, each in scores.items()}
    return {mode: {**found, "bytes": float(coder.bytes)} for mode, found in values.items()}


def graded_score(task: Task, coder: Coder) -> float:
    """What settings are chosen by: nDCG@10 of float queries."""
    queries, corpus = task.validation["corpus"]
    return expected_ndcg(coder.asymmetric(queries.X), gains(queries, corpus))


def graded_floors(task: Task) -> Measured:
    """Any order, and the floats."""
    queries, corpus = task.test["corpus"]
    gain = gains(queries, corpus)
    nothing = torch.zeros_like(gain)
    return {
        "random corpus": {f"nDCG@{K}": expected_ndcg(nothing, gain)},
        "floats corpus": {f"nDCG@{K}": expected_ndcg(queries.X @ corpus.X.T, gain), "bytes": 4.0 * corpus.X.shape[1]},
    }
