"""Quantisers without training: the estimates are as good as the papers say, and codes are the best of their grid."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fasthash import HammingIndex, pack_bits, unpack_bits
from fasthash._checkpoint import GRID, save_checkpoint
from fasthash.baselines import (
    GridCodes,
    LinearCodes,
    grid_osq,
    grid_rabitq,
    grid_turboquant,
    itq,
    lsh,
    osq,
    pca_sign,
    rabitq,
    turboquant,
)
from fasthash.baselines.quantisers import random_rotation

METHODS = {"rabitq": rabitq, "osq": osq, "turboquant": turboquant}
LINEAR = {"lsh": lsh, "pca_sign": pca_sign, "itq": itq}
PLANES = [1, 2, 3, 4]

pytestmark = pytest.mark.usefixtures("one_thread")

every_method = pytest.mark.parametrize("name", METHODS)
every_width = pytest.mark.parametrize("planes", PLANES)


@pytest.fixture
def X() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(300, 13)) * np.linspace(3, 0.5, 13) + 5).astype(np.float32)


def estimates(codes: GridCodes, queries: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Of <q, x - mean>, [Q, N]: a scan of all codes in numpy."""
    packed = codes.encode(X)
    signs = 2.0 * unpack_bits(packed, codes.bits) - 1.0
    return codes.queries(queries).astype(np.float64) @ signs.T * codes.scales(X, packed).astype(np.float64)


def level_numbers(codes: GridCodes, X: np.ndarray) -> np.ndarray:
    """From the planes of packed codes, [N, F]."""
    planes = unpack_bits(codes.encode(X), codes.bits).reshape(len(X), len(codes.weights), -1)
    return np.einsum("p,npf->nf", 2 ** np.arange(len(codes.weights))[::-1], planes)


@every_method
@every_width
def test_shapes_types_and_kinds(X: np.ndarray, name: str, planes: int) -> None:
    codes = METHODS[name](X, planes)
    assert (codes.bits, codes.n_features_in_) == (13 * planes, 13)
    assert repr(codes) == f"GridCodes('{name}', 13 features, {planes} bits a dimension)"
    packed, tensor = codes.encode(X), codes.encode(torch.from_numpy(X))
    assert packed.shape == (300, math.ceil(13 * planes / 8))
    assert (packed.dtype, tensor.dtype) == (np.uint8, torch.uint8)
    np.testing.assert_array_equal(tensor.numpy(), packed)
    np.testing.assert_array_equal(codes.encode(X.astype(np.float64)), packed)
    np.testing.assert_array_equal(codes.encode(X[7]), packed[7:8])
    scales = codes.scales(X, packed)
    assert (scales.shape, scales.dtype) == ((300,), np.float16)
    torch.testing.assert_close(codes.scales(torch.from_numpy(X), tensor), torch.from_numpy(scales), atol=0, rtol=0)
    np.testing.assert_array_equal(codes.scales(X[7], packed[7]), scales[7:8])
    queries = codes.queries(X[:5])
    assert (queries.shape, queries.dtype) == ((5, 13 * planes), np.float32)
    np.testing.assert_array_equal(codes.queries(X[4])[0], queries[4])
    assert codes.transform(X).dtype == np.float32


@every_method
@every_width
def test_codes_serve_an_index(X: np.ndarray, name: str, planes: int) -> None:
    codes = METHODS[name](X, planes)
    index = HammingIndex(codes.bits)
    index.add(codes.encode(X))
    assert index.search(codes.encode(X[:3]), 1).distances.tolist() == [[0], [0], [0]]


@every_method
def test_the_first_plane_is_the_signs(X: np.ndarray, name: str) -> None:
    for planes in PLANES:
        codes = METHODS[name](X, planes)
        first = unpack_bits(codes.encode(X), codes.bits)[:, :13]
        np.testing.assert_array_equal(first, codes.transform(X) > 0)
        np.testing.assert_array_equal(pack_bits(first), METHODS[name](X, 1).encode(X))


