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
from fasthash._labels import is_minus_one, label_array, missing_labels
from fasthash.hierarchy import Hierarchy, Name, telling_distances
from fasthash.targets import class_distances, embedding_distances, multilabel_distances
from fasthash.train.features import Features

Kind = Literal["labels", "multilabel", "embedding"]
KINDS = ("labels", "multilabel", "embedding")
ROWS = 1 << 12  # that are checked at once: memory-mapped targets are never read whole


@dataclass(frozen=True)
class Targets:
    """The targets of N rows, and what is known of their kind.

    kind "labels": values int64 [N], positions in `classes`, -1 without a label, with distances [C, C]; "multilabel":
    values uint8 [N, L]; "embedding": values floating point [N, E], near by the cosine of centre(values).
    """

    kind: Kind
    values: Tensor
    classes: list[Name] | None = None
    distances: Tensor | None = None
    centre: Callable[[Tensor], Tensor] | None = None

    @property
    def unlabelled(self) -> bool:
        """Whether rows have no label."""
        return self.classes is not None and bool((self.values < 0).any())

    @property
    def distance(self) -> Tensor | Callable[[Tensor], Tensor]:
        """Semantic distances of values: the matrix of the classes, or a function from values [B, ...] to [B, B]."""
        if self.distances is not None:
            return self.distances
        if self.kind == "multilabel":
            return multilabel_distances
        centre = self.centre
        return embedding_distances if centre is None else lambda values: embedding_distances(centre(values))

    @property
    def outputs(self) -> int:
        """Outputs of a classifier: classes, or labels; 0 for embeddings."""
        if self.classes is not None:
            return len(self.classes)
        return self.values.shape[1] if self.kind == "multilabel" else 0


def targets_of(features: Features, y: Any, kind: str | None, hierarchy: Hierarchy | None) -> Targets:
    """The targets y of the rows of X [N, F], as `read_targets` reads them; the rows, less their mean, for y=None."""
    rows = features.rows
    if y is not None:
        return read_targets(y, len(rows), kind, hierarchy)
    if kind not in (None, "embedding"):
        raise ValueError(f"Hasher.fit: target {kind!r} needs y, got None")
    if hierarchy is not None:
        raise ValueError("Hasher.fit: a hierarchy needs class labels y, got None")
    if features.ordinary:
        return Targets("embedding", rows, centre=lambda values: values.float() - features.mean.to(values.device))
    standard = features.standard
    return Targets("embedding", rows, centre=lambda values: standard(values.to(features.mean.device)).to(values.device))


def read_targets(
    y: Any,
    rows: int,
    kind: str | None,
    hierarchy: Hierarchy | None,
    name: str = "y",
    function: str = "Hasher.fit",
) -> Targets:
    """Reads y, the targets of `rows` rows, as `kind` or (None) as what it looks like.

    1-D, or one column [N, 1]: class labels, integers or strings; 2-D integer or boolean: multi-hot labels; 2-D floating
    point: embeddings. With kind "multilabel" or "embedding" one column is what kind says.
    Labels may be missing: None, NaN, or the integer -1 (unless it is in the hierarchy).
    Raises TypeError for other types; ValueError for another length, multi-hot values that are not 0 and 1, NaN, labels
    that are not in the hierarchy, no label at all, or a hierarchy with targets that are not labels.

    >>> read_targets(["cat", "dog", "cat"], 3, None, None).values
    tensor([0, 1, 0])
    """
    y, missing = without_missing(y, kind, hierarchy, name, function)
    array, found = read_array(y, rows, kind, function, name)
    if found == "labels":
        values, classes = _labels(array)
        if missing is not None:
            values[torch.from_numpy(missing)] = -1
        if hierarchy is not None:
            _check_known(classes, hierarchy, name, function)
            if name == "y":
                telling_distances(hierarchy, classes, function)
        return Targets("labels", values, classes, _distances(classes, hierarchy))
    if hierarchy is not None:
        raise ValueError(f"{function}: a hierarchy is for 1-D class labels, got {name} of shape {tuple(array.shape)}")
    values = to_tensor(array, function, name)
    if found == "multilabel":
        if any(bool(((block != 0) & (block != 1)).any()) for block in values.split(ROWS)):
            raise ValueError(f"{function}: {name} must hold 0 and 1 only (multi-hot labels), got others")
        return Targets("multilabel", values.view(torch.uint8) if values.element_size() == 1 else values.to(torch.uint8))
    values = values if values.is_floating_point() else values.float()
    bad = sum(int((~torch.isfinite(block.float())).any(1).sum()) for block in values.split(ROWS))
    if bad:
        raise ValueError(f"{function}: {name} must be finite, got NaN or infinity in {bad} of {rows} rows")
    return Targets("embedding", values)


def read_validation(train: Targets, y: Any, rows: int, hierarchy: Hierarchy | None) -> Targets:
    """Reads the targets of `rows` validation rows as the kind of `train`, in its terms: the same classes, width.

    Classes that were not trained on are legal: they follow those of `train` and have distances of their own. Raises
    TypeError where one side has integers and the other strings, which are never the same class.
    """
    name = "validation y"
    found = read_targets(y, rows, train.kind, hierarchy, name)
    if found.unlabelled:
        row = int((found.values < 0).nonzero()[0])
        raise ValueError(f"Hasher.fit: {name} must have a label for each row, got none in row {row}")
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


def without_missing(
    y: Any, kind: str | None, hierarchy: Hierarchy | None, name: str, function: str = "Hasher.fit"
) -> tuple[Any, NDArray[np.bool_] | None]:
    """y with any of its labels in the place of missing ones, and where they were [N]; (y, None) where none is missing.

    Raises ValueError where no label is left, and where -1 could be a class too.
    """
    if kind not in (None, "labels"):
        return y, None
    found = missing_labels(y, minus_one=hierarchy is None or -1 not in hierarchy)
    if found is None:
        return y, None
    values, missing = found
    if missing.all():
        raise ValueError(
            f"{function}: {name} has no label in any of its {len(missing)} rows; leave y out, or give some"
        )
    given = values[~missing]
    if given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.round(given)).all():
        given = given.astype(np.int64)  # integers beside NaN, as pandas has them
    array = label_array(given.tolist() if given.dtype == object else given, function, name)
    if array.dtype.kind == "i" and any(map(is_minus_one, values[missing].tolist())):
        others = np.unique(array)
        if len(others) < 2 or (others < 0).any():
            raise ValueError(
                f"{function}: -1 in {name} marks a row without a label. The other rows must have at least two "
                f"classes, all >= 0, got {others[:4].tolist()}. Number classes from 0, or use None for missing labels"
            )
    filled = np.full(len(values), array[0], dtype=array.dtype)
    filled[~missing] = array
    return filled, missing


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


def _check_known(classes: list[Name], hierarchy: Hierarchy, name: str, function: str) -> None:
    unknown = [label for label in classes if label not in hierarchy]
    if not unknown:
        return
    hint = ""
    other: Any = str(unknown[0]) if isinstance(unknown[0], int) else unknown[0]
    if isinstance(other, str) and other != unknown[0] and other in hierarchy:
        hint = f" ({other!r} is; names are str or int, and 3 is not '3')"
    raise ValueError(
        f"{function}: every label of {name} must be in the hierarchy, got {len(unknown)} that are not, the first "
        f"{unknown[0]!r}{hint}"
    )
