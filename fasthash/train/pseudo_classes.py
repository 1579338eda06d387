"""Classes for rows without a label: known ones where the rows fit, and new ones, found by clustering.

A mixture is fitted to the directions of the inputs in a space where known classes are round (whitened by their
covariance inside classes). Known classes are components whose labelled rows stay theirs; new ones begin as clusters of
the rows that lie further from every known class than nine in ten of its own rows do. Nothing is assumed of how many
unlabelled rows are of known classes: that share is estimated along. A known class whose unlabelled rows have another
mean than its labelled ones, beyond chance, has swallowed a new class, and is split. A new component whose mean is that
of a known class, but for chance, is given to it. There are too many new components then: the nearest are merged until
they are about as large as known classes are.
Source: this package, after generalised category discovery (Vaze, Han, Vedaldi & Zisserman 2022).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._directions import unit_rows
from fasthash.hierarchy import Name
from fasthash.train.encoder import Standardize
from fasthash.train.features import Features
from fasthash.train.supervision import Targets

SAMPLE = 50_000  # rows from which the classes are found; all rows are then assigned, a block at a time
BLOCK = 1 << 14
COMPONENTS = 512  # principal components that are used of wider inputs
SHRINKAGE = 0.1  # at least, of the covariance inside classes towards a multiple of the identity
FEW = 1.5  # so many times D / (D + rows), where that is more: few rows would be round, and no others
USUAL = 0.9  # part of a class's own rows that are not far from it
FAR = 0.7  # part of the rows of new classes that lie far, as a guess for how many new classes there are
MORE = 1.3  # times the guessed number of new classes
SPLIT = 4.0  # squared shift of a class's unlabelled mean, in units of its expectation, beyond which it is split
RETURN = 3.0  # the same of a new component's mean and a known class's, up to which it is that class
STEPS, SPLITS = 15, 2  # steps of the mixture between two splits; how often classes are split
FEWEST = 5  # rows that tell a class
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 48.0, 64.0, 96.0)


@dataclass(frozen=True)
class PseudoClasses:
    """What was found for the rows without a label.

    labels: int64 [N], of all rows: a position in `classes_` of the Hasher, or len(classes_) + j for the j-th new class
    (None after `Hasher.load`). nearest: the known class next to each new one. sizes: rows of each new class. known: how
    many rows without a label were taken for a known class.
    """

    labels: NDArray[np.int64] | None
    nearest: list[Name]
    sizes: list[int]
    known: int

    def __repr__(self) -> str:
        return (
            f"PseudoClasses({len(self.sizes)} new classes of {sum(self.sizes)} rows; {self.known} rows of known ones)"
        )


@dataclass
class Mixture:
    """Components with means [C, D], the first `known` of known classes, and their shares [C] among unlabelled rows."""

    means: Tensor
    shares: Tensor
    sharpness: float
    known: int

    def scores(self, rows: Tensor) -> Tensor:
        """Log-likelihoods [N, C] of the components, up to a constant of each row.

        Known classes count alike, and new ones: by its own share a large component would swallow small ones.
        """
        alike = [part.mean().expand(len(part)) for part in self.shares.tensor_split([self.known]) if len(part)]
        distances = torch.cdist(rows, self.means).square()
        return (torch.cat(alike) + 1e-12).log() - 0.5 * self.sharpness * distances


def with_pseudo_classes(features: Features, targets: Targets, seed: int) -> tuple[Targets, PseudoClasses | None]:
    """Targets where rows without a label have classes too, and what was found; the targets themselves without any."""
    if targets.classes is None or targets.distances is None or not targets.unlabelled:
        return targets, None
    count, missing = len(targets.classes), targets.values < 0
    labels, nearest = find_classes(features.rows, targets.values, features.standard, seed)
    names = [targets.classes[place] for place in nearest.tolist()]
    sizes = torch.bincount(labels, minlength=count + len(nearest))[count:].tolist()
    distances = with_new_classes(targets.distances, nearest)
    classes = [*targets.classes, *(f"new class {number}, beside {name}" for number, name in enumerate(names))]
    found = PseudoClasses(labels.numpy(), names, sizes, int((labels[missing] < count).sum()))
    return Targets("labels", labels, classes, distances), found


def find_classes(rows: Tensor, labels: Tensor, standard: Standardize, seed: int) -> tuple[Tensor, Tensor]:
    """Classes of all rows X [N, F]: labels int64 [N], -1 where there is none, become classes, and new ones from K on.

    K: the number of known classes, 0 to K - 1. Gives labels [N], and the nearest known class of each new one [J].
    """
    generator = torch.Generator().manual_seed(seed)
    count = int(labels.max()) + 1
    known, unknown = (_sample(part.nonzero()[:, 0], count, generator) for part in (labels >= 0, labels < 0))
    own = labels[known]
    with_label, without = _read(rows, known, standard), _read(rows, unknown, standard)
    to_space = Space(with_label, own, without)
    Z, U = to_space(with_label), to_space(without)
    mixture = _fit(Z, own, U, count, int((labels >= 0).sum()) / len(known), int((labels < 0).sum()), seed)
    found = labels.clone()
    places = (labels < 0).nonzero()[:, 0]
    for block in places.split(BLOCK):
        found[block] = mixture.scores(to_space(_read(rows, block, standard))).argmax(1)
    new, found[places] = _renumbered(found[places], count)
    nearest = torch.cdist(mixture.means[new], mixture.means[:count]).argmin(1)
    return found, nearest


def with_new_classes(distances: Tensor, nearest: Tensor) -> Tensor:
    """Distances [K + J, K + J] where J new classes stand beside their nearest known ones of distances [K, K].

    A new class has the distances of its nearest one, and to that one, and to others beside it, the smallest distance
    that two classes have.

    >>> with_new_classes(torch.tensor([[0.0, 0.5], [0.5, 0.0]]), torch.tensor([1]))
    tensor([[0.0000, 0.5000, 0.5000],
            [0.5000, 0.0000, 0.5000],
            [0.5000, 0.5000, 0.0000]])
    """
    places = torch.cat([torch.arange(len(distances)), nearest])
    apart = distances[distances > 0]
    grown = distances[places][:, places]
    beside = (places[:, None] == places) & ~torch.eye(len(places), dtype=torch.bool)
    return grown.masked_fill(beside, float(apart.min()) if len(apart) else 1.0)


class Space:
    """Inputs [N, F] -> directions [N, D] in a space where classes are round."""

    def __init__(self, rows: Tensor, classes: Tensor, others: Tensor) -> None:
        """From rows of the classes, and `others`, which have none: few rows of classes do not span all directions."""
        self.basis: Tensor | None = None
        if rows.shape[1] > COMPONENTS:
            both = torch.cat([rows, others])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.basis = torch.pca_lowrank(both, min(COMPONENTS, len(both)), niter=2)[2]
            rows = rows @ self.basis
        means = _means(rows, classes, int(classes.max()) + 1)
        inside = (rows - means[classes]).double()
        covariance = inside.T @ inside / max(1, len(rows))
        if float(covariance.trace()) <= 0:  # no class has two different rows
            self.whitening = torch.eye(rows.shape[1])
            return
        round_one = covariance.trace() / len(covariance) * torch.eye(len(covariance), dtype=torch.float64)
        width, degrees = len(covariance), max(1, len(rows) - len(classes.unique()))
        shrinkage = max(SHRINKAGE, min(1.0, FEW * width / (width + degrees)))
        values, vectors = torch.linalg.eigh((1 - shrinkage) * covariance + shrinkage * round_one)
        self.whitening = (vectors * values.rsqrt()).float()

    def __call__(self, rows: Tensor) -> Tensor:
        rows = rows if self.basis is None else rows @ self.basis
        return unit_rows(rows @ self.whitening)


def _fit(Z: Tensor, own: Tensor, U: Tensor, count: int, scale: float, unlabelled: int, seed: int) -> Mixture:
    """The mixture of labelled rows Z of classes `own` and unlabelled rows U, samples of larger sets."""
    sizes = torch.bincount(own, minlength=count).float()
    labelled = _means(Z, own, count)
    sharpness, apart = _calibrated(Z, own, labelled, sizes)
    spread = float(apart.mean())
    far = torch.cdist(U, labelled).square().amin(1) > float(np.quantile(apart.numpy(), USUAL))
    share = min(1.0, max(0.0, (float(far.float().mean()) - (1 - USUAL)) / (FAR - (1 - USUAL))))
    usual_size = (len(own) * scale + (1 - share) * unlabelled) / count
    wanted = min(round(MORE * share * unlabelled / usual_size), int(far.sum()) // FEWEST)
    begun = [labelled] if wanted < 1 else [labelled, _clusters(U[far], wanted, seed)]
    mixture = Mixture(torch.cat(begun), torch.ones(0), sharpness, count)
    mixture.shares = torch.full((len(mixture.means),), 1 / len(mixture.means))
    for split in range(SPLITS + 1):
        for _ in range(STEPS):
            _step(mixture, labelled * sizes[:, None], sizes, U)
        seeds = [] if split == SPLITS else list(_swallowed(mixture, labelled, sizes, U, spread))
        if not seeds:
            break
        mixture.means = torch.cat([mixture.means, torch.stack(seeds)])
        mixture.shares = torch.cat([mixture.shares, torch.full((len(seeds),), 1 / len(mixture.means))])
    _return(mixture, labelled, sizes, len(U), spread)
    _merge(mixture, len(U), sizes, unlabelled / len(U) / scale)
    for _ in range(STEPS):
        _step(mixture, labelled * sizes[:, None], sizes, U)
    return mixture


def _return(mixture: Mixture, labelled: Tensor, sizes: Tensor, rows: int, spread: float) -> None:
    """Gives known classes what is theirs: new components that lie no further from their labelled means than by chance.

    Such a component began with far rows of a class and went on to take the others.
    """
    count = len(sizes)
    shares = mixture.shares[count:]
    if not len(shares):
        return
    shift, nearest = torch.cdist(mixture.means[count:], labelled).square().min(1)
    chance = spread * (1 / (shares * rows).clamp(min=1) + 1 / sizes[nearest])
    theirs = (shift <= RETURN * chance) & (sizes[nearest] >= FEWEST)  # a mean of fewer rows says too little
    known = mixture.shares[:count].index_add(0, nearest[theirs], shares[theirs])
    mixture.means = torch.cat([mixture.means[:count], mixture.means[count:][~theirs]])
    mixture.shares = torch.cat([known, shares[~theirs]])


def _merge(mixture: Mixture, rows: int, sizes: Tensor, scale: float) -> None:
    """Merges new components until they are, on average, as large as the known classes: Ward's criterion."""
    count = len(sizes)
    weight = mixture.shares[count:] * rows * scale
    usual_size = float((sizes + mixture.shares[:count] * rows * scale).mean())
    means = mixture.means[count:]
    while len(means) > max(1, round(float(weight.sum()) / usual_size)):
        cost = torch.cdist(means, means).square() * (weight[:, None] * weight) / (weight[:, None] + weight)
        i, j = sorted(divmod(int(cost.fill_diagonal_(torch.inf).argmin()), len(means)))
        means[i] = (weight[i] * means[i] + weight[j] * means[j]) / (weight[i] + weight[j])
        weight[i] += weight[j]
        kept = torch.arange(len(means)) != j
        means, weight = means[kept], weight[kept]
    mixture.means = torch.cat([mixture.means[:count], means])
    mixture.shares = torch.cat([mixture.shares[:count], weight / (rows * scale)])


