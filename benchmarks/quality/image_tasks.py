"""Tasks b and c: images of 32 x 32 pixels and a small residual network trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.quality.tasks import SEEN, Items, Task, number_inside, only, without
from fasthash import Hierarchy
from fasthash.datasets import cifar10, image_archive
from fasthash.datasets.files import existing
from fasthash.images.backbones import Residual
from fasthash.train import HashHead, train

Array = NDArray[Any]
HELD_OUT = 10  # of each class one in so many is validated with, and is the database that was not trained on
REDUCED = 100  # images a class of the reduced tasks
UNSEEN, REDUCED_UNSEEN = 20, 5  # classes that are never trained on, and again as many for validation
EPOCHS, REDUCED_EPOCHS = 40, 8
WIDTHS = (16, 32, 64, 128)


def task_b(data: Path, *, reduced: bool = False) -> Task:
    """Tiny ImageNet at 32 x 32: 180 WordNet classes (reduced: every fourth, 100 images of each)."""
    return _image_task("b", "Tiny ImageNet at 32 x 32, 180 WordNet classes", *_tiny_imagenet(data, reduced), reduced)


def task_unseen_images(data: Path, *, reduced: bool = False) -> Task:
    """Tiny ImageNet zero-shot: queries of classes that were never trained on, all classes in the database."""
    everything = task_b(data, reduced=reduced)
    database, (queries, _) = everything.train, everything.test["train"]
    tested, validated = left_out_classes(database, reduced)
    known = without(database, tested)
    return replace(
        everything,
        name=everything.name.replace("b", "e-unseen-images", 1),
        title=f"{everything.title}; {len(tested)} classes never trained on, all in the database",
        train=known,
        validation={"train": (only(everything.validation["train"][0], validated), database)},
        test={"train": (only(queries, tested), database), "seen": (without(queries, tested), database)},
        widths=(32, 64),
        validation_train=without(known, validated),
        notes=(everything.notes[0], epochs_note(known, reduced), SEEN),
    )


def left_out_classes(items: Items, reduced: bool) -> tuple[Array, Array]:
    """Classes that the test leaves out of training or of the labels, and others for validation."""
    count = REDUCED_UNSEEN if reduced else UNSEEN
    tested, validated = np.random.default_rng(0).permutation(np.unique(items.y))[: 2 * count].reshape(2, count)
    return tested, validated


def _tiny_imagenet(data: Path, reduced: bool) -> tuple[Items, Items, Hierarchy, range]:
    folder = data / "tiny_imagenet_32"
    parts = (Items(*image_archive(folder / f"{part}.npz")) for part in ("dev_train", "dev_query"))
    return *parts, tiny_imagenet_hierarchy(folder), range(0, 180, 4 if reduced else 1)


def tiny_imagenet_hierarchy(folder: Path) -> Hierarchy:
    """The is-a graph above the classes, which are numbers."""
    table = existing(folder / "classes.tsv", "tiny_imagenet_32").read_text(encoding="utf-8").splitlines()[1:]
    edges = existing(folder / "isa.tsv", "tiny_imagenet_32").read_text(encoding="utf-8").splitlines()[1:]
    place = {line.split("\t")[1]: int(line.split("\t")[0]) for line in table}
    pairs = [line.split("\t") for line in edges]
    return Hierarchy.from_edges([(parent, place.get(child, child)) for parent, child in pairs])


def task_c(data: Path, *, reduced: bool = False) -> Task:
    """CIFAR-10 in its standard split, flat classes; an .npz archive of the images, or the files as distributed."""
    folder = data / "cifar10"
    if (folder / "train.npz").exists():
        train_images, test_images = (Items(*image_archive(folder / f"{split}.npz")) for split in ("train", "test"))
    else:
        train_images, test_images = (Items(*cifar10(folder, split)[:2]) for split in ("train", "test"))
    return _image_task("c", "CIFAR-10, standard split", train_images, test_images, None, range(10), reduced)


def _image_task(
    name: str,
    title: str,
    train: Items,
    test: Items,
    hierarchy: Hierarchy | None,
    classes: range,
    reduced: bool,
) -> Task:
    known = {image.tobytes() for image in train.X}
    twice = np.array([image.tobytes() in known for image in test.X])
    notes = [f"{int(twice.sum())} test images are in train too, pixel by pixel, and left out: rows {_listed(twice)}"]
    chosen = [items.part(np.isin(items.y, classes)) for items in (train, test.part(~twice))]
    if reduced:
        chosen = [
            chosen[0].part(_first(chosen[0].y, REDUCED)),
            chosen[1].part(_first(chosen[1].y, REDUCED // 4)),
        ]
        name, title = f"{name}-reduced", f"{title}; {len(classes)} classes, {REDUCED} images of each"
    held = number_inside(chosen[0].y) % HELD_OUT == 0
    fitted, kept = chosen[0].part(~held), chosen[0].part(held)
    notes.append(epochs_note(fitted, reduced))
    return Task(
        name,
        title,
        "images",
        fitted,
        {"train": (kept, fitted)},
        {"train": (chosen[1], fitted), "held out": (chosen[1], kept)},
        WIDTHS,
        hierarchy,
        notes=tuple(notes),
    )


def epochs_note(trained: Items, reduced: bool) -> str:
    return f"trained for {REDUCED_EPOCHS if reduced else EPOCHS} epochs on {len(trained.y):,} images"


def _first(y: Array, count: int) -> Array:
    return number_inside(y) < count


def _listed(mask: Array) -> str:
    return ", ".join(map(str, np.flatnonzero(mask))) or "none"


def network(bits: int, width: int, *, sigmoid: bool, scale: float) -> nn.Sequential:
    """Images uint8 [B, 32, 32, 3] -> outputs [B, bits], by a head whose norm begins with `scale`."""
    blocks = [
        Residual(a, b, stride)
        for a, b, stride in (
            (width, width, 1),
            (width, 2 * width, 2),
            (2 * width, 4 * width, 2),
        )
    ]
    return nn.Sequential(
        Pixels(),
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        HashHead(4 * width, bits, scale=scale, sigmoid=sigmoid),
    )


class Pixels(nn.Module):
    """uint8 [B, H, W, 3] to floats [B, 3, H, W] about 0; in training shifted by up to 4 pixels, some mirrored."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float().div_(64).sub_(2)
        if not self.training:
            return x
        down, right = torch.randint(-4, 5, (2,)).tolist()
        x = x.roll((down, right), dims=(2, 3))
        mirrored = torch.rand(len(x), 1, 1, 1) < 0.5
        return torch.where(mirrored, x.flip(3), x)


