"""Nearest neighbours, KL divergence and entropy, against the plain-torch oracle and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fasthash
from fasthash import reference

# L, N, M, D, k: one row, odd sizes, edges of tiles (8 x 32) and of blocks (128 rows, 1,024 targets, 512 dimensions),
# k = M.
SHAPES = [
    (1, 2, 1, 1, 1),
    (2, 5, 7, 3, 2),
    (1, 8, 32, 16, 3),
    (1, 130, 257, 33, 5),
    (3, 129, 100, 8, 64),
    (1, 127, 1025, 5, 4),
    (1, 9, 3, 1030, 3),
    (4, 2, 2, 2, 1),
]


def neighbours_agree(distances: Tensor, indices: Tensor, x: Tensor, y: Tensor | None, p: int, k: int) -> None:
    """Distances match the float64 oracle; each index is at its distance; order is by (distance, index)."""
    wanted, wanted_indices = reference.nearest(x.double(), None if y is None else y.double(), p=p, k=k)
    tolerance = 1e-12 if x.dtype == torch.float64 else 3e-6
    torch.testing.assert_close(distances.double(), wanted, rtol=tolerance, atol=tolerance)
    everything = reference.pairwise_distances(x.double(), (x if y is None else y).double(), p)
    torch.testing.assert_close(everything.gather(-1, indices), wanted, rtol=tolerance, atol=tolerance)
    if k > 1:
        later, earlier = distances[..., 1:], distances[..., :-1]
        assert ((later > earlier) | ((later == earlier) & (indices[..., 1:] > indices[..., :-1]))).all()
    if x.dtype == torch.float64:
        assert torch.equal(indices, wanted_indices)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_oracle(shape: tuple[int, ...], p: int, dtype: torch.dtype, isa: str, device: torch.device) -> None:
    batches, n, m, dims, k = shape
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(batches, n, dims, generator=generator, dtype=dtype).to(device)
    y = torch.randn(batches, m, dims, generator=generator, dtype=dtype).to(device)
    neighbours_agree(*fasthash.nearest(x, y, p=p, k=min(k, m)), x, y, p, min(k, m))
    neighbours_agree(*fasthash.nearest(x, p=p, k=min(k, n - 1)), x, None, p, min(k, n - 1))


@pytest.mark.parametrize("p", [1, 2])
def test_ties_go_to_the_lowest_index(p: int, isa: str, device: torch.device) -> None:
    # Small integers: sums are exact in float32, and most distances are tied.
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 2, (300, 6), generator=generator).float().to(device)
    y = torch.randint(0, 2, (513, 6), generator=generator).float().to(device)
    for targets in (y, None):
        found = fasthash.nearest(x, targets, p=p, k=7)
        wanted = reference.nearest(x, targets, p=p, k=7)
        assert torch.equal(found.indices, wanted[1])
        torch.testing.assert_close(found.distances, wanted[0])


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(2, 40),
    m=st.integers(1, 70),
    dims=st.integers(1, 40),
    p=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_any_shape(n: int, m: int, dims: int, p: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dims, generator=generator, dtype=torch.float64)
    y = torch.randn(m, dims, generator=generator, dtype=torch.float64)
    neighbours_agree(*fasthash.nearest(x, y, p=p, k=m if m < 64 else 64), x, y, p, min(m, 64))
    neighbours_agree(*fasthash.nearest(x, p=p, k=n - 1), x, None, p, n - 1)


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("p", [1, 2])
def test_clustered_codes_keep_their_true_neighbours(noise: float, p: int, isa: str, device: torch.device) -> None:
    """Trained outputs lie close to few corners. The expanded form |x|^2 + |y|^2 - 2 x.y fails this in most rows."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 2, (16, 64), generator=generator).float()
    x = corners[torch.randint(0, 16, (500,), generator=generator)]
    x = (x + noise * torch.randn(x.shape, generator=generator)).to(device)
    found = fasthash.nearest(x, p=p).indices[:, 0]
    exact = reference.pairwise_distances(x.double(), x.double(), p).fill_diagonal_(math.inf)
    best = exact.min(1).values
    chosen = exact.gather(1, found[:, None])[:, 0]
    # The true neighbour, or one that float32 cannot tell from it.
    assert (chosen <= best * (1 + 1e-6)).all()


def test_large_offset_keeps_neighbours(isa: str) -> None:
    x = torch.rand(100, 16, generator=torch.Generator().manual_seed(0)).mul(1024).round() / 1024
    assert torch.equal(fasthash.nearest(x, p=1).indices, fasthash.nearest(x + 4096, p=1).indices)


