"""Codes without a training loop: properties, and what the literature says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from fasthash import HammingIndex, Hasher, baselines, hamming_distances, pack_bits, unpack_bits
from fasthash._checkpoint import LINEAR, save_checkpoint
from fasthash.baselines import itq, lsh, pca_sign

METHODS = {"lsh": lsh, "pca_sign": pca_sign, "itq": itq}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 12)) * np.linspace(3, 0.5, 12) + 5).astype(np.float32)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bits", [1, 7, 12])
def test_codes_are_signs_of_the_transform(X: np.ndarray, name: str, bits: int) -> None:
    found = METHODS[name](X, bits)
    projected, codes = found.transform(X), found.encode(X)
    assert projected.shape == (300, bits)
    assert projected.dtype == np.float32
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(unpack_bits(codes, bits), projected > 0)


@pytest.mark.parametrize("name", METHODS)
def test_kind_and_type_of_the_input_do_not_matter(X: np.ndarray, name: str) -> None:
    expected = METHODS[name](X, 8).encode(X)
    frozen = X.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(METHODS[name](frozen, 8).encode(frozen), expected)
    tensor = METHODS[name](torch.from_numpy(X), 8).encode(torch.from_numpy(X))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(METHODS[name](X.astype(np.float64), 8).encode(X), expected)


@pytest.mark.parametrize("name", METHODS)
def test_repeats_itself_and_leaves_the_global_generator_alone(X: np.ndarray, name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = METHODS[name](X, 8)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(METHODS[name](X, 8).weights, first.weights)


def test_seeds_differ(X: np.ndarray) -> None:
    assert not torch.equal(lsh(X, 8, seed=0).weights, lsh(X, 8, seed=1).weights)
    assert not torch.equal(itq(X, 8, seed=0).weights, itq(X, 8, seed=1).weights)


def test_lsh_distances_are_angles() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2, 16))
    X = np.concatenate([a, -a]).astype(np.float32)  # mean 0
    codes = lsh(X, 20_000).encode(X)
    angle = np.arccos(a[0] @ a[1] / np.linalg.norm(a[0]) / np.linalg.norm(a[1]))
    assert hamming_distances(codes[:1], codes[1:2])[0, 0] / 20_000 == pytest.approx(angle / np.pi, abs=0.02)


def test_pca_agrees_with_an_svd(X: np.ndarray) -> None:
    found = pca_sign(X, 5)
    _, _, right = np.linalg.svd((X - X.mean(0)).astype(np.float64), full_matrices=False)
    cosine = np.abs(np.sum(found.weights.numpy() * right[:5].T, axis=0))
    np.testing.assert_allclose(cosine, 1.0, atol=1e-5)
    variance = found.transform(X).var(0)
    assert (variance[:-1] >= variance[1:]).all()
    largest = np.abs(found.weights.numpy()).argmax(0)
    assert (found.weights.numpy()[largest, range(5)] > 0).all()


def test_itq_is_a_rotation_that_lowers_the_quantisation_error(X: np.ndarray) -> None:
    plain, rotated = pca_sign(X, 8), itq(X, 8)
    rotation = plain.weights.T @ rotated.weights
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(8), atol=1e-5, rtol=0)
    errors = [
        float(np.square(np.sign(p) - p).mean()) for p in (itq(X, 8, iterations=n).transform(X) for n in (0, 1, 5, 50))
    ]
    assert errors[0] > errors[1] > errors[2] >= errors[3] - 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_errors(X: np.ndarray, name: str) -> None:
    make = METHODS[name]
    with pytest.raises(ValueError, match=rf"{name}: X must have shape \[N, F\] with F >= 1, got \(300,\)"):
        make(X[:, 0], 1)
    with pytest.raises(ValueError, match=f"{name}: bits must be .*, got 0"):
        make(X, 0)
    broken = X.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match=f"{name}: X must be finite, got NaN or infinity in 1 of 300 rows"):
        make(broken, 4)
    with pytest.raises(ValueError, match=f"{name}: X must have at least 1 row, got 0"):
        make(X[:0], 4)
    with pytest.raises(TypeError, match=f"{name}: X must be a numeric array"):
        make(np.array([["a"]]), 1)
    fitted = make(X, 4)
    with pytest.raises(ValueError, match=r"LinearCodes\.transform: X must have 12 features, got 3"):
        fitted.transform(X[:, :3])
    with pytest.raises(ValueError, match=r"LinearCodes\.encode: X must be finite"):
        fitted.encode(broken)


def test_more_bits_than_features(X: np.ndarray) -> None:
    assert lsh(X, 40).encode(X).shape == (300, 5)
    with pytest.raises(ValueError, match=r"itq: bits must be between 1 and 12 \(the number of features\), got 13"):
        itq(X, 13)
    with pytest.raises(ValueError, match=r"pca_sign: bits must be between 1 and 12 \(the number of features\), got 13"):
        pca_sign(X, 13)
    with pytest.raises(ValueError, match="itq: iterations must be at least 0, got -1"):
        itq(X, 4, iterations=-1)


def test_module_documents_every_method() -> None:
    assert all(getattr(baselines, name).__doc__ for name in METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_queries_round_to_the_codes(X: np.ndarray, name: str) -> None:
    found = METHODS[name](X, 12)
    rows = np.concatenate([X, found.mean.numpy()[None]])  # the mean has no direction: all projections are 0
    queries = found.queries(rows)
    assert queries.dtype == np.float32
    assert queries.min() >= 0
    assert queries.max() <= 1
    np.testing.assert_array_equal(pack_bits(queries), found.encode(rows))
    largest = np.abs(queries[:-1] - 0.5).max(1)
    np.testing.assert_allclose(largest, 0.5, atol=1e-6)
    tensor = found.queries(torch.from_numpy(rows))
    np.testing.assert_array_equal(tensor.numpy(), queries)


def test_a_bit_that_is_barely_on_stays_on() -> None:
    found = baselines.LinearCodes(torch.zeros(3), torch.eye(3))
    rows = np.array([[1.0, 1e-12, -1e-12], [-1.0, 1e-30, 0.0]], dtype=np.float32)
    np.testing.assert_array_equal(pack_bits(found.queries(rows)), found.encode(rows))
    assert unpack_bits(found.encode(rows), 3).tolist() == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("name", ["lsh", "itq"])
def test_queries_find_more_than_codes(name: str) -> None:
    """Re-ranking by real-valued queries: more of the nearest by cosine are found."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(2000, 32)).astype(np.float32)
    unit = (X - X.mean(0)) / np.linalg.norm(X - X.mean(0), axis=1, keepdims=True)
    nearest = np.argsort(-unit[:50] @ unit.T, axis=1)[:, :10]
    found = METHODS[name](X, 32)
    index = HammingIndex(32)
    index.add(found.encode(X))
    codes = index.search(found.encode(X[:50]), 10).ids
    queries = index.search(found.queries(X[:50]), 10, rescore=20).ids
    recall = [np.mean([len(set(a) & set(b)) for a, b in zip(ids, nearest, strict=True)]) for ids in (codes, queries)]
    assert recall[1] > 1.15 * recall[0]


