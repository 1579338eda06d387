"""The numbers of a run: their limits, the learning rate that they make, the optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """The settings of `fasthash.train.train` that make a run what it is from its first epoch to its last.

    Raises ValueError for one that is out of range.
    """

    epochs: int
    lr: float
    weight_decay: float
    warmup: float
    accumulate: int
    precision: str
    ema: float
    score_every: int
    patience: int | None

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "score_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"train: {name} must be at least 1, got {value}")
        if not 0 < self.lr < math.inf or not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"train: lr must be > 0 and weight_decay >= 0, got {self.lr} and {self.weight_decay}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"train: warmup must be between 0 and 1, got {self.warmup}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"train: ema must be at least 0 and below 1, got {self.ema}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train: precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    def rate(self, epochs: float) -> float:
        """The learning rate when so many epochs, and parts of one, are behind."""
        return self.lr * schedule(epochs / self.epochs, self.warmup)


def schedule(done: float, warmup: float) -> float:
    """Part of the highest learning rate when the part `done` of the steps is behind: up in a line, down in a cosine.

    >>> [round(schedule(done, 0.1), 3) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / max(1 - warmup, 1e-9), 1.0)))


def adamw(trained: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW of all parameters that ask for a gradient, with weight decay of matrices only.

    Raises ValueError where there are none.
    """
    parameters = [p for p in trained.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("train: module must have parameters to train, got none")
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(
        p.device.type in ("cpu", "cuda") for p in parameters
    )  # one pass over the weights: 7 times faster on a CPU
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=fused)
