"""Real-valued queries that are compared with all codes, by asymmetric distance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import choice, shown
from fasthash._arrays import to_tensor
from fasthash._ops.asymmetric_topk import METRICS
from fasthash.asymmetric import refuse_infinite, scales
from fasthash.index.search.parts import Query, check_range, check_width
from fasthash.index.segments import Contents

_topk = torch.ops.fasthash.asymmetric_topk.default


@dataclass(frozen=True)
class RealQuery(Query):
    """Queries whose distances to all codes are those of `asymmetric_topk`; `codes` holds them, real [Q, bits]."""

    metric: str = "l1"

    @property
    def largest(self) -> float:
        """No distance is above."""
        return math.inf

    @property
    def scaled(self) -> bool:
        """Whether `topk` uses the scales of codes."""
        return self.metric != "l1"

    def nothing(self) -> Tensor:
        """Distances to no code, [Q, 0]."""
        return self.codes.new_empty((len(self), 0), dtype=torch.float32)

    def topk(self, codes: Tensor, mask: Tensor | None, k: int, scales: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scans codes [N, W], those of the bitmap `mask`: distances and positions [Q, k], k <= N; -1 where missing.

        scales: float16 [N], the code_scale of each, which "l1" does not use.
        """
        own = scales if self.scaled else None
        distances, positions = _topk(self.codes, codes, mask, own, k, self.metric, self.bit_weights)
        return distances, positions


def wants_all(rescore: Any, metric: Any, function: str) -> bool:
    """Whether a search compares its queries with all codes; raises ValueError for what makes no sense."""
    if isinstance(rescore, str) and rescore != "all":
        raise ValueError(f"{function}: rescore must be a whole number or 'all', got {shown(rescore)}")
    everything = isinstance(rescore, str)
    if choice(metric, function, "metric", METRICS) != "l1" and not everything:
        raise ValueError(f"{function}: metric {metric!r} needs rescore='all', got rescore={shown(rescore)}")
    return everything


def new_scales(given: Any, contents: Contents, count: int, device: torch.device) -> Tensor | None:
    """The code_scale of codes that are added to these contents, on a device; raises ValueError or TypeError."""
    function = "HammingIndex.add"
    if contents.segments and contents.scaled != (given is not None):
        has, got = ("a", "none") if contents.scaled else ("no", "some")
        raise ValueError(f"{function}: the codes of this index have {has} code_scale each, got {got}")
    scale = scales(given, count, device, function)
    return None if scale is None else scale.clone()


def real_query(
    queries: Any, bits: int, bit_weights: tuple[int, ...], metric: str, device: torch.device, function: str
) -> RealQuery:
    """Real-valued queries as a user gives them, on a device; one may be 1-D. Raises ValueError."""
    given = to_tensor(queries, function, "queries").detach().to(device)
    if not given.is_floating_point():
        raise ValueError(f"{function}: rescore needs real-valued queries [Q, {bits}], got packed codes")
    if given.ndim == 1:
        given = given[None]
    check_width(given, bits, function)
    if metric == "l1":
        check_range(given, function)
    else:
        refuse_infinite(given, function)
        if bit_weights:
            raise ValueError(f"{function}: metric must be 'l1' where the index has bit_weights, got {metric!r}")
    return RealQuery(given, bits, bit_weights, metric=metric)
