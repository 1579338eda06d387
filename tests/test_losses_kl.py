"""kl_loss against its oracle, and the properties that its contract states."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, Independent, Normal, Uniform

import fasthash
from fasthash import reference
from fasthash.losses import KLLoss


def points(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (7, 5, 3, 2), (130, 257, 33, 1), (65, 64, 64, 64), (40, 1, 600, 1)])
def test_matches_the_oracle(shape: tuple[int, ...], p: int, dtype: torch.dtype, isa: str, device: torch.device) -> None:
    b, m, dims, k = shape
    z = points(b, dims, dtype=dtype).to(device).requires_grad_()
    target = points(m, dims, seed=1, dtype=dtype).to(device).requires_grad_()
    z64, target64 = (t.detach().double().requires_grad_() for t in (z, target))
    loss, wanted = fasthash.kl_loss(z, target, p=p, k=k), reference.kl_loss(z64, target64, p=p, k=k)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    assert loss.dtype == dtype
    torch.testing.assert_close(loss.double(), wanted, **tolerance)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(z.grad.double(), z64.grad, **tolerance)
    torch.testing.assert_close(target.grad.double(), target64.grad, **tolerance)


@pytest.mark.parametrize("p", [1, 2])
def test_gradcheck(p: int, device: torch.device) -> None:
    z = points(2, 7, 3, dtype=torch.float64).to(device).requires_grad_()
    target = points(5, 3, seed=1, dtype=torch.float64).to(device).requires_grad_()

    def call(z: Tensor, target: Tensor) -> Tensor:
        return fasthash.kl_loss(z, target, p=p, k=2)

    assert torch.autograd.gradcheck(call, (z, target))
    assert torch.autograd.gradgradcheck(call, (z, target))
    assert torch.autograd.gradgradcheck(lambda z: call(z, target.detach()), (z,))


def test_gradient_identities(isa: str, device: torch.device) -> None:
    """eps = 0: the loss does not change under joint translation and scaling, so the gradients obey two identities."""
    z = points(60, 8, dtype=torch.float64).to(device).requires_grad_()
    target = points(50, 8, seed=1, dtype=torch.float64).to(device).requires_grad_()
    for p in (1, 2):
        z.grad = target.grad = None
        fasthash.kl_loss(z, target, p=p, k=3, eps=0).backward()
        torch.testing.assert_close(z.grad.sum(0) + target.grad.sum(0), torch.zeros_like(z[0]), atol=1e-12, rtol=0)
        assert abs((z * z.grad).sum() + (target * target.grad).sum()) < 1e-12


def test_sanity_of_the_default_target() -> None:
    """Mean log(nu / rho) at D = 64, B = 256, L1: figures of the design's trials."""
    generator = torch.Generator().manual_seed(0)

    def value(z: Tensor) -> float:
        return sum(fasthash.kl_loss(z, generator=generator, eps=0).item() for _ in range(20)) / 20

    drawn = Beta(0.1, 0.1).sample((256, 64))
    assert abs(value(drawn)) < 0.05
    assert abs(value(torch.rand(256, 64, generator=generator)) - 0.35) < 0.05
    assert abs(value(torch.randint(0, 2, (256, 64), generator=generator).float()) - 0.05) < 0.05
    assert abs(value(0.5 + 0.01 * torch.randn(256, 64, generator=generator)) - 3.8) < 0.2


def test_leading_dimensions_are_independent_problems(device: torch.device) -> None:
    z = points(2, 3, 12, 5).to(device).requires_grad_()
    shared = points(9, 5, seed=1).to(device).requires_grad_()
    per_column = points(3, 9, 5, seed=2).to(device).requires_grad_()
    for target in (shared, per_column):
        z.grad = target.grad = None
        loss = fasthash.kl_loss(z, target)
        assert loss.shape == (2, 3)
        loss.sum().backward()
        gradients = z.grad.clone(), target.grad.clone()
        z.grad = target.grad = None
        for i in range(2):
            for j in range(3):
                one = fasthash.kl_loss(z[i, j], target if target is shared else target[j])
                assert torch.equal(one, loss[i, j])
                one.backward()
        torch.testing.assert_close(gradients, (z.grad, target.grad))
    assert fasthash.kl_loss(z).shape == (2, 3)


def test_same_inputs_same_bits(device: torch.device) -> None:
    z, target = points(700, 16).to(device), points(600, 16, seed=1).to(device)
    first = None
    for _ in range(3):
        a = z.clone().requires_grad_()
        loss = fasthash.kl_loss(a, target, k=2)
        loss.backward()
        first = first or (loss.detach(), a.grad)
        assert torch.equal(first[0], loss)
        assert torch.equal(first[1], a.grad)


def test_generator_seeds_the_default_target(device: torch.device) -> None:
    z = points(32, 8).to(device)

    def call(seed: int) -> Tensor:
        return fasthash.kl_loss(z, generator=torch.Generator(device).manual_seed(seed))

    assert torch.equal(call(1), call(1))
    assert not torch.equal(call(1), call(2))
    torch.manual_seed(5)
    once = fasthash.kl_loss(z)
    torch.manual_seed(5)
    assert torch.equal(once, fasthash.kl_loss(z))


