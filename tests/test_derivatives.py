"""Derivatives beyond one backward pass: forward mode, torch.func, second derivatives. Right, never zero in silence."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacrev, jvp, vjp, vmap

import fasthash

ops = torch.ops.fasthash
Loss = Callable[[Tensor], Tensor]


def points(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGET = points(8, 3, seed=1)
DISTANCE = torch.cdist(TARGET, TARGET)
LOSSES: dict[str, Loss] = {
    "kl_loss l1": lambda z: fasthash.kl_loss(z, TARGET, k=2),
    "kl_loss l2": lambda z: fasthash.kl_loss(z, TARGET, p=2),
    "kl_loss of the target": lambda z: fasthash.kl_loss(TARGET, z),
    "nearest": lambda z: fasthash.nearest(z, k=3).distances.square().sum(),
    "nearest of targets": lambda z: fasthash.nearest(TARGET, z, p=1).distances.square().sum(),
    "koleo_loss": fasthash.koleo_loss,
    "entropy": lambda z: fasthash.entropy(z, k=2),
    "kl_divergence": lambda z: fasthash.kl_divergence(z, TARGET),
    "similarity_loss": lambda z: fasthash.similarity_loss(z, DISTANCE, tau_z="batch"),
    "listwise_loss": lambda z: fasthash.listwise_loss(z, DISTANCE),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def directional(loss: Loss, z: Tensor, direction: Tensor) -> Tensor:
    """The derivative along a direction, by reverse mode."""
    z = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(z), z)
    return (gradient * direction).sum()


@every_loss
def test_forward_mode(name: str) -> None:
    loss, z, direction = LOSSES[name], points(8, 3), points(8, 3, seed=2) - 0.5
    expected = directional(loss, z, direction)
    assert expected.abs() > 1e-3  # a tangent that is lost would show
    torch.testing.assert_close(jvp(loss, (z,), (direction,)), (loss(z), expected))
    with forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(z, direction)))
    torch.testing.assert_close((value, tangent), (loss(z), expected))
    assert torch.autograd.gradcheck(loss, (z.requires_grad_(),), check_forward_ad=True, check_batched_grad=True)


@every_loss
def test_transforms_of_torch_func(name: str) -> None:
    loss, z = LOSSES[name], points(2, 8, 3)
    z.requires_grad_()
    values = torch.stack([loss(one) for one in z])
    (gradients,) = torch.autograd.grad(values.sum(), z)
    z = z.detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where an op has no batching rule
        torch.testing.assert_close(grad(loss)(z[0]), gradients[0])
        torch.testing.assert_close(vjp(loss, z[0])[1](torch.ones((), dtype=z.dtype))[0], gradients[0])
        torch.testing.assert_close(vmap(loss)(z), values)
        torch.testing.assert_close(vmap(grad(loss))(z), gradients)
        torch.testing.assert_close(grad(lambda both: vmap(loss)(both).sum())(z), gradients)
    # Second derivatives: forward over reverse, reverse over reverse, and those of plain autograd.
    expected = torch.autograd.functional.hessian(loss, z[0])
    torch.testing.assert_close(hessian(loss)(z[0]), expected)
    torch.testing.assert_close(jacrev(jacrev(loss))(z[0]), expected)
    torch.testing.assert_close(torch.autograd.functional.hessian(loss, z[0], vectorize=True), expected)


def test_vmap_over_either_side() -> None:
    z, target = points(4, 9, 3), points(4, 7, 3, seed=1)
    both = vmap(lambda a, b: fasthash.kl_loss(a, b, k=2))
    torch.testing.assert_close(both(z, target), fasthash.kl_loss(z, target, k=2))
    only_z, only_target = (vmap(fasthash.kl_loss, in_dims=dims) for dims in ((2, None), (None, 0)))
    torch.testing.assert_close(only_z(z.permute(1, 2, 0), target[0]), fasthash.kl_loss(z, target[0]))
    expected = torch.stack([fasthash.kl_loss(z[0], one) for one in target])
    torch.testing.assert_close(only_target(z[0], target), expected)
    batches = points(4, 2, 9, 3)  # leading dimensions of the problem itself, under vmap
    torch.testing.assert_close(vmap(fasthash.koleo_loss)(batches), fasthash.koleo_loss(batches))
    torch.testing.assert_close(
        vmap(fasthash.kl_loss, in_dims=(0, None))(batches, target[:2]), fasthash.kl_loss(batches, target[:2])
    )
    drawn = vmap(lambda a: fasthash.kl_loss(a), randomness="different")(z)
    assert len(set(drawn.tolist())) == 4


def test_a_tangent_of_the_incoming_gradient_is_kept() -> None:
    z = points(8, 3).requires_grad_()
    for loss in LOSSES.values():
        (expected,) = torch.autograd.grad(loss(z), z)
        with forward_ad.dual_level():
            factor = forward_ad.make_dual(torch.tensor(2.0, dtype=z.dtype), torch.tensor(1.0, dtype=z.dtype))
            (gradient,) = torch.autograd.grad(factor * loss(z), z)
            tangent = forward_ad.unpack_dual(gradient).tangent
        torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_forward_mode_inside_a_compiled_function(backend: str) -> None:
    torch._dynamo.reset()
    z, direction = points(8, 3), points(8, 3, seed=2) - 0.5
    loss = LOSSES["kl_loss l1"]
    compiled = torch.compile(lambda z, direction: jvp(loss, (z,), (direction,))[1], backend=backend)
    torch.testing.assert_close(compiled(z, direction), directional(loss, z, direction))
    compiled_grad = torch.compile(grad(loss), backend=backend)
    torch.testing.assert_close(compiled_grad(z), grad(loss)(z))
