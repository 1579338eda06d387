"""Scales of Hasher's codes: what they estimate, their checks, and the search by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs

from fasthash import Hasher, asymmetric_topk, unpack_bits
from fasthash.train.output_scales import output_scales

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "loss of its own": {"loss": "csq"},
    "linear": {"hidden": (), "init": "itq", "bits": 8},
    "two parts": {"bits": 24, "item_bits": 8},
}


def fitted(kind: str) -> tuple[Hasher, np.ndarray]:
    X, y = blobs(80)
    return Hasher(**{**QUICK, **KINDS[kind]}).fit(X, None if kind == "linear" else y), X


def factors(hasher: Hasher, bits: int) -> np.ndarray:
    groups = hasher.bit_weights_ or [(bits, 1)]
    return np.concatenate([np.full(count, float(weight)) for count, weight in groups])


@pytest.mark.parametrize("kind", KINDS)
def test_formulas(kind: str) -> None:
    """In float64 from outputs before the sigmoid, which "dot" queries are but for the weights of the bits."""
    hasher, X = fitted(kind)
    codes = hasher.encode(X)
    queries = hasher.queries(X, metric="dot").astype(float)
    bits = queries.shape[1]
    w = factors(hasher, bits)
    u, x = queries / w, 2.0 * unpack_bits(codes, bits) - 1
    assert np.array_equal(u > 0, x > 0) or (np.abs(u[(u > 0) != (x > 0)]) < 1e-6).all()
    assert np.array_equal(hasher.queries(X, metric="cosine"), hasher.queries(X, metric="dot"))
    squares, products = (w * u * u).sum(1), (w * u * x).sum(1)
    for metric, wanted in (("dot", squares / products), ("cosine", np.sqrt(squares) / products)):
        found = hasher.scales(X, codes, metric=metric)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, wanted, rtol=1e-3)
    assert np.array_equal(hasher.scales(X, codes), hasher.scales(X, codes, metric="dot"))


@pytest.mark.parametrize("kind", ["plain", "loss of its own", "linear"])
def test_estimates(kind: str) -> None:
    """Distances are those of the rows themselves exactly, and near those of others."""
    hasher, X = fitted(kind)
    codes, u = hasher.encode(X), hasher.queries(X, metric="dot").astype(float)
    for metric in ("dot", "cosine"):
        scales, queries = hasher.scales(X, codes, metric=metric), hasher.queries(X, metric=metric)
        found = asymmetric_topk(queries, codes, len(X), code_scale=scales, metric=metric)
        length = np.linalg.norm(u, axis=1)
        wanted = -u @ u.T if metric == "dot" else 1 - u @ u.T / length[:, None] / length
        estimates = np.empty_like(wanted)
        np.put_along_axis(estimates, found.ids, found.distances, 1)
        np.testing.assert_allclose(np.diag(estimates), np.diag(wanted), rtol=2e-3, atol=2e-3)
        assert np.corrcoef(estimates.ravel(), wanted.ravel())[0, 1] > 0.9


def test_kinds_of_rows() -> None:
    hasher, X = fitted("plain")
    codes = hasher.encode(X)
    assert np.array_equal(hasher.scales(X[3], codes[3]), hasher.scales(X, codes)[3:4])
    found = hasher.scales(torch.from_numpy(X), torch.from_numpy(codes))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float16
    assert hasher.scales(X[:0], codes[:0]).shape == (0,)


def test_outputs_of_zeros_and_beyond_float16() -> None:
    u = torch.tensor([[0.0, 0.0], [1e6, -2e6]])
    codes, ones = torch.tensor([[0], [0b10000000]], dtype=torch.uint8), torch.ones(2, dtype=torch.float64)
    assert output_scales(u, codes, ones, "cosine", "f").tolist()[0] == 0
    with pytest.raises(
        ValueError, match=r"^f: scales must be at most 65504, the limit of float16, got 1\.67e\+06 in row 1"
    ):
        output_scales(u, codes, ones, "dot", "f")


def test_refusals() -> None:
    hasher, X = fitted("plain")
    codes = hasher.encode(X)
    with pytest.raises(ValueError, match=r"^Hasher\.scales: codes must be the codes of X, got a different code"):
        hasher.scales(X, ~codes)
    with pytest.raises(
        ValueError, match=r"^Hasher\.scales: codes must have one code for each of the 80 rows of X, got 79"
    ):
        hasher.scales(X, codes[1:])
    with pytest.raises(ValueError, match=r"^Hasher\.scales: metric must be 'dot' or 'cosine', got 'l2'"):
        hasher.scales(X, codes, metric="l2")
    with pytest.raises(ValueError, match=r"^Hasher\.queries: metric must be 'l1', 'dot' or 'cosine', got 'l2'"):
        hasher.queries(X, metric="l2")
    with pytest.raises(ValueError, match=r"^Hasher\.scales: X must have 12 features, got 11"):
        hasher.scales(X[:, 1:], codes)
    with pytest.raises(RuntimeError, match=r"^Hasher\.scales: call fit first"):
        Hasher(8).scales(X, codes)
