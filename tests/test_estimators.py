"""entropy, kl_divergence and koleo_loss against the formulas that others publish, and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fasthash

Array = NDArray[np.float64]


def kth_distance(tree_points: Array, queries: Array, k: int, p: float) -> Array:
    spatial = pytest.importorskip("scipy.spatial")
    found, _ = spatial.cKDTree(tree_points).query(queries, k=[k], p=p)
    return np.asarray(found[:, 0])


def kozachenko_leonenko(x: Array, k: int, p: float) -> float:
    """psi(n) - psi(k) + log V + (d / n) sum log(distance to the k-th other point), by a k-d tree."""
    special = pytest.importorskip("scipy.special")
    n, dims = x.shape
    radius = kth_distance(x, x, k + 1, p)
    if p == 2:
        log_volume = dims / 2 * np.log(np.pi) - special.gammaln(dims / 2 + 1)
    else:
        log_volume = dims * np.log(2) - special.gammaln(dims + 1)
    return float(special.digamma(n) - special.digamma(k) + log_volume + dims * np.log(radius).mean())


def wang_kulkarni_verdu(x: Array, y: Array, k: int, p: float) -> float:
    """(d / n) sum log(nu / rho) + log(m / (n - 1)), by k-d trees."""
    n, dims = x.shape
    nu, rho = kth_distance(y, x, k, p), kth_distance(x, x, k + 1, p)
    return float(dims * (np.log(nu) - np.log(rho)).mean() + np.log(len(y)) - np.log(n - 1))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("dims", "k"), [(1, 1), (2, 3), (5, 10), (20, 64)])
def test_agree_with_tree_estimators(dims: int, k: int, p: int, isa: str, device: torch.device) -> None:
    rng = np.random.default_rng(dims)
    x, y = rng.standard_normal((400, dims)), rng.standard_normal((300, dims)) * 1.5 + 0.2
    on_device = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    assert fasthash.entropy(on_device[0], k=k, p=p).item() == pytest.approx(kozachenko_leonenko(x, k, p), abs=1e-9)
    expected = wang_kulkarni_verdu(x, y, k, p)
    assert fasthash.kl_divergence(*on_device, k=k, p=p).item() == pytest.approx(expected, abs=1e-9)
    single = [t.float() for t in on_device]
    assert fasthash.kl_divergence(*single, k=k, p=p).item() == pytest.approx(expected, abs=1e-3)
    # kl_loss with eps = 0 is the divergence without its constants, divided by D.
    loss = fasthash.kl_loss(*on_device, k=k, p=p, eps=0).item()
    assert dims * loss + math.log(300 / 399) == pytest.approx(expected, abs=1e-9)


def test_entropy_in_one_dimension_agrees_with_the_maximum_norm() -> None:
    """Many packages take the maximum norm, with V = 2^D: in one dimension all norms are one."""
    special = pytest.importorskip("scipy.special")
    x = np.random.default_rng(0).exponential(size=(500, 1))
    radius = kth_distance(x, x, 4, np.inf)
    expected = special.digamma(500) - special.digamma(3) + np.log(2) + np.log(radius).mean()
    for p in (1, 2):
        assert fasthash.entropy(x, k=3, p=p) == pytest.approx(expected, abs=1e-12)


def covariance(dims: int, seed: int, scale: float) -> Array:
    """Correlations of 0.3 and -0.3."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], dims)
    result: Array = scale * (0.7 * np.eye(dims) + 0.3 * np.outer(signs, signs))
    return result


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("dims", "tolerance"), [(1, 0.05), (2, 0.06), (3, 0.08), (5, 0.15)])
def test_correlated_gaussians(dims: int, tolerance: float, p: int) -> None:
    """Entropy and divergence of Gaussians with full covariances, in closed form."""
    rng = np.random.default_rng(0)
    first, second, shift = covariance(dims, 1, 1.0), covariance(dims, 2, 1.7), np.full(dims, 0.3)
    x = rng.multivariate_normal(np.zeros(dims), first, 6000)
    y = rng.multivariate_normal(shift, second, 6000)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * first)[1]
    assert fasthash.entropy(x, k=5, p=p) == pytest.approx(entropy, abs=tolerance)
    inverse = np.linalg.inv(second)
    divergence = 0.5 * (
        np.trace(inverse @ first)
        - dims
        + shift @ inverse @ shift
        + np.linalg.slogdet(second)[1]
        - np.linalg.slogdet(first)[1]
    )
    assert fasthash.kl_divergence(x, y, k=5, p=p) == pytest.approx(divergence, abs=tolerance)


@pytest.mark.parametrize(("rows", "dims"), [(2, 3), (64, 384), (300, 32)])
def test_koleo_agrees_with_the_one_of_self_supervised_training(rows: int, dims: int, device: torch.device) -> None:
    """Normalised rows, neighbours by inner product, a distance with eps on each difference, and eps in the log."""

    def published(z: torch.Tensor, eps: float = 1e-8) -> torch.Tensor:
        z = torch.nn.functional.normalize(z, p=2.0, dim=-1, eps=eps)
        similarity = (z @ z.T).detach()
        similarity.fill_diagonal_(-1)
        partner = z[similarity.argmax(1)]
        return -torch.log(torch.nn.PairwiseDistance(2, eps=eps)(z, partner) + eps).mean()

    generator = torch.Generator().manual_seed(rows)
    a = torch.randn(rows, dims, generator=generator).to(device).requires_grad_()
    b = a.detach().clone().requires_grad_()
    loss, wanted = fasthash.koleo_loss(a), published(b)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
