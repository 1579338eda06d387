"""python examples/cross_modal.py: codes of pictures and of captions that search each other.

The data are made here: embeddings of pictures and of captions, as two models that know nothing of each other would give
them, and one to three topics for each pair. Some pictures have no caption. For questions and the abstracts that answer
them, see `fasthash.datasets.pubmedqa`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fasthash

PAIRS, TOPICS, PICTURE, CAPTION = 600, 12, 96, 48


def pairs(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures [N, 96], captions [N, 48] and topics [N, 12] of 0 and 1."""
    rng, worlds = np.random.default_rng(seed), np.random.default_rng(7)
    topics = np.zeros((rows, TOPICS), dtype=np.int64)
    topics[np.arange(rows)[:, None], rng.integers(0, TOPICS, (rows, 3))] = 1
    sides = (topics @ worlds.normal(size=(TOPICS, width)) for width in (PICTURE, CAPTION))
    pictures, captions = (side + 0.8 * rng.normal(size=side.shape) for side in sides)
    return pictures, captions, topics


def shared(a: np.ndarray, b: np.ndarray, ids: np.ndarray) -> float:
    """Of the topics of each query, the part that its results have, on average."""
    common = (a[:, None] * b[ids]).sum(-1)
    return float((common / a.sum(1)[:, None]).mean())


def main() -> None:
    pictures, captions, topics = pairs(PAIRS, seed=0)
    lonely = captions.copy()
    lonely[: PAIRS // 5] = np.nan  # a row of NaN: this picture has no caption
    hasher = fasthash.CrossModalHasher(bits=32, hidden=(128,), epochs=60, seed=0, progress=False)
    hasher.fit(pictures, lonely, topics)

    index = fasthash.HammingIndex(bits=32)  # of all pictures: 4 bytes each
    index.add(hasher.encode_first(pictures))

    new_pictures, new_captions, new_topics = pairs(100, seed=1)
    found = index.search(hasher.encode_second(new_captions), k=5)
    chance = shared(new_topics, topics, np.random.default_rng(0).integers(0, PAIRS, (100, 5)))
    print(f"captions find pictures with {shared(new_topics, topics, found.ids):.0%} of their topics")

    own = hasher.encode_second(captions)
    found = fasthash.hamming_topk(hasher.encode_first(new_pictures), own, 5)
    print(f"pictures find captions with {shared(new_topics, topics, found.ids):.0%} of their topics")
    print(f"by chance it would be {chance:.0%}")

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        hasher.save(path)
        loaded = fasthash.CrossModalHasher.load(path)
    assert np.array_equal(loaded.encode_second(captions), own)


if __name__ == "__main__":
    main()
