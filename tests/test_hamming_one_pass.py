"""Top-k in one pass on CUDA (csrc/hamming/cuda/one_pass.h), under the emulation; faults put into the Hamming kernels.

In the emulation the sample is 128 rows in groups of 32, and a query's candidates have little room, so that a thousand
rows make several stretches and codes that are near where the sample does not look leave candidates without room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from emulation import SMALL, SOURCES, Emulation, EmulationError, build, compiler, with_faults
from numpy.typing import NDArray

from fasthash import reference

Array = NDArray[Any]
HAMMING = [
    source
    for source in SOURCES
    if source.parts[-3] == "hamming" or source.name in ("api.cpp", "emulation.cpp", "one_pass_plan.cpp")
]


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


@pytest.fixture(scope="module")
def blackwell() -> Iterator[Emulation]:
    """The Hamming kernels as GPUs from sm_100 on have them: products of bytes."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    emulation = Emulation(build(HAMMING, defines=(*SMALL, "FASTHASH_BYTE_PRODUCTS=1")))
    yield emulation
    emulation.close()


@pytest.mark.parametrize("queries", [3, 8, 33])
@pytest.mark.parametrize("width", [8, 16, 32, 48])
def test_products_of_bytes(blackwell: Emulation, width: int, queries: int) -> None:
    """As test_products_of_bits; and all queries and codes of one bit, or of none."""
    test_products_of_bits(blackwell, width, queries)
    rng = np.random.default_rng(width)
    database = np.where(rng.random((600, 1)) < 0.5, np.uint8(255), random_codes(rng, 600, width))
    asked = np.repeat(np.uint8([[0], [255], [1]]), width, 1)
    check(blackwell, asked, database, 9)
    check(blackwell, asked, ~database, 9, rng.random(600) < 0.5)


@pytest.mark.parametrize("width", [8, 16, 32])
def test_products_in_range_search(gpu: Emulation, blackwell: Emulation, width: int) -> None:
    rng = np.random.default_rng(width)
    database, queries = random_codes(rng, 700, width), random_codes(rng, 9, width)
    database[::7] = queries[rng.integers(0, 9, 100)]
    mask = rng.random(700) < 0.5
    for radius, allowed in ((0, None), (3 * width, mask), (4 * width, None)):
        expected = reference.hamming_range(
            *map(torch.from_numpy, (queries, database)),
            radius,
            mask=None if allowed is None else torch.from_numpy(allowed),
        )
        for emulation in (gpu, blackwell):
            found = emulation.call("hamming_range", queries=queries, database=database, radius=radius, mask=allowed)
            for ours, oracle in zip(found, expected, strict=True):
                np.testing.assert_array_equal(ours, oracle.numpy())


@pytest.mark.parametrize("rows", [512, 513, 1023, 1024, 1025, 1151, 1153, 4095, 4097, 8193])
def test_ends_of_stretches_and_units(gpu: Emulation, rows: int) -> None:
    """Near codes about the ends of groups and units of rows, and of the database."""
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
    """k above 128 widens stretches by 4 instead of 8; 140 makes the sample longer."""
    rng = np.random.default_rng(k)
    check(gpu, random_codes(rng, 2, 8), random_codes(rng, 5000, 8), k)


def test_tiles_and_batches_of_queries(gpu: Emulation) -> None:
    """More queries than a tile, and than the candidates of a batch."""
    rng = np.random.default_rng(1)
    check(gpu, random_codes(rng, 150, 8), random_codes(rng, 600, 8), 3)


