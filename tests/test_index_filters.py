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


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_mask_of_small_integers_is_refused(dtype):
    index = HammingIndex(64)
    index.add(random_codes(10))
    mask = np.zeros(10, dtype)
    mask[3] = 1
    with pytest.raises(TypeError, match=r"HammingIndex.search: filter is a mask of torch.u?int8, .* make it boolean"):
        index.search(random_codes(1), 2, filter=mask)
    assert index.search(random_codes(1), 10, filter=np.arange(10, dtype=dtype)).ids.max() == 9  # these are ids
    assert index.search(random_codes(1), 2, filter=np.array([1, 0, 1], dtype)).ids.max() == 1


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
