"""The project's CUDA kernels, run on the CPU under the emulation of CUDA, against the oracles.

Small sizes: odd ones, tile edges, ties, duplicates, filters, empty inputs, strided and misaligned codes, NaN and
infinite rows; several random schedules. Hamming results are equal to the bit; distances and losses to the tolerance of
their type.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from emulation import Emulation, EmulationError
from numpy.typing import NDArray

import fasthash._ops  # noqa: F401 (registers torch.ops.fasthash)
from fasthash import reference

Array = NDArray[Any]
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-13}


def tensor(array: Array | None) -> Any:
    return None if array is None else torch.from_numpy(array)


# Hamming search.


def codes(rng: np.random.Generator, rows: int, width: int) -> Array:
    """Packed codes with many ties: noisy copies of three prototypes, and exact duplicates."""
    prototypes = rng.integers(0, 256, (3, width), dtype=np.uint8)
    noise = rng.integers(0, 256, (rows, width), dtype=np.uint8) & rng.integers(0, 256, (rows, width), dtype=np.uint8)
    out = prototypes[rng.integers(0, 3, rows)] ^ (noise & rng.integers(0, 256, (rows, width), dtype=np.uint8))
    out[: rows // 3] = prototypes[0]
    return rng.permutation(out)


# Every way in which a code's words are loaded: exact widths by vector, padded ones by words and bytes, wide ones from
# memory, with counts in shared and in global memory.
WIDTHS = [1, 2, 3, 4, 8, 9, 12, 16, 31, 32, 33, 48, 64, 96, 128, 144, 265, 272]


def search_case(width: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(width)
    rows, queries = (300, 5) if width <= 64 else (260, 2)
    database = codes(rng, rows, width)
    query = np.concatenate([database[:1], codes(rng, queries - 1, width)])
    return query, database, rng.random(rows) < 0.4


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_hamming_topk(gpu: Emulation, width: int, masked: bool) -> None:
    queries, database, mask = search_case(width)
    mask = mask if masked else None
    for k in (1, 64, len(database)):
        distances, ids = gpu.call("hamming_topk", queries=queries, database=database, k=k, mask=mask, seed=k)
        expected = reference.hamming_topk(tensor(queries), tensor(database), k, mask=tensor(mask))
        np.testing.assert_array_equal(distances, expected[0].numpy())
        np.testing.assert_array_equal(ids, expected[1].numpy())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_hamming_range(gpu: Emulation, width: int, masked: bool) -> None:
    queries, database, mask = search_case(width)
    mask = mask if masked else None
    for radius in (0, 2 * width, 8 * width, 1000 * width):
        found = gpu.call("hamming_range", queries=queries, database=database, radius=radius, mask=mask)
        expected = reference.hamming_range(tensor(queries), tensor(database), radius, mask=tensor(mask))
        for ours, oracle in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, oracle.numpy())


@pytest.mark.parametrize("width", WIDTHS)
def test_hamming_distances_and_histogram(gpu: Emulation, width: int) -> None:
    queries, database, _ = search_case(width)
    distances = gpu.call("hamming_distances", queries=queries, database=database)
    np.testing.assert_array_equal(distances, reference.hamming_distances(tensor(queries), tensor(database)).numpy())
    counts, none = gpu.call("hamming_histogram", queries=queries, database=database)
    np.testing.assert_array_equal(counts, reference.hamming_histogram(tensor(queries), tensor(database))[0].numpy())
    assert none is None


@pytest.mark.parametrize(("width", "classes"), [(1, 1), (8, 40), (9, 3), (16, 5), (64, 2), (265, 2)])
def test_hamming_histogram_sums(gpu: Emulation, width: int, classes: int) -> None:
    queries, database, mask = search_case(width)
    rng = np.random.default_rng(1)
    labels, weights = rng.integers(0, classes, len(database)), rng.standard_normal((len(queries), classes))
    arguments = {"queries": queries, "database": database, "labels": labels, "class_weights": weights}
    counts, sums = gpu.call("hamming_histogram", **arguments)
    expected = reference.hamming_histogram(*(tensor(a) for a in (queries, database, labels, weights)))
    np.testing.assert_array_equal(counts, expected[0].numpy())
    np.testing.assert_allclose(sums, expected[1], rtol=1e-12, atol=1e-12)
    again = gpu.call("hamming_histogram", **arguments, seed=9)[1]
    assert again.tobytes() == sums.tobytes()
    with pytest.raises(EmulationError, match="fh_hamming_histogram_cuda: the mask must be null"):
        gpu.call("hamming_histogram", **arguments, mask=mask)


def test_hamming_histogram_keeps_absent_classes_out(gpu: Emulation) -> None:
    queries, database = np.zeros((1, 4), np.uint8), np.zeros((3, 4), np.uint8)
    weights, labels = np.array([[1.0, np.inf, np.nan]]), np.zeros(3, np.int64)
    _, sums = gpu.call("hamming_histogram", queries=queries, database=database, labels=labels, class_weights=weights)
    assert sums[0, 0] == 3
    assert not sums[0, 1:].any()


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (3, 11), (4, 36), (16, 32), (5, 70), (1, 2)])
@pytest.mark.parametrize("misalign", [0, 3, 4])
def test_hamming_of_a_column_slice(gpu: Emulation, start: int, stop: int, misalign: int) -> None:
    rng = np.random.default_rng(start)
    wide, queries = codes(rng, 270, 71 if start % 2 else 80), codes(rng, 3, stop - start)
    database = np.ascontiguousarray(wide[:, start:stop])
    layout = {"queries": queries, "database": wide, "columns": (start, stop), "misalign": misalign}
    distances, ids = gpu.call("hamming_topk", k=20, **layout)
    expected = reference.hamming_topk(tensor(queries), tensor(database), 20)
    np.testing.assert_array_equal(distances, expected[0].numpy())
    np.testing.assert_array_equal(ids, expected[1].numpy())
    all_distances = reference.hamming_distances(tensor(queries), tensor(database)).numpy()
    np.testing.assert_array_equal(gpu.call("hamming_distances", **layout), all_distances)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 2049, 2304, 2305])
def test_hamming_at_tile_edges(gpu: Emulation, rows: int) -> None:
    """Rows about the ends of lanes, mask words, units of rows and blocks; queries in several tiles and batches."""
    rng = np.random.default_rng(rows)
    database, queries = codes(rng, rows, 8), codes(rng, 3 if rows > 300 else 37, 8)
    for mask in (None, rng.random(rows) < 0.5):
        for k in sorted({1, min(rows, 10), rows}):
            found = gpu.call("hamming_topk", queries=queries, database=database, k=k, mask=mask, seed=rows)
            expected = reference.hamming_topk(tensor(queries), tensor(database), k, mask=tensor(mask))
            np.testing.assert_array_equal(found[0], expected[0].numpy())
            np.testing.assert_array_equal(found[1], expected[1].numpy())


def test_hamming_of_many_queries(gpu: Emulation) -> None:
    """More queries than a batch holds: in the emulation, counts of a batch are small."""
    rng = np.random.default_rng(5)
    database, queries = codes(rng, 2305, 8), codes(rng, 70, 8)
    found = gpu.call("hamming_topk", queries=queries, database=database, k=3)
    expected = reference.hamming_topk(tensor(queries), tensor(database), 3)
    np.testing.assert_array_equal(found[1], expected[1].numpy())
    found = gpu.call("hamming_range", queries=queries, database=database, radius=6)
    expected = reference.hamming_range(tensor(queries), tensor(database), 6)
    np.testing.assert_array_equal(found[2], expected[2].numpy())
    weights, labels = rng.random((70, 200)), rng.integers(0, 200, 2305)
    counts, sums = gpu.call(
        "hamming_histogram", queries=queries, database=database, labels=labels, class_weights=weights
    )
    expected = reference.hamming_histogram(*(tensor(a) for a in (queries, database, labels, weights)))
    np.testing.assert_array_equal(counts, expected[0].numpy())
    np.testing.assert_allclose(sums, expected[1].numpy(), rtol=1e-12)


@pytest.mark.parametrize(("rows", "width", "k"), [(9000, 4, 300), (270_000, 1, 20)])
def test_hamming_of_many_rows(gpu: Emulation, rows: int, width: int, k: int) -> None:
    """So many units of rows that their counts are summed in segments; most have nothing to add to the answer."""
    rng = np.random.default_rng(rows)
    database, queries = (
        rng.integers(0, 256, (rows, width), dtype=np.uint8),
        rng.integers(0, 256, (1, width), dtype=np.uint8),
    )
    for seed in range(2):
        distances, ids = gpu.call("hamming_topk", queries=queries, database=database, k=k, seed=seed)
        expected = reference.hamming_topk(tensor(queries), tensor(database), k)
        np.testing.assert_array_equal(distances, expected[0].numpy())
        np.testing.assert_array_equal(ids, expected[1].numpy())


@pytest.mark.parametrize("k", [1, 7, 600])
def test_hamming_topk_of_equal_codes(gpu: Emulation, k: int) -> None:
    """All distances tie: the lowest positions, in order, whatever the schedule."""
    database, queries = np.full((600, 8), 0xA5, np.uint8), np.full((2, 8), 0xA5, np.uint8)
    for seed in range(3):
        distances, ids = gpu.call("hamming_topk", queries=queries, database=database, k=k, seed=seed)
        assert not distances.any()
        np.testing.assert_array_equal(ids, np.tile(np.arange(k), (2, 1)))


def test_hamming_without_queries_or_codes(gpu: Emulation) -> None:
    none, some = np.zeros((0, 8), np.uint8), np.ones((3, 8), np.uint8)
    assert gpu.call("hamming_topk", queries=none, database=some, k=2)[1].shape == (0, 2)
    distances, ids = gpu.call("hamming_topk", queries=some, database=none, k=2)
    assert (distances == 65).all()
    assert (ids == -1).all()
    assert gpu.call("hamming_distances", queries=none, database=some).shape == (0, 3)
    assert gpu.call("hamming_distances", queries=some, database=none).shape == (3, 0)
    for queries, database in ((none, some), (some, none)):
        offsets, distances, ids = gpu.call("hamming_range", queries=queries, database=database, radius=64)
        assert not offsets.any()
        assert distances.size == ids.size == 0
        counts, _ = gpu.call("hamming_histogram", queries=queries, database=database)
        assert counts.shape == (len(queries), 65)
        assert not counts.any()
        labels, weights = np.zeros(len(database), np.int64), np.ones((len(queries), 2))
        counts, sums = gpu.call(
            "hamming_histogram", queries=queries, database=database, labels=labels, class_weights=weights
        )
        assert not counts.any()
        assert not sums.any()


def test_hamming_where_a_mask_leaves_nothing(gpu: Emulation) -> None:
    database = np.zeros((100, 8), np.uint8)
    arguments = {"queries": database[:2], "database": database, "mask": np.zeros(100, bool)}
    distances, ids = gpu.call("hamming_topk", k=3, **arguments)
    assert (distances == 65).all()
    assert (ids == -1).all()
    assert gpu.call("hamming_range", radius=64, **arguments)[1].size == 0


@pytest.mark.parametrize("misalign", [0, 1, 8])
@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 63, 64, 65, 5000])
def test_hamming_mask(gpu: Emulation, rows: int, misalign: int) -> None:
    """Any byte but 0 is true."""
    rng = np.random.default_rng(rows)
    allowed = np.where(rng.random(rows) < 0.5, rng.integers(0, 256, rows), 0).astype(np.uint8)
    words = gpu.call("hamming_mask", allowed=allowed, misalign=misalign)
    expected = torch.ops.fasthash.hamming_mask(tensor(allowed != 0)).numpy()
    np.testing.assert_array_equal(words, expected)


# Nearest neighbours


def points(kind: str, shape: tuple[int, ...], dtype: Any, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    if kind == "ties":  # small integers: exact distances, most of them shared
        return rng.integers(0, 2, shape).astype(dtype)
    return rng.random(shape).astype(dtype)


SHAPES = [  # L, N, M, D, K
    (1, 2, 1, 1, 1),
    (2, 65, 130, 17, 3),
    (1, 64, 64, 16, 1),
    (1, 63, 257, 33, 5),
    (1, 70, 65, 5, 64),
    (3, 33, 40, 7, 32),
    (2, 20, 12, 200, 2),
]


@pytest.mark.parametrize("kind", ["uniform", "ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_nearest(gpu: Emulation, shape: tuple[int, ...], p: int, dtype: Any, kind: str) -> None:
    batches, rows, targets, columns, k = shape
    x, y = points(kind, (batches, rows, columns), dtype, 0), points(kind, (batches, targets, columns), dtype, 1)
    for other, wanted in ((y, k), (y[0], k), (None, min(k, rows - 1))):
        distances, indices = gpu.call("nearest", x=x, y=other, k=wanted, p=p, seed=k)
        expected = reference.nearest(tensor(x), tensor(other), p=p, k=wanted)
        np.testing.assert_allclose(distances, expected[0].numpy(), rtol=TOLERANCE[np.dtype(dtype)])
        if kind == "ties":
            np.testing.assert_array_equal(indices, expected[1].numpy())
        chosen = np.take_along_axis(all_distances(x, other, p), indices, -1)
        np.testing.assert_allclose(chosen, distances, rtol=TOLERANCE[np.dtype(dtype)])


def all_distances(x: Array, y: Array | None, p: int) -> Array:
    y = x if y is None else y
    return reference.pairwise_distances(tensor(x).double(), tensor(y).double(), p).numpy()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(("rows", "k"), [(90, 64), (200, 8)])  # lists in shared memory, and wide tiles
def test_nearest_is_symmetric_and_deterministic_to_the_bit(gpu: Emulation, rows: int, k: int, p: int) -> None:
    x = points("uniform", (1, rows, 19), np.float32, 3)
    first = gpu.call("nearest", x=x, y=None, k=k, p=p)
    for seed in (1, 2):
        again = gpu.call("nearest", x=x, y=None, k=k, p=p, seed=seed)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    found = {(i, int(j)): d for i in range(rows) for d, j in zip(first[0][0, i], first[1][0, i], strict=True)}
    both = [(found[i, j], found[j, i]) for i, j in found if (j, i) in found]
    assert len(both) > rows
    assert all(a.tobytes() == b.tobytes() for a, b in both)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4])
def test_nearest_on_clustered_codes(gpu: Emulation, p: int, noise: float) -> None:
    """Trained outputs lie near corners, where the expanded form of L2 goes wrong: the true neighbour every time."""
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 2, (12, 64))[rng.integers(0, 12, 120)] + noise * rng.standard_normal((120, 64))).astype(
        np.float32
    )
    _, indices = gpu.call("nearest", x=x[None], y=None, k=1, p=p)
    exact = all_distances(x, None, p)
    np.fill_diagonal(exact, np.inf)
    chosen = exact[np.arange(120), indices[0, :, 0]]
    np.testing.assert_array_equal(chosen.astype(np.float32), exact.min(1).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2])
def test_nearest_puts_nan_last(gpu: Emulation, p: int, dtype: Any) -> None:
    x = points("uniform", (1, 70, 6), dtype, 0)
    y = points("uniform", (1, 140, 6), dtype, 1)
    y[0, ::2] = np.nan
    y[0, 1::4] = np.inf
    distances, indices = gpu.call("nearest", x=x, y=y, k=64, p=p)
    expected = reference.nearest(tensor(x), tensor(y), p=p, k=64)
    np.testing.assert_allclose(distances, expected[0].numpy(), rtol=TOLERANCE[np.dtype(dtype)])
    finite = np.isfinite(distances)
    assert finite[0, :, :35].all()
    assert not finite[0, :, 35:].any()
    np.testing.assert_array_equal(indices[~finite], expected[1].numpy()[~finite])  # infinite ones first, ties by index
    all_nan = gpu.call("nearest", x=np.full((1, 3, 2), np.nan, dtype), y=y[:, :, :2], k=5, p=p)
    assert np.isnan(all_nan[0]).all()
    np.testing.assert_array_equal(all_nan[1], np.tile(np.arange(5), (1, 3, 1)))


def chosen_gradient(x: Array, y: Array | None, p: int, weights: Array, indices: Array) -> tuple[Array, Array | None]:
    """Gradients of sum(weights x distances to the chosen rows) by autograd in float64."""
    points_x = tensor(x).double().requires_grad_()
    points_y = points_x if y is None else tensor(y).double().requires_grad_()
    rows = points_y if points_y.dim() == 3 else points_y.expand(len(x), *points_y.shape)
    picked = torch.stack([r[i] for r, i in zip(rows, tensor(indices), strict=True)])
    difference = points_x.unsqueeze(2) - picked
    if p == 1:
        distances = difference.abs().sum(-1)
    else:
        squared = difference.square().sum(-1)
        distances = torch.where(squared == 0, 0.0, squared.masked_fill(squared == 0, 1.0).sqrt())
    (distances * tensor(weights).double()).sum().backward()
    return points_x.grad.numpy(), None if y is None else points_y.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize(
    "shape",  # L, N, M, D, C
    [(1, 2, 1, 1, 1), (2, 33, 70, 17, 3), (1, 40, 3, 130, 2), (1, 150, 9, 3, 30), (2, 90, 200, 2, 50), (1, 5, 4, 3, 0)],
)
def test_nearest_backward(gpu: Emulation, shape: tuple[int, ...], p: int, dtype: Any) -> None:
    """Any indices will do: some targets chosen by nobody, some by many. Larger cases sort several blocks of keys."""
    batches, rows, targets, columns, chosen = shape
    rng = np.random.default_rng(2)
    x, y = (
        points("uniform", (batches, rows, columns), dtype, 0),
        points("uniform", (batches, targets, columns), dtype, 1),
    )
    weights = rng.standard_normal((batches, rows, chosen)).astype(dtype)
    tolerance = {"rtol": 100 * TOLERANCE[np.dtype(dtype)], "atol": 100 * TOLERANCE[np.dtype(dtype)]}
    for other in (y, None):
        count = rows if other is None else targets
        indices = np.minimum(rng.integers(0, count, weights.shape), rng.integers(0, count, weights.shape))
        if other is None:
            indices = (np.arange(rows)[:, None] + 1 + indices % (rows - 1)) % rows
            indices = np.broadcast_to(indices, weights.shape).copy()
        exact = all_distances(x, other, p)
        distances = np.take_along_axis(exact, indices, -1).astype(dtype)
        arguments = {"x": x, "y": other, "p": p, "weights": weights, "distances": distances, "indices": indices}
        grad_x, grad_y = gpu.call("nearest_backward", **arguments, seed=1)
        again_x, again_y = gpu.call("nearest_backward", **arguments, seed=2)
        assert grad_x.tobytes() == again_x.tobytes()
        expected_x, expected_y = chosen_gradient(x, other, p, weights, indices)
        np.testing.assert_allclose(grad_x, expected_x, **tolerance)
        if other is None:
            continue
        assert grad_y.tobytes() == again_y.tobytes()
        np.testing.assert_allclose(grad_y, expected_y, **tolerance)
        alone, none = gpu.call("nearest_backward", **arguments, want_y=False)
        assert none is None
        assert alone.tobytes() == grad_x.tobytes()


@pytest.mark.parametrize("p", [1, 2])
def test_nearest_backward_of_bad_and_equal_points(gpu: Emulation, p: int) -> None:
    """Coincident points have gradient zero; a row with a NaN has gradient NaN and sends its neighbours nothing."""
    x = np.array([[[0, 0], [0, 0], [1, 0], [np.nan, 0], [np.inf, 0]]], np.float32)
    distances, indices = gpu.call("nearest", x=x, y=None, k=1, p=p)
    np.testing.assert_array_equal(indices[0, :3, 0], [1, 0, 0])
    weights = np.ones((1, 5, 1), np.float32)
    gradient, _ = gpu.call("nearest_backward", x=x, y=None, p=p, weights=weights, distances=distances, indices=indices)
    np.testing.assert_array_equal(gradient[0, :3], [[-1, 0], [0, 0], [1, 0]])
    assert np.isnan(gradient[0, 3:]).all()


# KL loss.


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_kl_loss(gpu: Emulation, shape: tuple[int, ...], p: int, dtype: Any) -> None:
    batches, rows, targets, columns, k = shape
    k = min(k, rows - 1)
    z, target = (
        points("uniform", (batches, rows, columns), dtype, 0),
        points("uniform", (batches, targets, columns), dtype, 1),
    )
    target[:, 0] = z[:, 0]  # a coincident pair
    grad_loss = np.random.default_rng(3).standard_normal(batches).astype(dtype)
    exact_z, exact_target = tensor(z).double().requires_grad_(), tensor(target).double().requires_grad_()
    expected = reference.kl_loss(exact_z, exact_target, p=p, k=k, eps=1e-2)
    expected.backward(tensor(grad_loss).double())
    arguments = {"z": z, "target": target, "k": k, "p": p, "eps": 1e-2, "grad_loss": grad_loss}
    first = gpu.call("kl_loss", **arguments, seed=1)
    tolerance = {"rtol": 1e3 * TOLERANCE[np.dtype(dtype)], "atol": 10 * TOLERANCE[np.dtype(dtype)]}
    for ours, oracle in zip(first, (expected.detach(), exact_z.grad, exact_target.grad), strict=True):
        np.testing.assert_allclose(ours, oracle.numpy(), **tolerance)
    again = gpu.call("kl_loss", **arguments, seed=2)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    without = gpu.call("kl_loss", **arguments, want_target=False)
    assert without[1].tobytes() == first[1].tobytes()
    assert without[2] is None


def test_kl_loss_with_one_target_for_all_batches(gpu: Emulation) -> None:
    z, target = points("uniform", (3, 20, 9), np.float32, 0), points("uniform", (30, 9), np.float32, 1)
    arguments = {"k": 2, "p": 1, "eps": 1e-2, "grad_loss": np.array([1, 2, -1], np.float32)}
    shared = gpu.call("kl_loss", z=z, target=target, **arguments)
    copied = gpu.call("kl_loss", z=z, target=np.broadcast_to(target, (3, 30, 9)), **arguments)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(shared, copied, strict=True))


def test_kl_loss_with_eps_zero(gpu: Emulation) -> None:
    """Coincident points and eps = 0: the loss is infinite or NaN, the gradient zero there."""
    z = points("ties", (1, 12, 2), np.float32, 0)
    _, grad_z, grad_target = gpu.call(
        "kl_loss", z=z, target=z[:, :5].copy(), k=1, p=1, eps=0.0, grad_loss=np.ones(1, np.float32)
    )
    assert np.isfinite(grad_z).all()
    assert np.isfinite(grad_target).all()


@pytest.mark.parametrize("p", [1, 2])
def test_kl_loss_at_the_ends_of_float32(gpu: Emulation, p: int) -> None:
    """Points that nearly coincide have finite gradients, not 1 / distance; distances beyond float32 give NaN."""
    arguments = {"k": 1, "p": p, "grad_loss": np.ones(1, np.float32)}
    z, target = points("uniform", (1, 20, 4), np.float32, 0), points("uniform", (1, 20, 4), np.float32, 1)
    for scale, eps in itertools.product((1e-20, 1e-30, 1e-42), (0.0, 1e-44)):
        tiny = {"z": (z * scale).astype(np.float32), "target": (target * scale).astype(np.float32)}
        _, grad_z, grad_target = gpu.call("kl_loss", **tiny, eps=eps, **arguments)
        assert np.isfinite(grad_z).all()
        assert np.isfinite(grad_target).all()
    z[0, 3] = 3e38 * np.array([1, -1, 1, -1], np.float32)
    z[0, 7] = -z[0, 3]
    loss, grad_z, grad_target = gpu.call("kl_loss", z=z, target=target, eps=1e-2, **arguments)
    assert np.isnan(loss).all()
    assert np.isnan(grad_z[0, [3, 7]]).all()
    assert np.isfinite(np.delete(grad_z[0], [3, 7], axis=0)).all()
    assert np.isfinite(grad_target).all()
    arguments["grad_loss"] *= np.inf  # what a loss scale that overflowed looks like
    _, grad_z, _ = gpu.call("kl_loss", z=target, target=target[:, ::2], eps=1e-2, **arguments)
    assert not np.isfinite(grad_z).all(-1).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["z", "target"])
@pytest.mark.parametrize("p", [1, 2])
def test_kl_loss_of_bad_rows(gpu: Emulation, p: int, where: str, value: float) -> None:
    """The batch's loss is NaN, and the bad row's gradient; other rows and batches are as without it."""
    z, target = points("uniform", (2, 70, 5), np.float32, 0), points("uniform", (2, 150, 5), np.float32, 1)
    arguments = {"k": 2, "p": p, "eps": 1e-2, "grad_loss": np.ones(2, np.float32)}
    clean = gpu.call("kl_loss", z=z, target=target, **arguments)
    (z if where == "z" else target)[0, 66, 3] = value
    loss, grad_z, grad_target = gpu.call("kl_loss", z=z, target=target, **arguments)
    assert np.isnan(loss[0])
    assert loss[1] == clean[0][1]
    assert grad_z[1].tobytes() == clean[1][1].tobytes()
    bad, other = (grad_z, grad_target) if where == "z" else (grad_target, grad_z)
    assert np.isnan(bad[0, 66]).all()
    assert np.isfinite(np.delete(bad[0], 66, axis=0)).all()
    assert np.isfinite(other[0]).all()


# Pairwise distances and samples


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (2, 33), (32, 16), (33, 32), (64, 5), (65, 17), (130, 40), (5, 0)]
)
def test_pairwise_l1(gpu: Emulation, rows: int, columns: int, dtype: Any) -> None:
    rng = np.random.default_rng(rows)
    z, grad = rng.standard_normal((rows, columns)).astype(dtype), rng.standard_normal((rows, rows)).astype(dtype)
    z[rows // 2] = z[0]
    distances = gpu.call("pairwise_l1", z=z, seed=1)
    expected = reference.pairwise_distances(tensor(z).double(), tensor(z).double(), 1).numpy()
    np.testing.assert_allclose(distances, expected, rtol=TOLERANCE[np.dtype(dtype)], atol=1e-30)
    assert distances.tobytes() == np.ascontiguousarray(distances.T).tobytes()
    grad_z = gpu.call("pairwise_l1_backward", z=z, grad=grad, seed=1)
    signs = np.sign(z[:, None] - z[None]).astype(np.float64)
    exact = ((grad + grad.T)[:, :, None] * signs).sum(1)
    np.testing.assert_allclose(grad_z, exact, rtol=TOLERANCE[np.dtype(dtype)], atol=100 * TOLERANCE[np.dtype(dtype)])
    assert gpu.call("pairwise_l1_backward", z=z, grad=grad, seed=2).tobytes() == grad_z.tobytes()


def test_pairwise_l1_of_bad_rows(gpu: Emulation) -> None:
    z = points("uniform", (70, 3), np.float32, 0)
    z[66, 1] = np.nan
    distances = gpu.call("pairwise_l1", z=z)
    assert not np.diag(distances).any()
    bad = np.zeros((70, 70), bool)
    bad[66] = bad[:, 66] = True
    np.testing.assert_array_equal(np.isnan(distances), bad & ~np.eye(70, dtype=bool))
    gradient = gpu.call("pairwise_l1_backward", z=z, grad=np.ones((70, 70), np.float32))
    exact = 2 * np.nan_to_num(np.sign(z[:, None] - z[None])).sum(1)
    np.testing.assert_array_equal(gradient, exact)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 1023, 1024, 1025, 3000])
def test_beta_sample(gpu: Emulation, count: int) -> None:
    """The same samples as on the CPU, to the last units of float32."""
    samples = gpu.call("beta_sample", random_seed=-7, count=count)
    expected = torch.ops.fasthash.beta_sample(torch.tensor([-7]), count).numpy()
    np.testing.assert_allclose(samples, expected, rtol=1e-6)


# Workspaces


def test_a_short_workspace_is_refused(gpu: Emulation) -> None:
    code, x = np.zeros((3, 8), np.uint8), np.zeros((1, 300, 2), np.float32)
    some = {"weights": x[:, :, :1], "distances": x[:, :, :1], "indices": np.zeros((1, 300, 1), np.int64)}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("fh_hamming_topk_cuda", {"operation": "hamming_topk", "queries": code, "database": code, "k": 1}),
        ("fh_hamming_range_count_cuda", {"operation": "hamming_range", "queries": code, "database": code, "radius": 1}),
        ("fh_hamming_histogram_cuda", {"operation": "hamming_histogram", "queries": code, "database": code}),
        ("fh_nearest_cuda", {"operation": "nearest", "x": x, "y": None, "k": 1, "p": 1}),
        ("fh_nearest_backward_cuda", {"operation": "nearest_backward", "x": x, "y": x, "p": 1, **some}),
        (
            "fh_kl_loss_cuda",
            {
                "operation": "kl_loss",
                "z": x,
                "target": x,
                "k": 1,
                "p": 1,
                "eps": 1.0,
                "grad_loss": np.ones(1, np.float32),
            },
        ),
    ]
    for (name, arguments), shortfall in itertools.product(calls, (0, 10**9)):
        operation = arguments["operation"]
        rest = {key: value for key, value in arguments.items() if key != "operation"}
        if shortfall == 0:
            gpu.call(operation, **rest)
            continue
        with pytest.raises(EmulationError, match=rf"^{name}: the workspace must have \d+ bytes, got -\d+$"):
            gpu.call(operation, shortfall=shortfall, **rest)


# What goes wrong at a launch


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (35, "CUDA driver version is insufficient for CUDA runtime version; the driver is missing or too old"),
        (98, "invalid device function; fasthash was built for other GPUs"),
        (
            222,
            "the provided PTX was compiled with an unsupported toolchain.; the driver is older than the CUDA toolkit",
        ),
        (209, "no kernel image is available for execution on the device; fasthash was built for other GPUs"),
    ],
)
def test_a_launch_that_fails_names_its_kernel(gpu: Emulation, error: int, words: str) -> None:
    code, x = np.zeros((3, 8), np.uint8), np.zeros((1, 30, 2), np.float32)
    hamming = {"queries": code, "database": code}
    calls: dict[str, dict[str, Any]] = {
        "hamming_topk": {**hamming, "k": 1},
        "hamming_range": {**hamming, "radius": 1},
        "hamming_distances": hamming,
        "hamming_mask": {"allowed": code[0]},
        "hamming_histogram": {**hamming, "labels": np.zeros(3, np.int64), "class_weights": np.ones((3, 1))},
        "nearest": {"x": x, "y": None, "k": 1, "p": 1},
        "kl_loss": {"z": x, "target": x, "k": 1, "p": 1, "eps": 1.0, "grad_loss": np.ones(1, np.float32)},
        "pairwise_l1": {"z": x[0]},
        "pairwise_l1_backward": {"z": x[0], "grad": np.zeros((30, 30), np.float32)},
        "beta_sample": {"random_seed": 1, "count": 5},
    }
    for operation, arguments in calls.items():
        with pytest.raises(EmulationError, match=rf"^\w+_kernel(<\w+>)?: {words}"):
            gpu.call(operation, fault=-error, **arguments)
        gpu.call(operation, **arguments)  # it goes on
