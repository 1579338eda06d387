"""Searching an index on several devices, and one that does not fit its device: the same results as on the CPU.

Devices are CPUs here, and how much room they have is made up; with GPUs the same tests run on those too.
"""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from fasthash import HammingIndex, _ops
from fasthash.index.search import devices as devices_module
from fasthash.index.search.devices import Devices
from fasthash.index.search.parts import ScannedPart
from fasthash.index.search.stream import on_device, streamed
from fasthash.index.segments import Segment

CPU = torch.device("cpu")
BITS, WIDTH = 20, 3
CUDA = torch.cuda.is_available() and bool(_ops.cuda_architectures())
PLACES = [["cpu"], ["cpu"] * 3, *([["cuda"], ["cuda", "cpu"]] if CUDA else [])]
ROOMS = [None, 0, 2_000]  # bytes: all codes are copied, none, some


@pytest.fixture(autouse=True)
def small_segments_are_split(monkeypatch):
    monkeypatch.setattr(devices_module, "_SPLIT_ROWS", 100)


def random_codes(rows, seed=0):
    return np.packbits(np.random.default_rng(seed).integers(0, 2, (rows, BITS), dtype=np.uint8), axis=1)


def filled(device, kind="ordered", bit_weights=None, scaled=False):
    """An index of several segments with deleted codes; "mixed": whose ids interleave."""
    index = HammingIndex(BITS, device, bit_weights=bit_weights)
    rng = np.random.default_rng(1)
    shuffled = rng.permutation(5000)
    for number, size in enumerate((2400, 70, 1500, 500)):
        if kind == "mixed":
            given, shuffled = shuffled[:size], shuffled[size:]
        else:
            given = np.arange(size) * 3 + number * 30_000 if kind == "ordered" else None
        scale = (np.random.default_rng(number).random(size) * 2).astype(np.float16) if scaled else None
        index.add(random_codes(size, number), ids=given, code_scale=scale)
    index.remove(index.ids[rng.random(len(index)) < 0.2])
    return index


def place(index, room, block_bytes=1000):
    index._devices = Devices(index.devices, room, block_bytes)
    return index


def same(a, b):
    for ours, oracle in zip(a, b, strict=True):
        np.testing.assert_array_equal(ours, oracle)


def check(index, oracle):
    queries, rng = random_codes(7, 99), np.random.default_rng(2)
    assert index.bit_weights == oracle.bit_weights
    radius = 3 if index.bit_weights is None else 20
    mask = rng.random(len(oracle)) < 0.5
    few = np.zeros(len(oracle), bool)
    few[rng.integers(0, len(oracle), 30)] = True
    for filter in (None, mask, few, ~few & False, oracle.ids[mask], oracle.ids[few], np.array([2**40, 5, 5])):
        for k in (1, 40):
            same(index.search(queries, k, filter), oracle.search(queries, k, filter))
        same(index.range_search(queries, radius, filter), oracle.range_search(queries, radius, filter))
    same(index.search(queries, len(oracle) + 3), oracle.search(queries, len(oracle) + 3))
    real = rng.random((3, BITS), dtype=np.float32)
    same(index.search(real, 5, rescore=4), oracle.search(real, 5, rescore=4))


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("places", PLACES, ids=" ".join)
@pytest.mark.parametrize("kind", ["ordered", "mixed", "ranges"])
def test_same_results(places, room, kind):
    check(place(filled(places, kind), room), filled("cpu", kind))


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("places", PLACES, ids=" ".join)
def test_same_results_with_weights(places, room, tmp_path):
    weights = [(9, 7), (11, 2)]
    oracle = filled("cpu", "mixed", weights)
    check(place(filled(places, "mixed", weights), room), oracle)
    oracle.save(tmp_path / "index")
    index = HammingIndex.open(tmp_path / "index", device=places)
    for one in (index, pickle.loads(pickle.dumps(index)), oracle.to(places), copy.deepcopy(oracle)):
        check(one, oracle)


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("places", PLACES, ids=" ".join)
@pytest.mark.parametrize("kind", ["ordered", "mixed"])
@pytest.mark.parametrize("scaled", [False, True])
def test_real_queries_against_all_codes(places, room, kind, scaled, tmp_path):
    oracle, rng = filled("cpu", kind, scaled=scaled), np.random.default_rng(3)
    oracle.save(tmp_path / "index")
    real, few = rng.random((3, BITS), dtype=np.float32), np.zeros(len(oracle), bool)
    few[rng.integers(0, len(oracle), 30)] = True
    for index in (filled(places, kind, scaled=scaled), HammingIndex.open(tmp_path / "index", device=places)):
        place(index, room)
        for metric in ("l1", "dot", "cosine", "l2"):
            for filter in (None, rng.random(len(oracle)) < 0.5, few, oracle.ids[few]):
                options = {"rescore": "all", "metric": metric}
                same(index.search(real, 12, filter, **options), oracle.search(real, 12, filter, **options))
        same(index.search(real, len(oracle) + 3, rescore="all"), oracle.search(real, len(oracle) + 3, rescore="all"))


