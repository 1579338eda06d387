"""The plan of top-k in one pass on CUDA (csrc/hamming/cuda/one_pass_plan.h), with the sizes of a GPU, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from emulation import Emulation, compiler
from one_pass_simulation import GROUP_ROWS, ORDERS, fallen_back, plan_library


@pytest.fixture(scope="module")
def plan() -> Iterator[Emulation]:
    if compiler() is None:
        pytest.skip("the plan is compiled by g++")
    library = plan_library()
    yield library
    library.close()


SIZES = [32_768, 65_536, 65_537, 100_000, 262_145, 1_000_000, 3_333_333, 20_000_001]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [1, 129, 5000])
def test_every_row_is_visited_once(plan: Emulation, n: int, k: int) -> None:
    """The sample has enough rows, evenly spread; no later stretch is more than 8 times what was visited before."""
    shape = plan.call("one_pass_shape", q=1, n=n, width=8, k=k)
    stretch, twice = plan.call("one_pass_stretches", n=n, k=k, group_rows=GROUP_ROWS)
    assert twice == 0
    assert stretch.min() >= 0
    assert stretch.max() == shape["stretches"]
    if shape["stretches"] == 0:
        return
    sample = np.flatnonzero(stretch == 0)
    assert len(sample) * GROUP_ROWS >= max(16_384, 4 * k) - GROUP_ROWS  # a group behind the last row
    assert shape["first_rows"] <= n
    cell = len(stretch) / len(sample)
    assert np.diff(sample).max() <= 2 * cell + 1
    visited = np.cumsum(np.bincount(stretch))
    assert (np.diff(visited) <= 8 * visited[:-1]).all()


def test_sizes_of_a_billion_codes(plan: Emulation) -> None:
    shape = plan.call("one_pass_shape", q=1, n=10**9, width=8, k=10)
    assert shape["pays"]
    assert shape["stretches"] == 5
    assert 16_384 <= shape["first_rows"] <= 32_768
    assert shape["room"] < 5000


def test_at_most_one_query_in_a_hundred_falls_back(plan: Emulation) -> None:
    found = list(fallen_back(plan, 1_000_000, 100, [10]))
    assert len(found) == len(ORDERS)
    assert all(share <= 0.01 for _, _, share in found), found


@pytest.mark.parametrize(
    ("q", "n", "width", "k", "pays"),
    [
        (1, 100_000, 8, 10, False),
        (1, 1_000_000, 8, 10, False),
        (1, 8_000_000, 8, 10, False),
        (1, 8_400_000, 8, 10, True),
        (1, 2_000_000, 32, 10, False),
        (1, 2_100_000, 32, 10, True),
        (1, 8_000_000, 1, 10, False),  # narrow codes cost no less to count than those of 64 bits
        (8, 1_000_000, 8, 10, False),
        (9, 1_000_000, 8, 10, True),
        (1024, 100_000, 8, 10, True),
        (1024, 60_000, 8, 10, False),  # the sample would be more than a quarter
        (1, 10**9, 8, 10, True),
        (1024, 10**9, 8, 16_384, True),
        (1024, 10**9, 8, 16_385, False),
        (1, 10**9, 8, 10**8, False),
        (0, 10**9, 8, 10, False),
    ],
)
def test_small_problems_take_the_short_way(plan: Emulation, q: int, n: int, width: int, k: int, pays: bool) -> None:
    assert bool(plan.call("one_pass_shape", q=q, n=n, width=width, k=k)["pays"]) is pays