def test_repr_is_short(X: np.ndarray) -> None:
    found = itq(X, 8)
    assert repr(found) == str(found) == "LinearCodes(12 features, 8 bits)"
    assert (found.n_features_in_, found.bits) == (12, 8)
    assert found == found
    assert found != itq(X, 8)


@pytest.mark.parametrize("name", METHODS)
def test_save_and_load(X: np.ndarray, name: str, tmp_path: Path) -> None:
    found = METHODS[name](X, 9)
    path = tmp_path / "codes.safetensors"
    path.write_bytes(b"before")
    found.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    again = baselines.LinearCodes.load(path)
    assert torch.equal(again.mean, found.mean)
    assert torch.equal(again.weights, found.weights)
    np.testing.assert_array_equal(again.encode(X), found.encode(X))
    assert set(safetensors.torch.load_file(path)) == {"mean", "weights"}


def test_what_load_refuses(X: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    load = baselines.LinearCodes.load
    with pytest.raises(FileNotFoundError, match=r"LinearCodes\.load: .*codes.safetensors does not exist"):
        load(path)
    with pytest.raises(ValueError, match=r"LinearCodes\.load: .* is a folder or not a regular file"):
        load(tmp_path)
    with pytest.raises(OSError, match=r"LinearCodes\.save: .* exists and is not a regular file"):
        itq(X, 4).save(tmp_path)
    itq(X, 4).save(path)
    with pytest.raises(ValueError, match=r"Hasher\.load: .* is not a fasthash model: its format is 'fasthash-linear-c"):
        Hasher.load(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 17):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"LinearCodes\.load: .*codes.safetensors"):
            load(path)
    Hasher(bits=4, epochs=1).fit(X[:20]).save(path)
    with pytest.raises(
        ValueError, match=r"LinearCodes\.load: .* is not a fasthash LinearCodes: its format is 'fasthash-h"
    ):
        load(path)
    good = {"mean": torch.zeros(3), "weights": torch.zeros(3, 2)}
    for tensors, content, reason in (
        (good, {"features": 3}, "bits"),
        (good, {"features": 3, "bits": 0}, "bits must be at least 1, got 0"),
        (good, {"features": 3, "bits": 4}, "its tensor weights is"),
        (good, {"features": 3, "bits": 2**62}, "overflowed"),
        (good | {"more": torch.zeros(1)}, {"features": 3, "bits": 2}, "its tensors do not match"),
        (good | {"mean": torch.full((3,), torch.nan)}, {"features": 3, "bits": 2}, "hold NaN or infinity"),
        (good | {"mean": torch.zeros(3).double()}, {"features": 3, "bits": 2}, "its tensor mean is"),
    ):
        save_checkpoint(path, tensors, content, LINEAR)
        with pytest.raises(
            ValueError, match=rf"LinearCodes\.load: .* is damaged or not a fasthash LinearCodes: .*{reason}"
        ):
            load(path)
    itq(X, 4).save(path)
    with pytest.raises(RuntimeError, match=r"LinearCodes\.load: device 'cuda:99' cannot be used here"):
        load(path, device="cuda:99")
