"""Semantic distances between the targets of a batch: what `similarity_loss` and `listwise_loss` take.

Every function named for distances gives a float32 [B, B] tensor with a zero diagonal, on the device of its argument and
without a gradient. `refine_by_affinity` makes targets of few labels and a graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fasthash._affinity import Refined as Refined
from fasthash._affinity import refine_by_affinity as refine_by_affinity
from fasthash._arguments import whole
from fasthash._arrays import Array, dtype_name, to_tensor
from fasthash._directions import unit_rows
from fasthash._labels import label_array, label_names, one_column
from fasthash.hierarchy import Hierarchy, telling_distances


def class_distances(classes: Iterable[Any], hierarchy: Hierarchy | None = None) -> Tensor:
    """Distances float32 [C, C] between distinct classes: those of the hierarchy, or 0 and 1 without one.

    Row i belongs to the i-th of `classes`, so labels that index `classes` index the matrix (see `label_distances`).
    Raises ValueError for a class that is not in the hierarchy or given twice, and for a hierarchy that gives all pairs
    of three or more classes one distance, as one that was read the wrong way round does.

    >>> class_distances(["dog", "cat"])
    tensor([[0., 1.],
            [1., 0.]])
    """
    if hierarchy is not None and not isinstance(hierarchy, Hierarchy):
        raise TypeError(f"class_distances: hierarchy must be a Hierarchy or None, got {type(hierarchy).__name__}")
    names = label_names(classes, "class_distances", "classes")
    if len(set(names)) < len(names):
        raise ValueError(
            f"class_distances: classes must differ, got {len(names)} of which {len(set(names))} are different"
        )
    if hierarchy is None:
        return 1.0 - torch.eye(len(names), dtype=torch.float32)
    return torch.from_numpy(telling_distances(hierarchy, names, "class_distances")).float()


def label_distances(y: Array, matrix: Array | None = None) -> Tensor:
    """Distances between class labels, integers [B]: matrix[y_i, y_j] of a [C, C] matrix, or 0 (same) and 1 without one.

    Booleans are the labels 0 and 1, one column [B, 1] is [B]. Raises TypeError for other labels than integers,
    ValueError for labels outside 0..C-1 or another shape.

    >>> label_distances(torch.tensor([0, 1, 0]), torch.tensor([[0.0, 0.5], [0.5, 0.0]]))
    tensor([[0.0000, 0.5000, 0.0000],
            [0.5000, 0.0000, 0.5000],
            [0.0000, 0.5000, 0.0000]])
    """
    labels = y if isinstance(y, Tensor) else to_tensor(label_array(y, "label_distances", "y"), "label_distances", "y")
    labels = one_column(labels)
    if labels.ndim != 1:
        raise ValueError(f"label_distances: y must have shape [B], got {list(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"label_distances: y must hold integer labels, got {dtype_name(labels)}")
    if matrix is None:
        return (labels[:, None] != labels).float()
    table = to_tensor(matrix, "label_distances", "matrix").detach()
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"label_distances: matrix must have shape [C, C], got {list(table.shape)}")
    index = labels.to(table.device, torch.int64)
    if len(index):
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= len(table):
            raise ValueError(f"label_distances: labels must be between 0 and {len(table) - 1}, got {low} to {high}")
    return table[index[:, None], index].to(labels.device, torch.float32)


def class_levels(distances: Array, limit: int = 4) -> Tensor:
    """The classes of each level of a hierarchy, int64 [L, C], from distances [C, C] between its leaves; finest first.

    Row 0 says that every class is its own; a further row, for a distance t, numbers the groups that chains of steps of
    at most t connect, which in a tree are its nodes of that height. A level with one group says nothing and is left
    out. At most `limit` >= 1 levels, spread evenly, with the finest. Raises ValueError for another shape.

    >>> class_levels(torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    tensor([[0, 1, 2],
            [0, 0, 1]])
    """
    table = to_tensor(distances, "class_levels", "distances").detach().cpu()
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        raise ValueError(f"class_levels: distances must have shape [C, C], got {list(table.shape)}")
    limit = whole(limit, "class_levels", "limit", 1)
    levels = [torch.arange(len(table))]
    for height in torch.unique(table).tolist():
        groups = _connected(table <= height)
        if 1 <= int(groups.max()) < int(levels[-1].max()):
            levels.append(groups)
    steps = torch.linspace(0, len(levels) - 1, min(limit, len(levels))).round().long().tolist()
    return torch.stack([levels[step] for step in steps])


def _connected(near: Tensor) -> Tensor:
    """Numbers int64 [C] of the connected parts of a symmetric boolean graph [C, C], by their first class."""
    lowest = torch.arange(len(near))
    while True:  # every class takes the lowest number among its neighbours, until nothing moves
        lower = torch.where(near, lowest, len(near)).min(1).values.minimum(lowest)
        if torch.equal(lower, lowest):
            numbers: Tensor = torch.unique(lowest, return_inverse=True)[1]
            return numbers
        lowest = lower


def multilabel_distances(Y: Array) -> Tensor:
    """Cosine distances between multi-hot rows, integer or boolean [B, L]: 1 - |a and b| / sqrt(|a| |b|), in [0, 1].

    The cosine of label vectors is the graded similarity that most multi-label hashing trains on (the "quantified
    similarity" of IDHN: Zhang et al., "Improved deep hashing with soft pairwise similarity for multi-label image
    retrieval", 2019). A row without any label has distance 1 to all others. Values other than 0 count as 1. Raises
    ValueError for another shape.

    >>> multilabel_distances(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]]))
    tensor([[0.0000, 0.2929, 1.0000],
            [0.2929, 0.0000, 1.0000],
            [1.0000, 1.0000, 0.0000]])
    """
    rows = to_tensor(Y, "multilabel_distances", "Y")
    if rows.ndim != 2:
        raise ValueError(f"multilabel_distances: Y must have shape [B, L], got {list(rows.shape)}")
    return _cosine_distances((rows != 0).float())


def shared_label_distances(Y: Array) -> Tensor:
    """1 - labels in common / the most that the row has in common with another, of multi-hot rows [B, L], in [0, 1].

    Row i says how far the others are for i, so the matrix is not symmetric. It grows as the number of labels in common
    falls, which is what the gain of `metrics.ndcg` and `metrics.average_cumulative_gain` counts, and does not mind what
    other labels a row has. Where a row has no label in common with any other, all others have distance 1. Values other
    than 0 count as 1. Raises ValueError for another shape. Source: this package; what `Hasher` learns from by default.

    >>> shared_label_distances(torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]))
    tensor([[0.0000, 0.5000, 0.0000],
            [0.0000, 0.0000, 0.0000],
            [0.0000, 0.5000, 0.0000]])
    """
    rows = to_tensor(Y, "shared_label_distances", "Y")
    if rows.ndim != 2:
        raise ValueError(f"shared_label_distances: Y must have shape [B, L], got {list(rows.shape)}")
    labels = (rows != 0).float()
    with torch.autocast(labels.device.type, enabled=False):
        shared = (labels @ labels.T).fill_diagonal_(0.0)
    if not len(shared):
        return shared
    return (1.0 - shared / shared.amax(1, keepdim=True).clamp(min=1.0)).fill_diagonal_(0.0)


def embedding_distances(E: Array) -> Tensor:
    """Cosine distances 1 - cos between floating-point rows [B, D], in [0, 2].

    A row of zeros has distance 1 to all others. Raises TypeError for integers, ValueError for another shape.

    >>> embedding_distances(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
    tensor([[0., 1., 2.],
            [1., 0., 1.],
            [2., 1., 0.]])
    """
    rows = to_tensor(E, "embedding_distances", "E").detach()
    if rows.ndim != 2:
        raise ValueError(f"embedding_distances: E must have shape [B, D], got {list(rows.shape)}")
    if not rows.is_floating_point():
        raise TypeError(f"embedding_distances: E must be floating point, got {dtype_name(rows)}")
    return _cosine_distances(rows.float())


def _cosine_distances(rows: Tensor) -> Tensor:
    unit = unit_rows(rows)
    with torch.autocast(rows.device.type, enabled=False):
        distances = (1.0 - unit @ unit.T).clamp_(0.0, 2.0)
    return distances.fill_diagonal_(0.0)
