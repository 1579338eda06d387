"""asymmetric_topk against the oracle: metrics, instruction sets, widths, ties; its bound on hostile data.

On CUDA: test_asymmetric_emulated.py and test_asymmetric_cuda.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash
from fasthash import _ops, asymmetric_topk, reference

METRICS = ["l1", "dot", "cosine", "l2"]


def random_codes(rows: int, bits: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + bits)
    return torch.randint(0, 256, (rows, (bits + 7) // 8), dtype=torch.uint8, generator=generator)


def random_queries(count: int, bits: int, metric: str, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + bits)
    make = torch.rand if metric == "l1" else torch.randn
    return make(count, bits, generator=generator)


def random_scale(rows: int, seed: int = 2) -> torch.Tensor:
    scale = torch.rand(rows, generator=torch.Generator().manual_seed(seed)) * 2
    scale[: rows // 7] *= 1e-5  # subnormal halves
    scale[: rows // 9] = 0
    return scale.half()


def check(queries: torch.Tensor, database: torch.Tensor, k: int, **options: Any) -> None:
    """Distances and ids are the oracle's, bit by bit."""
    scale, filter = options.pop("code_scale", None), options.pop("filter", None)
    found = asymmetric_topk(queries, database, k, code_scale=scale, filter=filter, **options)
    wanted = reference.asymmetric_topk(queries, database, k, code_scale=scale, mask=filter, **options)
    assert (found.distances.dtype, found.ids.dtype) == (torch.float32, torch.int64)
    assert torch.equal(found.distances, wanted[0])
    assert torch.equal(found.ids, wanted[1])


@pytest.mark.parametrize("bits", [1, 3, 8, 9, 31, 32, 61, 64, 65, 100, 128, 130, 200, 256, 300, 448, 520, 1000, 1024])
@pytest.mark.parametrize("metric", METRICS)
def test_matches_the_oracle(bits: int, metric: str, isa: str) -> None:
    # Few queries and many read panels of another layout; padding bits are set here, and do not count.
    database, scale = random_codes(700, bits), random_scale(700)
    for count in (1, 5):
        queries = random_queries(count, bits, metric)
        for k in (1, 10):
            check(queries, database, k, metric=metric)
        if metric != "l1":
            check(queries, database, 7, metric=metric, code_scale=scale)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 400, 1601])
@pytest.mark.parametrize("count", [1, 4])
def test_edges_of_groups_blocks_and_tiles(rows: int, count: int, isa: str) -> None:
    database, scale = random_codes(rows, 64), random_scale(rows)
    for k in {1, min(rows, 2), min(rows, 130), rows}:
        check(random_queries(count, 64, "l1"), database, k)
        check(random_queries(count, 64, "l2"), database, k, metric="l2", code_scale=scale)


@pytest.mark.parametrize("k", [1, 2, 63, 64, 65, 128, 129, 255, 299, 300])
def test_every_k(k: int, isa: str) -> None:
    check(random_queries(3, 40, "l1"), random_codes(300, 40), k)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lowest_position(metric: str, isa: str) -> None:
    few = random_codes(5, 33)
    database = few[torch.randint(0, 5, (900,), generator=torch.Generator().manual_seed(3))]
    binary = (random_queries(6, 33, "l1") > 0.5).float()
    for queries in (random_queries(6, 33, metric), binary, torch.full((6, 33), 0.5), torch.zeros(6, 33)):
        for k in (1, 50, 900):
            check(queries, database, k, metric=metric)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 6])
def test_filters(share: float, count: int, isa: str) -> None:
    database, scale = random_codes(3000, 96), random_scale(3000)
    mask = torch.rand(3000, generator=torch.Generator().manual_seed(4)) < share
    check(random_queries(count, 96, "l1"), database, 70, filter=mask)
    check(random_queries(count, 96, "dot"), database, 70, filter=mask, metric="dot", code_scale=scale)
    positions = mask.nonzero()[:, 0]
    queries = random_queries(count, 96, "l1")
    by_mask, by_positions = (asymmetric_topk(queries, database, 5, filter=own) for own in (mask, positions))
    assert torch.equal(by_mask.ids, by_positions.ids)


