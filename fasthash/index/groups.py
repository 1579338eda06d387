"""The weights of an index's bits: pairs (bits, weight) of contiguous groups, as given and as files keep them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fasthash._bit_weights import bit_weights
from fasthash.codes import code_bytes

Groups = tuple[tuple[int, int], ...]  # that make up the bits of a code; (): undivided


def groups_of(given: Any, bits: int, function: str) -> Groups:
    """What a user gives as bit_weights, for codes of `bits` bits; raises ValueError or TypeError.

    >>> groups_of([(6, 3), (4, 1)], 10, "HammingIndex"), groups_of(None, 10, "HammingIndex")
    (((6, 3), (4, 1)), ())
    >>> groups_of([(6, 3), (6, 1)], 10, "HammingIndex")
    Traceback (most recent call last):
    ValueError: HammingIndex: the groups of bit_weights must hold 10 bits, got 12
    """
    if given is None:
        return ()
    pairs = list(given) if isinstance(given, Iterable) else given
    bit_weights(pairs, function, code_bytes(bits))
    groups = tuple((int(count), int(weight)) for count, weight in pairs)
    total = sum(count for count, _ in groups)
    if total != bits:
        raise ValueError(f"{function}: the groups of bit_weights must hold {bits} bits, got {total}")
    return groups


def shown_groups(groups: Groups) -> str:
    """The groups as a message shows them, and as the command line takes them: 40x3,24x1; "none" where undivided."""
    return ",".join(f"{bits}x{weight}" for bits, weight in groups) or "none"
