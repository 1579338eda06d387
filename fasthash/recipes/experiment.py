"""What a recipe trains on and measures: rows of pictures, their targets, and the zero-shot protocols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fasthash.hierarchy import Hierarchy
from fasthash.recipes.pictures import Pictures
from fasthash.targets import class_distances

Rows = NDArray[np.int64]
UNSEEN = 5  # one of 5 classes is never in the training data
HELD_OUT = 5  # to choose settings: one of 5 training pictures of each class is a query


@dataclass(frozen=True)
class Sizes:
    """What a run costs: passes, pictures of a step, pixels of a side, the network, pictures of a class (None: all)."""

    epochs: int
    batch_size: int
    size: int
    backbone: str | nn.Module
    each: int | None = None


@dataclass(frozen=True)
class Protocol:
    """Queries and the database that they are searched in, by row."""

    title: str
    queries: Rows
    database: Rows


@dataclass(frozen=True)
class Experiment:
    """Everything between the data and the table.

    train: rows to learn from; y: their targets, classes [T] or embeddings [T, E], row i for train[i]; distance: between
    them, a matrix [C, C] or a function; classes: how many (0: targets are embeddings). labels [N]: of every row of the
    pictures, positions in `similarity` [L, L], by which mAHP counts; has_classes: whether mAP has a meaning. For the
    page: class_names [L] and their hierarchy, or texts [N], what is known of the pictures instead.
    """

    pictures: Pictures
    train: Rows
    y: Tensor
    distance: Tensor | Callable[[Tensor], Tensor]
    classes: int
    labels: Rows
    similarity: Tensor
    protocols: list[Protocol]
    has_classes: bool
    about: list[str]
    class_names: Sequence[str] = ()
    hierarchy: Hierarchy | None = None
    texts: Sequence[str] = ()


def of_classes(
    pictures: Pictures,
    labels: Rows,
    queried: NDArray[np.bool_],
    names: list[str],
    hierarchy: Hierarchy,
    *,
    validation: bool,
    about: list[str],
) -> Experiment:
    """Zero-shot hashing of pictures with classes: one class in five is never trained on.

    labels [N]: positions in `names`; queried [N]: pictures of the test split. validation: no query is a test picture
    and no class is one that the test leaves out: for choosing settings.
    """
    above = hierarchy.restrict(names)
    seen, unseen = _split(len(names), validation)
    if validation:
        rows = np.flatnonzero(~queried & np.isin(labels, [*seen, *unseen]))
        held = _number_inside(labels[rows]) % HELD_OUT == 0
        queries, stored = rows[held], rows[~held]
    else:
        queries, stored = np.flatnonzero(queried), np.flatnonzero(~queried)
    train = stored[np.isin(labels[stored], seen)]
    new = np.isin(labels[queries], unseen)
    unseen_stored = stored[np.isin(labels[stored], unseen)]
    place = np.full(len(names), -1)
    place[seen] = np.arange(len(seen))
    split = "training pictures, for choosing settings" if validation else "test pictures"
    return Experiment(
        pictures,
        train,
        torch.from_numpy(place[labels[train]]),
        class_distances([names[label] for label in seen], above),
        len(seen),
        labels,
        torch.from_numpy(above.similarity_matrix(names)),
        [
            Protocol("zero-shot: queries and database of unseen classes", queries[new], unseen_stored),
            Protocol("zero-shot: queries of unseen classes, database of unseen and seen", queries[new], stored),
            Protocol("queries of seen classes, database of unseen and seen", queries[~new], stored),
        ],
        True,
        [*about, f"{len(seen)} classes are trained on, {len(unseen)} are not; queries: {split}"],
        class_names=names,
        hierarchy=above,
    )


def _split(classes: int, validation: bool) -> tuple[Rows, Rows]:
    """Seen and unseen classes; the same ones whatever the seed of a run."""
    part = max(1, classes // UNSEEN)
    order = np.random.default_rng(0).permutation(classes)
    if validation:
        order = order[part:]
    return np.sort(order[part:]), np.sort(order[:part])


def first_of_each(labels: Rows, count: int | None) -> NDArray[np.bool_]:
    """Whether a row is among the first `count` of its class; None: all are."""
    if count is None:
        return np.ones(len(labels), dtype=np.bool_)
    return _number_inside(labels) < count


def _number_inside(labels: Rows) -> Rows:
    """The how-manieth of its class each row is, from 0."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    numbers = np.empty(len(labels), dtype=np.int64)
    numbers[order] = np.arange(len(labels)) - starts
    return numbers
