"""Small data and settings that the tests of Hasher share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fasthash import Hierarchy

FEATURES = 12
NAMES = np.array(["cat", "dog", "car", "bus", "elm", "oak"])
EDGES = [("animal", "cat"), ("animal", "dog"), ("vehicle", "car"), ("vehicle", "bus"), ("tree", "elm"), ("tree", "oak")]
QUICK: dict[str, Any] = {"bits": 16, "hidden": (24,), "epochs": 4, "batch_size": 48, "lr": 1e-2}


def blobs(rows: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six classes around centres that lie together in twos: X float32 [rows, 12], y [rows] int 0..5."""
    fixed = np.random.default_rng(99)
    pairs = fixed.normal(size=(3, FEATURES)) * 3
    centres = np.repeat(pairs, 2, axis=0) + fixed.normal(size=(6, FEATURES)) * 1.5
    y = np.arange(rows) % 6
    noise = np.random.default_rng(seed).normal(size=(rows, FEATURES))
    return (centres[y] + noise).astype(np.float32), y


def hierarchy() -> Hierarchy:
    return Hierarchy.from_edges(EDGES)


def multi_hot(y: np.ndarray) -> np.ndarray:
    return np.concatenate([np.eye(6, dtype=np.int64)[y], np.eye(3, dtype=np.int64)[y // 2]], axis=1)


def targets_of(kind: str) -> tuple[Any, dict[str, Any]]:
    _, y = blobs()
    return {
        "integers": (y, {}),
        "strings": (NAMES[y], {}),
        "hierarchy": (NAMES[y], {"hierarchy": hierarchy()}),
        "objects": (NAMES[y].astype(object), {"hierarchy": hierarchy()}),
        "list": (NAMES[y].tolist(), {"hierarchy": hierarchy()}),
        "booleans": (y % 2 == 0, {}),
        "tensor": (torch.from_numpy(y), {}),
        "multilabel": (multi_hot(y), {}),
        "multilabel booleans": (multi_hot(y).astype(bool), {}),
        "multilabel floats": (multi_hot(y).astype(np.float32), {"target": "multilabel"}),
        "embedding": (blobs(seed=5)[0][:, :7].astype(np.float64), {}),
        "embedding integers": (multi_hot(y), {"target": "embedding"}),
        "nothing": (None, {}),
    }[kind]
