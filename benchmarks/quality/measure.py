"""What is measured of one model on one task: codes, and the same model's outputs before rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.tasks import Pair, Sides, Task
from fasthash import hamming_distances
from fasthash.evaluate import code_statistics
from fasthash.metrics.expectation import average_precision, discounted_sum, sums_at
from fasthash.metrics.graded import best_sums, hierarchical_scores
from fasthash.metrics.precision import found_at, precision_inside
from fasthash.metrics.ranking import Ranking

if TYPE_CHECKING:
    from benchmarks.quality.class_byte import ClassByte
    from benchmarks.quality.fits import Model

Array = NDArray[Any]
BitWeights = list[tuple[int, int]] | None  # groups (bits, weight) of a weighted Hamming distance; None: undivided codes
HIERARCHICAL = ("HP@", "mAHP@")
RANKS = (250, 2500)
CURVE = (
    1,
    2,
    5,
    10,
    25,
    50,
    100,
    250,
    500,
    1000,
    2500,
)  # ranks of the hierarchical precision curve
BINS = 20
MAP_AT = 1000
K = 10


def array_ranking(
    arrays: Iterable[Array], sides: Pair, metric: str | None = None, bit_weights: BitWeights = None
) -> Ranking:
    """The ranking by codes or, with a metric, by outputs of queries and database."""
    query, database = arrays
    labels = sides[0].y, sides[1].y
    return Ranking("measure", query, database, *labels, "expected", metric, bit_weights=bit_weights)


def weighted(outputs: Array, bit_weights: BitWeights) -> Array:
    """Outputs whose L1 distance has the weights of the codes' distance."""
    if bit_weights is None:
        return outputs
    bits, weights = np.array(bit_weights).T
    found: Array = outputs * np.repeat(weights, bits).astype(outputs.dtype)
    return found


def measure_codes(model: Model | ClassByte, sides: Pair, similarity: Array, bits: int) -> dict[str, float]:
    """Every metric of a model's codes."""
    rankings = model.rankings(sides)
    result = measure_classes(rankings["class"], similarity)
    if "hierarchy" in rankings:
        graded = measure_classes(rankings["hierarchy"], similarity)
        result |= {name: value for name, value in graded.items() if name.startswith(HIERARCHICAL)}
    codes = model.codes(sides[1].X)
    result["overlap@10"] = model.overlap(sides, K)
    if model.bit_weights is not None:
        plain = array_ranking([model.codes(sides[0].X), codes], sides)
        result["mAP undivided"] = _mean_average_precision(plain)
    return result | code_statistics(codes, min(bits, 8 * codes.shape[1]))


def measure_classes(ranking: Ranking, similarity: Array) -> dict[str, float]:
    """Every retrieval metric of one ranking, in one pass."""
    labels = ranking.labels
    tables = [labels.relevant, labels.table("similarity", similarity)]
    ranks = [rank for rank in RANKS if rank <= ranking.eligible] or [ranking.eligible]
    best = best_sums(ranking, tables[1], max(ranks))
    ideal = ranking.ideal(labels.relevant, lambda counts, sums: discounted_sum(counts, sums, K))
    places = torch.arange(1, max(ranks) + 1)
    sums: dict[str, float] = {}

    def add(name: str, values: torch.Tensor) -> None:
        sums[name] = sums.get(name, 0.0) + float(values.sum())

    for groups in ranking.blocks(*tables, width=max(ranks)):
        relevant, graded = groups.sums
        add("mAP", average_precision(groups.counts, relevant))
        add(f"mAP@{MAP_AT}", average_precision(groups.counts, relevant, MAP_AT))
        precision = sums_at(groups.counts, graded, places) / best[groups.rows].clamp(min=1e-300)
        for rank in CURVE:
            if rank <= max(ranks):
                add(f"HP@{rank}", precision[:, rank - 1])
        for rank in ranks:
            mean = precision[:, :rank].mean(-1)
            add(f"mAHP@{rank}", mean)
            add(
                f"mAHP@{rank} trapezoid",
                mean - (precision[:, 0] + precision[:, rank - 1]) / (2 * rank),
            )
        for k in (1, K, 100):
            add(f"P@{k}", found_at(groups, k) / k)
        add("R@100", found_at(groups, 100) / relevant.sum(-1).clamp(min=1.0))
        add(
            f"nDCG@{K}",
            discounted_sum(groups.counts, relevant, K) / ideal[groups.rows].clamp(min=1e-300),
        )
        if ranking.metric == "hamming":
            add("P@radius2", precision_inside(groups, 2))
    return {name: total / len(ranking.query) for name, total in sums.items()}


