"""The CUDA kernels with the tiles, stretches and rooms of a GPU, under the emulation, against the CPU's results.

The other tests of the emulation shrink these sizes, so that small inputs have several. A part runs always;
FASTHASH_PRODUCTION_SIZES=1 runs all (a minute and a half more).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from emulation import SOURCES, Emulation, build, compiler
from numpy.typing import NDArray

import fasthash
from fasthash import reference

Array = NDArray[Any]
ALL = os.environ.get("FASTHASH_PRODUCTION_SIZES") == "1"
FOLDERS = ("hamming", "neighbors")


def all_sizes(*values: Any) -> Any:
    """A case that only FASTHASH_PRODUCTION_SIZES=1 runs."""
    return pytest.param(*values, marks=pytest.mark.skipif(not ALL, reason="FASTHASH_PRODUCTION_SIZES is not 1"))


@pytest.fixture(scope="module")
def device() -> Iterator[Emulation]:
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    own = ("api.cpp", "emulation.cpp", "one_pass_plan.cpp")
    sources = [source for source in SOURCES if source.parts[-3] in FOLDERS or source.name in own]
    emulation = Emulation(build(sources, defines=()))
    yield emulation
    emulation.close()


def random_codes(rng: np.random.Generator, rows: int, width: int) -> Array:
    return rng.integers(0, 256, (rows, width), dtype=np.uint8)


def one_pass(device: Emulation, queries: int, rows: int, width: int, k: int) -> bool:
    return bool(device.call("one_pass_shape", q=queries, n=rows, width=width, k=k)["pays"])


def check(device: Emulation, queries: Array, database: Array, k: int, mask: Array | None = None) -> None:
    found = device.call("hamming_topk", queries=queries, database=database, k=k, mask=mask)
    allowed = None if mask is None else torch.from_numpy(mask)
    expected = fasthash.hamming_topk(torch.from_numpy(queries), torch.from_numpy(database), k, filter=allowed)
    np.testing.assert_array_equal(found[0], expected.distances.numpy())
    np.testing.assert_array_equal(found[1], expected.ids.numpy())


@pytest.mark.parametrize(
    ("width", "rows", "queries", "k"),
    [
        (8, 70_001, 130, 10),
        (32, 66_000, 40, 10),
        (20, 300_000, 12, 300),
        all_sizes(8, 1_200_000, 8, 1),
        all_sizes(8, 100_000, 300, 10),
        all_sizes(8, 300_000, 30, 1000),
        all_sizes(8, 400_000, 23, 10_000),
        all_sizes(4, 1_200_000, 7, 10),
        all_sizes(16, 140_000, 33, 100),
        all_sizes(48, 70_000, 21, 10),
        all_sizes(64, 70_000, 17, 10),
        all_sizes(96, 70_000, 11, 10),
        all_sizes(128, 70_000, 9, 10),
        all_sizes(7, 300_000, 28, 10),
        all_sizes(130, 70_000, 9, 10),
    ],
)
def test_top_k_in_one_pass(device: Emulation, width: int, rows: int, queries: int, k: int) -> None:
    """Codes in no order, and a filter that leaves out the beginning."""
    assert one_pass(device, queries, rows, width, k)
    rng = np.random.default_rng(width)
    database, asked = random_codes(rng, rows, width), random_codes(rng, queries, width)
    asked[0] = database[rows - 1]
    check(device, asked, database, k)
    mask = rng.random(rows) < 0.3
    mask[: rows // 2] = False
    check(device, asked, database, k, mask)


def test_codes_sorted_and_stored_by_class(device: Emulation) -> None:
    """No query falls back to two passes."""
    rng = np.random.default_rng(0)
    classes = random_codes(rng, 50, 8)
    noise = random_codes(rng, 80_000, 8) & random_codes(rng, 80_000, 8) & random_codes(rng, 80_000, 8)
    database = classes[np.arange(80_000) * 50 // 80_000] ^ noise
    queries = classes[rng.integers(0, 50, 110)]
    distances = np.bitwise_count(database ^ queries[0]).sum(1)
    assert one_pass(device, 110, 80_000, 8, 10)
    for codes in (database, database[np.argsort(distances, kind="stable")[::-1]]):
        check(device, queries, codes, 10)
        assert device.call("hamming_overflowed", queries=queries, database=codes, k=10) == 0


@pytest.mark.parametrize(
    ("width", "rows", "queries", "k"),
    [(8, 70_001, 1, 10), (32, 20_000, 5, 3000), all_sizes(8, 1_200_000, 1, 10), all_sizes(8, 300_000, 2, 20_000)],
)
def test_top_k_in_two_passes(device: Emulation, width: int, rows: int, queries: int, k: int) -> None:
    assert not one_pass(device, queries, rows, width, k)
    rng = np.random.default_rng(width)
    database, asked = random_codes(rng, rows, width), random_codes(rng, queries, width)
    check(device, asked, database, k)
    check(device, asked, database, k, rng.random(rows) < 0.3)


@pytest.mark.parametrize(("width", "rows", "queries"), [(8, 60_000, 20), all_sizes(32, 200_000, 40)])
def test_range_and_histogram(device: Emulation, width: int, rows: int, queries: int) -> None:
    rng = np.random.default_rng(width)
    database, asked = random_codes(rng, rows, width), random_codes(rng, queries, width)
    tensors, radius = (torch.from_numpy(asked), torch.from_numpy(database)), 3 * width
    for mask in (None, rng.random(rows) < 0.5):
        allowed = None if mask is None else torch.from_numpy(mask)
        expected = fasthash.hamming_range(*tensors, radius, filter=allowed)
        found = device.call("hamming_range", queries=asked, database=database, radius=radius, mask=mask)
        for ours, oracle in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, oracle.numpy())
    counts, _ = device.call("hamming_histogram", queries=asked, database=database)
    np.testing.assert_array_equal(counts, fasthash.hamming_histogram(*tensors)[0].numpy())


@pytest.mark.parametrize(("p", "k"), [(1, 1), (2, 8), all_sizes(1, 8), all_sizes(2, 1)])
def test_nearest_in_tiles(device: Emulation, p: int, k: int) -> None:
    rows, targets, columns = (1111, 1999, 33) if ALL else (700, 1100, 33)
    rng = np.random.default_rng(p)
    x, y = (rng.random((1, count, columns)).astype(np.float32) for count in (rows, targets))
    distances, indices = device.call("nearest", x=x, y=y, k=k, p=p)
    exact = reference.pairwise_distances(torch.from_numpy(x).double(), torch.from_numpy(y).double(), p)
    expected = exact.topk(k, largest=False, sorted=True)
    np.testing.assert_allclose(distances, expected.values.numpy(), rtol=1e-5)
    np.testing.assert_allclose(exact.gather(-1, torch.from_numpy(indices)).numpy(), distances, rtol=1e-5)
