"""Weights of contiguous groups of bits: the one check of what a user gives, and the form that the ops take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fasthash._arguments import shown, whole

MOST_GROUPS = 64
MOST_WEIGHT = 255
MOST_DISTANCE = 2**31 - 2  # a distance is an int32, and missing places are one further


def bit_weights(given: Any, function: str, width: int) -> tuple[int, ...]:
    """Flat (bits, weight, bits, weight, ...) of codes of `width` bytes; () where all bits count 1, and for None.

    Neighbouring groups of equal weight become one. The distances are those of what was given. Raises ValueError or
    TypeError.

    >>> bit_weights([(8, 3), (8, 1)], "hamming_topk", 2), bit_weights([(8, 1), (8, 1)], "hamming_topk", 2)
    ((8, 3, 8, 1), ())
    >>> bit_weights([(8, 3)], "hamming_topk", 2)
    Traceback (most recent call last):
    ValueError: hamming_topk: the groups of bit_weights must hold 9 to 16 bits for codes of 2 bytes, got 8
    """
    if given is None:
        return ()
    flat: list[int] = []
    for bits, weight in _groups(given, function):
        if flat and flat[-1] == weight:
            flat[-2] += bits
        else:
            flat += [bits, weight]
    total = sum(flat[::2])
    if not 8 * width - 7 <= total <= 8 * width:
        raise ValueError(
            f"{function}: the groups of bit_weights must hold {8 * width - 7} to {8 * width} bits for codes of "
            f"{width} bytes, got {total}"
        )
    if largest(flat, width) > MOST_DISTANCE:
        raise ValueError(
            f"{function}: the largest distance of bit_weights must be at most {MOST_DISTANCE}, "
            f"got {largest(flat, width)}"
        )
    return () if flat == [8 * width, 1] else tuple(flat)


def largest(flat: Sequence[int], width: int) -> int:
    """The largest distance of codes of `width` bytes: the sum of bits x weight; 8 x width where bits are not weighted.

    >>> largest((8, 3, 8, 1), 2), largest((), 2)
    (32, 16)
    """
    return sum(bits * weight for bits, weight in zip(flat[::2], flat[1::2], strict=True)) if flat else 8 * width


def _groups(given: Any, function: str) -> list[tuple[int, int]]:
    """Pairs (bits, weight) of whole numbers within their limits."""
    try:
        pairs = [tuple(pair) for pair in given]
    except TypeError:
        pairs = [()]
    if any(len(pair) != 2 for pair in pairs):
        raise TypeError(f"{function}: bit_weights must be pairs (bits, weight), got {shown(given)}")
    if not 1 <= len(pairs) <= MOST_GROUPS:
        raise ValueError(f"{function}: bit_weights must have 1 to {MOST_GROUPS} groups, got {len(pairs)}")
    return [
        (
            whole(bits, function, f"bits of group {i} of bit_weights", 1),
            whole(weight, function, f"weight of group {i} of bit_weights", 1, MOST_WEIGHT),
        )
        for i, (bits, weight) in enumerate(pairs)
    ]
