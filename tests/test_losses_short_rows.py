"""Rows of zeros, nearly zeros and constants in every loss: bounded gradients, and ordinary rows as they always were."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

import fasthash
from fasthash import losses, targets
from fasthash._directions import directions, unit_rows, unless_all_zero
from fasthash.losses.published import LOSSES
from fasthash.train import HashHead, Objective

B, BITS, CLASSES = 24, 16, 4
TYPES = [torch.float32, torch.float64]
LEVELS = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
SHORT = [0.0, 1e-5, 1e-8, 1e-12, 1e-20, 1e-30, 1e-42, 1e-44]  # the last two are denormal in float32
LIMIT = 10

# Those that know directions alone: no direction, no gradient.
DIRECTIONAL = ["contrastive", "contrastive X", "hierarchical_contrastive", "koleo", "koleo l1 k2", "orthohash", "sdc"]
# Rows of zeros are points like others there, and rows far from other classes have no gradient left to compare with.
SATURATED = ["prototype_triplet", "prototypical"]

Loss = Callable[[Tensor], Tensor]


def every_loss(dtype: torch.dtype, seed: int = 0) -> dict[str, Loss]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, CLASSES, (B,), generator=generator)
    X = torch.randn(B, 7, generator=generator)
    target = torch.rand(B, BITS, generator=generator, dtype=dtype)
    matrix = 1.0 - torch.eye(CLASSES)
    between = targets.label_distances(y, matrix)
    known: dict[str, Any] = {"bits": BITS, "classes": CLASSES, "levels": LEVELS}
    torch.manual_seed(seed)
    found: dict[str, Loss] = {}
    for name, kind in LOSSES.items():
        wanted = inspect.signature(kind.__init__).parameters
        loss = kind(**{key: value for key, value in known.items() if key in wanted}).to(dtype)
        found[name] = functools.partial(loss, y=X if name == "sdc" else y)
    free = LOSSES["bihalf"](BITS)
    alike = LOSSES["contrastive"]()
    objectives = {
        "objective": Objective(BITS, classes=CLASSES, distance=matrix, preserve=1.0),
        "stress": Objective(BITS, classification=0, kl=0, distance=matrix, similarity="stress"),
        "preserve X": Objective(BITS, classification=0, similarity_weight=0, kl=0, preserve=1.0),
    }
    found |= {
        "bihalf X": lambda u: free(u, X),
        "contrastive X": lambda u: alike(u, X),
        "koleo": losses.koleo_loss,
        "koleo l1 k2": lambda u: losses.koleo_loss(u, p=1, k=2),
        "koleo unnormalised": lambda u: losses.koleo_loss(u, normalize=False),
        "kl": lambda u: losses.kl_loss(u, target),
        "kl l2": lambda u: losses.kl_loss(u, target, p=2),
        "listwise": lambda u: losses.listwise_loss(u, between),
        "similarity": lambda u: losses.similarity_loss(u, between),
        "similarity batch": lambda u: losses.similarity_loss(u, between, tau_z="batch"),
    }
    for name, objective in objectives.items():
        found[name] = functools.partial(objective.to(dtype), y=y, features=X)
    return found


NAMES = sorted(every_loss(torch.float32))


def lengths_of_gradients(loss: Loss, u: Tensor) -> Tensor:
    u = u.detach().clone().requires_grad_()
    value = loss(u)
    value.backward()
    assert value.isfinite()
    assert u.grad is not None
    assert u.grad.isfinite().all()
    return u.grad.double().norm(dim=1)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    dtype=st.sampled_from(TYPES),
    scale=st.sampled_from(SHORT),
    count=st.sampled_from([1, 1, 2, 5, B // 2, B - 6]),
    size=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_short_rows_have_no_large_gradient(
    name: str, seed: int, dtype: torch.dtype, scale: float, count: int, size: float
) -> None:
    """At most 10 times the largest of the other rows; where these may have none, of a batch without short rows."""
    generator = torch.Generator().manual_seed(seed)
    if name not in DIRECTIONAL:
        size = 1.0  # the targets of the others are between 0 and 1
    u = torch.randn(B, BITS, generator=generator, dtype=dtype) * size
    short = torch.zeros(B, dtype=torch.bool)
    short[torch.randperm(B, generator=generator)[:count]] = True
    usual = u.clone()
    u[short] = torch.randn(count, BITS, generator=generator, dtype=dtype) * scale
    loss = every_loss(dtype, seed)[name]
    gradients = lengths_of_gradients(loss, u)
    if name in SATURATED:
        assert gradients[short].max() <= LIMIT * lengths_of_gradients(loss, usual).max()
    elif name in DIRECTIONAL or scale == 0 or count == 1:
        assert gradients[short].max() <= LIMIT * gradients[~short].max()
    else:  # without a normalisation zero is a value like others, and rows close to each other repel each other
        for row in short.nonzero().flatten().tolist():
            assert gradients[row] <= LIMIT * torch.cat([gradients[:row], gradients[row + 1 :]]).max()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.5, 0.7, 0.3], [0.5, -0.7, 1e-9]])
def test_constant_rows_have_no_large_gradient(name: str, values: list[float], dtype: torch.dtype) -> None:
    for seed in range(5):
        u = torch.randn(B, BITS, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        constant = torch.zeros(B, dtype=torch.bool)
        constant[3 : 3 + len(values)] = True
        u[constant] = torch.tensor(values, dtype=dtype)[:, None]
        gradients = lengths_of_gradients(every_loss(dtype, seed)[name], u)
        assert gradients[constant].max() <= LIMIT * gradients[~constant].max()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_batches_of_one_kind(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    loss = every_loss(dtype)[name]
    row = torch.randn(1, BITS, generator=generator, dtype=dtype)
    constant = 0.5 + torch.rand(B, 1, generator=generator, dtype=dtype)
    ordinary = lengths_of_gradients(loss, torch.randn(B, BITS, generator=generator, dtype=dtype)).max()
    for u in (row.expand(B, BITS), torch.ones(B, BITS, dtype=dtype)):
        assert lengths_of_gradients(loss, u).max() <= LIMIT * ordinary
    values = lengths_of_gradients(loss, constant.expand(B, BITS))
    assert values.max() <= LIMIT * (ordinary if name in DIRECTIONAL else values.topk(2).values[1])
    for scale in SHORT[1:]:  # all short: whatever the gradient, it is that of all
        values = lengths_of_gradients(loss, scale * torch.randn(B, BITS, generator=generator, dtype=dtype))
        assert values.max() <= LIMIT * values.topk(2).values[1]
    zeros = lengths_of_gradients(loss, torch.zeros(B, BITS, dtype=dtype))
    assert not zeros.any()


@pytest.mark.parametrize("dtype", [*TYPES, torch.bfloat16])
def test_a_batch_that_is_not_all_zero_keeps_values_and_gradient(dtype: torch.dtype) -> None:
    for values in ([0.0, 1e-30], [-0.0, 3.0], [float("nan"), 0.0], [float("inf"), 0.0]):
        x = torch.tensor(values, dtype=dtype, requires_grad=True)
        torch.testing.assert_close(unless_all_zero(x), x, rtol=0, atol=0, equal_nan=True)
        unless_all_zero(x).sum().backward()
        assert x.grad.tolist() == [1.0, 1.0]
    for shape in ((0, 3), (2, 3)):
        x = torch.zeros(shape, dtype=dtype, requires_grad=True)
        unless_all_zero(x).sum().backward()
        assert not x.grad.any()


@pytest.mark.parametrize("dims", [3, 64, 768])
@pytest.mark.parametrize("dtype", TYPES)
def test_rows_of_one_direction_are_coincident_for_koleo(dtype: torch.dtype, dims: int) -> None:
    """After the division by their lengths, rounding alone keeps them apart, and 1 / distance was 1e7 and more."""
    generator = torch.Generator().manual_seed(0)
    sizes = 0.1 + torch.rand(20, 1, generator=generator, dtype=dtype)
    for row in (torch.ones(dims, dtype=dtype), torch.randn(dims, generator=generator, dtype=dtype)):
        for p in (1, 2):
            assert not lengths_of_gradients(lambda u, p=p: losses.koleo_loss(u, p=p), sizes * row).any()


@pytest.mark.parametrize("dtype", TYPES)
def test_directions_of_ordinary_rows_are_the_usual_ones(dtype: torch.dtype) -> None:
    """Values, gradients and their gradients, to the bit."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((30, 3), (2, 40, 17), (5, 768), (1, 4), (0, 3), (3, 0, 2)):
        x = torch.randn(*shape, generator=generator, dtype=dtype)
        x *= 1 + torch.rand(*shape[:-1], 1, generator=generator, dtype=dtype)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        assert torch.equal(unit_rows(x), normalize(x, dim=-1))
        assert torch.equal(directions(a), normalize(b, dim=-1))
        weights = torch.randn(*shape, generator=generator, dtype=dtype)
        first = [
            torch.autograd.grad((f(t) * weights).square().sum(), t, create_graph=True)[0]
            for f, t in ((directions, a), (lambda t: normalize(t, dim=-1), b))
        ]
        kept = (x.norm(dim=-1) >= 0.2 * x.norm(dim=-1).median()) if x.numel() else torch.ones(shape[:-1]).bool()
        torch.testing.assert_close(first[0][kept], first[1][kept], rtol=1e-6, atol=1e-7)
        second = [torch.autograd.grad(g.square().sum(), t)[0] for g, t in zip(first, (a, b), strict=True)]
        torch.testing.assert_close(second[0][kept], second[1][kept], rtol=1e-5, atol=1e-6)


