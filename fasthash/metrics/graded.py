"""Metrics of graded relevance, where one result is worth more than another, exact over tied distances.

The arguments that all functions have are described in `fasthash.metrics`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import choice, whole
from fasthash._arrays import Array
from fasthash.metrics.expectation import discounted_sum, ratio, sums_at
from fasthash.metrics.precision import found_at
from fasthash.metrics.ranking import Groups, Ranking
from fasthash.metrics.relevance import Gain


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
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Mean average hierarchical precision (mAHP@at) from similarities [C, C] >= 0 of integer classes 0..C-1.

    HP@i = sum of the similarities of the first i results / best possible sum of i over the database (0 where that is
    0). variant "mean": (1/K) sum_{i<=K} HP@i, 1 for a perfect ranking; "trapezoid": (1/K) [sum_{i<=K} HP@i - (HP@1 +
    HP@K)/2], at most (K-1)/K. `at` = K must be at most the size of the database. Source: Barz & Denzler, WACV 2019,
    section 4; the trapezoid is their corrected form.

    >>> import numpy as np
    >>> similarity = np.array([[1.0, 0.5], [0.5, 1.0]])
    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> hierarchical_precision(codes[:1], codes, [0], [1, 0, 0], similarity, at=2)
    0.625
    """
    ranking = Ranking(
        "hierarchical_precision",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    choice(variant, "hierarchical_precision", "variant", ["mean", "trapezoid"])
    at = whole(at, "hierarchical_precision", "at", 1, ranking.eligible)
    gain = ranking.labels.table("class_similarity", class_similarity)
    best = best_sums(ranking, gain, at)
    return ranking.score(
        lambda g: hierarchical_scores(g, g.sums[0], best, variant), gain, per_query=per_query, width=at
    )


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
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """Normalised discounted cumulative gain of the first k results: DCG / best DCG, DCG = sum_i gain_i / log2(i + 1).

    `gains`: "exponential", 2^s - 1, or "linear", s, of the number s of labels in common (1 for the same class); or a
    [C, C] array of gains >= 0, indexed by integer classes (class similarities, say). 0 where no gain is possible.
    Source: Jarvelin & Kekalainen 2002; over ties as in McSherry & Najork 2008.

    >>> import numpy as np
    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> round(ndcg(codes[:1], codes, [[1, 1, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]], 2), 4)
    0.7967
    """
    ranking = Ranking("ndcg", query, database, query_labels, database_labels, ties, metric, exclude_self, bit_weights)
    k = whole(k, "ndcg", "k", 1, ranking.eligible)
    if not isinstance(gains, str):
        gain = ranking.labels.table("gains", gains)
    elif gains in ("exponential", "linear"):
        gain = ranking.labels.exponential if gains == "exponential" else ranking.labels.shared
    else:
        raise ValueError(f'ndcg: gains must be "exponential", "linear" or a [C, C] array, got {gains!r}')
    best = ranking.ideal(gain, lambda counts, sums: discounted_sum(counts, sums, k))

    return ranking.score(
        lambda g: ratio(discounted_sum(g.counts, g.sums[0], k), best[g.rows]), gain, per_query=per_query
    )


def average_cumulative_gain(
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
    """Average cumulative gain (ACG@k): labels in common with the query, mean over the first k results.

    With 1-D classes it is precision@k. Source: Jarvelin & Kekalainen, "IR evaluation methods for retrieving highly
    relevant documents", 2000; the name and the mean as multi-label hashing papers have them.

    >>> import numpy as np
    >>> codes = np.array([[0], [1], [3]], dtype=np.uint8)
    >>> average_cumulative_gain(codes[:1], codes, [[1, 1, 0]], [[1, 0, 0], [1, 1, 0], [0, 0, 1]], 2)
    1.5
    """
    ranking = Ranking(
        "average_cumulative_gain",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    k = whole(k, "average_cumulative_gain", "k", 1, ranking.eligible)
    return ranking.score(lambda g: found_at(g, k) / k, ranking.labels.shared, per_query=per_query)


def best_sums(ranking: Ranking, gain: Gain, at: int) -> Tensor:
    """Best possible sums of the first 1..at gains over the database: float64 [Q, at]."""
    ranks = torch.arange(1, at + 1, device=ranking.query.device)
    return ranking.ideal(gain, lambda counts, sums: sums_at(counts, sums, ranks))


def hierarchical_scores(groups: Groups, sums: Tensor, best: Tensor, variant: str) -> Tensor:
    """Average hierarchical precision [q] up to rank K, the width of `best` [Q, K]."""
    ideal = best[groups.rows]
    at = ideal.shape[1]
    reached = sums_at(groups.counts, sums, torch.arange(1, at + 1, device=ideal.device))
    precision = ratio(reached, ideal)
    total = precision.sum(-1)
    if variant == "trapezoid":
        total = total - (precision[:, 0] + precision[:, -1]) / 2
    return total / at