def measure_groups(distances: Callable[[Array], torch.Tensor], task: Task, side: str) -> dict[str, float]:
    """Recall of the query's group, and overlap with the input's neighbours by cosine, in expectation over ties.

    `distances(rows)` gives [q, N] of some rows of the database to all of it.
    """
    own = (task.own or {})[side]
    database = (task.validation if side == "validation" else task.test)["all"][1]
    X, y = (
        torch.nn.functional.normalize(torch.from_numpy(database.X), dim=1),
        torch.from_numpy(database.y),
    )
    totals: dict[str, float] = {}
    for rows in np.array_split(own, max(1, len(own) // 500)):
        index = torch.from_numpy(rows)
        each = torch.arange(len(index))
        cosines = X[index] @ X.T
        cosines[each, index] = -2.0
        found = distances(rows).float()
        found[each, index] = torch.inf
        same = y[index][:, None] == y
        same[each, index] = False
        for k in (10, 100):
            limit = found.kthvalue(k, dim=1, keepdim=True).values
            nearer, tied = found < limit, found == limit
            chance = nearer.double() + tied.double() * (k - nearer.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
            overlap = chance.gather(1, cosines.topk(k, dim=1).indices).sum(1) / k
            recall = (chance * same).sum(1) / same.sum(1).clamp(min=1)
            for name, values in ((f"overlap@{k}", overlap), (f"R@{k}", recall)):
                totals[name] = totals.get(name, 0.0) + float(values.sum())
    return {name: total / len(own) for name, total in totals.items()}


def code_distances(codes: Array, bit_weights: BitWeights = None) -> Callable[[Array], torch.Tensor]:
    """Hamming distances of rows of `codes` to all of them."""
    items = torch.from_numpy(codes)
    return lambda rows: hamming_distances(items[torch.from_numpy(rows)], items, bit_weights=bit_weights)


def asymmetric_distances(outputs: Array, codes: Array, bits: int) -> Callable[[Array], torch.Tensor]:
    """Real-valued rows of `outputs` against codes: -sum_d u_d (2 b_d - 1).

    That is the order of sum_d |q_d - b_d| for q in [0, 1] that is a linear function of u.
    """
    u = torch.from_numpy(outputs)
    signs = torch.from_numpy(np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1)
    return lambda rows: -(u[torch.from_numpy(rows)] @ signs.T)


def output_distances(outputs: Array, metric: str) -> Callable[[Array], torch.Tensor]:
    """Distances between rows of real-valued outputs, "cosine" or "l1"."""
    u = torch.from_numpy(outputs)
    if metric == "cosine":
        u = torch.nn.functional.normalize(u, dim=1)
        return lambda rows: 1 - u[torch.from_numpy(rows)] @ u.T
    return lambda rows: torch.cdist(u[torch.from_numpy(rows)], u, p=1.0)


def histogram(outputs: Array) -> list[int]:
    """Counts of (tanh-like) outputs u in [-1, 1] in BINS equal bins; what lies outside counts at the ends."""
    counts: list[int] = np.histogram(outputs.clip(-1, 1), bins=BINS, range=(-1, 1))[0].tolist()
    return counts


def class_score(model: Model | ClassByte, sides: Sides, name: str, similarity: Array) -> float:
    """What settings are chosen by on tasks with classes, of codes.

    "mAHP@250" or "P@100" on the first pair, or "mAP", the mean over all.
    """
    rankings = [model.rankings(pair) for pair in sides.values()]
    if name == "mAP":
        return float(np.mean([_mean_average_precision(each["class"]) for each in rankings]))
    if name == "P@100":
        ranking = rankings[0]["class"]
        return float(ranking.score(lambda g: found_at(g, 100) / 100, ranking.labels.relevant))
    ranking = rankings[0].get("hierarchy", rankings[0]["class"])
    gain = ranking.labels.table("similarity", similarity)
    best = best_sums(ranking, gain, 250)
    score: float = ranking.score(lambda g: hierarchical_scores(g, g.sums[0], best, "mean"), gain, width=250)
    return score


def _mean_average_precision(ranking: Ranking) -> float:
    score: float = ranking.score(lambda g: average_precision(g.counts, g.sums[0]), ranking.labels.relevant)
    return score
