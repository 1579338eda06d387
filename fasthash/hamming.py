"""Exact Hamming search over packed codes, without an index: top-k, range, all distances, counts by distance."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._bit_weights import largest
from fasthash._code_arguments import eligible_mask, packed_codes
from fasthash._labels import label_array, one_column

_topk = torch.ops.fasthash.hamming_topk.default  # the overload itself: finding it takes a microsecond of a small search


class SearchResult(NamedTuple):
    """distances [Q, k] (int32; float32 for real-valued queries) and ids int64 [Q, k], ordered by (distance, id).

    keys: the key of each id, where an index with keys was searched; else None.
    """

    distances: Any
    ids: Any

    @property
    def keys(self) -> Any:
        """Objects [Q, k] of a search of an index with keys, None for id -1; of other searches just None."""
        return None


class RangeResult(NamedTuple):
    """Query q has results offsets[q] to offsets[q + 1] of distances (int32) and of ids (int64).

    keys: the key of each id, where an index with keys was searched; else None.
    """

    offsets: Any
    distances: Any
    ids: Any

    @property
    def keys(self) -> Any:
        """Objects [T] of a search of an index with keys; of other searches just None."""
        return None


def hamming_topk(queries: Any, database: Any, k: int, *, filter: Any = None, bit_weights: Any = None) -> SearchResult:
    """Finds the k codes with the fewest differing bits, exactly, for each query.

    With `bit_weights` a differing bit counts the weight of its group: distance = sum over groups of weight x number of
    differing bits in the group.

    Args:
        queries: packed codes uint8 [Q, W], tensor or numpy array; one query may be [W], and counts as [1, W].
        database: packed codes uint8 [N, W] on the same device; rows may lie apart (a column slice is not copied).
        k: 1 to N.
        filter: which codes are eligible for all queries: a boolean mask [N], or an integer array of positions.
        bit_weights: (bits, weight) of 1 to 64 contiguous groups of bits, the group of the first bits of a code (in the
            order of numpy.packbits) first; weights are integers 1 to 255. The groups hold 8 W - 7 to 8 W bits in total;
            bits of the last byte after them do not count. None: every bit counts 1.

    Returns:
        Distances int32 [Q, k] and ids int64 [Q, k] (positions in the database), ordered by (distance, id) on every
            device, instruction set and thread count. If fewer than k codes are eligible the missing places have id -1
            and distance largest + 1; largest is 8 W, or sum(bits x weight) with bit_weights. On a GPU nothing waits for
            the CPU (unless positions are given as a filter), so a CUDA graph can hold the search.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> database = np.array([[0b00000000], [0b00000011], [0b00000001]], dtype=np.uint8)
    >>> hamming_topk(database[:1], database, 2).ids.tolist()
    [[0, 2]]
    >>> weighted = hamming_topk(database[:1], database, 3, bit_weights=[(7, 1), (1, 5)])  # the last bit counts 5
    >>> weighted.distances.tolist(), weighted.ids.tolist()
    ([[0, 5, 6]], [[0, 2, 1]])
    """
    codes, base = _code_pair("hamming_topk", queries, database)
    k = whole(k, "hamming_topk", "k", 1, len(base))
    mask = eligible_mask("hamming_topk", filter, base)
    if bit_weights is None:  # looking at it costs a microsecond of a small search
        distances, ids = _topk(codes, base, mask, k)
    else:
        weights = flat_bit_weights(bit_weights, "hamming_topk", base.shape[1])
        distances, ids = _topk(codes, base, mask, k, weights)
    return SearchResult(like(distances, queries), like(ids, queries))


def hamming_range(
    queries: Any, database: Any, radius: int, *, filter: Any = None, bit_weights: Any = None
) -> RangeResult:
    """Finds all codes within `radius` (inclusive) of each query.

    Args:
        queries, database, filter, bit_weights: as in `hamming_topk`; the database may be empty.
        radius: >= 0, in bits; with bit_weights a weighted distance.

    Returns:
        offsets int64 [Q + 1], distances int32 [T], ids int64 [T]; each query's part is ordered by (distance, id).

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> database = np.array([[0], [7], [1]], dtype=np.uint8)
    >>> found = hamming_range(database[:1], database, 1)
    >>> found.offsets.tolist(), found.ids.tolist()
    ([0, 2], [0, 2])
    >>> hamming_range(database[:1], database, 4, bit_weights=[(7, 1), (1, 5)]).ids.tolist()
    [0]
    """
    codes, base = _code_pair("hamming_range", queries, database)
    radius = whole(radius, "hamming_range", "radius", 0)
    weights = flat_bit_weights(bit_weights, "hamming_range", base.shape[1])
    mask = eligible_mask("hamming_range", filter, base)
    radius = min(radius, largest(weights, base.shape[1]))
    found = torch.ops.fasthash.hamming_range(codes, base, mask, radius, weights)
    return RangeResult(*(like(part, queries) for part in found))


def hamming_distances(a: Any, b: Any, *, bit_weights: Any = None) -> Any:
    """Gives the number of differing bits between all pairs, int32 [N, M], of packed codes uint8 [N, W] and [M, W].

    With `bit_weights` (as in `hamming_topk`) a differing bit counts the weight of its group.
    Raises ValueError or TypeError for arguments outside that.

    >>> import numpy as np
    >>> a, b = np.array([[0], [255]], np.uint8), np.array([[1], [3]], np.uint8)
    >>> hamming_distances(a, b).tolist(), hamming_distances(a, b, bit_weights=[(7, 1), (1, 5)]).tolist()
    ([[1, 2], [7, 6]], [[5, 6], [7, 6]])
    """
    codes, base = _code_pair("hamming_distances", a, b, names=("a", "b"))
    weights = flat_bit_weights(bit_weights, "hamming_distances", base.shape[1])
    return like(torch.ops.fasthash.hamming_distances(codes, base, weights), a)


def hamming_histogram(
    queries: Any,
    database: Any,
    *,
    database_labels: Any = None,
    class_weights: Any = None,
    bit_weights: Any = None,
) -> tuple[Any, Any]:
    """Counts the codes at each distance from each query, and sums a weight over them, for tie-aware metrics.

    Args:
        queries: packed codes uint8 [Q, W]. database: packed codes uint8 [N, W], may be empty.
        database_labels: integers [N] in 0..C-1, together with
        class_weights: numbers [Q, C]: the weight of a code of each class for each query.
        bit_weights: as in `hamming_topk`.

    Returns:
        counts int64 [Q, largest + 1]: codes at distance d, where largest = 8 W, or sum(bits x weight); and sums
        float64 [Q, largest + 1], the sum of class_weights[q, label_n] over them, added in order of position (None
        without labels).

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> database = np.array([[0], [3], [5]], dtype=np.uint8)
    >>> counts, sums = hamming_histogram(database[:1], database, database_labels=[0, 1, 1], class_weights=[[1.0, 0.5]])
    >>> counts[0, :3].tolist(), sums[0, :3].tolist()
    ([1, 0, 2], [1.0, 0.0, 1.0])
    >>> hamming_histogram(database[:1], database, bit_weights=[(7, 1), (1, 5)])[0].shape
    (1, 13)
    """
    codes, base = _code_pair("hamming_histogram", queries, database)
    bits = flat_bit_weights(bit_weights, "hamming_histogram", base.shape[1])
    if (database_labels is None) != (class_weights is None):
        raise ValueError("hamming_histogram: database_labels and class_weights must be given together, got one of them")
    labels, weights = None, None
    if database_labels is not None:
        labels = _on(base, _integer_labels(database_labels))
        weights = _on(base, to_tensor(class_weights, "hamming_histogram", "class_weights")).double()
        if labels.shape != (len(base),):
            raise ValueError(
                f"hamming_histogram: database_labels must have shape [{len(base)}], got {list(labels.shape)}"
            )
        if weights.dim() != 2 or len(weights) != len(codes):
            raise ValueError(
                f"hamming_histogram: class_weights must have shape [{len(codes)}, C], got {list(weights.shape)}"
            )
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < weights.shape[1]):
            raise ValueError(
                f"hamming_histogram: database_labels must be in 0..{weights.shape[1] - 1}, "
                f"got {int(labels.min())}..{int(labels.max())}"
            )
    counts, sums = torch.ops.fasthash.hamming_histogram(codes, base, labels, weights, bits)
    return like(counts, queries), None if labels is None else like(sums, queries)


def _integer_labels(given: Any) -> Tensor:
    """database_labels int64 [N], of any form: one column [N, 1] is [N], False and True are 0 and 1."""
    labels = (
        one_column(given) if isinstance(given, Tensor) else label_array(given, "hamming_histogram", "database_labels")
    )
    kind = dtype_name(labels)
    if not kind.startswith(("int", "uint", "bool")):
        raise TypeError(f"hamming_histogram: database_labels must be integers, got {kind}")
    return to_tensor(labels).long()


def _code_pair(
    function: str, queries: Any, database: Any, names: tuple[str, str] = ("queries", "database")
) -> tuple[Tensor, Tensor]:
    a, width = packed_codes(function, names[0], queries)
    b, other = packed_codes(function, names[1], database)
    if width != other:
        raise ValueError(
            f"{function}: {names[0]} and {names[1]} must have codes of one width, got {width} and {other} bytes"
        )
    if a.device != b.device:
        raise ValueError(f"{function}: {names[0]} and {names[1]} must be on one device, got {a.device} and {b.device}")
    return a, b


def _on(database: Tensor, tensor: Tensor) -> Tensor:
    return tensor.to(database.device)
