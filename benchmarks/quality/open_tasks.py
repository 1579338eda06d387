"""Tasks e-open and e-half: training sees every row of the database, and some of them have no label.

e-open: no row of some classes has a label. e-half: nor has half of the rows of each other class.

The database is the training rows. Queries of the classes that have labels and of those that have none are measured
apart. Settings are chosen by the same protocol among the labelled rows alone: part of them are the queries, and other
classes have no label.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.image_tasks import epochs_note, left_out_classes, task_b
from benchmarks.quality.tasks import (
    UNLABELLED,
    Items,
    Sides,
    Task,
    clinc150_splits,
    left_out_intents,
    number_inside,
    only,
    without,
)
from fasthash.datasets import clinc150_hierarchy

Array = NDArray[Any]
HELD_OUT = 5  # one in so many of the labelled rows of a class is a query in validation
NOTE = (
    "'known': queries of classes with labels; 'unlabelled': queries of classes without labels; the database is the same"
)


def task_open(data: Path, *, half: bool = False) -> Task:
    """clinc150, 3 of the 15 intents of each domain without labels."""
    splits, notes = clinc150_splits()
    task = Task("e-open", "clinc150", "classes", splits["train"], {}, {}, (64,), clinc150_hierarchy(), notes=notes)
    return opened(task, splits["test"], left_out_intents(), half)


def task_open_images(data: Path, *, half: bool = False, reduced: bool = False) -> Task:
    """Tiny ImageNet at 32 x 32, 20 classes (reduced: 5) without labels."""
    images = task_b(data, reduced=reduced)
    task = replace(images, name=images.name.replace("b", "e-open-images", 1), widths=(32, 64))
    task = replace(task, notes=(images.notes[0], epochs_note(images.train, reduced)))
    return opened(task, images.test["train"][0], left_out_classes(images.train, reduced), half)


def opened(task: Task, queries: Items, left_out: tuple[Array, Array], half: bool) -> Task:
    """The task with `queries`, without the labels of the first of two sets of classes (in validation, the second)."""
    tested, validated = left_out
    database = task.train
    train = _unlabelled(database, tested, half)
    labelled = train.labelled
    held = number_inside(labelled.y) % HELD_OUT == 0
    kept = labelled.part(~held)
    known = None if task.hierarchy is None else task.hierarchy.restrict(np.unique(labelled.y).tolist())
    what = f"{task.title}, {len(tested)} classes without labels in a database that training sees"
    return replace(
        task,
        name=task.name.replace("e-open", "e-half") if half else task.name,
        title=f"{what}; half of the other rows without labels too" if half else what,
        train=train,
        validation=_sides(labelled.part(held), kept, validated),
        test=_sides(queries, database, tested),
        hierarchy=known,
        validation_train=_unlabelled(kept, validated, half),
        notes=(*task.notes, NOTE),
        score="mAP",
        graded=task.hierarchy,
    )


def _unlabelled(items: Items, classes: Array, half: bool) -> Items:
    """The same rows, those of `classes` without labels; with half, also half of the rows of each other class."""
    y = np.where(np.isin(items.y, classes), UNLABELLED, items.y)
    if half:
        order = np.random.default_rng(1).permutation(len(y))
        y[order[number_inside(y[order]) % 2 == 1]] = UNLABELLED
    return Items(items.X, y)


def _sides(queries: Items, database: Items, unlabelled: Array) -> Sides:
    return {"known": (without(queries, unlabelled), database), "unlabelled": (only(queries, unlabelled), database)}
