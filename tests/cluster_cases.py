"""What the tests of fasthash.cluster share: indexes with every feature, and what compares results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from one_process_ray import OneProcessRay

from fasthash import HammingIndex
from fasthash.cluster import ShardedIndex, actors, asking, handle, joins
from fasthash.cluster.shard import Shard

MODULES = (actors, asking, handle, joins)  # that ask engine.py for ray


def stand_in(monkeypatch: pytest.MonkeyPatch) -> OneProcessRay:
    """Puts the stand-in for ray in the place of ray."""
    ray = OneProcessRay()
    for module in MODULES:
        monkeypatch.setattr(module, "ray_for", lambda function: ray)
    return ray


def made_index(seed: int, rows: int = 300, bits: int = 24, weighted: bool = False, keyed: bool = False) -> HammingIndex:
    """Few distinct codes (many ties), ids out of order in several segments, some removed."""
    rng = np.random.default_rng(seed)
    groups = [(bits // 2, 3), (bits - bits // 2, 1)] if weighted else None
    index = HammingIndex(bits, bit_weights=groups)
    ids = rng.permutation(3 * rows + 3)[:rows]
    for part in np.array_split(ids, 3):
        keys = [f"key {id}" for id in part] if keyed else None
        index.add(rng.integers(0, 4, (len(part), bits // 8), np.uint8), ids=part, keys=keys)
    index.remove(ids[rng.random(rows) < 0.1])
    return index


def assert_same(found: Any, expected: Any) -> None:
    """Two results are equal, in their values and their types."""
    for own, other in zip(found, expected, strict=True):
        assert type(own) is type(other)
        assert own.dtype == other.dtype
        assert torch.equal(torch.as_tensor(own), torch.as_tensor(other))


def split_in_two(path: Path, ray: OneProcessRay, **options: Any) -> tuple[HammingIndex, ShardedIndex]:
    one = made_index(4)
    one.split(path, 2, progress=False)
    many = ShardedIndex(path, **options)
    ray.actors.sort(key=lambda actor: actor._place.path)
    return one, many


def failing(*failures: tuple[Shard, BaseException]) -> Any:
    """Lets calls of some actors raise."""

    def before(actor: Shard, name: str) -> None:
        for who, error in failures:
            if actor is who:
                raise error

    return before