def test_the_gradient_of_short_rows_fades_and_never_jumps() -> None:
    others = torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    others = others / others.norm(dim=1, keepdim=True)  # typical: 1
    weights = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def slope(length: float) -> float:
        u = torch.cat([others[:1] * length, others[1:]]).requires_grad_()
        (directions(u)[0] * weights).sum().backward()
        return float(u.grad[0].norm())

    long = slope(1.0)
    assert slope(0.2) == pytest.approx(5 * long)
    assert slope(0.1 + 1e-9) == pytest.approx(10 * long)
    assert slope(0.1 - 1e-9) == pytest.approx(10 * long)
    assert slope(0.01) == pytest.approx(long)
    assert slope(1e-6) == pytest.approx(1e-4 * long)
    assert slope(1e-12) < 1e-9
    assert slope(0.0) == 0


def test_neither_a_giant_nor_a_crowd_of_dwarfs_is_typical() -> None:
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    for change in (lambda x: x.mul_(1e7), lambda x: x.fill_(float("inf")), lambda x: x.fill_(float("nan"))):
        u = x.clone()
        change(u[4:5])
        gradients = []
        for f in (directions, lambda t: normalize(t, dim=-1)):
            v = u.clone().requires_grad_()
            (f(v) * x).sum().backward()
            gradients.append(torch.cat([v.grad[:4], v.grad[5:]]))
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)
    u = x.clone()
    u[:8] *= 1e-6
    u.requires_grad_()
    (directions(u) * x).sum().backward()
    assert u.grad[:8].norm(dim=1).max() < u.grad[8:].norm(dim=1).min()


