"""Retrieval metrics that are exact over tied distances.

Every function takes `query` [Q, ...] and `database` [N, ...]: packed uint8 codes, compared by Hamming distance, or
floating-point embeddings with metric "l1" (default), "l2" or "cosine"; and labels, 1-D classes (integers or strings;
relevant = the same class) or 2-D multi-hot (relevant = at least one label in common). numpy arrays or torch tensors.

ties="expected" gives the exact expectation over all orders of equally distant results, ties="index" ranks them by
position in the database. exclude_self: query i is row i of the database and is left out for itself. per_query=True
gives float64 [Q], of the kind of `query`, instead of the mean over queries. Bad arguments raise ValueError or
TypeError, naming function and value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import whole
from fasthash._arrays import Array, like
from fasthash.metrics.expectation import average_precision, discounted_sum, sums_at
from fasthash.metrics.groups import Groups, Ranking
from fasthash.metrics.relevance import Gain


class PrecisionRecallCurve(NamedTuple):
    """Mean precision and recall, float64 [P] each, at `thresholds` int64 [P], ranks or Hamming radii."""

    precision: Array
    recall: Array
    thresholds: Array


def mean_average_precision(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    *,
    at: int | None = None,
    divisor: str = "retrieved",
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Mean average precision: sum of the precisions at the relevant results / number of relevant items.

    With `at` = R only the first R results count (all where R exceeds the database), and `divisor` is "retrieved", the
    relevant among them (the convention of the hashing literature: a single hit at rank 1 scores 1.0), or "possible",
    min(R, all relevant). Queries with nothing relevant score 0. Costs O(bits) a query after the distance counts, O(N
    log N) for embeddings. Source: McSherry & Najork 2008 (see `metrics.expectation`).

    >>> codes = np.array([[0], [1], [255]], dtype=np.uint8)
    >>> mean_average_precision(codes[:1], codes, ["a"], ["b", "a", "a"])
    0.5833333333333333
    """
    ranking = Ranking(
        "mean_average_precision", query, database, query_labels, database_labels, ties, metric, exclude_self
    )
    if divisor not in ("retrieved", "possible"):
        raise ValueError(f'mean_average_precision: divisor must be "retrieved" or "possible", got {divisor!r}')
    if at is not None:
        at = whole(at, "mean_average_precision", "at", 1)
    scores = score(ranking, [ranking.labels.relevant], lambda g: average_precision(g.counts, g.sums[0], at, divisor))
    return _result(scores, query, per_query)


