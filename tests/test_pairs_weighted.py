"""Pairs, groups and neighbour graphs of codes with weighted bits, against the plain oracle: every plan, instruction set
and thread count, bit for bit; and those of an index, on the command line too."""

from __future__ import annotations

import json
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
from fasthash import HammingIndex, _ops, pairs, reference
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash.cli import main
from fasthash.index import block_joins, eligible

ONES = _ops.pairs.ONES
ALL = 1 << 40
Weights = list[tuple[int, int]]
HASHER: Weights = [(44, 4), (20, 1)]  # those of Hasher at 64 bits
# By bytes of a code: groups that end inside bytes, bits behind the groups, many groups, one group.
GROUPS: list[tuple[int, Weights]] = [
    (8, HASHER),
    (8, [(64, 3)]),
    (1, [(3, 2), (4, 5)]),
    (2, [(1, 255), (10, 1)]),
    (5, [(20, 1), (17, 3)]),
    (9, [(33, 2), (1, 7), (36, 5)]),
    (8, [(1, 1 + g % 5) for g in range(64)]),
    (16, [(100, 4), (28, 1)]),
]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield int(request.param)
    torch.set_num_threads(before)


def near_codes(count: int, width: int, seed: int = 0, flipped: float = 0.04) -> Tensor:
    """Copies of a few codes, with some bits flipped; some rows are equal."""
    rng = np.random.default_rng(seed)
    bits = (rng.random((7, 8 * width)) < 0.5)[rng.integers(0, 7, count)] ^ (rng.random((count, 8 * width)) < flipped)
    codes = torch.from_numpy(np.packbits(bits, axis=1))
    codes[count // 2 : count // 2 + count // 8] = codes[: count // 8]
    return codes


def join_of(codes: Tensor, other: Tensor | None, radius: int, weights: Weights, plan: int) -> _ops.pairs.Join:
    flat = flat_bit_weights(weights, "test", codes.shape[1])
    return _ops.pairs.Join(codes, other, radius, plan, flat)


def assert_equal(got: Any, wanted: Any) -> None:
    for part, whole in zip(got, wanted, strict=True):
        assert part.dtype == whole.dtype
        assert torch.equal(part, whole)


def check_pairs(codes: Tensor, other: Tensor | None, radius: int, weights: Weights, plan: int = 0) -> None:
    join = join_of(codes, other, radius, weights, plan)
    got = join.write(join.find(0, len(codes), ALL))
    assert_equal(got, reference.hamming_pairs(codes, radius, other, weights))


def check_groups_and_graph(codes: Tensor, radius: int, weights: Weights, plan: int) -> None:
    join = join_of(codes, None, radius, weights, plan)
    for link in ("single", "star"):
        wanted = reference.duplicate_groups(codes, radius, link, weights)
        assert torch.equal(join.groups(link == "star", ALL), wanted)
    half = len(codes) // 2
    near = reference.hamming_distances(codes[:half], codes[half:], weights) <= radius
    lowest = torch.where(near.any(0), near.int().argmax(0), -1)
    assert torch.equal(join_of(codes[:half], codes[half:], radius, weights, plan).lowest(), lowest)
    distances, order = graph_by_hand(codes, weights)
    for k in (1, 4):
        got = join.knn(k)
        some = distances[:, k - 1] <= radius
        assert torch.equal(got[1][:, 0] >= 0, some)
        assert torch.equal(got[0][some], distances[some, :k])
        assert torch.equal(got[1][some], order[some, :k])


def graph_by_hand(codes: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    distances = reference.hamming_distances(codes, codes, weights).fill_diagonal_(2**30)
    ordered = distances.sort(dim=1, stable=True)
    return ordered.values, ordered.indices


@pytest.mark.parametrize("plan", [0, ONES, 1, 2, 3, 5, 100])
@pytest.mark.parametrize(("width", "weights"), GROUPS)
def test_every_plan(width: int, weights: Weights, plan: int) -> None:
    codes = near_codes(130, width)
    other = torch.cat([codes[40:80], near_codes(30, width, 9)])
    largest = sum(bits * weight for bits, weight in weights)
    for radius in (0, 1, 4, 9, largest // 4, largest - 1, largest):
        check_pairs(codes, None, radius, weights, plan)
        check_pairs(codes, other, radius, weights, plan)
    for radius in (0, 4, largest // 4):
        check_groups_and_graph(codes[:90], radius, weights, plan)


@pytest.mark.parametrize("plan", [ONES, 2, 5])
def test_every_instruction_set(isa: str, plan: int) -> None:
    for width, weights in [*GROUPS, (33, [(250, 4), (14, 1)]), (130, [(1000, 2), (39, 1)])]:
        check_pairs(near_codes(150, width, flipped=0.02), None, 12, weights, plan)
        check_pairs(near_codes(90, width), near_codes(70, width, 5), 8 * width, weights, plan)
        check_groups_and_graph(near_codes(80, width, flipped=0.02), 8, weights, plan)


@pytest.mark.parametrize("plan", [0, ONES, 2, 4])
def test_every_thread_count_and_many_panels(threads: int, plan: int) -> None:
    """Enough codes for several tasks, and buckets of several panels."""
    codes = near_codes(6000, 8, seed=3, flipped=0.06)
    codes[::2, :4] = codes[0, :4]
    near = fasthash.hamming_distances(codes, codes, bit_weights=HASHER)
    i, j = (near <= 5).triu(1).nonzero(as_tuple=True)
    join = join_of(codes, None, 5, HASHER, plan)
    got = join.write(join.find(0, len(codes), ALL))
    assert len(i) > 1000
    assert_equal(got, (i, j, near[i, j]))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_codes_and_weights(draw: st.DataObject) -> None:
    width = draw.draw(st.integers(1, 10))
    sizes, left = list[int](), 8 * width - draw.draw(st.integers(0, 7))
    while left:
        sizes.append(draw.draw(st.integers(1, left)) if len(sizes) < 63 else left)
        left -= sizes[-1]
    weight = st.one_of(st.integers(1, 5), st.integers(1, 255))
    weights = [(bits, draw.draw(weight)) for bits in sizes]
    row = st.lists(st.sampled_from([0, 1, 3, 128, 255]), min_size=width, max_size=width)
    codes = torch.tensor(draw.draw(st.lists(row, min_size=1, max_size=40)), dtype=torch.uint8)
    largest = sum(bits * weight for bits, weight in weights)
    radius, plan = draw.draw(st.integers(0, largest)), draw.draw(st.integers(-1, 12))
    check_pairs(codes, None, radius, weights, plan)
    check_pairs(codes, codes[::2], radius, weights, plan)
    if len(codes) > 4:
        check_groups_and_graph(codes, radius, weights, plan)
    assert_equal(
        fasthash.hamming_pairs(codes, radius, bit_weights=weights),
        reference.hamming_pairs(codes, radius, None, weights),
    )


def test_few_substrings_of_heavy_bits_are_enough() -> None:
    """A pair within 7 has at most one differing bit of weight 4: two substrings of them find it."""
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20_000, 8), dtype=np.uint8))
    join = join_of(codes, None, 7, HASHER, 0)
    join.find(0, len(codes), ALL)
    assert 1 <= join.plan <= 3
    far = join_of(codes, None, 70, HASHER, 0)
    far.find(0, len(codes), 0)
    assert far.plan == ONES


def test_weights_of_1_are_no_weights() -> None:
    codes = near_codes(80, 8)
    assert_equal(fasthash.hamming_pairs(codes, 5, bit_weights=[(30, 1), (34, 1)]), fasthash.hamming_pairs(codes, 5))


def test_bits_behind_the_groups_count_nothing() -> None:
    """Codes that differ there alone are equal, and the codes that were given stay as they were."""
    codes = torch.tensor([[0b10100000], [0b10111111], [0b00100001], [0b10100011]], dtype=torch.uint8)
    before, weights = codes.clone(), [(2, 3), (1, 1)]
    found = fasthash.hamming_pairs(codes, 0, bit_weights=weights)
    assert (found.ids_a.tolist(), found.ids_b.tolist()) == ([0, 0, 1], [1, 3, 3])
    for link in ("single", "star"):
        assert fasthash.duplicate_groups(codes, 2, link=link, bit_weights=weights).labels.tolist() == [0, 0, 1, 0]
    assert fasthash.knn_graph(codes, 2, bit_weights=weights).ids.tolist() == [[1, 3], [0, 3], [0, 1], [0, 1]]
    assert torch.equal(codes, before)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows: int) -> None:
    codes = np.zeros((rows, 8), np.uint8)
    for found in (
        fasthash.hamming_pairs(codes, 9, bit_weights=HASHER),
        fasthash.hamming_pairs(codes, 9, codes[:0], bit_weights=HASHER),
    ):
        assert [part.dtype for part in found] == [np.int64, np.int64, np.int32]
        assert [len(part) for part in found] == [0, 0, 0]
    for link in ("single", "star"):
        assert fasthash.duplicate_groups(codes, 9, link=link, bit_weights=HASHER).sizes.tolist() == [1] * rows


