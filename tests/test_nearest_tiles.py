"""The nearest-neighbour search by wide tiles on CUDA (csrc/neighbors/cuda/tiles_cuda.cu), under the emulation.

There every problem of more than one tile of 128 x 128 pairs goes this way, and the tensor cores are as inexact as the
filter of Euclidean distances allows for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from emulation import ROOT, SOURCES, Emulation, EmulationError, build, compiler, with_faults
from numpy.typing import NDArray

from fasthash import reference

Array = NDArray[Any]


def exact_distances(x: Array, y: Array | None, p: int) -> Array:
    """[L, N, M] in float64; a point is infinitely far from itself."""
    with np.errstate(all="ignore"):
        difference = x[:, :, None].astype(np.float64) - (x if y is None else y)[..., None, :, :].astype(np.float64)
        distances = np.abs(difference).sum(-1) if p == 1 else np.sqrt((difference**2).sum(-1))
    if y is None:
        distances[:, np.arange(x.shape[1]), np.arange(x.shape[1])] = np.inf
    return distances


def check(gpu: Emulation, x: Array, y: Array | None, k: int, p: int, **rest: Any) -> None:
    """Each distance found is the next nearest there is, up to the rounding of float32, and no index comes twice."""
    distances, indices = gpu.call("nearest", x=x, y=y, k=k, p=p, **rest)
    exact = exact_distances(x, y, p)
    nearest = np.sort(exact, -1)[..., :k]
    np.testing.assert_allclose(distances, nearest, rtol=2e-6, atol=1e-37)
    np.testing.assert_allclose(np.take_along_axis(exact, indices, -1), nearest, rtol=2e-6, atol=1e-37)
    assert (np.diff(distances, axis=-1) >= 0).all()
    assert (np.diff(np.sort(indices, -1), axis=-1) > 0).all()
    tied = np.diff(distances, axis=-1) == 0
    assert (np.diff(indices, axis=-1)[tied] > 0).all()


def uniform(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def clustered(seed: int, rows: int, columns: int, noise: float, clusters: int = 9) -> Array:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 2, (clusters, columns))[rng.integers(0, clusters, rows)]
    return (corners + noise * rng.standard_normal((rows, columns))).astype(np.float32)[None]


SHAPES = [  # L, N, M, D
    (1, 129, 1, 1),
    (1, 128, 129, 16),
    (2, 130, 140, 17),
    (1, 257, 255, 4),
    (1, 200, 300, 33),
    (3, 20, 9, 40),
    (1, 5, 260, 3),
]


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_sizes(gpu: Emulation, shape: tuple[int, int, int, int], p: int) -> None:
    batches, rows, targets, columns = shape
    x, y = uniform(1, batches, rows, columns), uniform(2, batches, targets, columns)
    for other in (y, y[0], None):
        for k in (1, min(8, targets, rows - 1)):
            check(gpu, x, other, k, p, seed=rows)


@pytest.mark.parametrize("p", [1, 2])
def test_rows_that_are_not_aligned(gpu: Emulation, p: int) -> None:
    x, y = uniform(1, 1, 20, 8), uniform(2, 1, 140, 8)
    check(gpu, x, y, 2, p, misalign=4)
    check(gpu, y, None, 2, p, misalign=8)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_ties_go_to_the_lowest_index(gpu: Emulation, k: int, p: int) -> None:
    rng = np.random.default_rng(k)
    x, y = (rng.integers(0, 2, (2, 150, 7)).astype(np.float32) for _ in range(2))
    for other in (y, None):
        for seed in range(3):
            distances, indices = gpu.call("nearest", x=x, y=other, k=k, p=p, seed=seed)
            expected = reference.nearest(
                torch.from_numpy(x), None if other is None else torch.from_numpy(other), p=p, k=k
            )
            np.testing.assert_array_equal(indices, expected[1].numpy())
            np.testing.assert_allclose(distances, expected[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-6])
def test_clustered_codes(gpu: Emulation, p: int, noise: float) -> None:
    """What training makes, where the expanded form of L2 alone picks wrong neighbours."""
    x, y = clustered(0, 260, 64, noise), clustered(1, 150, 64, noise)
    for other in (None, y):
        check(gpu, x, other, 1, p)
        check(gpu, x, other, 5, p)


def rounded_apart() -> tuple[Array, Array]:
    """A point whose nearest target TF32 puts 2 radii further away, and its second nearest nearer. The centre is 0."""
    unit = 2.0**-10  # of TF32, between 1 and 2
    x = np.random.default_rng(0).integers(1240, 1270, (1, 1, 16)) * unit + unit * (0.5 + 2.0**-10)
    y = np.zeros((1, 144, 16))
    y[:, 1] = x[:, 0] + 200.2 * unit
    y[:, 5] = x[:, 0] - (200 + 2.0**-9) * unit
    return x.astype(np.float32), y.astype(np.float32)


def test_rounding_at_its_worst(gpu: Emulation) -> None:
    x, y = rounded_apart()
    _, indices = gpu.call("nearest", x=x, y=y, k=1, p=2)
    assert indices[0, 0, 0] == 5


@pytest.mark.parametrize("k", [1, 3])
def test_duplicates_cost_no_more_than_other_points(gpu: Emulation, k: int) -> None:
    """Lists full of zeros take no lower bound of zero from behind."""
    corners = np.random.default_rng(k).integers(0, 2, (1, 4, 8))
    equal = np.ones((1, 140, 8), np.float32)
    switches = []
    for x in (uniform(0, 1, 140, 8), equal, corners[:, np.arange(140) % 4].astype(np.float32)):
        before = gpu.call("switches")
        found = gpu.call("nearest", x=x, y=None, k=k, p=2)
        switches.append(gpu.call("switches") - before)
        if x is equal:
            assert not found[0].any()
            np.testing.assert_array_equal(found[1][0, k:], np.tile(np.arange(k), (140 - k, 1)))
    assert max(switches) < 1.3 * switches[0]


@pytest.mark.parametrize("offset", [10.0, 1e4, 1e6])
def test_large_offsets(gpu: Emulation, offset: float) -> None:
    x = (uniform(4, 1, 200, 24) + np.float32(offset)).astype(np.float32)
    check(gpu, x, None, 3, 2)
    check(gpu, x, x[:, ::-1].copy() + np.float32(0.25), 2, 2)


@pytest.mark.parametrize("scale", [1e-25, 2.6e-23, 1e-18, 1e-9, 1e9, 1e17])
def test_scales(gpu: Emulation, scale: float) -> None:
    x = ((uniform(5, 1, 180, 12) - np.float32(0.5)) * np.float32(scale)).astype(np.float32)
    check(gpu, x, None, 2, 1)
    distances, indices = gpu.call("nearest", x=x, y=None, k=2, p=2)
    if scale >= 1e-18:
        check(gpu, x, None, 2, 2)
    else:  # squares vanish: zero everywhere, ties by index
        assert not distances.any()
        np.testing.assert_array_equal(indices[0, 3:], np.tile([0, 1], (177, 1)))


def test_forms_that_overflow(gpu: Emulation) -> None:
    """Squared norms less the centre are infinite, then these differences themselves, and distances are not."""
    side = np.where(np.arange(180) % 2 == 0, 3e19, -3e19)[:, None]
    check(gpu, (side + uniform(5, 1, 180, 12) * 1e18).astype(np.float32), None, 2, 2)
    y = np.zeros((1, 140, 1), np.float32)
    y[0, 1:3] = [[6e18], [8e18]]
    check(gpu, np.full((1, 1, 1), 2e19, np.float32), y, 1, 2)
    rows = np.arange(140)
    pairs = np.where(rows < 120, 3e38, -3e38) * (1 - 0.005 * (rows // 2))
    distances, indices = gpu.call("nearest", x=np.tile(pairs[None, :, None].astype(np.float32), 4), y=None, k=1, p=2)
    assert not distances.any()
    np.testing.assert_array_equal(indices[0, :, 0], rows ^ 1)


def test_a_row_far_from_the_others(gpu: Emulation) -> None:
    """It makes neither the centre nor the error of other rows' bounds wrong; squares that overflow are infinite."""
    x = uniform(6, 1, 190, 16)
    x[0, 130] = 1e30
    x[0, 3] = -1e12
    for k in (1, 4):
        distances, indices = gpu.call("nearest", x=x, y=None, k=k, p=2)
        expected = reference.nearest(torch.from_numpy(x), None, p=2, k=k)
        np.testing.assert_allclose(distances, expected[0].numpy(), rtol=1e-5)
        kept = np.arange(190) != 130
        np.testing.assert_array_equal(indices[0, kept], expected[1].numpy()[0, kept])
        assert np.isinf(distances[0, 130]).all()
        np.testing.assert_array_equal(indices[0, 130], np.arange(k))


