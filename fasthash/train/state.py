"""What a run is made of between two epochs: all that it takes to go on as if it had not been interrupted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fasthash._checkpoint import check_tensors
from fasthash.train.averaging import Average
from fasthash.train.randomness import read_generators, write_generators


@dataclass
class History:
    """The history of a training run, by epoch: mean loss, and validation score (None where it was not taken)."""

    losses: list[float] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    best_epoch: int = 0  # from 1: the epoch whose weights the module has


@dataclass
class State:
    """The parts of a run that change, and their form as tensors and JSON.

    trained holds the module, and the objective where that is a module. best: the weights with the best score so far.
    metrics: the rows of metrics.csv.
    """

    trained: nn.ModuleList
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    loader: Iterable[Any]
    device: torch.device
    average: Average | None = None
    history: History = field(default_factory=History)
    best: dict[str, Tensor] | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def module(self) -> nn.Module:
        return self.trained[0]

    @property
    def best_score(self) -> float:
        score = self.history.scores[self.history.best_epoch - 1] if self.history.best_epoch else None
        return math.nan if score is None else score

    def is_over(self, epochs: int, patience: int | None) -> bool:
        """Whether all epochs are done, or the last `patience` scores were not better than the best."""
        if len(self.history.losses) >= epochs:
            return True
        since = [score for score in self.history.scores[self.history.best_epoch :] if score is not None]
        return patience is not None and self.best is not None and len(since) >= patience

    def take_score(self, score: float | None) -> None:
        """Notes the score of the epoch that ended, and keeps the weights that it is of if it is the best."""
        self.history.scores.append(score)
        if score is None or not (self.best is None or score > self.best_score or math.isnan(self.best_score)):
            return
        self.history.best_epoch = len(self.history.scores)
        values = self.module.state_dict() if self.average is None else self.average.tensors
        self.best = {name: value.detach().clone() for name, value in values.items()}

    def finish(self) -> None:
        """Gives the module the weights that count: the best, the averaged, or those that it has."""
        if self.best is not None:
            self.module.load_state_dict(self.best)
            return
        self.history.best_epoch = len(self.history.losses)
        if self.average is not None:
            self.module.load_state_dict(self.average.tensors)

    def dump(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it, as a checkpoint holds it."""
        optimizer = self.optimizer.state_dict()
        generators, more = read_generators(self.loader, self.device)
        parts = {
            "trained": self.trained.state_dict(),
            "best": self.best or {},
            "average": {} if self.average is None else self.average.tensors,
            "optimizer": {
                f"{number}.{name}": _kept(name, value)
                for number, values in optimizer["state"].items()
                for name, value in values.items()
                if value is not None  # SGD's momentum before the first step
            },
            "random": generators,
        }
        tensors = {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}
        content = {
            "losses": self.history.losses,
            "scores": [_number(score) for score in self.history.scores],
            "best_epoch": self.history.best_epoch,
            "metrics": [{name: _number(value) for name, value in row.items()} for row in self.metrics],
            "average_steps": None if self.average is None else self.average.steps,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "random": more,
        }
        return tensors, content

    def restore(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        """Makes it what `dump` gave. Raises ValueError for tensors of another module, objective or optimizer."""
        parts: dict[str, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            part, _, name = full.partition("/")
            parts.setdefault(part, {})[name] = value
        check_tensors(parts["trained"], self.trained.state_dict())
        self.trained.load_state_dict(parts["trained"])
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {}
        for full, value in parts.get("optimizer", {}).items():
            number, _, name = full.partition(".")
            optimizer["state"].setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict(optimizer)
        if self.average is not None:
            check_tensors(parts.get("average", {}), self.average.tensors)
            for name, value in self.average.tensors.items():
                value.copy_(parts["average"][name])
            self.average.steps = content["average_steps"]
        if self.scaler is not None:
            self.scaler.load_state_dict(content["scaler"])
        best = parts.get("best")
        self.best = None if best is None else {name: value.to(self.device) for name, value in best.items()}
        scores = [None if score is None else float(score) for score in content["scores"]]
        self.history.losses, self.history.scores = list(content["losses"]), scores
        self.history.best_epoch = content["best_epoch"]
        self.metrics = list(content["metrics"])
        write_generators(parts["random"], content["random"], self.loader, self.device)


def _kept(name: str, value: Any) -> Tensor:
    """A part of an optimizer's state, for the checkpoint."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ValueError(f"train: state {name!r} of the optimizer must be a tensor to be kept in run_dir, got {kind}")
    return value


def _number(value: Any) -> Any:
    """NaN and infinity, which JSON does not have, as text that float() reads."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
