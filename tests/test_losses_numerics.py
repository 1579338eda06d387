"""Where floating point is hard: clustered codes, extreme sizes and scales, duplicates, bad rows, mixed precision."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import fasthash
from fasthash import reference


def points(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def clustered(rows: int, dims: int, noise: float, seed: int, offset: float = 0.0) -> Tensor:
    """Outputs as training makes them: few corners of the cube, and noise."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 2, (16, dims), generator=generator).float()
    z = corners[torch.randint(0, 16, (rows,), generator=generator)]
    return z + noise * torch.randn(z.shape, generator=generator) + offset


def value_and_gradients(z: Tensor, target: Tensor, **settings: float) -> tuple[Tensor, Tensor, Tensor]:
    z, target = z.clone().requires_grad_(), target.clone().requires_grad_()
    loss = fasthash.kl_loss(z, target, **settings)
    loss.backward()
    return loss.detach(), z.grad, target.grad


@pytest.mark.parametrize(("noise", "offset"), [(1e-2, 0.0), (1e-3, 0.0), (1e-4, 0.0), (1e-2, 1000.0)])
@pytest.mark.parametrize("p", [1, 2])
def test_clustered_codes(noise: float, offset: float, p: int, isa: str, device: torch.device) -> None:
    """Values and neighbours are those of float64. |x|^2 + |y|^2 - 2 x.y fails this in most rows."""
    z = clustered(400, 64, noise, 0, offset).to(device)
    target = clustered(300, 64, noise, 1, offset).to(device)
    for points_of, own in ((target, False), (z, True)):
        found = fasthash.nearest(z, None if own else points_of, p=p)
        exact = reference.pairwise_distances(z.double(), points_of.double(), p)
        if own:
            exact.fill_diagonal_(math.inf)
        best = exact.min(1).values
        # The true neighbour, or one that float32 cannot tell from it.
        assert (exact.gather(1, found.indices)[:, 0] <= best * (1 + 1e-6)).all()
        torch.testing.assert_close(found.distances[:, 0].double(), best, rtol=2e-6, atol=0)
    loss, wanted = fasthash.kl_loss(z, target, p=p), reference.kl_loss(z.double(), target.double(), p=p)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(
    ("rows", "targets", "dims", "k"),
    [(2, 1, 1, 1), (2, 1, 16_384, 1), (5, 3, 16_384, 2), (70, 64, 1, 64), (65, 64, 3, 64), (2, 500, 7, 1)],
)
def test_extreme_sizes(
    rows: int, targets: int, dims: int, k: int, p: int, dtype: torch.dtype, isa: str, device: torch.device
) -> None:
    z, target = points(rows, dims, dtype=dtype).to(device), points(targets, dims, seed=1, dtype=dtype).to(device)
    loss, grad_z, grad_target = value_and_gradients(z, target, p=p, k=k)
    exact_z, exact_target = z.double().requires_grad_(), target.double().requires_grad_()
    wanted = reference.kl_loss(exact_z, exact_target, p=p, k=k)
    wanted.backward()
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), wanted.detach(), **tolerance)
    torch.testing.assert_close(grad_z.double(), exact_z.grad, **tolerance)
    torch.testing.assert_close(grad_target.double(), exact_target.grad, **tolerance)


@pytest.mark.parametrize("p", [1, 2])
def test_partly_duplicated_rows(p: int, isa: str, device: torch.device) -> None:
    """Duplicates have rho = 0 and send no gradient to each other; those through their targets stay."""
    z = torch.cat([points(20, 6), points(20, 6)[:5]]).to(device)
    target = points(30, 6, seed=1).to(device)
    loss, grad_z, grad_target = value_and_gradients(z, target, p=p)
    exact = z.double().requires_grad_()
    wanted = reference.kl_loss(exact, target.double(), p=p)
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad_z.double(), exact.grad, rtol=1e-4, atol=1e-6)
    assert grad_target.isfinite().all()
    # eps = 0 is legal: log 0 makes the loss infinite, and gradients finite all the same.
    loss, grad_z, _ = value_and_gradients(z, target, p=p, eps=0)
    assert loss == math.inf
    assert grad_z.isfinite().all()


