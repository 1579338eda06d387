"""The training loop: any module, any loader, one objective."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm


@dataclass
class History:
    """What a training run went through, by epoch: mean loss, and validation score (None where it was not taken)."""

    losses: list[float] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    best_epoch: int = 0  # from 1: the epoch whose weights the module has


def train(
    module: nn.Module,
    loader: Iterable[Any],
    objective: Callable[..., Tensor],
    *,
    epochs: int = 15,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    warmup: float = 0.1,
    score: Callable[[nn.Module], float] | None = None,
    score_every: int = 1,
    device: torch.device | str | None = None,
    progress: bool | None = None,
) -> History:
    """Trains `module`, and the parameters of `objective` where it has some, with AdamW.

    Args:
        module: x [B, ...] -> outputs z [B, bits] in [0, 1]: a backbone with a `HashHead`, say.
        loader: a DataLoader, or anything that can be iterated once for each epoch. A batch is x, (x, y) or
            (x, y, features); the objective is called as objective(z), objective(z, y), objective(z, y, features).
        objective: gives the scalar loss: an `Objective`, or any function of the same arguments.
        epochs: passes over the loader.
        lr: highest learning rate: up in a line over the first `warmup` (a part of all steps), then down to 0 in a
            cosine. weight_decay: AdamW's, of matrices only (not of biases, scales and norms).
        score: called with the module, in evaluation mode and without gradients, after every `score_every`-th epoch and
            the last; higher is better. The module ends with the weights of the best of these epochs; without a score,
            of the last.
        device: where to train; None: where the module is.
        progress: show a bar on stderr; None: where stderr is a terminal.

    Returns:
        The `History`. Module and objective are changed in place, stay on the device, and are left in evaluation mode.

    Raises:
        ValueError: a number out of range, or a loader without batches.
        FloatingPointError: the mean loss of an epoch was NaN or infinite.

    >>> from fasthash.train import HashHead, Objective
    >>> batches = [(torch.randn(32, 4), torch.arange(32) % 2) for _ in range(5)]
    >>> objective = Objective(8, classes=2, distance=1.0 - torch.eye(2))
    >>> history = train(HashHead(4, 8), batches, objective, epochs=2)
    >>> len(history.losses), history.best_epoch
    (2, 2)
    """
    for name, value, low in (("epochs", epochs, 1), ("score_every", score_every, 1)):
        if value < low:
            raise ValueError(f"train: {name} must be at least {low}, got {value}")
    if not 0 < lr < math.inf or not 0 <= weight_decay < math.inf:
        raise ValueError(f"train: lr must be > 0 and weight_decay >= 0, got {lr} and {weight_decay}")
    if not 0 <= warmup <= 1:
        raise ValueError(f"train: warmup must be between 0 and 1, got {warmup}")
    if device is None:
        device = next(chain(module.parameters(), module.buffers()), torch.empty(0)).device
    trained = nn.ModuleList([module.to(device)])
    if isinstance(objective, nn.Module):
        trained.append(objective.to(device))
    optimizer = _optimizer(trained, lr, weight_decay)

    history = History()
    best: tuple[float, dict[str, Any]] | None = None
    steps = _length(loader)
    hidden = None if progress is None else not progress
    with tqdm(total=epochs * steps, desc="train", unit="step", disable=hidden) as bar:
        for epoch in range(epochs):
            trained.train()
            total, count = torch.zeros((), device=device), 0
            for batch in loader:
                rate = lr * _schedule((epoch + min((count + 0.5) / steps, 1.0)) / epochs, warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                x, *rest = (part.to(device, non_blocking=True) for part in _parts(batch))
                loss = objective(module(x), *rest)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach()  # read once an epoch: reading waits for the device
                count += 1
                bar.update()
            if count == 0:
                raise ValueError("train: the loader must give at least one batch, got none")
            history.losses.append(float(total) / count)
            if not math.isfinite(history.losses[-1]):
                raise FloatingPointError(
                    f"train: the loss became {history.losses[-1]} in epoch {epoch + 1}; lr {lr} may be too high"
                )
            last = epoch + 1 == epochs
            scored = None
            if score is not None and (last or (epoch + 1) % score_every == 0):
                trained.eval()
                with torch.no_grad():
                    scored = float(score(module))
                if best is None or scored > best[0] or math.isnan(best[0]):
                    best = scored, {} if last else copy.deepcopy(module.state_dict())
                    history.best_epoch = epoch + 1
            history.scores.append(scored)
            shown = {"loss": f"{history.losses[-1]:.4f}"} | ({} if scored is None else {"score": f"{scored:.4f}"})
            bar.set_postfix(shown)
    if best is None:
        history.best_epoch = epochs
    elif best[1]:
        module.load_state_dict(best[1])
    trained.eval()
    return history


def _optimizer(trained: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
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


def _schedule(done: float, warmup: float) -> float:
    """Part of the highest learning rate when the part `done` of the steps is behind: up in a line, down in a cosine."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min((done - warmup) / max(1 - warmup, 1e-9), 1.0)))


def _length(loader: Iterable[Any]) -> int:
    """Batches in an epoch; 1 where the loader cannot tell, so that the schedule moves by epochs."""
    try:
        return max(len(loader), 1)  # type: ignore[arg-type]
    except TypeError:
        return 1


def _parts(batch: Any) -> list[Tensor]:
    return [batch] if isinstance(batch, Tensor) else list(batch)