@pytest.mark.parametrize("k", [1, 20, 128])
def test_equal_codes(gpu: Emulation, k: int) -> None:
    """All distances tie: only lower positions than those of the sample become candidates."""
    check(gpu, np.zeros((2, 8), np.uint8), np.zeros((1000, 8), np.uint8), k)
    for place in (0, 500, 995):  # the only near codes, all at one distance
        codes = np.full((1000, 8), 255, np.uint8)
        codes[place : place + 5] = 0
        check(gpu, np.zeros((2, 8), np.uint8), codes, k)


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("masked", [False, True])
def test_codes_from_far_to_near(gpu: Emulation, k: int, masked: bool) -> None:
    """Codes sorted by their distance from some queries, and seen from near to far or otherwise by others."""
    database = np.packbits(np.arange(2000)[:, None] // 30 < np.arange(72), axis=1)
    queries = np.zeros((40, 9), np.uint8)
    queries[::3] = 0xFF  # these see the codes from near to far
    queries[1::3, :4] = 0xFF
    mask = np.random.default_rng(k).random(2000) < 0.7 if masked else None
    for seed in range(3):
        check(gpu, queries, database, k, mask, seed=seed)


def nearer_later(gpu: Emulation, rows: int, k: int) -> Array:
    """Codes of which each stretch has nearer ones to 0 than all before it."""
    stretch, _ = gpu.call("one_pass_stretches", n=rows, k=k, group_rows=32)
    distance = np.repeat(60 - 20 * stretch, 32)[:rows] - np.arange(rows) % 10
    return np.packbits(np.arange(64) < distance[:, None], axis=1)


def farther_later(gpu: Emulation, rows: int, k: int) -> Array:
    """Codes of which the sample has the nearest to 0."""
    stretch, _ = gpu.call("one_pass_stretches", n=rows, k=k, group_rows=32)
    distance = np.repeat(10 + 20 * stretch, 32)[:rows] + np.arange(rows) % 10
    return np.packbits(np.arange(64) < distance[:, None], axis=1)


@pytest.mark.parametrize("k", [1, 10, 140])
@pytest.mark.parametrize("masked", [False, True])
def test_candidates_without_room(gpu: Emulation, k: int, masked: bool) -> None:
    """The queries concerned are counted, the others are not."""
    database = nearer_later(gpu, 2000 if k < 100 else 9000, k)
    queries = np.zeros((5, 8), np.uint8)
    queries[::2] = 0xFF  # these see the codes from near to far
    mask = np.random.default_rng(k).random(len(database)) < 0.7 if masked else None
    assert gpu.call("hamming_overflowed", queries=queries, database=database, k=k, mask=mask) == 2
    for seed in range(2):
        check(gpu, queries, database, k, mask, seed=seed)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("backward", [False, True])
def test_codes_stored_class_by_class(gpu: Emulation, classes: int, backward: bool) -> None:
    """Each query has its near codes side by side: they fit the room."""
    rng = np.random.default_rng(classes)
    centers = random_codes(rng, classes, 8)
    labels = np.sort(rng.integers(0, classes, 5000))
    database = centers[labels[::-1] if backward else labels]
    database[np.arange(5000), rng.integers(0, 8, 5000)] ^= 1 << rng.integers(0, 8, 5000).astype(np.uint8)
    queries = centers[rng.integers(0, classes, 8)]
    check(gpu, queries, database, 10)
    assert gpu.call("hamming_overflowed", queries=queries, database=database, k=10) == 0


@pytest.mark.parametrize("rows", [300, 520, 1100, 2000, 4097, 33_000])
@pytest.mark.parametrize("k", [1, 129, 3000])
def test_every_row_is_visited_once(gpu: Emulation, rows: int, k: int) -> None:
    """Of the small sizes too (those of a GPU: test_one_pass_plan.py)."""
    stretch, twice = gpu.call("one_pass_stretches", n=rows, k=k, group_rows=32)
    assert twice == 0
    assert stretch.min() >= 0
    assert stretch.max() == gpu.call("one_pass_shape", q=1, n=rows, width=8, k=k)["stretches"]


@pytest.mark.parametrize("first", [100, 700, 1990, 2000])
def test_filters_that_leave_out_the_beginning(gpu: Emulation, first: int) -> None:
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
        "block_row); });\n    __syncthreads();",
        "block_row); });\n    if (!FAULT) __syncthreads();",
    ),
    "a tile of keys is overwritten while others read it": (
        "hamming_one_pass_cuda.cu",
        "__syncthreads();  // the last tile is done",
        "if (!FAULT) __syncthreads();",
    ),
    "keys go to places that others have not read": (
        "hamming_one_pass_cuda.cu",
        "__syncthreads();  // these are read:",
        "if (!FAULT) __syncthreads();  // these are read:",
    ),
    "a digit is counted again while others read it": (
        "hamming_one_pass_cuda.cu",
        "__syncthreads();  // all have read it",
        "if (!FAULT) __syncthreads();",
    ),
    "digits are found before all are counted": (
        "hamming_one_pass_cuda.cu",
        "        __syncthreads();\n        constexpr int kOwn",
        "        if (!FAULT) __syncthreads();\n        constexpr int kOwn",
    ),
    "a group ends one row early": (
        "hamming_one_pass_cuda.cu",
        "min(end, scan.N),",
        "min(end, scan.N) - FAULT,",
    ),
    "a warp begins one row before its groups": (
        "hamming_one_pass_cuda.cu",
        "tile.visit_nearer(scan, begin,",
        "tile.visit_nearer(scan, begin - (FAULT && begin > 0),",
    ),
    "the farthest neighbour of the sample is dropped": (
        "hamming_one_pass_cuda.cu",
        "found ? key + 1 : key",
        "found ? key + 1 - FAULT : key",
    ),
    "ties at lower positions are left out": (
        "hamming_one_pass_cuda.cu",
        "row < position_of(threshold[q]) ? 1 : 0",
        "row < position_of(threshold[q]) ? 1 - FAULT : 0",
    ),
    "candidates without room are forgotten": (
        "hamming_one_pass_cuda.cu",
        "c.overflowed[q] = 1;",
        "c.overflowed[q] = 1 - FAULT;",
    ),
    "lanes leave the products one by one": (
        "product_tile.cuh",
        "!__any_sync(kAllLanes, rows.multiply(queries, starts, j, d) < 0)",
        "FAULT ? rows.multiply(queries, starts, j, d) >= 0 :"
        " !__any_sync(kAllLanes, rows.multiply(queries, starts, j, d) < 0)",
    ),
    "the two halves of a product's rows change places": (
        "product_tile.cuh",
        "16 * i + 8 * (r / 2)",
        "16 * i + 8 * ((r / 2) ^ FAULT)",
    ),
    "queries change places": ("product_tile.cuh", "% 4 * 2 + r % 2;", "% 4 * 2 + (r % 2 ^ FAULT);"),
    "the last query of a tile has no limit": ("product_tile.cuh", "q < count ?", "q < count - FAULT ?"),
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
    change = with_faults(list(FAULTS.values()), ["hamming/cuda/product_tile.cuh", "hamming/cuda/bit_products.cuh"])
    names = {name for name, _, _ in FAULTS.values()} | {"api.cpp", "emulation.cpp", "one_pass_plan.cpp"}
    emulation = Emulation(build([source for source in SOURCES if source.name in names], change))
    yield emulation
    emulation.close()


