"""Labels as groups: what a query gains from an item of the database depends only on the labels of the two.

Items with the same label (or the same multi-hot row) form one group, so gains are a table [query groups, database
groups] that is computed for a few query groups at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arrays import dtype_name, to_tensor
from fasthash._labels import label_array

# Gains float64 [q, G] of every database group for some query groups, int64 [q].
Gain = Callable[[Tensor], Tensor]


class Labels:
    """Labels of queries and database, 1-D classes (integers or strings) or 2-D multi-hot, as group numbers.

    One column [rows, 1] is 1-D classes, as a data frame gives them.
    `query` int64 [Q] and `database` int64 [N] are group numbers, `counts` float64 [G] the database's items in each
    group.
    """

    def __init__(self, function: str, query: Any, database: Any, device: torch.device) -> None:
        self.function = function
        a, b = _label_array(function, "query_labels", query), _label_array(function, "database_labels", database)
        if a.ndim != b.ndim or (a.ndim == 2 and a.shape[1] != b.shape[1]):
            raise ValueError(
                f"{function}: query_labels and database_labels must both be [rows] or both [rows, L] with the same L, "
                f"got shapes {list(a.shape)} and {list(b.shape)}"
            )
        if (a.dtype.kind == "U") != (b.dtype.kind == "U"):
            raise TypeError(
                f"{function}: query_labels and database_labels must be of one kind, got {dtype_name(a)} and "
                f"{dtype_name(b)}"
            )
        query_rows, query_groups = _distinct(a)
        database_rows, database_groups = _distinct(b)
        self.multi_hot = a.ndim == 2
        self.query = torch.from_numpy(query_groups).to(device)
        self.database = torch.from_numpy(database_groups).to(device)
        self.counts = torch.bincount(self.database, minlength=len(database_rows)).double()
        self._query_values, self._database_values = query_rows, database_rows
        if self.multi_hot:
            rows: tuple[NDArray[Any], NDArray[Any]] = query_rows.astype(np.float32), database_rows.astype(np.float32)
        else:  # the number of each class, so that equal classes have equal numbers
            numbers = np.unique(np.concatenate([query_rows, database_rows]), return_inverse=True)[1].reshape(-1)
            rows = numbers[: len(query_rows)], numbers[len(query_rows) :]
        self._query_rows, self._database_rows = (torch.from_numpy(part).to(device) for part in rows)

    def classes(self) -> tuple[Tensor, Tensor]:
        """Class numbers int64 of the queries [Q] and the database [N]. Raises TypeError for multi-hot labels."""
        if self.multi_hot:
            raise TypeError(f"{self.function}: labels must be 1-D classes, got multi-hot rows")
        return self._query_rows[self.query], self._database_rows[self.database]

    def shared(self, groups: Tensor) -> Tensor:
        """Number of labels in common with each database group (1-D labels: 1 for the same class): float64 [q, G]."""
        rows = self._query_rows[groups]
        if self.multi_hot:
            return (rows @ self._database_rows.T).double()
        return (rows[:, None] == self._database_rows).double()

    def relevant(self, groups: Tensor) -> Tensor:
        """1 where at least one label is in common, else 0: float64 [q, G]."""
        return (self.shared(groups) > 0).double()

    def exponential(self, groups: Tensor) -> Tensor:
        """2 to the number of labels in common, minus 1: float64 [q, G]."""
        return torch.exp2(self.shared(groups)) - 1.0

    def table(self, name: str, values: Any) -> Gain:
        """Gains from a [C, C] table indexed by integer classes. Raises for another shape, negative or NaN values."""
        if self.multi_hot or self._query_values.dtype != np.int64:
            got = "multi-hot labels" if self.multi_hot else "text"
            raise TypeError(
                f"{self.function}: {name} needs 1-D integer labels that index it, got {got}; number the classes in the "
                "order of its rows"
            )
        matrix = to_tensor(values, self.function, name).detach().to(self.query.device, torch.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"{self.function}: {name} must have shape [C, C], got {list(matrix.shape)}")
        if not bool((matrix.isfinite() & (matrix >= 0)).all()):
            raise ValueError(f"{self.function}: {name} must be finite and not negative")
        for side, classes in (("query", self._query_values), ("database", self._database_values)):
            low, high = int(classes.min()), int(classes.max())
            if low < 0 or high >= len(matrix):
                raise ValueError(
                    f"{self.function}: {side}_labels must be between 0 and {len(matrix) - 1} to index {name}, "
                    f"got {low} to {high}"
                )
        rows, columns = (
            torch.from_numpy(part).to(matrix.device) for part in (self._query_values, self._database_values)
        )
        return lambda groups: matrix[rows[groups]][:, columns]


def _label_array(function: str, name: str, labels: Any) -> NDArray[Any]:
    """Labels as a numpy array of integers or strings [rows], or bool [rows, L]."""
    values = label_array(labels, function, name)
    if values.ndim == 1:
        return values
    if values.dtype.kind not in "biuf" or not bool(np.isin(values, (0, 1)).all()):
        raise ValueError(
            f"{function}: {name} with 2 dimensions must be multi-hot, 0 or 1, got other values ({dtype_name(values)})"
        )
    return values.astype(np.bool_)


def _distinct(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct rows, and for each row the number of its equal among them."""
    if rows.ndim == 1:
        values, inverse = np.unique(rows, return_inverse=True)
        return values, inverse.reshape(-1).astype(np.int64)
    packed = np.ascontiguousarray(np.packbits(rows, axis=1))
    if packed.shape[1] == 0:  # no labels at all: one group
        return rows[:1], np.zeros(len(rows), dtype=np.int64)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], inverse.reshape(-1).astype(np.int64)
