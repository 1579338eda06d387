"""Iterative affinity: few labels spread over a graph, by a classifier and learned affinities that teach each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from fasthash._arguments import choice, whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._directions import unit_rows
from fasthash._labels import label_array
from fasthash.neighbors import nearest

NAME = "refine_by_affinity"
DECAY = 1e-5  # of the two linear classifiers
ITERATIONS = 30  # of LBFGS, for each fit of one
WIDTH = 16  # columns of P
AFFINITY_STEPS, AFFINITY_RATE = 20, 0.003  # of Adam, in each round; the rate by validation nodes of Cora
SHRINK = 0.1  # of the first P: affinities begin nearly equal
CELL = 20  # most rows of a cell
AGREE = 0.8  # part of a cell that has to be of one class
FOLDS = 3


class Refined(NamedTuple):
    """What `refine_by_affinity` gives; row i of each belongs to row i of X."""

    labels: Any  # [N, C] floating point, refined label probabilities
    classifier: Any  # [N, C] floating point, what the classifier of X says after the last round taken
    mined: Any  # bool [N], rows in confident cells of the last round taken, and the seeds
    energy: list[float]  # J of the refined labels, a value for each round taken, never rising


def refine_by_affinity(
    X: Any,
    y: Any,
    edges: Any = None,
    *,
    classes: int | None = None,
    neighbors: int = 10,
    rounds: int = 4,
    steps: int = 4,
    mining: bool = True,
    affinity: str = "learned",
    seed: int = 0,
) -> Refined:
    """Spreads the labels of few rows to all rows of X, along a graph: targets for `Hasher.fit`.

    A linear softmax classifier f of x / |x| gives label probabilities u, and affinities w of the edges smooth them:

        w_ij = exp(-|P x_i - P x_j|^2), w_ii = the mean of w_ij over the neighbours j of i     [ours]
        G = row-normalised w;  p = G^steps u, and the labels that are given stay               [restated; steps: ours]
        f learns p by softmax cross-entropy, and then gives the next u                         [restated]
        P learns from -mean_i log p'_i[Y_i] + 0.1 mean_ij (w_ij - mean w of the cell)^2        [restated; weight: ours]
        J = 1/2 sum_ij |p_i - p_j|^2, an edge in both directions                               [restated; w = 1: ours]

    p' is one step without w_ii: if its own label counted, P would learn to trust no neighbour [ours]. Y are classes of
    mined rows: a cell is at most 20 rows that edges connect, nearest first; cells of which 80 in 100 rows have one
    class by f [restated] are kept where a softmax classifier of mean x, fitted on other cells, says the same class
    [restated; other cells: ours]. A round that would raise J is not taken, and rounds end there [ours].

    Args:
        X: features [N, F], floating point, finite; used by direction. float64 stays, other types become float32.
        y: int [N], classes 0 to C - 1, and -1 where the class is unknown. At least one must be known.
        edges: integers [E, 2], or a scipy sparse adjacency matrix [N, N], whose entries other than 0 are edges. Taken
            in both directions; duplicates and self-loops count as nothing. None: the nearest rows of X by cosine.
        classes: C. None: the largest of y + 1.
        neighbors: of each row, where edges is None: 1 to 64, at most N - 1 are taken.
        rounds: the largest number of rounds, >= 1.
        steps: of the random walk, >= 1.
        mining: False learns P from all rows, with the likeliest class of each.
        affinity: "learned", or "uniform" for w_ij = 1.
        seed: of the first P.

    Returns:
        `Refined`: labels and classifier [N, C], mined bool [N], arrays where X was one, and the energies. Rows of
        labels sum to 1. A row without an edge has what the classifier says. The same arguments on the same machine
        give the same labels. For Hasher: `fit(X, labels.argmax(1))`, or soft, `fit(X, labels - labels.mean(0))`, which
        is near by cosine. Without the mean flat rows are all near each other, and codes learn little.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    Source: Wang, Liu, Ma, Yang, "Weakly-supervised semantic segmentation by iterative affinity learning", IJCV 2020
    (arXiv 2002.08098), for pixels and image networks, known here from a review ("restated"). Its code is not public.
    Items in the place of pixels, a linear f, the form of w, cells in the place of superpixels, and all numbers of
    iterations are of this package ("ours"). Cost: N F C for each of 30 iterations a round, E WIDTH for each of 20.

    >>> import numpy as np
    >>> X = np.array([[1.0, 0.1], [0.9, 0.2], [0.8, 0.3], [0.1, 1.0], [0.2, 0.9], [0.3, 0.8]])
    >>> refined = refine_by_affinity(X, [0, -1, -1, 1, -1, -1], [[0, 1], [1, 2], [3, 4], [4, 5]])
    >>> refined.labels.argmax(1)
    array([0, 0, 0, 1, 1, 1])
    """
    rows = _rows(X)
    seeds, C = _seeds(y, len(rows), classes)
    rounds, steps = whole(rounds, NAME, "rounds", 1), whole(steps, NAME, "steps", 1)
    choice(affinity, NAME, "affinity", ("learned", "uniform"))
    seed = whole(seed, NAME, "seed", 0)
    rows, seeds = unit_rows(rows), seeds.to(rows.device)
    graph = _Graph(rows, _near(rows, neighbors) if edges is None else _pairs(edges, len(rows)).to(rows.device))
    given = (seeds >= 0).nonzero()[:, 0]
    wanted = one_hot(seeds[given], C).to(rows.dtype)
    noise = torch.randn(rows.shape[1], WIDTH, generator=torch.Generator().manual_seed(seed), dtype=rows.dtype)
    P = (noise * (SHRINK / WIDTH**0.5)).to(rows.device)
    f = _softmax_classifier(rows[given], wanted)
    taken: list[Refined] = []
    for _ in range(rounds):
        u = _probabilities(rows, f)
        u[given] = wanted
        mined = graph.mine(u) if mining else torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        mined[given] = True
        if affinity == "learned":
            P = graph.learn(P, u, mined)
        p = graph.walk(graph.affinities(P) if affinity == "learned" else graph.ones, u, steps)
        p[given] = wanted
        energy = graph.energy(p)
        if taken and energy > taken[-1].energy[-1]:
            break
        f = _softmax_classifier(rows, p, f)
        taken = [Refined(p, _probabilities(rows, f), mined, [*(taken[-1].energy if taken else []), energy])]
    labels, classifier, mined, energies = taken[-1]  # a first round is always taken
    return Refined(like(labels, X), like(classifier, X), like(mined, X), energies)


class _Graph:
    """Rows, the edges between them in both directions, and cells of connected rows. Nothing in it is random."""

    def __init__(self, rows: Tensor, pairs: Tensor) -> None:
        self.rows, self.pairs, n = rows, pairs, len(rows)
        self.i, self.j = torch.cat([pairs, pairs.flip(1)]).T.contiguous()
        self.ones = torch.ones(len(self.i), dtype=rows.dtype, device=rows.device)
        self.degree = torch.bincount(self.i, minlength=n).to(rows.dtype)
        self.cell = _cells(rows, pairs)
        self.cells = int(self.cell.max()) + 1
        self.size = torch.bincount(self.cell).to(rows.dtype)[:, None]
        self.inside = self.cell[self.i] == self.cell[self.j]
        self.edges_inside = self.summed(torch.ones_like(self.ones[self.inside]), self.cell[self.i[self.inside]])

    def summed(self, values: Tensor, place: Tensor) -> Tensor:
        """Sums of values [M, ...] by place [M] < N."""
        return values.new_zeros((len(self.rows), *values.shape[1:])).index_add(0, place, values)

    def affinities(self, P: Tensor) -> Tensor:
        """w [2 E] of the edges in both directions."""
        projected = self.rows @ P
        return (-(projected[self.i] - projected[self.j]).square().sum(1)).exp()

    def walk(self, w: Tensor, u: Tensor, steps: int) -> Tensor:
        """G^steps u."""
        total = self.summed(w, self.i)
        own = torch.where(self.degree > 0, total / self.degree.clamp(min=1), 1.0)
        for _ in range(steps):
            u = (own[:, None] * u + self.summed(w[:, None] * u[self.j], self.i)) / (own + total)[:, None]
        return u

    def energy(self, p: Tensor) -> float:
        return float((p[self.pairs[:, 0]] - p[self.pairs[:, 1]]).square().sum())

    @torch.enable_grad()
    def learn(self, P: Tensor, u: Tensor, mined: Tensor) -> Tensor:
        """P after the steps of one round."""
        rows = (mined & (self.degree > 0)).nonzero()[:, 0]
        if not len(rows):
            return P
        P = P.clone().requires_grad_()
        optimizer = torch.optim.Adam([P], lr=AFFINITY_RATE)
        classes = u.argmax(1)[self.i[:, None]]
        right = u[self.j].gather(1, classes)[:, 0]  # what each neighbour says of the row's class
        cell = self.cell[self.i[self.inside]]
        for _ in range(AFFINITY_STEPS):
            optimizer.zero_grad()
            w = self.affinities(P)
            told = self.summed(w * right, self.i)[rows] / self.summed(w, self.i)[rows]
            loss = -told.clamp(min=1e-6).log().mean()
            if len(cell):
                within = w[self.inside]
                mean = self.summed(within, cell) / self.edges_inside.clamp(min=1)
                loss = loss + 0.1 * (within - mean[cell]).square().mean()
            loss.backward()
            optimizer.step()
        return P.detach()

    def mine(self, u: Tensor) -> Tensor:
        """Which rows are in a cell of one class, and of it, by the classifier and by that of mean rows. bool [N]."""
        classes = u.argmax(1)
        votes = self.summed(one_hot(classes, u.shape[1]).to(u.dtype), self.cell)[: self.cells] / self.size
        share, winner = votes.max(1)
        means = unit_rows(self.summed(self.rows, self.cell)[: self.cells])
        kept = (share >= AGREE).nonzero()[:, 0]
        confident = torch.zeros(self.cells, dtype=torch.bool, device=u.device)
        for fold in range(FOLDS):
            asked, fitted = (
                kept[fold::FOLDS],
                torch.cat([kept[other::FOLDS] for other in range(FOLDS) if other != fold]),
            )
            if len(asked) and len(fitted):
                f = _softmax_classifier(means[fitted], one_hot(winner[fitted], u.shape[1]).to(u.dtype))
                confident[asked] = _probabilities(means[asked], f).argmax(1) == winner[asked]
        return confident[self.cell] & (classes == winner[self.cell])


def _cells(rows: Tensor, pairs: Tensor) -> Tensor:
    """Numbers int64 [N] of cells: along edges, nearest first, cells join while they have at most CELL rows."""
    order = (rows[pairs[:, 0]] - rows[pairs[:, 1]]).square().sum(1).argsort(stable=True)
    root, size = list(range(len(rows))), [1] * len(rows)

    def top(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for one, other in pairs[order].tolist():
        a, b = top(one), top(other)
        if a != b and size[a] + size[b] <= CELL:
            root[b], size[a] = a, size[a] + size[b]
    tops = torch.tensor([top(row) for row in range(len(rows))])
    numbers: Tensor = torch.unique(tops, return_inverse=True)[1].to(rows.device)
    return numbers


@torch.enable_grad()
def _softmax_classifier(rows: Tensor, wanted: Tensor, start: Tensor | None = None) -> Tensor:
    """Weights [F + 1, C], the last row added, of the classifier of rows [M, F] that gives probabilities [M, C]."""
    weights = rows.new_zeros(rows.shape[1] + 1, wanted.shape[1]) if start is None else start.clone()
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = cross_entropy(rows @ weights[:-1] + weights[-1], wanted)
        found = found + DECAY / 2 * weights[:-1].square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    return weights.detach()


def _probabilities(rows: Tensor, weights: Tensor) -> Tensor:
    return log_softmax(rows @ weights[:-1] + weights[-1], 1).exp()


def _rows(X: Any) -> Tensor:
    rows = to_tensor(X, NAME, "X").detach()
    if rows.ndim != 2 or min(rows.shape) < 1:
        raise ValueError(f"{NAME}: X must have shape [N, F] with N and F >= 1, got {list(rows.shape)}")
    if not rows.is_floating_point():
        raise TypeError(f"{NAME}: X must be floating point, got {dtype_name(rows)}")
    bad = int((~torch.isfinite(rows)).any(1).sum())
    if bad:
        raise ValueError(f"{NAME}: X must be finite, got NaN or infinity in {bad} of {len(rows)} rows")
    return rows if rows.dtype == torch.float64 else rows.float()


def _seeds(y: Any, n: int, classes: int | None) -> tuple[Tensor, int]:
    """y as int64 [N], and C."""
    labels = label_array(y, NAME, "y")
    if labels.dtype.kind != "i":
        raise TypeError(f"{NAME}: y must hold integer classes, -1 where unknown, got {dtype_name(labels)}")
    if labels.shape != (n,):
        raise ValueError(f"{NAME}: y must have shape [{n}], one class a row of X, got {list(labels.shape)}")
    C = int(labels.max()) + 1 if classes is None else whole(classes, NAME, "classes", 1)
    if (labels == -1).all():
        raise ValueError(f"{NAME}: y must give the class of at least one row, got -1 in all {n}")
    if labels.min() < -1 or labels.max() >= C:
        raise ValueError(f"{NAME}: y must be between -1 and {C - 1}, got {labels.min()} to {labels.max()}")
    return torch.from_numpy(labels), C


def _near(rows: Tensor, neighbors: int) -> Tensor:
    """Edges [E, 2] between each row and its nearest others."""
    k = whole(neighbors, NAME, "neighbors", 1, 64)
    if len(rows) == 1:
        return torch.zeros(0, 2, dtype=torch.int64, device=rows.device)
    found = nearest(rows, k=min(k, len(rows) - 1)).indices
    own = torch.arange(len(rows), device=rows.device)[:, None].expand_as(found)
    return _once(torch.stack([own.flatten(), found.flatten()], 1))


def _pairs(edges: Any, n: int) -> Tensor:
    """Edges [E, 2], each once and none to itself."""
    if hasattr(edges, "tocoo"):  # of scipy, which need not be here
        if edges.shape != (n, n):
            raise ValueError(f"{NAME}: edges must be an adjacency matrix [{n}, {n}], got {list(edges.shape)}")
        matrix = edges.tocoo()
        there = matrix.data != 0
        edges = np.stack([matrix.row[there], matrix.col[there]], 1).astype(np.int64)
    pairs = to_tensor(edges, NAME, "edges")
    if pairs.numel() == 0:
        return torch.zeros(0, 2, dtype=torch.int64)
    if pairs.is_floating_point() or pairs.is_complex() or pairs.dtype == torch.bool:
        raise TypeError(f"{NAME}: edges must hold integers, got {dtype_name(pairs)}")
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"{NAME}: edges must have shape [E, 2] or be a sparse matrix, got {list(pairs.shape)}")
    pairs = pairs.to(torch.int64)
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0 or high >= n:
        raise ValueError(f"{NAME}: edges must name rows between 0 and {n - 1}, got {low} to {high}")
    return _once(pairs)


def _once(pairs: Tensor) -> Tensor:
    pairs = pairs.sort(1).values
    once: Tensor = torch.unique(pairs[pairs[:, 0] != pairs[:, 1]], dim=0)
    return once
