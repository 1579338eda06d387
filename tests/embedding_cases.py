"""What the tests of EmbeddingIndex share: rows, encoders, and a folder with all that it can hold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import fasthash
from fasthash import EmbeddingIndex
from fasthash.baselines import itq, lsh, osq, rabitq

METRICS = ("cosine", "dot", "l2")
REFINES = (None, "int8", "float16", "float32")
F = 16


def rows(count: int = 200, seed: int = 0, scale: bool = True) -> NDArray[np.float32]:
    """Rows of different lengths, around a mean that is not 0."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, F)) + 0.5
    return (values * rng.uniform(0.5, 2, (count, 1)) if scale else values).astype(np.float32)


X, Q = rows(), rows(7, seed=1)
HASHER = fasthash.Hasher(bits=24, epochs=1, progress=False, seed=0).fit(X)
ENCODERS = {"hasher": HASHER, "itq": itq(X, 12), "lsh": lsh(X, 40), "rabitq": rabitq(X), "osq 2": osq(X, 2)}


def saved(path: Path, **options: Any) -> Path:
    """A folder with keys, explicit ids, two segments and deleted rows."""
    index = EmbeddingIndex(options.pop("encoder", ENCODERS["itq"]), **{"refine": "float32", **options})
    index.save(path)
    with EmbeddingIndex.open(path, writable=True) as opened:
        opened.add(X[:120], keys=[f"row {number}" for number in range(120)])
        opened.add(X[120:], keys=[f"row {number}" for number in range(120, 200)], ids=np.arange(80)[::-1] * 3 + 1000)
        opened.remove(keys=["row 3", "row 150"])
    return path


def content(index: EmbeddingIndex) -> tuple[Any, ...]:
    """All that an index holds."""
    ids = torch.from_numpy(index.ids)
    held = [
        segment.vectors.taken(segment.live_rows(0, segment.rows).numpy()).values().tolist()
        for segment in index.codes._contents.segments
        if segment.vectors is not None and segment.count
    ]
    keys = index.codes.keys_of(ids).tolist()
    pairs = sorted((key, row) for key, row in zip(keys_by_segment(index), itertools.chain(*held), strict=True))
    return index.refine, index.metric, ids.tolist(), keys, index.codes.get(ids).tolist(), pairs


def keys_by_segment(index: EmbeddingIndex) -> list[str]:
    parts = [index.codes.keys_of(s.live_ids()).tolist() for s in index.codes._contents.segments if s.count]
    return [str(key) for part in parts for key in part] if index.refine else []
