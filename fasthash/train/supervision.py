"""What y says: its kind, the targets as one tensor, and the distances between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import dtype_name, to_tensor
from fasthash._labels import label_array
from fasthash.hierarchy import Hierarchy, Name, telling_distances
from fasthash.targets import class_distances, embedding_distances, multilabel_distances

Kind = Literal["labels", "multilabel", "embedding"]
KINDS = ("labels", "multilabel", "embedding")
ROWS = 1 << 12  # that are checked at once: memory-mapped targets are never read whole


@dataclass(frozen=True)
class Targets:
    """The targets of N rows, and what is known of their kind.

    kind "labels": values int64 [N], positions in `classes`, with distances [C, C]; "multilabel": values uint8 [N, L];
    "embedding": values floating point [N, E].
    """

    kind: Kind
    values: Tensor
    classes: list[Name] | None = None
    distances: Tensor | None = None

    @property
    def distance(self) -> Tensor | Callable[[Tensor], Tensor]:
        """Semantic distances of values: the matrix of the classes, or a function from values [B, ...] to [B, B]."""
        if self.distances is not None:
            return self.distances
        return multilabel_distances if self.kind == "multilabel" else embedding_distances

    @property
    def outputs(self) -> int:
        """Outputs of a classifier: classes, or labels; 0 for embeddings."""
        if self.classes is not None:
            return len(self.classes)
        return self.values.shape[1] if self.kind == "multilabel" else 0


def targets_of(rows: Tensor, y: Any, kind: str | None, hierarchy: Hierarchy | None) -> Targets:
    """The targets y of the rows of X [N, F], as `read_targets` reads them; the rows themselves where y is None."""
    if y is not None:
        return read_targets(y, len(rows), kind, hierarchy)
    if kind not in (None, "embedding"):
        raise ValueError(f"Hasher.fit: target {kind!r} needs y, got None")
    if hierarchy is not None:
        raise ValueError("Hasher.fit: a hierarchy needs class labels y, got None")
    return Targets("embedding", rows)


def read_targets(y: Any, rows: int, kind: str | None, hierarchy: Hierarchy | None, name: str = "y") -> Targets:
    """Reads y, the targets of `rows` rows, as `kind` or (None) as what it looks like.

    1-D, or one column [N, 1]: class labels, integers or strings; 2-D integer or boolean: multi-hot labels; 2-D floating
    point: embeddings. With kind "multilabel" or "embedding" one column is what kind says.
    Raises TypeError for other types; ValueError for another length, multi-hot values that are not 0 and 1, NaN, labels
    that are not in the hierarchy, or a hierarchy with targets that are not labels.

    >>> read_targets(["cat", "dog", "cat"], 3, None, None).values
    tensor([0, 1, 0])
    """
    array, found = read_array(y, rows, kind, "Hasher.fit", name)
    if found == "labels":
        values, classes = _labels(array)
        if hierarchy is not None:
            _check_known(classes, hierarchy, name)
            if name == "y":
                telling_distances(hierarchy, classes, "Hasher.fit")
        return Targets("labels", values, classes, _distances(classes, hierarchy))
    if hierarchy is not None:
        raise ValueError(f"Hasher.fit: a hierarchy is for 1-D class labels, got {name} of shape {tuple(array.shape)}")
    values = to_tensor(array, "Hasher.fit", name)
    if found == "multilabel":
        if any(bool(((block != 0) & (block != 1)).any()) for block in values.split(ROWS)):
            raise ValueError(f"Hasher.fit: {name} must hold 0 and 1 only (multi-hot labels), got others")
        return Targets("multilabel", values.view(torch.uint8) if values.element_size() == 1 else values.to(torch.uint8))
    values = values if values.is_floating_point() else values.float()
    bad = sum(int((~torch.isfinite(block.float())).any(1).sum()) for block in values.split(ROWS))
    if bad:
        raise ValueError(f"Hasher.fit: {name} must be finite, got NaN or infinity in {bad} of {rows} rows")
    return Targets("embedding", values)


def read_validation(train: Targets, y: Any, rows: int, hierarchy: Hierarchy | None) -> Targets:
    """Reads the targets of `rows` validation rows as the kind of `train`, in its terms: the same classes, width.

    Classes that were not trained on are legal: they follow those of `train` and have distances of their own. Raises
    TypeError where one side has integers and the other strings, which are never the same class.
    """
    name = "validation y"
    found = read_targets(y, rows, train.kind, hierarchy, name)
    if found.classes is None or train.classes is None:
        if found.values.shape[1] != train.values.shape[1]:
            width, got = train.values.shape[1], found.values.shape[1]
            raise ValueError(f"Hasher.fit: {name} must have {width} columns, as y has, got {got}")
        return found
    kinds = [type(names[0]).__name__ for names in (train.classes, found.classes)]
    if kinds[0] != kinds[1]:
        raise TypeError(f"Hasher.fit: {name} must hold labels of the type that y holds, {kinds[0]}, got {kinds[1]}")
    classes = list(dict.fromkeys([*train.classes, *found.classes]))
    place = {label: position for position, label in enumerate(classes)}
    values = torch.tensor([place[label] for label in found.classes])[found.values]
    return Targets("labels", values, classes, _distances(classes, hierarchy))


def read_array(
    y: Any, rows: int, kind: str | None, function: str, name: str = "y"
) -> tuple[Tensor | NDArray[Any], Kind]:
    """y with `rows` rows, as an array, and its kind (for None: what it looks like).

    Labels are int64 or str [N], the others [N, L]. A tensor [N, L] with L > 1 stays as it is. Raises ValueError and
    TypeError in the name of `function`.
    """
    shape = tuple(y.shape) if hasattr(y, "shape") else None
    if np.isscalar(y) or shape == ():
        raise ValueError(f"{function}: {name} must have one row for each of the {rows} rows of X, got a single value")
    if shape is not None and len(shape) > 2:
        raise ValueError(f"{function}: {name} must be 1-D or 2-D, got shape {shape}")
    array: Tensor | NDArray[Any] = y
    if not (isinstance(y, Tensor) and y.ndim == 2 and y.shape[1] != 1):
        array = label_array(y, function, name, keep_column=True)
        if kind in (None, "labels") and array.ndim == 2 and array.shape[1] == 1:
            if kind is None and array.dtype.kind == "f":
                got = f"one column of {dtype_name(array)}, shape {tuple(array.shape)}"
                raise ValueError(
                    f"{function}: {name} is {got}: for class labels "
                    'make it integers (.astype(int)); for targets of one number each set target="embedding"'
                )
            array = label_array(array, function, name)
    if len(array) != rows:
        raise ValueError(f"{function}: {name} must have one row for each of the {rows} rows of X, got {len(array)}")
    found = kind or _guess(array)
    if array.ndim != (1 if found == "labels" else 2):
        dims = "1-D" if found == "labels" else "2-D"
        raise ValueError(f"{function}: {name} must be {dims} for target {found!r}, got shape {tuple(array.shape)}")
    return array, cast(Kind, found)


def _guess(array: Tensor | NDArray[Any]) -> Kind:
    if array.ndim == 1:
        return "labels"
    floating = array.is_floating_point() if isinstance(array, Tensor) else array.dtype.kind == "f"
    return "embedding" if floating else "multilabel"


def _labels(array: Any) -> tuple[Tensor, list[Name]]:
    """Positions int64 [N] of the labels, int64 or str [N], in their sorted list."""
    classes, inverse = np.unique(array, return_inverse=True)
    names: list[Name] = classes.tolist()
    return torch.from_numpy(inverse.reshape(-1).astype(np.int64)), names


def _distances(classes: list[Name], hierarchy: Hierarchy | None) -> Tensor:
    """Distances [C, C] between classes, all of which may be equal: a validation part may hold one branch alone."""
    if hierarchy is None:
        return class_distances(classes)
    return torch.from_numpy(hierarchy.distance_matrix(classes)).float()


def _check_known(classes: list[Name], hierarchy: Hierarchy, name: str) -> None:
    unknown = [label for label in classes if label not in hierarchy]
    if not unknown:
        return
    hint = ""
    other: Any = str(unknown[0]) if isinstance(unknown[0], int) else unknown[0]
    if isinstance(other, str) and other != unknown[0] and other in hierarchy:
        hint = f" ({other!r} is: names are str or int, and 3 is not '3')"
    raise ValueError(
        f"Hasher.fit: every label of {name} must be in the hierarchy, got {len(unknown)} that are not, the first "
        f"{unknown[0]!r}{hint}"
    )
