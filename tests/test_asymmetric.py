"""Asymmetric distances (real-valued queries, packed codes) against the oracle."""

from __future__ import annotations

import pytest
import torch

from fasthash import _ops, reference

ops = torch.ops.fasthash


def example(queries: int, candidates: int, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(bits + candidates)
    width = (bits + 7) // 8
    codes = torch.randint(0, 256, (queries, candidates, width), dtype=torch.uint8, generator=generator)
    return torch.rand(queries, bits, generator=generator), codes


@pytest.mark.parametrize("bits", [1, 3, 4, 5, 8, 9, 31, 64, 100, 128, 1000, 4096])
@pytest.mark.parametrize("candidates", [0, 1, 7, 8, 9, 33])
def test_matches_the_oracle(bits: int, candidates: int, device: torch.device) -> None:
    # Sums of these float32 numbers are exact in float64: equal whatever the order. Padding bits are set here, and do
    # not count.
    queries, codes = example(3, candidates, bits)
    wanted = reference.asymmetric_distances(queries, codes)
    found = ops.asymmetric_distances(queries.to(device), codes.to(device))
    assert found.dtype == torch.float32
    assert torch.equal(found.cpu(), wanted)
    assert torch.equal(_ops.asymmetric.by_tables(queries.double(), codes), wanted)


@pytest.mark.parametrize(
    "groups",
    [
        [(1, 255)],
        [(5, 3), (3, 1)],
        [(2, 7), (1, 1), (6, 200)],
        [(60, 3), (4, 90), (33, 1)],
        [(1, w) for w in range(1, 65)],
    ],
)
def test_weights_match_the_oracle(groups: list[tuple[int, int]], device: torch.device) -> None:
    bits, flat = sum(count for count, _ in groups), [number for pair in groups for number in pair]
    queries, codes = example(3, 33, bits)
    wanted = reference.asymmetric_distances(queries, codes, groups)
    assert torch.equal(ops.asymmetric_distances(queries.to(device), codes.to(device), flat).cpu(), wanted)
    assert torch.equal(_ops.asymmetric.by_tables(queries.double(), codes, flat), wanted)
    ones = [number for count, _ in groups for number in (count, 1)]
    assert torch.equal(ops.asymmetric_distances(queries, codes, ones), reference.asymmetric_distances(queries, codes))


@pytest.mark.parametrize("weights", [(), (100, 3, 250, 255, 150, 17)])
def test_one_order_of_summation(weights: tuple[int, ...], device: torch.device) -> None:
    queries, codes = example(5, 40, 500)
    queries = queries.double() * torch.logspace(-30, 30, 500, dtype=torch.float64)
    found = ops.asymmetric_distances(queries.to(device), codes.to(device), weights)
    assert torch.equal(found.cpu(), _ops.asymmetric.by_tables(queries, codes, weights))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_candidates_and_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for queries, candidates in ((2, 10_000), (700, 100), (0, 5)):
            real, codes = example(queries, candidates, 64)
            wanted = torch.cat(
                [reference.asymmetric_distances(*pair) for pair in zip(real.split(64), codes.split(64), strict=True)]
            )
            assert torch.equal(ops.asymmetric_distances(real, codes), wanted)
    finally:
        torch.set_num_threads(before)


def test_codes_of_bytes_that_lie_apart() -> None:
    queries, codes = example(3, 9, 64)
    wide = torch.zeros(3, 18, 11, dtype=torch.uint8)
    wide[:, ::2, 2:10] = codes
    assert torch.equal(
        ops.asymmetric_distances(queries, wide[:, ::2, 2:10]), reference.asymmetric_distances(queries, codes)
    )


def test_bits_that_do_not_fit_are_refused() -> None:
    queries, _ = example(2, 3, 65)
    with pytest.raises(ValueError, match="D between 1 and 8 W"):
        ops.asymmetric_distances(queries, torch.zeros(2, 3, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="the groups must have D bits in all"):
        ops.asymmetric_distances(queries, torch.zeros(2, 3, 9, dtype=torch.uint8), [66, 3])
    with pytest.raises(ValueError, match="at least 1 bit, weight 1 to 255"):
        ops.asymmetric_distances(queries, torch.zeros(2, 3, 9, dtype=torch.uint8), [-1, 3, 66, 1])
