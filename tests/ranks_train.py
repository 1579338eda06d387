"""Trains by `train` and by `Hasher`, alone or as the ranks that torchrun starts, and saves what came out.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    python -m torch.distributed.run --nproc-per-node 2 --max-restarts 1 tests/ranks_train.py FOLDER

Started so, rank 0 fails once after a few epochs, and torchrun starts all ranks again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from hasher_cases import QUICK, blobs
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fasthash import distributed
from fasthash.train import Hasher, HashHead, Objective, train

BATCH = 48


class Batches(Dataset):  # type: ignore[type-arg]
    """Batches of rows, of which each of two ranks takes an unequal part."""

    def __init__(self, rank: int, world: int) -> None:
        X, y = blobs()
        edges = [0, BATCH] if world == 1 else [0, 17, BATCH]
        self.rows = [slice(start + edges[rank], start + edges[rank + 1]) for start in range(0, len(X), BATCH)]
        self.X, self.y = torch.from_numpy(X), torch.from_numpy(y)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.X[self.rows[number]], self.y[self.rows[number]]


def train_module(group: Any) -> dict[str, torch.Tensor]:
    """A convolution with a batch norm of its own, by every term of the objective with its random numbers."""
    torch.manual_seed(7 if group is None else distributed.rank(group) + 7)  # rank 0's weights and numbers count
    convolution = nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU()
    module = nn.Sequential(nn.Unflatten(1, (2, 6)), *convolution, nn.Flatten(), HashHead(16, 8))
    objective = Objective(8, classes=6, distance=1 - torch.eye(6), kl=0.5, similarity="stress")
    loader = DataLoader(Batches(distributed.rank(group), distributed.world_size(group)), batch_size=None)
    held_out = torch.from_numpy(blobs(60, 3)[0])
    settings: dict[str, Any] = {"epochs": 4, "lr": 1e-2, "accumulate": 2, "ema": 0.9, "group": group}

    def score(module: nn.Module) -> float:
        torch.rand(3)  # on rank 0 only: the ranks must draw alike afterwards
        return -float(module(held_out).square().mean())

    if group is None:
        settings["score"] = lambda module: -float(module(held_out).square().mean())
    history = train(module, loader, objective, **{"score": score, **settings})
    values = torch.tensor([history.losses, history.scores], dtype=torch.float64)
    return {
        "history": values,
        **module.state_dict(),
        **{f"objective.{n}": v for n, v in objective.state_dict().items()},
    }


def train_hasher(group: Any, **settings: Any) -> dict[str, torch.Tensor]:
    X, y = blobs()
    hasher = Hasher(**QUICK, preserve=0.5, **settings).fit(X, y, validation=blobs(60, 3), group=group)
    return {"losses": torch.tensor(hasher.history_.losses), **hasher.module_.state_dict()}


def train_two_parts(group: Any) -> dict[str, torch.Tensor]:
    """Two-part codes, of rows one in five of which has no label.

    Few small steps without the KL term: which rows are nearest by so few bits turns on rounding, which grows fast.
    """
    X, y = blobs()
    y[::5] = -1
    hasher = Hasher(**{**QUICK, "lr": 1e-3, "epochs": 2}, dropout=0.0, kl=0.0).fit(X, y, group=group)
    labels = torch.from_numpy(hasher.pseudo_classes_.labels)
    return {"losses": torch.tensor(hasher.history_.losses), "labels": labels, **hasher.module_.state_dict()}


def fail_once() -> None:
    """Makes the first start of rank 0 fail after its second checkpoint."""
    from fasthash.train.run_folder import RunFolder

    save, saved = RunFolder.save, []

    def spy(self: RunFolder, *state: Any) -> None:
        save(self, *state)
        saved.append(1)
        if len(saved) == 2 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            sys.exit("rank 0 fails once")

    RunFolder.save = spy  # type: ignore[method-assign]


def save_results(folder: Path, everyone: Any) -> None:
    results = {
        "interrupted": train_hasher(everyone, dropout=0.5, run_dir=folder / "run"),
        "uninterrupted": train_hasher(everyone, dropout=0.5),
        "hasher": train_hasher(everyone, dropout=0.0),
        "two parts": train_two_parts(everyone),
        "module": train_module(everyone),
    }
    torch.save(results, folder / f"{distributed.rank(everyone)}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    fail_once()
    save_results(Path(sys.argv[1]), distributed.join())
    distributed.leave()
