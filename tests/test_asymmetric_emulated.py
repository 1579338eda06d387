"""asymmetric_topk on CUDA (csrc/asymmetric/cuda), under the emulation, against the oracle, bit by bit.

In the emulation the first stretch has at most 512 rows, a query has room for few candidates and a batch has few
queries, so that small problems have several stretches and batches, and queries that lose candidates.
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
METRICS = ["l1", "dot", "cosine", "l2"]


def codes_of(rng: np.random.Generator, rows: int, bits: int) -> Array:
    """Packed codes; padding bits are set here and there, and do not count."""
    return rng.integers(0, 256, (rows, (bits + 7) // 8), dtype=np.uint8)


def queries_of(rng: np.random.Generator, count: int, bits: int, metric: str = "l1") -> Array:
    real = rng.random((count, bits)) if metric == "l1" else rng.standard_normal((count, bits))
    return real.astype(np.float32)


def scales_of(rng: np.random.Generator, rows: int) -> Array:
    scales = rng.random(rows) * 2
    scales[: rows // 7] *= 1e-5  # subnormal halves
    scales[: rows // 9] = 0
    return rng.permutation(scales).astype(np.float16)


def wanted(
    queries: Array, database: Array, k: int, metric: str, mask: Array | None, scales: Array | None, weights: Any = ()
) -> tuple[Array, Array]:
    mask, scale = (None if a is None else torch.from_numpy(a) for a in (mask, scales))
    options: dict[str, Any] = {"bit_weights": weights} if weights else {}
    found = reference.asymmetric_topk(
        torch.from_numpy(queries), torch.from_numpy(database), min(k, len(database)), code_scale=scale, metric=metric,
        mask=mask, **options,
    )  # fmt: skip
    return found[0].numpy(), found[1].numpy()


def check(
    gpu: Emulation,
    queries: Array,
    database: Array,
    k: int,
    metric: str = "l1",
    mask: Array | None = None,
    scales: Array | None = None,
    **rest: Any,
) -> None:
    arguments = {"queries": queries, "database": database, "k": k, "metric": metric, "mask": mask, "scales": scales}
    distances, ids = gpu.call("asymmetric_topk", **arguments, **rest)
    if "columns" in rest:
        database = np.ascontiguousarray(database[:, slice(*rest["columns"])])
    expected = wanted(queries, database, k, metric, mask, scales, rest.get("bit_weights", ()))
    there = expected[1].shape[1]
    assert distances[:, :there].tobytes() == expected[0].tobytes()
    np.testing.assert_array_equal(ids[:, :there], expected[1])
    assert np.isinf(distances[:, there:]).all()
    assert (ids[:, there:] == -1).all()


@pytest.mark.parametrize("bits", [1, 9, 31, 32, 61, 64, 72, 128, 200, 250, 256, 264, 520, 1024, 2120])
def test_widths(gpu: Emulation, bits: int) -> None:
    """Words that are read by bytes, by 4, 8 and 16 bytes."""
    rng = np.random.default_rng(bits)
    rows = 650 if bits < 1000 else 100
    for number, metric in enumerate(METRICS):
        count = 2 if number % 2 else 9
        database, scales = codes_of(rng, rows, bits), scales_of(rng, rows)
        queries = queries_of(rng, count if bits < 1000 else 2, bits, metric)
        check(gpu, queries, database, 6, metric, scales=scales if number % 2 else None, seed=bits)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics(gpu: Emulation, metric: str) -> None:
    rng = np.random.default_rng(1)
    database, scales, mask = codes_of(rng, 1300, 64), scales_of(rng, 1300), rng.random(1300) < 0.3
    for count in (1, 8, 10):
        queries = queries_of(rng, count, 64, metric)
        queries[0] = 0
        check(gpu, queries, database, 7, metric, seed=count)
        check(gpu, queries, database, 7, metric, mask, seed=count)
        if metric != "l1":
            check(gpu, queries, database, 7, metric, scales=scales, seed=count)
            check(gpu, queries.astype(np.float64), database, 7, metric, mask, scales, seed=count)


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 127, 511, 512, 513, 575, 576, 577, 640, 1151, 1153, 4800])
def test_ends_of_granules_and_stretches(gpu: Emulation, rows: int) -> None:
    """The nearest codes lie about the ends of granules, and last."""
    rng = np.random.default_rng(rows)
    database = codes_of(rng, rows, 24)
    for place in (0, 63, 64, 511, 512, 575, 576, rows - 2, rows - 1):
        if 0 <= place < rows:
            database[place] = [0, 0, 1 << place % 8]
    queries = (queries_of(rng, 2, 24) * 0.4).astype(np.float32)
    for k in sorted({1, min(rows, 10)}):
        check(gpu, queries, database, k, seed=rows)
    check(gpu, queries, database, min(rows, 5), mask=rng.random(rows) < 0.8, seed=rows)


@pytest.mark.parametrize("k", [1, 2, 31, 64, 65, 200, 699, 700, 703, 2100])
def test_numbers_of_neighbours(gpu: Emulation, k: int) -> None:
    """To the number of codes and beyond it; above 2,048 they are sorted outside of shared memory."""
    rng = np.random.default_rng(k)
    rows = 700 if k < 1000 else 2200
    check(gpu, queries_of(rng, 2, 40), codes_of(rng, rows, 40), k, seed=k)


@pytest.mark.parametrize("count", [8, 9, 32, 33, 70, 140])
def test_tiles_and_batches_of_queries(gpu: Emulation, count: int) -> None:
    rng = np.random.default_rng(count)
    check(gpu, queries_of(rng, count, 16), codes_of(rng, 580, 16), 3, seed=count)
    check(gpu, queries_of(rng, count, 16, "l2"), codes_of(rng, 70, 16), 3, "l2", scales=scales_of(rng, 70), seed=count)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lowest_position(gpu: Emulation, metric: str) -> None:
    """Equal codes, few different codes, and queries at the same distance from all: whatever the schedule."""
    rng = np.random.default_rng(3)
    few = codes_of(rng, 5, 33)[rng.integers(0, 5, 900)]
    binary = (rng.random((3, 33)) > 0.5).astype(np.float32)
    for seed, queries in enumerate((queries_of(rng, 2, 33, metric), binary, np.full((2, 33), 0.5, np.float32))):
        for database in (few, few[:1].repeat(900, 0)):
            check(gpu, queries, database, 20, metric, seed=seed)
    check(gpu, binary, few, 900, metric)


def test_schedules_do_not_show(gpu: Emulation) -> None:
    rng = np.random.default_rng(0)
    database = codes_of(rng, 2000, 16) & codes_of(rng, 2000, 16)
    queries = np.round(queries_of(rng, 3, 16), 1)
    for seed in range(5):
        check(gpu, queries, database, 20, seed=seed)


@pytest.mark.parametrize("order", ["far to near", "near to far", "classes"])
def test_codes_in_order(gpu: Emulation, order: str) -> None:
    """The stretches sample the database evenly: no query loses candidates because of the order of the codes."""
    rng = np.random.default_rng(5)
    database, queries = codes_of(rng, 6000, 32), queries_of(rng, 2, 32)
    if order == "classes":
        database = np.repeat(codes_of(rng, 12, 32), 500, 0) ^ (codes_of(rng, 6000, 32) & codes_of(rng, 6000, 32) & 0x11)
    else:
        database = database[wanted(queries[:1], database, 6000, "l1", None, None)[1][0]]
        database = database[::-1].copy() if order == "far to near" else database
    check(gpu, queries, database, 5)


def chosen(group: int, level: int) -> int:
    """Stretch::chosen of asymmetric_topk_cuda.cu."""
    return (group + level * 0x2545F4914F6CDD1D) * 0x9E3779B97F4A7C15 % 2**64 >> 61


@pytest.mark.parametrize("k", [1, 10])
def test_a_query_that_loses_candidates_is_searched_again(gpu: Emulation, k: int) -> None:
    """The granule of the first stretch is far, and all others are near: more of them pass than there is room for."""
    rng = np.random.default_rng(k)
    rows, sizes = 8000, [125, 15, 1]
    first = 0
    for level in range(len(sizes) - 1, 0, -1):
        first = 8 * first + chosen(first, level - 1)
    database = codes_of(rng, rows, 24) & 0x3F
    database[64 * first : 64 * first + 64] = 0xFF
    queries = np.zeros((3, 24), np.float32) + 0.1 * queries_of(rng, 3, 24)
    queries[1] = 1 - queries[1]  # this one finds them near
    for seed in range(2):
        check(gpu, queries, database, k, seed=seed)
    check(gpu, queries, database, k, mask=rng.random(rows) < 0.8)
    check(gpu, queries, database, k, "l2", scales=np.ones(rows, np.float16))


@pytest.mark.parametrize("first", [0, 100, 1990, 2000])
def test_filters_that_leave_out_the_beginning(gpu: Emulation, first: int) -> None:
    rng = np.random.default_rng(first)
    database, mask = codes_of(rng, 2000, 40), np.zeros(2000, bool)
    mask[first:] = True
    check(gpu, queries_of(rng, 3, 40), database, 12, mask=mask)
    check(gpu, queries_of(rng, 3, 40), database, 12, mask=mask & (rng.random(2000) < 0.02))


@pytest.mark.parametrize(
    ("columns", "misalign"), [((0, 8), 4), ((3, 11), 0), ((4, 20), 0), ((8, 24), 0), ((16, 48), 0), ((16, 48), 8)]
)
def test_column_slices(gpu: Emulation, columns: tuple[int, int], misalign: int) -> None:
    rng = np.random.default_rng(misalign)
    queries = queries_of(rng, 2, 8 * (columns[1] - columns[0]))
    check(gpu, queries, codes_of(rng, 640, 8 * 64), 9, columns=columns, misalign=misalign)


@pytest.mark.parametrize("groups", [[(5, 3), (28, 1)], [(1, 255), (32, 1)], [(1, w) for w in range(1, 34)]])
def test_weights(gpu: Emulation, groups: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(len(groups))
    check(gpu, queries_of(rng, 3, 33), codes_of(rng, 700, 33), 9, bit_weights=groups)


def test_without_queries_or_codes(gpu: Emulation) -> None:
    rng = np.random.default_rng(0)
    check(gpu, queries_of(rng, 0, 16), codes_of(rng, 100, 16), 3)
    for rows, mask in ((0, None), (100, np.zeros(100, bool))):
        distances, ids = gpu.call(
            "asymmetric_topk", queries=queries_of(rng, 2, 16), database=codes_of(rng, rows, 16), k=3, mask=mask
        )
        assert np.isinf(distances).all()
        assert (ids == -1).all()


SIZES = [0.0, 1e-45, 1e-38, 1e-30, 1e-8, 0.3, 0.5, 1.0, 1.0 + 2**-23, 3.0, 1e4, 1e10, 1e30, 3.4028234663852886e38]


@pytest.mark.parametrize("seed", range(28))
def test_hostile_numbers(gpu: Emulation, seed: int) -> None:
    """Queries of few or mixed sizes, codes with duplicates, scales from 0 to the largest half."""
    rng = np.random.default_rng(seed)
    bits, rows, metric = int(rng.integers(1, 70)), int(rng.integers(1, 900)), METRICS[seed % 4]
    queries = rng.choice(rng.choice(SIZES, 3), (int(rng.choice([1, 3, 9])), bits)) * rng.choice([-1, 1, 1], bits)
    if rng.random() < 0.5:
        queries = queries * rng.random(queries.shape)
    database = codes_of(rng, int(rng.integers(1, rows + 1)), bits)[:, :]
    database = database[rng.integers(0, len(database), rows)]
    scales = rng.choice([0, 6e-8, 3e-5, 0.1, 1, 1.001, 300, 65504], rows).astype(np.float16)
    kind = np.float64 if rng.random() < 0.5 else np.float32
    given = scales if metric != "l1" and rng.random() < 0.7 else None
    check(gpu, queries.astype(kind), database, int(rng.integers(1, min(rows, 40) + 1)), metric, scales=given, seed=seed)


def test_a_short_workspace_and_a_launch_that_fails(gpu: Emulation) -> None:
    rng = np.random.default_rng(0)
    arguments = {"queries": queries_of(rng, 2, 16), "database": codes_of(rng, 100, 16), "k": 3}
    with pytest.raises(EmulationError, match=r"^fh_asymmetric_topk_cuda: the workspace must have \d+ bytes, got -\d+$"):
        gpu.call("asymmetric_topk", shortfall=10**9, **arguments)
    with pytest.raises(EmulationError, match=r"^asymmetric_prepare_kernel: no kernel image is available"):
        gpu.call("asymmetric_topk", fault=-209, **arguments)
    for metric, rest, words in (
        ("l1", {"scales": np.ones(100, np.float16)}, "groups need metric l1, scales need another metric"),
        ("dot", {"bit_weights": [(16, 2)]}, "groups need metric l1, scales need another metric"),
        ("l1", {"bit_weights": [(15, 2)]}, "the groups must have D bits in all"),
    ):
        with pytest.raises(EmulationError, match=f"^fh_asymmetric_topk_cuda: {words}"):
            gpu.call("asymmetric_topk", **arguments, metric=metric, **rest)


# Faults. Each is a change of the sources that a person could make; FAULT is 1 where it shows, 0 elsewhere.

FAULTS = {
    "limits are read before they are staged": (
        "asymmetric_topk_cuda.cu",
        "bytes = staged_bytes;\n    }\n    __syncthreads();",
        "bytes = staged_bytes;\n    }\n    if (!FAULT) __syncthreads();",
    ),
    "the last row of a granule is left out": (
        "asymmetric_topk_cuda.cu",
        "left >= kGranuleRows ? ~uint64_t{0} :",
        "left >= kGranuleRows ? ~uint64_t{0} >> FAULT :",
    ),
    "a granule is visited twice, and another never": (
        "stretch.cuh",
        "member >= Stretch::chosen(group, stretch.level)",
        "member >= Stretch::chosen(group, stretch.level) - FAULT",
    ),
    "granules behind the last whole group are forgotten": (
        "asymmetric_topk_cuda.cu",
        "last ? size : size - size / kGrowth",
        "last ? size : size - size / kGrowth - FAULT * (size % kGrowth)",
    ),
    "bytes are rounded up": ("prepare.cuh", "floor(difference / step)", "floor(difference / step + FAULT)"),
    "codes at the K-th distance are ruled out": (
        "byte_bound.cuh",
        "float_of(key + 1)",
        "float_of(key - FAULT * 3000000)",
    ),
    "lost candidates are forgotten": (
        "select.cuh",
        "s.overflowed[q] = 1;",
        "s.overflowed[q] = 1 - FAULT;",
    ),
    "ties at the K-th place are kept by chance": (
        "search.cuh",
        "n >= s.last_positions[q])) return;",
        "(FAULT || n >= s.last_positions[q]))) return;",
    ),
    "a turn overwrites what others still read": (
        "select.cuh",
        "(kept));\n        __syncthreads();",
        "(kept));\n        if (!FAULT) __syncthreads();",
    ),
    "digits are counted before the counts are zero": (
        "select.cuh",
        "shared.counts[bin] = 0;\n        __syncthreads();",
        "shared.counts[bin] = 0;\n        if (!FAULT) __syncthreads();",
    ),
    "nibbles are added in another order": (
        "search.cuh",
        "table[bits >> 4]);\n        sum = __dadd_rn(sum, table[16 + (bits & 15)]);",
        "FAULT ? table[16 + (bits & 15)] : table[bits >> 4]);\n"
        "        sum = __dadd_rn(sum, FAULT ? table[bits >> 4] : table[16 + (bits & 15)]);",
    ),
    "a sort's step begins before the last has ended": (
        "select.cuh",
        "compare(left, left + step);\n            }\n            __syncthreads();",
        "compare(left, left + step);\n            }\n            if (!FAULT) __syncthreads();",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Iterator[Emulation]:
    """The kernels with all these faults in them."""
    if compiler() is None:
        pytest.skip("the emulation of CUDA needs g++")
    headers = [f"asymmetric/cuda/{name}.cuh" for name in ("prepare", "select", "stretch", "search", "byte_bound")]
    names = {"asymmetric_topk_cuda.cu", "api.cpp", "emulation.cpp"}
    change = with_faults(list(FAULTS.values()), headers)
    emulation = Emulation(build([source for source in SOURCES if source.name in names], change))
    yield emulation
    emulation.close()


def wrong(gpu: Emulation, fault: int, seed: int) -> bool:
    """Whether a few searches under one schedule tell the fault."""
    rng = np.random.default_rng(seed)
    database = codes_of(rng, 1200 + seed, 61)
    mixed = (10.0 ** rng.uniform(-8, 8, (2, 61))).astype(np.float32)
    far = codes_of(rng, 8000, 24) & 0x3F
    first = 8 * chosen(0, 1) + chosen(chosen(0, 1), 0)
    far[64 * first : 64 * first + 64] = 0xFF
    equal = np.zeros((1000, 2), np.uint8)
    cancelling = np.zeros((1, 16))
    cancelling[0, [0, 8, 12]] = 1e16, -1e16, -1  # 1 is left where they are added in order
    try:
        check(gpu, queries_of(rng, 2, 61), database, 300, seed=seed, fault=fault)
        check(gpu, queries_of(rng, 2, 61, "l2"), database, 9, "l2", scales=scales_of(rng, 1200 + seed), fault=fault)
        check(gpu, mixed, database, 5, "dot", seed=seed, fault=fault)
        check(gpu, queries_of(rng, 1, 24) * np.float32(0.1), far, 5, seed=seed, fault=fault)
        check(gpu, np.ones((1, 16), np.float32), equal, 80, seed=seed, fault=fault)
        check(gpu, cancelling, equal | 0xFF, 3, "dot", seed=seed, fault=fault)
    except (AssertionError, EmulationError):
        return True
    return False


def test_no_fault(faulty: Emulation) -> None:
    assert not any(wrong(faulty, 0, seed) for seed in range(2))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(faulty: Emulation, fault: str) -> None:
    number = 1 + list(FAULTS).index(fault)
    assert any(wrong(faulty, number, seed) for seed in range(5))