def test_real_queries_after_changes():
    index, oracle = (filled(device, scaled=True) for device in (["cpu", "cpu"], "cpu"))
    place(index, 4_000)
    real = np.random.default_rng(3).random((3, BITS), dtype=np.float32)
    for _ in range(2):
        same(index.search(real, 9, rescore="all", metric="l2"), oracle.search(real, 9, rescore="all", metric="l2"))
        for one in (index, oracle):
            one.remove(one.ids[::7])
            one.add(random_codes(300, 8), code_scale=np.linspace(0, 3, 300, dtype=np.float16))


def placed_on(index):
    placed = index._devices._place(index._contents)
    return [
        sum(own.stop - own.start for own in placed if own.device == device) for device in range(-1, len(index.devices))
    ]


def test_codes_are_placed_evenly():
    index = HammingIndex(BITS, ["cpu", "cpu"])
    index.add(random_codes(10_000))
    assert placed_on(index) == [0, 5056, 4944]
    index.add(random_codes(90, 1))  # too few to split
    assert placed_on(index) == [0, 5056, 5034]
    assert placed_on(place(index, 3 * 5050)) == [5056, 4944, 90]
    assert placed_on(place(index, 0)) == [10_090, 0, 0]


def test_changes_after_a_search():
    index, oracle = place(filled(["cpu", "cpu"]), 4_000), filled("cpu")
    check(index, oracle)
    before = {id(s.segment.codes) for s in index._devices._placed}
    for one in (index, oracle):
        assert one.remove(one.ids[::7]) > 100
    check(index, oracle)
    assert {id(s.segment.codes) for s in index._devices._placed} == before  # nothing was copied again
    for one in (index, oracle):
        one.add(random_codes(1000, 8), ids=np.arange(1, 3000, 3))
        one.compact()
    check(index, oracle)


@pytest.mark.parametrize("room", [None, 2_000])
@pytest.mark.parametrize("mmap", [True, False])
def test_an_opened_index(tmp_path, mmap, room):
    oracle = filled("cpu")
    oracle.save(tmp_path / "index")
    with HammingIndex.open(tmp_path / "index", mmap=mmap, writable=True, device=["cpu", "cpu"]) as index:
        check(place(index, room), oracle)
        for one in (index, oracle):
            one.add(random_codes(500, 5))
            one.remove(np.arange(0, 900, 2))
        check(index, oracle)
    again = HammingIndex.open(tmp_path / "index", device=["cpu"])
    check(place(again, room), oracle)


def test_copies_know_their_devices(tmp_path):
    index = filled(["cpu", "cpu"])
    assert repr(index) == f"HammingIndex(bits=20, codes={len(index)}, device=['cpu', 'cpu'])"
    assert index.device == CPU
    assert index.devices == (CPU, CPU)
    index.save(tmp_path / "index")
    opened = HammingIndex.open(tmp_path / "index", device=["cpu", "cpu"])
    for one in (pickle.loads(pickle.dumps(index)), copy.deepcopy(opened), index.to("cpu").to(["cpu", "cpu"])):
        assert one.devices == (CPU, CPU)
        check(one, index)


def test_an_empty_index_and_no_queries():
    for index in (HammingIndex(BITS, ["cpu", "cpu"]), place(filled(["cpu", "cpu"]), 5000)):
        found = index.search(random_codes(0), 3)
        assert found.ids.shape == found.distances.shape == (0, 3)
        assert index.range_search(random_codes(0), 3).offsets.tolist() == [0]
    empty = HammingIndex(BITS, ["cpu", "cpu"])
    assert empty.search(random_codes(2), 2).ids.tolist() == [[-1, -1]] * 2
    assert empty.search(random_codes(2), 2).distances.tolist() == [[21, 21]] * 2
    assert empty.range_search(random_codes(2), 20, filter=np.zeros(0, bool)).ids.size == 0


