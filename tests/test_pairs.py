"""Pairs within a radius, groups and neighbour graphs against the plain oracle: every plan, instruction set and thread
count, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fasthash
from fasthash import _free_memory, _ops, pairs, reference

ONES = _ops.pairs.ONES
ALL = 1 << 40


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield int(request.param)
    torch.set_num_threads(before)


def random_codes(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8))


def noisy_copies(count: int, width: int, centres: int = 7, flipped: float = 0.03, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    bits = rng.random((centres, 8 * width))[rng.integers(0, centres, count)] < 0.5
    return torch.from_numpy(np.packbits(bits ^ (rng.random((count, 8 * width)) < flipped), axis=1))


def data(kind: str, count: int, width: int) -> Tensor:
    if kind == "random":
        return random_codes(count, width)
    if kind == "clusters":
        return noisy_copies(count, width)
    if kind == "equal":
        return torch.full((count, width), 0xA5, dtype=torch.uint8)
    if kind == "few":  # many copies of few codes, none of them in one run
        return random_codes(5, width, 1)[torch.from_numpy(np.random.default_rng(2).integers(0, 5, count))]
    if kind == "almost none":  # few ones: every substring is full of zeros
        return torch.from_numpy(np.packbits(np.random.default_rng(3).random((count, 8 * width)) < 0.02, axis=1))
    assert kind == "half equal"  # one substring is the same in all codes
    codes = random_codes(count, width, 4)
    codes[:, : (width + 1) // 2] = 7
    return codes


KINDS = ["random", "clusters", "equal", "few", "almost none", "half equal"]


def found(codes: Tensor, other: Tensor | None, radius: int, plan: int = 0) -> list[Tensor]:
    join = _ops.pairs.Join(codes, other, radius, plan)
    return list(join.write(join.find(0, len(codes), ALL)))


def check(codes: Tensor, other: Tensor | None, radius: int, plan: int = 0) -> None:
    wanted = reference.hamming_pairs(codes, radius, other)
    got = found(codes, other, radius, plan)
    assert [part.dtype for part in got] == [torch.int64, torch.int64, torch.int32]
    for part, whole in zip(got, wanted, strict=True):
        assert torch.equal(part, whole)


@pytest.mark.parametrize("plan", [0, ONES, 1, 2, 3, 5, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_every_plan_finds_the_pairs(kind: str, plan: int) -> None:
    for width, radius in [(1, 0), (2, 3), (5, 4), (8, 4), (8, 15), (16, 6), (32, 31)]:
        codes = data(kind, 150, width)
        check(codes, None, radius, plan)
        check(codes, torch.cat([codes[40:80], random_codes(30, width, 9)]), radius, plan)


@pytest.mark.parametrize("plan", [ONES, 2, 5])
def test_every_instruction_set(isa: str, plan: int) -> None:
    for width in [1, 4, 7, 8, 9, 16, 32, 33, 64, 128, 130]:
        check(noisy_copies(160, width, flipped=0.02), None, 4, plan)
        check(noisy_copies(90, width), random_codes(70, width, 5), 4 * width, plan)


@pytest.mark.parametrize("plan", [0, ONES, 2, 4])
def test_every_thread_count_and_many_panels(threads: int, plan: int) -> None:
    """Enough codes for several tasks, rows that pass in several turns, and buckets of several panels."""
    codes = noisy_copies(5000, 8, centres=40, flipped=0.04, seed=3)
    first = codes[:, 0] == codes[0, 0]
    codes[~first, :4] = codes[0, :4]  # buckets of thousands
    near = fasthash.hamming_distances(codes, codes) <= 3
    i, j = near.triu(1).nonzero(as_tuple=True)
    got = found(codes, None, 3, plan)
    assert len(i) > 1000
    assert torch.equal(got[0], i)
    assert torch.equal(got[1], j)


@pytest.mark.parametrize("radius", [0, 1, 8, 63, 64, 1000])
def test_all_radii(radius: int) -> None:
    codes = torch.cat([random_codes(40, 8), random_codes(1, 8), 255 - random_codes(1, 8)])
    for plan in (0, ONES, 1, 3):
        check(codes, None, radius, plan)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows(rows: int) -> None:
    codes = torch.zeros(rows, 8, dtype=torch.uint8)
    check(codes, None, 2)
    check(codes, random_codes(0, 8), 2)
    check(random_codes(0, 8), codes, 2)
    assert fasthash.duplicate_groups(codes, 1).labels.tolist() == [0] * rows


def test_a_graph_of_many_equal_codes() -> None:
    """Half a million copies, and others: those that are equal to k others are not searched for."""
    codes = torch.zeros(500_000, 8, dtype=torch.uint8)
    codes[1000:1040] = random_codes(40, 8)
    codes[3, 7] = 1
    assert pairs._knn_radius(codes, 3) == 0
    graph = fasthash.knn_graph(codes, 3)
    assert graph.ids[:5].tolist() == [[1, 2, 4], [0, 2, 4], [0, 1, 4], [0, 1, 2], [0, 1, 2]]
    assert graph.distances[[3, 4]].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert graph.ids[-1].tolist() == [0, 1, 2]
    others = torch.ops.fasthash.hamming_topk(codes[1000:1040], codes, None, 4)
    assert torch.equal(graph.distances[1000:1040], others[0][:, 1:])
    assert torch.equal(graph.ids[1000:1040], others[1][:, 1:])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_codes(draw: st.DataObject) -> None:
    width = draw.draw(st.integers(1, 10))
    row = st.lists(st.sampled_from([0, 1, 3, 128, 255]), min_size=width, max_size=width)
    codes = torch.tensor(draw.draw(st.lists(row, min_size=1, max_size=40)), dtype=torch.uint8)
    radius, plan = draw.draw(st.integers(0, 8 * width + 1)), draw.draw(st.integers(-1, 12))
    check(codes, None, radius, plan)
    check(codes, codes[::2], radius, plan)
    for link in ("single", "star"):
        join = _ops.pairs.Join(codes, None, radius, plan)
        assert torch.equal(join.groups(link == "star", ALL), reference.duplicate_groups(codes, radius, link))


def test_rows_in_parts_are_the_whole() -> None:
    codes = data("few", 90, 8)
    codes[::7, 3] ^= 1
    for other in (None, codes[20:70]):
        join = _ops.pairs.Join(codes, other, 2)
        parts = [list(join.write(join.find(first, first + 11, ALL))) for first in range(0, 90, 11)]
        for number, whole in enumerate(found(codes, other, 2)):
            assert torch.equal(torch.cat([part[number] for part in parts]), whole)


def test_the_kind_that_was_given_and_column_slices() -> None:
    wide = data("clusters", 60, 12).numpy()
    wide.flags.writeable = False
    got = fasthash.hamming_pairs(wide[:, 2:10], 4)
    assert all(isinstance(part, np.ndarray) for part in got)
    wanted = reference.hamming_pairs(torch.from_numpy(wide[:, 2:10].copy()), 4)
    for part, whole in zip(got, wanted, strict=True):
        assert np.array_equal(part, whole.numpy())
    assert isinstance(fasthash.hamming_pairs(torch.from_numpy(wide.copy()), 4).ids_a, Tensor)


def test_the_plan_follows_the_data() -> None:
    """Substrings where they skip most pairs, the scan where they skip none."""
    codes = random_codes(20_000, 8)
    near = _ops.pairs.Join(codes, None, 2)
    near.find(0, len(codes), ALL)
    assert near.plan >= 2
    far = _ops.pairs.Join(codes, None, 25)
    far.find(0, len(codes), 0)
    assert far.plan == ONES


def test_the_limit_says_how_many_there_would_be() -> None:
    codes = torch.zeros(2000, 8, dtype=torch.uint8)
    codes[1000:, 0] = 1
    total = 2000 * 1999 // 2
    for limit in (0, 10, total - 1):
        with pytest.raises(ValueError, match=rf"hamming_pairs: radius 1 gives {total} pairs, but limit is {limit};"):
            fasthash.hamming_pairs(codes, 1, limit=limit)
    assert len(fasthash.hamming_pairs(codes, 1, limit=total).ids_a) == total
    with pytest.raises(ValueError, match=f"gives {2000 * 2000} pairs, but limit is 5"):
        fasthash.hamming_pairs(codes, 1, codes, limit=5)


def test_a_million_copies_are_counted_and_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.zeros(1_000_000, 8, dtype=torch.uint8)
    codes[123_456, 5] = 255
    monkeypatch.setattr(pairs, "free_memory", lambda: 1 << 30)
    count = 999_999 * 999_998 // 2
    with pytest.raises(ValueError, match=rf"radius 3 gives {count} pairs, but half of the free memory holds 10324440"):
        fasthash.hamming_pairs(codes, 3)
    groups = fasthash.duplicate_groups(codes, 3)
    assert groups.sizes.tolist() == [999_999, 1]
    assert groups.representatives.tolist() == [0, 123_456]
    assert int(groups.keep.sum()) == 2


def test_the_free_memory_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 << 20 < _free_memory.free_memory() < 1 << 50
    monkeypatch.setattr(_free_memory, "_CGROUPS", tmp_path)  # a container's limit, which the host's memory is not
    own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    (tmp_path / own.strip("/")).mkdir(parents=True, exist_ok=True)
    for name, text in [("max", "5000000\n"), ("current", "3000000\n"), ("stat", "anon 9\ninactive_file 1000\n")]:
        (tmp_path / f"memory.{name}").write_text(text)
    assert _free_memory.free_memory() == 2_001_000
    (tmp_path / "memory.max").write_text("max\n")
    assert _free_memory.free_memory() > 1 << 20


@pytest.mark.parametrize("link", ["single", "star"])
@pytest.mark.parametrize("kind", KINDS)
def test_groups(kind: str, link: str, isa: str) -> None:
    for width, radius in [(1, 1), (8, 3), (8, 20), (32, 12)]:
        codes = data(kind, 200, width)
        wanted = reference.duplicate_groups(codes, radius, link)
        groups = fasthash.duplicate_groups(codes, radius, link=link)
        assert torch.equal(groups.representatives[groups.labels], wanted)
        assert torch.equal(groups.representatives, wanted.unique())
        assert torch.equal(groups.sizes, torch.bincount(groups.labels))
        assert torch.equal(groups.keep, wanted == torch.arange(200))


def chain(count: int) -> Tensor:
    """Code i has its first i bits set: neighbours are at distance 1, the ends at count - 1."""
    return torch.from_numpy(np.packbits(np.tri(count, 128, -1, dtype=np.uint8), axis=1))


def test_chains_grow_by_single_links_only(threads: int) -> None:
    codes = chain(100)
    assert fasthash.duplicate_groups(codes, 1).sizes.tolist() == [100]
    star = fasthash.duplicate_groups(codes, 1, link="star")
    assert star.representatives.tolist() == list(range(0, 100, 2))
    near = fasthash.hamming_distances(codes, codes[star.representatives])
    assert int(near[torch.arange(100), star.labels].max()) <= 1


def nearest_others(codes: Tensor, k: int, radius: int) -> tuple[Tensor, Tensor]:
    """By the oracle: distances and ids of the k nearest others; ids -1 in all places where fewer are within radius."""
    distances = reference.hamming_distances(codes, codes).fill_diagonal_(10_000)
    wanted, order = distances.sort(dim=1, stable=True)
    near = wanted[:, k - 1 : k] <= radius
    return torch.where(near, wanted[:, :k], -1), torch.where(near, order[:, :k], -1)


def check_groups_and_graph(codes: Tensor, radius: int, plan: int) -> None:
    """Joins by one plan: groups, those of two blocks joined one after the other, and the graph."""
    for link in ("single", "star"):
        join = _ops.pairs.Join(codes, None, radius, plan)
        assert torch.equal(join.groups(link == "star", ALL), reference.duplicate_groups(codes, radius, link))
    half, count = len(codes) // 2, len(codes)
    parents = torch.arange(count)
    for first, a, b in [(0, codes[:half], None), (0, codes[:half], codes[half:]), (half, codes[half:], None)]:
        _ops.pairs.Join(a, b, radius, plan).unite(parents, first, half)
    assert torch.equal(_ops.pairs.roots(parents), reference.duplicate_groups(codes, radius))
    near = reference.hamming_distances(codes[:half], codes[half:]) <= radius
    lowest = torch.where(near.any(0), near.int().argmax(0), -1)
    assert torch.equal(_ops.pairs.Join(codes[:half], codes[half:], radius, plan).lowest(), lowest)
    for k in (1, 4):
        distances, ids = nearest_others(codes, k, radius)
        got = _ops.pairs.Join(codes, None, radius, plan).knn(k)
        some = ids[:, 0] >= 0
        assert torch.equal(got[1][:, 0] >= 0, some)
        assert torch.equal(got[1][some], ids[some])
        assert torch.equal(got[0][some], distances[some].int())


@pytest.mark.parametrize("plan", [0, ONES, 1, 2, 5, 100])
def test_groups_and_graphs_by_every_plan_and_instruction_set(plan: int, isa: str) -> None:
    for kind in KINDS:
        for width, radius in [(1, 1), (8, 3), (9, 20), (32, 12)]:
            check_groups_and_graph(data(kind, 90, width), radius, plan)


@pytest.mark.parametrize("plan", [ONES, 4])
def test_groups_and_graphs_on_every_thread_count(plan: int, threads: int) -> None:
    check_groups_and_graph(noisy_copies(400, 8, centres=20, flipped=0.04, seed=3), 4, plan)


@pytest.mark.parametrize("most", [0, 1000])
def test_stars_in_blocks_are_the_same(most: int) -> None:
    """More pairs than may be kept: rows are taken in smaller blocks."""
    codes = noisy_copies(3000, 8, centres=9, flipped=0.08, seed=5)
    join = _ops.pairs.Join(codes, None, 10)
    assert join.find(0, 3000, 0) > 256 * 256
    assert torch.equal(join.groups(True, most), join.groups(True, ALL))
    near = (fasthash.hamming_distances(codes, codes) <= 10).numpy()
    lowest = np.full(3000, -1)
    for row in range(3000):
        if lowest[row] < 0:
            lowest[near[row] & (lowest < 0)] = row
    assert np.array_equal(join.groups(True, most).numpy(), lowest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 3, 59])
@pytest.mark.parametrize("radius", [None, 0, 6, 30, 64])
def test_knn_graph(
    kind: str, k: int, radius: int | None, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By searches alone (None), and by a join: of radius 64 it finds all, of less it leaves rows to be searched."""
    if radius is not None and device.type != "cpu":
        pytest.skip("joins are made on the CPU")
    monkeypatch.setattr(pairs, "_QUERIES", 17)
    monkeypatch.setattr(pairs, "_knn_radius", lambda *_: radius)
    codes = data(kind, 60, 8).to(device)
    graph = fasthash.knn_graph(codes, k)
    distances = reference.hamming_distances(codes, codes).fill_diagonal_(1000)
    wanted, order = distances.sort(dim=1, stable=True)
    assert torch.equal(graph.distances, wanted[:, :k])
    assert torch.equal(graph.ids, order[:, :k])
    matrix = graph.csr()
    assert matrix.has_sorted_indices
    assert matrix.nnz == 60 * k
    assert torch.equal(torch.from_numpy(matrix.toarray()).gather(1, graph.ids.cpu()), graph.distances.cpu())


