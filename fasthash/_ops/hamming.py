"""Ops of Hamming search: queries uint8 [Q, W], database uint8 [N, W], mask int64 [ceil(N / 64)] words or None.

`bit_weights`: flat (bits, weight, ...) as fasthash/_bit_weights.py gives them; empty: every bit counts 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash import _core
from fasthash._bit_weights import largest
from fasthash._ops.registry import address, call, define, workspace_for


def mask_words(allowed: Tensor) -> Tensor:
    """A boolean mask [N] as the bitmap that the kernels read: int64 [ceil(N / 64)], bit n % 64 of word n // 64."""
    words: Tensor = torch.ops.fasthash.hamming_mask.default(allowed)
    return words


def _hamming_mask(allowed: Tensor) -> Tensor:
    allowed, bitmap = allowed.contiguous(), _hamming_mask_fake(allowed)
    call("hamming_mask", allowed.device, address(allowed), len(allowed), address(bitmap))
    return bitmap


def _hamming_mask_fake(allowed: Tensor) -> Tensor:
    return allowed.new_empty((allowed.shape[0] + 63) // 64, dtype=torch.int64)


def rows(codes: Tensor) -> Tensor:
    """Codes whose bytes are adjacent; rows may lie apart, so a column slice of a larger array is not copied."""
    bytes_adjacent = codes.shape[1] <= 1 or codes.stride(1) == 1
    return codes if bytes_adjacent and codes.stride(0) >= codes.shape[1] else codes.contiguous()


def hamming_problem(
    queries: Tensor, database: Tensor, mask: Tensor | None, bit_weights: Sequence[int] = ()
) -> _core.HammingProblem:
    """`queries`, `database` and `mask` must outlive the call, and have come through contiguous() and rows()."""
    count, width = database.shape
    codes = address(queries), address(database), address(mask), queries.shape[0], count, width, database.stride(0)
    return _core.HammingProblem(*codes, bit_weights) if bit_weights else _core.HammingProblem(*codes)


def _hamming_topk(
    queries: Tensor, database: Tensor, mask: Tensor | None, k: int, bit_weights: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    queries, database = queries.contiguous(), rows(database)
    distances, ids = hamming_topk_fake(queries, database, mask, k)
    problem = hamming_problem(queries, database, mask, bit_weights)
    call(
        "hamming_topk", queries.device, problem, k, address(distances), address(ids),
        workspace=("hamming_topk", problem, k),
    )  # fmt: skip
    return distances, ids


def hamming_topk_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, k: int, bit_weights: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


def _hamming_range(
    queries: Tensor, database: Tensor, mask: Tensor | None, radius: int, bit_weights: Sequence[int] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    queries, database = queries.contiguous(), rows(database)
    problem = hamming_problem(queries, database, mask, bit_weights)
    workspace = workspace_for(queries.device, "hamming_range", problem, radius)  # the fill needs what the count left
    offsets = torch.zeros(queries.shape[0] + 1, dtype=torch.int64, device=queries.device)
    counts = torch.empty(queries.shape[0], dtype=torch.int64, device=queries.device)
    call("hamming_range_count", queries.device, problem, radius, address(counts), workspace=workspace)
    torch.cumsum(counts, 0, out=offsets[1:])
    total = int(offsets[-1])
    distances = queries.new_empty(total, dtype=torch.int32)
    ids = queries.new_empty(total, dtype=torch.int64)
    call(
        "hamming_range_fill", queries.device, problem, radius, address(offsets), address(distances), address(ids),
        workspace=workspace,
    )  # fmt: skip
    return offsets, distances, ids


def hamming_range_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, radius: int, bit_weights: Sequence[int] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    offsets = queries.new_empty(queries.shape[0] + 1, dtype=torch.int64)
    return offsets, queries.new_empty(total, dtype=torch.int32), queries.new_empty(total, dtype=torch.int64)


def _hamming_distances(queries: Tensor, database: Tensor, bit_weights: Sequence[int] = ()) -> Tensor:
    queries, database = queries.contiguous(), rows(database)
    distances = _hamming_distances_fake(queries, database)
    problem = hamming_problem(queries, database, None, bit_weights)
    call("hamming_distances", queries.device, problem, address(distances))
    return distances


def _hamming_distances_fake(queries: Tensor, database: Tensor, bit_weights: Sequence[int] = ()) -> Tensor:
    return queries.new_empty(queries.shape[0], database.shape[0], dtype=torch.int32)


def _hamming_histogram(
    queries: Tensor,
    database: Tensor,
    labels: Tensor | None,
    class_weights: Tensor | None,
    bit_weights: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    queries, database = queries.contiguous(), rows(database)
    labels = None if labels is None else labels.contiguous()
    class_weights = None if class_weights is None else class_weights.contiguous()
    counts, sums = _hamming_histogram_fake(queries, database, labels, class_weights, bit_weights)
    classes = 0 if class_weights is None else class_weights.shape[1]
    problem = hamming_problem(queries, database, None, bit_weights)
    call(
        "hamming_histogram", queries.device, problem, address(labels), address(class_weights), classes,
        address(counts), address(sums) if labels is not None else 0,
        workspace=("hamming_histogram", problem, classes),
    )  # fmt: skip
    return counts, sums


def _hamming_histogram_fake(
    queries: Tensor,
    database: Tensor,
    labels: Tensor | None,
    class_weights: Tensor | None,
    bit_weights: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], largest(bit_weights, database.shape[1]) + 1)
    sums = queries.new_empty(shape if labels is not None else (0,), dtype=torch.float64)
    return queries.new_empty(shape, dtype=torch.int64), sums


_WEIGHTED = "int[] bit_weights=[]"
define("hamming_mask(Tensor allowed) -> Tensor", _hamming_mask, _hamming_mask_fake)
define(
    f"hamming_topk(Tensor queries, Tensor database, Tensor? mask, int k, {_WEIGHTED}) -> (Tensor, Tensor)",
    _hamming_topk,
    hamming_topk_fake,
)
define(
    f"hamming_range(Tensor queries, Tensor database, Tensor? mask, int radius, {_WEIGHTED}) -> "
    "(Tensor, Tensor, Tensor)",
    _hamming_range,
    hamming_range_fake,
)
define(
    f"hamming_distances(Tensor queries, Tensor database, {_WEIGHTED}) -> Tensor",
    _hamming_distances,
    _hamming_distances_fake,
)
define(
    "hamming_histogram(Tensor queries, Tensor database, Tensor? labels, Tensor? class_weights, "
    f"{_WEIGHTED}) -> (Tensor, Tensor)",
    _hamming_histogram,
    _hamming_histogram_fake,
)
