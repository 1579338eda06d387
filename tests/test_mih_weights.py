"""Multi-index hashing with weights of bits: the results of the weighted scan, from few codes where weights allow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mih_cases import DATA, FORCED, check_against_scan, flipped, make, random_codes, tables_of

from fasthash.index.store import table_file

ops = torch.ops.fasthash
WEIGHTS = [
    (32, (32, 1)),
    (64, (40, 3, 24, 1)),
    (64, (1, 255, 63, 1)),
    (64, (30, 1, 4, 200, 30, 2)),
    (64, tuple(number for weight in range(1, 65) for number in (1, weight))),
    (128, (64, 7, 64, 2)),
    (13, (5, 4, 8, 9)),
    (67, (60, 255, 7, 254)),
    (100, (99, 1, 1, 90)),
    (256, (10, 3, 200, 1, 46, 5)),
]


@pytest.mark.parametrize(("bits", "weights"), WEIGHTS)
def test_tables_find_what_the_scan_finds_with_weights(bits: int, weights: tuple[int, ...], isa: str) -> None:
    rng = np.random.default_rng(bits)
    for kind in DATA:
        codes = make(kind, rng, 1500, bits)
        queries = np.concatenate([flipped(rng, codes[:6], bits, max(1, bits // 12)), random_codes(rng, 2, bits)])
        allowed = rng.random(len(codes)) < 0.3
        for budget, mask in ((FORCED, None), (FORCED, allowed), (1.0, None)):
            parts = table_file.substrings(bits, len(codes))
            done = check_against_scan(codes, queries, bits, parts, budget, mask, weights)
            assert done or budget == 1.0, f"{kind}: the tables saw no search to the end"


def test_tables_look_at_few_codes_where_weights_allow() -> None:
    """A radius below w_min x (plain radius + 1) takes no more buckets than the plain radius."""
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(random_codes(rng, 20_000, 64))
    queries = torch.from_numpy(flipped(rng, codes[:20].numpy(), 64, 3))
    tables = tables_of(codes, 64, [(0, 12), (16, 12), (32, 12), (48, 12)])
    plain = ops.mih_range(queries, codes, None, *tables, 64, 7, FORCED)[3]
    for weights, radius in (((40, 3, 24, 3), 3 * 8 - 1), ((32, 3, 32, 5), 3 * 8 - 1), ((32, 255, 32, 1), 7)):
        visited = ops.mih_range(queries, codes, None, *tables, 64, radius, FORCED, weights)[3]
        assert (visited <= plain).all()
        assert int(visited.max()) < 2_000
    heavy = ops.mih_range(queries, codes, None, *tables, 64, 254, FORCED, (32, 255, 32, 127))[3]
    assert int(heavy.sum()) < int(plain.sum()) / 10  # one bucket: codes elsewhere differ in a bit of 255
