"""similarity_loss and listwise_loss against their oracles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import fasthash
from fasthash import reference
from fasthash.losses import ListwiseLoss, SimilarityLoss, default_weight


def batch(b: int, dims: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.rand(b, dims, generator=generator, dtype=dtype)
    labels = torch.randint(0, 3, (b,), generator=generator)
    distance = (labels[:, None] - labels[None]).abs().to(dtype) / 2
    return z, distance + 0.1 * torch.rand(b, b, generator=generator, dtype=dtype)


def off_diagonal_mean(d: Tensor) -> Tensor:
    return d[~torch.eye(len(d), dtype=torch.bool, device=d.device)].mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (33, 64), (130, 31), (257, 520)])
def test_similarity_matches_the_oracle(
    shape: tuple[int, int], dtype: torch.dtype, isa: str, device: torch.device
) -> None:
    z, distance = (t.to(device) for t in batch(*shape, dtype=dtype))
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    weight = torch.rand(distance.shape, dtype=dtype, generator=torch.Generator().manual_seed(3)).to(device)
    tau_y = off_diagonal_mean(distance).item()
    for arguments, tau_z, used_y, used_weight in [
        ({}, shape[1] / 2, tau_y, default_weight(distance / tau_y)),
        ({"weight": weight, "tau_z": 3.0, "tau_y": 0.7}, 3.0, 0.7, weight),
        ({"weight": torch.ones_like, "tau_y": 0.0}, shape[1] / 2, 0.0, torch.ones_like(distance)),
        ({"tau_z": "batch"}, "batch", tau_y, default_weight(distance / tau_y)),
    ]:
        a, b = z.clone().requires_grad_(), z.clone().double().requires_grad_()
        loss = fasthash.similarity_loss(a, distance, **arguments)
        scale = off_diagonal_mean(reference.pairwise_distances(b, b, 1)) if tau_z == "batch" else tau_z
        wanted = reference.similarity_loss(b, distance.double(), used_weight.double(), scale, used_y)
        torch.testing.assert_close(loss.double(), wanted, **tolerance)
        loss.backward()
        wanted.backward()
        torch.testing.assert_close(a.grad.double(), b.grad, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1), (3, 5), (33, 64), (130, 31)])
def test_listwise_matches_the_oracle(
    shape: tuple[int, int], dtype: torch.dtype, isa: str, device: torch.device
) -> None:
    z, distance = (t.to(device) for t in batch(*shape, dtype=dtype))
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-6}
    weights = torch.arange(1 - shape[0] % 2, shape[0] + 1 - shape[0] % 2, dtype=dtype, device=device)
    for arguments in ({}, {"temperature_y": 0.5, "temperature_z": 0.3}, {"weights": weights}):
        a, b = z.clone().requires_grad_(), z.clone().double().requires_grad_()
        loss = fasthash.listwise_loss(a, distance, **arguments)
        wanted = reference.listwise_loss(b, distance.double(), **arguments)
        torch.testing.assert_close(loss.double(), wanted, **tolerance)
        loss.backward()
        wanted.backward()
        torch.testing.assert_close(a.grad.double(), b.grad, **tolerance)


def test_gradcheck(device: torch.device) -> None:
    z, distance = (t.to(device) for t in batch(6, 4, torch.float64))
    z.requires_grad_()
    groups = torch.tensor([4, 0, 4, 4, 0, 7], device=device)
    for call in (
        lambda z: fasthash.similarity_loss(z, distance),
        lambda z: fasthash.similarity_loss(z, distance, tau_z="batch"),
        lambda z: fasthash.listwise_loss(z, distance),
        lambda z: fasthash.listwise_loss(z, distance, weights=distance[0]),
        lambda z: fasthash.listwise_loss(z, distance, groups=groups),
        lambda z: fasthash.listwise_loss(z, distance, groups=groups, weights=distance[0]),
    ):
        assert torch.autograd.gradcheck(call, (z,))
        assert torch.autograd.gradgradcheck(call, (z,))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("number", [1, 2, 7, 40])
def test_groups_are_as_if_computed_apart(number: int, weighted: bool, device: torch.device) -> None:
    """The mean of the groups' own losses, by their rows' weights; rows alone in their group count nothing."""
    generator = torch.Generator().manual_seed(number)
    z, distance = batch(60, 9, torch.float64)
    groups = torch.randint(-3, number - 3, (60,), generator=generator)
    weights = torch.rand(60, generator=generator, dtype=torch.float64) if weighted else torch.ones(60).double()
    parts = [(groups == group).nonzero()[:, 0] for group in groups.unique()]
    parts = [rows for rows in parts if len(rows) > 1]
    given, apart = (z.clone().to(place).requires_grad_() for place in (device, "cpu"))
    losses = [
        reference.listwise_loss(apart[rows], distance[rows][:, rows], weights=weights[rows]) * weights[rows].sum()
        for rows in parts
    ]
    wanted = torch.stack(losses).sum() / weights[torch.cat(parts)].sum()
    named = {"weights": weights.to(device)} if weighted else {}
    loss = fasthash.listwise_loss(given, distance.to(device), groups=groups.to(device), **named)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(loss.cpu(), wanted)
    torch.testing.assert_close(given.grad.cpu(), apart.grad)


def test_one_group_is_none_and_rows_alone_have_no_gradient() -> None:
    z, distance = batch(20, 6)
    alike = fasthash.listwise_loss(z, distance, groups=torch.full((20,), 9))
    torch.testing.assert_close(alike, fasthash.listwise_loss(z, distance))
    z.requires_grad_()
    loss = fasthash.listwise_loss(z, distance, groups=torch.arange(20))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros(20, 6))


def test_diagonal_is_ignored() -> None:
    z, distance = batch(8, 5)
    changed = distance.clone().fill_diagonal_(7.0)
    assert torch.equal(fasthash.similarity_loss(z, distance), fasthash.similarity_loss(z, changed))
    assert torch.equal(fasthash.listwise_loss(z, distance), fasthash.listwise_loss(z, changed))


def test_proportional_distances_have_loss_zero() -> None:
    z = torch.randint(0, 2, (20, 16), generator=torch.Generator().manual_seed(0)).float()
    distance = reference.pairwise_distances(z, z, 1)
    assert fasthash.similarity_loss(z, distance, tau_z="batch").item() < 1e-6


def test_all_equal_targets() -> None:
    """tau_y = 0: the semantic term is 0, and the loss draws all outputs together, without NaN."""
    z = torch.rand(6, 4, requires_grad=True)
    loss = fasthash.similarity_loss(z, torch.zeros(6, 6))
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_batch_tau_has_its_gradient() -> None:
    # The loss with tau_z = "batch" does not change when z is scaled, so <z, dz> = 0.
    z, distance = batch(10, 8, torch.float64)
    z.requires_grad_()
    fasthash.similarity_loss(z, distance, tau_z="batch").backward()
    assert abs((z * z.grad).sum()) < 1e-12


def test_one_compiled_graph_for_every_size() -> None:
    def losses(z: Tensor, target: Tensor, distance: Tensor) -> Tensor:
        kl = fasthash.kl_loss(z, target, k=2, eps=0.1) + fasthash.koleo_loss(z)
        return kl + fasthash.similarity_loss(z, distance, tau_y=0.5) + fasthash.listwise_loss(z, distance)

    # dynamic=True: sizes and numbers are symbols while a function is compiled, so checks must take those.
    compiled = torch.compile(losses, dynamic=True, fullgraph=True, backend="eager")
    for rows, dims in ((6, 4), (9, 12)):
        z, distance = batch(rows, dims)
        torch.testing.assert_close(compiled(z, z + 0.1, distance), losses(z, z + 0.1, distance))


def test_modules_keep_a_running_scale() -> None:
    module = SimilarityLoss(momentum=0.5)
    z, distance = batch(8, 4)
    first, second = off_diagonal_mean(distance), off_diagonal_mean(3 * distance)
    assert torch.equal(module(z, distance), fasthash.similarity_loss(z, distance, tau_y=module.tau_y))
    torch.testing.assert_close(module.tau_y, first)
    module(z, 3 * distance)
    torch.testing.assert_close(module.tau_y, (first + second) / 2)
    module.eval()
    before = module.tau_y.clone()
    module(z, 9 * distance)
    assert torch.equal(before, module.tau_y)
    assert set(module.state_dict()) == {"tau_y", "batches"}
    torch.testing.assert_close(SimilarityLoss().eval()(z, distance), fasthash.similarity_loss(z, distance))
    torch.testing.assert_close(ListwiseLoss()(z, distance), fasthash.listwise_loss(z, distance))
    ignored = distance.clone().fill_diagonal_(math.nan)
    assert torch.equal(SimilarityLoss()(z, ignored), SimilarityLoss()(z, distance))
    with pytest.raises(ValueError, match="SimilarityLoss: distance must have shape"):
        SimilarityLoss()(z, distance[:2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda z, d: fasthash.similarity_loss(z, d[:2]),
            ValueError,
            r"distance must have shape \(4, 4\), got \(2, 4\)",
        ),
        (
            lambda z, d: fasthash.similarity_loss(z[:1], d),
            ValueError,
            r"z must have shape \[B, D\] with B >= 2.*got \(1, 3\)",
        ),
        (lambda z, d: fasthash.similarity_loss(z.long(), d), TypeError, "z must be floating point, got int64"),
        (lambda z, d: fasthash.similarity_loss(z.tolist(), d), TypeError, "z must be a tensor, got list"),
        (lambda z, d: fasthash.similarity_loss(z, d, tau_z=0.0), ValueError, "tau_z must be > 0 and finite, got 0.0"),
        (
            lambda z, d: fasthash.similarity_loss(z, d, tau_y=-1.0),
            ValueError,
            "tau_y must be >= 0 and finite, got -1.0",
        ),
        (lambda z, d: fasthash.similarity_loss(z, d, tau_z="mean"), ValueError, "tau_z must be a number.*got 'mean'"),
        (
            lambda z, d: fasthash.similarity_loss(z, d, weight=d[0]),
            ValueError,
            r"weight must have shape \(4, 4\), got \(4,\)",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, temperature_y=0),
            ValueError,
            "temperature_y must be > 0 and finite, got 0",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, weights=d),
            ValueError,
            r"listwise_loss: weights must have shape \(4,\), got \(4, 4\)",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, weights=[1.0] * 4),
            TypeError,
            "listwise_loss: weights must be a tensor, got list",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, groups=torch.zeros(3, dtype=torch.int64)),
            ValueError,
            r"listwise_loss: groups must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, groups=[0, 0, 1, 1]),
            TypeError,
            "listwise_loss: groups must be a tensor, got list",
        ),
        (
            lambda z, d: fasthash.listwise_loss(z, d, groups=torch.zeros(4)),
            TypeError,
            "listwise_loss: groups must hold integers, got float32",
        ),
        (lambda z, d: SimilarityLoss(momentum=0), ValueError, "momentum must be > 0 and <= 1, got 0"),
    ],
)
def test_errors(call, error, message) -> None:  # type: ignore[no-untyped-def]
    z = torch.rand(4, 3)
    with pytest.raises(error, match=message):
        call(z, torch.cdist(z, z))
