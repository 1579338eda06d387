"""The tasks: which rows are trained on, validated with, searched for, and searched in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash import Hierarchy
from fasthash.datasets import clinc150, clinc150_hierarchy, coco_captions

Array = NDArray[Any]
UNSEEN = 3  # intents of each domain that task e never trains on, and again as many for its validation
SEEN = "database 'seen': queries of the classes that were trained on, in the same database"
NOISE = 0.2  # standard deviation of the noise on similarities, of task e


def flat(X: Array) -> Array:
    """Embeddings as they are; images uint8 as rows of pixels float32 in [0, 1]."""
    return X if X.ndim == 2 else (X.reshape(len(X), -1) / 255).astype(np.float32)


@dataclass(frozen=True)
class Items:
    """Rows of one kind: embeddings X float32 [N, F] (or images uint8 [N, H, W, 3]) and their classes or groups y."""

    X: Array
    y: Array

    def part(self, rows: Array) -> Items:
        return Items(self.X[rows], self.y[rows])

    @property
    def flat(self) -> Array:
        """The rows as float32 [N, F]: embeddings as they are, pixels in [0, 1]."""
        return flat(self.X)


@dataclass(frozen=True)
class Task:
    """One experiment. `validation` and `test` are pairs (queries, databases by name); `train` may differ between them.

    kind: "classes", where y are classes of `hierarchy` (None: flat); "images", the same for images; "noisy", where
    training sees only noisy
    similarities; "groups", where nothing is known in training, y tells which rows belong together, and query i is row
    `own[i]` of the database.
    """

    name: str
    title: str
    kind: str
    train: Items
    validation: tuple[Items, dict[str, Items]]
    test: tuple[Items, dict[str, Items]]
    widths: tuple[int, ...]
    hierarchy: Hierarchy | None = None
    validation_train: Items | None = None  # what is trained on for validation, where it differs
    own: dict[str, Array] | None = None  # "validation" and "test": rows of the queries in the database
    seen: Items | None = None  # queries of the database "seen", where they are not those of the test
    notes: tuple[str, ...] = ()

    @property
    def similarity(self) -> Array:
        """Similarity of classes [C, C]; not for "groups", which have none."""
        if self.kind == "groups":
            raise ValueError(f"task {self.name}: no similarity of classes")
        classes = 1 + int(max(items.y.max() for items in (self.train, self.test[0], *self.test[1].values())))
        if self.hierarchy is None:
            return np.eye(classes)
        names = [name for name in range(classes) if name in self.hierarchy]
        similarity = np.zeros((classes, classes))
        similarity[np.ix_(names, names)] = self.hierarchy.similarity_matrix(names)
        return similarity


def task_a(data: Path) -> Task:
    """clinc150: two-level hierarchy, all intents trained on; queries are the test split."""
    splits, notes = _clinc150()
    return Task(
        "a",
        "clinc150, 150 intents in 10 domains",
        "classes",
        splits["train"],
        (splits["val"], {"train": splits["train"]}),
        (splits["test"], {"train": splits["train"], "val": splits["val"]}),
        (16, 32, 64, 128),
        clinc150_hierarchy(),
        notes=notes,
    )


def task_noisy(data: Path) -> Task:
    """clinc150 from noisy similarities between items: no class ids."""
    splits, notes = _clinc150()
    return Task(
        "e-noisy",
        f"clinc150 from similarities with noise of deviation {NOISE}, no class ids",
        "noisy",
        splits["train"],
        (splits["val"], {"train": splits["train"]}),
        (splits["test"], {"train": splits["train"], "val": splits["val"]}),
        (32, 64),
        clinc150_hierarchy(),
        notes=notes,
    )


def task_unseen(data: Path) -> Task:
    """clinc150 zero-shot: queries of intents that were never trained on, all intents in the database."""
    splits, notes = _clinc150()
    domains = clinc150("train").domains
    intents = clinc150("train").intents
    rng = np.random.default_rng(0)
    chosen = np.concatenate([rng.permutation(np.unique(intents[domains == d]))[: 2 * UNSEEN] for d in range(10)])
    tested, validated = (chosen.reshape(10, 2, UNSEEN)[:, side].ravel() for side in (0, 1))

    def without(items: Items, left_out: Array) -> Items:
        return items.part(~np.isin(items.y, left_out))

    def only(items: Items, kept: Array) -> Items:
        return items.part(np.isin(items.y, kept))

    known = without(splits["train"], tested)
    return Task(
        "e-unseen",
        f"clinc150, {len(tested)} intents never trained on, the whole train split as database",
        "classes",
        known,
        (only(splits["val"], validated), {"train": splits["train"]}),
        (
            only(splits["test"], tested),
            {"train": splits["train"], "seen": splits["train"]},
        ),
        (32, 64),
        clinc150_hierarchy(),
        validation_train=without(known, validated),
        seen=without(splits["test"], tested),
        notes=(*notes, SEEN),
    )


def task_d(data: Path) -> Task:
    """COCO captions, nothing but embeddings: the other captions of a query's image are to be found among all."""
    captions = coco_captions(data / "coco_captions_val2017")
    images, group = np.unique(captions.images, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(images))
    part = np.zeros(len(images), dtype=np.int64)
    part[order[3500:4000]], part[order[4000:4500]], part[order[4500:]] = 1, 2, 3
    everything = Items(captions.embeddings, group.astype(np.int64))
    rows = {name: np.flatnonzero(part[group] == number) for number, name in enumerate(("train", "validation", "test"))}
    return Task(
        "d",
        "COCO captions: 3,500 images to fit, 500 to validate, 500 as queries, all 25,014 captions as database",
        "groups",
        everything.part(rows["train"]),
        (everything.part(rows["validation"]), {"all": everything}),
        (everything.part(rows["test"]), {"all": everything}),
        (128, 256, 384),
        own={name: rows[name] for name in ("validation", "test")},
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "a": task_a,
    "d": task_d,
    "e-noisy": task_noisy,
    "e-unseen": task_unseen,
}


def _clinc150() -> tuple[dict[str, Items], tuple[str, ...]]:
    """The splits of clinc150; queries whose very text is in the train split are left out, and named."""
    known = set(clinc150("train").texts)
    splits, notes = {}, []
    for name in ("train", "val", "test"):
        split = clinc150(name)
        items = Items(split.embeddings, split.intents)
        if name != "train":
            twice = np.array([text in known for text in split.texts])
            items = items.part(~twice)
            listed = "; ".join(repr(text) for text, here in zip(split.texts, twice, strict=True) if here)
            notes.append(f"{int(twice.sum())} texts of {name} are in train too and left out: {listed or 'none'}")
        splits[name] = items
    return splits, tuple(notes)