def _calibrated(Z: Tensor, own: Tensor, means: Tensor, sizes: Tensor) -> tuple[float, Tensor]:
    """The sharpness that makes the labelled rows' classes likeliest, each row left out of its class's mean; and the
    squared distances of rows from those means.
    """
    several = sizes[own] > 1
    if not bool(several.any()):
        return SHARPNESS[5], 0.5 * torch.pdist(means).square() if len(means) > 1 else torch.ones(1)
    rows, place = Z[several], own[several]
    others = (sizes[place, None] * means[place] - rows) / (sizes[place, None] - 1)
    distances = torch.cdist(rows, means).square()
    distances[torch.arange(len(rows)), place] = (rows - others).square().sum(1)
    likelihoods = [
        float((-0.5 * sharpness * distances).log_softmax(1)[torch.arange(len(rows)), place].mean())
        for sharpness in SHARPNESS
    ]
    best = SHARPNESS[int(np.argmax(likelihoods))] if len(means) > 1 else SHARPNESS[5]
    return best, (rows - others).square().sum(1)


def _step(mixture: Mixture, sums: Tensor, sizes: Tensor, U: Tensor) -> None:
    """One step of expectation and maximisation; new components with few rows end."""
    total, shares = torch.zeros_like(mixture.means), torch.zeros(len(mixture.means))
    for block in U.split(BLOCK):
        weights = mixture.scores(block).softmax(1)
        total += weights.T @ block
        shares += weights.sum(0)
    count = len(sizes)
    total[:count] += sums
    weight = shares.clone()
    weight[:count] += sizes
    kept = (shares > FEWEST) | (torch.arange(len(shares)) < count)
    mixture.means = (total / weight.clamp(min=1e-6)[:, None])[kept]
    mixture.shares = (shares / shares.sum())[kept]


