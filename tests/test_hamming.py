"""Exact Hamming search against the plain oracle: every instruction set and device, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fasthash
from fasthash import _ops, reference

# W: specialised widths (4, 8, 16, 32, 64, 128 bytes), their neighbours, and the general path.
WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 130, 513]
# N: blocks of the scan hold 8 to 64 codes, panels up to 6,144 codes of 32 bits and 3,072 of 64 bits.
COUNTS = [1, 2, 7, 8, 63, 64, 65, 127, 129, 1000]
DENSITIES = [0.0, 0.001, 0.02, 0.3, 0.6, 0.97, 1.0]


def _places() -> list[str]:
    cuda = torch.cuda.is_available() and bool(_ops.cuda_architectures())
    return [*_ops.isa_names(), *(["cuda"] if cuda else [])]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=_places())
def place(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device to search on: the CPU once for each instruction set, and CUDA."""
    if request.param == "cuda":
        yield torch.device("cuda")
        return
    _ops.set_isa(request.param)
    yield torch.device("cpu")
    _ops.set_isa("")


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest, one_thread: None) -> int:
    torch.set_num_threads(request.param)
    return int(request.param)


def random_codes(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8))


def clustered_codes(count: int, width: int, seed: int = 0) -> Tensor:
    """Few different codes: most distances are tied."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (7, width), dtype=np.uint8)[rng.integers(0, 7, count)]
    codes[:, 0] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
    return torch.from_numpy(codes)


def random_mask(count: int, density: float, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(count) < density)


def oracle_distances(queries: Tensor, database: Tensor) -> Tensor:
    """The oracle a few queries at a time: it keeps [Q, N, W] in memory."""
    step = max(1, 4_000_000 // max(1, database.numel()))
    parts = [reference.hamming_distances(queries[i : i + step], database) for i in range(0, len(queries), step)]
    return torch.cat(parts) if parts else torch.zeros(0, len(database), dtype=torch.int32)


def oracle_ranking(distances: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """All codes in (distance, position) order, and how many of them are eligible (those come first)."""
    if mask is not None:
        distances = distances.masked_fill(~mask, torch.iinfo(torch.int32).max)
    return distances.sort(dim=1, stable=True)


def check_topk(queries: Tensor, database: Tensor, k: int, mask: Tensor | None, place: torch.device) -> None:
    wanted, order = oracle_ranking(oracle_distances(queries, database), mask)
    eligible = len(database) if mask is None else int(mask.sum())
    wanted, order = wanted[:, :k].clone(), order[:, :k].clone()
    wanted[:, eligible:], order[:, eligible:] = 8 * database.shape[1] + 1, -1
    found = fasthash.hamming_topk(
        queries.to(place), database.to(place), k, filter=None if mask is None else mask.to(place)
    )
    assert found.distances.dtype == torch.int32
    assert found.ids.dtype == torch.int64
    assert torch.equal(found.distances.cpu(), wanted)
    assert torch.equal(found.ids.cpu(), order)


def check_range(queries: Tensor, database: Tensor, radius: int, mask: Tensor | None, place: torch.device) -> None:
    wanted, order = oracle_ranking(oracle_distances(queries, database), mask)
    inside = wanted <= radius
    found = fasthash.hamming_range(
        queries.to(place), database.to(place), radius, filter=None if mask is None else mask.to(place)
    )
    assert found.offsets.tolist() == [0, *inside.sum(1).cumsum(0).tolist()]
    assert found.distances.dtype == torch.int32
    assert found.ids.dtype == torch.int64
    assert torch.equal(found.distances.cpu(), wanted[inside])
    assert torch.equal(found.ids.cpu(), order[inside])


def check_histogram(queries: Tensor, database: Tensor, place: torch.device) -> None:
    """Sums are added in order of position: equal to the last bit, and so for every thread count; on CUDA, weights
    times counts are added in order of class: equal up to rounding."""
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 5, len(database)))
    weights = torch.from_numpy(rng.standard_normal((len(queries), 5)))
    distances = oracle_distances(queries, database).numpy()
    counts = np.zeros((len(queries), 8 * database.shape[1] + 1), np.int64)
    sums = np.zeros(counts.shape)
    for q, row in enumerate(distances):
        np.add.at(counts[q], row, 1)
        np.add.at(sums[q], row, weights[q].numpy()[labels.numpy()])
    found_counts, nothing = fasthash.hamming_histogram(queries.to(place), database.to(place))
    assert nothing is None
    assert torch.equal(found_counts.cpu(), torch.from_numpy(counts))
    found_counts, found_sums = fasthash.hamming_histogram(
        queries.to(place), database.to(place), database_labels=labels.to(place), class_weights=weights.to(place)
    )
    assert torch.equal(found_counts.cpu(), torch.from_numpy(counts))
    assert found_sums.dtype == torch.float64
    exact = {"rtol": 0, "atol": 0} if place.type == "cpu" else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found_sums.cpu(), torch.from_numpy(sums), **exact)


def check_everything(queries: Tensor, database: Tensor, mask: Tensor | None, place: torch.device) -> None:
    bits, count = 8 * database.shape[1], len(database)
    for k in sorted({1, min(10, count), (count + 1) // 2, count}):
        check_topk(queries, database, k, mask, place)
    for radius in (0, 1, bits // 2, bits, bits + 9):
        check_range(queries, database, radius, mask, place)
    wanted = oracle_distances(queries, database)
    assert torch.equal(fasthash.hamming_distances(queries.to(place), database.to(place)).cpu(), wanted)
    check_histogram(queries, database, place)


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(width: int, place: torch.device) -> None:
    database = random_codes(201, width)
    check_everything(torch.cat([random_codes(3, width, 1), database[57:59]]), database, None, place)


@pytest.mark.parametrize("width", [1, 4, 8, 16, 20])
@pytest.mark.parametrize("count", COUNTS)
def test_counts(count: int, width: int, place: torch.device) -> None:
    check_everything(random_codes(2, width, 1), clustered_codes(count, width), None, place)


@pytest.mark.parametrize("width", [4, 8, 32])
def test_edges_of_panels(width: int, place: torch.device) -> None:
    panel = 24 * 1024 // width
    for count in (panel - 1, panel, panel + 1, 2 * panel + 65):
        check_topk(random_codes(2, width, 1), random_codes(count, width), 20, None, place)


@pytest.mark.parametrize("width", [3, 4, 8, 12, 16, 128])
@pytest.mark.parametrize("density", DENSITIES)
def test_filters(density: float, width: int, place: torch.device) -> None:
    count = 3300 if width <= 16 else 500
    database, mask = random_codes(count, width), random_mask(count, density)
    for k in (1, 50, count):
        check_topk(database[5:6], database, k, mask, place)
    check_topk(random_codes(20, width, 1), database, 50, mask, place)
    check_range(database[5:7], database, 4 * width, mask, place)


@pytest.mark.parametrize("width", [8, 16])
def test_a_filter_of_blocks(width: int, place: torch.device) -> None:
    # Runs of eligible codes: full, empty and mixed words of the bitmap, and whole panels of each.
    mask = torch.zeros(20_000, dtype=torch.bool)
    mask[100:200], mask[3072:9300], mask[13_000::2], mask[-1] = True, True, True, True
    check_topk(random_codes(3, width, 1), clustered_codes(20_000, width), 500, mask, place)


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("queries", [1, 5, 20])
def test_codes_at_any_address(width: int, queries: int, isa: str) -> None:
    """A database begins anywhere in a cache line; tiles then begin between the words of a mask."""
    count = 5000
    memory, mask = random_codes(count + 64, width, 2).flatten(), random_mask(count, 0.5)
    mask[64:1200] = True
    for offset in (0, 1, width, 3 * width, 64 - width, 65):
        database = memory[offset : offset + count * width].view(count, width)
        for allowed in (None, mask):
            check_topk(random_codes(queries, width, 1), database, 30, allowed, torch.device("cpu"))


@pytest.mark.parametrize("count", [0, 1, 7, 63, 64, 65, 128, 1000, 70_000])
def test_mask_words(isa: str, count: int) -> None:
    """Any byte that is not 0 is true, wherever the booleans begin; bits behind the last are 0."""
    rng = np.random.default_rng(count)
    for offset in (0, 3):
        booleans = (rng.integers(0, 256, count + offset) * rng.integers(0, 2, count + offset)).astype(np.uint8)[offset:]
        words = _ops.mask_words(torch.from_numpy(booleans).view(torch.bool)).numpy()
        assert len(words) == (count + 63) // 64
        assert words.tobytes() == np.packbits(booleans, bitorder="little").tobytes().ljust(8 * len(words), b"\0")


def test_a_filter_of_positions(place: torch.device) -> None:
    database = random_codes(500, 8)
    positions = torch.tensor([400, 3, 3, 77])
    mask = torch.zeros(500, dtype=torch.bool)
    mask[positions] = True
    by_mask = fasthash.hamming_topk(database[:4].to(place), database.to(place), 10, filter=mask.to(place))
    by_position = fasthash.hamming_topk(database[:4].to(place), database.to(place), 10, filter=positions.to(place))
    assert torch.equal(by_mask.ids, by_position.ids)
    assert (by_mask.ids[:, 3:] == -1).all()
    assert (by_mask.distances[:, 3:] == 65).all()


@pytest.mark.parametrize("order", ["identical", "nearer and nearer", "further and further", "clustered"])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_orders_of_insertion(k: int, order: str, place: torch.device) -> None:
    queries = random_codes(2, 8, 1)
    database = random_codes(12_345, 8)
    ranks = oracle_distances(queries[:1], database)[0].argsort(stable=True)
    database = {
        "identical": database[:1].expand(12_345, 8).contiguous(),
        "nearer and nearer": database[ranks.flip(0)],
        "further and further": database[ranks],
        "clustered": clustered_codes(12_345, 8),
    }[order]
    check_topk(queries, database, k, None, place)


@pytest.mark.parametrize("k", [1, 300, 8192, 8193, 40_000])
def test_large_k(k: int, place: torch.device) -> None:
    check_topk(random_codes(3, 8, 1), random_codes(40_000, 8), k, random_mask(40_000, 0.7), place)


@pytest.mark.parametrize("runs", [1, 60])
def test_a_large_database(runs: int, threads: int) -> None:
    """A sample sets the first limits. Where equal codes lie side by side it says too little for some queries."""
    count = 270_000
    database = random_codes(count // runs, 8).repeat_interleave(runs, 0)
    queries, mask = random_codes(12, 8, 1), random_mask(count, 0.5)
    distances = fasthash.hamming_distances(queries, database)
    for k in (500, 3000):
        for chosen in (None, mask):
            ranked = distances if chosen is None else distances.masked_fill(~chosen, 99)
            wanted, order = ranked.sort(dim=1, stable=True)
            found = fasthash.hamming_topk(queries, database, k, filter=chosen)
            assert torch.equal(found.distances, wanted[:, :k])
            assert torch.equal(found.ids, order[:, :k])


@pytest.mark.parametrize("width", [8, 24])
def test_threads(width: int, threads: int) -> None:
    # Enough work for every thread to wake; ties at the k-th distance lie in several threads' chunks.
    queries, database = random_codes(60, width, 1), clustered_codes(40_011 * 8 // width, width)
    mask = random_mask(len(database), 0.4)
    cpu = torch.device("cpu")
    check_topk(queries, database, 10, None, cpu)
    check_topk(queries[:9], database, 2000, mask, cpu)
    check_topk(queries[:3], database, len(database) * 3 // 4, mask, cpu)
    check_range(queries[:9], database, 3 * width, mask, cpu)
    check_histogram(queries[:20], database, cpu)
    assert torch.equal(fasthash.hamming_distances(queries, database), oracle_distances(queries, database))


@pytest.mark.parametrize("count", [0, 5])
def test_no_queries(count: int, place: torch.device) -> None:
    queries, database = torch.zeros(0, 8, dtype=torch.uint8, device=place), random_codes(count, 8).to(place)
    if count:
        assert fasthash.hamming_topk(queries, database, 3).ids.shape == (0, 3)
    assert fasthash.hamming_range(queries, database, 3).offsets.tolist() == [0]
    assert fasthash.hamming_distances(queries, database).shape == (0, count)
    assert fasthash.hamming_histogram(queries, database)[0].shape == (0, 65)


def test_an_empty_database(place: torch.device) -> None:
    queries, database = random_codes(3, 8).to(place), torch.zeros(0, 8, dtype=torch.uint8, device=place)
    assert fasthash.hamming_range(queries, database, 64).offsets.tolist() == [0, 0, 0, 0]
    assert fasthash.hamming_distances(queries, database).shape == (3, 0)
    counts, sums = fasthash.hamming_histogram(
        queries, database, database_labels=np.zeros(0, np.int64), class_weights=np.ones((3, 2))
    )
    assert counts.sum() == 0
    assert sums.abs().sum() == 0
    with pytest.raises(ValueError, match=r"^hamming_topk: k must be between 1 and 0, got 1$"):
        fasthash.hamming_topk(queries, database, 1)


@pytest.mark.parametrize("width", [1, 4, 8, 12, 16, 64])
def test_strided_and_unaligned_arrays(width: int, place: torch.device) -> None:
    wide = random_codes(700, width + 9).to(place)
    for database in (wide[:, 3 : 3 + width], wide[::2, 1 : 1 + width], wide.T.contiguous().T[:, :width]):
        queries = database[5:9]
        check_topk(queries.cpu(), database.cpu().contiguous(), 20, None, place)
        found = fasthash.hamming_topk(queries, database, 20)
        wanted = fasthash.hamming_topk(queries.contiguous(), database.contiguous(), 20)
        assert torch.equal(found.ids, wanted.ids)
        assert torch.equal(found.distances, wanted.distances)
    one_row = random_codes(1, width)[0].to(place).expand(1, width)
    assert fasthash.hamming_topk(one_row, one_row, 1).distances.tolist() == [[0]]


def test_a_column_slice_is_not_copied() -> None:
    wide = random_codes(100, 20)
    assert _ops.hamming.rows(wide[:, 4:12]).data_ptr() == wide.data_ptr() + 4


def test_numpy_in_numpy_out() -> None:
    codes = random_codes(50, 8).numpy()
    codes.setflags(write=False)
    found = fasthash.hamming_topk(codes[:3], codes, 4, filter=np.arange(50) % 2 == 0)
    assert isinstance(found.ids, np.ndarray)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.int32
    assert found.ids[0, 0] == 0
    parts = fasthash.hamming_range(codes[:3], codes, 20)
    assert all(isinstance(part, np.ndarray) for part in parts)


def test_a_memory_mapped_database(tmp_path: Any) -> None:
    codes = random_codes(300, 16).numpy()
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    found = fasthash.hamming_topk(codes[:5], mapped, 7)
    np.testing.assert_array_equal(found.ids, fasthash.hamming_topk(codes[:5], codes, 7).ids)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_small_problem(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 40), "width")
    count = data.draw(st.integers(1, 200), "count")
    queries = random_codes(data.draw(st.integers(0, 5), "Q"), width, 1)
    make = data.draw(st.sampled_from([random_codes, clustered_codes]), "codes")
    density = data.draw(st.sampled_from([None, *DENSITIES]), "density")
    mask = None if density is None else random_mask(count, density)
    database, cpu = make(count, width), torch.device("cpu")
    for name in _ops.isa_names():
        _ops.set_isa(name)
        check_topk(queries, database, data.draw(st.integers(1, count), "k"), mask, cpu)
        check_range(queries, database, data.draw(st.integers(0, 8 * width + 1), "radius"), mask, cpu)
    _ops.set_isa("")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 300))
def test_functions_agree(seed: int, width: int, count: int) -> None:
    """Top-k with k = N, range with radius = bits, and the histogram describe the same distances."""
    queries, database = random_codes(2, width, seed), clustered_codes(count, width, seed + 1)
    everything = fasthash.hamming_topk(queries, database, count)
    within = fasthash.hamming_range(queries, database, 8 * width)
    assert torch.equal(everything.ids.flatten(), within.ids)
    assert torch.equal(everything.distances.flatten(), within.distances)
    counts, _ = fasthash.hamming_histogram(queries, database)
    for q in range(2):
        assert torch.equal(counts[q], torch.bincount(everything.distances[q], minlength=8 * width + 1))
    assert torch.equal(everything.ids.sort().values, torch.arange(count).expand(2, count))


CODES = random_codes(10, 8)
BAD_CALLS = [
    (lambda: fasthash.hamming_topk(CODES, CODES, 0), ValueError, "hamming_topk: k must be between 1 and 10, got 0"),
    (lambda: fasthash.hamming_topk(CODES, CODES, 11), ValueError, "hamming_topk: k must be between 1 and 10, got 11"),
    (
        lambda: fasthash.hamming_topk(CODES, CODES, 1.5),
        TypeError,
        "hamming_topk: k must be an integer, got 1.5 (float)",
    ),
    (
        lambda: fasthash.hamming_topk(CODES.int(), CODES, 1),
        TypeError,
        "hamming_topk: queries must be packed codes of dtype uint8, got int32",
    ),
    (
        lambda: fasthash.hamming_topk(CODES, CODES[:, :7], 1),
        ValueError,
        "hamming_topk: queries and database must have codes of one width, got 8 and 7 bytes",
    ),
    (
        lambda: fasthash.hamming_topk(CODES, CODES[0], 1),
        ValueError,
        "hamming_topk: database must have shape [rows, bytes], got [8]",
    ),
    (
        lambda: fasthash.hamming_topk(CODES, CODES, 1, filter=np.ones(9, bool)),
        ValueError,
        "hamming_topk: a boolean filter must have shape [10], got [9]",
    ),
    (
        lambda: fasthash.hamming_topk(CODES, CODES, 1, filter=[0, 10]),
        ValueError,
        "hamming_topk: filter positions must be in 0..9, got 0..10",
    ),
    (lambda: fasthash.hamming_range(CODES, CODES, -1), ValueError, "hamming_range: radius must be at least 0, got -1"),
    (
        lambda: fasthash.hamming_distances(CODES, CODES[:, :0]),
        ValueError,
        "hamming_distances: b must have shape [rows, bytes], got [10, 0]",
    ),
    (
        lambda: fasthash.hamming_histogram(CODES, CODES, database_labels=np.zeros(10, int)),
        ValueError,
        "hamming_histogram: database_labels and class_weights must be given together, got one of them",
    ),
    (
        lambda: fasthash.hamming_histogram(
            CODES, CODES, database_labels=np.full(10, 2), class_weights=np.ones((10, 2))
        ),
        ValueError,
        "hamming_histogram: database_labels must be in 0..1, got 2..2",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS, ids=[message for _, _, message in BAD_CALLS])
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