@pytest.mark.parametrize("groups", [[(5, 3), (28, 1)], [(1, 255), (32, 1)], [(1, w) for w in range(1, 34)]])
def test_weights(groups: list[tuple[int, int]], isa: str) -> None:
    check(random_queries(5, 33, "l1"), random_codes(500, 33), 9, bit_weights=groups)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_chunks(threads: int, isa: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        database, scale = random_codes(40_000, 64), random_scale(40_000)  # more than a chunk of 256 KiB
        for count in (1, 17):
            check(random_queries(count, 64, "l1"), database, 12)
            check(random_queries(count, 64, "dot"), database, 12, metric="dot", code_scale=scale)
        check(random_queries(150, 24, "l1"), random_codes(300, 24), 3)
    finally:
        torch.set_num_threads(before)


def test_wide_codes(isa: str) -> None:
    """Above 8,320 bits a byte has fewer than 63 steps; at the limit the filter tells hardly any codes apart."""
    for bits in (4200, 9001, 65_536):
        check(random_queries(2, bits, "l1"), random_codes(70, bits), 4)


def test_rows_that_lie_apart_and_start_anywhere(isa: str) -> None:
    wide = random_codes(400, 8 * 41)
    for width in (8, 16, 32):
        for start in (0, 1, 5):
            check(random_queries(5, 8 * width, "l1"), wide[::2, start : start + width], 6)
    memory = torch.cat([random_codes(500, 128).flatten(), torch.zeros(3, dtype=torch.uint8)])
    check(random_queries(5, 128, "l1"), memory[3:].view(500, 16), 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kinds_of_queries(dtype: torch.dtype) -> None:
    database = random_codes(300, 40)
    check(random_queries(4, 40, "dot").to(dtype), database, 5, metric="dot")


def test_double_queries_are_not_rounded() -> None:
    queries = torch.tensor([[1e9, 0.5 - 1e9]], dtype=torch.float64)
    codes = torch.tensor([[0b11000000]], dtype=torch.uint8)
    assert asymmetric_topk(queries, codes, 1, metric="dot").distances.tolist() == [[-0.5]]
    assert asymmetric_topk(queries.float(), codes, 1, metric="dot").distances.tolist() == [[0.0]]


def test_arrays_come_back_as_they_were_given() -> None:
    database, queries = random_codes(50, 24).numpy(), random_queries(2, 24, "l1").numpy()
    found = asymmetric_topk(queries, database, 3)
    assert isinstance(found, fasthash.SearchResult)
    assert isinstance(found.ids, np.ndarray)
    one = asymmetric_topk(queries[0], database, 3)
    assert np.array_equal(one.ids, found.ids[:1])
    none = asymmetric_topk(queries[:0], database, 3)
    assert none.distances.shape == (0, 3)
    read_only = np.frombuffer(database.tobytes(), np.uint8).reshape(50, 3)
    assert np.array_equal(asymmetric_topk(torch.from_numpy(queries), read_only, 3).ids.numpy(), found.ids)


SIZES = [0.0, 1e-45, 1e-38, 1e-30, 1e-8, 0.3, 0.5, 1.0, 1.0 + 2**-23, 3.0, 1e4, 1e10, 1e30, 3.4028234663852886e38]


@st.composite
def hostile_queries(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries of few or mixed sizes, codes with duplicates, scales from 0 to the largest half."""
    bits, rows = draw(st.integers(1, 70)), draw(st.integers(1, 150))
    sizes = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    queries = rng.choice(sizes, (draw(st.integers(1, 5)), bits)) * rng.choice([-1, 1, 1], bits)
    if draw(st.booleans()):
        queries = queries * rng.random(queries.shape)
    codes = rng.integers(0, 256, (draw(st.integers(1, rows)), (bits + 7) // 8), np.uint8)
    codes = codes[rng.integers(0, len(codes), rows)]
    scale = rng.choice([0, 6e-8, 3e-5, 0.1, 1, 1.001, 300, 65504], rows).astype(np.float16)
    kind = np.float64 if draw(st.booleans()) else np.float32
    return torch.from_numpy(queries.astype(kind)), torch.from_numpy(codes), torch.from_numpy(scale)


def test_lengths_are_rounded_correctly() -> None:
    """Of this query torch's square root is one unit off on some processors, in the oracle alone."""
    queries = torch.full((1, 2), 1e-45)
    check(queries, torch.tensor([[0b11110101]], dtype=torch.uint8), 1, metric="cosine")


@pytest.mark.parametrize("name", _ops.isa_names())
@settings(max_examples=150, deadline=None)
@given(hostile_queries(), st.sampled_from(METRICS), st.booleans(), st.integers(1, 40))
def test_hostile_numbers(
    name: str, data: tuple[torch.Tensor, torch.Tensor, torch.Tensor], metric: str, scaled: bool, k: int
) -> None:
    queries, database, scale = data
    _ops.set_isa(name)
    try:
        own = scale if scaled and metric != "l1" else None
        check(queries, database, min(k, len(database)), metric=metric, code_scale=own)
    finally:
        _ops.set_isa("")


@st.composite
def blocks_of_scales(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Several panels of codes near the queries or not, where each run of codes has scales of its own size."""
    bits = draw(st.sampled_from([7, 64, 100, 128, 256, 300]))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    queries = rng.normal(size=(draw(st.sampled_from([1, 5])), bits)) * draw(st.sampled_from([1e-20, 1.0, 3e4, 1e37]))
    rows = draw(st.integers(65, 1400))
    codes = rng.integers(0, 256, (rows, (bits + 7) // 8), np.uint8)
    near = rng.random(rows) < draw(st.sampled_from([0.0, 0.01, 1.0]))
    kept = np.packbits(queries[rng.integers(0, len(queries), rows)] * draw(st.sampled_from([1, -1])) > 0, axis=1)
    codes[near] = kept[near] & (rng.integers(0, 256, kept[near].shape, np.uint8) | 0xB7)
    run = draw(st.sampled_from([1, 16, 64, 130]))
    sizes = rng.choice(
        draw(st.lists(st.sampled_from([0, 6e-8, 2e-5, 0.5, 1, 900, 65504]), min_size=1)), rows // run + 1
    )
    scale = np.repeat(sizes, run)[:rows] * rng.choice([1, 1, 0.97], rows)
    return torch.from_numpy(queries), torch.from_numpy(codes), torch.from_numpy(scale.astype(np.float16))


@pytest.mark.parametrize("name", _ops.isa_names())
@settings(max_examples=60, deadline=None)
@given(blocks_of_scales(), st.sampled_from(METRICS[1:]), st.booleans(), st.sampled_from([1, 3, 20]))
def test_hostile_scales_of_blocks(
    name: str, data: tuple[torch.Tensor, torch.Tensor, torch.Tensor], metric: str, masked: bool, k: int
) -> None:
    queries, database, scale = data
    mask = torch.rand(len(database), generator=torch.Generator().manual_seed(k)) < 0.6 if masked else None
    _ops.set_isa(name)
    try:
        check(queries, database, k, metric=metric, code_scale=scale, filter=mask)
    finally:
        _ops.set_isa("")


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("metric", METRICS)
def test_hostile_numbers_of_many_codes(spread: float, metric: str, isa: str) -> None:
    """Enough codes that the filter rules most of them out, with nearest codes planted so that it must let them pass."""
    generator = torch.Generator().manual_seed(9)
    queries = random_queries(4, 128, metric) * torch.exp(spread * torch.randn(4, 128, generator=generator)) + 3 * spread
    database, scale = random_codes(6000, 128), random_scale(6000)
    best = (queries > (0.5 if metric == "l1" else 0)).float()
    database[torch.tensor([77, 2000, 3999, 5999])] = fasthash.pack_bits(best)
    check(queries, database, 3, metric=metric)
    if metric != "l1":
        check(queries, database, 3, metric=metric, code_scale=scale)


def test_distances_are_those_of_rescoring() -> None:
    queries, database = random_queries(3, 100, "l1"), random_codes(200, 100)
    found = asymmetric_topk(queries, database, 200)
    every = torch.ops.fasthash.asymmetric_distances(queries, database.expand(3, -1, -1))
    assert torch.equal(found.distances, every.gather(1, found.ids))


def test_metrics_are_what_they_say() -> None:
    """By numpy in float64, from the formulas of the docstring."""
    rng = np.random.default_rng(0)
    q, database = rng.normal(size=(4, 50)), rng.integers(0, 256, (30, 7), np.uint8)
    b = np.unpackbits(database, axis=1, count=50).astype(float)
    x, s = 2 * b - 1, rng.random(30).astype(np.float16)
    scale = s.astype(float)
    length = np.linalg.norm(q, axis=1)[:, None]
    every = {
        ("l1", False): np.abs(q[:, None] - b).sum(-1),
        ("dot", False): -q @ x.T,
        ("dot", True): -scale * (q @ x.T),
        ("cosine", False): 1 - q @ x.T / length / np.sqrt(50),
        ("cosine", True): 1 - scale * (q @ x.T) / length,
        ("l2", False): ((q[:, None] - x) ** 2).sum(-1),
        ("l2", True): ((q[:, None] - scale[:, None] * x) ** 2).sum(-1),
    }
    for (metric, scaled), wanted in every.items():
        found = asymmetric_topk(q, database, 30, metric=metric, code_scale=s if scaled else None)
        np.testing.assert_allclose(found.distances, np.sort(wanted), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(np.take_along_axis(wanted, found.ids, 1), found.distances, rtol=1e-6, atol=1e-6)


def test_scales_of_vectors() -> None:
    """RaBitQ's correction estimates the dot product, exactly for the vector itself; lengths give back l2."""
    vectors = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    codes, x = fasthash.pack_bits(vectors, threshold=0), np.where(vectors > 0, 1, -1)
    correction = ((vectors**2).sum(1) / (x * vectors).sum(1)).astype(np.float16)
    found = asymmetric_topk(vectors, codes, 1, code_scale=correction, metric="dot")
    assert np.array_equal(found.ids[:, 0], np.arange(40))
    np.testing.assert_allclose(-found.distances[:, 0], (vectors**2).sum(1), rtol=1e-3)
    length = (np.linalg.norm(vectors, axis=1) / 8).astype(np.float16)
    scaled = (length[:, None] * x).astype(np.float32)
    found = asymmetric_topk(scaled, codes, 1, code_scale=length, metric="l2")
    np.testing.assert_allclose(found.distances[:, 0], 0, atol=1e-5)


def test_codes_of_several_bits_a_dimension() -> None:
    rng = np.random.default_rng(2)
    levels, q = rng.integers(0, 4, (80, 24)), rng.normal(size=(3, 24)).astype(np.float32)
    planes = np.concatenate([levels >> 1 & 1, levels & 1], axis=1).astype(np.float32)
    found = asymmetric_topk(np.concatenate([2 * q, q], axis=1), fasthash.pack_bits(planes), 80, metric="dot")
    wanted = -q @ (2 * levels - 3).T
    np.testing.assert_allclose(found.distances, np.sort(wanted), rtol=1e-5, atol=1e-5)


def bad_calls() -> list[tuple[dict[str, Any], type[Exception], str]]:
    scale = np.ones(20, np.float16)
    real = np.zeros((2, 24), np.float32)

    def replaced(value: float) -> np.ndarray:
        own = real.copy()
        own[1, 3] = value
        return own

    return [
        ({"queries": np.zeros((2, 3), np.uint8)}, TypeError, r"queries must be real-valued \[Q, bits\], got uint8; h"),
        ({"queries": np.zeros((2, 25), np.float32)}, ValueError, r"queries must be \[Q, 17 to 24\] for codes of 3 byt"),
        ({"queries": np.zeros((2, 16), np.float32)}, ValueError, r"for codes of 3 bytes, got shape \[2, 16\]"),
        ({"queries": np.zeros((2, 3, 24), np.float32)}, ValueError, r"got shape \[2, 3, 24\]"),
        ({"queries": replaced(math.nan)}, ValueError, "queries must be finite and at most 3.4e38 in size, got nan"),
        ({"queries": replaced(math.inf)}, ValueError, "at most 3.4e38 in size, got inf"),
        ({"queries": replaced(0).astype(float) + 1e39}, ValueError, r"at most 3.4e38 in size, got 1e\+39"),
        ({"database": np.zeros((20, 3), np.int64)}, TypeError, "database must be packed codes of dtype uint8, got int"),
        ({"k": 0}, ValueError, "k must be between 1 and 20, got 0"),
        ({"k": 21}, ValueError, "k must be between 1 and 20, got 21"),
        ({"metric": "hamming"}, ValueError, "metric must be 'l1', 'dot', 'cosine' or 'l2', got 'hamming'"),
        ({"code_scale": scale}, ValueError, "metric 'l1' takes no code_scale; 'dot', 'cosine' and 'l2' do"),
        ({"code_scale": scale.astype(np.float32), "metric": "dot"}, TypeError, "code_scale must be float16, got flo"),
        ({"code_scale": scale[:7], "metric": "dot"}, ValueError, r"must have shape \[20\], one for each code, got"),
        ({"code_scale": -scale, "metric": "l2"}, ValueError, "code_scale must be finite and >= 0, got -1.0"),
        ({"code_scale": scale * np.nan, "metric": "l2"}, ValueError, "code_scale must be finite and >= 0, got nan"),
        ({"code_scale": scale * np.inf, "metric": "l2"}, ValueError, "code_scale must be finite and >= 0, got inf"),
        ({"filter": np.zeros(7, bool)}, ValueError, r"a boolean filter must have shape \[20\], got \[7\]"),
        ({"bit_weights": [(24, 3)], "metric": "dot"}, ValueError, "bit_weights need metric 'l1', got met"),
        ({"queries": real[:, :20], "bit_weights": [(24, 3)]}, ValueError, "bit_weights must make up 20 bits, got 24"),
        ({"queries": np.zeros((1, 65_544), np.float32), "database": np.zeros((20, 8193), np.uint8)}, ValueError,
         "queries must have at most 65536 bits, got 65544"),
    ]  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "message"), bad_calls(), ids=[message for *_, message in bad_calls()])
def test_bad_input(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "queries": np.zeros((2, 24), np.float32), "database": np.zeros((20, 3), np.uint8), "k": 2
    }  # fmt: skip
    with pytest.raises(error, match=f"^asymmetric_topk: .*{message}"):
        asymmetric_topk(**(arguments | changed))


def test_scales_that_are_minus_zero() -> None:
    scale = torch.tensor([-0.0, 1.0, -0.0], dtype=torch.float16)
    found = asymmetric_topk(torch.ones(1, 8), random_codes(3, 8), 3, code_scale=scale, metric="dot")
    assert not torch.signbit(found.distances[found.distances == 0]).any()


def test_kernel_refuses_what_python_should_have() -> None:
    op, queries = torch.ops.fasthash.asymmetric_topk, torch.zeros(1, 24)
    with pytest.raises(ValueError, match=r"W 1 to 8192, D 1 to 8 W"):
        op(queries, torch.zeros(2, 2, dtype=torch.uint8), None, None, 1, "l1")
    with pytest.raises(ValueError, match="groups need metric l1, scales need another metric"):
        op(queries, torch.zeros(2, 3, dtype=torch.uint8), None, torch.ones(2).half(), 1, "l1")
    with pytest.raises(ValueError, match="groups need metric l1, scales need another metric"):
        op(queries, torch.zeros(2, 3, dtype=torch.uint8), None, None, 1, "dot", [24, 2])
    with pytest.raises(ValueError, match="the groups must have D bits in all"):
        op(queries, torch.zeros(2, 3, dtype=torch.uint8), None, None, 1, "l1", [20, 2])
