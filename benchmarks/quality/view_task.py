"""Tasks m: images without labels. CIMON sees two views of each, the others what it mines pairs from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, normalize

from benchmarks.quality.tasks import Items, Task
from fasthash import CIMON
from fasthash.datasets.files import existing

Array = NDArray[Any]
QUERIES, TRAINED = 1_000, 5_000
ORIENTATIONS, CELL = 9, 8
WIDTH = 64  # of the features that similarities are mined from


def task_mnist(data: Path) -> Task:
    """The test split of MNIST: 1,000 queries, the other 9,000 as database, 5,000 of those to learn from."""
    return _task("m-mnist", "MNIST test split without labels", data / "mnist_test10k")


def task_kmnist(data: Path) -> Task:
    """The test split of Kuzushiji-MNIST, in the same way."""
    return _task("m-kmnist", "Kuzushiji-MNIST test split without labels", data / "kmnist_test10k")


def _task(name: str, title: str, folder: Path) -> Task:
    with np.load(existing(folder / "data.npz", folder.name)) as archive:
        images, labels = (archive[key] for key in archive.files)
    order = np.random.default_rng(0).permutation(len(images))
    everything = Items(images[..., None], labels.astype(np.int64))
    queries, fitted, held, rest = (
        everything.part(rows) for rows in np.split(order, np.cumsum([QUERIES, TRAINED, QUERIES]))
    )
    database = everything.part(order[QUERIES:])
    known = Items(*(np.concatenate([getattr(part, each) for part in (fitted, rest)]) for each in ("X", "y")))
    return Task(
        name,
        f"{title}: {QUERIES:,} queries, {len(database.y):,} in the database, {len(fitted.y):,} of those trained on",
        "images",
        fitted,
        {"all": (held, known)},
        {"all": (queries, database)},
        (32, 64),
        notes=(
            "validation queries are in the database; they were not trained on and are omitted from the database "
            "of the validation",
            "inputs are pixels; all methods except CIMON learn from 64 principal components of directions of "
            "gradients, and CIMON mines pairs from these",
        ),
        score="mAP",
    )


class Gradients:
    """Directions of gradients of images in [0, 1], by cells, as WIDTH principal components [B, WIDTH]."""

    def __init__(self, images: Array) -> None:
        found = _directions(as_images(images))
        self.mean = found.mean(0)
        self.components = torch.linalg.svd(found - self.mean, full_matrices=False).Vh[:WIDTH].T

    def __call__(self, images: Tensor) -> Tensor:
        return (_directions(images) - self.mean) @ self.components

    def of(self, images: Array) -> Array:
        found: Array = self(as_images(images)).numpy()
        return found


def as_images(images: Array) -> Tensor:
    """uint8 [N, H, W, 1] as floats [N, 1, H, W] in [0, 1]."""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 255


def _directions(images: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal & Triggs 2005) of cells that overlap by half, each of length 1."""
    x = images[:, :, 1:-1, 2:] - images[:, :, 1:-1, :-2]
    y = images[:, :, 2:, 1:-1] - images[:, :, :-2, 1:-1]
    angle = torch.atan2(y, x).remainder(torch.pi) / torch.pi * ORIENTATIONS
    strength = (x.square() + y.square()).sqrt()
    parts = []
    for number in range(ORIENTATIONS):
        apart = (angle - number).abs()
        parts.append(strength * (1 - apart.minimum(ORIENTATIONS - apart)).clamp(min=0))
    cells = avg_pool2d(torch.cat(parts, 1), CELL, CELL // 2)
    return normalize(cells * CELL**2, dim=1).flatten(1)


def turned(images: Tensor, degrees: float, shift: float, scale: float) -> Tensor:
    """Each image turned, shifted (part of the width) and scaled by random amounts up to these."""
    angle, size, *moved = (2 * torch.rand(4, len(images)) - 1) * torch.tensor(
        [[degrees], [1], [2 * shift], [2 * shift]]
    )
    angle, size = torch.deg2rad(angle), scale**size
    cos, sin = size * angle.cos(), size * angle.sin()
    rows = torch.stack([torch.stack([cos, -sin, moved[0]], 1), torch.stack([sin, cos, moved[1]], 1)], 1)
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def little_changed(images: Tensor) -> Tensor:
    return turned(images, 10, 0.05, 1.1)


def much_changed(images: Tensor) -> Tensor:
    """And half of them blurred."""
    images = turned(images, 20, 0.1, 1.25)
    kernel = torch.tensor([1.0, 2.0, 1.0])
    blurred = conv2d(images, (kernel[:, None] * kernel / 16)[None, None], padding=1)
    return torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, blurred, images)


VIEWS = little_changed, much_changed


def small_network(width: int = 16) -> nn.Sequential:
    """Images [B, 1, 28, 28] -> [B, 9 * 4 * width]: three convolutions."""
    layers: list[nn.Module] = []
    for before, after, stride in ((1, width, 2), (width, 2 * width, 1), (2 * width, 4 * width, 1)):
        layers += [nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if stride == 1 else []
    return nn.Sequential(*layers, nn.Flatten())


@lru_cache(maxsize=2)
def _gradients(images: bytes, shape: tuple[int, ...]) -> Gradients:
    return Gradients(np.frombuffer(images, dtype=np.uint8).reshape(shape))


def gradients(rows: Items) -> Gradients:
    """Those with the principal components of these rows."""
    return _gradients(rows.X.tobytes(), rows.X.shape)


def on_gradients(fit: Callable[..., Any]) -> Callable[..., Any]:
    """The same fit on directions of gradients in the place of images."""

    def fitted(task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]) -> Any:
        found = gradients(rows)
        embedded = Items(found.of(rows.X), rows.y)
        model = fit(replace(task, kind="groups"), embedded, bits, seed, settings)  # a kind without labels
        inner = model.outputs
        return replace(model, outputs=lambda X: inner(found.of(X)))

    return fitted


def fit_cimon(rows: Items, bits: int, seed: int, settings: dict[str, Any]) -> tuple[Callable[[Array], Array], Any]:
    """Outputs u of images, whose signs are the bits; and precisions of the pairs that were mined (see `precisions`)."""
    settings = dict(settings)
    views = VIEWS[: settings.pop("views", len(VIEWS))]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = small_network()
    hasher = CIMON(
        bits, backbone=backbone, views=views, features=gradients(rows), seed=seed, progress=False, **settings
    )
    hasher.fit(as_images(rows.X))
    reached = {f"pairs of view {number}": precisions(mined, rows.y) for number, mined in enumerate(hasher.mined_, 1)}
    return lambda X: 2.0 * hasher.transform(as_images(X)).numpy() - 1.0, reached


def precisions(mined: Any, y: Array) -> dict[str, float]:
    """Parts of the pairs called alike that are of one class: of all, and of those that count (W > 0)."""
    S, W = mined.of(torch.arange(len(y)))
    alike = (S > 0).fill_diagonal_(False)
    same = torch.from_numpy(y[:, None] == y)
    kept = alike & (W > 0)
    return {
        "precision of pairs": round(float(same[alike].float().mean()), 5),
        "precision of pairs kept": round(float(same[kept].float().mean()), 5),
        "pairs kept": round(float(kept.sum() / alike.sum()), 5),
    }
