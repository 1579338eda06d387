"""The numbers of a run: their limits, the learning rate that they make, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from fasthash._arguments import choice, number, whole
from fasthash._warnings import warn

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def optional(check: Callable[[Any, str, str], Any]) -> Callable[[Any, str, str], Any]:
    """A check(value, function, name) that lets None through."""
    return lambda value, function, name: None if value is None else check(value, function, name)


LIMITS: dict[str, Callable[[Any, str, str], Any]] = {
    "epochs": partial(whole, low=1),
    "lr": partial(number, above=0),
    "weight_decay": partial(number, least=0),
    "warmup": partial(number, least=0, most=1),
    "accumulate": partial(whole, low=1),
    "precision": partial(choice, allowed=tuple(PRECISIONS)),
    "ema": partial(number, least=0, below=1),
    "score_every": partial(whole, low=1),
    "patience": optional(partial(whole, low=1)),
}


@dataclass(frozen=True)
class Plan:
    """The settings of `fasthash.train.train` that make a run what it is from its first epoch to its last.

    Raises ValueError or TypeError for one that is outside its LIMITS.
    """

    epochs: int
    lr: float
    weight_decay: float
    warmup: float = 0.1
    accumulate: int = 1
    precision: str = "float32"
    ema: float = 0.0
    score_every: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, check in LIMITS.items():
            object.__setattr__(self, name, check(getattr(self, name), "train", name))

    def factor(self, epochs: float) -> float:
        """Part of the highest learning rate when so many epochs, and parts of one, are behind."""
        return schedule(epochs / self.epochs, self.warmup)


def warn_slow(precision: str, device: torch.device, function: str) -> None:
    """Warns of float16 on a CPU, which has no fast arithmetic for it."""
    if precision == "float16" and device.type == "cpu":
        warn(
            f'{function}: precision "float16" on a CPU is several times slower than "bfloat16"; '
            'pass precision="bfloat16", or "float32"'
        )


def schedule(done: float, warmup: float) -> float:
    """Part of the highest learning rate when the part `done` of the steps is behind: up in a line, down in a cosine.

    >>> [round(schedule(done, 0.1), 3) for done in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / max(1 - warmup, 1e-9), 1.0)))


def own_optimizer(
    make: Callable[[nn.Module], torch.optim.Optimizer], trained: nn.ModuleList, lr: float
) -> torch.optim.Optimizer:
    """The optimizer that make(module) gives; parameters of the objective that it does not have join it, at rate `lr`.

    trained: the module, and the objective where that is one. Raises TypeError for what is not an optimizer, ValueError
    for one that calls the loss itself.
    """
    optimizer = make(trained[0])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "train: optimizer must be a function that gives a torch.optim.Optimizer for the module, "
            f"got {type(optimizer).__name__}"
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("train: optimizer must step by gradients alone, got LBFGS, which calls the loss again")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    left = [p for part in list(trained)[1:] for p in part.parameters() if p.requires_grad and id(p) not in held]
    if left:
        optimizer.add_param_group({"params": left, "lr": lr})
    return optimizer


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
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)  # one pass over the weights
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=fused)