def test_short_rows_through_a_hash_head() -> None:
    """Batch norm divides by at least sqrt(1e-5): constant batches have finite gradients, alike for all rows."""
    generator = torch.Generator().manual_seed(0)
    for dtype in TYPES:
        losses_of = {name: every_loss(dtype)[name] for name in ("objective", "koleo", "orthohash", "contrastive")}
        ordinary = torch.randn(B, 12, generator=generator, dtype=dtype)
        zero = ordinary.clone()
        zero[3] = 0.0
        tiny = ordinary.clone()
        tiny[3] *= 1e-20
        equal = ordinary[:1].expand(B, 12)
        for name, loss in losses_of.items():
            torch.manual_seed(0)
            head = HashHead(12, BITS, sigmoid=name == "objective").to(dtype)
            for x in (zero, tiny):
                gradients = lengths_of_gradients(lambda x, loss=loss, head=head: loss(head(x)), x)
                assert gradients[3] <= LIMIT * torch.cat([gradients[:3], gradients[4:]]).max()
            for x in (torch.zeros(B, 12, dtype=dtype), torch.ones(B, 12, dtype=dtype), equal):
                gradients = lengths_of_gradients(lambda x, loss=loss, head=head: loss(head(x)), x)
                assert gradients.max() <= LIMIT * gradients.topk(2).values[1] + 1e-12
                if name != "objective":  # outputs are all zero: no direction
                    assert gradients.max() < 1e-6


def test_distances_of_short_rows_are_those_of_no_direction() -> None:
    for dtype in TYPES:
        E = torch.randn(6, 5, dtype=dtype)
        E[2], E[3] = 0.0, 1e-30
        found = targets.embedding_distances(E)
        torch.testing.assert_close(found[2, [0, 1, 4, 5]], torch.ones(4))
        torch.testing.assert_close(found[3, [0, 1, 4, 5]], torch.ones(4))
    assert torch.equal(targets.multilabel_distances(torch.zeros(3, 4).int()), 1 - torch.eye(3))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_koleo_of_a_zero_row_compiles(backend: str) -> None:
    torch._dynamo.reset()
    u = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    u[3] = 0.0
    a, b = u.clone().requires_grad_(), u.clone().requires_grad_()
    loss = torch.compile(fasthash.koleo_loss, backend=backend, fullgraph=True)(a)
    loss.backward()
    fasthash.koleo_loss(b).backward()
    torch.testing.assert_close(a.grad, b.grad)
    assert not a.grad[3].any()


def test_taus_of_the_batch_where_all_rows_are_equal() -> None:
    distance = 1.0 - torch.eye(4)
    z = torch.full((4, 3), 0.3, requires_grad=True)
    loss = losses.similarity_loss(z, distance, tau_z="batch")
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert not z.grad.any()


def test_ordinary_outputs_of_a_hash_head_are_those_of_its_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    for features in (
        torch.randn(32, 12, generator=generator),
        1e4 + torch.randn(32, 12, generator=generator),
        torch.randn(2, 12, generator=generator),
        torch.randn(32, 12, generator=generator) * 1e-6,
        torch.full((32, 12), torch.nan),
    ):
        torch.manual_seed(0)
        head = HashHead(12, 8, sigmoid=False)
        found = head(features)
        assert torch.equal(found.isnan(), features[:, :8].isnan())
        torch.testing.assert_close(found, head.norm(head.linear(features)), rtol=0, atol=0, equal_nan=True)


def test_a_constant_batch_leaves_a_hash_head_at_its_bias() -> None:
    torch.manual_seed(0)
    head = HashHead(12, 8, sigmoid=False)
    for rows in (2, 3, 31, 1000):
        features = (3 + torch.randn(1, 12)).expand(rows, 12)
        assert not head(features).any()
