"""Learning from noisy similarities between items: no class ids, only distances with an error that never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.tasks import NOISE, Items, Task
from fasthash.losses.published import LOSSES
from fasthash.targets import class_distances
from fasthash.train import Objective, encoder, train
from fasthash.train.batches import shuffled_batches
from fasthash.train.encoder import Squash
from fasthash.train.features import feature_scales

Array = NDArray[Any]
ALIKE = 0.25  # noisy distances below count as a pair, for losses that know only pairs: 0 and 0.5 are the true ones


class NoisyDistances(nn.Module):
    """Distances between rows, by number: those of their classes plus a normal error, the same one for a pair always.

    The error is a function of (lower row, higher row, seed) by integer mixing, so that no [N, N] matrix is kept.
    """

    def __init__(self, table: Tensor, classes: Tensor, deviation: float, seed: int) -> None:
        super().__init__()
        self.table, self.classes, self.deviation, self.seed = (
            table,
            classes,
            deviation,
            seed,
        )

    def forward(self, rows: Tensor) -> Tensor:
        low, high = (
            torch.minimum(rows[:, None], rows),
            torch.maximum(rows[:, None], rows),
        )
        uniform = _mixed(low * len(self.classes) + high + (self.seed << 40))
        normal = torch.special.ndtri(uniform.clamp(1e-9, 1 - 1e-9)).float()
        classes = self.classes[rows]
        distances = self.table[classes[:, None], classes] + self.deviation * normal
        return distances.fill_diagonal_(0.0)


def _mixed(keys: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float64, of int64 keys (the finaliser of splitmix64)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        keys = (keys ^ (keys >> shift & (1 << 64 - shift) - 1)) * factor
    keys = keys ^ (keys >> 31 & (1 << 33) - 1)
    return (keys >> 11 & (1 << 53) - 1).double() / (1 << 53)


def fit_noisy(
    rows: Items,
    task: Task,
    bits: int,
    seed: int,
    loss: str | None,
    settings: dict[str, Any],
) -> Callable[[Array], Array]:
    """Trains on noisy distances; gives the outputs u [N, bits] of X [N, F], whose signs are the bits."""
    settings = dict(settings)
    batch_size, lr, epochs = (
        settings.pop("batch_size", 256),
        settings.pop("lr", 4e-3),
        settings.pop("epochs", 15),
    )
    X = torch.from_numpy(rows.X)
    classes, values = np.unique(rows.y, return_inverse=True)
    table = class_distances(classes, task.hierarchy)
    noisy = NoisyDistances(table, torch.from_numpy(values), NOISE, seed=0)  # the noise belongs to the data
    mean, deviation = feature_scales(X)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        loader = shuffled_batches(X, torch.arange(len(X)), batch_size=batch_size, generator=order)
        module = encoder(X.shape[1], bits, mean=mean, deviation=deviation, sigmoid=loss is None)
        objective: Callable[..., Tensor]
        if loss is None:
            # The stress form takes distances >= 0 only; the listwise one takes any.
            distance = noisy if settings.get("similarity") != "stress" else lambda rows: noisy(rows).clamp(min=0.0)
            objective = Objective(bits, distance=distance, classification=0.0, **{"temperature_y": 0.2, **settings})
        else:
            names = {"hashnet": {"bits": bits, "memory": 0}, "contrastive": {}}
            objective = _Pairs(LOSSES[loss](**names[loss], **settings), noisy)
        train(module, loader, objective, epochs=epochs, lr=lr, progress=False)
    squashed = nn.Sequential(module, nn.Identity() if loss is None else Squash()).eval()

    @torch.no_grad()
    def outputs(X: Array) -> Array:
        parts = [squashed(torch.from_numpy(X[start : start + 8192])) for start in range(0, len(X), 8192)]
        result: Array = (2.0 * torch.cat(parts) - 1.0).numpy()
        return result

    return outputs


class _Pairs(nn.Module):
    """A loss over pairs, told which pairs are near by noisy distances."""

    def __init__(self, loss: nn.Module, distances: NoisyDistances) -> None:
        super().__init__()
        self.loss, self.distances = loss, distances

    def forward(self, u: Tensor, rows: Tensor) -> Tensor:
        result: Tensor = self.loss(u, self.distances(rows) < ALIKE)
        return result
