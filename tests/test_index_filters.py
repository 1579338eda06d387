"""Filters of HammingIndex: masks and ids over segments of every kind; few ids cost no pass over all rows."""

import numpy as np
import pytest
import torch

from fasthash.hamming import hamming_topk
from fasthash.index import HammingIndex, bitmap


def random_codes(rows, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 8), np.uint8)


@pytest.fixture(params=["implicit", "explicit", "interleaved", "deleted"])
def index(request):
    made, rng = HammingIndex(64), np.random.default_rng(1)
    if request.param == "implicit":
        made.add(random_codes(5000))
    elif request.param == "explicit":
        made.add(random_codes(5000), ids=rng.permutation(20_000)[:5000])
    else:
        ids = rng.permutation(9000)
        made.add(random_codes(4500, 2), ids=ids[:4500])
        made.add(random_codes(4500, 3), ids=ids[4500:])
        if request.param == "deleted":
            made.remove(ids[::3])
    return made


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.2, 1.0])
@pytest.mark.parametrize("order", ["ascending", "shuffled", "repeated"])
def test_ids_and_masks_allow_the_same(index, part, order, monkeypatch):
    monkeypatch.setattr("fasthash.index.search.parts._WINDOW", 256)  # several pieces
    monkeypatch.setattr(bitmap, "_WORDS", 8)
    rng = np.random.default_rng(int(1000 * part))
    ids = index.ids
    mask = rng.random(len(ids)) < part
    allowed = ids[mask]
    if order != "ascending":
        allowed = rng.permutation(np.concatenate([allowed, [10**9, 2**62]]))
    if order == "repeated":
        allowed = np.concatenate([allowed, allowed[::2]])
    queries, codes = random_codes(3, 9), index.get(ids)
    found = index.search(queries, 20, filter=allowed)
    count = min(20, int(mask.sum()))
    if count:
        expected = hamming_topk(queries, codes, count, filter=mask)
        np.testing.assert_array_equal(found.distances[:, :count], expected.distances)
        np.testing.assert_array_equal(found.ids[:, :count], ids[expected.ids])
    assert (found.ids[:, count:] == -1).all()
    masked = index.search(queries, 20, filter=mask)
    np.testing.assert_array_equal(masked.ids, found.ids)
    np.testing.assert_array_equal(masked.distances, found.distances)
    for a, b in zip(
        index.range_search(queries, 24, filter=mask), index.range_search(queries, 24, filter=allowed), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_few_ids_need_no_bitmap_of_all_rows(index, monkeypatch):
    ids = index.ids[::500]
    expected = index.search(random_codes(2), 5, filter=np.isin(index.ids, ids))
    monkeypatch.setattr("fasthash.index.search.parts.add_ascending", None)
    monkeypatch.setattr("fasthash.index.search.parts.count_rows", None)
    np.testing.assert_array_equal(index.search(random_codes(2), 5, filter=ids).ids, expected.ids)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64, list])
@pytest.mark.parametrize("device", ["cpu", ["cpu", "cpu"]])
def test_zeros_and_ones_are_no_filter(dtype, device):
    index = HammingIndex(64, device)
    index.add(random_codes(10))
    mask = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    for given in (mask, [1, 0, 1], [0, 0]):
        numbers = given if dtype is list else np.array(given, dtype)
        with pytest.raises(
            TypeError, match=r"HammingIndex.search: filter is ambiguous: it holds only 0 and 1, .* For a mask pass"
        ):
            index.search(random_codes(1), 2, filter=numbers)
        with pytest.raises(
            TypeError,
            match=r"HammingIndex.range_search: filter is ambiguous: it holds only 0 and 1, .* for the ids 0 and 1 pass",
        ):
            index.range_search(random_codes(1), 2, filter=numbers)
    for given in (range(10), [0, 1], [1], [3, 3, 1], [0, 1, 2, 1]):  # these are ids
        numbers = list(given) if dtype is list else np.array(list(given), dtype)
        expected = index.search(random_codes(1), 10, filter=np.isin(index.ids, list(given)))
        np.testing.assert_array_equal(index.search(random_codes(1), 10, filter=numbers).ids, expected.ids)


@pytest.mark.parametrize("with_bitwise_count", [True, False])
def test_counting_and_setting_rows(with_bitwise_count, monkeypatch):
    if not with_bitwise_count:  # as in numpy 1
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    elif not hasattr(np, "bitwise_count"):
        pytest.skip("numpy 1")
    monkeypatch.setattr(bitmap, "_WORDS", 4)
    rng = np.random.default_rng(3)
    for count in (1, 63, 64, 65, 255, 256, 257, 1000):
        words = torch.zeros((count + 63) // 64, dtype=torch.int64)
        member = np.zeros(count, bool)
        for part in (0.0, 0.05, 0.5, 1.0):
            rows = np.sort(rng.integers(0, count, int(part * count)))
            member[rows] = True
            bitmap.add_ascending(words, torch.from_numpy(rows))
            assert bitmap.count_rows(words) == member.sum()
            assert torch.equal(words, bitmap.pack_rows(torch.from_numpy(member)))


def test_one_query_and_one_id_need_no_brackets():
    index = HammingIndex(64)
    index.add(random_codes(10))
    query, outputs = random_codes(1), np.random.default_rng(0).random((1, 64))
    np.testing.assert_array_equal(index.search(query[0], 3).ids, index.search(query, 3).ids)
    np.testing.assert_array_equal(index.range_search(query[0], 30).ids, index.range_search(query, 30).ids)
    found, expected = index.search(outputs[0], 3, rescore=2), index.search(outputs, 3, rescore=2)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert index.get(7).shape == (1, 8)
    assert index.search(query, 2, filter=7).ids.tolist() == [[7, -1]]
    assert index.remove(7) == 1
    assert index.remove(np.int64(7)) == 0
    assert len(index) == 9
