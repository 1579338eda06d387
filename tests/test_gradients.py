"""Estimators of gradients over Bernoulli bits: against enumeration of all codes, their variances, their contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fasthash.gradients import ESTIMATORS, arm, disarm, gumbel, straight_through

UNBIASED = [arm, disarm]
DRAWS = 1_000_000
LOGITS = torch.tensor([0.3, -0.7, 1.9, -0.1, 0.6, -2.5, 0.0, 1.1], dtype=torch.float64)


def curved(bits: Tensor) -> Tensor:
    """Not linear in the bits, and other for each bit."""
    place = torch.arange(1, bits.shape[-1] + 1, dtype=bits.dtype)
    total = (bits * place).sum(-1)
    return total.sin() * 3 + 0.1 * total.square() + bits[..., 0] * bits[..., -1]


def jump(bits: Tensor) -> Tensor:
    """Has no gradient of its own."""
    return (bits.sum(-1) >= bits.shape[-1] / 2).to(bits) * 2


def exact(logits: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of the expectation: the sum over all codes."""
    phi = logits.clone().requires_grad_()
    codes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(phi))), dtype=phi.dtype)
    p = phi.sigmoid()
    (torch.where(codes == 1, p, 1 - p).prod(1) * f(codes)).sum().backward()
    assert phi.grad is not None
    return phi.grad


def samples(estimator: Callable[..., Tensor], logits: Tensor, f: Callable[[Tensor], Tensor], draws: int) -> Tensor:
    """Estimates of the gradient [draws, K]."""
    phi = logits.expand(draws, -1).clone().requires_grad_()
    estimator(phi, f, generator=torch.Generator().manual_seed(0)).sum().backward()
    assert phi.grad is not None
    return phi.grad


@pytest.mark.parametrize("f", [curved, jump])
@pytest.mark.parametrize("bits", [1, 2, 8])
def test_mean_is_the_exact_gradient_and_disarm_varies_less(bits: int, f: Callable[[Tensor], Tensor]) -> None:
    logits, variances = LOGITS[:bits], {}
    wanted = exact(logits, f)
    for estimator in UNBIASED:
        found = samples(estimator, logits, f, DRAWS)
        error = (found.mean(0) - wanted).abs()
        assert bool((error <= 4 * found.std(0) / DRAWS**0.5 + 1e-12).all()), (estimator.__name__, error)
        variances[estimator] = found.var(0)
    # The variance of one bit has an error of its own; the sum over bits is that of the acceptance sentence.
    assert float(variances[disarm].sum()) < float(variances[arm].sum())
    assert bool((variances[disarm] <= 1.02 * variances[arm]).all())


def test_disarm_is_the_mean_of_arm_given_both_draws() -> None:
    """By numerical integration over u of one bit: the same two draws, the same estimate."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for phi in (-1.3, 0.0, 0.4):
        p = torch.tensor(phi, dtype=torch.float64).sigmoid()
        first, second = (u > 1 - p), (u < p)
        for a, b in itertools.product([False, True], repeat=2):
            chosen = (first == a) & (second == b)
            if chosen.any():
                mean = float((u[chosen] - 0.5).mean())
                assert mean == pytest.approx(0.5 * (a - b) * float(max(p, 1 - p)), abs=1e-4)


@pytest.mark.parametrize("estimator", UNBIASED)
def test_rows_of_one_batch(estimator: Callable[..., Tensor]) -> None:
    """A loss over pairs of rows: costs of each row's pairs, and the loss as one number, have the same mean gradient."""
    logits = torch.tensor([[0.4, -0.6], [1.0, 0.2]], dtype=torch.float64)

    def pair(bits: Tensor) -> Tensor:
        return (2 - (bits[..., 0, :] - bits[..., 1, :]).abs().sum(-1)).square()

    both = logits.flatten()
    wanted = exact(both, lambda codes: pair(codes.view(-1, 2, 2))).view(2, 2)
    draws = 200_000
    phi = logits.expand(draws, 2, 2).clone().requires_grad_()
    estimator(phi, lambda bits: pair(bits)[:, None].expand(-1, 2)).sum().backward()
    assert phi.grad is not None
    error = (phi.grad.mean(0) - wanted).abs()
    assert bool((error <= 4 * phi.grad.std(0) / draws**0.5).all())


