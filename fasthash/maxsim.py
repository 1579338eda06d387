"""Late interaction: documents and queries of several token codes each, ranked by the sum of the nearest tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash import _ops  # noqa: F401  (registers the ops)
from fasthash._arguments import whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._bit_weights import largest
from fasthash.hamming import SearchResult, _code_pair

_LARGEST = 2**31 - 1  # of an int32 distance
_PAIRS = {"cpu": 1 << 18, "cuda": 1 << 24}  # distances of tokens held at once: on the CPU what fits in its L2 cache
_TOKENS = 32  # of queries in one block; the rest of its distances are tokens of documents
_SCORES = 1 << 22  # distances of documents held at once, where one query has no more


def maxsim_topk(
    queries: Any, query_offsets: Any, database: Any, offsets: Any, k: int, *, bit_weights: Any = None
) -> SearchResult:
    """Finds the k documents that are nearest to each query by late interaction (MaxSim, as in ColBERT), exactly.

    A document is several codes, one for each of its tokens, and so is a query. Their distance is the sum over the
    query's tokens of the smallest Hamming distance to a token of the document. The order is that of MaxSim of codes of
    D bits: the similarity of two tokens of -1 and 1 is D - 2 x Hamming distance, so the sum of the largest
    similarities is D x tokens of the query - 2 x distance.

    Args:
        queries: packed codes uint8 [T, W], the tokens of all queries one after the other, tensor or numpy array.
        query_offsets: integers [Q + 1]: query q has the tokens query_offsets[q] : query_offsets[q + 1]. A query
            without tokens has distance 0 to all documents.
        database: packed codes uint8 [N, W], the tokens of all documents, on the same device; rows may lie apart.
        offsets: integers [M + 1]: document m has the tokens offsets[m] : offsets[m + 1], at least one.
        k: 1 to M.
        bit_weights: as in `hamming_topk`.

    Returns:
        Distances int32 [Q, k] and ids int64 [Q, k] (positions of documents), ordered by (distance, id) on every device,
        instruction set and thread count. All pairs of tokens are compared. Beside the arguments this takes some 30
        bytes for each document (or 100 MB, if that is more), and 4 for each token of the longest one.

    Raises:
        ValueError, TypeError: an argument outside what is said above; a query with too many tokens: its largest
            distance, tokens x 8 W, is above 2^31 - 1.

    Source: Khattab & Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction
    over BERT" (arXiv 2004.12832, 2020).

    >>> import numpy as np
    >>> database = np.array([[0b0000], [0b1111], [0b0001], [0b0111]], dtype=np.uint8)  # two documents of two tokens
    >>> query = np.array([[0b0001], [0b1111], [0b0000]], dtype=np.uint8)
    >>> found = maxsim_topk(query, [0, 3], database, [0, 2, 4], k=2)
    >>> found.distances.tolist(), found.ids.tolist()
    ([[1, 2]], [[0, 1]])
    """
    function = "maxsim_topk"
    codes, base = _code_pair(function, queries, database)
    weights = flat_bit_weights(bit_weights, function, base.shape[1])
    query_starts = _starts(function, "query_offsets", query_offsets, "queries", len(codes))
    starts = _starts(function, "offsets", offsets, "database", len(base))
    _refuse_steps(function, "offsets", starts, "document", 1, len(base))
    most = _LARGEST // largest(weights, base.shape[1])
    _refuse_steps(function, "query_offsets", query_starts, "query", 0, most)
    k = whole(k, function, "k", 1, len(starts) - 1)

    count = len(query_starts) - 1
    step = max(_SCORES // (len(starts) - 1), 1)
    distances, ids = codes.new_empty((count, k), dtype=torch.int32), codes.new_empty((count, k), dtype=torch.int64)
    for first in range(0, count, step):
        block = slice(first, min(first + step, count))
        found = _document_distances(codes, query_starts[first : block.stop + 1], base, starts, weights)
        distances[block], ids[block] = _nearest(found, k)
    return SearchResult(like(distances, queries), like(ids, queries))


def _document_distances(
    queries: Tensor, query_starts: np.ndarray[Any, Any], database: Tensor, starts: np.ndarray[Any, Any], weights: Any
) -> Tensor:
    """Distances int32 [Q, M] of all documents to the queries of `query_starts` [Q + 1]."""
    distances = queries.new_zeros((len(query_starts) - 1, len(starts) - 1), dtype=torch.int32)
    pairs = _PAIRS.get(database.device.type, _PAIRS["cuda"])
    begin, end = int(query_starts[0]), int(query_starts[-1])
    tokens = pairs // max(min(end - begin, _TOKENS), 1)
    first = 0
    while first < len(starts) - 1:  # documents first .. last - 1: those of `tokens` tokens, at least one of them
        last = max(int(np.searchsorted(starts, starts[first] + tokens, side="right")) - 1, first + 1)
        part = database[int(starts[first]) : int(starts[last])]
        step = max(pairs // len(part), 1)
        for token in range(begin, end, step):
            stop = min(token + step, end)
            between = torch.ops.fasthash.hamming_distances(queries[token:stop], part, weights)
            smallest = _segment_minima(between, starts[first : last + 1] - starts[first])
            _add_to_queries(distances[:, first:last], smallest, query_starts - token)
        first = last
    return distances


def _segment_minima(distances: Tensor, starts: np.ndarray[Any, Any]) -> Tensor:
    """The smallest of each segment of the columns, int32 [T, N] -> [T, M]; segments `starts` [M + 1] are not empty."""
    if distances.device.type == "cpu":  # torch's scatter_reduce took 20 times as long
        return torch.from_numpy(np.minimum.reduceat(distances.numpy(), starts[:-1], axis=1))
    return _scattered_minima(distances, starts)


def _scattered_minima(distances: Tensor, starts: np.ndarray[Any, Any]) -> Tensor:
    segments = torch.from_numpy(np.repeat(np.arange(len(starts) - 1), np.diff(starts))).to(distances.device)
    result = distances.new_empty((len(distances), len(starts) - 1))
    return result.scatter_reduce(1, segments.expand_as(distances), distances, "amin", include_self=False)


def _add_to_queries(distances: Tensor, smallest: Tensor, starts: np.ndarray[Any, Any]) -> None:
    """Adds each row of `smallest` int32 [T, M] to its query's row of `distances` [Q, M].

    starts [Q + 1]: where the tokens of each query begin, counted from row 0 of `smallest`. The sums are a product with
    a matrix of 0 and 1 in float64, which is exact for whole numbers below 2^53.
    """
    first = int(np.searchsorted(starts, 0, side="right")) - 1
    last = int(np.searchsorted(starts, len(smallest)))
    rows = np.arange(len(smallest))
    own = (rows >= starts[first:last, None]) & (rows < starts[first + 1 : last + 1, None])
    member = torch.from_numpy(own.astype(np.float64)).to(smallest.device)
    distances[first:last] += (member @ smallest.double()).int()


def _nearest(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row [Q, M], ordered by (distance, id): no two of the numbers compared are equal."""
    numbers = (distances.long() << 32) + torch.arange(distances.shape[1], device=distances.device)
    found = numbers.topk(k, largest=False, sorted=True).values
    return (found >> 32).int(), found & 0xFFFFFFFF


def _starts(function: str, name: str, given: Any, rows_name: str, rows: int) -> np.ndarray[Any, Any]:
    """Offsets int64 [segments + 1] that begin with 0 and end with `rows`; raises TypeError or ValueError."""
    offsets = to_tensor(given, function, name)
    if offsets.dtype == torch.bool or offsets.is_floating_point() or offsets.is_complex():
        raise TypeError(f"{function}: {name} must be integers, got {dtype_name(offsets)}")
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"{function}: {name} must have shape [count + 1], got {list(offsets.shape)}")
    starts = offsets.cpu().numpy().astype(np.int64)
    if starts[0] != 0 or starts[-1] != rows:
        raise ValueError(
            f"{function}: {name} must begin with 0 and end with {rows} (rows of {rows_name}), "
            f"got {starts[0]} and {starts[-1]}"
        )
    return starts


def _refuse_steps(function: str, name: str, starts: np.ndarray[Any, Any], what: str, least: int, most: int) -> None:
    """Raises ValueError for a query or document with fewer or more tokens than it may have."""
    tokens = np.diff(starts)
    outside = np.flatnonzero((tokens < least) | (tokens > most))
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{function}: {name} must give each {what} {least} to {most} tokens, got {tokens[first]} for {what} {first}"
        )
