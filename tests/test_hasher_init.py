"""What a linear encoder begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs
from test_train_run import same

from fasthash import Hasher, unpack_bits
from fasthash.baselines import itq
from fasthash.train.fit_parts import _itq_directions


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


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"bits": 8}, "itq"),
        ({"bits": 12}, "itq"),
        ({"bits": 13}, "itq"),  # more than features
        ({"bits": 8, "hidden": (16,)}, "random"),
        ({"bits": 8, "hidden": ()}, "itq"),
    ],
)
def test_without_a_y_it_is_itq_where_that_can_be(settings: dict[str, Any], wanted: str) -> None:
    X, _ = blobs()
    settings = {**settings, "epochs": 2, "progress": False}
    assert same(Hasher(**settings).fit(X), Hasher(**settings, init=wanted).fit(X))
    if wanted == "itq":
        assert not same(Hasher(**settings).fit(X), Hasher(**settings, init="random").fit(X))


@pytest.mark.parametrize("y", [blobs()[1], blobs(seed=5)[0]], ids=["labels", "embedding"])
def test_with_a_y_it_is_random(y: np.ndarray) -> None:
    X, _ = blobs()
    settings = {"bits": 8, "hidden": (), "item_bits": 0, "epochs": 2, "progress": False}
    assert same(Hasher(**settings).fit(X, y), Hasher(**settings, init="random").fit(X, y))


def test_itq_that_cannot_be_is_refused() -> None:
    X, _ = blobs()
    with pytest.raises(ValueError, match=r'Hasher\.fit: init "itq" needs hidden=\(\), got hidden \(16,\)'):
        Hasher(8, hidden=(16,), init="itq", progress=False).fit(X)


def test_more_bits_than_features_begin_with_several_itqs() -> None:
    """The first are ITQ's own, the others further rotations: the rows of each whole block are orthonormal."""
    X, _ = blobs()
    first, more = (_itq_directions(torch.from_numpy(X), bits, 0) for bits in (12, 30))
    assert more.shape == (12, 30)
    torch.testing.assert_close(more[:, :12], first)
    for block, size in zip(more.split(12, dim=1), (12, 12, 6), strict=True):
        torch.testing.assert_close(block.T @ block, torch.eye(size), rtol=0, atol=1e-4)
    assert float((more[:, 12:24] - first).abs().max()) > 0.1
    model = Hasher(30, epochs=1, progress=False).fit(X)
    adapted = Hasher(30, epochs=1, progress=False).fit(X).adapt(X + 5)
    assert model.encode(X).shape == (len(X), 4)
    assert adapted.encode(X + 5).shape == (len(X), 4)


@pytest.mark.parametrize("far", [False, True])
def test_no_y_is_the_centred_rows(far: bool) -> None:
    """Those rows given as y, with ITQ and a linear encoder, are the same fit."""
    X, _ = blobs()
    X = X + 5 * np.float32(far)
    settings = {"bits": 8, "epochs": 6, "progress": False}
    with_y = Hasher(**settings, init="itq", hidden=()).fit(X, X - X.mean(0, dtype=np.float64).astype(np.float32))
    without = Hasher(**settings).fit(X)
    assert without.hidden_ == ()
    np.testing.assert_allclose(without.history_.losses, with_y.history_.losses, rtol=1e-3)
    assert (without.encode(X) == with_y.encode(X)).mean() > 0.98


def test_no_y_does_not_depend_on_where_the_rows_lie() -> None:
    X, _ = blobs()
    settings = {"bits": 8, "epochs": 4, "progress": False}
    wanted, found = Hasher(**settings).fit(X), Hasher(**settings).fit(X + 50)
    np.testing.assert_allclose(found.history_.losses, wanted.history_.losses, rtol=1e-2)


def test_the_heads_scale_is_a_setting(tmp_path: Path) -> None:
    X, y = blobs()
    settings = {**QUICK, "epochs": 2}
    assert same(Hasher(**settings).fit(X, y), Hasher(**settings, head_scale=4.0).fit(X, y))
    soft = Hasher(**settings, head_scale=1.0).fit(X, y)
    hard = Hasher(**settings, head_scale=16.0).fit(X, y)
    inside = [((h.transform(X) > 0.05) & (h.transform(X) < 0.95)).mean() for h in (soft, hard)]
    assert inside[0] > inside[1] + 0.3
    soft.save(tmp_path / "model")
    np.testing.assert_array_equal(Hasher.load(tmp_path / "model").transform(X), soft.transform(X))
    with pytest.raises(ValueError, match=r"Hasher\.fit: head_scale must be > 0 and finite, got 0"):
        Hasher(head_scale=0).fit(X, y)
