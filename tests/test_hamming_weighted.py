"""Weighted Hamming search against the plain oracle: every instruction set, bit for bit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hamming import clustered_codes, random_codes, random_mask
from torch import Tensor

import fasthash
from fasthash import _ops, reference
from fasthash._bit_weights import bit_weights as flat_bit_weights

Groups = list[tuple[int, int]]

pytestmark = pytest.mark.usefixtures("one_thread")

# Bytes of a code: all up to two 64-bit words and a byte, then those with kernels of their own, and longer ones.
WIDTHS = [*range(1, 18), 24, 31, 32, 33, 64, 65, 128, 130]


def split(bits: int, parts: int, seed: int = 0) -> list[int]:
    """`bits` cut at random into at most so many groups, wherever a cut falls."""
    rng = np.random.default_rng(seed)
    cuts = rng.choice(np.arange(1, bits), min(parts, bits) - 1, replace=False) if bits > 1 else []
    return np.diff([0, *sorted(cuts), bits]).tolist()


def weighed(sizes: list[int], weights: list[int]) -> Groups:
    return list(zip(sizes, itertools.cycle(weights)))


def groupings(width: int) -> dict[str, Groups]:
    bits = 8 * width
    return {
        "one group": [(bits, 7)],
        "one group without the padding": [(bits - 5, 255)],
        "two groups": weighed([bits // 2, bits - bits // 2], [3, 1]),
        "inside a byte": weighed([3, bits - 4], [255, 254]),
        "at bytes": weighed([8] * min(width, 64) if width <= 64 else [8] * 63 + [bits - 504], [9, 1, 255, 16]),
        "across words": weighed(split(bits - 1, 5), [255, 1, 100, 2, 31]),
        "many groups": weighed(split(bits, 64), [255, 1, 128, 77, 3, 254, 10]),
        "a group for each bit": weighed([1] * 63 + [bits - 63] if bits > 64 else [1] * bits, [1, 2, 4, 8, 16, 32, 255]),
        "equal weights": weighed(split(bits, 4), [6]),
        "weights of one": weighed(split(bits - 3, 4), [1]),
    }


def check_topk(queries: Tensor, database: Tensor, k: int, mask: Tensor | None, groups: Groups) -> None:
    wanted = reference.hamming_topk(queries, database, k, mask=mask, bit_weights=groups)
    found = fasthash.hamming_topk(queries, database, k, filter=mask, bit_weights=groups)
    assert found.distances.dtype == torch.int32
    assert torch.equal(found.distances, wanted[0])
    assert torch.equal(found.ids, wanted[1])


def check_range(queries: Tensor, database: Tensor, radius: int, mask: Tensor | None, groups: Groups) -> None:
    wanted = reference.hamming_range(queries, database, radius, mask=mask, bit_weights=groups)
    found = fasthash.hamming_range(queries, database, radius, filter=mask, bit_weights=groups)
    for part, expected in zip(found, wanted, strict=True):
        assert torch.equal(part, expected)


def check_everything(queries: Tensor, database: Tensor, mask: Tensor | None, groups: Groups) -> None:
    wanted = reference.hamming_distances(queries, database, groups)
    largest = sum(bits * weight for bits, weight in groups)
    found = fasthash.hamming_distances(queries, database, bit_weights=groups)
    assert found.dtype == torch.int32
    assert torch.equal(found, wanted)
    for k in sorted({1, min(10, len(database)), len(database)}):
        check_topk(queries, database, k, mask, groups)
    for radius in (0, int(wanted.min()), int(wanted.float().median()), largest - 1, largest, largest + 9):
        check_range(queries, database, radius, mask, groups)
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 5, len(database)))
    weights = torch.from_numpy(rng.standard_normal((len(queries), 5)))
    counts, sums = reference.hamming_histogram(queries, database, labels, weights, groups)
    alone, nothing = fasthash.hamming_histogram(queries, database, bit_weights=groups)
    assert nothing is None
    assert torch.equal(alone, counts)
    assert counts.shape[1] == largest + 1
    both = fasthash.hamming_histogram(
        queries, database, database_labels=labels, class_weights=weights, bit_weights=groups
    )
    assert torch.equal(both[0], counts)
    torch.testing.assert_close(both[1], sums, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(width: int, isa: str) -> None:
    """Random codes: what lies behind the groups in the last byte is garbage, and counts nothing."""
    database = torch.cat([random_codes(140, width), clustered_codes(60, width)])
    queries = torch.cat([random_codes(2, width, 1), database[57:58]])
    for number, groups in enumerate(groupings(width).values()):
        check_everything(queries, database, random_mask(200, 0.6) if number % 2 else None, groups)


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 1000, 5000])
@pytest.mark.parametrize("width", [1, 4, 8, 16, 20])
def test_counts(count: int, width: int, isa: str) -> None:
    groups = groupings(width)
    for name in ("two groups", "inside a byte"):
        check_topk(random_codes(2, width, 1), clustered_codes(count, width), min(count, 30), None, groups[name])
        check_range(random_codes(2, width, 1), random_codes(count, width), 40 * width, None, groups[name])


@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("width", [4, 8, 12])
def test_filters(density: float, width: int, isa: str) -> None:
    database, mask, groups = random_codes(3300, width), random_mask(3300, density), groupings(width)["across words"]
    for k in (1, 50, 3300):
        check_topk(database[5:6], database, k, mask, groups)
    check_topk(random_codes(20, width, 1), database, 50, mask, groups)
    check_range(database[5:7], database, 60 * width, mask, groups)


@pytest.mark.parametrize("k", [1, 300, 8192, 8193, 20_000])
def test_large_k(k: int, isa: str) -> None:
    """One pass, and two where k is large."""
    check_topk(random_codes(2, 8, 1), random_codes(20_000, 8), k, random_mask(20_000, 0.7), [(20, 255), (44, 3)])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("runs", [1, 60])
def test_a_large_database(runs: int, threads: int) -> None:
    """A sample sets the first limits. Where equal codes lie side by side it says too little for some queries."""
    torch.set_num_threads(threads)
    count, groups = 270_000, [(13, 200), (51, 7)]
    database = random_codes(count // runs, 8).repeat_interleave(runs, 0)
    queries = random_codes(6, 8, 1)
    distances = fasthash.hamming_distances(queries, database, bit_weights=groups)
    for k in (10, 500, 3000):
        wanted, order = distances.sort(dim=1, stable=True)
        found = fasthash.hamming_topk(queries, database, k, bit_weights=groups)
        assert torch.equal(found.distances, wanted[:, :k])
        assert torch.equal(found.ids, order[:, :k])


@pytest.mark.parametrize("threads", [2, 4])
def test_threads(threads: int) -> None:
    torch.set_num_threads(threads)
    queries, database = random_codes(20, 8, 1), clustered_codes(30_011, 8)
    for groups in (groupings(8)["two groups"], groupings(8)["many groups"]):
        check_topk(queries[:9], database, 10, None, groups)
        check_topk(queries[:3], database, 20_000, random_mask(len(database), 0.4), groups)
        check_range(queries[:5], database, 900, None, groups)
        counts = fasthash.hamming_histogram(queries, database, bit_weights=groups)[0]
        assert torch.equal(counts, reference.hamming_histogram(queries, database, bit_weights=groups)[0])


@pytest.mark.parametrize("width", [4, 8, 12])
def test_strided_arrays(width: int, isa: str) -> None:
    wide, groups = random_codes(700, width + 9), groupings(width)["across words"]
    for database in (wide[:, 3 : 3 + width], wide[::2, 1 : 1 + width], wide.T.contiguous().T[:, :width]):
        check_topk(database[5:9].contiguous(), database, 20, None, groups)


def test_nothing_to_search(isa: str) -> None:
    none, codes, groups = torch.zeros(0, 8, dtype=torch.uint8), random_codes(5, 8), [(30, 2), (34, 1)]
    assert fasthash.hamming_topk(none, codes, 3, bit_weights=groups).ids.shape == (0, 3)
    assert fasthash.hamming_range(codes, none, 3, bit_weights=groups).offsets.tolist() == [0] * 6
    assert fasthash.hamming_distances(codes, none, bit_weights=groups).shape == (5, 0)
    assert fasthash.hamming_histogram(codes, none, bit_weights=groups)[0].tolist() == [[0] * 95] * 5


def test_far_distances(isa: str) -> None:
    """4,096 bits at weights up to 255: more than a million distances, more than 16 bits of each."""
    groups = [(2000, 255), (2096, 254)]
    database = torch.cat([random_codes(300, 512), torch.zeros(1, 512, dtype=torch.uint8)])
    queries = torch.cat([~database[-1:], database[7:8]])
    check_everything(queries, database, None, groups)
    assert fasthash.hamming_distances(queries[:1], database[-1:], bit_weights=groups).item() == 2000 * 255 + 2096 * 254


def test_missing_places(isa: str) -> None:
    found = fasthash.hamming_topk(random_codes(1, 4), random_codes(9, 4), 3, filter=[4], bit_weights=[(16, 5), (14, 2)])
    assert found.distances[0, 1:].tolist() == [16 * 5 + 14 * 2 + 1] * 2
    assert found.ids.tolist() == [[4, -1, -1]]


def test_numpy_and_one_query() -> None:
    codes = random_codes(50, 8).numpy()
    found = fasthash.hamming_topk(codes[3], codes, 4, bit_weights=np.array([[32, 3], [32, 1]]))
    assert isinstance(found.ids, np.ndarray)
    assert found.ids[0, 0] == 3


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Groups]:
    width, seed = draw(st.integers(1, 20)), draw(st.integers(0, 2**32))
    make = draw(st.sampled_from([random_codes, clustered_codes]))
    bits = 8 * width - draw(st.integers(0, 7))
    groups = draw(st.lists(st.integers(1, 255), min_size=1, max_size=min(64, bits)))
    sizes = split(bits, len(groups), seed)
    return random_codes(2, width, seed), make(draw(st.integers(1, 150)), width, seed + 1), weighed(sizes, groups)


@settings(max_examples=100, deadline=None)
@given(problems(), st.data())
def test_any_small_problem(problem: tuple[Tensor, Tensor, Groups], data: st.DataObject) -> None:
    queries, database, groups = problem
    largest = sum(bits * weight for bits, weight in groups)
    k, radius = data.draw(st.integers(1, len(database)), "k"), data.draw(st.integers(0, largest + 1), "radius")
    for name in _ops.isa_names():
        _ops.set_isa(name)
        check_topk(queries, database, k, None, groups)
        check_range(queries, database, radius, None, groups)
    _ops.set_isa("")


@settings(max_examples=50, deadline=None)
@given(problems())
def test_functions_agree(problem: tuple[Tensor, Tensor, Groups]) -> None:
    """Top-k with k = N, range with the largest radius, and the histogram describe the same distances."""
    queries, database, groups = problem
    largest = sum(bits * weight for bits, weight in groups)
    everything = fasthash.hamming_topk(queries, database, len(database), bit_weights=groups)
    within = fasthash.hamming_range(queries, database, largest, bit_weights=groups)
    assert torch.equal(everything.ids.flatten(), within.ids)
    assert torch.equal(everything.distances.flatten(), within.distances)
    counts, _ = fasthash.hamming_histogram(queries, database, bit_weights=groups)
    for q in range(2):
        assert torch.equal(counts[q], torch.bincount(everything.distances[q], minlength=largest + 1))


@settings(max_examples=50, deadline=None)
@given(problems(), st.integers(1, 255))
def test_one_weight_is_the_undivided_distance(problem: tuple[Tensor, Tensor, Groups], weight: int) -> None:
    queries, database, groups = problem
    width, k = database.shape[1], (len(database) + 1) // 2
    equal = [(bits, weight) for bits, _ in groups]
    equal[-1] = (equal[-1][0] + 8 * width - sum(bits for bits, _ in groups), weight)
    found = fasthash.hamming_topk(queries, database, k, bit_weights=equal)
    plain = fasthash.hamming_topk(queries, database, k)
    assert torch.equal(found.distances, plain.distances * weight)
    assert torch.equal(found.ids, plain.ids)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 14), st.integers(1, 100))
def test_a_large_weight_makes_a_lexicographic_order(seed: int, first: int, count: int) -> None:
    """A first group that outweighs all other bits decides; the others decide among its ties."""
    queries, database = random_codes(2, 16, seed), clustered_codes(count, 16, seed + 1)
    bits = 8 * first
    groups = [(bits, 255), (128 - bits, 1)]
    head = fasthash.hamming_distances(queries[:, :first], database[:, :first]).long()
    tail = fasthash.hamming_distances(queries[:, first:], database[:, first:]).long()
    order = (head * 1000 + tail).argsort(dim=1, stable=True)
    assert torch.equal(fasthash.hamming_topk(queries, database, count, bit_weights=groups).ids, order)


def test_normal_form() -> None:
    def flat(groups: Groups | None) -> tuple[int, ...]:
        return flat_bit_weights(groups, "f", 2)

    assert flat(None) == flat([(9, 1), (7, 1)]) == ()
    assert flat([(9, 1), (6, 1)]) == (15, 1)
    assert flat([(4, 2), (4, 2), (8, 1)]) == (8, 2, 8, 1)
    assert flat([(np.int64(4), torch.tensor(2)), (12, 1)]) == (4, 2, 12, 1)


CODES = random_codes(10, 8)
TOO_FAR = torch.zeros(1, 2**20 + 2**17, dtype=torch.uint8)
BAD_GROUPS: list[tuple[Any, type[Exception], str]] = [
    ([], ValueError, "bit_weights must have 1 to 64 groups, got 0"),
    ([(1, 1)] * 65, ValueError, "bit_weights must have 1 to 64 groups, got 65"),
    (5, TypeError, "bit_weights must be pairs (bits, weight), got 5"),
    ([64], TypeError, "bit_weights must be pairs (bits, weight), got [64]"),
    ([(64, 1, 1)], TypeError, "bit_weights must be pairs (bits, weight), got [(64, 1, 1)]"),
    (np.ones((2, 3)), TypeError, "bit_weights must be pairs (bits, weight), got shape [2, 3]"),
    ([(0, 1), (64, 1)], ValueError, "bits of group 0 of bit_weights must be at least 1, got 0"),
    ([(32, 1), (32, 0)], ValueError, "weight of group 1 of bit_weights must be between 1 and 255, got 0"),
    ([(32, 256), (32, 1)], ValueError, "weight of group 0 of bit_weights must be between 1 and 255, got 256"),
    ([(64, 0.5)], TypeError, "weight of group 0 of bit_weights must be an integer, got 0.5 (float)"),
    ([(64, True)], TypeError, "weight of group 0 of bit_weights must be an integer, got True (bool)"),
    (
        [(32, 3), (24, 1)],
        ValueError,
        "the groups of bit_weights must hold 57 to 64 bits for codes of 8 bytes, got 56",
    ),
    (
        [(32, 3), (33, 1)],
        ValueError,
        "the groups of bit_weights must hold 57 to 64 bits for codes of 8 bytes, got 65",
    ),
]
CALLS: dict[str, Any] = {
    "hamming_topk": lambda codes, groups: fasthash.hamming_topk(codes, codes, 1, bit_weights=groups),
    "hamming_range": lambda codes, groups: fasthash.hamming_range(codes, codes, 1, bit_weights=groups),
    "hamming_distances": lambda codes, groups: fasthash.hamming_distances(codes, codes, bit_weights=groups),
    "hamming_histogram": lambda codes, groups: fasthash.hamming_histogram(codes, codes, bit_weights=groups),
}


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(("groups", "error", "message"), BAD_GROUPS, ids=[message for _, _, message in BAD_GROUPS])
def test_bad_groups_are_refused(function: str, groups: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        CALLS[function](CODES, groups)
    assert str(caught.value) == f"{function}: {message}"


def test_distances_fit_an_int32() -> None:
    with pytest.raises(ValueError, match="the largest distance of bit_weights must be at most 2147483646, got 24"):
        fasthash.hamming_distances(TOO_FAR, TOO_FAR, bit_weights=[(8 * TOO_FAR.shape[1], 255)])


@pytest.mark.parametrize("flat", [[64], [64, 0], [64, 256], [50, 1], [65, 1], [0, 1, 64, 1], [1, 1] * 65])
def test_the_kernels_refuse_what_python_would(flat: list[int]) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        torch.ops.fasthash.hamming_distances(CODES, CODES, flat)
