"""Exact search of packed codes by real-valued queries, without an index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fasthash import _ops
from fasthash._arguments import MAX_BITS, choice, whole
from fasthash._arrays import dtype_name, like, to_tensor
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._code_arguments import eligible_mask, packed_codes
from fasthash.hamming import SearchResult

_LARGEST_HALF = 0x7BFF  # the bits of 65504
MOST = 3.4028234663852886e38  # the largest float32


def asymmetric_topk(
    queries: Any,
    database: Any,
    k: int,
    *,
    code_scale: Any = None,
    metric: str = "l1",
    filter: Any = None,
    bit_weights: Any = None,
) -> SearchResult:
    """Finds the k nearest codes of each real-valued query among all codes, exactly.

    A code's bits b stand for the vector x = 2 b - 1 of -1 and 1; s is the code's scale. Sums are over the D bits:

    - "l1": sum |q_d - b_d|, for queries in [0, 1] such as `Hasher.transform` gives; takes no code_scale.
    - "dot": -s <q, x>, where s = 1 without code_scale.
    - "cosine": 1 - s <q, x> / |q|, where s = 1 / sqrt(D) without code_scale; 1 for a query of zeros.
    - "l2": |q|^2 - 2 s <q, x> + s^2 D, the squared Euclidean distance from q to s x; s = 1 without code_scale.

    What to store as the scale s of the code of a vector o, with x = sign(o):

    - RaBitQ's correction, |o|^2 / <x, o>: s <q, x> estimates <q, o>. Use "dot"; for "cosine" make it of o / |o|.
    - The length of the vector, |o| / sqrt(D): s x is as long as o. Use "l2" or "dot". (With RaBitQ's correction s x is
      longer than o, by 1 / cos(x, o), and "l2" measures the distance to this longer vector.)

    Codes of several bits a dimension are planes of bits with weights, x = sum over planes of w_p (2 b_p - 1). Put the
    planes one after the other, and give the query once for each plane, times its weight: np.concatenate([w * q for w in
    weights], axis=1). Then <q, x> is that of the dimensions, for "dot"; for cosine use "dot" with queries of length 1.

    Args:
        queries: floating-point [Q, D], ceil(D / 8) = W, tensor or numpy array; one may be [D]. Finite, at most 3.4e38.
        database: packed codes uint8 [N, W] on the same device; rows may lie apart. Bits from D on do not count.
        k: 1 to N.
        code_scale: float16 [N], finite and >= 0: one number s for each code.
        metric: "l1", "dot", "cosine" or "l2".
        filter: which codes are eligible for all queries: a boolean mask [N], or an integer array of positions.
        bit_weights: as in `hamming_topk`, of D bits, only for "l1": sum w_d |q_d - b_d|.

    Returns:
        Distances float32 [Q, k], computed in double and rounded once, smaller is nearer; and ids int64 [Q, k]
            (positions in the database). They are ordered by (distance, id), the same on every instruction set and
            thread count. If fewer than k codes are eligible the missing places have id -1 and distance infinity. On the
            CPU sums of small integers exclude most codes. If they cannot, as in a database of equal codes or for
            queries of very mixed sizes, the search takes about ten times as long. On a GPU products of bytes do the
            same.

    Raises:
        ValueError, TypeError: an argument outside these limits.

    >>> import numpy as np
    >>> database = np.array([[0b11000000], [0b10000000], [0b01000000]], dtype=np.uint8)
    >>> query = np.array([[0.9, 0.4]], dtype=np.float32)
    >>> found = asymmetric_topk(query, database, 2)
    >>> found.ids.tolist(), found.distances.round(2).tolist()
    ([[1, 0]], [[0.5, 0.699999988079071]])
    >>> scale = np.array([2, 1, 1], dtype=np.float16)
    >>> asymmetric_topk(query, database, 3, code_scale=scale, metric="dot").ids.tolist()
    [[0, 1, 2]]
    """
    function = "asymmetric_topk"
    base, width = packed_codes(function, "database", database)
    metric = choice(metric, function, "metric", _ops.asymmetric_topk.METRICS)
    real = real_queries(queries, width, base.device, function)
    k = whole(k, function, "k", 1, len(base))
    scale = scales(code_scale, len(base), base.device, function)
    if scale is not None and metric == "l1":
        raise ValueError(f"{function}: metric 'l1' takes no code_scale; 'dot', 'cosine' and 'l2' do")
    weights = weights_of(bit_weights, real.shape[1], metric, function)
    mask = eligible_mask(function, filter, base)
    distances, ids = torch.ops.fasthash.asymmetric_topk(real, base, mask, scale, k, metric, weights)
    return SearchResult(like(distances, queries), like(ids, queries))


def real_queries(given: Any, width: int, device: torch.device, function: str) -> Tensor:
    """Real-valued queries [Q, D] for codes of `width` bytes on a device; raises TypeError or ValueError."""
    queries = to_tensor(given, function, "queries")
    if not queries.is_floating_point():
        hint = "; hamming_topk takes packed codes" if queries.dtype == torch.uint8 else ""
        raise TypeError(f"{function}: queries must be real-valued [Q, bits], got {dtype_name(queries)}{hint}")
    if queries.ndim == 1:
        queries = queries[None]
    least, most = 8 * width - 7, 8 * width
    if queries.ndim != 2 or not least <= queries.shape[1] <= most:
        raise ValueError(
            f"{function}: queries must be [Q, {least} to {most}] for codes of {width} bytes, "
            f"got shape {list(queries.shape)}"
        )
    if queries.shape[1] > MAX_BITS:
        raise ValueError(f"{function}: queries must have at most {MAX_BITS} bits, got {queries.shape[1]}")
    if queries.device != device:
        raise ValueError(f"{function}: queries and database must be on one device, got {queries.device} and {device}")
    refuse_infinite(queries, function)
    return queries.detach()


def refuse_infinite(queries: Tensor, function: str) -> None:
    """Raises ValueError for a number that is not finite or above the largest float32."""
    outside = ~(queries.abs() <= MOST)  # NaN too
    if outside.any():
        first = float(queries[outside][0])
        raise ValueError(f"{function}: real-valued queries must be finite and at most 3.4e38 in size, got {first}")


def scales(given: Any, count: int, device: torch.device, function: str) -> Tensor | None:
    """The scales of `count` codes, float16 [N], on a device; raises TypeError or ValueError."""
    if given is None:
        return None
    scale = to_tensor(given, function, "code_scale")
    if scale.dtype != torch.float16:
        raise TypeError(f"{function}: code_scale must be float16, got {dtype_name(scale)}")
    if scale.shape != (count,):
        raise ValueError(
            f"{function}: code_scale must have shape [{count}], one for each code, got {list(scale.shape)}"
        )
    scale = scale.detach().to(device)
    if not count:
        return scale
    least, most = torch.aminmax(scale.view(torch.int16))  # bits of numbers >= 0 are in their order; halves are slow
    if not (int(least) >= 0 and int(most) <= _LARGEST_HALF):
        outside = ~((scale >= 0) & (scale <= 65504))  # NaN too
        if outside.any():
            raise ValueError(f"{function}: code_scale must be finite and >= 0, got {float(scale[outside][0])}")
        scale = scale.abs()  # -0 is 0
    return scale


def weights_of(given: Any, bits: int, metric: str, function: str) -> tuple[int, ...]:
    """Flat bit_weights of `bits` bits; raises TypeError or ValueError."""
    weights = flat_bit_weights(given, function, (bits + 7) // 8)
    if weights and metric != "l1":
        raise ValueError(
            f"{function}: bit_weights need metric 'l1', got metric {metric!r}; for this metric multiply the "
            "queries by the weights"
        )
    if weights and sum(weights[::2]) != bits:
        raise ValueError(f"{function}: bit_weights must make up {bits} bits, got {sum(weights[::2])}")
    return weights
