"""The methods of task i: CrossModalHasher, the same encoders with other losses, and CCA."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.cross_modal_task import CrossModal, Pairs, label_sets
from benchmarks.quality.tasks import Items, Task
from fasthash import CrossModalHasher, baselines
from fasthash.losses import code_distance_bounds
from fasthash.losses.published import ContrastiveLoss
from fasthash.losses.published.ordered_pairs import ordered_hinges
from fasthash.losses.published.outputs import half_distances
from fasthash.targets import shared_label_distances
from fasthash.train import Objective, train
from fasthash.train.batches import shuffled_batches
from fasthash.train.features import scan
from fasthash.train.pair_encoder import PairEncoder, SideBySide
from fasthash.train.randomness import seeded

Array = NDArray[Any]
Settings = dict[str, Any]
CPU = torch.device("cpu")
STEPS, BATCH = 400, 128  # of all that are trained
INSIDE = 0.5  # weight of lists inside a modality, as in RMSH


def fit_rmsh(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> CrossModal:
    """CrossModalHasher. delta: a number, or what `resolved` knows."""
    chosen = dict(settings)
    if isinstance(chosen.get("delta"), str):
        chosen["delta"] = resolved(chosen["delta"], bits, label_sets(rows.y))
    hasher = CrossModalHasher(bits, seed=seed, batch_size=BATCH, epochs=_epochs(rows), progress=False, **chosen)
    hasher.fit(rows.X.first, rows.X.second, rows.y)
    return _model(hasher.module_)


def resolved(delta: str, bits: int, words: int) -> float:
    """Distances by name: "half" of the Gilbert-Varshamov bound, the "upper" bound, "K/2"."""
    lower, upper = code_distance_bounds(bits, words)
    return {"half": lower / 2, "upper": upper, "K/2": bits / 2}[delta]


def fit_joint(make: Callable[..., nn.Module]) -> Callable[..., CrossModal]:
    """The encoders of CrossModalHasher, trained with the loss that `make(bits, labels, **own settings)` gives.

    It is called with the outputs [B, 2, bits] and the labels of a batch.
    """

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> CrossModal:
        chosen = dict(settings)
        own = CrossModalHasher()
        lr, dropout = (chosen.pop(name, getattr(own, name)) for name in ("lr", "dropout"))
        sides = [torch.from_numpy(X) for X in (rows.X.first, rows.X.second)]
        order = torch.Generator().manual_seed(seed)
        y = torch.from_numpy(rows.y)
        batches = shuffled_batches(SideBySide(*sides), y, batch_size=min(BATCH, len(y)), generator=order)
        with seeded(seed, CPU):
            scanned = [scan(X, "X", checksum=False) for X in sides]
            module = PairEncoder(scanned, bits, own.hidden, dropout)
            loss = make(bits, rows.y.shape[1], **chosen)
            train(module, batches, loss, epochs=_epochs(rows), lr=lr, progress=False)
        return _model(module)

    return fit


def _epochs(rows: Items) -> int:
    return math.ceil(STEPS / (len(rows.y) // min(BATCH, len(rows.y))))


def _model(module: PairEncoder) -> CrossModal:
    def outputs(side: int) -> Callable[[Array], Array]:
        @torch.no_grad()
        def found(X: Array) -> Array:
            u: Array = module.encoders[side].eval()(torch.from_numpy(X)).numpy()
            return u

        return found

    return CrossModal(outputs(0), outputs(1))


class PairContrastive(nn.Module):
    """The package's contrastive loss of all outputs of a batch, where the own partner is the only positive."""

    def __init__(self, bits: int, labels: int, **own: Any) -> None:
        super().__init__()
        self.loss = ContrastiveLoss(**own)

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        found: Tensor = self.loss(torch.cat([u[:, 0], u[:, 1]]), torch.arange(len(u)).repeat(2))
        return found


class FixedMargin(nn.Module):
    """Triplets across and inside modalities, as RMSH has them, of relevant and other rows and with one margin."""

    def __init__(self, bits: int, labels: int, *, margin: float = 0.25) -> None:
        super().__init__()
        self.margin = margin * bits

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        sides = u.tanh().unbind(1)
        alike = (y.float() @ y.float().T > 0).float()
        even, odd = slice(0, None, 2), slice(1, None, 2)  # each output is an anchor once across or inside
        across = self._lists(sides, alike, 0, 1, even) + self._lists(sides, alike, 1, 0, odd)
        inside = self._lists(sides, alike, 0, 0, odd) + self._lists(sides, alike, 1, 1, even)
        return (across + INSIDE * inside) / 2

    def _lists(self, sides: tuple[Tensor, ...], alike: Tensor, anchors: int, pool: int, rows: slice) -> Tensor:
        counted = torch.ones_like(alike, dtype=torch.bool)
        if anchors == pool:
            counted.fill_diagonal_(False)
        distance = half_distances(sides[anchors][rows], sides[pool])
        found, triplets = ordered_hinges(distance, alike[rows], counted[rows], margin=self.margin)
        return found.sum() / triplets.sum().clamp(min=1) / sides[0].shape[1]


class JointObjective(nn.Module):
    """This package's objective for several labels, of all outputs of a batch, whatever their modality."""

    def __init__(self, bits: int, labels: int, **own: Any) -> None:
        super().__init__()
        fixed = {"kl": 0.1, "temperature_y": 0.2, "temperature_z": 0.1}  # as Hasher has them for several labels
        self.loss = Objective(bits, classes=labels, multilabel=True, distance=shared_label_distances, **fixed | own)

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        z = (4 * torch.cat([u[:, 0], u[:, 1]])).sigmoid()  # the scale that its head begins with
        found: Tensor = self.loss(z, y.repeat(2, 1))
        return found


def fit_cca(itq: bool) -> Callable[..., CrossModal]:
    """Canonical correlation analysis, then signs, or ITQ of both sides together."""

    def fit(task: Task, rows: Items, bits: int, seed: int, settings: Settings) -> CrossModal:
        maps = cca(rows.X, bits, **settings)
        if not itq:
            return CrossModal(*maps)
        codes = baselines.itq(np.concatenate([maps[0](rows.X.first), maps[1](rows.X.second)]), bits, seed=seed)
        return CrossModal(*(lambda X, side=side: codes.transform(side(X)) for side in maps))

    return fit


def cca(X: Pairs, dimensions: int, *, regularization: float) -> list[Callable[[Array], Array]]:
    """Maps of both sides to their first canonical directions (Hotelling 1936), ridged by a part of the variance."""
    means, whitened, whiteners = [], [], []
    for side in (X.first.astype(np.float64), X.second.astype(np.float64)):
        centred = side - side.mean(0)
        covariance = centred.T @ centred / len(side)
        ridge = regularization * np.trace(covariance) / len(covariance)
        values, vectors = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
        whitener = vectors * values.clip(min=1e-12) ** -0.5
        means.append(side.mean(0))
        whiteners.append(whitener)
        whitened.append(centred @ whitener)
    left, _, right = np.linalg.svd(whitened[0].T @ whitened[1] / len(X), full_matrices=False)
    directions = (whiteners[0] @ left[:, :dimensions], whiteners[1] @ right.T[:, :dimensions])
    return [
        lambda rows, mean=mean, turn=turn: ((rows - mean) @ turn).astype(np.float32)
        for mean, turn in zip(means, directions, strict=True)
    ]