@every_method
@every_width
def test_in_blocks(X: np.ndarray, name: str, planes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = METHODS[name](X, planes)
    packed = codes.encode(X)
    scales = codes.scales(X, packed)
    monkeypatch.setattr("fasthash.baselines.grid_codes.BLOCK", 100)
    monkeypatch.setattr("fasthash.baselines.rows.BLOCK", 100)
    np.testing.assert_array_equal(codes.encode(X), packed)
    np.testing.assert_array_equal(codes.scales(X, packed), scales)
    assert codes.encode(X[:0]).shape == (0, packed.shape[1])
    assert codes.scales(X[:0], packed[:0]).shape == (0,)


@pytest.mark.parametrize("features", [1, 2, 13, 64])
def test_a_random_rotation_is_orthonormal(features: int) -> None:
    rotation = random_rotation(features, 3)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(features), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation, random_rotation(features, 3), atol=0, rtol=0)
    assert features == 1 or not torch.equal(rotation, random_rotation(features, 4))


def test_random_rotations_have_no_preferred_direction() -> None:
    """The image of an axis is uniform on the sphere: QR alone, without the signs of R, has a bias on its diagonal."""
    first = torch.stack([random_rotation(4, seed)[0] for seed in range(2000)]).double()
    error = 1 / math.sqrt(4 * 2000)
    assert first.mean(0).abs().max() < 4 * error
    assert (first.square().mean(0) - 0.25).abs().max() < 4 * math.sqrt(0.125 / 2000)


@pytest.mark.parametrize("name", ["rabitq", "turboquant"])
@every_width
def test_estimates_are_unbiased(name: str, planes: int) -> None:
    """Over random rotations, for rows and queries that have nothing to do with the axes."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(6, 24)).astype(np.float32)
    X[0] *= 5
    query = (X[1] + 0.3 * rng.normal(size=24)).astype(np.float32)[None]
    found, exact = [], query @ (X - X.mean(0)).T
    codes = METHODS[name](X, planes)
    for seed in range(400):
        found.append(estimates(replace(codes, rotation=random_rotation(24, seed)), query, X)[0])
    errors = np.array(found) - exact
    size = np.abs(exact).max()  # float16 rounds to 5e-4 of a scale, alike in all rotations only where it is 1 bit
    assert (np.abs(errors.mean(0)) < 4 * errors.std(0) / math.sqrt(400) + 1e-4 * size).all()


def test_the_error_is_that_of_the_paper() -> None:
    """RaBitQ of 1 bit: |o| <o, l> / |l| is near sqrt(2 / pi), and the error of <q, o> is sqrt((1 / a^2 - 1) / (F - 1)).

    Gao & Long, 2024, lemma 3.2 and theorem 3.2, with a = <o, l> / |l|, for a query that is orthogonal to o.
    """
    features = 128
    rng = np.random.default_rng(0)
    row = rng.normal(size=features)
    query = rng.normal(size=features)
    query -= row * (query @ row) / (row @ row)
    pair = (np.stack([row, -row]) / np.linalg.norm(row)).astype(np.float32)  # their mean is 0
    found, cosines = [], []
    for seed in range(300):
        codes = rabitq(pair, 1, seed=seed)
        found.append(estimates(codes, (query / np.linalg.norm(query)).astype(np.float32)[None], pair)[0, 0])
        cosines.append(np.abs(codes.transform(pair)[0]).sum() / math.sqrt(features))
    assert np.mean(cosines) == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)
    expected = math.sqrt((1 / np.mean(cosines) ** 2 - 1) / (features - 1))
    assert np.std(found) == pytest.approx(expected, rel=0.15)


@every_method
def test_the_error_falls_with_bits(name: str) -> None:
    """By nearly half with each bit: 2^-B in the papers, for normal rows."""
    rng = np.random.default_rng(1)
    X, Q = rng.normal(size=(400, 96)).astype(np.float32), rng.normal(size=(50, 96)).astype(np.float32)
    errors = []
    for planes in PLANES:
        codes = METHODS[name](X, planes)
        errors.append(np.sqrt(np.mean((estimates(codes, Q, X) - Q @ (X - codes.mean.numpy()).T) ** 2)))
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert (ratios > 1.6).all(), ratios
    assert (ratios < 2.3).all(), ratios


@every_method
def test_more_bits_find_no_less(name: str) -> None:
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(1500, 8)) @ rng.normal(size=(8, 40)) + 0.3 * rng.normal(size=(1500, 40))).astype(np.float32)
    Q, X = X[:100], X[100:]
    nearest = np.argsort(-(Q @ X.T), axis=1)[:, :10]
    recalls = []
    for planes in PLANES:
        found = np.argsort(-estimates(METHODS[name](X, planes), Q, X), axis=1)[:, :10]
        recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest, strict=True)]))
    assert recalls == sorted(recalls)
    assert recalls[-1] > 0.9


@pytest.mark.parametrize("planes", [1, 2, 3])
def test_rabitq_takes_the_best_point_of_the_grid(planes: int) -> None:
    """All points of a small grid are tried; the code's has the largest cosine."""
    levels = np.arange(1 - 2**planes, 2**planes, 2)
    points = np.array(list(itertools.product(levels, repeat=4)))
    points = points[(points % 2 == 1).all(1)]
    rows = np.random.default_rng(planes).normal(size=(200, 4)).astype(np.float32)
    rows[0], rows[1], rows[2], rows[3] = [1, 1, 1, 1], [0, 0, 0, 1], [1e-6, 1, -1, 1e-30], [1, 2, 3, 4]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = grid_rabitq.levels(torch.from_numpy(rows), grid_rabitq.weights(4, planes)).numpy().astype(int)
    chosen = 2 * numbers - (2**planes - 1)
    assert np.isin(chosen, levels).all()
    best = (rows.astype(np.float64) @ points.T / np.linalg.norm(points, axis=1)).max(1)
    np.testing.assert_allclose((rows * chosen).sum(1) / np.linalg.norm(chosen, axis=1), best, atol=1e-6)


