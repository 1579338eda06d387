"""HammingIndex against an oracle: a dictionary of codes, searched by brute force."""

import threading

import numpy as np
import pytest
import torch

from fasthash.codes import code_bytes, pack_bits, unpack_bits
from fasthash.index import HammingIndex, bitmap, merge
from fasthash.index.search import parts
from fasthash.index.segments import make_segment


def random_codes(rng, rows, bits):
    """Codes near a few centres, so that distances tie and codes repeat."""
    centres = rng.random((3, bits)) < 0.5
    flips = rng.random((rows, bits)) < 2 / bits
    return np.packbits(centres[rng.integers(3, size=rows)] ^ flips, axis=1)


class Oracle:
    """What an index must do, in the plainest way."""

    def __init__(self, bits, bit_weights=None):
        self.bits, self.bit_weights, self.codes, self.next_id = bits, bit_weights, {}, 0
        self.weights = np.array([weight for count, weight in bit_weights or [(bits, 1)] for _ in range(count)])
        self.largest = int(self.weights.sum())

    def add(self, codes, ids):
        if ids is None:
            ids = range(self.next_id, self.next_id + len(codes))
        for code, id in zip(codes, ids, strict=True):
            assert id not in self.codes
            self.codes[int(id)] = code.copy()
            self.next_id = max(self.next_id, int(id) + 1)

    def remove(self, ids):
        return sum(self.codes.pop(int(id), None) is not None for id in set(ids))

    def ids(self):
        return np.array(sorted(self.codes), np.int64)

    def ranking(self, query, allowed=None):
        """[(distance, id)] of every eligible code, in order; query: [bits] of 0 and 1, or real-valued."""
        ids = [id for id in self.codes if allowed is None or id in allowed]
        if not ids:
            return []
        bits = np.unpackbits(np.array([self.codes[id] for id in ids]), axis=1, count=self.bits)
        distances = (self.weights * np.abs(query.astype(np.float64) - bits)).sum(1).astype(np.float32)
        return sorted(zip(distances.tolist(), ids, strict=True))

    def search(self, queries, k, allowed=None, rescore=0):
        distances = np.full((len(queries), k), self.largest + 1, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        for row, query in enumerate(queries):
            ranking = self.ranking((query > 0.5).astype(float), allowed)
            if rescore:
                candidates = {id for _, id in ranking[: k * rescore]}
                ranking = self.ranking(query, candidates)
            for place, (distance, id) in enumerate(ranking[:k]):
                distances[row, place], ids[row, place] = distance, id
        return distances, ids


def check_same(index, oracle, rng):
    """Everything that can be asked of the index, once, with random questions."""
    ids = oracle.ids()
    np.testing.assert_array_equal(index.ids, ids)
    assert index.ids.dtype == np.int64
    assert len(index) == len(ids)
    assert index.bit_weights == oracle.bit_weights
    for id in [0, 1, 10**6, -1, *ids[:3].tolist()]:
        assert (id in index) == (id in oracle.codes)
    if len(ids):
        some = rng.choice(ids, 5)
        np.testing.assert_array_equal(index.get(some), [oracle.codes[id] for id in some])

    z = np.round(rng.random((3, oracle.bits)), 1).astype(np.float32)
    k = int(rng.choice([1, 2, 5, len(ids) + 3]))
    allowed, filter = None, None
    kind = rng.integers(4)
    if kind == 1:
        filter = rng.random(len(ids)) < rng.choice([0.02, 0.5])
        allowed = set(ids[filter].tolist())
    elif kind == 2:
        filter = rng.integers(0, 1000, size=rng.choice([2, 400]))
        allowed = set(filter.tolist())
    elif kind == 3:
        filter, allowed = torch.tensor(ids[:5]), set(ids[:5].tolist())

    expected_distances, expected_ids = oracle.search(z, k, allowed)
    for queries in (pack_bits(z), z):
        found = index.search(queries, k, filter=filter)
        np.testing.assert_array_equal(found.ids, expected_ids)
        np.testing.assert_array_equal(found.distances, expected_distances)
        assert (found.distances.dtype, found.ids.dtype) == (np.int32, np.int64)
    factor = int(rng.integers(1, 4))
    expected_distances, expected_ids = oracle.search(z, k, allowed, rescore=factor)
    found = index.search(z, k, filter=filter, rescore=factor)
    np.testing.assert_array_equal(found.ids, expected_ids)
    np.testing.assert_array_equal(found.distances, expected_distances)
    assert found.distances.dtype == np.float32

    radius = int(rng.integers(0, oracle.largest + 2))
    found = index.range_search(z, radius, filter=filter)
    rankings = [[(d, id) for d, id in oracle.ranking((q > 0.5).astype(float), allowed) if d <= radius] for q in z]
    np.testing.assert_array_equal(found.offsets, np.cumsum([0, *map(len, rankings)]))
    flat = [pair for ranking in rankings for pair in ranking]
    np.testing.assert_array_equal(found.distances, [d for d, _ in flat])
    np.testing.assert_array_equal(found.ids, [id for _, id in flat])
    assert [field.dtype for field in found] == [np.int64, np.int32, np.int64]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def small_segments(monkeypatch):
    """Merging at sizes that a test reaches."""
    monkeypatch.setattr(merge, "MERGE_FAN", 3)
    monkeypatch.setattr(merge, "MERGE_ROWS", 200)
    monkeypatch.setattr(merge, "_SMALLEST_CLASS", 4)
    monkeypatch.setattr(merge, "SEGMENT_ROWS", 300)


@pytest.mark.parametrize("place", ["memory", "disk", "disk, loaded"])
@pytest.mark.parametrize(
    ("bits", "seed", "bit_weights"),
    [
        *((4, 0, None), (8, 1, None), (21, 2, None), (64, 3, None), (130, 4, None)),
        *((8, 5, [(8, 1)]), (21, 6, [(9, 3), (12, 1)]), (64, 7, [(20, 30), (4, 1), (40, 7)]), (130, 8, [(130, 9)])),
    ],
)
@pytest.mark.usefixtures("small_segments")
def test_any_sequence_of_changes(place, bits, seed, bit_weights, tmp_path):
    rng = np.random.default_rng(seed)
    oracle, index = Oracle(bits, bit_weights), HammingIndex(bits, bit_weights=bit_weights)
    if place != "memory":
        index.save(tmp_path / "index")
        index = HammingIndex.open(tmp_path / "index", mmap=place == "disk", writable=True)
    for _ in range(40):
        action = rng.integers(7)
        if action == 5:
            index.compact()
            assert len(index._contents.segments) <= 1 + len(oracle.codes) // merge.SEGMENT_ROWS * 2
        elif action == 6:
            ids = rng.permutation(1000)[: rng.choice([1, 50])]
            codes = random_codes(rng, len(ids), bits)
            np.testing.assert_array_equal(index.add(codes, ids, replace=True), ids)
            oracle.remove(ids.tolist())
            oracle.add(codes, ids)
        elif action <= 1:
            rows = int(rng.choice([0, 1, 2, 30]))
            codes, ids = random_codes(rng, rows, bits), None
            if action == 1:
                free = np.setdiff1d(np.arange(1000), oracle.ids())
                ids = rng.permutation(free)[:rows]
            given = index.add(codes, ids)
            assert given.dtype == np.int64
            np.testing.assert_array_equal(given, np.arange(rows) + oracle.next_id if ids is None else ids)
            oracle.add(codes, ids)
        elif action == 2:
            ids = rng.choice(1000, size=rng.choice([1, 300]))
            assert index.remove(ids) == oracle.remove(ids.tolist())
        elif action == 3 and len(oracle.codes):
            ids = rng.choice(oracle.ids(), size=rng.choice([1, 20]))
            assert index.remove(torch.tensor(ids)) == oracle.remove(ids.tolist())
        elif place != "memory":
            index.verify()
            index.close()
            index = HammingIndex.open(tmp_path / "index", mmap=place == "disk", writable=True)
        else:
            index = index.to("cpu")
        check_same(index, oracle, rng)
    index.save(tmp_path / "copy")
    check_same(HammingIndex.open(tmp_path / "copy"), oracle, rng)
    assert HammingIndex.open(tmp_path / "copy").to("cpu").add(codes[:0]).shape == (0,)


def test_devices_agree_and_results_come_back_to_the_queries(device):
    rng = np.random.default_rng(0)
    codes, z = random_codes(rng, 500, 64), rng.random((9, 64))
    index = HammingIndex(64)
    index.add(codes, rng.permutation(2000)[:500])
    index.remove(index.ids[::7])
    there = index.to(device)
    assert there.device.type == device.type
    mask = rng.random(len(index)) < 0.5
    for filter in (None, mask, index.ids[:4]):
        expected = index.search(z, 12, filter=filter, rescore=3)
        found = there.search(z, 12, filter=filter, rescore=3)
        tensors = there.search(torch.tensor(z, device=device), 12, filter=filter, rescore=3)
        for a, b, c in zip(expected, found, tensors, strict=True):
            np.testing.assert_array_equal(a, b)
            assert c.device.type == device.type
            np.testing.assert_array_equal(a, c.cpu())
        expected, found = index.range_search(z, 25, filter=filter), there.range_search(z, 25, filter=filter)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)
    assert torch.equal(there.get(torch.tensor(index.ids)), torch.tensor(index.get(index.ids)))


