"""The running average of a module's weights over the steps of training (EMA).

Ours, because torch.optim.swa_utils.AveragedModel keeps a deep copy of the whole module, and averages buffers of whole
numbers as if they were weights, or no buffers at all. Its update of the weights is used here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """average <- d * average + (1 - d) * weights after each step. Buffers too; whole numbers are copied.

    d = min(decay, (1 + t) / (10 + t)) after t steps, so that short runs do not keep what they began with.

    >>> layer = nn.Linear(1, 1)
    >>> average = Average(layer, 0.9)
    >>> before = layer.weight.item()
    >>> nn.init.constant_(layer.weight, before + 11).requires_grad
    True
    >>> average.update()
    >>> with average.applied():
    ...     round(layer.weight.item() - before, 3)  # d = 2 / 11
    9.0
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._live: dict[str, Tensor] = {name: value.detach() for name, value in module.state_dict().items()}
        self.tensors = {name: value.clone() for name, value in self._live.items()}
        self._floating = [name for name, value in self._live.items() if value.is_floating_point()]
        self._others = [name for name in self._live if name not in self._floating]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights after a step in."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged, live = ([of[name] for name in self._floating] for of in (self.tensors, self._live))
        if live:
            get_ema_multi_avg_fn(decay)(averaged, live, 0)
        for name in self._others:
            self.tensors[name].copy_(self._live[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averaged weights."""
        kept = {name: value.clone() for name, value in self._live.items()}
        self._write(self.tensors)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        for name, value in self._live.items():
            value.copy_(values[name])