@every_width
def test_turboquant_takes_the_nearest_level(planes: int) -> None:
    X = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    codes = turboquant(X, planes)
    bits = np.array(list(itertools.product([-1, 1], repeat=planes)))
    table = bits @ codes.weights.numpy()
    assert (np.diff(table) > 0).all()
    turned = codes.transform(X)
    directions = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    distances = np.abs(directions[:, :, None] - table)
    chosen = np.take_along_axis(distances, level_numbers(codes, X)[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen, distances.min(2), atol=1e-6)


@pytest.mark.parametrize(("planes", "known"), [(1, [0.7979]), (2, [0.4528, 1.5104])])
def test_codebook_of_few_bits_is_that_of_lloyd_and_max(planes: int, known: list[float]) -> None:
    """Positive levels for a standard normal variable (Max, 1960), which a coordinate nears in many dimensions."""
    weights = grid_turboquant.weights(20_000, planes).numpy() * math.sqrt(20_000)
    levels = np.array(list(itertools.product([-1, 1], repeat=planes))) @ weights
    np.testing.assert_allclose(levels[levels > 0], known, atol=5e-4)


@pytest.mark.parametrize(("planes", "error"), [(1, 0.3634), (2, 0.1175), (3, 0.0369), (4, 0.0114)])
def test_squared_errors_that_turboquant_documents(planes: int, error: float) -> None:
    values = np.random.default_rng(0).normal(size=400_000)
    levels = np.array(list(itertools.product([-1, 1], repeat=planes))) @ (
        grid_turboquant.weights(20_000, planes).numpy() * math.sqrt(20_000)
    )
    rounded = levels[np.abs(values[:, None] - levels).argmin(1)]
    assert np.square(values - rounded).mean() == pytest.approx(error, rel=0.02)
    if planes < 4:  # at 4 bits a sum of weights misses the paper's bound by a little
        assert np.square(values - rounded).mean() < 2.72 * 4.0**-planes


def test_a_codebook_of_few_dimensions_is_for_their_distribution() -> None:
    """In 3 dimensions a coordinate of a random direction is uniform in [-1, 1]: even levels are the best."""
    np.testing.assert_allclose(grid_turboquant.weights(3, 3).numpy(), [0.5, 0.25, 0.125], atol=1e-3)


def loss(rows: np.ndarray, steps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of optimised scalar quantisation, for rows [N, F], written out."""
    errors = rows - steps[:, None] * points
    return 0.9 * (rows * errors).sum(1) ** 2 / np.square(rows).sum(1) + 0.1 * np.square(errors).sum(1)


@every_width
def test_osq_lowers_its_loss(X: np.ndarray, planes: int) -> None:
    codes = osq(X, planes)
    rows = (X - codes.mean.numpy()).astype(np.float64)
    largest = 2**planes - 1
    points = 2 * level_numbers(codes, X) - largest
    steps = codes.scales(X, codes.encode(X)).astype(np.float64) * codes.unit
    reached = loss(rows, steps, points)
    for factor in (0.98, 1.02):  # the step is the best for these points, and float16 holds it well enough
        assert (reached <= loss(rows, factor * steps, points)).all()
    start = grid_osq.FIRST[planes - 1] * np.linalg.norm(rows, axis=1) / math.sqrt(13) / largest
    first = np.clip(2 * np.ceil(rows / (2 * start[:, None])) - 1, -largest, largest)
    inner, squares = (rows * first).sum(1), np.square(first).sum(1)
    best = np.square(rows).sum(1) * inner / (0.9 * inner**2 + 0.1 * squares * np.square(rows).sum(1))
    assert (loss(rows, best, first) <= loss(rows, 1.01 * best, first)).all()
    assert (reached <= loss(rows, best, first) * 1.001).all()
    if planes > 1:
        assert reached.mean() < 0.97 * loss(rows, best, first).mean()
    cosines = (rows * points).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(reached / np.square(rows).sum(1), 1 - 1 / (0.9 + 0.1 / cosines**2), rtol=1e-3)


@every_method
@every_width
def test_distances_of_rows_of_several_lengths(name: str, planes: int) -> None:
    """By one number for each code: lengths are exact, and the order is near that of Euclidean distances."""
    rng = np.random.default_rng(4)
    X = (rng.normal(size=(1000, 8)) @ rng.normal(size=(8, 32)) * rng.lognormal(sigma=0.5, size=(1000, 1))).astype("f4")
    Q, X = X[:50] + 5, X[50:] + 5
    codes = METHODS[name](X, planes)
    packed = codes.encode(X)
    scales, queries = codes.scales(X, packed, metric="l2").astype(float), codes.queries(Q, metric="l2").astype(float)
    lengths = np.linalg.norm(X - codes.mean.numpy(), axis=1)
    np.testing.assert_allclose(scales * math.sqrt(codes.bits) * codes.unit, lengths, rtol=1e-3)
    inner = queries @ (2.0 * unpack_bits(packed, codes.bits) - 1.0).T * scales * codes.unit**2
    exact = (Q - codes.mean.numpy()) @ (X - codes.mean.numpy()).T
    assert np.corrcoef(inner.ravel(), exact.ravel())[0, 1] > 0.93
    assert np.sum(inner * exact) / np.sum(exact**2) == pytest.approx(1, abs=0.1)  # osq shrinks
    found = np.argsort(lengths**2 - 2 * inner, axis=1)[:, :10]
    nearest = np.argsort(np.square(Q[:, None] - X).sum(2), axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest, strict=True)])
    assert recall > {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.7}[planes] if name == "turboquant" else recall > 0.5


@every_method
@every_width
def test_hostile_rows(name: str, planes: int) -> None:
    """The mean itself, constant rows, one row alone, one feature: codes, scales and estimates are finite."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 9)).astype(np.float32)
    X -= X.mean(0)
    codes = METHODS[name](X, planes)
    rows = np.stack([codes.mean.numpy(), np.full(9, 2.0), np.full(9, -1e-3), np.eye(9)[3], np.zeros(9) + 1e-40])
    found = estimates(codes, np.ones((1, 9)), rows.astype(np.float32))
    assert np.isfinite(found).all()
    assert found[0, 0] == 0
    assert codes.scales(rows, codes.encode(rows))[0] == 0
    assert found[0, 1] == pytest.approx(float((rows[1] - codes.mean.numpy()).sum()), rel=0.5)
    for few in (X[:1], np.full((5, 9), 3.0), X[:, :1], np.zeros((3, 2))):
        alone = METHODS[name](few, planes)
        assert np.isfinite(estimates(alone, few[:1], few)).all()
        assert alone.unit > 0


@every_method
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6, 1e18])
def test_the_size_of_rows_does_not_matter(X: np.ndarray, name: str, size: float) -> None:
    """Scales are relative to those of the fit, so that float16 holds them."""
    X = X - X.mean(0)
    plain, scaled = METHODS[name](X, 2), METHODS[name]((X * size).astype(np.float32), 2)
    rows = (X * size).astype(np.float32)
    scales = scaled.scales(rows, scaled.encode(rows)).astype(np.float64)
    np.testing.assert_allclose(scales, plain.scales(X, plain.encode(X)), rtol=0.02)
    assert scaled.unit == pytest.approx(size * plain.unit, rel=1e-3)