def test_ties_go_to_the_lowest_id_whatever_the_insertion_order():
    index = HammingIndex(16)
    same = np.zeros((4, 2), np.uint8)
    index.add(same, [30, 7, 90, 2])
    index.add(same[:2], [5, 60])
    assert index.search(same[:1], 6).ids.tolist() == [[2, 5, 7, 30, 60, 90]]
    assert index.range_search(same[:1], 0).ids.tolist() == [2, 5, 7, 30, 60, 90]
    assert index.search(np.full((1, 16), 0.25), 6, rescore=1).ids.tolist() == [[2, 5, 7, 30, 60, 90]]
    everything = index.range_search(np.array([[0, 0], [255, 0]], np.uint8), 2**62)
    assert everything.ids.tolist() == [2, 5, 7, 30, 60, 90] * 2
    assert everything.distances.tolist() == [0] * 6 + [8] * 6


def test_rescore_orders_by_the_asymmetric_distance():
    index = HammingIndex(4)
    index.add(pack_bits(np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])))
    query = np.array([[0.4, 0.45, 0.1, 0.0]], np.float32)
    assert index.search(query, 2).ids.tolist() == [[2, 0]]
    found = index.search(query, 2, rescore=2)
    assert found.ids.tolist() == [[2, 1]]
    np.testing.assert_allclose(found.distances, [[0.95, 1.05]], rtol=1e-6)


