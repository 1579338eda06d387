"""The trivial rivals: a byte of predicted class, and that byte with ITQ bits of what the class leaves.

A linear classifier (logistic regression on the labelled rows) gives each row x class probabilities p(x). The byte of a
database row is its likeliest class c. The distance of a query q to that row is

- alone: the place of c among the classes by p_q(c); for metrics of a hierarchy by the expected similarity
  s_q(c) = sum_c' p_q(c') sim(c', c). The database is ranked once for each of the two.
- with ITQ bits: Hamming distance of the bits + weight x [c is not the likeliest class of q], or + the nearest integer
  of weight x (1 - s_q(c)). The bits are those of x - the mean of the labelled rows of its predicted class, fitted on
  all rows.

All are integers. Rows at the same distance are tied, rows of one byte always, and count in expectation over all orders
of the tied, as everywhere. Scores of two classes are equal where their float64 values are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.quality.tasks import Items, Pair, flat
from fasthash import baselines, hamming_distances
from fasthash.evaluate import _chance_inside
from fasthash.metrics.ranking import Groups, Ranking, pair_distances

Array = NDArray[Any]
CLASS_BITS = 8


@dataclass(frozen=True)
class ClassByte:
    """Codes uint8 [N, 1 + bytes of the residual]; a residual is what is left of x by `means` [C, F], coded by `itq`."""

    probabilities: Callable[[Array], Array]  # X -> float64 [N, C]
    similarity: Array  # [C, C]
    residual: tuple[Array, baselines.LinearCodes] | None = None  # means, itq
    weight: int = 0
    graded: bool = True  # with a residual: by expected similarity, else by whether the class differs
    outputs: None = None
    bit_weights: None = None

    def codes(self, X: Array) -> Array:
        """The byte, then the bits of the residual."""
        return self._codes(X, self.probabilities(X).argmax(1))

    def rankings(self, sides: Pair) -> dict[str, DistanceRanking]:
        """By "class" and by "hierarchy": what metrics of each kind are measured on."""
        query, database = sides
        p = self.probabilities(query.X)
        likeliest = p.argmax(1)
        codes = self._codes(query.X, likeliest), self.codes(database.X)
        expected = p @ self.similarity
        if self.residual is None:
            tables = {"class": _places(p), "hierarchy": _places(expected)}
        elif self.graded:
            tables = {"class": np.rint(self.weight * (1.0 - expected)).astype(np.int64)}
        else:
            tables = {"class": self.weight * (np.arange(p.shape[1]) != likeliest[:, None]).astype(np.int64)}
        return {name: DistanceRanking(table, codes, sides) for name, table in tables.items()}

    def overlap(self, sides: Pair, k: int) -> float:
        """Overlap@k inside a class with the neighbours by the cosine of the input."""
        return self.rankings(sides)["class"].overlap(k)

    def _codes(self, X: Array, classes: Array) -> Array:
        byte = classes.astype(np.uint8)[:, None]
        if self.residual is None:
            return byte
        means, itq = self.residual
        return np.concatenate([byte, itq.encode(flat(X) - means[classes])], axis=1)


class DistanceRanking(Ranking):
    """Ranks by a table of distances [Q, C], looked up by the first byte, + the Hamming distance of the other bytes."""

    def __init__(self, table: Array, codes: tuple[Array, Array], sides: Pair) -> None:
        super().__init__("class_byte", *codes, sides[0].y, sides[1].y)
        self.metric = "distance"
        self.table, self.sides = torch.from_numpy(table), sides
        self.largest = int(table.max()) + 8 * (codes[0].shape[1] - 1)

    def distances(self, queries: Tensor, rows: Tensor) -> Tensor:
        """int64 [q, n] of some queries to some rows of the database."""
        classes = self.database[rows, 0].long()
        found = self.table[queries][:, classes]
        if self.database.shape[1] > 1:
            bits = [part[:, 1:].contiguous() for part in (self.query[queries], self.database[rows])]
            found = found + hamming_distances(*bits)
        return found

    def _sorted(self, start: int, rows: int, tables: list[Tensor]) -> Groups:
        width = self.largest + 1
        own = torch.arange(rows)
        found = self.distances(own + start, torch.arange(len(self.database)))
        places = (found + width * own[:, None]).flatten()

        def summed(values: Tensor | None) -> Tensor:
            return torch.bincount(places, values, minlength=rows * width).double().view(rows, width)

        sums = [summed(table[:, self.labels.database].flatten()) for table in tables]
        distances = torch.arange(width, dtype=torch.float64).expand(rows, width)
        return Groups(start, distances, summed(None), tuple(sums))

    def overlap(self, k: int) -> float:
        """`fasthash.evaluate.overlap_at` by these distances; NaN where no class has more than k rows."""
        query, database = (torch.from_numpy(items.flat) for items in self.sides)
        query, database = (torch.nn.functional.normalize(x.double()) for x in (query, database))
        classes = [torch.from_numpy(items.y) for items in self.sides]
        found = []
        for number in torch.unique(classes[0]):
            queries, rows = ((y == number).nonzero()[:, 0] for y in classes)
            if len(rows) > k:
                cosines = pair_distances(query[queries], database[rows], "cosine")
                near = [_chance_inside(d, None, k) for d in (self.distances(queries, rows).float(), cosines)]
                found.append((near[0] * near[1]).sum(1) / k)
        return float(torch.cat(found).mean()) if found else math.nan


def fit_class_byte(
    rows: Items,
    bits: int,
    seed: int,
    similarity: Array,
    features: Callable[[Array], Array],
    *,
    C: float = 10.0,
    weight: int | None = None,
    graded: bool = True,
) -> ClassByte:
    """A classifier of features(X); with a weight, ITQ of the residual fills up to `bits` bits. Needs scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    labelled = rows.labelled
    classifier = LogisticRegression(C=C, max_iter=1000).fit(features(labelled.X), labelled.y)
    classes = classifier.classes_
    if len(classes) > 1 << CLASS_BITS:
        raise ValueError(f"class byte: at most {1 << CLASS_BITS} classes fit a byte, got {len(classes)}")

    def probabilities(X: Array) -> Array:
        found: Array = classifier.predict_proba(features(X)).astype(np.float64)
        return found

    own = similarity[np.ix_(classes, classes)]
    if weight is None:
        return ClassByte(probabilities, own)
    means = np.stack([labelled.part(labelled.y == name).flat.mean(axis=0) for name in classes])
    left = rows.flat - means[probabilities(rows.X).argmax(1)]
    itq = baselines.itq(left, bits - CLASS_BITS, seed=seed)
    return ClassByte(probabilities, own, (means, itq), weight, graded)


def _places(scores: Array) -> Array:
    """The place int64 [Q, C] of each class by its score, highest first; equal scores have one place."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    new = np.zeros(scores.shape, dtype=np.int64)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    places = np.empty_like(new)
    np.put_along_axis(places, order, new.cumsum(axis=1), axis=1)
    return places