@pytest.mark.parametrize("k", [1, 3, 59])
@pytest.mark.parametrize("radius", [None, 0, 12, 90, 196])
def test_knn_graph(k: int, radius: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """By searches alone (None), and by a join: of radius 196 it finds all, of less it leaves rows to be searched."""
    monkeypatch.setattr(pairs, "_QUERIES", 17)
    monkeypatch.setattr(pairs, "_knn_radius", lambda *_: radius)
    codes = near_codes(60, 8)
    graph = fasthash.knn_graph(codes, k, bit_weights=HASHER)
    distances, order = graph_by_hand(codes, HASHER)
    assert_equal(graph, (distances[:, :k], order[:, :k]))


def test_the_graphs_radius_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (6000, 8), dtype=np.uint8))
    monkeypatch.setattr(pairs, "_LEAST_JOINED", 1)
    radius = pairs._knn_radius(codes, 2, (44, 4, 20, 1))
    assert radius is not None
    assert 30 < radius < 70
    assert pairs._knn_radius(codes, 2, (44, 255, 20, 254)) is not None
    monkeypatch.setattr(pairs, "_MOST_COUNTED", 195)
    assert pairs._knn_radius(codes, 2, (44, 4, 20, 1)) is None  # counts of each distance would take too much memory
    searched = fasthash.knn_graph(codes, 2, bit_weights=HASHER)
    monkeypatch.undo()
    monkeypatch.setattr(pairs, "_LEAST_JOINED", 1)
    assert_equal(fasthash.knn_graph(codes, 2, bit_weights=HASHER), searched)