def test_missing_places():
    index = HammingIndex(12)
    queries = np.zeros((2, 2), np.uint8)
    found = index.search(queries, 3)
    assert found.ids.tolist() == [[-1] * 3] * 2
    assert found.distances.tolist() == [[13] * 3] * 2
    assert index.range_search(queries, 12).offsets.tolist() == [0, 0, 0]
    index.add(queries[:1], [4])
    assert index.search(queries, 2).ids.tolist() == [[4, -1]] * 2
    assert index.search(queries, 2, filter=[99]).ids.tolist() == [[-1, -1]] * 2
    assert index.search(queries, 2, filter=[]).ids.tolist() == [[-1, -1]] * 2
    assert index.search(queries, 2, filter=np.array([False])).distances.tolist() == [[13, 13]] * 2
    assert index.range_search(queries, 12, filter=[]).ids.shape == (0,)
    real = index.search(np.zeros((1, 12), np.float32), 2, rescore=5)
    assert real.ids.tolist() == [[4, -1]]
    assert real.distances.tolist() == [[0.0, 13.0]]
    assert index.search(queries[:0], 2).ids.shape == (0, 2)
    assert index.search(np.zeros((0, 12)), 2, rescore=1).ids.shape == (0, 2)
    assert index.range_search(queries[:0], 2).offsets.tolist() == [0]


