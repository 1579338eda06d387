"""Metrics of binary relevance, precision and recall, exact over tied distances.

The arguments that all functions have are described in `fasthash.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import MOST, choice, number, whole
from fasthash._arrays import Array, like
from fasthash.metrics.expectation import average_precision, sums_at
from fasthash.metrics.ranking import Groups, Ranking


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
    bit_weights: Any = None,
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
        "mean_average_precision",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    choice(divisor, "mean_average_precision", "divisor", ["retrieved", "possible"])
    if at is not None:
        at = min(whole(at, "mean_average_precision", "at", 1), MOST)
    return ranking.score(
        lambda g: average_precision(g.counts, g.sums[0], at, divisor), ranking.labels.relevant, per_query=per_query
    )


def precision_at(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    ties: str = "expected",
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of the first k results that is relevant, 1 <= k <= size of the database.

    >>> codes = np.array([[0], [0], [255]], dtype=np.uint8)
    >>> precision_at(codes[:1], codes, ["a"], ["a", "b", "a"], 1)
    0.5
    """
    ranking = Ranking(
        "precision_at",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    k = whole(k, "precision_at", "k", 1, ranking.eligible)
    return ranking.score(lambda g: found_at(g, k) / k, ranking.labels.relevant, per_query=per_query)


def recall_at(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    ties: str = "expected",
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of all relevant items that is among the first k results; 0 where nothing is relevant.

    >>> codes = np.array([[0], [0], [255]], dtype=np.uint8)
    >>> recall_at(codes[:1], codes, ["a"], ["a", "b", "a"], 2)
    0.5
    """
    ranking = Ranking(
        "recall_at",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    k = whole(k, "recall_at", "k", 1, ranking.eligible)
    return ranking.score(
        lambda g: found_at(g, k) / g.sums[0].sum(-1).clamp(min=1.0), ranking.labels.relevant, per_query=per_query
    )


def precision_within_radius(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    radius: float,
    *,
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Part of the items at distance <= radius that is relevant; a query that finds none scores 0, as in the literature.

    >>> codes = np.array([[0], [1], [255]], dtype=np.uint8)
    >>> precision_within_radius(codes[:1], codes, ["a"], ["b", "a", "a"], 2)
    0.5
    """
    ranking = Ranking(
        "precision_within_radius",
        query,
        database,
        query_labels,
        database_labels,
        "expected",
        metric,
        exclude_self,
        bit_weights,
    )
    radius = number(radius, "precision_within_radius", "radius", least=0)
    return ranking.score(lambda g: precision_inside(g, radius), ranking.labels.relevant, per_query=per_query)


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
    bit_weights: Any = None,
    exclude_self: bool = False,
) -> PrecisionRecallCurve:
    """Precision and recall, averaged over queries, along the ranking.

    by="rank": at the first t results for each t of `ranks` (increasing; default: about 200 of them, evenly spaced on
    a log scale, from 1 to the size of the database). by="radius" (codes only): within each Hamming radius from 0 to
    the largest distance, a query that finds nothing counting as precision 0. Queries with nothing relevant have recall
    0.

    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> precision_recall_curve(codes[:1], codes, ["a"], ["b", "a", "a"], ranks=[1, 2, 3]).precision.round(2)
    array([0.  , 0.5 , 0.67])
    """
    ranking = Ranking(
        "precision_recall_curve",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    choice(by, "precision_recall_curve", "by", ["rank", "radius"])
    if by == "radius" and (ranking.metric != "hamming" or ties != "expected" or ranks is not None):
        raise ValueError('precision_recall_curve: by="radius" needs codes, ties="expected" and no ranks')
    device = ranking.query.device
    if by == "radius":
        thresholds = torch.arange(ranking.largest + 1, device=device)
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


def found_at(groups: Groups, k: int) -> Tensor:
    """Expected number of relevant items (the first gain) among the first k results: [q]."""
    return sums_at(groups.counts, groups.sums[0], torch.tensor([k], device=groups.counts.device))[:, 0]


def precision_inside(groups: Groups, radius: float) -> Tensor:
    """Part of the items within `radius` that is relevant (the first gain), 0 where there are none: [q]."""
    inside = groups.distances <= radius
    retrieved = torch.where(inside, groups.counts, 0.0).sum(-1)
    return torch.where(inside, groups.sums[0], 0.0).sum(-1) / retrieved.clamp(min=1.0)
