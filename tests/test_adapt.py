"""Hasher.adapt: a trained model for another corpus, without labels."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy

from fasthash.train import Hasher, NotFittedError, adaptation

pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = [{}, {"item_bits": 0}, {"loss": "csq"}, {"hidden": ()}]


def fitted(**settings: Any) -> Hasher:
    X, y = blobs()
    return Hasher(**{**QUICK, **settings}).fit(X, y)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_a_shifted_and_scaled_corpus_has_the_codes_of_the_original(settings: dict[str, Any]) -> None:
    X, _ = blobs()
    moved = 3 * X + np.linspace(-20, 20, 12, dtype=np.float32)
    original = fitted(**settings).adapt(X).transform(X)
    hasher = fitted(**settings)
    assert np.abs(hasher.transform(moved) - original).max() > 0.5
    np.testing.assert_allclose(hasher.adapt(moved).transform(moved), original, atol=1e-3)
    # A half that is queried later gives the same codes as in the whole.
    np.testing.assert_allclose(hasher.transform(moved[::2]), original[::2], atol=1e-3)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_each_bit_halves_the_new_corpus_as_it_halved_the_old_one(settings: dict[str, Any]) -> None:
    """The batch norms have the mean and the variance of the new corpus, in evaluation as in training."""
    X, _ = blobs(240, seed=7)
    other = np.abs(X) @ np.random.default_rng(1).normal(size=(12, 12)).astype(np.float32)
    hasher = fitted(**settings).adapt(other)
    assert not any(part.training for part in hasher.module_.modules())
    seen: list[torch.Tensor] = []
    for part in hasher.module_.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.register_forward_hook(lambda norm, _, out: seen.append((out - norm.bias) / norm.weight))
    hasher.transform(other)
    assert seen
    for values in seen:
        torch.testing.assert_close(values.mean(0), torch.zeros(values.shape[1]), atol=1e-3, rtol=0)
        kept = values.std(0) > 1e-3
        torch.testing.assert_close(values.std(0)[kept], torch.ones(int(kept.sum())), atol=2e-2, rtol=0)


def test_weights_stay() -> None:
    hasher = fitted()
    before, network = copy.deepcopy(hasher.module_.state_dict()), hasher.module_
    assert hasher.adapt(blobs(seed=3)[0] + 5) is hasher
    after = hasher.module_.state_dict()
    changed = {name.rsplit(".", 1)[-1] for name, value in before.items() if not torch.equal(value, after[name])}
    assert {"mean", "running_mean", "running_var"} <= changed
    assert changed <= {"mean", "deviation", "limit", "running_mean", "running_var", "num_batches_tracked"}
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())  # of who still has it


def test_blocks_count_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    X, _ = blobs()
    whole = fitted().adapt(X).transform(X)
    monkeypatch.setattr(adaptation, "ROWS", 61)  # four blocks of 60 rows
    np.testing.assert_allclose(fitted().adapt(X).transform(X), whole, atol=0.05)


def test_adapting_again_depends_on_the_last_corpus_alone() -> None:
    X, _ = blobs(seed=4)
    once = fitted().adapt(X).transform(X)
    np.testing.assert_array_equal(fitted().adapt(10 * X + 3).adapt(X).transform(X), once)


def test_other_kinds_of_arrays(tmp_path: Path) -> None:
    X, _ = blobs(seed=4)
    wanted = fitted().adapt(X).transform(X)
    np.save(tmp_path / "X.npy", X)
    for given in (torch.from_numpy(X), X.astype(np.float64), np.load(tmp_path / "X.npy", mmap_mode="r")):
        np.testing.assert_allclose(fitted().adapt(given).transform(X), wanted, atol=1e-5)


@pytest.mark.parametrize("settings", MODELS, ids=str)
def test_save_and_load(settings: dict[str, Any], tmp_path: Path) -> None:
    X, _ = blobs(seed=4)
    hasher = fitted(**settings).adapt(2 * X - 1)
    hasher.save(tmp_path / "model")
    loaded = Hasher.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.queries(X), hasher.queries(X))
    np.testing.assert_array_equal(loaded.adapt(X).transform(X), fitted(**settings).adapt(X).transform(X))


def test_without_labels_and_with_a_hierarchy() -> None:
    X, y = blobs()
    for hasher in (Hasher(**QUICK).fit(X), Hasher(**QUICK, hierarchy=hierarchy()).fit(X, NAMES[y])):
        wanted = hasher.adapt(X).encode(X)
        assert (hasher.adapt(X + 9).encode(X + 9) == wanted).mean() > 0.99


def test_features_of_other_units_then_and_later(tmp_path: Path) -> None:
    """One deviation for all features becomes one for each, and the file still loads."""
    X, _ = blobs()
    units = X * np.array([1e4, *[1] * 11], dtype=np.float32)
    hasher = fitted().adapt(units)
    assert np.isfinite(hasher.transform(units)).all()
    hasher.save(tmp_path / "model")
    np.testing.assert_array_equal(Hasher.load(tmp_path / "model").transform(units), hasher.transform(units))


def test_values_far_out_are_told_and_do_not_count() -> None:
    X, _ = blobs(seed=4)
    wanted = fitted().adapt(X).transform(X)
    X[3, 4] = 1e7
    hasher = fitted()
    with pytest.warns(UserWarning, match=r"Hasher\.adapt: X .*row 3"):
        hasher.adapt(X)
    rest = np.arange(240) != 3
    np.testing.assert_allclose(hasher.transform(X[rest]), wanted[rest], atol=0.1)


def test_what_it_refuses() -> None:
    X, y = blobs()
    with pytest.raises(NotFittedError, match=r"Hasher\.adapt: call fit first \(or Hasher\.load\)"):
        Hasher(**QUICK).adapt(X)
    hasher = fitted()
    codes = hasher.encode(X)
    broken = X.copy()
    broken[7, 2] = np.nan
    for given, message in (
        (X[:, :5], "X must have 12 features, got 5"),
        (X[:1], "X must have at least 2 rows, got 1"),
        (X[:0], "X must have at least 2 rows, got 0"),
        (X[0], r"X must have shape \[N, F\]"),
        (broken, "X must be finite .* NaN or infinity in 1 of 240 rows"),
    ):
        with pytest.raises(ValueError, match=rf"Hasher\.adapt: {message}"):
            hasher.adapt(given)
    with pytest.raises(TypeError, match=r"Hasher\.adapt: X must be a numeric array or tensor"):
        hasher.adapt("text")
    np.testing.assert_array_equal(hasher.encode(X), codes)  # nothing has changed
    pandas = pytest.importorskip("pandas")
    named = pandas.DataFrame(X, columns=[f"f{i}" for i in range(12)])
    hasher = Hasher(**QUICK).fit(named, y)
    with pytest.raises(ValueError, match="The feature names should match"):
        hasher.adapt(named.rename(columns={"f3": "other"}))