def hierarchical_precision(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    class_similarity: Array,
    *,
    at: int = 250,
    variant: str = "mean",
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Mean average hierarchical precision (mAHP@at) from similarities [C, C] >= 0 of integer classes 0..C-1.

    HP@i = sum of the similarities of the first i results / best possible sum of i over the database (0 where that is
    0). variant "mean": (1/K) sum_{i<=K} HP@i, 1 for a perfect ranking; "trapezoid": (1/K) [sum_{i<=K} HP@i - (HP@1 +
    HP@K)/2], at most (K-1)/K. `at` = K must be at most the size of the database. Source: Barz & Denzler, WACV 2019,
    section 4; the trapezoid is their corrected form.

    >>> similarity = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> hierarchical_precision(codes[:1], codes, [0], [1, 0, 0], similarity, at=2)
    0.625
    """
    ranking = Ranking(
        "hierarchical_precision", query, database, query_labels, database_labels, ties, metric, exclude_self
    )
    if variant not in ("mean", "trapezoid"):
        raise ValueError(f'hierarchical_precision: variant must be "mean" or "trapezoid", got {variant!r}')
    at = whole(at, "hierarchical_precision", "at", 1, ranking.eligible)
    gain = ranking.labels.table("class_similarity", class_similarity)
    best = best_sums(ranking, gain, at)
    scores = score(ranking, [gain], lambda g: hierarchical_scores(g, g.sums[0], best, variant), width=at)
    return _result(scores, query, per_query)


def precision_at(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of the first k results that is relevant, 1 <= k <= size of the database.

    >>> codes = np.array([[0], [0], [255]], dtype=np.uint8)
    >>> precision_at(codes[:1], codes, ["a"], ["a", "b", "a"], 1)
    0.5
    """
    ranking = Ranking("precision_at", query, database, query_labels, database_labels, ties, metric, exclude_self)
    k = whole(k, "precision_at", "k", 1, ranking.eligible)
    scores = score(ranking, [ranking.labels.relevant], lambda g: found_at(g, k) / k)
    return _result(scores, query, per_query)


def recall_at(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of all relevant items that is among the first k results; 0 where nothing is relevant.

    >>> codes = np.array([[0], [0], [255]], dtype=np.uint8)
    >>> recall_at(codes[:1], codes, ["a"], ["a", "b", "a"], 2)
    0.5
    """
    ranking = Ranking("recall_at", query, database, query_labels, database_labels, ties, metric, exclude_self)
    k = whole(k, "recall_at", "k", 1, ranking.eligible)
    scores = score(ranking, [ranking.labels.relevant], lambda g: found_at(g, k) / g.sums[0].sum(-1).clamp(min=1.0))
    return _result(scores, query, per_query)


def precision_within_radius(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    radius: float,
    *,
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of the items at distance <= radius that is relevant; a query that finds none scores 0, as in the literature.

    >>> codes = np.array([[0], [1], [255]], dtype=np.uint8)
    >>> precision_within_radius(codes[:1], codes, ["a"], ["b", "a", "a"], 2)
    0.5
    """
    ranking = Ranking(
        "precision_within_radius", query, database, query_labels, database_labels, "expected", metric, exclude_self
    )
    if not isinstance(radius, (int, float, np.number)):
        raise TypeError(f"precision_within_radius: radius must be a number, got {radius!r}")
    if not radius >= 0:
        raise ValueError(f"precision_within_radius: radius must be 0 or more, got {radius}")
    scores = score(ranking, [ranking.labels.relevant], lambda g: precision_inside(g, radius))
    return _result(scores, query, per_query)


def precision_recall_curve(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    *,
    by: str = "rank",
    ranks: Sequence[int] | None = None,
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
) -> PrecisionRecallCurve:
    """Precision and recall, averaged over queries, along the ranking.

    by="rank": at the first t results for each t of `ranks` (increasing; default: about 200 of them, evenly spaced on
    a log scale, from 1 to the size of the database). by="radius" (codes only): within each Hamming radius 0..bits, a
    query that finds nothing counting as precision 0. Queries with nothing relevant have recall 0.

    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> precision_recall_curve(codes[:1], codes, ["a"], ["b", "a", "a"], ranks=[1, 2, 3]).precision.round(2)
    array([0.  , 0.5 , 0.67])
    """
    ranking = Ranking(
        "precision_recall_curve", query, database, query_labels, database_labels, ties, metric, exclude_self
    )
    if by not in ("rank", "radius"):
        raise ValueError(f'precision_recall_curve: by must be "rank" or "radius", got {by!r}')
    if by == "radius" and (ranking.metric != "hamming" or ties != "expected" or ranks is not None):
        raise ValueError('precision_recall_curve: by="radius" is for codes and ties="expected", and takes no ranks')
    device = ranking.query.device
    if by == "radius":
        thresholds = torch.arange(8 * ranking.query.shape[1] + 1, device=device)
    elif ranks is None:
        spaced = torch.logspace(0, np.log2(ranking.eligible), 200, base=2.0, dtype=torch.float64)
        thresholds = torch.unique(spaced.round().long().clamp(1, ranking.eligible)).to(device)
    else:
        checked = [whole(rank, "precision_recall_curve", "ranks", 1, ranking.eligible) for rank in ranks]
        if not checked or sorted(set(checked)) != checked:
            raise ValueError(f"precision_recall_curve: ranks must be at least one and increasing, got {list(ranks)}")
        thresholds = torch.tensor(checked, device=device)
    precision, recall = torch.zeros(2, len(thresholds), dtype=torch.float64, device=device)
    for groups in ranking.blocks(ranking.labels.relevant, width=len(thresholds)):
        if by == "radius":
            found, retrieved = groups.sums[0].cumsum(-1), groups.counts.cumsum(-1).clamp(min=1.0)
        else:
            found, retrieved = sums_at(groups.counts, groups.sums[0], thresholds), thresholds
        precision += (found / retrieved).sum(0)
        recall += (found / groups.sums[0].sum(-1, keepdim=True).clamp(min=1.0)).sum(0)
    rows = len(ranking.query)
    return PrecisionRecallCurve(like(precision / rows, query), like(recall / rows, query), like(thresholds, query))


def ndcg(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    gains: str | Array = "exponential",
    ties: str = "expected",
    metric: str | None = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Normalised discounted cumulative gain of the first k results: DCG / best DCG, DCG = sum_i gain_i / log2(i + 1).

    `gains`: "exponential", 2^s - 1, or "linear", s, of the number s of labels in common (1 for the same class); or a
    [C, C] array of gains >= 0, indexed by integer classes (class similarities, say). 0 where no gain is possible.
    Source: Jarvelin & Kekalainen 2002; over ties as in McSherry & Najork 2008.

    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> round(ndcg(codes[:1], codes, [[1, 1, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]], 2), 4)
    0.7967
    """
    ranking = Ranking("ndcg", query, database, query_labels, database_labels, ties, metric, exclude_self)
    k = whole(k, "ndcg", "k", 1, ranking.eligible)
    if not isinstance(gains, str):
        gain = ranking.labels.table("gains", gains)
    elif gains in ("exponential", "linear"):
        gain = ranking.labels.exponential if gains == "exponential" else ranking.labels.shared
    else:
        raise ValueError(f'ndcg: gains must be "exponential", "linear" or a [C, C] array, got {gains!r}')
    best = ranking.ideal(gain, lambda counts, sums: discounted_sum(counts, sums, k))

    def ratio(g: Groups) -> Tensor:
        ideal = best[g.rows]
        return torch.where(ideal > 0, discounted_sum(g.counts, g.sums[0], k) / ideal.clamp(min=1e-300), 0.0)

    return _result(score(ranking, [gain], ratio), query, per_query)


# Steps shared with `fasthash.evaluate`, which computes several metrics of one ranking


def score(ranking: Ranking, gains: list[Gain], value: Callable[[Groups], Tensor], width: int = 1) -> Tensor:
    """`value` of the tie groups, for every query: float64 [Q]."""
    return torch.cat([value(groups) for groups in ranking.blocks(*gains, width=width)])


def best_sums(ranking: Ranking, gain: Gain, at: int) -> Tensor:
    """Best possible sums of the first 1..at gains over the database: float64 [Q, at]."""
    ranks = torch.arange(1, at + 1, device=ranking.query.device)
    return ranking.ideal(gain, lambda counts, sums: sums_at(counts, sums, ranks))


def hierarchical_scores(groups: Groups, sums: Tensor, best: Tensor, variant: str) -> Tensor:
    """Average hierarchical precision [q] up to rank K, the width of `best` [Q, K]."""
    ideal = best[groups.rows]
    at = ideal.shape[1]
    reached = sums_at(groups.counts, sums, torch.arange(1, at + 1, device=ideal.device))
    precision = torch.where(ideal > 0, reached / ideal.clamp(min=1e-300), 0.0)
    total = precision.sum(-1)
    if variant == "trapezoid":
        total = total - (precision[:, 0] + precision[:, -1]) / 2
    return total / at


def found_at(groups: Groups, k: int) -> Tensor:
    """Expected number of relevant items (the first gain) among the first k results: [q]."""
    return sums_at(groups.counts, groups.sums[0], torch.tensor([k], device=groups.counts.device))[:, 0]


def precision_inside(groups: Groups, radius: float) -> Tensor:
    """Part of the items within `radius` that is relevant (the first gain), 0 where there are none: [q]."""
    inside = groups.distances <= radius
    retrieved = torch.where(inside, groups.counts, 0.0).sum(-1)
    return torch.where(inside, groups.sums[0], 0.0).sum(-1) / retrieved.clamp(min=1.0)


def _result(scores: Tensor, query: Any, per_query: bool) -> Any:
    return like(scores, query) if per_query else float(scores.mean())
