"""What a linear encoder begins with."""

from __future__ import annotations

import numpy as np
from hasher_cases import blobs

from fasthash import Hasher, unpack_bits
from fasthash.baselines import itq


def test_itq_is_where_training_begins() -> None:
    X, _ = blobs(400)
    bits = 10
    wanted = unpack_bits(itq(X, bits, seed=3).encode(X), bits)
    settings = {"bits": bits, "init": "itq", "seed": 3, "progress": False}
    still = unpack_bits(Hasher(**settings, epochs=1, lr=1e-9).fit(X).encode(X), bits)
    # The batch norm has its own mean, of batches: a few bits near 0 differ.
    assert (still == wanted).mean() > 0.95
    trained = Hasher(**settings, epochs=20).fit(X)
    assert (unpack_bits(trained.encode(X), bits) == wanted).mean() < 0.99
    other = unpack_bits(Hasher(**{**settings, "init": "random"}, epochs=1, lr=1e-9).fit(X).encode(X), bits)
    assert np.abs((other == wanted).mean() - 0.5) < 0.2