def test_saturated_outputs(device: torch.device) -> None:
    """Exact zeros and ones: distances are whole numbers, most of them tied or zero."""
    z = points(60, 4).round().to(device)
    target = points(40, 4, seed=1).round().to(device)
    for p, k in itertools.product((1, 2), (1, 3)):
        loss, grad_z, grad_target = value_and_gradients(z, target, p=p, k=k)
        torch.testing.assert_close(loss.double(), reference.kl_loss(z.double(), target.double(), p=p, k=k))
        assert grad_z.isfinite().all()
        assert grad_target.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_values(dtype: torch.dtype, isa: str, device: torch.device) -> None:
    """Distances that the type holds are right; one beyond it counts as infinite, which makes the loss NaN."""
    scale = 1e30 if dtype == torch.float32 else 1e300
    z, target = (points(12, 4, seed=seed, dtype=dtype).to(device) for seed in (0, 1))
    loss, grad_z, _ = value_and_gradients(scale * z, scale * target, eps=0)
    wanted, wanted_grad, _ = value_and_gradients(z, target, eps=0)
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad_z * scale, wanted_grad, rtol=1e-4, atol=1e-6)
    # p = 2 squares differences: 1e60 is more than float32 holds.
    found = fasthash.nearest(scale * z, scale * target, p=2)
    assert (found.distances == math.inf).all()
    assert (found.indices == 0).all()
    loss, grad_z, _ = value_and_gradients(scale * z, scale * target, p=2)
    assert loss.isnan()
    assert grad_z.isnan().all()
    # One such row does not reach the others.
    z[3] = scale
    loss, grad_z, grad_target = value_and_gradients(z, target, p=2)
    others = torch.arange(12) != 3
    assert loss.isnan()
    assert grad_z[3].isnan().all()
    assert grad_z[others].isfinite().all()
    assert grad_target.isfinite().all()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("scale", [1e-12, 1e-20, 1e-30, 1e-42])
def test_tiny_values_have_finite_gradients(scale: float, p: int, isa: str, device: torch.device) -> None:
    z, target = points(12, 4).to(device) * scale, points(12, 4, seed=1).to(device) * scale
    for eps in (0.0, 1e-44, 1e-30, 1e-8):
        loss, grad_z, grad_target = value_and_gradients(z, target, p=p, eps=eps)
        if eps > 0:
            assert loss.isfinite()
        assert grad_z.isfinite().all()
        assert grad_target.isfinite().all()
        a = z.clone().requires_grad_()
        fasthash.koleo_loss(a, p=p, eps=eps, normalize=False).backward()
        assert eps < 1e-30 or a.grad.isfinite().all()


def test_a_gradient_that_overflowed_stays_visible(device: torch.device) -> None:
    """GradScaler looks for infinities: what bounds a quotient must not hide an infinite loss scale."""
    for p in (1, 2):
        z = points(12, 4).to(device).requires_grad_()
        (math.inf * fasthash.kl_loss(z, points(12, 4, seed=1).to(device), p=p)).backward()
        assert not z.grad.isfinite().all(1).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_row_in_every_loss(bad: float, isa: str, device: torch.device) -> None:
    """The loss shows it (it is NaN or infinite), and the gradients of all other rows stay finite."""
    x = points(20, 4).to(device)
    x[3, 1] = bad
    target, distance = points(30, 4, seed=1).to(device), points(20, 20, seed=2).to(device)
    others = torch.arange(20) != 3
    for loss_of in (
        fasthash.koleo_loss,
        lambda x: fasthash.koleo_loss(x, p=1, normalize=False),
        fasthash.entropy,
        lambda x: fasthash.kl_divergence(x, target),
        lambda x: fasthash.kl_loss(x, target, k=3),
        lambda x: fasthash.similarity_loss(x, distance),
    ):
        z = x.clone().requires_grad_()
        loss = loss_of(z)
        loss.backward()
        assert not loss.isfinite()
        assert z.grad[others].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, device: torch.device) -> None:
    """Every loss is computed in float32 from half-precision inputs, with and without autocast."""
    z, target = points(30, 6).to(device, dtype), points(30, 6, seed=1).to(device, dtype)
    distance = points(30, 30, seed=2).to(device, dtype)
    for loss_of in (
        lambda z: fasthash.kl_loss(z, target.to(z.dtype)),
        fasthash.koleo_loss,
        fasthash.entropy,
        lambda z: fasthash.kl_divergence(z, target.to(z.dtype), p=1),
        lambda z: fasthash.nearest(z, p=1, k=2).distances.sum(),
        lambda z: fasthash.similarity_loss(z, distance),
    ):
        half, full = z.clone().requires_grad_(), z.float().requires_grad_()
        loss, wanted = loss_of(half), loss_of(full)
        loss.backward()
        wanted.backward()
        assert loss.dtype == torch.float32
        assert half.grad.dtype == dtype
        assert torch.equal(loss, wanted)
        assert torch.equal(half.grad, full.grad.to(dtype))
        with torch.autocast(device.type, dtype):
            assert torch.equal(loss_of(z), wanted)
            assert loss_of(z.double()).dtype == torch.float64


def test_coarse_types_make_duplicates(device: torch.device) -> None:
    """Rows that bfloat16 cannot tell apart are duplicates: distance zero, gradient zero, loss finite."""
    z = (0.5 + 1e-4 * points(20, 3)).to(device, torch.bfloat16).requires_grad_()
    loss = fasthash.koleo_loss(z, normalize=False)
    loss.backward()
    assert loss.isfinite()
    assert torch.equal(z.grad, torch.zeros_like(z))
