"""What the page measures: scores of `fasthash.metrics`, near and far codes by distance, and the use of bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fasthash._bit_moments import bit_moments
from fasthash.codes import unpack_bits
from fasthash.evaluate import code_statistics, evaluate
from fasthash.metrics import precision_recall_curve
from fasthash.metrics.expectation import average_precision, ratio, sums_at
from fasthash.metrics.graded import best_sums
from fasthash.metrics.precision import PrecisionRecallCurve
from fasthash.metrics.ranking import Ranking
from fasthash.metrics.relevance import Gain

Array = NDArray[Any]
RADII = 128  # radii, from 0 to the largest distance, at which precision and recall are kept
RANKS = 250  # of hierarchical precision


@dataclass(frozen=True)
class Problem:
    """Codes uint8 [Q, W] and [N, W] with their class numbers int64 [Q] and [N] (None: without labels).

    own: query i is row i of the database and is left out for itself. similarity: float64 [C, C], between classes.
    """

    query: Array
    database: Array
    query_labels: Array | None
    database_labels: Array | None
    bits: int
    bit_weights: list[tuple[int, int]] | None
    own: bool
    similarity: Array | None


@dataclass(frozen=True)
class Measures:
    """Numbers and curves of one `Problem`."""

    numbers: dict[str, float]  # as `fasthash eval` names them
    radii: Array  # int64 [R], ascending, the last one is the largest distance
    precision: Array | None  # float64 [Q, R], within each radius; None without labels, as all below
    recall: Array | None
    near: Array | None  # float64 [R]: pairs of one class at a distance up to radius r, and above the radius before
    far: Array  # the same for all other pairs; without labels for all pairs
    average_precision: Array | None  # float64 [Q]
    by_rank: PrecisionRecallCurve | None
    hierarchical: Array | None  # float64 [ranks]: hierarchical precision at rank 1, 2 ...; None without a hierarchy
    ones: Array  # float64 [bits]: part of the database's codes that have each bit
    correlation: Array  # float64 [bits, bits]


def measure(problem: Problem, k: int) -> Measures:
    """All numbers of the page; k as for `evaluate`."""
    labelled = problem.query_labels is not None and problem.database_labels is not None
    labels: tuple[Any, Any] = (problem.query_labels, problem.database_labels)
    if not labelled:  # everything is relevant, so that all pairs are counted
        labels = np.zeros(len(problem.query), np.int64), np.zeros(len(problem.database), np.int64)
    given = (problem.query, problem.database, *labels)
    options: dict[str, Any] = {"exclude_self": problem.own, "bit_weights": problem.bit_weights}
    ranking = Ranking("Report", *given, **options)
    at = min(RANKS, ranking.eligible)
    radii = np.append(np.arange(0, ranking.largest, -(-ranking.largest // RADII)), ranking.largest)
    gains: list[Gain] = [ranking.labels.relevant]
    best = None
    if problem.similarity is not None:
        gains.append(ranking.labels.table("class_similarity", problem.similarity))
        best = best_sums(ranking, gains[1], at)
    rows = len(problem.query)
    precision, recall, scores = np.empty((rows, len(radii))), np.empty((rows, len(radii))), np.empty(rows)
    near, far, hierarchical = np.zeros(len(radii)), np.zeros(len(radii)), torch.zeros(at, dtype=torch.float64)
    for groups in ranking.blocks(*gains, width=at if best is not None else 1):
        counts, relevant = groups.counts.cumsum(-1)[:, radii], groups.sums[0].cumsum(-1)[:, radii]
        precision[groups.rows] = relevant / counts.clamp(min=1.0)
        recall[groups.rows] = relevant / relevant[:, -1:].clamp(min=1.0)
        scores[groups.rows] = average_precision(groups.counts, groups.sums[0])
        near += np.diff(relevant.sum(0), prepend=0.0)
        far += np.diff((counts - relevant).sum(0), prepend=0.0)
        if best is not None:
            reached = sums_at(groups.counts, groups.sums[1], torch.arange(1, at + 1))
            hierarchical += ratio(reached, best[groups.rows]).sum(0)
    ones, correlation = bit_moments(torch.from_numpy(problem.database), problem.bits)
    used = ones.numpy(), correlation.numpy()
    if not labelled:
        return Measures(
            code_statistics(problem.database, problem.bits), radii, None, None, None, near, None, None, None, *used
        )
    numbers = evaluate(*given, class_similarity=problem.similarity, k=k, bits=problem.bits, **options)
    curve = precision_recall_curve(*given, **options)
    by_rank = None if best is None else hierarchical.numpy() / rows
    return Measures(numbers, radii, precision, recall, near, far, scores, curve, by_rank, *used)


def codes_of_classes(codes: Array, labels: Array) -> tuple[Array, Array, Array]:
    """The distinct labels, how many items each has, and how many different codes these have: [C] each.

    >>> codes_of_classes(np.array([[1], [1], [2]], np.uint8), np.array([5, 5, 7]))
    (array([5, 7]), array([2, 1]), array([1, 1]))
    """
    classes, numbers, items = np.unique(labels, return_inverse=True, return_counts=True)
    rows = np.ascontiguousarray(codes)
    _, of_code = np.unique(rows.view(np.dtype((np.void, rows.shape[1]))).reshape(-1), return_inverse=True)
    pairs = np.unique(numbers.reshape(-1).astype(np.int64) * (int(of_code.max()) + 1) + of_code.reshape(-1))
    return classes, items, np.bincount(pairs // (int(of_code.max()) + 1), minlength=len(classes))


def plane(
    codes: Array, others: Array, bits: int, bit_weights: list[tuple[int, int]] | None
) -> tuple[Array, Array, float]:
    """The two principal directions of the bits of `codes`: coordinates [N, 2] and [M, 2], and their part of variance.

    Squared distances of bits are Hamming distances, weighted as given.
    """
    factor = np.ones(bits)
    if bit_weights:
        factor = np.sqrt(np.repeat([weight for _, weight in bit_weights], [count for count, _ in bit_weights])[:bits])
    a, b = (unpack_bits(part, bits).astype(np.float64) * factor for part in (codes, others))
    mean = a.mean(axis=0)
    _, spread, directions = np.linalg.svd(a - mean, full_matrices=False)
    two = np.zeros((2, bits))
    two[: min(2, len(directions))] = directions[:2]
    two *= np.where(two[np.arange(2), np.abs(two).argmax(1)] < 0, -1.0, 1.0)[:, None]  # one sign, whatever made them
    part = float((spread[:2] ** 2).sum() / max((spread**2).sum(), 1e-300))
    return (a - mean) @ two.T, (b - mean) @ two.T, part
