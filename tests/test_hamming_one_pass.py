"""Top-k in one pass on CUDA (csrc/hamming/cuda/one_pass.h), under the emulation; faults put into the Hamming kernels.

In the emulation the first stretch is 128 rows and a query's candidates have little room, so that a thousand rows make
several stretches and an unlucky order of codes leaves candidates without room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from emulation import SOURCES, Emulation, EmulationError, build, compiler, with_faults
from numpy.typing import NDArray

from fasthash import reference

Array = NDArray[Any]


def random_codes(rng: np.random.Generator, rows: int, width: int) -> Array:
    return rng.integers(0, 256, (rows, width), dtype=np.uint8)


def check(gpu: Emulation, queries: Array, database: Array, k: int, mask: Array | None = None, **rest: Any) -> None:
    found = gpu.call("hamming_topk", queries=queries, database=database, k=k, mask=mask, **rest)
    if "columns" in rest:
        database = np.ascontiguousarray(database[:, slice(*rest["columns"])])
    tensors = (None if a is None else torch.from_numpy(a) for a in (queries, database, mask))
    expected = reference.hamming_topk(*list(tensors)[:2], k, mask=None if mask is None else torch.from_numpy(mask))
    np.testing.assert_array_equal(found[0], expected[0].numpy())
    np.testing.assert_array_equal(found[1], expected[1].numpy())


@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 16, 31, 32, 48, 64, 96, 128, 130])
def test_widths(gpu: Emulation, width: int) -> None:
    rng = np.random.default_rng(width)
    database = random_codes(rng, 1100, width)
    queries = np.concatenate([random_codes(rng, 2, width), database[777:778]])
    check(gpu, queries, database, 10, seed=width)
    check(gpu, queries, database, 10, rng.random(1100) < 0.3, seed=width + 1)


@pytest.mark.parametrize("queries", [3, 4, 8, 9, 33])
@pytest.mark.parametrize("width", [8, 16, 32, 48, 64, 96, 128])
def test_products_of_bits(gpu: Emulation, width: int, queries: int) -> None:
    """From 3 queries on. Rows to the ends of products and of units, masked and not; equal codes; a far query."""
    rng = np.random.default_rng(queries)
    for rows in (513, 1023 + width):
        database, asked = random_codes(rng, rows, width), random_codes(rng, queries, width)
        asked[0], asked[-1] = database[rows - 1], ~database[5]
        check(gpu, asked, database, 6, seed=rows)
        check(gpu, asked, database, 6, rng.random(rows) < 0.2, seed=rows, misalign=16 if queries == 4 else 0)
    check(gpu, asked, np.repeat(database[:300], 2, 0), 3, seed=queries)


@pytest.mark.parametrize("rows", [512, 513, 1023, 1024, 1025, 1151, 1153, 4095, 4097, 8193])
def test_ends_of_stretches_and_units(gpu: Emulation, rows: int) -> None:
    """Near codes about the ends of the stretches at 128 and 1,024 rows, of units of rows, and of the database."""
    rng = np.random.default_rng(rows)
    database = random_codes(rng, rows, 8)
    for place in (0, 127, 128, 255, 256, 383, 384, 1023, 1024, 1279, 1280, rows - 1):
        if place < rows:
            database[place] = 0
            database[place, 0] = 1 << place % 8
    check(gpu, np.zeros((2, 8), np.uint8), database, 5, seed=rows)
    check(gpu, np.zeros((1, 8), np.uint8), database, 32, rng.random(rows) < 0.9, seed=rows)


def test_schedules_do_not_show(gpu: Emulation) -> None:
    rng = np.random.default_rng(0)
    database = random_codes(rng, 3000, 4) & random_codes(rng, 3000, 4)  # ties
    queries = random_codes(rng, 3, 4) & random_codes(rng, 3, 4)
    for seed in range(6):
        check(gpu, queries, database, 20, seed=seed)


@pytest.mark.parametrize("k", [1, 31, 32, 33, 140])
def test_numbers_of_neighbours(gpu: Emulation, k: int) -> None:
    """k above 128 widens stretches by 4 instead of 8; 140 makes the first one longer."""
    rng = np.random.default_rng(k)
    check(gpu, random_codes(rng, 2, 8), random_codes(rng, 5000, 8), k)


def test_tiles_and_batches_of_queries(gpu: Emulation) -> None:
    """More queries than a tile, and than the candidates of a batch."""
    rng = np.random.default_rng(1)
    check(gpu, random_codes(rng, 150, 8), random_codes(rng, 600, 8), 3)


@pytest.mark.parametrize("k", [1, 20, 128])
def test_equal_codes(gpu: Emulation, k: int) -> None:
    """The first stretch has all that the answer needs: later codes at the same distance come too late."""
    check(gpu, np.zeros((2, 8), np.uint8), np.zeros((1000, 8), np.uint8), k)


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("masked", [False, True])
def test_codes_from_far_to_near(gpu: Emulation, k: int, masked: bool) -> None:
    """Every later code is nearer than all before: candidates find no room, and the queries concerned are counted."""
    database = np.packbits(np.arange(2000)[:, None] // 30 < np.arange(72), axis=1)
    queries = np.zeros((40, 9), np.uint8)
    queries[::3] = 0xFF  # these see the codes from near to far
    queries[1::3, :4] = 0xFF
    mask = np.random.default_rng(k).random(2000) < 0.7 if masked else None
    for seed in range(3):
        check(gpu, queries, database, k, mask, seed=seed)


@pytest.mark.parametrize("first", [100, 700, 1990, 2000])
def test_filters_that_leave_out_the_first_stretch(gpu: Emulation, first: int) -> None:
    rng = np.random.default_rng(first)
    database, mask = random_codes(rng, 2000, 8), np.zeros(2000, bool)
    mask[first:] = True
    check(gpu, random_codes(rng, 3, 8), database, 12, mask)
    check(gpu, random_codes(rng, 3, 8), database, 12, mask & (rng.random(2000) < 0.02))


@pytest.mark.parametrize(
    ("columns", "misalign"), [((0, 8), 4), ((3, 11), 0), ((4, 20), 0), ((16, 48), 0), ((16, 48), 8)]
)
def test_column_slices(gpu: Emulation, columns: tuple[int, int], misalign: int) -> None:
    rng = np.random.default_rng(misalign)
    queries, database = random_codes(rng, 2, columns[1] - columns[0]), random_codes(rng, 900, 64)
    check(gpu, queries, database, 9, columns=columns, misalign=misalign)


def test_no_queries(gpu: Emulation) -> None:
    check(gpu, np.zeros((0, 8), np.uint8), np.zeros((1000, 8), np.uint8), 3)


# Faults. Each is a change of the sources that a person could make; FAULT is 1 where it shows, 0 elsewhere.

FAULTS = {
    "thresholds are read before they are staged": (
        "hamming_one_pass_cuda.cu",
        "return c.nearer[q0 + q]; });\n    __syncthreads();",
        "return c.nearer[q0 + q]; });\n    if (!FAULT) __syncthreads();",
    ),
    "a tile of keys is overwritten while others read it": (
        "hamming_one_pass_cuda.cu",
        "__syncthreads();  // the last tile is done",
        "if (!FAULT) __syncthreads();",
    ),
    "a stretch ends one row early": (
        "hamming_one_pass_cuda.cu",
        "scan.N = end - begin;",
        "scan.N = end - begin - FAULT;",
    ),
    "a warp goes one row beyond its unit": (
        "hamming_one_pass_cuda.cu",
        "min(begin + scan.unit_rows, scan.N)",
        "min(begin + scan.unit_rows + FAULT, scan.N)",
    ),
    "codes at the last threshold are left out": (
        "hamming_one_pass_cuda.cu",
        "make_key(c.nearer[q] + 1, 0)",
        "make_key(c.nearer[q] + 1 - FAULT, 0)",
    ),
    "candidates without room are forgotten": (
        "hamming_one_pass_cuda.cu",
        "c.overflowed[q] = 1;",
        "c.overflowed[q] = 1 - FAULT;",
    ),
    "lanes leave the products one by one": (
        "bit_products.cuh",
        "!__any_sync(kAllLanes, rows.multiply(queries, minus_limits, j, d) < 0)",
        "FAULT ? rows.multiply(queries, minus_limits, j, d) >= 0 :"
        " !__any_sync(kAllLanes, rows.multiply(queries, minus_limits, j, d) < 0)",
    ),
    "the two halves of a product's rows change places": (
        "bit_products.cuh",
        "16 * i + 8 * (r / 2)",
        "16 * i + 8 * ((r / 2) ^ FAULT)",
    ),
    "queries change places": ("bit_products.cuh", "% 4 * 2 + r % 2;", "% 4 * 2 + (r % 2 ^ FAULT);"),
    "the last query of a tile has no limit": ("bit_products.cuh", "q < count ?", "q < count - FAULT ?"),
    "lanes count before the counts are zero": (
        "hamming_count_cuda.cu",
        "    }\n    __syncwarp();\n    const int64_t begin",
        "    }\n    if (!FAULT) __syncwarp();\n    const int64_t begin",
    ),
    "segments are added up before they are there": (
        "hamming_count_cuda.cu",
        "shared.sum[t] = sum;\n    __syncthreads();",
        "shared.sum[t] = sum;\n    if (!FAULT) __syncthreads();",
    ),
    "a warp's sum is read before it is written": (
        "hamming_cuda.cu",
        "= inclusive;\n        __syncthreads();",
        "= inclusive;\n        if (!FAULT) __syncthreads();",
    ),
    "two lanes take one place": (
        "hamming_cuda.cu",
        "lanes_below(lane_index())",
        "lanes_below(lane_index() - (FAULT && lane_index() > 0))",
    ),
    "the row after the last one is read": (
        "hamming_count_cuda.cu",
        "end = min(begin + scan.unit_rows, scan.N);",
        "end = min(begin + scan.unit_rows, scan.N + FAULT);",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Iterator[Emulation]:
    """The Hamming kernels with all these faults in them."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    change = with_faults(list(FAULTS.values()), ["hamming/cuda/bit_products.cuh"])
    names = {name for name, _, _ in FAULTS.values()} | {"api.cpp", "emulation.cpp"}
    emulation = Emulation(build([source for source in SOURCES if source.name in names], change))
    yield emulation
    emulation.close()


def wrong(gpu: Emulation, fault: int, seed: int) -> bool:
    """Whether a few searches under one schedule tell the fault."""
    rng = np.random.default_rng(seed)
    database, queries = random_codes(rng, 1100 + seed, 8), random_codes(rng, 3, 8)
    from_far = np.packbits(np.arange(1100)[:, None] // 30 < np.arange(64), axis=1)
    few = database[: 200 + seed] & 0x11  # two passes, with ties
    many = random_codes(rng, 5200, 8)
    try:
        for codes, k in ((database, 20), (from_far, 10), (few, 40), (many, 300), (many[:3000], 800)):
            check(gpu, queries & codes[:3], codes, k, seed=seed, fault=fault)
    except (AssertionError, EmulationError):
        return True
    return False


def test_no_fault(faulty: Emulation) -> None:
    assert not any(wrong(faulty, 0, seed) for seed in range(3))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(faulty: Emulation, fault: str) -> None:
    number = 1 + list(FAULTS).index(fault)
    assert any(wrong(faulty, number, seed) for seed in range(6))
