"""LinearDecoder against its definition in float64, and what it is for: real-valued queries find more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fasthash import LinearDecoder, asymmetric_topk, baselines
from fasthash.decoder import RIDGE, SHRINK

Array = NDArray[Any]


def signs(codes: Array, bits: int) -> Array:
    return 2.0 * np.unpackbits(codes, axis=1, count=bits) - 1.0


def example(rows: int, features: int, bits: int, seed: int = 0) -> tuple[Array, Array]:
    """Embeddings, and codes that say something of them."""
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(rows, features)) + rng.normal(size=features)).astype(np.float32)
    return X, np.packbits(X @ rng.normal(size=(features, bits)) > 0, axis=1)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60), st.integers(1, 12), st.integers(1, 30), st.integers(0, 99), st.sampled_from([1e-12, 1.0, 1e12])
)
def test_it_is_ridge_regression(rows: int, features: int, bits: int, seed: int, length: float) -> None:
    X, codes = example(rows, features, bits, seed)
    X = X * np.float32(length)
    decoder = LinearDecoder.fit(X, codes, bits)
    centred, S = X.astype(np.float64) - X.astype(np.float64).mean(0), signs(codes, bits)
    D = np.linalg.solve(S.T @ S + RIDGE * rows * np.eye(bits), S.T @ centred)
    close: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4 * length}
    np.testing.assert_allclose(decoder.weights, D, **close)
    np.testing.assert_allclose(decoder.decode(codes), X.astype(np.float64).mean(0) + S @ D, **close)
    R, own = S @ D, X.astype(np.float64) - decoder.mean.numpy()
    if np.abs(R).max() < 1e-3 * length:
        return  # the codes say nothing of the rows
    np.testing.assert_allclose(decoder.unit, np.sqrt((R**2).sum(1).mean()), rtol=1e-3)
    lengths = np.linalg.norm(R, axis=1)
    cosines = (own * R).sum(1) / np.linalg.norm(own, axis=1) / lengths
    expected = np.maximum(cosines, 0) / (cosines**2 + SHRINK) / lengths * decoder.unit
    found = decoder.scales(X, codes)
    assert found.dtype == np.float16
    plain = (lengths > 1e-2 * decoder.unit) & (np.abs(cosines) > 1e-2)
    np.testing.assert_allclose(found[plain], expected[plain], rtol=5e-3)
    queries = own / np.linalg.norm(own, axis=1, keepdims=True) @ D.T / decoder.unit
    np.testing.assert_allclose(decoder.queries(X), queries, rtol=1e-3, atol=1e-3)


def test_products_estimate_cosines() -> None:
    X, codes = example(4000, 32, 256)
    decoder = LinearDecoder.fit(X, codes, 256)
    found = asymmetric_topk(decoder.queries(X[:20]), codes, 4000, code_scale=decoder.scales(X, codes), metric="dot")
    unit = X - X.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = np.take_along_axis(unit[:20] @ unit.T, found.ids, axis=1)
    assert np.abs(-found.distances - cosines).mean() < 0.06
    assert np.corrcoef(-found.distances.ravel(), cosines.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("bits", [64, 200])
def test_queries_find_more_than_the_encoders_own(bits: int) -> None:
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(5000, 48)) * np.linspace(2, 0.2, 48)).astype(np.float32)
    lsh = baselines.lsh(X, bits)
    codes, Q = lsh.encode(X), X[:100] + 0.3 * rng.normal(size=(100, 48)).astype(np.float32)
    decoder = LinearDecoder.fit(X, codes, bits)
    centred, asked = (rows - X.mean(0) for rows in (X, Q))
    exact = (asked @ (centred / np.linalg.norm(centred, axis=1, keepdims=True)).T).argsort(1)[:, -10:]

    def recall(queries: Array, scales: Array | None, metric: str) -> float:
        ids = asymmetric_topk(queries, codes, 10, code_scale=scales, metric=metric).ids
        return float(np.mean([len({*found} & {*wanted}) / 10 for found, wanted in zip(ids, exact, strict=True)]))

    own = recall(lsh.queries(Q), None, "l1")
    assert recall(decoder.queries(Q), decoder.scales(X, codes), "dot") > own + 0.05


def test_rows_at_the_mean_and_against_their_codes_count_nothing() -> None:
    X = np.array([[1.0, 0], [-1, 0], [0, 0], [-1, 0]], dtype=np.float32)
    codes = np.array([[0x80], [0], [0x80], [0x80]], dtype=np.uint8)
    decoder = LinearDecoder(torch.zeros(2), torch.tensor([[1.0, 0]]))
    np.testing.assert_allclose(decoder.scales(X, codes), [1 / (1 + SHRINK), 1 / (1 + SHRINK), 0, 0], rtol=1e-3)
    equal = np.ones((3, 2), dtype=np.float32)
    fitted = LinearDecoder.fit(equal, codes[:3], 1)
    assert fitted.scales(equal, codes[:3]).tolist() == [0, 0, 0]
    assert np.isfinite(fitted.queries(equal)).all()


def test_kinds_of_arrays() -> None:
    X, codes = example(50, 8, 20)
    decoder = LinearDecoder.fit(torch.from_numpy(X), torch.from_numpy(codes), 20)
    same = LinearDecoder.fit(X.astype(np.float64), codes, 20)
    torch.testing.assert_close(decoder.weights, same.weights, rtol=1e-4, atol=1e-5)
    assert isinstance(decoder.queries(torch.from_numpy(X)), torch.Tensor)
    assert isinstance(decoder.scales(X, codes), np.ndarray)
    assert decoder.queries(X[0]).shape == (1, 20)
    assert decoder.scales(X[0], codes[0]).shape == (1,)
    assert decoder.queries(X[:0]).shape == (0, 20)
    assert decoder.scales(X[:0], codes[:0]).shape == (0,)
    assert decoder.decode(codes[:0]).shape == (0, 8)
    LinearDecoder.fit((10 * X).astype(np.int32), codes, 20)


def test_file(tmp_path: Path) -> None:
    X, codes = example(50, 8, 20)
    decoder = LinearDecoder.fit(X, codes, 20)
    decoder.save(tmp_path / "decoder.safetensors")
    loaded = LinearDecoder.load(tmp_path / "decoder.safetensors")
    assert repr(loaded) == "LinearDecoder(20 bits, 8 features)"
    np.testing.assert_array_equal(loaded.queries(X), decoder.queries(X))
    np.testing.assert_array_equal(loaded.scales(X, codes), decoder.scales(X, codes))
    baselines.lsh(X, 8).save(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"LinearDecoder\.load: .* is not a fasthash linear decoder"):
        LinearDecoder.load(tmp_path / "other.safetensors")
    whole = (tmp_path / "decoder.safetensors").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.safetensors").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"LinearDecoder\.load: .*cut\.safetensors is damaged"):
            LinearDecoder.load(tmp_path / "cut.safetensors")


def test_errors() -> None:
    X, codes = example(5, 3, 16)
    decoder = LinearDecoder.fit(X, codes, 16)
    for message, call in (
        ("fit: bits must be .*4096, got 5000", lambda: LinearDecoder.fit(X, codes, 5000)),
        ("fit: X must have at least 1 row", lambda: LinearDecoder.fit(X[:0], codes[:0], 16)),
        ("fit: codes must have one code for each of the 5 rows", lambda: LinearDecoder.fit(X, codes[:4], 16)),
        ("fit: codes", lambda: LinearDecoder.fit(X, codes, 24)),
        ("fit: X must be finite", lambda: LinearDecoder.fit(np.full_like(X, np.nan), codes, 16)),
        ("queries: X must have 3 features, got 2", lambda: decoder.queries(X[:, :2])),
        ("scales: codes must have one code for each", lambda: decoder.scales(X[:3], codes)),
        ("decode: codes", lambda: decoder.decode(codes[:, :1])),
    ):
        with pytest.raises(ValueError, match=rf"LinearDecoder\.{message}"):
            call()
