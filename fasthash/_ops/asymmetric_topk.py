"""The k nearest codes of real-valued queries [Q, D] by asymmetric distance (csrc/asymmetric/asymmetric_topk.h).

Database uint8 [N, W]; mask int64 words or None, as for Hamming search; code_scale float16 [N] or None; metric one of
METRICS; `bit_weights` flat as fasthash/_bit_weights.py gives them, of D bits, for "l1" alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.asymmetric import nibble_sums
from fasthash._ops.hamming import rows
from fasthash._ops.registry import address, call, define

METRICS = ("l1", "dot", "cosine", "l2")  # in the order of fh_asymmetric_metric
_BLOCK = 1 << 22  # distances that are made at once on devices without a kernel
_DTYPES = {torch.float32: _core.Dtype.float32, torch.float64: _core.Dtype.float64}


def _asymmetric_topk(
    queries: Tensor,
    database: Tensor,
    mask: Tensor | None,
    code_scale: Tensor | None,
    k: int,
    metric: str,
    bit_weights: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    queries = (queries if queries.dtype in _DTYPES else queries.float()).contiguous()
    if database.device.type != "cpu":
        return by_blocks(queries, database, mask, code_scale, k, metric, bit_weights)
    database, code_scale = rows(database), None if code_scale is None else code_scale.contiguous()
    distances, ids = _asymmetric_topk_fake(queries, database, mask, code_scale, k, metric, bit_weights)
    count, width = database.shape
    call(
        "asymmetric_topk", database.device, address(queries), _DTYPES[queries.dtype], address(database),
        address(mask), address(code_scale), queries.shape[0], queries.shape[1], count, width, database.stride(0),
        METRICS.index(metric), bit_weights, k, address(distances), address(ids),
    )  # fmt: skip
    return distances, ids


def _asymmetric_topk_fake(
    queries: Tensor,
    database: Tensor,
    mask: Tensor | None,
    code_scale: Tensor | None,
    k: int,
    metric: str,
    bit_weights: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.float32), queries.new_empty(shape, dtype=torch.int64)


def by_blocks(
    queries: Tensor,
    database: Tensor,
    mask: Tensor | None,
    code_scale: Tensor | None,
    k: int,
    metric: str,
    bit_weights: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """The kernel's results in torch, for devices that have none: all distances, a block of codes at a time."""
    real = queries.double()
    if metric == "l1":
        groups = [*(bit_weights or (real.shape[1], 1))]
        parts = [real.new_full((bits,), weight) for bits, weight in zip(groups[::2], groups[1::2], strict=True)]
        weight = torch.cat(parts)
        zeros, ones = real.abs() * weight, (real - 1).abs() * weight
    else:
        zeros, ones = real, -real
    distances = queries.new_full((len(queries), k), math.inf, dtype=torch.float32)
    ids = queries.new_full((len(queries), k), -1, dtype=torch.int64)
    positions = torch.arange(len(database), device=database.device)
    if mask is not None:
        positions = (mask[:, None] >> torch.arange(64, device=mask.device) & 1).flatten().nonzero()[:, 0]
    for block in positions.split(max(1, _BLOCK // max(1, len(queries)))):
        sums = nibble_sums(zeros, ones, database[block].expand(len(queries), -1, -1))
        found = from_sums(sums, real, None if code_scale is None else code_scale[block], metric)
        distances = torch.cat([distances, found], 1)
        ids = torch.cat([ids, block.expand(len(queries), -1)], 1)
        missing = ids < 0  # they come last, also where distances are infinite
        order = distances.argsort(dim=1, stable=True)
        order = order.gather(1, missing.gather(1, order).long().argsort(dim=1, stable=True))[:, :k]
        distances, ids = distances.gather(1, order), ids.gather(1, order)
    return distances, ids


def from_sums(sums: Tensor, queries: Tensor, code_scale: Tensor | None, metric: str) -> Tensor:
    """Distances float32 [Q, C] of sums over the bits [Q, C], queries float64 [Q, D] and scales [C]."""
    bits = queries.shape[1]
    squares = queries.new_zeros(len(queries), 1)
    for d in range(bits if metric in ("cosine", "l2") else 0):  # in the kernel's order
        squares += queries[:, d : d + 1] ** 2
    if code_scale is not None:
        scale = code_scale.double()
    else:
        scale = queries.new_ones(1) / (math.sqrt(bits) if metric == "cosine" else 1)
    if metric == "cosine":
        distances = 1 + torch.where(squares > 0, 1 / squares.sqrt(), 0) * (sums * scale)
    elif metric == "l2":
        distances = ((squares + 2 * (sums * scale)) + bits * (scale * scale)).clamp(min=0)
    else:
        distances = sums * scale
    return distances.float() + 0  # -0 is 0


define(
    "asymmetric_topk(Tensor queries, Tensor database, Tensor? mask, Tensor? code_scale, int k, str metric, "
    "int[] bit_weights=[]) -> (Tensor, Tensor)",
    _asymmetric_topk,
    _asymmetric_topk_fake,
)