@pytest.mark.parametrize("p", [1, 2])
def test_rows_that_are_not_finite_come_last(gpu: Emulation, p: int) -> None:
    x, y = uniform(7, 1, 140, 6), uniform(8, 1, 150, 6)
    y[0, 5:] = np.nan
    y[0, 100:104] = np.inf
    x[0, 77, 2] = np.nan
    distances, indices = gpu.call("nearest", x=x, y=y, k=8, p=p)
    fine = np.arange(140) != 77
    near = np.argsort(exact_distances(x[:, fine], y[:, :5], p), -1)
    np.testing.assert_array_equal(indices[:, fine, :5], near)
    np.testing.assert_array_equal(indices[:, fine, 5:], np.tile([100, 101, 102], (1, 139, 1)))
    assert np.isinf(distances[:, fine, 5:]).all()
    assert np.isnan(distances[0, 77]).all()
    np.testing.assert_array_equal(indices[0, 77], np.arange(8))


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("where", ["z", "target", None])
def test_kl_loss_learns_of_bad_rows(gpu: Emulation, p: int, where: str | None) -> None:
    """Only the batch that holds them is NaN, wherever they are in it."""
    for row in (0, 130, 149):
        points = {"z": uniform(9, 2, 150, 5), "target": uniform(10, 2, 160, 5)}
        if where is not None:
            points[where][1, row, 4] = np.inf
        ones = np.ones(2, np.float32)
        loss, grad_z, _ = gpu.call("kl_loss", **points, k=2, p=p, eps=0.01, grad_loss=ones)
        z, target = (torch.from_numpy(points[name]).double() for name in ("z", "target"))
        expected = reference.kl_loss(z[:1], target[:1], p=p, k=2, eps=0.01)
        np.testing.assert_allclose(loss[0], expected[0], rtol=1e-5)
        assert np.isnan(loss[1]) == (where is not None)
        assert np.isnan(grad_z[1, row]).all() == (where == "z")
        assert np.isfinite(grad_z[0]).all()
        loss, _, _ = gpu.call("kl_loss", z=points["z"], target=points["target"][1], k=2, p=p, eps=0.01, grad_loss=ones)
        assert np.isnan(loss).tolist() == [where == "target", where is not None]


