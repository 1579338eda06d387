"""How tables are chosen: pure functions of given prices, prices that many searches correct, and prices in files."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mih_cases import FORCED, flipped, random_codes, tables_of

from fasthash import HammingIndex, _core
from fasthash.index import IndexFolderError
from fasthash.index.prices import MOST, Corrected, Prices, Scan
from fasthash.index.search import tables as search_tables
from fasthash.index.search.tables import Experience
from fasthash.index.store import table_file

ops = torch.ops.fasthash
V1_TABLES = Path(__file__).parent / "data" / "index-v1" / "tables"
INFINITY = float("inf")
money = st.floats(0.0, 1e9)

# The plan


@given(st.integers(1, 10**9), st.integers(1, 64), st.integers(1, 1000), st.integers(1, 64), st.booleans())
def test_a_scan_costs_what_its_prices_say(N: int, W: int, Q: int, threads: int, weighted: bool) -> None:
    def ns(queries: int, read: float, compare: float) -> float:
        return _core.mih_scan_ns(N, W, queries, threads, weighted, read, compare)

    assert ns(0, 1, 1) == 0
    assert 0 < ns(Q, 1, 1) <= ns(Q + 1, 1, 1)
    assert ns(Q, 1, 1) == max(ns(Q, 1, 0), ns(Q, 0, 1))
    assert ns(Q, 3, 3) == pytest.approx(3 * ns(Q, 1, 1))
    assert ns(Q, 1, 0) == ns(1, 1, 0)  # the codes are read once


@settings(max_examples=200)
@example([1.0, INFINITY, 1.0, INFINITY, 1.0, INFINITY, 1.0, 1.0], 1, 37)
@given(st.lists(money | st.just(INFINITY), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 10**8))
def test_the_queries_that_are_scanned_are_the_best_choice(prices: list[float], threads: int, N: int) -> None:
    """No other number of the dearest queries costs less."""
    plan = (N, 8, 1, False, 1.0, 1.0)
    start = _core.mih_scanned_from(prices, threads, *plan)

    def cost(scanned: int) -> float:
        rest = sorted(prices)[: len(prices) - scanned]
        return _core.mih_scan_ns(N, 8, scanned, 1, False, 1.0, 1.0) + sum(rest) / threads

    chosen = cost(sum(price >= start for price in prices))
    counts = {0} | {sum(price >= least for price in prices) for least in prices}  # those of one price stay together
    assert chosen <= min(map(cost, counts)) * (1 + 1e-9) + 1e-6


def test_one_query_is_scanned_exactly_where_that_is_cheaper() -> None:
    scan = _core.mih_scan_ns(10**7, 8, 1, 1, False, 1.0, 1.0)
    for price, scanned in ((scan * 0.99, False), (scan * 1.01, True)):
        assert (price >= _core.mih_scanned_from([price], 1, 10**7, 8, 1, False, 1.0, 1.0)) == scanned
        assert (price >= _core.mih_scanned_from([price], 1, 10**7, 8, 1, False, 2.0, 1.0)) is False


def test_a_batch_is_not_scanned_for_one_dear_query() -> None:
    """The first query that is scanned has all codes read; 63 cheap ones do not pay for that, 64 dear ones do."""
    plan = (10**8, 8, 1, False, 1.0, 1.0)
    floor = _core.mih_scan_ns(*plan[:2], 1, *plan[2:])
    assert _core.mih_scanned_from([floor / 2] + [10.0] * 63, 1, *plan) == INFINITY
    assert _core.mih_scanned_from([floor / 2] * 64, 1, *plan) <= floor / 2


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(1, 1e6)), min_size=1, max_size=10, unique_by=lambda step: step[0]),
    st.lists(st.integers(0, 50), min_size=1, max_size=8),
    st.floats(1, 1e7),
)
def test_the_best_radius_to_stop_at(steps: list[tuple[int, float]], ends: list[int], scan_ns: float) -> None:
    found, ns = (sorted(column) for column in zip(*steps, strict=True))

    def cost(stop: int) -> float:
        """Of a search that stops after step `stop`, on average."""
        total = 0.0
        for end in ends:
            needed = next((i for i, radius in enumerate(found) if radius >= end), len(found))
            total += ns[needed] if needed <= stop else ns[stop] + scan_ns
        return total / len(ends)

    radius, price = _core.mih_best_stop(found, ns, ends, scan_ns)
    useful = [i for i in range(len(found)) if any(end <= found[i] for end in ends)]
    if radius < 0:
        assert not useful
    else:
        assert price == pytest.approx(cost(found.index(radius)))
        assert price <= min(cost(i) for i in useful) * (1 + 1e-9)


def test_prices_decide_range_search() -> None:
    codes = torch.from_numpy(random_codes(np.random.default_rng(0), 20_000, 64))
    tables = tables_of(codes, 64, [(0, 12), (16, 12), (32, 12), (48, 12)])
    for queries in (codes[:1], codes[:100]):
        search = (queries, codes, None, *tables, 64, 3)
        assert (ops.mih_range(*search, 0.1, [], [1, 1e-6, 1e-6])[3] == -1).all()
        assert (ops.mih_range(*search, 0.1, [], [1, 1e6, 1e6])[3] >= 0).all()
        assert (ops.mih_range(*search, 0.1, [], [1e9, 1e6, 1e6])[3] == -1).all()
    assert (ops.mih_range(codes[:3], codes, None, *tables, 64, 64, 0.1, [], [1, 1e3, 1e3])[3] == -1).all()  # all codes


def test_where_earlier_searches_ended_decides_k_nearest() -> None:
    codes = torch.from_numpy(random_codes(np.random.default_rng(0), 20_000, 64))
    tables = tables_of(codes, 64, [(0, 12), (16, 12), (32, 12), (48, 12)])
    search = (codes[:5], codes, None, *tables, 64, 1, None, 0.1, [], [1, 1e3, 1e3])
    assert (ops.mih_topk(*search, [])[2] >= 0).all()  # nothing is known: they are tried
    assert (ops.mih_topk(*search, [0, 2])[2] >= 0).all()
    assert (ops.mih_topk(*search, [64, 64])[2] == -1).all()  # so far that all codes would be seen
    far = (~codes[:5], *search[1:])
    found, scanned = ops.mih_topk(*far, [0]), ops.hamming_topk(far[0], codes, None, 1, [])
    assert (found[2] == -1).all()  # the nearest code is not where the others were: stopped
    assert int(scanned[0].min()) > 3


@pytest.mark.parametrize("prices", [[0, 1, 1], [1, -1, 1], [1, 1, float("nan")]])
def test_prices_are_above_zero(prices: list[float]) -> None:
    codes = torch.zeros(100, 8, dtype=torch.uint8)
    tables = tables_of(codes, 64, [(0, 7), (7, 7)])
    with pytest.raises(ValueError, match="prices must be above 0"):
        ops.mih_range(codes[:1], codes, None, *tables, 64, 1, 0.1, [], prices)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_wide_codes_at_large_radii(data: st.DataObject) -> None:
    """Buckets pass over codes whose next bits are far (mih.h: sections), and miss none, whatever the substrings."""
    bits = data.draw(st.sampled_from([128, 200, 256, 509]), "bits")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    centres = random_codes(rng, 6, bits)
    codes = flipped(rng, centres[rng.integers(0, 6, 600)], bits, bits // 5)
    cuts = sorted(data.draw(st.sets(st.integers(0, bits), min_size=4, max_size=17), "cuts"))
    parts = [(a, min(b - a, 10)) for a, b in itertools.pairwise(cuts)]
    weights = data.draw(st.sampled_from([(), (bits, 3), (bits // 3, 2, bits - bits // 3, 1)]), "weights")
    database, queries = torch.from_numpy(codes), torch.from_numpy(centres)
    tables = tables_of(database, bits, parts)
    for radius in (bits // 10, bits // 8):
        expected = ops.hamming_range(queries, database, None, radius, weights)
        found = ops.mih_range(queries, database, None, *tables, bits, radius, FORCED, weights)
        for q in (found[3] >= 0).nonzero()[:, 0]:
            a, b = slice(expected[0][q], expected[0][q + 1]), slice(found[0][q], found[0][q + 1])
            assert torch.equal(expected[1][a], found[1][b])
            assert torch.equal(expected[2][a], found[2][b])


# Prices that searches correct


def test_one_search_changes_hardly_anything_and_many_do() -> None:
    measured = Prices(2.0, 3.0, 4.0, 5.0)
    scans = [Scan(10**7, 8, 1), Scan(10**7, 8, 1000), Scan(10**7, 8, 1, ranged=True)]
    for scan, name in zip([None, *scans], Prices._fields, strict=True):
        for longer in (True, False):
            corrected = Corrected(measured)

            def tell(corrected: Corrected = corrected, scan: Scan | None = scan, longer: bool = longer) -> None:
                if scan is None:
                    corrected.tell_tables(1.0, 1e15 if longer else 0.0)
                else:
                    corrected.tell_scan(scan, 1e15 if longer else 0.0)

            tell()
            ratios = [now / before for now, before in zip(corrected.now, measured, strict=True)]
            assert max(*ratios, *(1 / ratio for ratio in ratios)) <= 1.021
            for _ in range(300):
                tell()
            ratio = getattr(corrected.now, name) / getattr(measured, name)
            if longer:
                assert ratio == pytest.approx(8)
                assert corrected.now._replace(**{name: getattr(measured, name)}) == measured
            else:
                assert 1 / 8.01 < ratio < 0.8
    assert Corrected(measured).now is measured


@pytest.fixture
def no_small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_tables, "SMALL_NS", {"topk": 0, "range": 0})


def experience_of(index: HammingIndex) -> Experience:
    index.search(index.get(index.ids[:1]), 1)
    (own,) = index._parts_of._experience.values()  # type: ignore[attr-defined]
    return own  # type: ignore[no-any-return]


def used(index: HammingIndex, queries: Any, monkeypatch: pytest.MonkeyPatch, radius: int = 3) -> bool:
    """Whether a range search goes by the tables; it must find what a scan finds."""
    given_up = []
    real = search_tables._given_up

    def spy(*arguments: Any) -> Any:
        given_up.append(real(*arguments))
        return given_up[-1]

    with monkeypatch.context() as patch:
        patch.setattr(search_tables, "_given_up", spy)
        found = index.range_search(queries, radius)
    expected = HammingIndex.open(index.path, method="scan").range_search(queries, radius)  # type: ignore[arg-type]
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    return len(given_up[-1]) == 0


def test_tables_are_tried_in_range_searches_whose_scan_takes_a_fifth_of_a_millisecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = random_codes(np.random.default_rng(2), 30_000, 64)
    HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False).close()
    index = HammingIndex.open(tmp_path / "index")
    prices = Prices(read=2e5 / Scan(30_000, 8, 1).ns(Prices()), compare=1e-3)
    experience_of(index).prices = Corrected(prices)
    assert Scan(30_000, 8, 1).ns(prices) == pytest.approx(2e5)
    assert any(used(index, codes[:1], monkeypatch) for _ in range(50))  # the first calls map pages, which takes longer
    monkeypatch.setattr(search_tables, "tables_topk", None)  # a k-NN search is scanned
    assert index.search(codes[:1], 1).ids.tolist() == [[0]]


@pytest.mark.usefixtures("no_small_calls")
def test_a_cold_first_call_changes_no_later_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(np.random.default_rng(1), 30_000, 64)
    HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False).close()
    index = HammingIndex.open(tmp_path / "index")
    own = experience_of(index)
    own.prices = Corrected(Prices(1.0, 1e3, 1e3, 1.0))  # scans that are slow: tables are the plan
    own.prices.tell_tables(1.0, 1e15)  # as of a call that waited for a disk
    own.prices.tell_scan(Scan(30_000, 8, 1, ranged=True), 0.0)
    for first in range(0, 300, 10):
        assert used(index, codes[first : first + 1 + first % 3], monkeypatch)
    own.prices = Corrected(Prices(1.0, 1e-6, 1e-6, 1.0))  # scans that cost nothing
    assert not used(index, codes[:2], monkeypatch)


@pytest.mark.usefixtures("no_small_calls")
@pytest.mark.parametrize("prices", [Prices(MOST, 1 / MOST, 1 / MOST), Prices(1 / MOST, MOST, MOST), Prices()])
def test_results_are_the_same_whatever_the_prices(prices: Prices, tmp_path: Path, monkeypatch: Any) -> None:
    rng = np.random.default_rng(2)
    codes = flipped(rng, random_codes(rng, 40, 64)[rng.integers(0, 40, 6000)], 64, 6)
    monkeypatch.setattr(table_file, "measured", lambda *_: prices)
    HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False).close()
    index, scanned = HammingIndex.open(tmp_path / "index"), HammingIndex.open(tmp_path / "index", method="scan")
    queries = np.concatenate([codes[:20], random_codes(rng, 20, 64)])
    for _ in range(3):  # the k-NN search learns where others ended
        for batch in (queries, queries[:1], queries[-1:]):
            for k in (1, 10, 7000):
                for a, b in zip(index.search(batch, k)[:2], scanned.search(batch, k)[:2], strict=True):
                    np.testing.assert_array_equal(a, b)
            for radius in (0, 4, 20):
                found = zip(index.range_search(batch, radius)[:3], scanned.range_search(batch, radius)[:3], strict=True)
                for a, b in found:
                    np.testing.assert_array_equal(a, b)


def test_tables_are_tried_again_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a price that is too high could never be corrected."""
    codes = torch.from_numpy(random_codes(np.random.default_rng(1), 3000, 64))
    own = Experience(table_tables(codes), Prices())
    assert [own.explore() for _ in range(128)].count(True) == 2
    own.tell_ends(3, torch.arange(100, dtype=torch.int32))
    assert len(own.ends(3)) == 8
    assert own.ends(2) == own.ends(3)
    assert own.ends(4) == ()
    for _ in range(10):
        own.tell_ends(2, torch.tensor([7, 9], dtype=torch.int32))
    assert len(own.ends(2)) == 28
    for _ in range(10):
        own.tell_ends(2, torch.tensor([7, 9], dtype=torch.int32))
    assert own.ends(2) == (7, 9) * 16