def test_ids_continue_after_the_highest_ever_used():
    index, code = HammingIndex(8), np.zeros((1, 1), np.uint8)
    assert index.add(code).tolist() == [0]
    index.add(code, [41])
    assert index.remove([41, 41, 5]) == 1
    assert index.add(code).tolist() == [42]
    index.add(code, [41])
    assert index.ids.tolist() == [0, 41, 42]
    assert index.to("cpu").add(code).tolist() == [43]
    index.add(code, [2**63 - 1])
    assert 2**63 - 1 in index
    with pytest.raises(ValueError, match=r"1 ids from 9223372036854775808 on exceed 2\*\*63 - 1"):
        index.add(code)
    assert index.search(code, 9).ids[0, :4].tolist() == [0, 41, 42, 2**63 - 1]


def test_kinds_of_results():
    index, codes = HammingIndex(8), torch.tensor([[1], [2]], dtype=torch.uint8)
    assert index.add(codes).tolist() == [0, 1]
    assert isinstance(index.add(codes), torch.Tensor)
    assert isinstance(index.add(codes.numpy()), np.ndarray)
    assert isinstance(index.get([0]), np.ndarray)
    assert isinstance(index.get(torch.tensor([0])), torch.Tensor)
    assert all(isinstance(field, torch.Tensor) for field in index.search(codes, 1))
    assert all(isinstance(field, torch.Tensor) for field in index.range_search(codes, 1))
    assert "a" not in index
    assert np.int64(0) in index
    assert 2**70 not in index
    assert repr(index) == "HammingIndex(bits=8, codes=6, device='cpu')"


def test_what_was_added_is_a_copy():
    codes, ids = np.array([[1], [2]], np.uint8), np.array([5, 9])
    index = HammingIndex(8)
    index.add(codes, ids)
    codes[:], ids[:] = 0, 0
    copy = index.to("cpu")
    index.remove([5])
    assert copy.ids.tolist() == [5, 9]
    assert copy.get([5, 9]).tolist() == [[1], [2]]