def test_distances_are_symmetric_to_the_bit(isa: str) -> None:
    x = torch.rand(50, 700, generator=torch.Generator().manual_seed(0))
    for p in (1, 2):
        found = fasthash.nearest(x, p=p, k=49)
        full = torch.zeros(50, 50).scatter(1, found.indices, found.distances)
        assert torch.equal(full, full.T)


def test_result_does_not_depend_on_threads(isa: str) -> None:
    x = torch.rand(1500, 24, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = [fasthash.nearest(x, p=1, k=5), fasthash.nearest(x, x[::3], p=2, k=5)]
        torch.set_num_threads(4)
        for _ in range(3):
            for a, b in zip(one, [fasthash.nearest(x, p=1, k=5), fasthash.nearest(x, x[::3], p=2, k=5)], strict=True):
                assert torch.equal(a.distances, b.distances)
                assert torch.equal(a.indices, b.indices)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_rows_come_last_and_do_not_spread(bad: float, isa: str, device: torch.device) -> None:
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)).to(device)
    x[3, 1] = bad
    x.requires_grad_()
    found = fasthash.nearest(x, p=1, k=2)
    others = torch.arange(20, device=device) != 3
    assert not (found.indices[others] == 3).any()
    assert not found.distances[3].isfinite().any()
    found.distances.sum().backward()
    assert x.grad[3].isnan().all()
    assert x.grad[others].isfinite().all()
    # Where there is nothing else, NaN neighbours are listed, lowest index first.
    few = fasthash.nearest(torch.tensor([[0.0], [math.nan], [math.nan]], device=device), p=1, k=2)
    assert few.indices.tolist() == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize("p", [1, 2])