def test_small_searches_rarely_ask_whether_codes_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(np.random.default_rng(3), 3000, 64)
    HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False).close()
    index = HammingIndex.open(tmp_path / "index")
    index.search(codes[:1], 1)
    asked: list[Any] = []
    monkeypatch.setattr(search_tables, "in_memory", lambda *_, **__: asked.append(1) or True)
    for row in range(160):
        index.search(codes[row], 1)
    assert 1 <= len(asked) <= 11


def table_tables(codes: torch.Tensor) -> table_file.Tables:
    starts, arrays = tables_of(codes, 64, [(0, 10), (20, 10)])
    return table_file.Tables(Path("tables"), 64, starts, arrays, None)


_ONE_PROCESSOR = """
import os, sys
import torch
from mih_cases import tables_of

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        while os.getppid() != 1:
            sum(range(100_000))
    children.append(child)
try:
    ops = torch.ops.fasthash
    codes = torch.randint(0, 256, (200_000, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    starts, arrays = tables_of(codes, 64, [(0, 16), (16, 16), (32, 16), (48, 16)])
    late = 0
    for call in range(1000):
        queries = codes[call : call + 1] ^ 1
        *_, visited, _ = ops.mih_range(queries, codes, None, starts, arrays, 64, 15, 0.5, [], (1.0, 100.0, 100.0))
        late += call >= 200 and int(visited) < 0
    print(late)
finally:
    for child in children:
        os.kill(child, 9)
"""


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="the system tells no waiting times")
def test_a_query_is_not_late_because_other_programs_ran() -> None:
    """Three programs keep the one processor busy that a thousand queries run on."""
    command = [sys.executable, "-c", _ONE_PROCESSOR]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=True)
    assert int(result.stdout) <= 8, result.stdout  # of 800; a page that is not mapped yet costs time too


