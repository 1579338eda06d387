"""The k nearest codes of real-valued queries [Q, D] by asymmetric distance (csrc/asymmetric/asymmetric_topk.h).

Database uint8 [N, W]; mask int64 words or None, as for Hamming search; code_scale float16 [N] or None; metric one of
METRICS; `bit_weights` flat as fasthash/_bit_weights.py gives them, of D bits, for "l1" alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.hamming import rows
from fasthash._ops.registry import address, call, define

METRICS = ("l1", "dot", "cosine", "l2")  # in the order of fh_asymmetric_metric
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
    database, code_scale = rows(database), None if code_scale is None else code_scale.contiguous()
    distances, ids = _asymmetric_topk_fake(queries, database, mask, code_scale, k, metric, bit_weights)
    count, width = database.shape
    problem = _core.AsymmetricProblem(
        address(queries), _DTYPES[queries.dtype], address(database), address(mask), address(code_scale),
        queries.shape[0], queries.shape[1], count, width, database.stride(0), METRICS.index(metric), bit_weights,
    )  # fmt: skip
    call(
        "asymmetric_topk", database.device, problem, k, address(distances), address(ids),
        workspace=("asymmetric_topk", problem, k),
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


define(
    "asymmetric_topk(Tensor queries, Tensor database, Tensor? mask, Tensor? code_scale, int k, str metric, "
    "int[] bit_weights=[]) -> (Tensor, Tensor)",
    _asymmetric_topk,
    _asymmetric_topk_fake,
)