def test_the_graphs_radius_follows_the_data(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(6000, 8)
    assert pairs._knn_radius(codes, 2) is None  # few rows
    monkeypatch.setattr(pairs, "_LEAST_JOINED", 1)
    radius = pairs._knn_radius(codes, 2)
    assert radius is not None
    assert 10 < radius < 25
    assert pairs._knn_radius(codes, 65) is None
    assert pairs._knn_radius(noisy_copies(6000, 8, centres=2, flipped=0.05), 60) is None  # too many pairs are near
    joined = fasthash.knn_graph(codes, 2)
    monkeypatch.setattr(pairs, "_LEAST_JOINED", 1 << 30)
    searched = fasthash.knn_graph(codes, 2)
    assert torch.equal(joined.ids, searched.ids)
    assert torch.equal(joined.distances, searched.distances)


MANY = random_codes(400_000, 8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: _ops.pairs.Join(MANY, None, 24, ONES).find(0, len(MANY), 0),  # each takes minutes
        lambda: fasthash.hamming_pairs(MANY, 24),
        lambda: fasthash.hamming_pairs(MANY, 24, random_codes(400_000, 8, 1)),
        lambda: fasthash.duplicate_groups(MANY, 24),
        lambda: fasthash.duplicate_groups(MANY, 24, link="star"),
        lambda: fasthash.knn_graph(MANY, 5),
        lambda: fasthash.knn_graph(MANY, 65),
    ],
    ids=["find", "pairs", "two sets", "single", "star", "graph", "graph by searches"],
)
def test_ctrl_c_stops_it(call: Any, threads: int) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