@pytest.mark.usefixtures("no_small_calls")
def test_searches_in_many_threads(tmp_path: Path) -> None:
    codes = random_codes(np.random.default_rng(4), 20_000, 64)
    HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False).close()
    index = HammingIndex.open(tmp_path / "index")
    wrong: list[int] = []

    def ask(first: int) -> None:
        for row in range(first, first + 200):
            if index.range_search(codes[row], 2).ids.tolist() != [row]:
                wrong.append(row)
            if index.search(codes[row], 1).ids.tolist() != [[row]]:
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(0, 1000, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_that_are_written_are_freed() -> None:
    """Of 2,000 searches with 8,000 results each, 128 MB, nothing stays."""
    resource = pytest.importorskip("resource")
    codes = torch.zeros(8000, 8, dtype=torch.uint8)
    tables = tables_of(codes, 64, [(0, 8), (8, 8)])
    sizes = []
    for call in range(2100):
        if call in (100, 2099):
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert len(ops.mih_range(codes[:1], codes, None, *tables, 64, 0, FORCED)[1]) == 8000
    assert sizes[1] - sizes[0] < 64 * 1024  # KiB


# Prices in files


def test_folders_without_prices_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_tables, "SMALL_NS", {"topk": 0, "range": 0})
    scanned = HammingIndex.open(V1_TABLES, method="scan")
    queries = scanned.get(scanned.ids[:5])
    for method in ("auto", "mih"):
        index = HammingIndex.open(V1_TABLES, method=method)
        assert index._contents.segments[0].extras["mih"].prices is None
        for a, b in zip(index.range_search(queries, 9)[:3], scanned.range_search(queries, 9)[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        assert all(1 / MOST / 2 <= price <= MOST * 2 for price in experience_of(index).prices.now)


def test_prices_are_measured_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(np.random.default_rng(5), 3000, 67)
    HammingIndex.build(tmp_path / "index", codes, 67, mih=True, progress=False).close()
    for mmap in (True, False):
        index = HammingIndex.open(tmp_path / "index", mmap=mmap)
        prices = index._contents.segments[0].extras["mih"].prices
        assert all(1 / MOST <= price <= MOST for price in prices)
        monkeypatch.setattr(search_tables, "measured_scans", None)  # not measured again
        assert experience_of(index).prices._measured == prices
    index.verify()


@pytest.mark.parametrize(
    "text",
    [
        "[1.0, 2.0, 3.0]",
        "[1.0, 2.0, 3.0, 4.0, 5.0]",
        "[1.0, 2.0, 3.0, true]",
        '[1.0, 2.0, 3.0, "4"]',
        "[1.0, 2.0, 3.0, 65]",
        "[0, 2.0, 3.0, 4.0]",
        "[-1, 2.0, 3.0, 4.0]",
        "[NaN, 1, 1, 1]",
        "[Infinity, 1, 1, 1]",
        "[1e400, 1, 1, 1]",
        "[1" + "0" * 400 + ", 1, 1, 1]",
        "{}",
        "7",
        "[1",
        "",
        "[" * 900,
    ],
)
def test_damaged_prices_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(np.random.default_rng(5), 3000, 64)
    real = table_file.metadata_of
    fields = lambda kind, **given: real(kind, **given) | ({"prices": text} if "prices" in given else {})  # noqa: E731
    monkeypatch.setattr(table_file, "metadata_of", fields)
    with pytest.raises(IndexFolderError, match=r"prices must be 4 numbers between 0\.015625 and 64, got") as failure:
        HammingIndex.build(tmp_path / "index", codes, mih=True, progress=False)
    assert len(str(failure.value)) < 400 + len(str(tmp_path))
    assert len(HammingIndex.open(tmp_path / "index", method="scan")) == 3000
