"""python examples/recommend.py: binary codes of users and items, and what comes next for a user.

The data are made here: users of four tastes, items of four kinds, and a few choices by chance. For films that people
have rated, see `fasthash.datasets.movielens`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import fasthash

USERS, ITEMS, KINDS, EACH = 200, 300, 4, 20


def choices(seed: int = 0) -> np.ndarray:
    """Edges [E, 2] (user, item): nine choices of ten are of the user's own kind, user % 4 = item % 4."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(USERS), EACH)
    items = rng.integers(0, ITEMS // KINDS, len(users)) * KINDS + users % KINDS
    return np.column_stack([users, np.where(rng.random(len(users)) < 0.1, rng.integers(0, ITEMS, len(users)), items)])


def main() -> None:
    edges = choices()
    hasher = fasthash.GraphHasher(bits=32, seed=0, progress=False).fit(edges, shape=(USERS, ITEMS))

    codes = hasher.encode()  # packed: 4 bytes for each user and each item
    print(f"{codes.items.nbytes:,} bytes hold the codes of {len(codes.items)} items")

    everyone = np.arange(USERS)
    for rescore in (0, 4):  # Hamming distances alone; the 4 x 10 nearest ordered by real-valued outputs
        found = hasher.recommend(everyone, k=10, rescore=rescore)  # nothing that the user has chosen already
        own = (found.ids % KINDS == everyone[:, None] % KINDS).mean()
        print(f"rescore={rescore}: {own:.0%} of the recommended items are of the user's kind (by chance: 25%)")

    later = np.concatenate([edges, [[0, 1], [0, 5], [0, 9]]])  # user 0 chooses items of kind 1: no training
    moved = (np.unpackbits(hasher.encode(later).users[0]) != np.unpackbits(codes.users[0])).sum()
    print(f"{moved} bits of user 0 change after three more choices")

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        hasher.save(path)
        loaded = fasthash.GraphHasher.load(path)
    assert np.array_equal(loaded.encode().items, codes.items)


if __name__ == "__main__":
    main()