def test_small_adds_do_not_make_many_segments():
    rng = np.random.default_rng(0)
    index, codes = HammingIndex(16), random_codes(rng, 2000, 16)
    for row in range(2000):
        index.add(codes[row : row + 1], [int(1e6) - row])
        assert len(index._contents.segments) < merge.MERGE_FAN
    np.testing.assert_array_equal(index.get(int(1e6) - np.arange(2000)), codes)
    while len(index):
        index.remove(index.ids[: max(1, len(index) // 3)])
        assert sum(segment.rows for segment in index._contents.segments) <= 2 * len(index)
    assert index._contents.segments == ()


def test_searches_see_a_whole_state_while_another_thread_changes_it():
    index, code = HammingIndex(8), np.zeros((5, 1), np.uint8)
    stop = threading.Event()
    sizes = []

    def search():
        while not stop.is_set():
            sizes.append(int((index.search(code[:1], 100).ids >= 0).sum()))

    thread = threading.Thread(target=search)
    thread.start()
    for _ in range(100):
        index.remove(index.ids[:5])
        index.add(code)
        index.add(code)
        index.remove(index.ids[:5])
    stop.set()
    thread.join()
    assert set(sizes) <= {0, 5, 10}


def packed(rows=1, width=8):
    return np.zeros((rows, width), np.uint8)


@pytest.mark.parametrize(
    ("codes", "ids", "error", "message"),
    [
        (np.zeros((1, 8)), None, TypeError, "HammingIndex.add: codes must be packed uint8 codes"),
        (packed(1, 7), None, ValueError, r"codes of 60 bits must be \[N, 8\], got shape \(1, 7\)"),
        (packed(1)[0], None, ValueError, r"got shape \(8,\)"),
        (packed(2) + 1, None, ValueError, "zeros in the 4 padding bits after bit 60, got others in 2 of 2 rows"),
        (packed(2), [1], ValueError, "2 codes need 2 ids, got 1"),
        (packed(2), [[1, 2]], ValueError, r"ids must be one-dimensional, got shape \(1, 2\)"),
        (packed(2), [1.0, 2.0], TypeError, "ids must be integers, got float64"),
        (packed(2), [True, False], TypeError, "ids must be integers, got bool"),
        (packed(2), ["a", "b"], TypeError, "ids must be"),
        (packed(2), [1, -4], ValueError, r"ids must be between 0 and 2\*\*63 - 1, got -4"),
        (packed(3), [3, 1, 3], ValueError, "ids must be distinct, got 3 more than once"),
        (packed(2), [5, 100], ValueError, "id 100 is in the index already"),
    ],
)
def test_refused_adds_change_nothing(codes, ids, error, message):
    index = HammingIndex(60)
    index.add(packed(2), [100, 101])
    with pytest.raises(error, match=message):
        index.add(codes, ids)
    assert index.ids.tolist() == [100, 101]
    assert index.add(packed(1)).tolist() == [102]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": packed(1, 7)}, ValueError, r"HammingIndex.search: queries of 60 bits must be \[N, 8\]"),
        ({"queries": packed(1) + 1}, ValueError, "queries must have zeros in the 4 padding bits"),
        ({"queries": np.zeros((1, 60), int)}, TypeError, "queries must be packed uint8"),
        ({"queries": np.zeros((1, 64))}, ValueError, r"real-valued queries must be \[Q, 60\], got shape \(1, 64\)"),
        ({"queries": np.zeros((1, 1, 60))}, ValueError, r"got shape \(1, 1, 60\)"),
        ({"queries": np.full((1, 60), 1.5)}, ValueError, r"real-valued queries must be in \[0, 1\], got 1.5"),
        ({"queries": np.full((1, 60), np.nan)}, ValueError, r"in \[0, 1\], got nan"),
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"k": 1.5}, TypeError, "float"),
        ({"rescore": -1}, ValueError, "rescore must be at least 0, got -1"),
        ({"rescore": 2}, ValueError, r"rescore needs real-valued queries \[Q, 60\], got packed codes"),
        ({"filter": np.ones(3, bool)}, ValueError, r"one value for each of the 2 ids, got shape \(3,\)"),
        ({"filter": np.ones((1, 2), bool)}, ValueError, r"got shape \(1, 2\)"),
        ({"filter": [0.5, 1.0]}, TypeError, "filter must be integers, got float64"),
        ({"filter": [[1, 2]]}, ValueError, "filter must be one-dimensional"),
    ],
)
def test_search_errors(arguments, error, message):
    index = HammingIndex(60)
    index.add(packed(2))
    with pytest.raises(error, match=message):
        index.search(**{"queries": packed(1), "k": 1, **arguments})


@pytest.mark.parametrize(
    ("bit_weights", "error", "message"),
    [
        ([(40, 3), (19, 1)], ValueError, "the groups of bit_weights must hold 60 bits, got 59"),
        ([(40, 3), (24, 1)], ValueError, "the groups of bit_weights must hold 60 bits, got 64"),
        ([(40, 3), (25, 1)], ValueError, "must hold 57 to 64 bits for codes of 8 bytes, got 65"),
        ([(60, 0)], ValueError, "must be between 1 and 255, got 0"),
        ([(60, 256)], ValueError, "must be between 1 and 255, got 256"),
        ([(0, 1), (60, 1)], ValueError, "must be at least 1, got 0"),
        ([(60, 1.5)], TypeError, r"must be an integer, got 1\.5"),
        ([(60, True)], TypeError, "must be an integer, got True"),
        ([(1, 1)] * 65, ValueError, "must have 1 to 64 groups, got 65"),
        ([], ValueError, "must have 1 to 64 groups, got 0"),
        ([60], TypeError, r"bit_weights must be pairs \(bits, weight\)"),
        (3, TypeError, r"bit_weights must be pairs \(bits, weight\), got 3"),
        ("60x1", TypeError, r"bit_weights must be pairs \(bits, weight\)"),
    ],
)
def test_weights_that_are_refused(bit_weights, error, message, tmp_path):
    with pytest.raises(error, match=f"^HammingIndex: .*{message}"):
        HammingIndex(60, bit_weights=bit_weights)
    with pytest.raises(error, match=f"^HammingIndex.build: .*{message}"):
        HammingIndex.build(tmp_path / "index", packed(3), bits=60, bit_weights=bit_weights)
    assert not (tmp_path / "index").exists()