class Shuffled:
    """Batches (images, labels) of Items in a new order each epoch; with `pixels`, (images, labels, rows of pixels)."""

    def __init__(self, items: Items, batch_size: int, generator: torch.Generator, *, pixels: bool = False) -> None:
        self.X, self.y = torch.from_numpy(items.X), torch.from_numpy(items.y)
        self.batch_size, self.generator, self.pixels = batch_size, generator, pixels

    def __len__(self) -> int:
        return len(self.y) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.y), generator=self.generator)
        for rows in order.split(self.batch_size)[: len(self)]:
            batch = self.X[rows], self.y[rows]
            yield (*batch, batch[0].flatten(1) / 255) if self.pixels else batch


def trained_network(
    task: Task,
    rows: Items,
    bits: int,
    seed: int,
    objective: nn.Module,
    *,
    sigmoid: bool,
    scale: float,
    lr: float,
    weight_decay: float,
    pixels: bool = False,
) -> nn.Sequential:
    """The network, trained on the rows and their labels. pixels: the objective gets them too."""
    reduced = task.name.endswith("reduced")
    y = np.unique(rows.y, return_inverse=True)[1]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = network(bits, 16 if reduced else 32, sigmoid=sigmoid, scale=scale)
        order = torch.Generator().manual_seed(seed)
        loader = Shuffled(Items(rows.X, y.astype(np.int64)), 128, order, pixels=pixels)
        epochs = REDUCED_EPOCHS if reduced else EPOCHS
        train(
            module,
            loader,
            objective,
            epochs=epochs,
            lr=lr,
            weight_decay=weight_decay,
            device=device,
            progress=False,
        )
    return module


@torch.no_grad()
def network_outputs(module: nn.Module, X: Array) -> Array:
    """What a trained network, or its first layers, gives for images: float32 [N, outputs]."""
    device = next(module.parameters()).device
    module.eval()
    parts = [module(torch.from_numpy(X[start : start + 500]).to(device)).cpu() for start in range(0, len(X), 500)]
    found: Array = torch.cat(parts).numpy()
    return found
