"""What the tests of multi-index hashing share: codes, tables of them, and the comparison with the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fasthash._ops import mask_words

ops = torch.ops.fasthash
FORCED = 1e12  # a budget that never gives up for cost
Array = np.ndarray[Any, Any]


def random_codes(rng: np.random.Generator, count: int, bits: int) -> Array:
    return np.packbits(rng.integers(0, 2, (count, bits), dtype=np.uint8), axis=1)


def flipped(rng: np.random.Generator, codes: Array, bits: int, most: int) -> Array:
    """Each code with 0 to `most` of its bits changed."""
    values = np.unpackbits(codes, axis=1, count=bits)
    for row in values:
        row[rng.choice(bits, rng.integers(0, min(most, bits) + 1), replace=False)] ^= 1
    return np.packbits(values, axis=1)


def tables_of(codes: torch.Tensor, bits: int, parts: list[tuple[int, int]]) -> tuple[list[int], list[torch.Tensor]]:
    arrays = []
    for start, length in parts:
        offsets = ops.mih_offsets(codes, start, length)
        for width in (4 if bits <= 64 else 8, 0):
            whole = ops.mih_fill(codes, offsets, start, bits, width, 0, 1 << length)
            half = (1 << length) // 2
            pieces = [ops.mih_fill(codes, offsets, start, bits, width, *r) for r in ((0, half), (half, 1 << length))]
            assert torch.equal(torch.cat(pieces), whole)
            arrays += [offsets, whole] if width else [whole]
    return [start for start, _ in parts], arrays


DATA = ("random", "clustered", "duplicated", "identical", "one byte constant", "few values")


def make(kind: str, rng: np.random.Generator, count: int, bits: int) -> Array:
    codes = random_codes(rng, count, bits)
    if kind == "clustered":
        codes = flipped(rng, codes[rng.integers(0, 1 + count // 50, count)], bits, 3)
    if kind == "duplicated":
        codes = codes[rng.integers(0, 1 + count // 20, count)]
    if kind == "identical":
        codes[:] = codes[0]
    if kind == "one byte constant":
        codes[:, 0] = 0xA5 if bits >= 8 else 0
    if kind == "few values":
        values = np.unpackbits(codes, axis=1, count=bits)
        values[:, 5:] = 1
        codes = np.packbits(values, axis=1)
    return codes


def check_against_scan(
    codes: Array,
    queries: Array,
    bits: int,
    parts: list[tuple[int, int]],
    budget: float,
    allowed: Array | None = None,
    weights: tuple[int, ...] = (),
) -> int:
    """Compares both searches with the scan; gives how many k-NN searches the tables saw to the end."""
    database, wanted = torch.from_numpy(codes), torch.from_numpy(queries)
    mask = None
    if allowed is not None:
        mask = mask_words(torch.from_numpy(allowed))
    tables = tables_of(database, bits, parts)
    largest = sum(count * weight for count, weight in zip(weights[::2], weights[1::2], strict=True))
    largest = largest or 8 * codes.shape[1]
    done = 0
    for k in sorted({1, min(10, len(codes)), min(200, len(codes))}):
        expected = ops.hamming_topk(wanted, database, mask, k, weights)
        distances, positions, visited, _ = ops.mih_topk(wanted, database, mask, *tables, bits, k, None, budget, weights)
        seen = visited >= 0
        done += int(seen.sum())
        assert torch.equal(distances[seen], expected[0][seen])
        assert torch.equal(positions[seen], expected[1][seen])
        assert (positions[~seen] == -1).all()
        assert (distances[~seen] == largest + 1).all()
        bounds = expected[0][:, k // 2].contiguous()
        distances, positions, visited, _ = ops.mih_topk(
            wanted, database, mask, *tables, bits, k, bounds, budget, weights
        )
        for q in (visited >= 0).nonzero()[:, 0]:
            within = expected[0][q] <= bounds[q]
            count = int(within.sum())
            assert torch.equal(positions[q][:count], expected[1][q][within])
            assert (positions[q][count:] == -1).all()
    for radius in (0, 2, 7, *((largest // 8, largest // 4) if weights else ())):
        offsets, distances, positions = ops.hamming_range(wanted, database, mask, radius, weights)
        found = ops.mih_range(wanted, database, mask, *tables, bits, radius, budget, weights)
        for q in (found[3] >= 0).nonzero()[:, 0]:
            a, b = slice(offsets[q], offsets[q + 1]), slice(found[0][q], found[0][q + 1])
            assert torch.equal(distances[a], found[1][b])
            assert torch.equal(positions[a], found[2][b])
    return done
