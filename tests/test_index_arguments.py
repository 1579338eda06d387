"""Arguments of HammingIndex that are refused, by messages that name function, limit and value; and its copies."""

import copy
import pickle

import numpy as np
import pytest
import torch

from fasthash.index import HammingIndex


def random_codes(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 8), np.uint8)


@pytest.fixture
def index():
    made = HammingIndex(64)
    made.add(random_codes(100), ids=np.arange(100)[::-1] * 3)
    made.remove([3, 30])
    return made


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda i, q: i.search(q, True), TypeError, "HammingIndex.search: k must be an integer, got True"),
        (lambda i, q: i.search(q, np.True_), TypeError, "HammingIndex.search: k must be an integer"),
        (lambda i, q: i.search(q, 2.0), TypeError, r"HammingIndex.search: k must be an integer, got 2\.0"),
        (lambda i, q: i.search(q, "2"), TypeError, "HammingIndex.search: k must be an integer, got '2'"),
        (lambda i, q: i.search(q, None), TypeError, "HammingIndex.search: k must be an integer, got None"),
        (lambda i, q: i.search(q, 0), ValueError, "HammingIndex.search: k must be at least 1, got 0"),
        (
            lambda i, q: i.search(q, 2**62),
            ValueError,
            r"HammingIndex.search: k must be at most 2\*\*40, got 46116860184",
        ),
        (
            lambda i, q: i.search(q, 2**64),
            ValueError,
            r"HammingIndex.search: k must be at most 2\*\*40, got 184467440737",
        ),
        (lambda i, q: i.search(q, 1, rescore=True), TypeError, "HammingIndex.search: rescore must be an integer"),
        (
            lambda i, q: i.search(q, 1, rescore=-1),
            ValueError,
            "HammingIndex.search: rescore must be at least 0, got -1",
        ),
        (
            lambda i, q: i.range_search(q, 1.5),
            TypeError,
            r"HammingIndex.range_search: radius must be an integer, got 1\.5",
        ),
        (lambda i, q: i.range_search(q, False), TypeError, "HammingIndex.range_search: radius must be an integer"),
        (
            lambda i, q: i.range_search(q, -1),
            ValueError,
            "HammingIndex.range_search: radius must be at least 0, got -1",
        ),
        (lambda i, q: HammingIndex(64.0), TypeError, r"HammingIndex: bits must be an integer, got 64\.0"),
        (lambda i, q: HammingIndex(True), TypeError, "HammingIndex: bits must be an integer, got True"),
        (lambda i, q: HammingIndex(0), ValueError, "HammingIndex: bits must be between 1 and 65536, got 0"),
        (lambda i, q: HammingIndex(65537), ValueError, "HammingIndex: bits must be between 1 and 65536, got 65537"),
        (lambda i, q: HammingIndex(64, 1.5), TypeError, r"HammingIndex: device must be a torch device .* got 1\.5"),
        (lambda i, q: HammingIndex(64, []), ValueError, r"HammingIndex: device must be .* a list of them, got \[\]"),
        (lambda i, q: HammingIndex(64, ["cpu", "toaster"]), RuntimeError, "device 'toaster' cannot be used here"),
        (lambda i, q: HammingIndex(64, "toaster"), RuntimeError, "HammingIndex: device 'toaster' cannot be used here"),
        (lambda i, q: i.to("toaster"), RuntimeError, "HammingIndex: device 'toaster' cannot be used here"),
        (lambda i, q: HammingIndex.build("x", q, bits=64.5), TypeError, "HammingIndex.build: bits must be an integer"),
        (
            lambda i, q: i.add(q, ids=np.array([2**63 + 5], np.uint64)),
            ValueError,
            r"HammingIndex.add: ids must be between 0 and 2\*\*63 - 1, got 9223372036854775813",
        ),
        (
            lambda i, q: i.remove(np.array([1, 2**64 - 1], np.uint64)),
            ValueError,
            r"HammingIndex.remove: ids must be between 0 and 2\*\*63 - 1, got 18446744073709551615",
        ),
        (lambda i, q: i.get([2**63]), ValueError, "HammingIndex.get: ids must be between 0 .* got 9223372036854775808"),
    ],
)
def test_refused(index, call, error, message):
    before = pickle.dumps(index)
    with pytest.raises(error, match=message):
        call(index, random_codes(1))
    assert len(pickle.dumps(index)) == len(before)


def test_a_device_that_is_not_here():
    device = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(RuntimeError, match=f"HammingIndex: device '{device}' cannot be used here"):
        HammingIndex(64, device)


def test_unsigned_ids_are_ids(index):
    given = index.add(random_codes(2, 1), ids=np.array([2**63 - 1, 2**40], np.uint64))
    assert given.tolist() == [2**63 - 1, 2**40]
    assert index.remove(np.array([2**63 - 1], np.uint64)) == 1


def test_more_neighbours_than_there_are_codes(index):
    found = index.search(random_codes(2), 1000)
    assert found.ids.shape == (2, 1000)
    assert (found.ids[:, 98:] == -1).all()


def test_no_room_for_the_results(index):
    with pytest.raises(MemoryError, match=r"HammingIndex.search: no memory for 1099511627776 results of 3 queries"):
        index.search(random_codes(3), 2**40)


def test_copies_in_memory(index):
    queries = random_codes(5, 2)
    for other in (pickle.loads(pickle.dumps(index)), copy.deepcopy(index), copy.copy(index)):
        assert isinstance(other, HammingIndex)
        for a, b in zip(index.search(queries, 200), other.search(queries, 200), strict=True):
            np.testing.assert_array_equal(a, b)
        added = other.add(random_codes(1, 3))
        assert added.tolist() == [298]  # it goes on from the highest id ever used
        assert 298 not in index


def test_copies_of_an_opened_index(index, tmp_path):
    index.save(tmp_path / "index")
    opened = HammingIndex.open(tmp_path / "index", mmap=False, method="scan")
    data = pickle.dumps(opened)
    assert len(data) < 1000  # the path, not the codes
    for other in (pickle.loads(data), copy.deepcopy(opened)):
        assert (other.path, len(other), other._folder.mmap, other._method) == (opened.path, 98, False, "scan")
        with pytest.raises(ValueError, match="opened read-only"):
            other.remove([0])
    with HammingIndex.open(tmp_path / "index", writable=True) as writer:
        for make in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=r"HammingIndex: .* is open for writing and cannot be copied"):
                make(writer)
    assert len(copy.deepcopy(writer)) == 98  # closed