CODES = np.zeros((3, 8), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fasthash.hamming_pairs(CODES, -1), ValueError, "hamming_pairs: radius must be at least 0, got -1"),
        (lambda: fasthash.hamming_pairs(CODES, 1.5), TypeError, "hamming_pairs: radius must be an integer, got 1.5"),
        (
            lambda: fasthash.hamming_pairs(CODES, 1, limit=-2),
            ValueError,
            "hamming_pairs: limit must be at least 0, got -2",
        ),
        (
            lambda: fasthash.hamming_pairs(CODES, 1, CODES[:, :4]),
            ValueError,
            "hamming_pairs: codes and other must have codes of one width, got 8 and 4 bytes",
        ),
        (
            lambda: fasthash.hamming_pairs(CODES.astype(float), 1),
            TypeError,
            "hamming_pairs: codes must be packed codes of dtype uint8, got float64",
        ),
        (
            lambda: fasthash.hamming_pairs(CODES[0], 1),
            ValueError,
            r"hamming_pairs: codes must have shape \[rows, bytes\], got \[8\]",
        ),
        (
            lambda: fasthash.duplicate_groups(CODES, 1, link="chain"),
            ValueError,
            "duplicate_groups: link must be 'single' or 'star', got 'chain'",
        ),
        (lambda: fasthash.duplicate_groups(CODES, -1), ValueError, "duplicate_groups: radius must be at least 0"),
        (lambda: fasthash.knn_graph(CODES, 3), ValueError, "knn_graph: k must be between 1 and 2, got 3"),
        (lambda: fasthash.knn_graph(CODES, 0), ValueError, "knn_graph: k must be between 1 and 2, got 0"),
        (lambda: fasthash.knn_graph(CODES[:1], 1), ValueError, "knn_graph: codes must have at least 2 rows, got 1"),
        (lambda: fasthash.hamming_pairs(CODES, True), TypeError, "hamming_pairs: radius must be an integer, got True"),
        (
            lambda: fasthash.duplicate_groups(torch.empty(3, 8, dtype=torch.uint8, device="meta"), 1, link="star"),
            ValueError,
            "duplicate_groups: link 'star' needs codes in the host's memory, got a tensor on meta",
        ),
        (
            lambda: fasthash.hamming_pairs(torch.empty(2**31, 1, dtype=torch.uint8, device="meta"), 1),
            ValueError,
            f"hamming_pairs: codes must have at most {2**31 - 1} rows, got {2**31}",
        ),
        (
            lambda: fasthash.hamming_pairs(CODES, 1, torch.empty(3, 8, dtype=torch.uint8, device="meta")),
            ValueError,
            "hamming_pairs: codes and other must be on one device, got cpu and meta",
        ),
    ],
)
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()
