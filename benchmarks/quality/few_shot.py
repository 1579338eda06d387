"""Tasks j, few-shot: episodes of classes that were never trained on, told by the nearest prototype."""

from __future__ import annotations

import inspect
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.quality.image_tasks import Pixels, Shuffled
from benchmarks.quality.tasks import (
    Episodes,
    Items,
    Task,
    clinc150_splits,
    left_out_intents,
    number_inside,
    only,
    without,
)
from fasthash import Hasher
from fasthash.datasets import clinc150_hierarchy, image_archive
from fasthash.losses.published import LOSSES, ICNNLoss, MeanLoss
from fasthash.targets import class_distances
from fasthash.train import EpisodeBatches, HashHead, Objective, train

Array = NDArray[Any]
VALIDATED, SCORED = 500, 100  # episodes: of validation, and of test for the ICNN score
WAY = {
    1: (30, 30),
    5: (30, 20),
}  # of clinc150, by the support rows of a class: classes of an episode in test, in training
QUERIES, TRAIN_QUERIES = 15, 5  # of a class in an episode
IMAGE_CLASSES = 100, 40, 40  # to fit, to validate, to test
ASKED = 100  # images of a class that validation and test draw from
EMBEDDING_EPOCHS = 5
IMAGE_EPISODES, IMAGE_WIDTH = 150, 32  # training episodes and channels of image networks


def task_clinc150(data: Path, *, shot: int) -> Task:
    """clinc150: 90 intents to fit, 30 to validate and 30 to test, 3 of each domain; episodes of 30 intents."""
    splits, notes = clinc150_splits()
    tested, validated = left_out_intents()
    every = Items(*(np.concatenate([getattr(split, part) for split in splits.values()]) for part in ("X", "y")))
    fitted = without(splits["train"], np.concatenate([tested, validated]))
    way, train_way = WAY[shot]
    note = (
        f"The encoder and optimiser of Hasher, {EMBEDDING_EPOCHS} passes over the rows; only fasthash uses the domains"
    )
    return _task(
        f"j-clinc150-{shot}-shot",
        f"few-shot, clinc150: {way} unseen intents",
        "classes",
        (fitted, only(every, validated), only(every, tested)),
        _episodes(way, shot, train_way, 1_000),
        (
            *notes,
            f"90 intents to fit, 30 to validate, 30 to test, three of each domain; no intent is in two parts. {note}",
        ),
    )


def task_images(data: Path, *, shot: int) -> Task:
    """Tiny ImageNet at 32 x 32: 100 classes to fit, 40 to validate and 40 to test; episodes of 5 classes."""
    images = Items(*image_archive(data / "tiny_imagenet_32" / "dev_train.npz"))
    asked = images.part(number_inside(images.y) < ASKED)
    order = np.random.default_rng(0).permutation(np.unique(images.y))
    parts = np.split(order, np.cumsum(IMAGE_CLASSES)[:-1])
    episodes = _episodes(5, shot, 20 if shot == 1 else 12, 3_000)
    note = (
        f"100 classes to fit, 40 to validate, 40 to test, {ASKED} images of each validation and test class. "
        f"Reduced: ConvNet-4 of {IMAGE_WIDTH} channels with stride 2 in its first convolution, and a hash "
        f"head, from scratch, {IMAGE_EPISODES} episodes; fasthash gets the same number of images in random "
        "batches of 128. ITQ: means of 2 x 2 pixels"
    )
    return _task(
        f"j-images-{shot}-shot-reduced",
        "few-shot, Tiny ImageNet at 32 x 32: 5 unseen classes",
        "images",
        (only(images, parts[0]), only(asked, parts[1]), only(asked, parts[2])),
        episodes,
        (note,),
    )


def _episodes(way: int, shot: int, train_way: int, tested: int) -> Episodes:
    return Episodes(way, shot, QUERIES, train_way, TRAIN_QUERIES, tested)


def _task(
    name: str, title: str, kind: str, parts: tuple[Items, Items, Items], episodes: Episodes, notes: tuple[str, ...]
) -> Task:
    fitted, validated, tested = parts
    shot = episodes.shot
    return Task(
        name,
        f"{title}, {shot} row{'s' * (shot > 1)} of each known",
        kind,
        fitted,
        {"episodes": (validated, validated)},
        {"episodes": (tested, tested)},
        (64,),
        clinc150_hierarchy().restrict(np.unique(fitted.y).tolist()) if kind == "classes" else None,
        notes=(
            *notes,
            f"Test episodes: {episodes.way} classes, {shot} + {episodes.queries} rows of each (support + queries, "
            f"disjoint). Training episodes: {episodes.train_way} classes, {shot} + {episodes.train_queries} rows",
            f"Accuracy: mean over {episodes.tested:,} test episodes, the same for all methods. Settings are "
            f"chosen by accuracy of outputs in {VALIDATED} episodes of the validation classes. Prototypes are "
            "means of outputs, or of codes as +1 and -1; ties count by their expected value. ICNN: the score of "
            f"a test episode, mean of {SCORED}",
        ),
        episodes=episodes,
    )


def measure_episodes(u: Array, y: Array, episodes: Episodes, count: int) -> dict[str, float]:
    """Accuracy, its interval (1.96 standard errors) and ICNN score of rows u [N, D] of classes y.

    The episodes are the same each time.
    """
    rows, labels = torch.from_numpy(np.asarray(u, dtype=np.float64)), torch.from_numpy(y)
    drawn = _drawn(y.astype(np.int64).tobytes(), episodes, count)
    size = episodes.way, episodes.shot + episodes.queries, -1
    found = np.array([accuracy(rows[batch].view(size), episodes.shot) for batch in drawn])
    scores = [float(ICNNLoss().score(rows[batch], labels[batch])) for batch in drawn[:SCORED]]
    interval = 1.96 * found.std(ddof=1) / np.sqrt(count)
    return {"accuracy": float(found.mean()), "interval": float(interval), "ICNN": float(np.mean(scores))}


