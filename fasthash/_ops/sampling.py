"""The sampler of the KL loss's default target."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthash._ops.derivatives import one_by_one
from fasthash._ops.registry import address, batched, call, define

# Samples of Beta(0.1, 0.1): float32, a function of seed (int64 [1], on the device that wants them) and position.


def _beta_sample(seed: Tensor, count: int) -> Tensor:
    out = _beta_sample_fake(seed, count)
    call("beta_sample", seed.device, address(seed), count, address(out))
    return out


def _beta_sample_fake(seed: Tensor, count: int) -> Tensor:
    return seed.new_empty(count, dtype=torch.float32)


define("beta_sample(Tensor seed, SymInt count) -> Tensor", _beta_sample, _beta_sample_fake)
batched("beta_sample", one_by_one("beta_sample"))
