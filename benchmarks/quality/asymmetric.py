"""DSAH on the tasks with classes: `AsymmetricHasher` on embeddings; on images the same loss with their network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.quality.image_tasks import EPOCHS, REDUCED_EPOCHS, network, network_outputs
from benchmarks.quality.tasks import Items, Task
from fasthash import AsymmetricHasher, baselines, pack_bits, train
from fasthash.train.asymmetric_loss import AsymmetricLoss, CodeRounds
from fasthash.train.batches import shuffled_batches

Array = NDArray[Any]
BATCH = 128  # images, as for the other methods


def fit_asymmetric(
    task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]
) -> tuple[Callable[[Array], Array], Array]:
    """Outputs u of X, whose signs are the bits, and the packed free codes of the rows."""
    if task.kind == "images":
        return _fit_images(task, rows, bits, seed, settings)
    hasher = AsymmetricHasher(bits, seed=seed, progress=False, **settings).fit(rows.X, rows.y)
    return lambda X: 2.0 * hasher.transform(X) - 1.0, hasher.codes_


_first: dict[tuple[str, int, int, int], torch.Tensor] = {}  # by task, rows, bits and seed: ablations begin alike


def _first_codes(task: Task, rows: Items, bits: int, seed: int) -> torch.Tensor:
    """ITQ of the pixels, bool [N, bits]."""
    known = task.name, len(rows.y), bits, seed
    if known not in _first:
        _first[known] = torch.from_numpy(baselines.itq(rows.flat, bits, seed=seed).transform(rows.flat) > 0)
    return _first[known]


def _fit_images(
    task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]
) -> tuple[Callable[[Array], Array], Array]:
    """Codes begin with ITQ of the pixels. The network, its steps and its number of passes are those of the others."""
    settings = dict(settings)
    lr, epochs = settings.pop("lr", 4e-3), settings.pop("epochs", 3)
    reduced = task.name.endswith("reduced")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    y = torch.from_numpy(np.unique(rows.y, return_inverse=True)[1].astype(np.int64))
    first = _first_codes(task, rows, bits, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = network(bits, 16 if reduced else 32, sigmoid=True, scale=settings.pop("scale", 1.0))
        loss = AsymmetricLoss(first, y, **settings)
        order = torch.Generator().manual_seed(seed)
        columns, size = (torch.from_numpy(rows.X), torch.arange(len(y))), min(BATCH, len(y))
        batches = shuffled_batches(*columns, batch_size=size, generator=order)
        rounds = CodeRounds(batches, module, loss, lambda: torch.from_numpy(network_outputs(module, rows.X)), epochs)
        train(
            module.to(device),
            rounds,
            loss,
            epochs=REDUCED_EPOCHS if reduced else EPOCHS,
            lr=lr,
            device=device,
            progress=False,
        )
        rounds.fit_codes()
    return lambda X: 2.0 * network_outputs(module, X) - 1.0, pack_bits((loss.codes > 0).float()).numpy(force=True)