@pytest.mark.parametrize(
    "target",
    [
        Beta(0.1, 0.1),
        Beta(torch.full((6,), 0.1), torch.full((6,), 0.1)),
        Uniform(torch.zeros(1), torch.ones(1)),
        Independent(Normal(torch.zeros(6), torch.ones(6)), 1),
        Dirichlet(torch.ones(6)),
    ],
)
def test_distributions_are_sampled_per_bit(target: torch.distributions.Distribution) -> None:
    z = points(20, 6)
    torch.manual_seed(0)
    loss = fasthash.kl_loss(z, target)
    assert loss.isfinite()
    torch.manual_seed(0)
    assert torch.equal(loss, fasthash.kl_loss(z, target))
    assert not torch.equal(loss, fasthash.kl_loss(z, target))
    assert fasthash.kl_loss(points(2, 20, 6), target).shape == (2,)


def test_scalar_distribution_draws_each_bit_by_itself() -> None:
    # One draw repeated over the bits would put all targets on the diagonal of the cube, far from this z.
    torch.manual_seed(0)
    z = Beta(0.1, 0.1).sample((256, 64))
    assert abs(fasthash.kl_loss(z, Beta(0.1, 0.1), eps=0).item()) < 0.1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_row_does_not_poison_others(bad: float, isa: str, device: torch.device) -> None:
    for where, again in itertools.product(("z", "target"), (False, True)):
        z, target = points(20, 6).to(device), points(20, 6, seed=1).to(device)
        (z if where == "z" else target)[4, 2] = bad
        z.requires_grad_()
        target.requires_grad_()
        loss = fasthash.kl_loss(z, target)
        gradients = torch.autograd.grad(loss, (z, target), create_graph=again)
        assert loss.isnan()
        bad_grad, other_grad = gradients if where == "z" else gradients[::-1]
        others = torch.arange(20) != 4
        assert bad_grad[4].isnan().all()
        assert bad_grad[others].isfinite().all()
        assert other_grad.isfinite().all()


def test_coincident_and_saturated_points(isa: str, device: torch.device) -> None:
    for z in (torch.ones(10, 4), torch.zeros(10, 4), torch.full((10, 4), 0.5)):
        for p in (1, 2):
            a = z.to(device).requires_grad_()
            loss = fasthash.kl_loss(a, z.to(device), p=p)
            loss.backward()
            assert loss.item() == 0
            assert torch.equal(a.grad, torch.zeros_like(a))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux tells it")
def test_memory_is_that_of_rows_not_of_pairs() -> None:
    """B = M = 16,384, D = 64: one [B, M] matrix would take 1 GB. A quarter of the 64 MiB allowed at 65,536."""
    code = """
        import pathlib, torch, fasthash

        def status(field):
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

        torch.set_num_threads(2)
        fasthash.kl_loss(torch.rand(300, 64, requires_grad=True), torch.rand(300, 64)).backward()
        z, target = torch.rand(16384, 64, requires_grad=True), torch.rand(16384, 64, requires_grad=True)
        pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
        before = status("VmRSS")
        fasthash.kl_loss(z, target, p=1).backward()
        gradients = 2 * z.numel() * 4 / 2**20
        print(status("VmHWM") - before - gradients)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    z = points(30, 6).to(device, dtype).requires_grad_()
    target = points(30, 6, seed=1).to(device, dtype)
    loss = fasthash.kl_loss(z, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert z.grad.dtype == dtype
    assert torch.equal(loss, fasthash.kl_loss(z.float(), target.float()))


def test_module(device: torch.device) -> None:
    z, target = points(30, 6).to(device), points(30, 6, seed=1).to(device)
    module = KLLoss(p=2, k=3, eps=0.1)
    assert torch.equal(module(z, target), fasthash.kl_loss(z, target, p=2, k=3, eps=0.1))
    assert repr(module) == "KLLoss(p=2, k=3, eps=0.1)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: fasthash.kl_loss(z.numpy()), TypeError, "kl_loss: z must be a tensor, got ndarray"),
        (lambda z: fasthash.kl_loss(z[:1]), ValueError, "kl_loss: z must have at least 2 rows, got 1"),
        (lambda z: fasthash.kl_loss(z, k=10), ValueError, "kl_loss: k must be between 1 and 9, got 10"),
        (lambda z: fasthash.kl_loss(z, z[:2], k=3), ValueError, "kl_loss: k must be between 1 and 2, got 3"),
        (lambda z: fasthash.kl_loss(z, p=0), ValueError, "kl_loss: p must be 1 or 2, got 0"),
        (lambda z: fasthash.kl_loss(z, eps=-1.0), ValueError, "kl_loss: eps must be >= 0 and finite, got -1.0"),
        (lambda z: fasthash.kl_loss(z, eps="1"), TypeError, "kl_loss: eps must be a number, got '1' \\(str\\)"),
        (lambda z: fasthash.kl_loss(z, eps=math.nan), ValueError, "kl_loss: eps must be >= 0 and finite, got nan"),
        (
            lambda z: fasthash.kl_loss(z, [1]),
            TypeError,
            "kl_loss: target must be a tensor, a Distribution or None, got list",
        ),
        (lambda z: fasthash.kl_loss(z, z[:, :2]), ValueError, "kl_loss: both sides must have the same D, got 3 and 2"),
        (
            lambda z: fasthash.kl_loss(z, Beta(torch.ones(2), torch.ones(2))),
            ValueError,
            r"kl_loss: target's batch \+ event shape must broadcast to \[3\], got \(2,\)",
        ),
        (
            lambda z: fasthash.kl_loss(z, z, generator=torch.Generator()),
            ValueError,
            "kl_loss: generator must be None, except for target=None in eager mode",
        ),
    ],
)
def test_errors(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(points(10, 3))