def _swallowed(mixture: Mixture, labelled: Tensor, sizes: Tensor, U: Tensor, spread: float) -> Iterator[Tensor]:
    """Means of what known classes hold that is not theirs."""
    taken = torch.cat([mixture.scores(block).argmax(1) for block in U.split(BLOCK)])
    for place, mean in enumerate(labelled):
        rows = U[taken == place]
        if len(rows) < FEWEST:
            continue
        shift = float((rows.mean(0) - mean).square().sum())
        if shift <= SPLIT * spread * (1 / len(rows) + 1 / float(sizes[place])):
            continue
        near = (rows - mean).square().sum(1)
        other = rows[near.argsort()[len(rows) // 2 :]].mean(0)  # two means, one of which is held
        for _ in range(10):
            theirs = (rows - other).square().sum(1) < near
            if int(theirs.sum()) < FEWEST:
                break
            other = rows[theirs].mean(0)
        else:
            yield other


def _clusters(rows: Tensor, count: int, seed: int) -> Tensor:
    """Means [count, D] of clusters: scikit-learn's k-means, or where it is not installed our own steps of it."""
    try:
        from sklearn.cluster import KMeans
    except ImportError:
        return _own_clusters(rows, count, seed)
    found = KMeans(count, n_init=1, max_iter=30, random_state=seed % 2**32).fit(rows.numpy())
    return torch.from_numpy(found.cluster_centers_).to(rows.dtype)


def _own_clusters(rows: Tensor, count: int, seed: int) -> Tensor:
    """k-means from far-apart rows (k-means++: Arthur & Vassilvitskii 2007), 30 steps."""
    generator = torch.Generator().manual_seed(seed)
    means = rows[torch.randint(len(rows), (1,), generator=generator)]
    nearest = torch.full((len(rows),), torch.inf)
    while len(means) < count:
        nearest = torch.minimum(nearest, (rows - means[-1]).square().sum(1))
        chosen = torch.multinomial(nearest.clamp(min=1e-12), 1, generator=generator)
        means = torch.cat([means, rows[chosen]])
    for _ in range(30):
        place = torch.cdist(rows, means).argmin(1)
        sizes = torch.bincount(place, minlength=count)
        means = torch.where(sizes[:, None] > 0, _means(rows, place, count), means)
    return means


def _means(rows: Tensor, classes: Tensor, count: int) -> Tensor:
    sums: Tensor = torch.zeros(count, rows.shape[1]).index_add_(0, classes, rows)
    means: Tensor = sums / torch.bincount(classes, minlength=count).clamp(min=1)[:, None]
    return means


def _renumbered(found: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The components from `count` on that have rows; and the classes `found` with these numbered on from `count`."""
    new = found[found >= count].unique()
    return new, torch.where(found < count, found, count + torch.searchsorted(new, found))


def _sample(places: Tensor, count: int, generator: torch.Generator) -> Tensor:
    limit = max(SAMPLE, 64 * count)
    if len(places) <= limit:
        return places
    return places[torch.randperm(len(places), generator=generator)[:limit].sort().values]


def _read(rows: Tensor, places: Tensor, standard: Standardize) -> Tensor:
    read: Tensor = standard(rows[places.to(rows.device)]).cpu()
    return read