def test_parts_of_other_rows_only_add_noise() -> None:
    logits = torch.linspace(-1, 1, 12).view(4, 3).expand(20_000, 4, 3)
    variance = {}
    for each in (True, False):
        phi = logits.clone().requires_grad_()
        disarm(
            phi, lambda bits, each=each: curved(bits) if each else curved(bits).sum(1, keepdim=True).expand(-1, 4)
        ).sum().backward()
        assert phi.grad is not None
        variance[each] = float(phi.grad.var(0).sum())
    assert variance[True] < 0.7 * variance[False]


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_contract(estimator: Callable[..., Tensor]) -> None:
    """The value is f of the draw; weights inside f have f's own gradient; a generator makes it repeatable."""
    seen: list[Tensor] = []
    weights = torch.randn(6, requires_grad=True)
    logits = torch.randn(5, 6, requires_grad=True)

    def f(bits: Tensor) -> Tensor:
        seen.append(bits.detach())
        return (bits * weights).sum(1)

    state = torch.get_rng_state()
    costs = estimator(logits, f, generator=torch.Generator().manual_seed(3))
    assert torch.equal(state, torch.get_rng_state())
    assert costs.shape == (5,)
    torch.testing.assert_close(costs, seen[0] @ weights)
    assert seen[0].dtype == logits.dtype
    if estimator is not gumbel:
        assert set(seen[0].unique().tolist()) <= {0.0, 1.0}
    costs.mean().backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, seen[0].mean(0))
    first = logits.grad
    logits.grad = None
    estimator(logits, f, generator=torch.Generator().manual_seed(3)).mean().backward()
    assert first is not None
    assert logits.grad is not None
    assert torch.equal(first, logits.grad)
    one = estimator(logits, lambda bits: f(bits).sum())
    assert one.shape == ()
    single = estimator(logits[0], lambda bits: bits.sum())
    assert single.shape == ()


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("value", [1e4, -1e4, float("inf"), float("-inf")])
def test_certain_bits_have_no_gradient(estimator: Callable[..., Tensor], value: float) -> None:
    logits = torch.full((3, 4), value, requires_grad=True)
    costs = estimator(logits, lambda bits: bits.sum(1).square())
    assert costs.tolist() == [16.0 * (value > 0)] * 3
    costs.sum().backward()
    assert logits.grad is not None
    if np.isfinite(value) or estimator in UNBIASED:
        assert logits.grad.tolist() == [[0.0] * 4] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_types(estimator: Callable[..., Tensor], dtype: torch.dtype) -> None:
    logits = torch.zeros(4, 3, dtype=dtype, requires_grad=True)
    estimator(logits, lambda bits: bits.sum(1)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


def test_biased_ones_are_exact_where_f_is_linear() -> None:
    found = samples(straight_through, LOGITS, lambda bits: bits @ torch.arange(8.0, dtype=torch.float64), 100)
    wanted = exact(LOGITS, lambda bits: bits @ torch.arange(8.0, dtype=torch.float64))
    torch.testing.assert_close(found.mean(0), wanted)
    biased = samples(straight_through, LOGITS, curved, 100_000)
    error = (biased.mean(0) - exact(LOGITS, curved)).abs()
    assert bool((error > 4 * biased.std(0) / 100_000**0.5).any())


@pytest.mark.parametrize(("name", "estimator"), ESTIMATORS.items())
def test_errors(name: str, estimator: Callable[..., Tensor]) -> None:
    bits = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=rf"^{name}: logits must be a floating-point tensor \[\.\.\., K\], got int64"):
        estimator(bits.long(), lambda bits: bits.sum())
    with pytest.raises(TypeError, match=rf"^{name}: logits must be .* got list"):
        estimator([0.0], lambda bits: bits.sum())
    with pytest.raises(ValueError, match=rf"^{name}: logits must have shape \[\.\.\., K\], got a single number"):
        estimator(torch.tensor(0.0), lambda bits: bits.sum())
    with pytest.raises(TypeError, match=f"^{name}: f must be a function of bits, got int"):
        estimator(bits, 3)
    with pytest.raises(
        ValueError,
        match=rf"^{name}: f must give one floating-point number or one for each row, \[2\], got float32 \[3\]",
    ):
        estimator(bits, lambda bits: bits.sum(0))
    with pytest.raises(ValueError, match=rf"^{name}: f must give one floating-point number, got float"):
        estimator(bits[0], lambda bits: 1.0)


@pytest.mark.parametrize("estimator", UNBIASED)
def test_second_derivatives_are_an_error(estimator: Callable[..., Tensor]) -> None:
    logits = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(estimator(logits, lambda bits: bits.sum()) ** 2, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