@lru_cache(maxsize=2)
def _drawn(y: bytes, episodes: Episodes, count: int) -> Tensor:
    """The rows of so many episodes, int64 [count, rows of one]; y are int64."""
    way, shot, queries = episodes.way, episodes.shot, episodes.queries
    labels = np.frombuffer(y, dtype=np.int64)
    return torch.tensor(list(EpisodeBatches(labels, way=way, shot=shot, queries=queries, batches=count, seed=0)))


def accuracy(rows: Tensor, shot: int) -> float:
    """Part of the queries whose nearest prototype is their own; `rows` float64 [way, shot + queries, D].

    Of t equally near ones, the own one counts 1 / t. Squared distances are compared times shot^2, less what all have in
    common: codes of +1 and -1 then give whole numbers.
    """
    sums, asked = rows[:, :shot].sum(1), rows[:, shot:]
    distances = sums.square().sum(1) - 2 * shot * (asked @ sums.T)  # [way, queries, way]
    nearest = distances == distances.amin(-1, keepdim=True)
    own = nearest.diagonal(dim1=0, dim2=2)
    return float((own / nearest.sum(-1).T).mean())


def episode_loss(names: tuple[str, ...], shot: int, own: dict[str, Any]) -> nn.Module:
    """The loss of these names, or the mean of several; of the settings `own` each takes those that it knows."""
    losses = []
    for name in names:
        known = inspect.signature(LOSSES[name].__init__).parameters
        losses.append(LOSSES[name](**{key: value for key, value in {"shot": shot, **own}.items() if key in known}))
    return losses[0] if len(losses) == 1 else MeanLoss(*losses)


def fit_episodes(
    names: tuple[str, ...], task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]
) -> nn.Module:
    """The network, trained in episodes with the mean of these losses; their own settings are written "loss.margin"."""
    assert task.episodes is not None
    way, shot, queries = task.episodes.train_way, task.episodes.shot, task.episodes.train_queries
    own = {name.removeprefix("loss."): value for name, value in settings.items() if name.startswith("loss.")}
    rest = {name: value for name, value in settings.items() if not name.startswith("loss.")}
    loss = episode_loss(names, shot, own)
    if task.kind == "images":
        images, y = torch.from_numpy(rows.X), torch.from_numpy(rows.y)
        drawn = EpisodeBatches(y, way=way, shot=shot, queries=queries, batches=IMAGE_EPISODES, seed=seed)
        loader = DataLoader(TensorDataset(images, y), sampler=drawn, batch_size=None)
        return _fit_images(loader, loss, bits, seed, 1, rest)
    size = way * (shot + queries)
    fixed: dict[str, Any] = {"rows_per_class": shot + queries, "batch_size": size, "seed": seed, "progress": False}
    hasher = Hasher(bits, loss=loss, **fixed, **{"epochs": EMBEDDING_EPOCHS, **rest}).fit(rows.X, rows.y)
    network: nn.Module = hasher.module_[0]
    return network


def fit_objective(task: Task, rows: Items, bits: int, seed: int, settings: dict[str, Any]) -> nn.Module:
    """The network of images, trained with this package's objective on as many images as in the episodes."""
    assert task.episodes is not None
    classes, y = np.unique(rows.y, return_inverse=True)
    rest = {name: value for name, value in settings.items() if name == "lr"}
    own = {name: value for name, value in settings.items() if name != "lr"}
    objective = Objective(bits, classes=len(classes), distance=class_distances(classes.tolist()), **own)
    seen = IMAGE_EPISODES * task.episodes.train_way * (task.episodes.shot + task.episodes.train_queries)
    order = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(y), generator=order)[:seen].numpy()
    loader = Shuffled(Items(rows.X[chosen], y[chosen].astype(np.int64)), 128, order)
    return _fit_images(loader, objective, bits, seed, round(seen / len(chosen)), rest, sigmoid=True)


def _fit_images(
    loader: Any,
    objective: nn.Module,
    bits: int,
    seed: int,
    epochs: int,
    settings: dict[str, Any],
    *,
    sigmoid: bool = False,
) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = conv_net(bits, IMAGE_WIDTH, sigmoid=sigmoid)
        train(module, loader, objective, progress=False, **{"lr": 4e-3, "epochs": epochs, **settings})
    return module


def pooled(X: Array) -> Array:
    """Images uint8 [N, H, W, 3] as means of 2 x 2 pixels float32 [N, F] in [0, 1]; embeddings as they are."""
    if X.ndim == 2:
        return X
    count, height, width, colours = X.shape
    blocks = X.reshape(count, height // 2, 2, width // 2, 2, colours).mean(axis=(2, 4), dtype=np.float32)
    means: Array = blocks.reshape(count, -1) / 255
    return means


def conv_net(bits: int, width: int, *, sigmoid: bool) -> nn.Sequential:
    """Images uint8 [B, 32, 32, 3] -> outputs [B, bits]: four blocks of convolution, norm, ReLU and pooling."""
    layers: list[nn.Module] = [Pixels()]
    for channels, stride in ((3, 2), (width, 1), (width, 1), (width, 1)):
        layers.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), HashHead(width, bits, scale=1.0, sigmoid=sigmoid))


TASKS = {
    f"j-{kind}-{shot}-shot{size}": partial(make, shot=shot)
    for kind, make, size in (("clinc150", task_clinc150, ""), ("images", task_images, "-reduced"))
    for shot in (1, 5)
}