CODES = np.zeros((3, 8), np.uint8)


@pytest.mark.parametrize("function", ["hamming_pairs", "duplicate_groups", "knn_graph"])
@pytest.mark.parametrize(
    ("given_weights", "error", "message"),
    [
        ([(8, 3)], ValueError, "the groups of bit_weights must hold 57 to 64 bits for codes of 8 bytes, got 8"),
        ([(64, 0)], ValueError, "weight of group 0 of bit_weights must be between 1 and 255, got 0"),
        (5, TypeError, r"bit_weights must be pairs \(bits, weight\), got 5"),
    ],
)
def test_wrong_weights(function: str, given_weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{function}: {message}"):
        getattr(fasthash, function)(CODES, 1, bit_weights=given_weights)


def test_the_limit_says_how_many_there_would_be() -> None:
    with pytest.raises(ValueError, match=r"^hamming_pairs: radius 4 gives 3 pairs, but limit is 2;"):
        fasthash.hamming_pairs(CODES, 4, limit=2, bit_weights=HASHER)


@pytest.mark.parametrize("function", ["hamming_pairs", "duplicate_groups"])
def test_codes_on_a_gpu_are_refused(function: str, device: torch.device) -> None:
    given_codes = torch.from_numpy(CODES).to("meta" if device.type == "cpu" else device)  # no memory of the host
    with pytest.raises(ValueError, match=rf"^{function}: bit_weights need codes in the host's memory, got a tensor on"):
        getattr(fasthash, function)(given_codes, 1, bit_weights=HASHER)


# An index


@pytest.fixture(params=["whole", "blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes fit into memory, or are joined block by block."""
    if request.param == "blocks":
        monkeypatch.setattr(block_joins, "codes_at_once", lambda _: 60)
        monkeypatch.setattr(eligible, "_WINDOW", 17)


@pytest.fixture(params=["memory", "disk"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> HammingIndex:
    """300 codes of 61 bits with ids in no order and keys; every ninth is removed."""
    ids = np.random.default_rng(1).permutation(3000)[:300]
    codes = near_codes(300, 8).numpy() & np.array([255] * 7 + [0b11111000], np.uint8)
    made = HammingIndex(61, bit_weights=INDEX)
    made.add(codes, ids=ids, keys=[f"code {id}" for id in ids])
    made.remove(ids[::9])
    if request.param == "disk":
        made.save(tmp_path / "index")
        made = HammingIndex.open(tmp_path / "index")
    return made


INDEX: Weights = [(40, 4), (21, 1)]
RADIUS = 8


def by_hand(index: HammingIndex, ids: Any) -> list[tuple[int, int, int]]:
    i, j, distances = reference.hamming_pairs(torch.from_numpy(index.get(ids)), RADIUS, None, INDEX)
    return list(zip(ids[i].tolist(), ids[j].tolist(), distances.tolist(), strict=True))


def as_rows(found: Any) -> list[tuple[int, int, int]]:
    return list(zip(*(part.tolist() for part in found), strict=True))


@pytest.mark.usefixtures("blocks")
def test_pairs_of_an_index(index: HammingIndex, tmp_path: Path) -> None:
    ids = index.ids
    wanted = by_hand(index, ids)
    assert len(wanted) > 100
    assert as_rows(index.pairs(RADIUS)) == wanted
    assert as_rows(index.pairs(RADIUS, filter=ids[::2])) == by_hand(index, ids[::2])
    assert index.pairs(RADIUS).keys_a[0] == f"code {wanted[0][0]}"
    other = HammingIndex(61, bit_weights=INDEX)
    other.add(index.get(ids[:50]), ids=ids[:50] + 10_000)
    crossed = as_rows(index.pairs(RADIUS, other))
    assert {(a, b - 10_000) for a, b, _ in crossed if a < b - 10_000} == {(a, b) for a, b, _ in wanted if b in ids[:50]}
    assert [(a, int(ids[b]) + 10_000, d) for a, b, d in as_rows(index.pairs(RADIUS, index.get(ids[:50])))] == crossed
    assert index.write_pairs(tmp_path / "pairs.csv", RADIUS, progress=False) == len(wanted)
    lines = (tmp_path / "pairs.csv").read_text().splitlines()[1:]
    assert [tuple(map(int, line.split(",")[:3])) for line in lines] == wanted


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("link", ["single", "star"])
def test_groups_of_an_index(index: HammingIndex, link: str) -> None:
    ids = index.ids
    lowest = reference.duplicate_groups(torch.from_numpy(index.get(ids)), RADIUS, link, INDEX).numpy()
    groups = index.groups(RADIUS, link=link)
    assert np.array_equal(groups.representatives[groups.labels], ids[lowest])
    assert 1 < len(groups.representatives) < len(ids)


@pytest.mark.parametrize("other", [None, [(61, 2)]])
def test_two_indexes_need_the_same_weights(other: Any) -> None:
    got = "none" if other is None else "61x2"
    with pytest.raises(
        ValueError, match=rf"^HammingIndex.pairs: other must have the same bit_weights, 40x4,21x1, got {got}"
    ):
        HammingIndex(61, bit_weights=INDEX).pairs(1, HammingIndex(61, bit_weights=other))


def test_duplicates_on_the_command_line(
    index: HammingIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "saved", tmp_path / "pairs.csv"
    index.save(folder)
    ids = index.ids
    lowest = ids[reference.duplicate_groups(torch.from_numpy(index.get(ids)), RADIUS, "single", INDEX)]
    wanted = [ids[lowest == first].tolist() for first in np.unique(lowest)]
    capsys.readouterr()
    assert main(["duplicates", str(folder), "--radius", str(RADIUS), "--json"]) == 0
    assert [group["ids"] for group in json.loads(capsys.readouterr().out)] == [g for g in wanted if len(g) > 1]
    assert main(["duplicates", str(folder), "--radius", str(RADIUS), "--pairs", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == len(by_hand(index, ids))
