"""Weighted Hamming distances on CUDA (csrc/hamming/cuda/weights.cuh), under the emulation, against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from emulation import Emulation, EmulationError
from numpy.typing import NDArray

from fasthash import reference

Array = NDArray[Any]
BitWeights = Sequence[tuple[int, int]]

# Every way in which a code's words are loaded, and 33 and 265 bytes, too wide for registers.
WIDTHS = [1, 2, 4, 5, 8, 9, 16, 31, 32, 33, 48, 64, 96, 128, 265]


def codes(rng: np.random.Generator, rows: int, width: int) -> Array:
    return rng.integers(0, 256, (rows, width), dtype=np.uint8)


def groups_of(rng: np.random.Generator, width: int, count: int, most_weight: int = 255) -> BitWeights:
    """So many groups between random bits, which leave up to 7 bits of the last byte over."""
    bits = 8 * width - int(rng.integers(0, 8))
    count = min(count, bits)
    ends = np.sort(rng.choice(np.arange(1, bits), count - 1, replace=False)).tolist()
    weights = rng.integers(1, most_weight + 1, count).tolist()
    return [(end - begin, weight) for begin, end, weight in zip([0, *ends], [*ends, bits], weights, strict=True)]


def layouts(width: int, most_distance: int = 2**31) -> list[BitWeights]:
    """Groups of all kinds; weights are cut so that the largest distance is about `most_distance` at most."""
    rng, bits = np.random.default_rng(width), 8 * width
    singles = min(bits - 1, 63)
    found = [
        [(bits, 1)],
        [(bits - 5, 3)],
        [(singles, 2), (bits - singles, 7)],
        [*((1, 1 + 4 * i) for i in range(singles)), (bits - singles, 255)],  # more weights in a word than digits
        [*((1, 1 + i % 2) for i in range(singles)), (bits - singles, 1)],  # two weights, many groups
        groups_of(rng, width, 3),
        groups_of(rng, width, 64),
    ]
    if width > 1:
        found += [[(8, 5), (bits - 8, 1)], [(bits - 8, 1), (8, 4)]]
    if width > 5:
        found += [[(32, 2), (bits - 32, 3)], [(33, 9), (bits - 33, 1)]]
    most = max(2, most_distance // bits)
    return [[(part, min(weight, most)) for part, weight in groups] for groups in found]


def tensors(*arrays: Array | None) -> list[Any]:
    return [None if array is None else torch.from_numpy(array) for array in arrays]


def same(found: Sequence[Array], expected: Sequence[torch.Tensor]) -> None:
    for ours, oracle in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, oracle.numpy())


def check_topk(
    gpu: Emulation, queries: Array, database: Array, k: int, groups: BitWeights, mask: Array | None = None, **rest: Any
) -> None:
    found = gpu.call("hamming_topk", queries=queries, database=database, k=k, mask=mask, bit_weights=groups, **rest)
    if "columns" in rest:
        database = np.ascontiguousarray(database[:, slice(*rest["columns"])])
    a, b, allowed = tensors(queries, database, mask)
    same(found, reference.hamming_topk(a, b, k, mask=allowed, bit_weights=groups))


def check_range(
    gpu: Emulation, queries: Array, database: Array, radius: int, groups: BitWeights, mask: Array | None = None
) -> None:
    problem = {"queries": queries, "database": database, "radius": radius, "mask": mask}
    found = gpu.call("hamming_range", **problem, bit_weights=groups)
    a, b, allowed = tensors(queries, database, mask)
    same(found, reference.hamming_range(a, b, radius, mask=allowed, bit_weights=groups))


@pytest.mark.parametrize("width", WIDTHS)
def test_distances(gpu: Emulation, width: int) -> None:
    rng = np.random.default_rng(width)
    queries, database = codes(rng, 3, width), codes(rng, 70, width)
    queries[0], queries[1] = database[5], ~database[5]  # all bits differ: the largest distance
    for groups in layouts(width):
        found = gpu.call("hamming_distances", queries=queries, database=database, bit_weights=groups)
        assert found[0, 5] == 0
        assert found[1, 5] == sum(bits * weight for bits, weight in groups)
        same([found], [reference.hamming_distances(*tensors(queries, database), groups)])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_topk(gpu: Emulation, width: int, masked: bool) -> None:
    """In one pass (1,100 rows, few neighbours) and in two; with more neighbours than eligible codes."""
    rng = np.random.default_rng(width)
    queries, database, mask = codes(rng, 3, width), codes(rng, 1100, width), rng.random(1100) < 0.3
    queries[0] = database[1000]
    for number, groups in enumerate(layouts(width, 3000)):
        rows = 1100 if number % 2 else 300
        allowed = mask[:rows] if masked else None
        check_topk(gpu, queries, database[:rows], 10, groups, allowed, seed=number)
    check_topk(gpu, queries[:2], database[:300], 300, groups_of(rng, width, 9, 20), allowed)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_range(gpu: Emulation, width: int, masked: bool) -> None:
    rng = np.random.default_rng(width)
    queries, database = codes(rng, 3, width), codes(rng, 300, width)
    queries[0] = database[299]
    mask = rng.random(300) < 0.4 if masked else None
    for number, groups in enumerate(layouts(width, 3000)):
        largest = sum(bits * weight for bits, weight in groups)
        radius = [0, largest // 3, largest // 2, largest, 2 * largest][number % 5]
        check_range(gpu, queries, database, radius, groups, mask)


@pytest.mark.parametrize("width", WIDTHS)
def test_histogram(gpu: Emulation, width: int) -> None:
    rng = np.random.default_rng(width)
    queries, database = codes(rng, 3, width), codes(rng, 300, width)
    labels, weights = rng.integers(0, 4, 300), rng.standard_normal((3, 4))
    for groups in layouts(width, 1500)[1::2]:
        problem = {"queries": queries, "database": database, "bit_weights": groups}
        expected = reference.hamming_histogram(*tensors(queries, database, labels, weights), groups)
        counts, none = gpu.call("hamming_histogram", **problem)
        same([counts], [expected[0]])
        assert none is None
        if width not in (1, 5, 8, 33):
            continue
        counts, sums = gpu.call("hamming_histogram", **problem, labels=labels, class_weights=weights)
        same([counts], [expected[0]])
        assert expected[1] is not None
        np.testing.assert_allclose(sums, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("classes", [1, 7, 60])
def test_histogram_of_more_distances_than_fit(gpu: Emulation, classes: int) -> None:
    """Distances of one query are counted in parts: 256 KiB of counts in the emulation."""
    rng = np.random.default_rng(classes)
    queries, database, groups = codes(rng, 2, 8), codes(rng, 200, 8), [(20, 255), (44, 77)]
    labels, weights = rng.integers(0, classes, 200), rng.standard_normal((2, classes))
    expected = reference.hamming_histogram(*tensors(queries, database, labels, weights), groups)
    problem = {"queries": queries, "database": database, "labels": labels, "class_weights": weights}
    counts, sums = gpu.call("hamming_histogram", **problem, bit_weights=groups)
    same([counts], [expected[0]])
    assert expected[1] is not None
    np.testing.assert_allclose(sums, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [1, 8, 16, 33])
def test_weights_of_one(gpu: Emulation, width: int) -> None:
    """Undivided results; and twice the distances where every weight is 2."""
    rng = np.random.default_rng(width)
    problem = {"queries": codes(rng, 5, width), "database": codes(rng, 700, width)}
    bits = 8 * width
    for split in ([bits], [3, bits - 3]):
        for name, rest in (("hamming_topk", {"k": 9}), ("hamming_range", {"radius": bits}), ("hamming_histogram", {})):
            plain = gpu.call(name, **problem, **rest)
            for ours, expected in zip(
                gpu.call(name, **problem, **rest, bit_weights=[(part, 1) for part in split]), plain, strict=True
            ):
                np.testing.assert_array_equal(ours, expected)
    distances, ids = gpu.call("hamming_topk", **problem, k=9)
    doubled = gpu.call("hamming_topk", **problem, k=9, bit_weights=[(bits, 2)])
    np.testing.assert_array_equal(doubled[0], 2 * distances)
    np.testing.assert_array_equal(doubled[1], ids)


def test_padding_bits_count_nothing(gpu: Emulation) -> None:
    rng = np.random.default_rng(0)
    queries, database, groups = codes(rng, 3, 5), codes(rng, 600, 5), [(11, 4), (22, 1)]
    other = database ^ (rng.integers(0, 128, (600, 1), dtype=np.uint8) * (np.arange(5) == 4)).astype(np.uint8)
    for k in (7, 600):
        one, two = (
            gpu.call("hamming_topk", queries=queries, database=d, k=k, bit_weights=groups) for d in (database, other)
        )
        same(one, tensors(*two))


@pytest.mark.parametrize("rows", [512, 1023, 1024, 1025, 4097])
def test_ends_of_stretches(gpu: Emulation, rows: int) -> None:
    """Near codes about the ends of stretches and units; ties of codes that differ in other numbers of bits."""
    rng = np.random.default_rng(rows)
    database, groups = codes(rng, rows, 8), [(8, 6), (8, 3), (40, 2), (8, 1)]
    for place in (0, 127, 128, 255, 256, 383, 1023, 1024, 1279, rows - 1):
        if place < rows:
            database[place] = np.packbits(np.arange(64) == place % 64)
    queries = np.zeros((2, 8), np.uint8)
    for seed in range(3):
        check_topk(gpu, queries, database, 5, groups, seed=seed)
    check_topk(gpu, queries, database, 40, groups, rng.random(rows) < 0.9)


@pytest.mark.parametrize("k", [1, 12])
def test_codes_from_far_to_near(gpu: Emulation, k: int) -> None:
    """Candidates find no room, and the queries concerned are counted."""
    database = np.packbits(np.arange(2000)[:, None] // 30 < np.arange(72), axis=1)
    queries = np.zeros((9, 9), np.uint8)
    queries[::3] = 0xFF
    check_topk(gpu, queries, database, k, [(9, 200), (50, 3), (12, 17)])
    check_topk(gpu, queries, database, k, [(70, 255)])


def test_many_queries(gpu: Emulation) -> None:
    """More than a tile and a batch, with more distances than shared memory counts."""
    rng = np.random.default_rng(3)
    queries, database = codes(rng, 70, 8), codes(rng, 600, 8)
    for groups in ([(20, 5), (44, 2)], [(20, 255), (43, 101)]):
        check_topk(gpu, queries, database, 3, groups)
        check_topk(gpu, queries, database, 200, groups)
        check_range(gpu, queries, database, sum(bits * weight for bits, weight in groups) // 3, groups)


def test_distances_beyond_a_candidate_key(gpu: Emulation) -> None:
    """Codes of 1,024 bits with large weights go in two passes: distances are above 2^17."""
    rng = np.random.default_rng(0)
    far, groups = codes(rng, 520, 128) | codes(rng, 520, 128) | codes(rng, 520, 128), [(100, 255), (924, 250)]
    queries = np.zeros((2, 128), np.uint8)
    assert reference.hamming_distances(*tensors(queries, far), groups).min() > 2**17
    check_topk(gpu, queries, far, 4, groups, rng.random(520) < 0.8)


@pytest.mark.parametrize(
    ("columns", "misalign"), [((0, 8), 4), ((3, 11), 0), ((4, 20), 0), ((16, 48), 8), ((5, 70), 1)]
)
def test_column_slices(gpu: Emulation, columns: tuple[int, int], misalign: int) -> None:
    rng = np.random.default_rng(misalign)
    width = columns[1] - columns[0]
    layout = {"columns": columns, "misalign": misalign}
    check_topk(gpu, codes(rng, 2, width), codes(rng, 900, 80), 9, groups_of(rng, width, 17), **layout)


def test_no_queries_or_codes(gpu: Emulation) -> None:
    none, some, groups = np.zeros((0, 8), np.uint8), np.zeros((3, 8), np.uint8), [(60, 3)]
    distances, ids = gpu.call("hamming_topk", queries=some, database=none, k=2, bit_weights=groups)
    assert (distances == 181).all()
    assert (ids == -1).all()
    for queries, database in ((none, some), (some, none)):
        problem = {"queries": queries, "database": database, "bit_weights": groups}
        assert gpu.call("hamming_distances", **problem).size == 0
        assert gpu.call("hamming_range", **problem, radius=180)[1].size == 0
        counts, sums = gpu.call(
            "hamming_histogram", **problem, labels=np.zeros(len(database), np.int64),
            class_weights=np.ones((len(queries), 2)),
        )  # fmt: skip
        assert counts.shape == sums.shape == (len(queries), 181)
        assert not counts.any()


def test_workspaces_follow_the_largest_distance_within_bounds(gpu: Emulation) -> None:
    sizes = {"queries": 1000, "rows": 5000, "width": 8}
    plain = gpu.call("hamming_workspaces", **sizes)
    for weight in (1, 2, 20, 255):
        bins = 64 * weight + 1
        found = gpu.call("hamming_workspaces", **sizes, bit_weights=[(64, weight)])
        assert found.keys() == plain.keys()
        for name, size in found.items():
            # Counts and sums of two queries, where no more fit; the counts of each of 8 sampled groups of rows.
            assert size <= plain[name] + 2 * (80 if name == "top 10" else 16) * bins, name
            assert size >= 8 * bins or name == "histogram of classes", name


def test_a_short_workspace_is_refused(gpu: Emulation) -> None:
    code, groups = np.zeros((3, 4), np.uint8), [(30, 9)]
    rests: dict[str, dict[str, Any]] = {
        "hamming_topk": {"k": 1},
        "hamming_range": {"radius": 250},
        "hamming_histogram": {},
    }
    for name, rest in rests.items():
        problem = {"queries": code, "database": code, "bit_weights": groups}
        with pytest.raises(EmulationError, match="the workspace must have"):
            gpu.call(name, **problem, **rest, shortfall=1)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([(1, 2)] * 65, "0 to 64 groups"),
        ([(30, 0)], "weight 1 to 255"),
        ([(30, 256)], "weight 1 to 255"),
        ([(0, 1), (30, 1)], "at least 1 bit"),
        ([(24, 1)], "the groups of bit_weights must hold 8 W - 7 to 8 W bits"),
        ([(33, 1)], "the groups of bit_weights must hold 8 W - 7 to 8 W bits"),
    ],
)
def test_groups_that_python_should_have_refused(gpu: Emulation, groups: BitWeights, words: str) -> None:
    code = np.zeros((3, 4), np.uint8)
    rests: dict[str, dict[str, Any]] = {
        "hamming_topk": {"k": 1}, "hamming_range": {"radius": 2}, "hamming_distances": {}, "hamming_histogram": {},
    }  # fmt: skip
    for name, rest in rests.items():
        with pytest.raises(EmulationError, match=words):
            gpu.call(name, queries=code, database=code, bit_weights=groups, **rest)
