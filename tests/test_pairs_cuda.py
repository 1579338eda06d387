"""hamming_pairs, duplicate_groups and knn_graph on a GPU, against the CPU, bit by bit.

The kernels' logic is tested in test_pairs_emulated.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fasthash
from fasthash import _ops

CUDA = torch.cuda.is_available() and bool(_ops.cuda_architectures())
needs_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")


def noisy_copies(count: int, width: int, centres: int, flipped: float = 0.03) -> NDArray[np.uint8]:
    rng = np.random.default_rng(width)
    bits = (rng.random((centres, 8 * width)) < 0.5)[rng.integers(0, centres, count)]
    return np.packbits(bits ^ (rng.random((count, 8 * width)) < flipped), axis=1)


@needs_gpu
@pytest.mark.parametrize("width", [3, 8, 16, 32, 33, 64])
def test_cuda_pairs_of_widths(width: int) -> None:
    """Small enough for the sanitizers; several squares."""
    codes, other = noisy_copies(5000, width, 400), noisy_copies(300, width, 400)
    for right in (None, other):
        expected = fasthash.hamming_pairs(codes, width, right)
        there = None if right is None else torch.from_numpy(right).cuda()
        found = fasthash.hamming_pairs(torch.from_numpy(codes).cuda(), width, there)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.cpu().numpy(), theirs)
    found, expected = (fasthash.duplicate_groups(c, width) for c in (torch.from_numpy(codes).cuda(), codes))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.cpu().numpy(), theirs)
    found, expected = (fasthash.knn_graph(c, 3) for c in (torch.from_numpy(codes).cuda(), codes))
    np.testing.assert_array_equal(found.ids.cpu().numpy(), expected.ids)


@needs_gpu
def test_cuda_pairs_of_many_codes() -> None:
    """More pairs than the first pass keeps; a limit."""
    codes = noisy_copies(100_000, 8, 500, 0.01)
    expected = fasthash.hamming_pairs(codes, 3)
    assert len(expected.ids_a) > 1 << 20
    on_gpu = torch.from_numpy(codes).cuda()
    for ours, theirs in zip(fasthash.hamming_pairs(on_gpu, 3), expected, strict=True):
        np.testing.assert_array_equal(ours.cpu().numpy(), theirs)
    with pytest.raises(ValueError, match=f"gives {len(expected.ids_a)} pairs, but limit is 100;"):
        fasthash.hamming_pairs(on_gpu, 3, limit=100)
    found, expected = fasthash.duplicate_groups(on_gpu, 3), fasthash.duplicate_groups(codes, 3)
    np.testing.assert_array_equal(found.keep.cpu().numpy(), expected.keep)