def wrong(gpu: Emulation, fault: int, seed: int) -> bool:
    """Whether a few searches under one schedule tell the fault."""
    rng = np.random.default_rng(seed)
    database, queries = random_codes(rng, 1100 + seed, 8), random_codes(rng, 3, 8)
    no_room, sampled = nearer_later(gpu, 1100, 10), farther_later(gpu, 1100, 10)
    tied = database & np.uint8([3, 0, 0, 0, 0, 0, 0, 0])  # the answer is the first of many at distance 0
    few = database[: 200 + seed] & 0x11  # two passes, with ties
    many = random_codes(rng, 5200, 8)
    try:
        for codes, k in (
            (database, 20),
            (no_room, 10),
            (sampled, 10),
            (tied, 20),
            (few, 40),
            (many, 300),
            (many[:3000], 800),
        ):
            asked = np.zeros_like(queries) if codes is no_room or codes is sampled else queries & codes[:3]
            check(gpu, asked, codes, k, seed=seed, fault=fault)
    except (AssertionError, EmulationError):
        return True
    return False


def test_no_fault(faulty: Emulation) -> None:
    assert not any(wrong(faulty, 0, seed) for seed in range(3))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(faulty: Emulation, fault: str) -> None:
    number = 1 + list(FAULTS).index(fault)
    assert any(wrong(faulty, number, seed) for seed in range(6))
