"""The tasks: which rows are trained on, validated with, searched for, and searched in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash import Hierarchy
from fasthash.datasets import clinc150, clinc150_hierarchy, coco_captions

Array = NDArray[Any]
UNSEEN = 3  # intents of each domain that task e never trains on, and again as many for its validation
SEEN = "database 'seen': queries of the classes that were trained on, in the same database"
UNLABELLED = -1  # in the place of the class of a row without a label
NOISE = 0.2  # standard deviation of the noise on similarities, of task e


@dataclass(frozen=True)
class Bags:
    """Bags of words: counts and TF-IDF [N, V], scipy.sparse matrices, and dense features float32 [N, F] of these."""

    counts: Any
    tfidf: Any
    features: Array

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: Array) -> Bags:
        return Bags(self.counts[rows], self.tfidf[rows], self.features[rows])


def flat(X: Any) -> Array:
    """Embeddings as they are; bags of words as their features; images uint8 as pixels float32 in [0, 1]."""
    if isinstance(X, Bags):
        return X.features
    return X if X.ndim == 2 else (X.reshape(len(X), -1) / 255).astype(np.float32)


@dataclass(frozen=True)
class Items:
    """Rows of one kind: embeddings X float32 [N, F], images uint8 [N, H, W, 3] or `Bags`; their classes or groups y."""

    X: Any
    y: Array

    def part(self, rows: Array) -> Items:
        return Items(self.X[rows], self.y[rows])

    @property
    def labelled(self) -> Items:
        """The rows that have a label."""
        has = self.y != UNLABELLED
        return self if has.all() else self.part(has)

    @property
    def flat(self) -> Array:
        """The rows as float32 [N, F]: embeddings as they are, pixels in [0, 1]."""
        return flat(self.X)


class Graph(NamedTuple):
    """Nodes are the rows of `Task.train`. edges int64 [E, 2]; y [N], the classes of all. asked: those that count."""

    edges: Array
    y: Array
    asked: Array


Pair = tuple[Items, Items]  # queries, and the database that they are asked in
Sides = dict[str, Pair]


class Episodes(NamedTuple):
    """What an episode holds: classes, and support and query rows of each; classes and queries of those in training.

    tested: episodes of the test.
    """

    way: int
    shot: int
    queries: int
    train_way: int
    train_queries: int
    tested: int


@dataclass(frozen=True)
class Task:
    """One experiment: what is trained on, and what is asked in which database; `train` may differ in validation.

    kind: "classes", where y are classes of `hierarchy` (None: flat); "images", the same for images; "noisy", where
    training sees only noisy similarities; "multilabel", where y are multi-hot labels uint8 [N, L]; "edges", where rows
    of X are (user, film) and y their users; "pairs", where rows of X are of two modalities (`Pairs`) and y multi-hot
    labels; "graded", where an equal column of y [N, L] counts 1 of relevance; "groups", where nothing is known in
    training, y tells which rows belong together, and query i is row `own[i]` of the database. Rows of `train` may have
    no label (y = UNLABELLED).

    score: what settings are chosen by on validation data with classes, "mAHP@250" or "P@100" of the first pair, or
    "mAP", the mean over all pairs. hierarchy: what methods are given. graded: what the similarity of classes is
    measured by, where that is more. outputs: whether the same models are measured before rounding too.
    """

    name: str
    title: str
    kind: str
    train: Items
    validation: Sides
    test: Sides
    widths: tuple[int, ...]
    hierarchy: Hierarchy | None = None
    validation_train: Items | None = None  # what is trained on for validation, where it differs
    own: dict[str, Array] | None = None  # "validation" and "test": rows of the queries in the database
    notes: tuple[str, ...] = ()
    score: str = "mAHP@250"
    graded: Hierarchy | None = None
    episodes: Episodes | None = None  # what is measured is few-shot accuracy; both sides of a pair are the same rows
    outputs: bool = True
    graph: Graph | None = None  # between the rows of `train`

    @property
    def similarity(self) -> Array:
        """Similarity of classes [C, C]; not for "groups" and "multilabel", which have none."""
        if self.kind in ("groups", "multilabel"):
            raise ValueError(f"task {self.name}: no similarity of classes")
        hierarchy = self.graded or self.hierarchy
        classes = 1 + int(max(items.y.max() for pair in self.test.values() for items in (self.train, *pair)))
        if hierarchy is None:
            return np.eye(classes)
        names = [name for name in range(classes) if name in hierarchy]
        similarity = np.zeros((classes, classes))
        similarity[np.ix_(names, names)] = hierarchy.similarity_matrix(names)
        return similarity


def task_a(data: Path) -> Task:
    """clinc150: two-level hierarchy, all intents trained on; queries are the test split."""
    splits, notes = clinc150_splits()
    return Task(
        "a",
        "clinc150, 150 intents in 10 domains",
        "classes",
        splits["train"],
        {"train": (splits["val"], splits["train"])},
        {name: (splits["test"], splits[name]) for name in ("train", "val")},
        (16, 32, 64, 128),
        clinc150_hierarchy(),
        notes=notes,
    )


def task_noisy(data: Path) -> Task:
    """clinc150 from noisy similarities between items: no class ids."""
    splits, notes = clinc150_splits()
    return Task(
        "e-noisy",
        f"clinc150 from similarities with noise of deviation {NOISE}, no class ids",
        "noisy",
        splits["train"],
        {"train": (splits["val"], splits["train"])},
        {name: (splits["test"], splits[name]) for name in ("train", "val")},
        (32, 64),
        clinc150_hierarchy(),
        notes=notes,
    )


def task_unseen(data: Path) -> Task:
    """clinc150 zero-shot: queries of intents that were never trained on, all intents in the database."""
    splits, notes = clinc150_splits()
    tested, validated = left_out_intents()
    known = without(splits["train"], tested)
    return Task(
        "e-unseen",
        f"clinc150, {len(tested)} intents never trained on, the whole train split as database",
        "classes",
        known,
        {"train": (only(splits["val"], validated), splits["train"])},
        {
            "train": (only(splits["test"], tested), splits["train"]),
            "seen": (without(splits["test"], tested), splits["train"]),
        },
        (32, 64),
        clinc150_hierarchy(),
        validation_train=without(known, validated),
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
        {"all": (everything.part(rows["validation"]), everything)},
        {"all": (everything.part(rows["test"]), everything)},
        (128, 256, 384),
        own={name: rows[name] for name in ("validation", "test")},
    )


TASKS: dict[str, Callable[[Path], Task]] = {
    "a": task_a,
    "d": task_d,
    "e-noisy": task_noisy,
    "e-unseen": task_unseen,
}


def without(items: Items, left_out: Array) -> Items:
    """The rows of all classes but these."""
    return items.part(~np.isin(items.y, left_out))


def only(items: Items, kept: Array) -> Items:
    """The rows of these classes."""
    return items.part(np.isin(items.y, kept))


def left_out_intents() -> tuple[Array, Array]:
    """UNSEEN intents of each domain that the test leaves out of training or of labels, and others for validation."""
    train = clinc150("train")
    rng = np.random.default_rng(0)
    intents = [np.unique(train.intents[train.domains == domain]) for domain in range(10)]
    chosen = np.concatenate([rng.permutation(each)[: 2 * UNSEEN] for each in intents]).reshape(10, 2, UNSEEN)
    return chosen[:, 0].ravel(), chosen[:, 1].ravel()


def number_inside(y: Array) -> Array:
    """How many earlier rows are of the same class."""
    number = np.zeros(len(y), dtype=np.int64)
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        number[rows] = np.arange(len(rows))
    return number


def clinc150_splits() -> tuple[dict[str, Items], tuple[str, ...]]:
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