def test_weights_in_any_form(tmp_path):
    for given in (((40, 3), (20, 1)), iter([[40, 3], [20, 1]]), np.array([[40, 3], [20, 1]]), {40: 3, 20: 1}.items()):
        index = HammingIndex(60, bit_weights=given)
        assert index.bit_weights == [(40, 3), (20, 1)]
        assert all(type(number) is int for pair in index.bit_weights for number in pair)
    index.bit_weights.append((1, 1))  # a copy
    assert index.bit_weights == [(40, 3), (20, 1)]
    assert repr(index) == "HammingIndex(bits=60, bit_weights=[(40, 3), (20, 1)], codes=0, device='cpu')"
    built = HammingIndex.build(tmp_path / "index", packed(3), bits=60, bit_weights=iter([(40, 3), (20, 1)]))
    assert built.bit_weights == [(40, 3), (20, 1)]
    assert HammingIndex(60).bit_weights is None


def test_weights_of_one_for_all_bits_are_no_weights():
    rng, index, plain = np.random.default_rng(0), HammingIndex(21, bit_weights=[(9, 1), (12, 1)]), HammingIndex(21)
    for one in (index, plain):
        one.add(random_codes(np.random.default_rng(1), 300, 21))
    z = rng.random((5, 21), np.float32)
    for arguments in ((z, 400), (z, 7, None, 3)):
        for a, b in zip(index.search(*arguments), plain.search(*arguments), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(index.range_search(z, 8), plain.range_search(z, 8), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"HammingIndex.add: codes of 21 bits must be \[N, 3\], got shape \(1, 8\)"):
        index.add(packed(1))


def test_other_errors():
    for bits in (0, -1, 65_537):
        with pytest.raises(ValueError, match=f"HammingIndex: bits must be between 1 and 65536, got {bits}"):
            HammingIndex(bits)
    with pytest.raises(TypeError):
        HammingIndex(64.0)
    with pytest.raises(RuntimeError):
        HammingIndex(64, device="no-such-device")
    index = HammingIndex(64)
    index.add(packed(3))
    with pytest.raises(KeyError, match=r"no code has id 7 \(2 of 3 ids are unknown\)"):
        index.get([1, 7, 9])
    with pytest.raises(ValueError, match=r"HammingIndex.range_search: radius must be at least 0, got -1"):
        index.range_search(packed(1), -1)
    with pytest.raises(ValueError, match=r"HammingIndex.verify: the index is in memory"):
        index.verify()
    with pytest.raises(TypeError, match=r"HammingIndex.remove: ids must be integers"):
        index.remove([0.5])


def test_wide_codes_and_single_bits():
    rng = np.random.default_rng(0)
    for bits in (1, 2, 1000):
        oracle, index = Oracle(bits), HammingIndex(bits)
        codes = random_codes(rng, 50, bits)
        assert codes.shape == (50, code_bytes(bits))
        index.add(codes)
        oracle.add(codes, None)
        check_same(index, oracle, rng)
        np.testing.assert_array_equal(unpack_bits(index.get(index.ids), bits), unpack_bits(codes, bits))


def test_upsert_replaces_and_adds():
    index, codes = HammingIndex(8), np.arange(4, dtype=np.uint8)[:, None]
    index.add(codes, [5, 6, 7, 8])
    assert index.add(codes[:3] + 100, [9, 6, 5], replace=True).tolist() == [9, 6, 5]
    assert index.ids.tolist() == [5, 6, 7, 8, 9]
    assert index.get([5, 6, 7, 8, 9]).ravel().tolist() == [102, 101, 2, 3, 100]
    assert index.add(codes[:1], replace=True).tolist() == [10]
    with pytest.raises(ValueError, match="ids must be distinct, got 5 more than once"):
        index.add(codes[:2], [5, 5], replace=True)
    with pytest.raises(ValueError, match="id 5 is in the index already; replace=True replaces it"):
        index.add(codes[:1], [5])
    assert index.get([5]).tolist() == [[102]]


def test_compact_leaves_one_segment():
    rng = np.random.default_rng(0)
    index, ids = HammingIndex(16), rng.permutation(300)
    for part in np.split(ids, 6):
        index.add(np.stack([part % 256, part // 256], 1).astype(np.uint8), part)
    index.remove(ids[::3])
    assert len(index._contents.segments) > 1
    index.compact()
    (segment,) = index._contents.segments
    assert segment.deleted == 0
    kept = np.setdiff1d(ids, ids[::3])
    np.testing.assert_array_equal(index.ids, kept)
    np.testing.assert_array_equal(index.get(kept) @ [1, 256], kept)
    before = index._contents
    index.compact()
    assert index._contents is before
    index.remove(kept)
    index.compact()
    assert index._contents.segments == ()
    with pytest.raises(ValueError, match=r"HammingIndex.refresh: the index is in memory"):
        index.refresh()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
def test_bitmaps(count, device):
    rng = np.random.default_rng(count)
    member = torch.tensor(rng.random(count) < 0.5, device=device)
    words = bitmap.pack_rows(member)
    assert bitmap.count_rows(words) == int(member.sum())
    assert torch.equal(bitmap.unpack_rows(words, count // 3, count), member[count // 3 :])
    assert torch.equal(
        bitmap.rows_between(words, count // 3, count), member.nonzero()[:, 0][member[: count // 3].sum() :]
    )
    rows = torch.arange(count, device=device)
    assert torch.equal(bitmap.has_rows(words, rows), member)
    assert torch.equal(bitmap.with_rows(words.clone(), rows[~member]), bitmap.all_rows(count, words.device))
    assert not bitmap.without_rows(words.clone(), rows[member]).any()


@pytest.mark.parametrize("rows", [1, 7, 100, 10**9])
def test_windows_cut_at_the_same_ids(rows):
    rng = np.random.default_rng(rows)
    segments = []
    for part in np.array_split(rng.permutation(1000), 5):
        segments.append(make_segment(torch.zeros(200, 1, dtype=torch.uint8), torch.tensor(part)))
    segments.append(make_segment(torch.zeros(50, 1, dtype=torch.uint8), 2000))
    segments[0] = segments[0].without(torch.arange(0, 200, 2))
    seen, last = [], -1
    for window in merge.windows([(segment, 0, segment.rows) for segment in segments], rows):
        assert sum(stop - start for _, start, stop in window) <= max(rows, len(segments))
        ids = sorted(id for segment, start, stop in window for id in segment.ids_of(torch.arange(start, stop)).tolist())
        assert ids[0] > last
        last = ids[-1]
        seen += ids
    assert seen == [*range(1000), *range(2000, 2050)]
    assert merge.repeated_id(segments, rows) is None
    again = make_segment(torch.zeros(2, 1, dtype=torch.uint8), torch.tensor([7, 2049]))
    found, holders = merge.repeated_id([*segments[1:], again], rows)
    assert found in (7, 2049)
    assert holders[-1] is again


def test_filters_over_segments_whose_ids_interleave_are_aligned_by_blocks(monkeypatch):
    monkeypatch.setattr(parts, "_WINDOW", 10)
    monkeypatch.setattr(parts, "_SPAN_BYTES", 128)
    rng = np.random.default_rng(0)
    oracle, index = Oracle(8), HammingIndex(8)
    for part in np.split(rng.permutation(1000), 5):
        codes = random_codes(rng, len(part), 8)
        index.add(codes, part)
        oracle.add(codes, part)
    gone = rng.integers(0, 1000, 300)
    assert index.remove(gone) == oracle.remove(gone.tolist())
    for _ in range(20):
        check_same(index, oracle, rng)