@every_method
def test_rows_too_far_for_float16_are_refused_and_near_ones_are_not_lost(X: np.ndarray, name: str) -> None:
    codes = METHODS[name](X, 2)
    far = X.copy()
    far[5] *= 1e6
    message = (
        r"GridCodes\.scales: a row of X must be at most 65504 times as far from the mean as the rows of the fit .*row 5"
    )
    with pytest.raises(ValueError, match=message):
        codes.scales(far, codes.encode(far))
    far[5] = codes.mean.numpy() + (X[5] - codes.mean.numpy()) * 2e4
    assert np.isfinite(codes.scales(far, codes.encode(far))).all()
    near = codes.mean.numpy().astype(np.float64) + (X - codes.mean.numpy()) * 1e-3
    assert (codes.scales(near, codes.encode(near)) > 0).all()


@every_method
def test_queries_too_long_for_float32_are_refused(X: np.ndarray, name: str) -> None:
    codes = METHODS[name]((X * 1e30).astype(np.float32), 2)
    with pytest.raises(
        ValueError, match=r"GridCodes\.queries: X times the unit .* must fit float32, .* in 1 of 1 rows"
    ):
        codes.queries(np.full(13, 1e37, np.float32))


@every_method
def test_repeats_itself_and_leaves_the_global_generator_alone(X: np.ndarray, name: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = METHODS[name](X, 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    np.testing.assert_array_equal(METHODS[name](X, 2).encode(X), first.encode(X))
    if name != "osq":
        assert not np.array_equal(METHODS[name](X, 2, seed=1).encode(X), first.encode(X))


@every_method
@every_width
def test_save_and_load(X: np.ndarray, name: str, planes: int, tmp_path: Path) -> None:
    codes = METHODS[name](X, planes)
    path = tmp_path / "codes.safetensors"
    path.write_bytes(b"before")
    codes.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    again = GridCodes.load(path)
    assert (again.method, again.unit, repr(again)) == (codes.method, codes.unit, repr(codes))
    packed = codes.encode(X)
    np.testing.assert_array_equal(again.encode(X), packed)
    np.testing.assert_array_equal(again.scales(X, packed), codes.scales(X, packed))
    np.testing.assert_array_equal(again.queries(X), codes.queries(X))
    np.testing.assert_array_equal(again.queries(X, metric="l2"), codes.queries(X, metric="l2"))


def test_what_load_refuses(X: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(FileNotFoundError, match=r"GridCodes\.load: .*codes.safetensors does not exist"):
        GridCodes.load(path)
    itq(X, 4).save(path)
    with pytest.raises(
        ValueError, match=r"GridCodes\.load: .* is not a fasthash GridCodes: its format is 'fasthash-lin"
    ):
        GridCodes.load(path)
    rabitq(X, 2).save(path)
    with pytest.raises(ValueError, match=r"LinearCodes\.load: .* its format is 'fasthash-grid-codes'"):
        LinearCodes.load(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"GridCodes\.load: .*codes.safetensors"):
            GridCodes.load(path)
    tensors = {"mean": torch.zeros(3), "weights": torch.ones(2), "rotation": torch.eye(3)}
    good = {"method": "rabitq", "features": 3, "bits_per_dimension": 2, "unit": 1.0, "stretch": 1.0}
    for changed, content, reason in (
        ({}, {"features": 3}, "method"),
        ({}, good | {"method": "pq"}, "method must be 'rabitq', 'osq' or 'turboquant', got 'pq'"),
        ({}, good | {"method": "osq"}, "its tensors do not match"),
        ({}, good | {"features": 4}, "its tensor mean is"),
        ({}, good | {"features": 2**62}, "its content|overflowed"),
        ({}, good | {"bits_per_dimension": 5}, "bits_per_dimension must be between 1 and 4, got 5"),
        ({}, good | {"unit": 0}, "unit must be > 0 and finite, got 0"),
        ({}, good | {"stretch": -1}, "stretch must be > 0 and finite, got -1"),
        ({"mean": torch.full((3,), torch.nan)}, good, "hold NaN or infinity"),
        ({"mean": torch.zeros(3).double()}, good, "its tensor mean is"),
    ):
        save_checkpoint(path, tensors | changed, content, GRID)
        with pytest.raises(
            ValueError, match=rf"GridCodes\.load: .* is damaged or not a fasthash GridCodes: .*({reason})"
        ):
            GridCodes.load(path)
    with pytest.raises(OSError, match=r"GridCodes\.save: .* exists and is not a regular file"):
        rabitq(X, 2).save(tmp_path)


@every_method
def test_errors(X: np.ndarray, name: str) -> None:
    make: Callable[..., GridCodes] = METHODS[name]
    for planes in (0, 5):
        with pytest.raises(ValueError, match=f"{name}: bits_per_dimension must be between 1 and 4, got {planes}"):
            make(X, planes)
    with pytest.raises(TypeError, match=f"{name}: bits_per_dimension must be an integer"):
        make(X, 1.5)
    broken = X.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match=f"{name}: X must be finite, got NaN or infinity in 1 of 300 rows"):
        make(broken, 2)
    with pytest.raises(ValueError, match=f"{name}: X must have at least 1 row, got 0"):
        make(X[:0], 2)
    with pytest.raises(ValueError, match=rf"{name}: X must have shape \[N, F\] with F >= 1, got \(300,\)"):
        make(X[:, 0], 2)
    if name != "osq":
        with pytest.raises(ValueError, match=f"{name}: seed must be between 0 and"):
            make(X, 2, seed=-1)
    codes = make(X, 2)
    packed = codes.encode(X)
    for method in ("transform", "encode", "queries"):
        with pytest.raises(ValueError, match=rf"GridCodes\.{method}: X must be finite"):
            getattr(codes, method)(broken)
        with pytest.raises(ValueError, match=rf"GridCodes\.{method}: X must have 13 features, got 3"):
            getattr(codes, method)(X[:, :3])
    with pytest.raises(ValueError, match=r"GridCodes\.scales: X must be finite"):
        codes.scales(broken, packed)
    with pytest.raises(
        ValueError, match=r"GridCodes\.scales: codes must have one code for each of the 300 rows of X, got 299"
    ):
        codes.scales(X, packed[1:])
    with pytest.raises(ValueError, match=r"GridCodes\.scales: codes of 26 bits must be \[N, 4\]"):
        codes.scales(X, packed[:, :3])
    with pytest.raises(TypeError, match=r"GridCodes\.scales: codes must be packed uint8"):
        codes.scales(X, packed.astype(np.int64))
    for method, more in (("scales", (packed,)), ("queries", ())):
        with pytest.raises(ValueError, match=rf"GridCodes\.{method}: metric must be 'dot' or 'l2', got 'l1'"):
            getattr(codes, method)(X, *more, metric="l1")
    opposite = 2 * codes.mean.numpy() - X
    with pytest.raises(ValueError, match=r"GridCodes\.scales: codes must be the codes of X, got a different code"):
        codes.scales(X, codes.encode(opposite))


def test_a_far_out_value_is_left_out_of_the_mean(X: np.ndarray) -> None:
    clean = rabitq(X, 1).mean
    broken = X.copy()
    broken[17, 3] = 1e9
    with pytest.warns(UserWarning, match="rabitq: X holds 1 value .* row 17, column 3"):
        found = rabitq(broken, 1)
    torch.testing.assert_close(found.mean, clean, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", LINEAR)
def test_scales_of_linear_codes(X: np.ndarray, name: str, tmp_path: Path) -> None:
    """A row's estimate of itself is exact, in the projection: <u, u>."""
    codes = LINEAR[name](X, 12)
    packed = codes.encode(X)
    scales = codes.scales(X, packed)
    assert (scales.shape, scales.dtype) == ((300,), np.float16)
    assert np.sqrt(np.square(scales.astype(float)).mean()) == pytest.approx(1, abs=0.01)
    signs = 2.0 * unpack_bits(packed, 12) - 1.0
    u = codes.transform(X)
    own = (u * codes.unit * signs).sum(1) * scales.astype(np.float64)
    np.testing.assert_allclose(own, np.square(u).sum(1), rtol=1e-3)
    np.testing.assert_allclose(
        codes.queries(X, metric="dot"), X @ codes.weights.numpy() * codes.unit, rtol=1e-4, atol=1e-4
    )
    codes.save(tmp_path / "codes")
    again = LinearCodes.load(tmp_path / "codes")
    np.testing.assert_array_equal(again.scales(X, packed), scales)
    np.testing.assert_array_equal(again.queries(X, metric="dot"), codes.queries(X, metric="dot"))
    assert codes.scales(codes.mean, codes.encode(codes.mean)).tolist() == [0]


def test_scales_of_sign_codes_estimate_inner_products() -> None:
    """Random rotations again: the correction of RaBitQ for codes of any orthonormal map."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(5, 16)).astype(np.float32)
    X -= X.mean(0)
    query = X[:1] + 0.5
    found = []
    for seed in range(300):
        codes = LinearCodes(torch.zeros(16), random_rotation(16, seed)).in_unit_of(torch.from_numpy(X))
        packed = codes.encode(X)
        signs = 2.0 * unpack_bits(packed, 16) - 1.0
        found.append((codes.queries(query, metric="dot") @ signs.T * codes.scales(X, packed).astype(float))[0])
    errors = np.array(found) - query @ X.T
    assert (np.abs(errors.mean(0)) < 4 * errors.std(0) / math.sqrt(300) + 1e-3).all()


def test_what_scales_and_queries_of_linear_codes_refuse(X: np.ndarray) -> None:
    codes = itq(X, 8)
    packed = codes.encode(X)
    with pytest.raises(
        ValueError, match=r"LinearCodes\.scales: codes must have one code for each of the 300 rows of X, got 2"
    ):
        codes.scales(X, packed[:2])
    with pytest.raises(ValueError, match=r"LinearCodes\.scales: codes must be the codes of X, got a different code"):
        codes.scales(X, codes.encode(2 * codes.mean.numpy() - X))
    with pytest.raises(
        ValueError, match=r"LinearCodes\.scales: a row of X must be at most 65504 times as far .* in row 0"
    ):
        codes.scales(X * 1e7, codes.encode(X * 1e7))
    with pytest.raises(ValueError, match=r"LinearCodes\.queries: metric must be 'l1' or 'dot', got 'cosine'"):
        codes.queries(X, metric="cosine")
    with pytest.raises(ValueError, match=r"LinearCodes\.queries: X must be finite"):
        codes.queries(X * np.nan, metric="dot")


def test_files_of_linear_codes_from_before_scales(tmp_path: Path) -> None:
    from fasthash._checkpoint import LINEAR as KIND

    tensors = {"mean": torch.zeros(3), "weights": torch.eye(3)}
    save_checkpoint(tmp_path / "old", tensors, {"features": 3, "bits": 3}, KIND)
    assert LinearCodes.load(tmp_path / "old").unit == 1.0


RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "quantisers.json"


@pytest.mark.skipif(not RESULTS.exists(), reason="the results of the benchmark are not here")
def test_the_table_is_the_measured_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(RESULTS.parent.parent))
    from bench_quantisers import table

    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    shown = RESULTS.with_suffix(".md").read_text(encoding="utf-8")
    assert table(measured) == shown
    page = RESULTS.parent.parent.parent / "docs" / "method.md"
    said = page.read_text(encoding="utf-8").partition("[quantisers.md]")[2]
    assert not {number for number in re.findall(r"\b\d\d\.\d\b", said) if number not in shown}


def test_real_embeddings(shared_data: Path) -> None:
    """Captions: RaBitQ of 1 bit finds more than signs by Hamming distance, and bits add to it."""
    X = np.load(shared_data / "coco_captions_val2017" / "minilm_l6_v2_f16.npz")["embedding"][:4100].astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    Q, X = X[:100], X[100:]
    nearest = np.argsort(-(Q @ X.T), axis=1)[:, :10]

    def recall(scores: np.ndarray) -> float:
        found = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest, strict=True)]))

    signs = np.sign(X - X.mean(0))
    plain = recall(np.sign(Q - X.mean(0)) @ signs.T)
    one, two, four = (recall(estimates(rabitq(X, planes), Q, X)) for planes in (1, 2, 4))
    assert plain + 0.03 < one < two < four
    assert four > 0.93