def test_gradients(p: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 6, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    y = torch.rand(2, 5, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    shared = torch.rand(5, 3, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    for call, inputs in [
        (lambda x, y: fasthash.nearest(x, y, p=p, k=3).distances, (x, y)),
        (lambda x, y: fasthash.nearest(x, y, p=p, k=3).distances, (x, shared)),
        (lambda x: fasthash.nearest(x, p=p, k=3).distances, (x,)),
    ]:
        assert torch.autograd.gradcheck(call, inputs)
        assert torch.autograd.gradgradcheck(call, inputs)


def test_coincident_points_have_gradient_zero(isa: str) -> None:
    for p in (1, 2):
        x = torch.ones(4, 3).requires_grad_()
        fasthash.nearest(x, p=p, k=2).distances.sum().backward()
        assert torch.equal(x.grad, torch.zeros(4, 3))


def test_leading_dimensions_and_kinds() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 3, 9, 4, generator=generator), torch.rand(3, 6, 4, generator=generator)
    found = fasthash.nearest(x, y, k=2)
    assert found.distances.shape == (2, 3, 9, 2)
    assert torch.equal(found.indices[1, 2], fasthash.nearest(x[1, 2], y[2], k=2).indices)
    as_numpy = fasthash.nearest(x.numpy(), y.numpy(), k=2)
    assert isinstance(as_numpy.distances, np.ndarray)
    assert np.array_equal(as_numpy.indices, found.indices.numpy())
    frozen = x[0, 0].numpy().copy()
    frozen.flags.writeable = False
    assert np.array_equal(fasthash.nearest(frozen).indices, fasthash.nearest(x[0, 0]).indices.numpy())
    assert fasthash.nearest(x.half()).distances.dtype == torch.float32
    assert fasthash.nearest(x.double()).distances.dtype == torch.float64
    strided = torch.rand(20, 8, generator=generator)[::2, ::2]
    assert torch.equal(fasthash.nearest(strided).indices, fasthash.nearest(strided.clone()).indices)


def test_kl_divergence_of_gaussians() -> None:
    generator = torch.Generator().manual_seed(0)
    for dims, tolerance in ((1, 0.04), (2, 0.06), (5, 0.2)):
        x = torch.randn(6000, dims, generator=generator)
        y = 1.5 * torch.randn(6000, dims, generator=generator) + 0.5
        wanted = dims * (math.log(1.5) + (1 + 0.25) / (2 * 2.25) - 0.5)
        for p in (1, 2):
            assert abs(fasthash.kl_divergence(x, y, p=p, k=5).item() - wanted) < tolerance


def test_kl_divergence_of_equal_distributions_is_zero_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 64, 3, generator=generator), torch.randn(200, 63, 3, generator=generator)
    estimates = fasthash.kl_divergence(x, y)
    assert abs(estimates.mean().item()) < 4 * estimates.std().item() / math.sqrt(200)


def test_kl_divergence_is_invariant_under_translation_scaling_and_permutation() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    y = torch.rand(30, 6, generator=generator, dtype=torch.float64)
    for p in (1, 2):
        value = fasthash.kl_divergence(x, y, p=p, k=2)
        order = torch.randperm(6, generator=generator)
        moved = fasthash.kl_divergence(3 * x[:, order].flip(0) + 1, 3 * y[:, order] + 1, p=p, k=2)
        torch.testing.assert_close(value, moved)


def test_entropy_of_uniform_and_gaussian() -> None:
    generator = torch.Generator().manual_seed(0)
    for p in (1, 2):
        uniform = torch.rand(8000, 2, generator=generator, dtype=torch.float64) * 3
        assert abs(fasthash.entropy(uniform, p=p, k=3).item() - 2 * math.log(3)) < 0.05
        gaussian = torch.randn(8000, 3, generator=generator, dtype=torch.float64)
        assert abs(fasthash.entropy(gaussian, p=p, k=3).item() - 1.5 * math.log(2 * math.pi * math.e)) < 0.06


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: fasthash.nearest(x, p=3), ValueError, r"nearest: p must be 1 or 2, got 3"),
        (lambda x: fasthash.nearest(x, k=4), ValueError, r"nearest: k must be between 1 and 3, got 4"),
        (lambda x: fasthash.nearest(x, k=0), ValueError, r"nearest: k must be between 1 and 3, got 0"),
        (lambda x: fasthash.nearest(x, k=1.0), TypeError, r"nearest: k must be an integer, got 1.0 \(float\)"),
        (lambda x: fasthash.nearest(x[:1]), ValueError, r"nearest: at least 1 other row is needed, got 0"),
        (lambda x: fasthash.nearest(x[0]), ValueError, r"nearest: x must have shape \[..., rows, D\].*got \(3,\)"),
        (lambda x: fasthash.nearest(x.long()), TypeError, r"nearest: x must be floating point, got int64"),
        (lambda x: fasthash.nearest(x, x[:, :2]), ValueError, r"nearest: both sides must have the same D, got 3 and 2"),
        (
            lambda x: fasthash.nearest(x, torch.rand(2, 4, 3)),
            ValueError,
            r"nearest: leading dimensions must broadcast to \(\), got \(2,\)",
        ),
        (lambda x: fasthash.nearest("text"), TypeError, r"nearest: x must be a numeric array or tensor, got str"),
        (
            lambda x: fasthash.kl_divergence(x, x[:2], k=3),
            ValueError,
            r"kl_divergence: k must be between 1 and 2, got 3",
        ),
        (lambda x: fasthash.entropy(x, k=9), ValueError, r"entropy: k must be between 1 and 3, got 9"),
    ],
)
def test_errors(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(torch.rand(4, 3))


def test_k_is_at_most_64() -> None:
    with pytest.raises(ValueError, match="nearest: k must be between 1 and 64, got 65"):
        fasthash.nearest(torch.rand(100, 2), k=65)


def test_no_points() -> None:
    found = fasthash.nearest(torch.rand(0, 3), torch.rand(5, 3), k=2)
    assert found.distances.shape == (0, 2)
    assert found.indices.shape == (0, 2)
    assert fasthash.nearest(torch.rand(2, 0, 3), torch.rand(2, 5, 3)).indices.shape == (2, 0, 1)
    assert fasthash.nearest(np.zeros((0, 4, 3)), k=3).distances.shape == (0, 4, 3)


def test_numpy_numbers_count() -> None:
    points = torch.rand(9, 3)
    assert torch.equal(
        fasthash.nearest(points, k=np.int64(3), p=np.int64(1)).indices, fasthash.nearest(points, k=3, p=1).indices
    )
    assert fasthash.kl_loss(points, points, k=np.uint8(2), p=2.0) == fasthash.kl_loss(points, points, k=2, p=2)
    with pytest.raises(ValueError, match="nearest: p must be 1 or 2, got True"):
        fasthash.nearest(points, p=True)


def test_entropy_compiles() -> None:
    points = torch.rand(50, 3, requires_grad=True)
    compiled = torch.compile(fasthash.entropy, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(points, k=2), fasthash.entropy(points, k=2))
