"""Distances that tell labels apart: a hierarchy that was read the wrong way round has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fasthash.hierarchy.names import Name

if TYPE_CHECKING:
    from fasthash.hierarchy.graph import Hierarchy

_TURN = 'read edges that are written as (child, parent) with order="child parent"'


def telling_distances(hierarchy: Hierarchy, labels: Sequence[Name], function: str) -> NDArray[np.float64]:
    """`distance_matrix` of distinct labels, float64 [N, N], for training and scoring.

    Raises ValueError, in the name of `function`, where three or more labels have one distance for all pairs, or where
    more pairs of them have a class below both than above both: either way the hierarchy is probably upside down.
    """
    matrix = hierarchy.distance_matrix(labels)
    if len(labels) < 3:
        return matrix
    between = matrix[~np.eye(len(labels), dtype=bool)]
    if (between == between[0]).all():
        raise ValueError(
            f"{function}: the hierarchy must give different distances between labels, got distance {between[0]:g} "
            f"for all pairs of the {len(labels)} labels: {_why(hierarchy, labels)}. If all labels are equally far "
            "apart, omit the hierarchy"
        )
    if len(hierarchy.roots) > 1:
        upside_down = _turned(hierarchy, labels)
        above, below = (_unrelated_pairs(side, labels) for side in (hierarchy, upside_down))
        if below > above:
            raise ValueError(
                f"{function}: the hierarchy seems to be upside down: {below} pairs of labels have a common class "
                f"below them, {above} pairs have one above them; {_TURN}. If the hierarchy is right, add one root "
                "above all classes"
            )
    return matrix


def _why(hierarchy: Hierarchy, labels: Sequence[Name]) -> str:
    """Why all distances are equal, and the way out."""
    turned = _turned(hierarchy, labels).distance_matrix(labels)
    if len(np.unique(turned[~np.eye(len(labels), dtype=bool)])) > 1:
        return f"it seems to be upside down; {_TURN}"
    common = hierarchy.lcs(labels[0], labels[1])
    if common is not None:
        return f"it is flat: {common!r} is the only class that two of them have in common"
    if set(labels) <= set(hierarchy.roots):
        return (
            "none of them has a parent: perhaps a table of class names was read as edges, or the hierarchy is "
            f"upside down; {_TURN}"
        )
    return "no two of them have a common ancestor: perhaps a table of class names was read as edges"


def _turned(hierarchy: Hierarchy, labels: Sequence[Name]) -> Hierarchy:
    return type(hierarchy)([(child, parent) for parent, child in hierarchy.edges], labels)


def _unrelated_pairs(hierarchy: Hierarchy, labels: Sequence[Name]) -> int:
    """How many pairs of labels, neither of them above the other, have a class above both."""
    place = {label: position for position, label in enumerate(labels)}
    below: dict[Name, list[int]] = {}
    related = np.eye(len(labels), dtype=bool)
    for position, label in enumerate(labels):
        for name in hierarchy.ancestors(label):
            below.setdefault(name, []).append(position)
            if name in place:
                related[position, place[name]] = related[place[name], position] = True
    shared = np.zeros_like(related)
    for members in set(map(tuple, below.values())):
        shared[np.ix_(members, members)] = True
    return int((shared & ~related).sum()) // 2