def test_one_way_for_the_targets_and_another_for_the_others(gpu: Emulation) -> None:
    """150 targets of 100 points are two tiles, the 100 points among themselves one."""
    z, target = uniform(11, 1, 100, 8), uniform(12, 1, 150, 8)
    for p in (1, 2):
        loss, _, _ = gpu.call("kl_loss", z=z, target=target, k=3, p=p, eps=0.01, grad_loss=np.ones(1, np.float32))
        points = [torch.from_numpy(a).double() for a in (z, target)]
        np.testing.assert_allclose(loss, reference.kl_loss(*points, p=p, k=3, eps=0.01), rtol=1e-5)


# Faults (emulation.with_faults).

FAULTS = {
    "columns are used before they are staged": (
        "a.finite() && b.finite();\n        __syncthreads();",
        "a.finite() && b.finite();\n        if (!FAULT) __syncthreads();",
    ),
    "rows are used before they are staged": (
        "b.store_rounded(rows.b[buffer], middle);\n        __syncthreads();",
        "b.store_rounded(rows.b[buffer], middle);\n        if (!FAULT) __syncthreads();",
    ),
    "keys overwrite columns that others read": (
        "__syncthreads();  // the staged columns are done with",
        "if (!FAULT) __syncthreads();",
    ),
    "keys overwrite rows that others read": (
        "__syncthreads();  // the staged rows are done with",
        "if (!FAULT) __syncthreads();",
    ),
    "the last column of a chunk is left out": ("c < kWideChunk; ++c", "c < kWideChunk - FAULT; ++c"),
    "the second half of the columns is that of the first": ("[k + t + q / 2 * 4]", "[k + t + (FAULT ? 0 : q / 2 * 4)]"),
    "a tile ends one row late": (
        "y.count = min(search.M - y.first,",
        "y.count = min(search.M + FAULT - y.first,",
    ),
    "the other side of a pair is not served": ("self && down != across", "self && !FAULT && down != across"),
    "a point is its own neighbour": ("index != itself)", "(FAULT || index != itself))"),
    "a list passes the wrong value on": ("there > entry ? there : entry", "(there > entry) != FAULT ? there : entry"),
    "the tensor cores' error is not allowed for": ("- squared_error(D)", "- (FAULT ? 0.0f : squared_error(D))"),
    "the rounding to TF32 is not allowed for": (
        "static_cast<float>(sqrt(apart)) * (1.0f + 0x1p-20f)",
        "(FAULT ? 0.0f : static_cast<float>(sqrt(apart)) * (1.0f + 0x1p-20f))",
    ),
    "the row's own rounding is not allowed for": (
        "radii = here.forms[here.first + warp_first + lane].radius",
        "radii = (FAULT ? 0.0f : here.forms[here.first + warp_first + lane].radius)",
    ),
    "the candidates' rounding is not allowed for": (
        "fmaxf(largest, forms[i].radius)",
        "fmaxf(largest, FAULT ? 0.0f : forms[i].radius)",
    ),
    "rows that are not aligned are read as if they were": ("% 16 == 0; }", "% 16 == 0 || FAULT; }"),
    "bad targets are looked for in the first tile alone": ("down == 0 ||", "(!FAULT && down == 0) ||"),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Iterator[Emulation]:
    """The search with all these faults in it."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    faults = [("tiles_cuda.cu", *texts) for texts in FAULTS.values()]
    change = with_faults(faults, ["neighbors/cuda/wide_tile.cuh"])
    parts = {"csrc/neighbors/cuda", "csrc/core", "tests/emulation"}
    sources = [source for source in SOURCES if str(source.parent.relative_to(ROOT)) in parts]
    emulation = Emulation(build([source for source in sources if source.name != "toy_kernels.cu"], change))
    yield emulation
    emulation.close()


def wrong(gpu: Emulation, fault: int, seed: int) -> bool:
    """Whether a few searches under one schedule tell the fault."""
    try:
        for p in (1, 2):
            check(gpu, uniform(seed, 1, 150, 20), uniform(seed + 9, 1, 131, 20), 3, p, seed=seed, fault=fault)
            check(gpu, uniform(seed, 1, 140, 20), None, 4, p, seed=seed, fault=fault, misalign=4)
        check(gpu, clustered(seed, 140, 64, 1e-4, 2) + np.float32(2), None, 1, 2, seed=seed, fault=fault)
        spread = uniform(seed, 1, 200, 64) * 1000
        close = (spread[:, ::-1] * np.float32(1 + 1e-6)).astype(np.float32)
        check(gpu, spread, np.concatenate([spread * np.float32(1 + 2e-6), close], 1), 1, 2, seed=seed, fault=fault)
        check(gpu, *rounded_apart(), 1, 2, seed=seed, fault=fault)
        target = uniform(seed, 1, 150, 5)
        target[0, 140] = np.nan
        rest = {"k": 1, "p": 1, "eps": 0.01, "grad_loss": np.ones(1, np.float32), "seed": seed, "fault": fault}
        return not np.isnan(gpu.call("kl_loss", z=uniform(3, 1, 20, 5), target=target, **rest)[0][0])
    except (AssertionError, EmulationError):
        return True


def test_no_fault(faulty: Emulation) -> None:
    assert not any(wrong(faulty, 0, seed) for seed in range(3))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(faulty: Emulation, fault: str) -> None:
    number = 1 + list(FAULTS).index(fault)
    assert any(wrong(faulty, number, seed) for seed in range(6))