def test_bad_filters_are_refused_as_on_one_device():
    index = place(filled(["cpu", "cpu"]), 5000)
    size = len(index)
    with pytest.raises(
        ValueError, match=f"HammingIndex.search: a boolean filter must have one value for each of the {size}"
    ):
        index.search(random_codes(1), 1, np.zeros(3, bool))
    with pytest.raises(TypeError, match=r"HammingIndex.range_search: filter is ambiguous: it holds only 0 and 1"):
        index.range_search(random_codes(1), 1, np.zeros(size, np.uint8))


def test_many_threads_search_while_one_changes():
    index = place(filled(["cpu", "cpu"]), 4_000)
    queries = random_codes(3, 50)
    expected = {len(index): index.search(queries, 10)}
    wrong = []

    def search():
        for _ in range(10):
            found = index.search(queries, 10)
            if not any((found.ids == state.ids).all() for state in list(expected.values())):
                wrong.append(found)

    after = HammingIndex(BITS)
    after.add(index.get(index.ids), ids=index.ids)
    removed = index.ids[::3]
    after.remove(removed)
    expected[len(after)] = after.search(queries, 10)
    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    index.remove(removed)
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("device", ["cpu", ["cpu", "cpu"]])
def test_too_little_memory_leaves_the_index_as_it_was(monkeypatch, device):
    """What torch raises on a GPU, where it cannot happen."""
    words = (
        "CUDA out of memory. Tried to allocate 2.26 GiB. GPU 0 has a total capacity of 6.00 GiB of which 1.00 GiB is "
    )
    words += "free. Including non-PyTorch memory, this process has 4.00 GiB memory in use."

    def refuse(*arguments, **keywords):
        raise torch.OutOfMemoryError(words)

    index, queries = filled(device), random_codes(2)
    before = index.search(queries, 5)
    said = r"\(CUDA out of memory. Tried to allocate 2.26 GiB. GPU 0 has a total capacity .* 1.00 GiB is free\)"
    with monkeypatch.context() as broken:
        broken.setattr(torch.Tensor, "to", refuse)
        with pytest.raises(MemoryError, match=rf"HammingIndex.add: no memory for 300 bytes on cpu {said}"):
            index.add(random_codes(100))
    with monkeypatch.context() as broken:
        broken.setattr(torch, "cat", refuse)
        with pytest.raises(MemoryError, match=rf"HammingIndex.search: no memory for 5 results of 2 queries {said}"):
            index.search(queries, 5)
        with pytest.raises(MemoryError, match=rf"range_search: no memory for the results of 2 queries {said}"):
            index.range_search(queries, 5)
    same(index.search(queries, 5), before)
    index.add(random_codes(100))


# Streaming


def whole_part(rows, width=5, masked=False):
    codes = torch.from_numpy(np.random.default_rng(rows).integers(0, 256, (rows, width), dtype=np.uint8))
    mask = torch.arange((rows + 63) // 64) if masked else None
    return ScannedPart(Segment(codes, 0), codes, mask, 0)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 128, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_are_the_part(rows, masked):
    part = whole_part(rows, masked=masked)
    codes, words, starts = [], [], []
    for block in streamed([part, part], CPU, block_bytes=5 * 200):
        assert len(block.codes) <= 192
        assert block.codes.data_ptr() != part.codes.data_ptr()
        starts.append(block.start)
        codes.append(block.codes.clone())  # the next block but one takes its place
        words += [] if block.mask is None else [block.mask.clone()]
    assert torch.equal(torch.cat(codes), part.codes.repeat(2, 1))
    assert starts == 2 * list(range(0, rows, 192))
    if masked:
        assert torch.equal(torch.cat(words), part.mask.repeat(2))


def test_a_block_is_not_overwritten_while_it_is_used():
    part = whole_part(2000)
    places = set()
    for block in streamed([part], CPU, block_bytes=320):
        expected = part.codes[block.start : block.start + len(block.codes)]
        for _ in range(3):
            assert torch.equal(block.codes, expected)
        places.add(block.codes.data_ptr())
    assert len(places) == 2


def test_streaming_can_stop_early_and_passes_errors_on():
    def parts():
        yield whole_part(300)
        raise OSError("the disk is gone")

    blocks = streamed(parts(), CPU, block_bytes=320)
    assert next(blocks).start == 0
    blocks.close()
    with pytest.raises(OSError, match="the disk is gone"):
        list(streamed(parts(), CPU, block_bytes=320))
    assert list(streamed([], CPU)) == []


def test_a_copy_on_a_device():
    codes = whole_part(777).codes
    made = on_device(codes, torch.device("cuda" if CUDA else "cpu"), 320)
    assert torch.equal(made.cpu(), codes)
    assert made.data_ptr() != codes.data_ptr()
