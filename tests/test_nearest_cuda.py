"""Nearest neighbours and the KL loss on a GPU, at sizes that use the wide tiles (csrc/neighbors/cuda/tiles_cuda.cu).

test_neighbors.py and test_losses_kl.py run small problems on every device; test_nearest_tiles.py runs the tiles without
a GPU. Here the tensor cores themselves are under test: that their sums are as exact as the filter counts on.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fasthash
from fasthash import _ops

CUDA = torch.cuda.is_available() and bool(_ops.cuda_architectures())
pytestmark = pytest.mark.skipif(not CUDA, reason="needs a GPU")


def exact_distances(x: Tensor, y: Tensor, p: int, itself: bool) -> Tensor:
    """[N, M] in float64 from differences, some rows at a time; infinite between a point and itself."""
    found = torch.empty(len(x), len(y), dtype=torch.float64, device=x.device)
    rows = max(1, (1 << 26) // y.numel())
    for start in range(0, len(x), rows):
        difference = x[start : start + rows, None].double() - y.double()
        found[start : start + rows] = difference.norm(p, -1)
    return found.fill_diagonal_(torch.inf) if itself else found


def check(x: Tensor, y: Tensor | None, k: int, p: int) -> None:
    distances, indices = fasthash.nearest(x, y, p=p, k=k)
    exact = exact_distances(x, x if y is None else y, p, y is None)
    nearest = exact.topk(k, largest=False).values
    rounding = 2e-6 + 4e-9 * x.shape[1]  # a sum in ascending order
    torch.testing.assert_close(distances.double(), nearest, rtol=rounding, atol=1e-37)
    torch.testing.assert_close(exact.gather(1, indices), nearest, rtol=rounding, atol=1e-37)
    again = fasthash.nearest(x, y, p=p, k=k)
    assert torch.equal(again[0], distances)
    assert torch.equal(again[1], indices)


def points(kind: str, rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    noise = torch.randn(rows, columns, device="cuda", generator=generator)
    if kind == "normal":
        return noise
    if kind == "offset":
        return noise + 1000
    if kind == "rows of all sizes":
        return noise * torch.logspace(-6, 6, rows, device="cuda")[:, None]
    if kind == "copies":  # pairs that differ by a few units in the last place
        return noise[torch.arange(rows, device="cuda") // 2 * 2] * (1 + 3e-7 * noise)
    corners = torch.randint(0, 2, (20, columns), device="cuda", generator=generator)
    return corners[torch.arange(rows, device="cuda") % 20] + float(kind) * noise


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("kind", ["normal", "offset", "rows of all sizes", "copies", "1e-2", "1e-3", "1e-4"])
@pytest.mark.parametrize(("rows", "targets", "columns"), [(2000, 1500, 64), (1111, 1999, 33), (1500, 1100, 768)])
def test_cuda_nearest_of_many(rows: int, targets: int, columns: int, kind: str, p: int) -> None:
    x, y = points(kind, rows, columns, 0), points(kind, targets, columns, 1)
    for k in (1, 8):
        check(x, y, k, p)
        check(x, None, k, p)


@pytest.mark.parametrize("p", [1, 2])
def test_cuda_nearest_of_rows_that_are_not_aligned(p: int) -> None:
    x = torch.rand(2001 * 64, device="cuda")[7:-57].view(2000, 64)
    check(x, None, 2, p)
    check(x[:1500].clone(), x, 2, p)


@pytest.mark.parametrize("p", [1, 2])
def test_cuda_ties_go_to_the_lowest_index(p: int) -> None:
    x = points("0", 3000, 40, 2)
    _, indices = fasthash.nearest(x, p=p, k=3)
    first = torch.arange(3000, device="cuda") % 20
    others = torch.stack([first + 20 * i for i in range(4)], 1)
    assert torch.equal(indices[80:], others[80:, :3])
    others = others[:80]
    assert torch.equal(indices[:80], others[others != torch.arange(80, device="cuda")[:, None]].view(80, 3))


@pytest.mark.parametrize("p", [1, 2])
def test_cuda_many_small_batches(p: int) -> None:
    x = torch.rand(200, 70, 24, device="cuda")
    y = torch.rand(130, 24, device="cuda")
    for other in (y, y.expand(200, -1, -1).contiguous(), None):
        distances, indices = fasthash.nearest(x, other, p=p, k=2)
        for batch in (0, 57, 199):
            single = fasthash.nearest(x[batch].double(), None if other is None else y.double(), p=p, k=2)
            torch.testing.assert_close(distances[batch].double(), single[0], rtol=1e-5, atol=1e-6)
            assert torch.equal(indices[batch], single[1])


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_cuda_kl_loss_of_many(p: int, k: int) -> None:
    torch.manual_seed(0)
    z, target = (torch.rand(1300, 64, device="cuda", requires_grad=True) for _ in range(2))
    doubles = [a.detach().double().requires_grad_() for a in (z, target)]
    loss, exact = fasthash.kl_loss(z, target, p=p, k=k), fasthash.kl_loss(*doubles, p=p, k=k)
    loss.backward()
    exact.backward()
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    for single, double in zip((z, target), doubles, strict=True):
        same = torch.isclose(single.grad.double(), double.grad, rtol=1e-3, atol=1e-8).all(-1)
        assert same.double().mean() > 0.98  # in float32 a few rows choose another of two neighbours nearly as far
    broken = target.detach().clone()
    broken[1299, 63] = torch.nan
    assert fasthash.kl_loss(z.detach(), broken, p=p, k=k).isnan()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("sampled", [False, True])
def test_cuda_graph_of_kl_loss(p: int, sampled: bool) -> None:
    z = torch.rand(1500, 64, device="cuda", requires_grad=True)
    target = None if sampled else torch.rand(1500, 64, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        loss = fasthash.kl_loss(z, target, p=p)
        return loss, torch.autograd.grad(loss, z)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()  # kernels are loaded at their first launch
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, gradient = step()
    seen = []
    for _ in range(2):
        with torch.no_grad():
            z.copy_(torch.rand(1500, 64, device="cuda"))
        graph.replay()
        assert loss.isfinite()
        assert gradient.isfinite().all()
        seen.append(loss.item())
        if not sampled:
            expected, expected_gradient = step()
            assert torch.equal(loss, expected)
            assert torch.equal(gradient, expected_gradient)
    assert seen[0] != seen[1]


def test_cuda_kl_loss_under_deterministic_algorithms() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        z = torch.rand(1400, 32, device="cuda", requires_grad=True)
        target = torch.rand(1400, 32, device="cuda")
        gradients = [torch.autograd.grad(fasthash.kl_loss(z, target), z)[0] for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
