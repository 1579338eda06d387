"""koleo_loss against the formula that its users have."""

from __future__ import annotations

import pytest
import torch

import fasthash
from fasthash.losses import KoLeoLoss


def usual_formula(z: torch.Tensor) -> torch.Tensor:
    """Normalise, nearest other row by inner product, then its distance."""
    z = torch.nn.functional.normalize(z, dim=-1)
    dots = (z @ z.T).fill_diagonal_(-1)
    nearest = dots.argmax(1)
    return -((z - z[nearest]).norm(dim=-1) + 1e-8).log().mean()


def test_agrees_with_the_usual_formula(isa: str, device: torch.device) -> None:
    z = torch.randn(100, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(device)
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss, wanted = fasthash.koleo_loss(a), usual_formula(b)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(a.grad, b.grad)


def test_leading_dimensions_k_and_module(device: torch.device) -> None:
    z = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0)).to(device)
    loss = fasthash.koleo_loss(z, p=1, k=3, normalize=False)
    assert loss.shape == (3,)
    torch.testing.assert_close(loss[1], -(fasthash.nearest(z[1], p=1, k=3).distances[:, -1] + 1e-8).log().mean())
    assert torch.equal(KoLeoLoss(p=1, k=3, normalize=False)(z), loss)


def test_duplicates_have_finite_gradient(device: torch.device) -> None:
    z = torch.ones(6, 3, device=device, requires_grad=True)
    fasthash.koleo_loss(z).backward()
    assert z.grad.isfinite().all()


def test_gradcheck() -> None:
    z = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(fasthash.koleo_loss, (z,))
    assert torch.autograd.gradgradcheck(fasthash.koleo_loss, (z,))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: fasthash.koleo_loss(z, k=4), ValueError, "koleo_loss: k must be between 1 and 3, got 4"),
        (lambda z: fasthash.koleo_loss(z, eps=-1), ValueError, "koleo_loss: eps must be >= 0 and finite, got -1"),
        (lambda z: fasthash.koleo_loss(z, eps=float("inf")), ValueError, "eps must be >= 0 and finite, got inf"),
        (lambda z: fasthash.koleo_loss(z.numpy()), TypeError, "koleo_loss: z must be a tensor, got ndarray"),
    ],
)
def test_errors(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(torch.rand(4, 3))
