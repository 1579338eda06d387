"""The usual numbers of one retrieval experiment in one pass, and statistics of codes that need no labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arguments import MOST, whole
from fasthash._arrays import Array, like, to_tensor
from fasthash._bit_moments import bit_moments
from fasthash.codes import check_codes
from fasthash.metrics.expectation import average_precision, discounted_sum
from fasthash.metrics.graded import best_sums, hierarchical_scores
from fasthash.metrics.precision import found_at, precision_inside
from fasthash.metrics.ranking import PAIRS, Ranking, check_bit_weights, check_items, pair_distances
from fasthash.metrics.relevance import Gain, Labels


def evaluate(
    query: Array,
    database: Array,
    query_labels: Any,
    database_labels: Any,
    *,
    class_similarity: Array | None = None,
    k: int | None = None,
    at: int | None = None,
    map_at: int | None = None,
    bits: int | None = None,
    query_input: Array | None = None,
    database_input: Array | None = None,
    ties: str = "expected",
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
) -> dict[str, float]:
    """Retrieval metrics of `query` against `database`, by name; arguments as in `fasthash.metrics`.

    Always: "mAP" (or "mAP@R" with map_at=R, divisor "retrieved"), "P@1", "P@k", "R@k", "nDCG@k". With
    `class_similarity` [C, C]: "mAHP@at", variant "mean". For packed codes: "P@radius2" (precision within Hamming
    radius 2) and `code_statistics` of the database, of which the first `bits` count. With `query_input` and
    `database_input`, the embeddings that the codes were made from: "overlap@k" (see `overlap_at`; needs 1-D labels).

    k=None is 10 and at=None is 250, or the number of items that can be found if that is smaller; the names have the
    number that was used. Raises ValueError if k or at is larger than that, and if `class_similarity` is equal for all
    pairs of three or more different classes.

    >>> codes = np.array([[0], [1], [255]], dtype=np.uint8)
    >>> {name: round(value, 3) for name, value in evaluate(codes, codes, [0, 0, 1], [0, 0, 1], k=2).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'mAP': 1.0, 'P@1': 1.0, 'P@2': 0.833, 'R@2': 1.0, 'nDCG@2': 1.0, 'P@radius2': 1.0, 'codes': 3.0,
     'bit_balance': 0.667, 'bit_entropy': 0.918, 'bit_correlation': 0.875}
    """
    if (query_input is None) != (database_input is None):
        raise ValueError("evaluate: query_input and database_input must be given together, got one of them")
    ranking = Ranking(
        "evaluate",
        query,
        database,
        query_labels,
        database_labels,
        ties,
        metric,
        exclude_self,
        bit_weights,
    )
    labels = ranking.labels
    k = min(10, ranking.eligible) if k is None else whole(k, "evaluate", "k", 1, ranking.eligible)
    gains: list[Gain] = [labels.relevant]
    graded: Gain = labels.exponential if labels.multi_hot else labels.relevant
    if labels.multi_hot:
        gains.append(graded)
    best_discounted = ranking.ideal(graded, lambda counts, sums: discounted_sum(counts, sums, k))
    best_similar = None
    at = min(250, ranking.eligible) if at is None else at
    if class_similarity is not None:
        at = whole(at, "evaluate", "at", 1, ranking.eligible)
        gains.append(labels.table("class_similarity", class_similarity))
        _refuse_flat(to_tensor(class_similarity, "evaluate", "class_similarity"))
        best_similar = best_sums(ranking, gains[-1], at)
    if map_at is not None:
        map_at = min(whole(map_at, "evaluate", "map_at", 1), MOST)

    totals: dict[str, Tensor] = {}

    def add(name: str, values: Tensor) -> None:
        totals[name] = totals.get(name, values.new_zeros(())) + values.sum()

    for groups in ranking.blocks(*gains, width=at if best_similar is not None else 1):
        relevant = groups.sums[0]
        add("mAP" if map_at is None else f"mAP@{map_at}", average_precision(groups.counts, relevant, map_at))
        if best_similar is not None:
            add(f"mAHP@{at}", hierarchical_scores(groups, groups.sums[-1], best_similar, "mean"))
        for rank in dict.fromkeys((1, k)):
            add(f"P@{rank}", found_at(groups, rank) / rank)
        add(f"R@{k}", found_at(groups, k) / relevant.sum(-1).clamp(min=1.0))
        ideal = best_discounted[groups.rows]
        reached = discounted_sum(groups.counts, groups.sums[1 if labels.multi_hot else 0], k)
        add(f"nDCG@{k}", torch.where(ideal > 0, reached / ideal.clamp(min=1e-300), 0.0))
        if ranking.metric == "hamming":
            add("P@radius2", precision_inside(groups, 2))
    result = {name: float(total) / len(ranking.query) for name, total in totals.items()}
    if query_input is not None and database_input is not None:
        given = (query, database, query_input, database_input, query_labels, database_labels)
        overlaps = _overlaps("evaluate", *given, k, metric, exclude_self, bit_weights)
        result[f"overlap@{k}"] = float(overlaps.nanmean())
    if ranking.metric == "hamming":
        result |= _statistics(ranking.database, bits, "evaluate")
    return result


def _refuse_flat(similarity: Tensor) -> None:
    """Refuses similarities [C, C] that are equal for all pairs of three or more different classes."""
    between = similarity[~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)]
    if len(similarity) > 2 and bool((between == between[0]).all()):
        raise ValueError(
            f"evaluate: class_similarity must differ between pairs of classes, got {float(between[0]):g} for all "
            f"pairs of the {len(similarity)} classes. Perhaps a hierarchy was read upside down: read edges that "
            'are written as (child, parent) with order="child parent". If all classes are equally far apart, '
            "omit class_similarity"
        )


def code_statistics(codes: Array, bits: int | None = None) -> dict[str, float]:
    """How well packed codes uint8 [N, W] use their bits (the first `bits`; default all 8 W).

    "codes": number of different codes. "bit_balance": mean over bits of 2 min(p, 1 - p), p = part of ones; 1 where
    every bit is on for half of the items. "bit_entropy": mean over bits of -p log2 p - (1 - p) log2 (1 - p).
    "bit_correlation": mean over pairs of bits of |correlation|, 0 for a pair with a constant bit.

    >>> code_statistics(np.array([[0b00], [0b01], [0b10], [0b11]], dtype=np.uint8) << 6, bits=2)
    {'codes': 4.0, 'bit_balance': 1.0, 'bit_entropy': 1.0, 'bit_correlation': 0.0}
    """
    return _statistics(codes, bits, "code_statistics")


def _statistics(codes: Array, bits: int | None, function: str) -> dict[str, float]:
    packed = to_tensor(codes, function, "codes")
    if bits is None:
        bits = 8 * packed.shape[-1] if packed.ndim else 1  # check_codes refuses a single value
    bits = whole(bits, function, "bits", 1 if packed.numel() else 0)
    check_codes(packed, bits, function)
    if 0 in packed.shape:
        raise ValueError(f"{function}: codes must not be empty, got shape {list(packed.shape)}")
    p, correlation = bit_moments(packed, bits)
    pairs = torch.ones_like(correlation).triu(1) > 0
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)) / np.log(2)
    rows = np.ascontiguousarray(packed.cpu().numpy())
    return {
        "codes": float(len(np.unique(rows.view(np.dtype((np.void, rows.shape[1])))))),
        "bit_balance": float((2 * torch.minimum(p, 1 - p)).mean()),
        "bit_entropy": float(entropy.mean()),
        "bit_correlation": float(correlation[pairs].abs().mean()) if bits > 1 else 0.0,
    }


def overlap_at(
    query: Array,
    database: Array,
    query_input: Array,
    database_input: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    *,
    metric: str | None = None,
    bit_weights: Any = None,
    exclude_self: bool = False,
    per_query: bool = False,
) -> Any:
    """How much of the input's own neighbourhood is left inside a class, which labels alone cannot tell.

    For each query, the candidates are the n database items of its class. overlap@k = |A and B| / k, A = its k nearest
    candidates by code (or output; `query` and `database` as in `fasthash.metrics`), B = its k nearest by the cosine
    of the inputs, floating point [Q, D] and [N, D]. In expectation over independent tie orders of A and B, so chance
    is k / n: codes that are equal within a class score exactly that. Queries with n <= k say nothing: they are NaN in
    per_query=True, and left out of the mean (NaN where there is no other query). Needs 1-D labels.

    >>> x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> codes = np.array([[0], [1], [255], [7]], dtype=np.uint8)
    >>> overlap_at(codes[:1], codes, x[:1], x, [0], [0, 0, 0, 0], 2)
    1.0
    """
    result = _overlaps(
        "overlap_at",
        query,
        database,
        query_input,
        database_input,
        query_labels,
        database_labels,
        k,
        metric,
        exclude_self,
        bit_weights,
    )
    return like(result, query) if per_query else float(result.nanmean())


def _overlaps(
    function: str,
    query: Array,
    database: Array,
    query_input: Array,
    database_input: Array,
    query_labels: Any,
    database_labels: Any,
    k: int,
    metric: str | None,
    exclude_self: bool,
    bit_weights: Any,
) -> Tensor:
    """`overlap_at` of each query, float64 [Q]; errors name `function`."""
    a, b, metric = check_items(function, query, database, metric)
    weights = check_bit_weights(function, bit_weights, a)
    inputs = to_tensor(query_input, function, "query_input"), to_tensor(database_input, function, "database_input")
    x, y, _ = check_items(function, *inputs, "cosine")
    labels = Labels(function, query_labels, database_labels, a.device)
    x, y = x.to(a.device), y.to(a.device)
    for name, rows, expected in (
        ("query_input", x, a),
        ("database_input", y, b),
        ("query_labels", labels.query, a),
        ("database_labels", labels.database, b),
    ):
        if len(rows) != len(expected):
            raise ValueError(f"{function}: {name} must have {len(expected)} rows, got {len(rows)}")
    if exclude_self and len(a) > len(b):
        raise ValueError(f"{function}: exclude_self needs query i to be row i, got {len(a)} queries and {len(b)} rows")
    k = whole(k, function, "k", 1, len(b))
    query_class, database_class = labels.classes()
    result = torch.full((len(a),), torch.nan, dtype=torch.float64, device=a.device)
    for number in torch.unique(query_class).tolist():
        candidates = (database_class == number).nonzero()[:, 0]
        if len(candidates) <= k:
            continue
        for part in (query_class == number).nonzero()[:, 0].split(max(1, PAIRS // len(candidates))):
            own = part[:, None] == candidates if exclude_self else None
            inside = [
                _chance_inside(pair_distances(left[part], right[candidates], name, groups), own, k)
                for left, right, name, groups in ((a, b, metric, weights), (x, y, "cosine", None))
            ]
            overlap = (inside[0] * inside[1]).sum(-1) / k
            if own is not None:
                overlap[len(candidates) - own.sum(-1) <= k] = torch.nan
            result[part] = overlap
    return result


def _chance_inside(distances: Tensor, left_out: Tensor | None, k: int) -> Tensor:
    """Chance [q, n], over all orders of ties, that each item is among the k nearest: 1, 0, or between at the k-th."""
    if left_out is not None:
        distances = distances.masked_fill(left_out, torch.inf)
    limit = distances.kthvalue(k, dim=-1, keepdim=True).values
    nearer, tied = distances < limit, distances == limit
    places = k - nearer.sum(-1, keepdim=True)
    return nearer.double() + tied.double() * places / tied.sum(-1, keepdim=True)
