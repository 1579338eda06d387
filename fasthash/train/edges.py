"""Edges between users and items: read from arrays or sparse matrices, looked up, and drawn where there are none."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasthash._arguments import shown, whole
from fasthash._arrays import dtype_name, to_tensor

MOST_PAIRS = 2**62  # users x items, so that the number of a pair fits in 64 bits
SCATTERED = 1000  # times as many numbers as edges: not numbered from 0, but ids of something


class Edges:
    """Different edges between users 0..U-1 and items 0..I-1, ordered by (user, item); a pair that repeats counts once.

    keys int64 [E]: user x I + item, ascending. Those of user u are keys[starts[u] : starts[u + 1]]. counts int64 [U]:
    items of each user.

    >>> edges = Edges(np.array([[1, 0], [0, 2], [1, 0]]), (3, 4))
    >>> edges.keys.tolist(), edges.starts.tolist(), edges.counts.tolist()
    ([2, 4], [0, 1, 2, 2], [1, 1, 0])
    """

    def __init__(self, pairs: NDArray[np.int64], shape: tuple[int, int]) -> None:
        self.shape = shape
        self.keys: NDArray[np.int64] = np.unique(pairs[:, 0] * shape[1] + pairs[:, 1])
        self.users, self.items = np.divmod(self.keys, shape[1])
        self.starts: NDArray[np.int64] = np.searchsorted(self.users, np.arange(shape[0] + 1))
        self.counts: NDArray[np.int64] = np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.keys)

    def holds(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these pairs are edges; users and items broadcast."""
        keys = users * self.shape[1] + items
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        found: NDArray[np.bool_] = self.keys[places] == keys
        return found

    def others(self, users: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Items [B, n] that users [B] have no edge with: draws [B, n], uniform in [0, 1), say which of them.

        The r-th item without an edge is r + (how many items with one come before it). The j-th item with an edge comes
        before it where that item - j <= r. Each of the users must have an item without an edge.

        >>> edges = Edges(np.array([[0, 0], [0, 2], [1, 3]]), (2, 4))
        >>> edges.others(np.array([0, 1]), np.array([[0.0, 0.9], [0.0, 0.9]])).tolist()
        [[1, 3], [0, 2]]
        """
        rank = (draws * (self.shape[1] - self.counts[users])[:, None]).astype(np.int64)
        before = self.keys - (np.arange(len(self)) - self.starts[self.users])
        places = np.searchsorted(before, users[:, None] * self.shape[1] + rank, side="right")
        found: NDArray[np.int64] = rank + places - self.starts[users][:, None]
        return found

    def matrix(self) -> Tensor:
        """1 for each edge, sparse float32 [U, I]."""
        return _ones(self.starts, self.items, self.shape)

    def transposed(self) -> Tensor:
        """1 for each edge, sparse float32 [I, U]."""
        order = np.lexsort((self.users, self.items))
        starts = np.searchsorted(self.items[order], np.arange(self.shape[1] + 1))
        return _ones(starts, self.users[order], self.shape[::-1])


def _ones(starts: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, ...]) -> Tensor:
    kind = np.int32 if max(len(columns), *shape) < 2**31 else np.int64  # products are several times faster in 32 bits
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
        places = [torch.from_numpy(each.astype(kind)) for each in (starts, columns)]
        return torch.sparse_csr_tensor(places[0], places[1], torch.ones(len(columns), dtype=torch.float32), shape)


def read_edges(edges: Any, shape: Any, function: str) -> Edges:
    """Integers [E, 2] (user, item), or a scipy sparse matrix [U, I] whose entries other than 0 are edges.

    shape: (U, I); None: that of the matrix, or the largest numbers + 1, which must not be scattered. Raises ValueError
    or TypeError, naming `function`.

    >>> read_edges([[0, 0], [0, -1]], None, "GraphHasher.fit")
    Traceback (most recent call last):
    ValueError: GraphHasher.fit: items of edges must be at least 0, got -1
    """
    given = None if shape is None else _shape(shape, function)
    if hasattr(edges, "tocoo"):
        matrix = edges.tocoo()
        if given not in (None, tuple(matrix.shape)):
            raise ValueError(f"{function}: shape must be that of the matrix, {tuple(matrix.shape)}, got {given}")
        own = _shape(matrix.shape, function)
        entries = np.asarray(matrix.data) != 0
        pairs = np.column_stack([matrix.row[entries], matrix.col[entries]]).astype(np.int64)
        return Edges(_some(pairs, function), own)
    values = to_tensor(edges, function, "edges").detach().cpu()
    if values.dim() != 2 or values.shape[1] != 2:
        raise ValueError(f"{function}: edges must have shape [E, 2] (user, item), got {shown(values)}")
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise TypeError(f"{function}: edges must be integers, got {dtype_name(values)}")
    pairs = _some(values.long().numpy(), function)
    sizes = []
    for side, ids, limit in zip(("users", "items"), pairs.T, given or (None, None), strict=True):
        low, high = int(ids.min()), int(ids.max())
        if low < 0:
            raise ValueError(f"{function}: {side} of edges must be at least 0, got {low}")
        if limit is not None and high >= limit:
            raise ValueError(f"{function}: {side} of edges must be below {limit}, the number of {side}, got {high}")
        if limit is None and high >= SCATTERED * len(pairs):
            raise ValueError(
                f"{function}: {side} of edges must be numbered from 0 (numpy.unique(ids, return_inverse=True) does "
                f"that), got {high} among {len(pairs)} edges and no shape"
            )
        sizes.append(high + 1 if limit is None else limit)
    return Edges(pairs, _shape(sizes, function))


def _some(pairs: NDArray[np.int64], function: str) -> NDArray[np.int64]:
    if not len(pairs):
        raise ValueError(f"{function}: edges must hold at least 1 edge, got 0")
    return pairs


def _shape(shape: Any, function: str) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"{function}: shape must be two integers (users, items), got {shown(shape)}")
    users, items = (whole(n, function, f"shape[{place}]", 1) for place, n in enumerate(shape))
    if users * items > MOST_PAIRS:
        raise ValueError(f"{function}: users x items must be at most 2**62, got {users} x {items}")
    return users, items
