"""python examples/captions.py: codes of pictures from captions, without labels.

The data are made here: features of pictures, and embeddings of their captions. Two captions are near where they mean
nearly the same. Codes of the pictures learn these distances, so that a search finds pictures of similar meaning. For
real captions see `fasthash.datasets.coco_captions`.
"""

from __future__ import annotations

import numpy as np

import fasthash

MEANINGS, PICTURE, CAPTION = 6, 64, 32


def pairs(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of pictures [N, 64] and embeddings of captions [N, 32]; most of a picture has nothing to do with it."""
    rng, world = np.random.default_rng(seed), np.random.default_rng(7)
    meaning = rng.normal(size=(rows, MEANINGS))
    captions = meaning @ world.normal(size=(MEANINGS, CAPTION)) + 0.3 * rng.normal(size=(rows, CAPTION))
    rest = rng.normal(size=(rows, 20)) @ world.normal(size=(20, PICTURE))
    return meaning @ world.normal(size=(MEANINGS, PICTURE)) + 2 * rest, captions


def agreement(ids: np.ndarray, queries: np.ndarray, database: np.ndarray) -> float:
    """Mean cosine between the captions of queries and those of their results."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, database))
    return float((a[:, None] * b[ids]).sum(-1).mean())


def main() -> None:
    (x, captions), (queries, theirs) = pairs(3000, seed=0), pairs(200, seed=1)
    hasher = fasthash.Hasher(bits=64, target="embedding", hidden=(256,), epochs=15, seed=0, progress=False)
    hasher.fit(x, captions)  # the second argument: embeddings instead of labels

    learned = fasthash.hamming_topk(hasher.encode(queries), hasher.encode(x), 10)
    plain = fasthash.baselines.itq(x, 64)
    without = fasthash.hamming_topk(plain.encode(queries), plain.encode(x), 10)
    print("mean cosine between the caption of a query and those of its 10 results")
    print(f"  codes from captions          {agreement(learned.ids, theirs, captions):.2f}")
    print(f"  codes of the pictures alone  {agreement(without.ids, theirs, captions):.2f}")


if __name__ == "__main__":
    main()
